"""What several tests share: the embedded sample's real reviews, and a project folder of their own."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipeline.data.sources import SAMPLE
from pipeline.evaluation import behaviour
from pipeline.registry import decisions

ROOT = Path(__file__).parent.parent
FAILING_GIT = [
    ("PATH", "", "git cannot be run"),
    ("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1", "detected dubious ownership"),
    ("GIT_DIR", "/nowhere", "not a git repository"),
]
"""Environment variables with which git fails in a repository, and what it says."""
pytest_plugins = ["retraining_fixtures", "store_fixtures"]

# A shared, noisy machine says nothing about how long an example should take.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def reviews() -> pd.DataFrame:
    """The embedded sample: real reviews with the columns id, text, label."""
    return pd.read_parquet(SAMPLE)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project folder with the committed params.yaml on the sample; it is the working folder, and tracks in
    a store of its own."""
    write_sample_params(tmp_path)
    track_in(tmp_path, monkeypatch)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def history(project: Path, name: str) -> decisions.History:
    """The history of decisions in the project's store."""
    # MLflow keeps a connection for each URI, and what the path names is another file when a test put it back.
    return decisions.read(MlflowClient(f"sqlite:///{project / 'mlflow.db'}?timeout={next(_timeouts)}"), name)


_timeouts = itertools.count(20)


def track_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `folder` the working folder with the tracking store of its own, until `monkeypatch` is undone."""
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.setenv(name, "")  # a variable that was not there is restored only if it was set here:
        monkeypatch.delenv(name)  # MLflow sets the first one itself, for whatever the process starts later


@pytest.fixture
def run_stage(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a stage as DVC would, in the project folder."""

    def run(stage: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"pipeline.stages.{stage}", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@dataclass(frozen=True)
class Registered:
    """A project folder whose registry has two versions; `log_models` says which. `paths` are their files by name."""

    folder: Path
    store: str
    paths: dict[str, str]


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    folder = tmp_path_factory.mktemp("registered")
    write_sample_params(folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/log_models.py")],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Registered(folder, f"sqlite:///{folder / 'mlflow.db'}", json.loads(done.stdout.splitlines()[-1]))


def write_sample_params(folder: Path) -> None:
    """Writes the committed params.yaml, on the sample, to `folder`."""
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, dataset="sample")


def edit_params(project: Path, **values: object) -> None:
    """Sets keys of the project's params.yaml that are there; `models__single__dropout` is `models.single.dropout`."""
    yaml, file = YAML(), project / "params.yaml"
    content = yaml.load(file.read_text())
    for key, value in values.items():
        *sections, name = key.split("__")
        section = content
        for part in sections:
            section = section[part]
        assert name in section
        section[name] = value
    with file.open("w") as stream:
        yaml.dump(content, stream)


@pytest.fixture(scope="module")
def suite() -> behaviour.Suite:
    """The project's own behavioural tests."""
    return behaviour.read_suite(ROOT / "behaviour")


@pytest.fixture(scope="module")
def cases(suite: behaviour.Suite, reviews: pd.DataFrame) -> list[behaviour.Case]:
    """Their cases, with the sample's reviews among them."""
    return suite.cases(reviews["text"].tolist(), seed=42)
