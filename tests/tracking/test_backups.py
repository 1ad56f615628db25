"""A local store is backed up when it changed, the newest backups are kept, and one of them takes its place again."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.project import provenance
from pipeline.project.errors import PipelineError, UsageError
from pipeline.tracking import backups, runs

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def client(project: Path) -> "Iterator[MlflowClient]":
    runs.connect.cache_clear()
    yield runs.connect()
    runs.connect.cache_clear()


def training(client: "MlflowClient", kind: str = runs.TRAINING) -> str:
    run_id = client.create_run(runs.experiment_id(client), tags={runs.KIND: kind}).info.run_id
    client.set_terminated(run_id)
    return run_id


def known_runs(store: Path) -> set[str]:
    with closing(sqlite3.connect(store)) as database:
        return {run_id for (run_id,) in database.execute("select run_uuid from runs")}


def names(project: Path) -> list[str]:
    return [file.name for file in backups.backups(project / "mlflow.db")]


def test_a_change_of_registry_or_trainings_is_a_backup_of_its_own_and_an_idle_run_renews_the_newest(
    client: "MlflowClient", project: Path
) -> None:
    first = backups.back_up()
    assert first and first.parent == project / "mlflow.db.backups"
    idle = training(client, kind="retrain")
    assert backups.back_up() == first and idle in known_runs(first)
    run_id = training(client)
    second = backups.back_up()
    assert second and run_id in known_runs(second) and run_id not in known_runs(first)
    client.create_registered_model("model")
    client.create_model_version("model", "elsewhere:/it")
    for _ in range(2):
        backups.back_up()
    client.set_registered_model_alias("model", "champion", "1")
    backups.back_up()
    assert names(project) == ["000001.db", "000002.db", "000003.db", "000004.db"]


def test_seven_are_kept_and_a_damaged_newest_one_is_made_anew(client: "MlflowClient", project: Path) -> None:
    for _ in range(9):
        training(client)
        newest = backups.back_up()
    assert newest and names(project) == [f"{number:06}.db" for number in range(3, 10)]
    newest.write_bytes(os.urandom(5000))
    assert backups.back_up() == project / "mlflow.db.backups/000010.db" and len(names(project)) == backups.KEPT


def test_a_damaged_store_pushes_no_backup_out(client: "MlflowClient", project: Path) -> None:
    backups.back_up()
    (project / "mlflow.db").write_bytes(os.urandom(5000))
    with pytest.raises(PipelineError, match="is damaged"):
        backups.back_up()
    assert names(project) == ["000001.db"]


def test_what_is_no_local_store_has_no_backup(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backups.back_up() is None and not list(project.glob("mlflow.db*"))
    with pytest.raises(PipelineError, match=r"there is no backup in .*mlflow\.db\.backups"):
        backups.restore(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert backups.back_up() is None
    with pytest.raises(UsageError, match="is no local store: its database is backed up where it runs"):
        backups.restore(None)


@pytest.mark.parametrize("damage", ["random bytes", "cut off", "empty", "gone"])
def test_the_newest_backup_takes_the_place_of_a_store_whatever_became_of_it(
    client: "MlflowClient", project: Path, damage: str
) -> None:
    older = training(client)
    backups.back_up()
    newer = training(client)
    backups.back_up()
    store = project / "mlflow.db"
    content = store.read_bytes()
    left = {"random bytes": os.urandom(100) + content[100:], "cut off": content[:20_000], "empty": b""}.get(damage)
    store.unlink()
    if left is not None:
        store.write_bytes(left)
    backup, replaced = backups.restore(None)
    assert backup.name == "000002.db" and known_runs(store) == {older, newer}
    assert left == (replaced.read_bytes() if replaced else None)
    backups.restore(project / "mlflow.db.backups/000001.db")
    assert known_runs(store) == {older} and names(project) == ["000001.db", "000002.db"]


def test_a_journal_that_a_killed_writer_left_is_not_applied_to_the_backup(
    client: "MlflowClient", project: Path
) -> None:
    training(client)
    backups.back_up()
    expected = known_runs(project / "mlflow.db")
    killed = """
import os, sqlite3
database = sqlite3.connect("mlflow.db", isolation_level=None)
database.execute("pragma cache_size = 1")
database.execute("begin immediate")
database.execute("create table filler (content)")
database.executemany("insert into filler values (?)", [["x" * 4000]] * 500)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", killed], cwd=project).returncode == -9
    assert (project / "mlflow.db-journal").exists()
    (project / "mlflow.db").unlink()  # so that no command undid it before
    assert backups.restore(None)[1] is None
    assert known_runs(project / "mlflow.db") == expected
    assert (project / "mlflow.db.backups/replaced-000001.db-journal").exists()


def test_nothing_is_replaced_that_is_in_use(client: "MlflowClient", project: Path) -> None:
    backups.back_up()
    run = client.create_run(runs.experiment_id(client), tags=provenance.process_tags())
    before = (project / "mlflow.db").read_bytes()
    with pytest.raises(PipelineError, match=f"run {run.info.run_id} is RUNNING"):
        backups.restore(None)
    assert (project / "mlflow.db").read_bytes() == before
    client.set_terminated(run.info.run_id)
    (project / "text").write_text("no store")
    for wrong in ("text", "nowhere"):
        with pytest.raises(PipelineError, match=wrong):
            backups.restore(project / wrong)
    assert run.info.run_id in known_runs(project / "mlflow.db")


def test_a_store_that_somebody_writes_to_is_waited_for(
    client: "MlflowClient", project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups.back_up()
    monkeypatch.setattr(backups, "_LOCK_WAIT_S", 0)
    with closing(sqlite3.connect(project / "mlflow.db", isolation_level=None)) as writer:
        writer.execute("begin immediate")
        with pytest.raises(PipelineError, match="is locked by another process"):
            backups.restore(None)
    assert backups.restore(None)[0].name == "000001.db"
