"""A project that was moved or copied: reading finds the files where they are now, writing stays in its own folder."""

import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Registered
from warm import Warm

pytestmark = pytest.mark.e2e
NAME = "imdb-sentiment-sample"
READING = (
    ["predict", "Fine."],
    ["score", "reviews.csv", "-o", "scored.csv"],
    ["registry", "list"],
    ["registry", "show", "champion"],
    ["registry", "history"],
    ["registry", "verify"],
)
LOG_RUN = """
import sys
from pathlib import Path
from pipeline.tracking import runs
client = runs.connect()
run = client.create_run(runs.experiment_id(client), run_name="new").info.run_id
client.log_text(run, "logged", "new.txt")
for run in client.search_runs([runs.experiment_id(client)], "attributes.run_name = 'last'"):
    client.log_text(run.info.run_id, "logged", "new.txt")
"""


def run(folder: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def contents(folder: Path) -> dict[str, str]:
    """Returns what there is in a folder, by name: a file's digest. What `warm` writes there itself is left out, and the
    cache of pulled models, which reading fills."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if path.name != "printed" and not path.is_relative_to(folder / "mlflow.db.pulled")
    }


def locations(folder: Path) -> str:
    with sqlite3.connect(folder / "mlflow.db") as database:
        dump = "\n".join(line for line in database.iterdump() if "/mlartifacts" in line)
    database.close()
    return dump


@pytest.fixture
def original(registered: Registered, tmp_path: Path, warm: Warm) -> Path:
    """A project whose store has a champion, at its own place."""
    folder = tmp_path / "original"
    shutil.copytree(registered.folder, folder)
    assert warm.run(folder, "registry", "relocate").code == 0
    assert str(registered.folder) not in locations(folder)
    return folder


def test_reading_commands_change_nothing_and_need_no_experiment(original: Path, warm: Warm) -> None:
    (original / "reviews.csv").write_text("text\nFine.\n")
    delete = "from pipeline.tracking import runs; c = runs.connect(); c.delete_experiment(runs.experiment_id(c))"
    run(original, "-c", delete)
    before = contents(original)
    for arguments in READING:
        done = warm.run(original, *arguments)
        assert "Traceback" not in done.out and (done.code == 0 or "verify" in arguments), done.out
        (original / "scored.csv").unlink(missing_ok=True)
        assert contents(original) == before, arguments
    writing = ("registry", "promote", "1", "--reason", "why")
    refused = warm.run(original, *writing).out
    remedy = re.search("`MLFLOW_TRACKING_URI=(.*) mlflow (experiments restore .*)` brings it back", refused)
    assert remedy, refused
    assert run(original, "-m", "mlflow", *remedy[2].split(), MLFLOW_TRACKING_URI=remedy[1]).returncode == 0
    assert warm.run(original, *writing).code == 0


def test_reading_commands_make_nothing_where_there_is_no_store(project: Path, warm: Warm) -> None:
    shutil.copytree(ROOT / "reports", project / "reports")
    (project / "reviews.csv").write_text("text\nFine.\n")
    before = contents(project)
    for arguments in (*READING, ["summary"]):
        done = warm.run(project, *arguments)
        assert done.code == (0 if arguments == ["summary"] else 1), done.out
        assert "Traceback" not in done.out and contents(project) == before, arguments


def test_a_moved_project_reads_at_once_and_writes_at_its_new_place(original: Path, warm: Warm) -> None:
    moved = original.rename(original.parent / "moved, with a space")
    before = contents(moved)
    for arguments in (["predict", "Fine."], ["registry", "show", "champion"]):
        done = warm.run(moved, *arguments)
        assert done.code == 0, done.out
    problems = warm.run(moved, "registry", "verify").out
    assert "the project was moved or copied" in problems and "sentiment registry relocate" in problems
    assert "are missing" not in problems
    assert contents(moved) == before
    done = run(moved, "-c", LOG_RUN)
    assert done.returncode == 0, done.stderr
    assert not original.exists() and len(list((moved / "mlartifacts").glob("*/artifacts/new.txt"))) == 2
    assert str(original) not in locations(moved)
    assert warm.run(moved, "predict", "Fine.").code == 0


def test_a_copied_project_reads_its_own_files_and_never_writes_into_the_original(original: Path, warm: Warm) -> None:
    copy = original.parent / "copy"
    subprocess.run(["cp", "-a", str(original), str(copy)], check=True)
    before = contents(original)
    assert "positive" in warm.run(copy, "predict", "Fine.").out
    for settings in (copy / "mlartifacts").rglob("settings.json"):
        settings.write_text(settings.read_text().replace('"threshold": 0.5', '"threshold": 1.0'))
    shutil.rmtree(copy / "mlflow.db.pulled")
    assert "are not those that were registered" in warm.run(copy, "predict", "Fine.").out
    assert run(copy, "-c", LOG_RUN).returncode == 0
    assert len(list((copy / "mlartifacts").glob("*/artifacts/new.txt"))) == 2
    assert contents(original) == before
    assert f"{original}/" not in locations(copy)


def test_a_database_that_was_copied_alone_brings_its_files(original: Path, warm: Warm) -> None:
    copy = original.parent / "copy"
    copy.mkdir()
    for name in ("mlflow.db", "params.yaml"):
        shutil.copy(original / name, copy)
    before = contents(original)
    assert warm.run(copy, "predict", "Fine.").code == 0 and not (copy / "mlartifacts").exists()
    assert "places were entered anew" in warm.run(copy, "registry", "relocate").out
    assert contents(original) == before
    original.rename(original.parent / "gone")
    assert warm.run(copy, "predict", "Fine.").code == 0


def test_a_run_that_may_be_at_work_is_asked_about_first(original: Path, warm: Warm) -> None:
    begin = "from pipeline.tracking import runs; c = runs.connect(); c.create_run(runs.experiment_id(c))"
    assert run(original, "-c", begin).returncode == 0
    moved = original.rename(original.parent / "moved")
    done = warm.run(moved, "registry", "promote", "1", "--reason", "why")
    assert done.code == 1 and "is RUNNING" in done.out and "`sentiment registry relocate`" in done.out
    assert warm.run(moved, "registry", "relocate").code == 0
    assert warm.run(moved, "registry", "promote", "1", "--reason", "why").code == 0
