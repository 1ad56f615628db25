"""The scheduled job decides, trains, lets the gate decide, and records."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, edit_params
from retraining_fixtures import age_champion, champions, drop, mlflow_runs, outcomes, records, rows, verified
from retraining_project import NAME, reviews
from warm import Warm

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(job_project: Path) -> Path:
    """The job's project in the state that the test's marker names, not conftest's empty one."""
    return job_project


def test_the_first_run_trains_promotes_and_commits(project: Path) -> None:
    (record,) = records(project)
    assert record["outcome"] == "PROMOTED" and record["champion_before"] is None and record["champion_after"] == "1"
    assert record["key"] and record["seconds"]["repro"] > 0 and list(record["children"]) == ["tiny"]
    log = subprocess.run(["git", "log", "--format=%s"], cwd=project, capture_output=True, text=True).stdout
    assert log.splitlines()[0] == "Retraining run 1: promoted"
    assert not subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True).stdout


def test_with_nothing_to_do_it_skips_without_tensorflow(project: Path) -> None:
    code = """
import sys
from pipeline import cli
try: cli.main()
finally: print("tensorflow" in sys.modules, "keras" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "retrain"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "SKIPPED: no trigger fires" in done.stdout and done.stdout.endswith("False False\n")
    assert records(project)[-1]["triggers"][3]["figures"] == {"new_rows": 0, "min_new_rows": 20}


def test_a_dry_run_shows_the_decision_and_changes_nothing(project: Path, warm: Warm) -> None:
    drop(project, reviews(30))
    before = snapshot(project)
    done = warm.run(project, "retrain", "--dry-run")
    assert done.code == 0
    assert "30 usable rows, 30 of them new" in done.out
    assert "decision: train: new reviews: 30 are new to champion and challenger, 20 are enough" in done.out
    assert snapshot(project) == before


def snapshot(project: Path) -> dict[str, bytes]:
    left_out = ("printed", ".dvc/tmp", ".git/index", "mlflow.db-")
    return {
        name: file.read_bytes()
        for file in project.rglob("*")
        if file.is_file() and not (name := str(file.relative_to(project))).startswith(left_out)
    }


@pytest.mark.state("trained")
def test_a_run_that_was_killed_after_the_training_is_completed(project: Path, warm: Warm) -> None:
    done = warm.run(project, "retrain", "--commit")
    assert done.code == 0, done.out
    assert "yes           unfinished run" in done.out and "Running stage" not in done.out
    assert outcomes(project) == ["PROMOTED", "FAILED", "PROMOTED"]
    last = records(project)[-1]
    assert (last["champion_before"], last["champion_after"]) == ("1", "2")
    assert list(last["children"]) == ["tiny"]
    history = warm.run(project, "retrain", "--history").out
    assert re.search(r"^3 .* PROMOTED", history, re.MULTILINE) and "it was killed" in history
    runs = mlflow_runs(project)
    assert [run["retrain.outcome"] for run in runs] == ["PROMOTED", "FAILED", "PROMOTED"]
    assert parent_of(project, last["children"]["tiny"]) == last["mlflow_run"]
    # The same inputs again are a no-op that says so, even by force; then back to the version before.
    again = warm.run(project, "retrain", "--force")
    assert "but data, params and code are those of run 3, PROMOTED, so nothing new would come out" in again.out
    assert outcomes(project)[-1] == "SKIPPED" and champions(project) == ["1", "2"]
    assert warm.run(project, "registry", "rollback", "--reason", "worse in use").code == 0
    assert champions(project)[-1] == "1" and verified(warm, project)


def parent_of(project: Path, run: str) -> str | None:
    with sqlite3.connect(project / "mlflow.db") as database:
        found = database.execute(
            "select value from tags where key = 'mlflow.parentRunId' and run_uuid = ?", (run,)
        ).fetchone()
    return found and found[0]


@pytest.mark.state("trained")
@pytest.mark.parametrize("cached", [True, False])
def test_the_new_reviews_that_a_version_was_trained_on_can_be_had_again(
    project: Path, tmp_path: Path, cached: bool
) -> None:
    if not cached:  # `dvc gc` has been there
        shutil.rmtree(project / ".dvc/cache")
    run = json.loads((project / "reports/runs/tiny.json").read_text())["run_id"]
    pointer, clone = project / "mlartifacts" / run / "artifacts/dvc/reviews.dvc", tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    assert rows(clone).empty
    code = f"from pipeline.registry.reproduction import *; bring_labelled(Path({str(pointer)!r}), Path({str(clone)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=project, env=environment, check=True)
    assert rows(clone)["text"].tolist() == reviews(30)["text"].tolist()


def test_a_challenger_that_the_gate_rejects_leaves_the_champion_and_ends_with_4(project: Path, warm: Warm) -> None:
    edit_params(project, gate__non_inferiority_margin=0.0, gate__label_slice_margin=0.0)
    drop(project, reviews(40, 700), "more.csv")
    sent = project / "printed-sent"
    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f'(echo "$SENTIMENT_OUTCOME"; cat) > {sent}')
    assert done.code == 4, done.out
    assert outcomes(project)[-1] == "REJECTED" and champions(project)[-1] == "1"
    assert sent.read_text().startswith(f"REJECTED\n{NAME}, retraining run 2: REJECTED\n")


@pytest.mark.state("trained")
def test_weights_that_are_registered_already_make_no_new_version(project: Path, warm: Warm) -> None:
    drop(project, reviews(40, 700), "more.csv")
    assert warm.run(project, "retrain").code == 0
    listed = warm.run(project, "registry", "list", "--name", NAME).out
    assert champions(project) == ["1", "2"] and "champion" in listed and "\n3  " not in listed
    assert verified(warm, project)


def test_an_old_champion_is_a_reason_only_where_something_changed(project: Path, warm: Warm) -> None:
    age_champion(project, days=-200)
    done = warm.run(project, "retrain")
    assert done.code == 0 and "made 200.0 days ago" in done.out
    assert "so nothing new would come out" in done.out
    drop(project, reviews(3))
    assert "decision: train: champion's age" in warm.run(project, "retrain", "--dry-run").out


def test_drifted_reviews_are_a_reason_to_train(project: Path, warm: Warm) -> None:
    edit_params(project, retrain__min_new_rows=1000, retrain__drift__min_rows=50)
    shouted = reviews(60).assign(text=lambda table: table["text"].str.upper())
    drop(project, shouted)
    done = warm.run(project, "retrain", "--dry-run")
    assert re.search(r"yes +drift of the text +token_distance 0\.\d+ \(at most 0\.1\)", done.out), done.out
