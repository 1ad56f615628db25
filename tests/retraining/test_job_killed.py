"""Wherever the scheduled job is killed, nothing is lost or done twice, and nobody else runs meanwhile."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from retraining_fixtures import champions, drop, outcomes, records, rows, verified
from retraining_project import NAME, reviews
from warm import Warm, put_back

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(job_project: Path) -> Path:
    """The job's project in the state that the test's marker names, not conftest's empty one."""
    return job_project


def check(project: Path, label: str) -> None:
    """No row is lost and none taken twice; every record is closed."""
    assert rows(project)["text"].tolist() == reviews(10)["text"].tolist(), label
    bad = [
        json.loads(line)["row"]
        for file in (project / "data/quarantine").glob("*.rows.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert bad == [10, 11], label
    assert [file.name[17:] for file in (project / "data/accepted").iterdir()] == ["new.csv"], label
    assert not list((project / "data/incoming").iterdir()), label
    assert "RUNNING" not in outcomes(project), label
    assert all("mlflow_run" in record for record in records(project)), label


def test_killed_anywhere_while_it_takes_in_nothing_is_lost_or_taken_twice(
    project: Path, states: Path, warm: Warm
) -> None:
    bad = pd.DataFrame({"text": [" ", "fine"], "label": ["1", "maybe"]})
    mixed = pd.concat([reviews(10), bad], ignore_index=True)
    drop(project, mixed)
    labels = warm.run(project, "retrain").side_effects
    assert {"wrote data/quarantine", "wrote data/labelled/reviews", "moved to data/accepted", "report"} <= set(labels)
    for number in one_of_each(labels):
        put_back(states / "one", project)
        drop(project, mixed)
        assert warm.run(project, "retrain", kill_after=number).code == -signal.SIGKILL
        after = warm.run(project, "retrain")
        assert after.code == 0, (labels[number - 1], after.out)
        check(project, labels[number - 1])
        assert champions(project) == ["1"] and verified(warm, project), labels[number - 1]


def test_killed_anywhere_while_it_refuses_a_file_somebody_is_told(project: Path, states: Path, warm: Warm) -> None:
    sent = project / "printed-sent"
    options = {"SENTIMENT_NOTIFY_COMMAND": f'cat >> "{sent}"'}
    stars = reviews(30).assign(label=[1, 2, 3, 4, 5] * 6)
    sentence = "data/incoming/new.csv: refused as a whole: its labels are of another scale than 0 and 1"
    drop(project, stars)
    labels = warm.run(project, "retrain", **options).side_effects
    assert labels.index("report") < labels.index("moved to data/quarantine") and "wrote data/quarantine" in labels
    for number in range(1, len(labels) + 1):
        put_back(states / "one", project)
        drop(project, stars)
        assert warm.run(project, "retrain", kill_after=number, **options).code == -signal.SIGKILL
        after = warm.run(project, "retrain", **options)
        said = [record for record in records(project) if sentence in str(record.get("refused"))]
        assert said and sentence in sent.read_text(), (labels[number - 1], after.out)
        ended = any(record["outcome"] == "FAILED" and record["reason"] != "it was killed" for record in said)
        assert ended and after.code in (0, 3), (labels[number - 1], after.out)
        assert [file.name[17:] for file in (project / "data/quarantine").glob("*.csv")] == ["new.csv"]
        assert warm.run(project, "retrain", **options).code == 0 and outcomes(project)[-1] == "SKIPPED"


def test_what_was_refused_is_told_though_run_after_run_is_killed(project: Path, warm: Warm) -> None:
    sent = project / "printed-sent"
    drop(project, reviews(30).assign(label=[1, 2, 3, 4, 5] * 6))
    for place in ("moved to data/quarantine", "report", "report"):  # the last two: a record is ended, one is begun
        assert warm.run(project, "retrain", kill_at=place).code == -signal.SIGKILL
    assert "decision: fail: data/incoming/new.csv" in warm.run(project, "retrain", "--dry-run").out
    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f'(cat; echo) >> "{sent}"')
    assert done.code == 3 and outcomes(project)[1:] == ["FAILED"] * 3
    assert [line for line in sent.read_text().splitlines() if ": FAILED" in line] == [
        f"{NAME}, retraining run {run}: FAILED" for run in (2, 3, 4)
    ]


def one_of_each(labels: list[str]) -> list[int]:
    """The numbers, from 1, of the last side effect of each label, and of the first of reports."""
    last = {label: number for number, label in enumerate(labels, start=1)}
    return sorted({*last.values(), labels.index("report") + 1})


@pytest.mark.state("trained")
def test_killed_anywhere_after_the_training_the_next_run_completes_it(project: Path, states: Path, warm: Warm) -> None:
    sent = project / "printed-sent"
    options = {"SENTIMENT_NOTIFY_COMMAND": f'cat >> "{sent}"'}
    labels = warm.run(project, "retrain", "--commit", **options).side_effects
    assert {"report", "git add", "git commit"} <= set(labels)
    for number in one_of_each(labels):
        put_back(states / "trained", project)
        assert warm.run(project, "retrain", "--commit", kill_after=number, **options).code == -signal.SIGKILL
        after = warm.run(project, "retrain", "--commit", **options)
        assert after.code == 0, (labels[number - 1], after.out)
        assert outcomes(project).count("PROMOTED") == 2, (labels[number - 1], outcomes(project))
        assert "RUNNING" not in outcomes(project)
        assert champions(project) == ["1", "2"]
        assert f"{NAME}, retraining run" in sent.read_text() and ": PROMOTED" in sent.read_text()
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True).stdout
        assert all("reports/retrain" in line for line in changed.splitlines()), changed


def test_a_kill_takes_the_stages_along_and_meanwhile_nobody_else_starts(project: Path, warm: Warm) -> None:
    (project / "pause").touch()
    drop(project, reviews(30))
    job = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "retrain"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert job.stdout
    assert any(line == "the stage waits\n" for line in job.stdout)
    second = warm.run(project, "retrain")
    assert second.code == 75
    assert f"a retraining is under way, begun by process {job.pid} of " in second.out
    assert len(records(project)) == 2
    job.kill()
    job.stdout.read()  # until the stage, which holds the other end, has ended too
    job.stdout.close()
    job.wait()
    (project / "pause").unlink()
    done = warm.run(project, "retrain", "--max-minutes", "0")
    assert done.code == 1 and "the time was over" in done.out
    done = warm.run(project, "retrain")
    assert done.code == 0, done.out
    assert outcomes(project) == ["PROMOTED", "FAILED", "FAILED", "PROMOTED"]
    assert champions(project) == ["1", "2"] and len(rows(project)) == 30


def test_what_a_kill_left_half_written_is_nothing(project: Path, warm: Warm) -> None:
    for leftover in (
        "reports/retrain/.000002.4194303.partial.json",
        "data/labelled/reviews/.000001-0123.1.partial.parquet",
    ):
        (project / leftover).parent.mkdir(exist_ok=True)
        (project / leftover).write_bytes(b"{")
    drop(project, reviews(10))
    assert warm.run(project, "retrain").code == 0
    assert outcomes(project) == ["PROMOTED", "SKIPPED"] and len(rows(project)) == 10
