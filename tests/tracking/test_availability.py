"""A store that cannot be used is told in one sentence, at once, by every command, and stays as it is."""

import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.project.errors import PipelineError, UsageError
from pipeline.tracking import runs

CONNECT = pytest.mark.parametrize("connect", [runs.connect, runs.connect_to_read])
READING = (
    ["predict", "Fine."],
    ["registry", "list"],
    ["registry", "show", "champion"],
    ["registry", "history"],
    ["registry", "verify"],
)


def sentiment(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def change(file: Path, statement: str) -> None:
    with sqlite3.connect(file) as database:
        database.execute(statement)
    database.close()


@CONNECT
def test_a_damaged_store_is_told_with_the_remedy(connect: Callable[[], object], store: Path) -> None:
    content, draw = store.read_bytes(), random.Random(0)
    damaged = {
        "no header": draw.randbytes(100) + content[100:],
        "another kind of file": b"text,label\n" * 1000,
        "the beginning of its schema": content[:100] + draw.randbytes(4000) + content[4100:],
        "cut short": content[: len(content) // 2],
        "cut within its header": content[:50],
        "a hole in its middle": content[:8192] + bytes(len(content) - 16384) + content[-8192:],
    }
    for what, bytes_ in damaged.items():
        store.write_bytes(bytes_)
        with pytest.raises(PipelineError, match=r"mlflow\.db .*`sentiment registry restore`") as error:
            connect()
        assert "\n" not in str(error.value) and store.read_bytes() == bytes_, what


@CONNECT
def test_an_empty_store_beside_a_committed_history_is_damage(connect: Callable[[], object], store: Path) -> None:
    store.write_bytes(b"")
    history = store.parent / "reports/decisions/0123.jsonl"
    history.parent.mkdir(parents=True)
    history.write_text("{}\n")
    with pytest.raises(PipelineError, match="is empty, but reports/decisions has the decisions"):
        connect()
    assert not store.stat().st_size
    store.unlink()  # the remedy, where there is no backup
    assert runs.connect().get_experiment_by_name(runs.EXPERIMENT)


@CONNECT
def test_a_store_of_another_mlflow_is_told_with_the_remedy(connect: Callable[[], object], store: Path) -> None:
    change(store, "update alembic_version set version_num = 'of the future'")
    with pytest.raises(PipelineError, match=r"newer MLflow than .* install that one"):
        connect()
    change(store, "update alembic_version set version_num = '0584bdc529eb'")
    change(store, "drop table logged_models")  # MLflow would bring it up to date at once, without a backup
    with pytest.raises(PipelineError, match=r"older MLflow than .*`mlflow db upgrade sqlite:////.*/mlflow.db`"):
        connect()
    assert sqlite3.connect(store).execute("select version_num from alembic_version").fetchone() == ("0584bdc529eb",)


@CONNECT
def test_a_store_that_another_process_holds_is_told(
    connect: Callable[[], object], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tracking.availability._LOCK_WAIT_S", 0.1)
    holder = sqlite3.connect(store)
    holder.execute("begin exclusive")
    with pytest.raises(PipelineError, match=r"is locked by another process; wait .*`fuser /.*/mlflow\.db`"):
        connect()
    holder.rollback()
    holder.close()
    connect()


def test_what_a_killed_command_had_half_written_is_undone(store: Path) -> None:
    """A hot journal, which no one that may only read the file could roll back."""
    killed = """
import os, sqlite3
database = sqlite3.connect("mlflow.db")
database.execute("pragma cache_size = 1")
database.execute("delete from alembic_version")
database.execute("create table filler as with recursive n(i) as (select 1 union all select i + 1 from n limit 5000)"
    " select i, hex(randomblob(100)) from n")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", killed], cwd=store.parent)
    assert (store.parent / "mlflow.db-journal").exists()
    assert runs.connect_to_read().get_experiment_by_name(runs.EXPERIMENT)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@CONNECT
def test_a_server_that_never_answers_is_told_within_seconds(
    connect: Callable[[], object], project: Path, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    runs.connect.cache_clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    began = time.monotonic()
    with pytest.raises(PipelineError, match=f"{silent_server} cannot be used .*; start it, or unset"):
        connect()
    assert time.monotonic() - began < 12  # so that a command that asks twice ends within 30


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_every_command_says_that_a_server_is_dead(project: Path, silent_server: str, arguments: list[str]) -> None:
    for uri in (silent_server, "http://127.0.0.1:9"):
        done = sentiment(project, *arguments, MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_TIMEOUT="1")
        assert done.returncode == 1
        assert re.fullmatch(rf"error: the MLflow tracking store {uri} cannot be used .*\n", done.stderr)


@CONNECT
def test_a_file_in_a_folder_that_is_not_there_is_wrong_usage_and_makes_nothing(
    connect: Callable[[], object], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.connect.cache_clear()
    before = sorted(project.rglob("*"))
    for name, what in (("nowhere/mlflow.db", "there is no folder /.*/nowhere"), ("", "is a folder")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{name}")
        with pytest.raises(UsageError, match=what):
            connect()
    assert sorted(project.rglob("*")) == before
