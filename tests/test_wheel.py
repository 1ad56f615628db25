"""The installed package is whole: every module, the sample and the templates, away from the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

CODE = """
import importlib, json, pkgutil
import pipeline
from pipeline.data.sources import SAMPLE, UNLABELLED_SAMPLE
from pipeline.registry import versions
from pipeline.reporting.rendering import TEMPLATES
names = [found.name for found in pkgutil.walk_packages(pipeline.__path__, "pipeline.")]
modules = {name: importlib.import_module(name).__file__ for name in names}
files = [SAMPLE, UNLABELLED_SAMPLE, *(TEMPLATES / name for name in ("model_card.md", "report.css", "report.html"))]
print(json.dumps({"modules": modules, "files": [str(file) for file in files if file.is_file()]}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    built = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(copied(folder))]
    subprocess.run(built, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(folder / "installed"), str(wheel)], check=True)
    return folder / "installed"


def copied(folder: Path) -> Path:
    """A copy of what git tracks: setuptools builds in the folder of the source."""
    source = folder / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if name.startswith(("pipeline/", "pyproject.toml", "README.md", "LICENSE")) and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return source


def test_every_module_and_file_is_there_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {file.relative_to(ROOT / "pipeline") for file in (ROOT / "pipeline").rglob("*.py")}
    expected -= {Path("__init__.py")}
    assert {Path(file).relative_to(installed / "pipeline") for file in found["modules"].values()} == expected
    assert len(found["files"]) == 5
    assert all(Path(file).is_relative_to(installed) for file in found["files"])
