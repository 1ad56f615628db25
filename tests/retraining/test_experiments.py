"""A DVC experiment is tracked and never registered; once applied, `dvc repro` ends in a decision about it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from retraining_fixtures import champions

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(job_project: Path) -> Path:
    """The job's project after its first run, not conftest's empty one."""
    return job_project


def dvc(project: Path, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=kept | {"PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def registered(project: Path) -> dict:
    return json.loads((project / "reports/registry.json").read_text())


IN_A_FOLDER_OF_ITS_OWN = ["--temp", "--copy-paths", "data/raw", "--copy-paths", "trained"]  # which git does not have


@pytest.mark.parametrize("where", [[], IN_A_FOLDER_OF_ITS_OWN], ids=["here", "apart"])
def test_an_experiment_that_is_applied_is_decided_on_by_repro(project: Path, where: list[str]) -> None:
    dvc(project, "exp", "run", *where, "--name", "wide-otter", "--set-param", "models.tiny.epochs=1")
    if not where:
        assert registered(project)["decision"] == "not registered"
    assert champions(project) == ["1"]
    dvc(project, "exp", "apply", "wide-otter")
    printed = dvc(project, "repro")
    assert "Running stage 'track'" in printed and "Running stage 'register'" in printed
    assert "Running stage 'train'" not in printed
    assert registered(project)["decision"] == "kept"
    assert registered(project)["challenger"] == "2" and champions(project) == ["1", "1"]
    assert "up to date" in dvc(project, "repro")
