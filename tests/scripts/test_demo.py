"""The demo copies what belongs to the project, with git and without it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.project.params import load_params
from scripts import demo


@pytest.fixture
def unzipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as it comes in a zip, without git, in a folder with a space and an umlaut in its name."""
    folder = tmp_path / "ä zip"
    for name in demo.own_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in (
        ".venv/pip",
        "data/raw/x",
        "models/single/x",
        ".dvc/tmp/x",
        ".dvc/config.local",
        "mlflow.db-wal",
        ".git",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.setattr(demo, "ROOT", folder)
    return folder


def test_the_files_of_the_project_are_those_that_git_tracks_or_would_track() -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    there = {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}
    assert set(demo.own_files()) - {".dvc/config.local"} == there


def test_a_project_from_a_zip_is_copied_without_what_was_made_in_it(unzipped: Path, tmp_path: Path) -> None:
    demo.copy_checkout(tmp_path / "copy")
    copied = {str(file.relative_to(tmp_path / "copy")) for file in (tmp_path / "copy").rglob("*") if file.is_file()}
    assert {"dvc.yaml", "params.yaml", "pipeline/cli.py", *demo.MEASURED, ".dvc/config"} <= copied
    assert (
        not {"data/raw/x", "models/single/x", "mlflow.db-wal", ".git", ".venv/pip", ".dvc/tmp/x", "dvc.lock"} & copied
    )


def test_the_demo_trains_two_networks_for_two_epochs_on_the_sample(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    demo.shorten(tmp_path / "params.yaml")
    params, committed = load_params(tmp_path / "params.yaml"), load_params(ROOT / "params.yaml")
    assert params.dataset == "sample"
    assert params.models.keys() == {"single", "pooled"}
    assert {model.epochs for model in params.models.values()} == {2}
    assert params.candidates == ["single", "pooled", "ngrams", "blend"]
    untouched = {"dataset", "models", "candidates"}
    assert params.model_dump(exclude=untouched) == committed.model_dump(exclude=untouched)


def test_make_finds_its_environment_where_the_path_has_a_space(unzipped: Path) -> None:
    python = unzipped / ".venv/bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "ran $*"\n')
    python.chmod(0o755)
    (unzipped / ".venv/.ready").touch()
    # The tests may run under a make whose variables and nesting are its own.
    env = {
        name: value for name, value in os.environ.items() if name != "VENV" and not name.startswith(("MAKE", "MFLAGS"))
    }
    done = subprocess.run(["make", "demo"], cwd=unzipped, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "ran -m scripts.demo", done.stderr
