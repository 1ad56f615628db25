"""The retraining job's project in the states that its tests begin with, and what they look at in it."""

import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import retraining_project
from conftest import history
from retraining_project import NAME, reviews
from warm import Warm, put_back


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
def job_project(states: Path, request: pytest.FixtureRequest) -> Path:
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
    found = history(project, NAME)
    assert not found.problems
    return [line["to"] for line in found.lines]


def rows(project: Path) -> pd.DataFrame:
    """All rows that there are of what was dropped in: in the data set and in quarantine."""
    batches = sorted((project / "data/labelled/reviews").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in batches]) if batches else pd.DataFrame({"text": []})


def verified(warm: Warm, project: Path) -> bool:
    done = warm.run(project, "registry", "verify", "--name", NAME)
    print(done.out)  # what is wrong, where a test fails
    return done.code == 0


def mlflow_runs(project: Path) -> list[dict[str, str]]:
    with sqlite3.connect(project / "mlflow.db") as database:
        found = database.execute(
            "select run_uuid, t.key, t.value from runs join tags t using (run_uuid) where run_uuid in "
            "(select run_uuid from tags where key = 'retrain') and lifecycle_stage = 'active' order by start_time"
        ).fetchall()
    runs: dict[str, dict[str, str]] = {}
    for run, key, value in found:
        runs.setdefault(run, {})[key] = value
    return sorted(runs.values(), key=lambda tags: int(tags["retrain.run"]))


def age_champion(project: Path, days: int) -> None:
    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute("update model_versions set creation_time = creation_time + ?", (days * 86_400_000,))
