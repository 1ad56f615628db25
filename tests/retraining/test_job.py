"""The scheduled job decides, trains, lets the gate decide, records; and nothing that happens to it loses anything."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import retraining_project
from conftest import ROOT, edit_params
from retraining_project import NAME, reviews
from warm import Warm, put_back

from pipeline.registry.ledger import Ledger

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    made = Warm()
    yield made
    made.end()


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Path:
    """Holds a project as it stood after its first run (`one`), and after a run that was killed when `dvc repro` had
    trained on new reviews and registered, before anything was made of it (`trained`)."""
    folder = tmp_path_factory.mktemp("retrain")
    project = folder / "project"
    project.mkdir()
    retraining_project.make(project)
    first = warm.run(project, "retrain", "--commit")
    assert first.code == 0, first.out
    put_back(project, folder / "one")
    drop(project, reviews(30))
    killed = warm.run(project, "retrain", kill_at="dvc repro")
    assert killed.code == -signal.SIGKILL
    put_back(project, folder / "trained")
    return folder


@pytest.fixture
def project(states: Path, request: pytest.FixtureRequest) -> Path:
    """The project in the state that the test's marker names, else after its first run."""
    marker = request.node.get_closest_marker("state")
    put_back(states / (marker.args[0] if marker else "one"), states / "project")
    return states / "project"


def drop(project: Path, content: pd.DataFrame | bytes, name: str = "new.csv") -> Path:
    file = project / "data/incoming" / name
    file.parent.mkdir(exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content.to_csv(file, index=False)
    return file


def records(project: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((project / "reports/retrain").glob("*.json"))]


def outcomes(project: Path) -> list[str]:
    return [record["outcome"] for record in records(project)]


def champions(project: Path) -> list[str | None]:
    """Who was champion, one after the other."""
    contents = Ledger(project / "registry" / f"{NAME}.jsonl").read()
    assert not contents.problems and not contents.torn
    return [line["to"] for line in contents.lines]


def rows(project: Path) -> pd.DataFrame:
    """All rows that there are of what was dropped in: in the data set and in quarantine."""
    batches = sorted((project / "data/labelled/reviews").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in batches]) if batches else pd.DataFrame({"text": []})


def verified(warm: Warm, project: Path) -> bool:
    done = warm.run(project, "registry", "verify", "--name", NAME)
    print(done.out)  # what is wrong, where a test fails
    return done.code == 0


# ---- what one run does


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


def mlflow_runs(project: Path) -> list[dict[str, str]]:
    with sqlite3.connect(project / "mlflow.db") as database:
        found = database.execute(
            "select run_uuid, t.key, t.value from runs join tags t using (run_uuid) where run_uuid in "
            "(select run_uuid from tags where key = 'retrain') order by start_time"
        ).fetchall()
    runs: dict[str, dict[str, str]] = {}
    for run, key, value in found:
        runs.setdefault(run, {})[key] = value
    return sorted(runs.values(), key=lambda tags: int(tags["retrain.run"]))


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
    told = project / "printed-told"
    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f'(echo "$SENTIMENT_OUTCOME"; cat) > {told}')
    assert done.code == 4, done.out
    assert outcomes(project)[-1] == "REJECTED" and champions(project)[-1] == "1"
    assert told.read_text().startswith(f"REJECTED\n{NAME}, retraining run 2: REJECTED\n")


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


def age_champion(project: Path, days: int) -> None:
    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute("update model_versions set creation_time = creation_time + ?", (days * 86_400_000,))


def test_drifted_reviews_are_a_reason_to_train(project: Path, warm: Warm) -> None:
    edit_params(project, retrain__min_new_rows=1000, retrain__drift__min_rows=50)
    shouted = reviews(60).assign(text=lambda table: table["text"].str.upper())
    drop(project, shouted)
    done = warm.run(project, "retrain", "--dry-run")
    assert re.search(r"yes +drift of the text +token_distance 0\.\d+ \(at most 0\.1\)", done.out), done.out


# ---- what may happen to it


def check(project: Path, label: str) -> None:
    """No row is lost and none taken twice; every record is closed."""
    assert rows(project)["text"].tolist() == reviews(10)["text"].tolist(), label
    bad = [
        json.loads(line)["row"] for file in (project / "data/quarantine").glob("*.rows.jsonl") for line in file.open()
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


def one_of_each(labels: list[str]) -> list[int]:
    """The numbers, from 1, of the last side effect of each label, and of the first of reports."""
    last = {label: number for number, label in enumerate(labels, start=1)}
    return sorted({*last.values(), labels.index("report") + 1})


@pytest.mark.state("trained")
def test_killed_anywhere_after_the_training_the_next_run_completes_it(project: Path, states: Path, warm: Warm) -> None:
    told = project / "printed-told"
    options = {"SENTIMENT_NOTIFY_COMMAND": f'cat >> "{told}"'}
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
        assert f"{NAME}, retraining run" in told.read_text() and ": PROMOTED" in told.read_text()
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


def test_a_damaged_report_fails_the_run_and_once_it_is_mended_the_next_one_goes_on(project: Path, warm: Warm) -> None:
    report = project / "reports/runs/tiny.json"
    content = report.read_text()
    report.write_text(content[:20])
    drop(project, reviews(30))
    done = warm.run(project, "retrain")
    assert done.code == 3 and "runs/tiny.json" in done.out
    report.write_text(content)
    assert warm.run(project, "retrain").code == 0
    assert outcomes(project) == ["PROMOTED", "FAILED", "PROMOTED"] and champions(project) == ["1", "2"]


def test_a_record_that_cannot_be_read_is_told(project: Path, warm: Warm) -> None:
    (project / "reports/retrain/000001.json").write_text("{")
    told = project / "printed-told"
    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f'(echo "$SENTIMENT_OUTCOME"; cat) > {told}')
    assert done.code == 3 and "000001.json" in told.read_text() and told.read_text().startswith("FAILED\n")


def test_a_new_store_gets_a_champion_again(project: Path, warm: Warm) -> None:
    (project / "mlflow.db").unlink()
    done = warm.run(project, "retrain")
    assert done.code == 0 and "it will be registered anew" in done.out, done.out
    assert "Running stage 'train'" not in done.out
    assert outcomes(project) == ["PROMOTED", "PROMOTED"] and records(project)[-1]["champion_after"] == "1"
    assert warm.run(project, "retrain").code == 0 and outcomes(project)[-1] == "SKIPPED"


@pytest.mark.parametrize("claimed_path", ["reports/train/tiny", "data/labelled/reviews"])
def test_what_a_dvc_claimed_that_is_gone_keeps_nobody_from_running(
    project: Path, warm: Warm, claimed_path: str
) -> None:
    claimed = {"pid": 1, "cmd": "dvc repro"}  # a number that after a reboot is another's
    claims = {"read": {}, "write": {str(project / claimed_path): claimed}}
    (project / ".dvc/tmp/rwlock").write_text(json.dumps(claims))
    drop(project, reviews(30))
    done = warm.run(project, "retrain")
    assert done.code == 0 and outcomes(project) == ["PROMOTED", "PROMOTED"], done.out


def test_a_full_disk_loses_nothing(project: Path, warm: Warm) -> None:
    drop(project, reviews(10))
    done = warm.run(project, "retrain", largest_file=9_000)
    assert done.code != 0
    assert "could not be written" in done.out, done.out
    assert (project / "data/incoming/new.csv").exists() and rows(project).empty
    assert warm.run(project, "retrain").code == 0
    assert len(rows(project)) == 10 and champions(project) == ["1"]


def test_little_space_is_told_before_anything_is_done(project: Path, warm: Warm) -> None:
    edit_params(project, retrain__min_free_gb=1e9)
    file = drop(project, reviews(10))
    done = warm.run(project, "retrain")
    assert done.code == 1 and "GB are free at" in done.out and "retrain.min_free_gb asks for" in done.out
    assert file.exists() and outcomes(project)[-1] == "FAILED"


def test_a_damaged_file_is_kept_the_job_ends_with_3_and_the_next_run_goes_on(project: Path, warm: Warm) -> None:
    drop(project, b"PAR1 torn", "torn.parquet")
    drop(project, reviews(10))
    done = warm.run(project, "retrain")
    assert done.code == 3 and "torn.parquet" in done.out and "is not a Parquet file" in done.out
    assert len(rows(project)) == 10  # the other file was taken in
    assert warm.run(project, "retrain").code == 0
    assert outcomes(project)[1:] == ["FAILED", "SKIPPED"] and champions(project) == ["1"]


def test_a_flood_of_contradictions_stops_before_training(project: Path, warm: Warm) -> None:
    known = reviews(60, start=48)  # the training reviews of the project
    drop(project, known.assign(label=1 - known["label"]))
    assert "decision: fail: data/incoming/new.csv" in warm.run(project, "retrain", "--dry-run").out
    done = warm.run(project, "retrain", "--force")
    assert done.code == 3 and "contradict a label that their text has" in done.out
    assert "Running stage" not in done.out and rows(project).empty


def test_ten_thousand_bad_rows_are_quarantined(project: Path, warm: Warm) -> None:
    drop(project, b"text,label\n" + b"Fine.,maybe\n" * 10_000)
    done = warm.run(project, "retrain")
    assert done.code == 0 and "10,000 quarantined" in done.out
    (file,) = (project / "data/quarantine").iterdir()
    assert len(file.read_text().splitlines()) == 10_000


def test_a_tracking_server_that_is_away_is_told_and_caught_up_with(project: Path, warm: Warm) -> None:
    drop(project, reviews(10))
    done = warm.run(project, "retrain", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.code == 1 and "cannot be used" in done.out and "the next run does it" in done.out
    assert len(rows(project)) == 10
    assert warm.run(project, "retrain").code == 0
    assert [run["retrain.outcome"] for run in mlflow_runs(project)] == ["PROMOTED", "FAILED", "SKIPPED"]


def test_a_conflict_in_git_is_told_before_anything_is_done(project: Path, warm: Warm) -> None:
    def git(*arguments: str) -> int:
        return subprocess.run(["git", *arguments], cwd=project, capture_output=True).returncode

    lock = project / "dvc.lock"
    git("checkout", "-b", "theirs")
    lock.write_text(lock.read_text() + "# theirs\n")
    git("commit", "--all", "--message", "theirs")
    git("checkout", "-")
    lock.write_text(lock.read_text() + "# ours\n")
    git("commit", "--all", "--message", "ours")
    assert git("merge", "theirs") != 0
    file = drop(project, reviews(10))
    done = warm.run(project, "retrain")
    assert done.code == 1 and "git has conflicts in dvc.lock; resolve them first" in done.out
    assert file.exists() and len(records(project)) == 1
    assert git("merge", "--abort") == 0
    assert warm.run(project, "retrain").code == 0


def test_commit_asks_for_a_clean_tree(project: Path, warm: Warm) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# edited\n")
    done = warm.run(project, "retrain", "--commit")
    assert done.code == 2 and "--commit needs a clean tree" in done.out and "params.yaml" in done.out
    assert len(records(project)) == 1


def test_a_commit_that_fails_leaves_the_rest_as_it_was_decided(project: Path, warm: Warm) -> None:
    (project / ".git/index.lock").touch()
    drop(project, reviews(10))
    done = warm.run(project, "retrain", "--commit")
    assert done.code == 0 and "warning: nothing was committed: git" in done.out and "index.lock" in done.out
    (project / ".git/index.lock").unlink()
    drop(project, reviews(5, 600), "later.csv")
    assert warm.run(project, "retrain", "--commit").code == 0
    assert not subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True).stdout


def test_a_clock_that_went_backwards_changes_no_order(project: Path, warm: Warm) -> None:
    age_champion(project, days=400)
    record = project / "reports/retrain/000001.json"
    record.write_text(record.read_text().replace('"begun": "20', '"begun": "21'))
    drop(project, reviews(10))
    os.utime(project / "data/incoming/new.csv", (5e9, 5e9))
    done = warm.run(project, "retrain")
    assert done.code == 0 and "a clock went backwards" in done.out
    assert len(rows(project)) == 10 and outcomes(project) == ["PROMOTED", "SKIPPED"]


def test_what_is_past_its_time_goes_and_what_was_promoted_stays(project: Path, warm: Warm) -> None:
    edit_params(project, retrain__retention__records=2)
    for _ in range(3):
        assert warm.run(project, "retrain").code == 0
    assert [record["run"] for record in records(project)] == [2, 3, 4]
    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute("update runs set start_time = start_time - 200 * 86400000")
    planned = warm.run(project, "retrain", "--dry-run").out
    assert "1 records, 0 versions and 4 runs are past their time" in planned
    assert warm.run(project, "retrain").code == 0
    assert [tags["retrain.run"] for tags in mlflow_runs(project)] == ["5"]
    assert champions(project) == ["1"] and verified(warm, project)


def test_of_a_shared_cache_nothing_is_dropped_nor_of_what_a_sweep_uses(project: Path, warm: Warm) -> None:
    def unused(project: Path) -> int:
        return int(re.search(r"after a training, (\d+) objects", warm.run(project, "retrain", "--dry-run").out)[1])

    cache, clone = project / ".dvc/cache", project / ".sweep"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    (clone / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
    (clone / "only-there").write_text("what a training left")
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "only-there"], cwd=clone, check=True)
    assert unused(project) == 0
    shutil.rmtree(clone)
    assert unused(project) == 1
    (project / ".dvc/config.local").write_text(f"[cache]\n    dir = {shutil.move(cache, project.parent / 'shared')}\n")
    assert unused(project) == 0
    assert "lies outside this checkout" in (project / "printed").read_text()


def test_an_experiment_of_dvc_is_no_place_for_it(project: Path, warm: Warm) -> None:
    done = warm.run(project, "retrain", DVC_EXP_NAME="wide-otter")
    assert done.code == 2 and "wide-otter is a DVC experiment" in done.out
