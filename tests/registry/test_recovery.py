"""After a backup took the store's place the history has the decisions since, and `verify` finds nothing."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT, history

from pipeline.project import paths
from pipeline.registry import champion, decisions
from pipeline.registry.decisions import Entry
from pipeline.tracking import backups, runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "model"


@pytest.fixture
def client(project: Path) -> "Iterator[MlflowClient]":
    """A client of a store with versions 1 and 2, of which 1 is champion; that much is backed up and in git."""
    runs.connect.cache_clear()
    client = runs.connect()
    client.create_registered_model(NAME)
    for _ in range(2):
        register(client)
    champion.promote(NAME, "1", "before the backup")
    backups.back_up()
    decisions.export(decisions.read(client, NAME))
    yield client
    runs.connect.cache_clear()


def register(client: "MlflowClient") -> None:
    run_id = client.create_run(runs.experiment_id(client)).info.run_id
    client.log_text(run_id, run_id, "model/MLmodel")
    client.set_terminated(run_id)
    client.create_model_version(NAME, f"runs:/{run_id}/model", run_id)


def sentiment(project: Path, *arguments: str) -> tuple[int, str]:
    """Runs `sentiment registry …` in a process of its own, which has not opened the store before."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "registry", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def exported(client: "MlflowClient") -> Path:
    """The file in git, with all decisions of the store as it is."""
    found = decisions.read(client, NAME)
    decisions.export(found)
    return paths.DECISIONS / f"{found.id}.jsonl"


def test_decisions_that_the_backup_lacks_are_appended_as_they_were(client: "MlflowClient", project: Path) -> None:
    void = decisions.read(client, NAME)
    for number in "21":  # the first takes the number that the second expects
        facts = {"decision": "promoted", "from": "1", "to": number, "reason": "at once", "evidence": {}}
        decisions.append(client, NAME, void, facts, number, applied=True)
    champion.promote(NAME, "1", "after the backup")
    taken = decisions.read(client, NAME).entries
    assert [entry["slot"] for entry in taken] == [1, 2, 4]
    file = exported(client)
    (project / "mlflow.db").write_bytes(b"damaged" * 1000)

    code, printed = sentiment(project, "restore")

    assert code == 0 and "decisions that were appended again: 2" in printed, printed
    entries = history(project, NAME).entries
    assert entries[:3] == taken
    restored = entries[3]
    assert (restored["decision"], restored["from"], restored["to"]) == ("restored", "1", "1")
    assert restored["evidence"] == {"backup": "000001.db", "appended": [2, 4], "lost": []}
    assert [json.loads(line) for line in file.read_text().splitlines()] == entries
    assert sentiment(project, "verify", "--name", NAME) == (0, "decisions, aliases, versions, runs and outputs agree\n")


def test_decisions_about_versions_that_the_backup_lacks_are_lost_and_the_rest_is_not(
    client: "MlflowClient", project: Path
) -> None:
    champion.promote(NAME, "2", "there")
    register(client)
    champion.promote(NAME, "3", "not in the backup")
    champion.rollback(NAME, "from what is not in the backup")
    champion.promote(NAME, "1", "there again")
    champion.promote(NAME, "2", "there at last")
    exported(client)
    (new,) = (file for file in (project / "mlartifacts").iterdir() if file.name not in backed_up(project))

    code, printed = sentiment(project, "restore")

    assert code == 0 and "2 decisions are lost" in printed and "--single-item register" in printed, printed
    found = history(project, NAME)
    assert not found.problems and [entry["slot"] for entry in found.entries] == [1, 2, 5, 6, 7]
    assert found.entries[-1]["evidence"]["lost"] == [3, 4] and found.entries[-1]["to"] == "2"
    code, printed = sentiment(project, "verify", "--name", NAME)
    assert code == 1 and printed.count("problem  ") == 1 and f"{new} holds the outputs of a run" in printed, printed
    subprocess.run(["rm", "-r", str(new)], check=True)  # as it says
    assert sentiment(project, "verify", "--name", NAME)[0] == 0
    assert sentiment(project, "promote", "1", "--reason", "on it", "--name", NAME)[0] == 0
    assert sentiment(project, "rollback", "--reason", "and back", "--name", NAME)[0] == 0
    assert sentiment(project, "verify", "--name", NAME)[0] == 0
    assert history(project, NAME).lines[-1]["to"] == "2"


def backed_up(project: Path) -> set[str]:
    with sqlite3.connect(project / "mlflow.db.backups/000001.db") as database:
        return {run_id for (run_id,) in database.execute("select run_uuid from runs")}


def edited(entry: Entry) -> str:
    return json.dumps(entry | {"reason": "edited"})


@pytest.mark.parametrize("edit", [edited, lambda entry: edited(entry)[:-9], lambda entry: "[]"])
def test_a_line_that_was_edited_is_not_appended(
    client: "MlflowClient", project: Path, edit: Callable[[Entry], str]
) -> None:
    champion.promote(NAME, "2", "after the backup")
    file = exported(client)
    content = file.read_text()
    first, second = content.splitlines()
    file.write_text(f"{first}\n{edit(json.loads(second))}\n")
    code, printed = sentiment(project, "restore")
    assert code == 1 and "line 2 is not a decision as it was taken" in printed, printed
    assert len(history(project, NAME).entries) == 1
    file.write_text(content)
    assert sentiment(project, "restore")[0] == 0
    assert [entry["decision"] for entry in history(project, NAME).entries] == ["promoted", "promoted", "restored"]
    assert sentiment(project, "verify", "--name", NAME)[0] == 0


def test_a_backup_whose_own_history_is_damaged_is_told(client: "MlflowClient", project: Path) -> None:
    client.delete_model_version_tag(f"{NAME}-decisions", "1", "entry.0000")
    backups.back_up()
    code, printed = sentiment(project, "restore")
    assert code == 1 and "000002.db decision 1 was edited" in printed and "takes another backup" in printed, printed
    code, printed = sentiment(project, "restore", "mlflow.db.backups/000001.db")
    assert code == 0 and sentiment(project, "verify", "--name", NAME)[0] == 0, printed
