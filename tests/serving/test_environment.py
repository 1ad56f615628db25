"""The environment of requirements-serving.lock is small, and scores."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, Registered
from served import announced, start

from benchmarks.start import LARGEST_MB, installed_mb, serving_environment

pytestmark = pytest.mark.e2e
MOST_MB = 250
TEXT = "A film that stays with you for days."


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of such an environment, made from the lock."""
    return serving_environment(tmp_path_factory.mktemp("serving") / "environment")


@pytest.fixture
def folder(registered: Registered, tmp_path: Path) -> Path:
    """A copy of a project whose registry has a champion."""
    return Path(shutil.copytree(registered.folder, tmp_path / "project"))


def run(python: Path, folder: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=120)


def test_it_is_small_and_has_neither_mlflow_nor_tensorflow(python: Path) -> None:
    assert installed_mb(python.parent.parent) < LARGEST_MB
    packages = json.loads(run(python, ROOT, "-m", "pip", "list", "--format", "json").stdout)
    installed = {package["name"].lower() for package in packages}
    assert {"numpy", "onnxruntime", "starlette", "typer"} <= installed
    assert not installed & {
        "mlflow",
        "mlflow-skinny",
        "fastapi",
        "tensorflow",
        "keras",
        "pandas",
        "pyarrow",
        "dvc",
        "onnx",
    }


def test_the_champion_is_pulled_loaded_and_scores_there(python: Path, folder: Path, tmp_path: Path) -> None:
    sentiment = ("-m", "pipeline.cli")
    predicted = run(python, folder, *sentiment, "predict", "--json", TEXT)
    assert predicted.returncode == 0 and predicted.stderr == ""
    expected = json.loads(predicted.stdout)

    reviews = folder / "reviews.csv"
    reviews.write_text(f'id,text\n1,"{TEXT}"\n2,\n')
    scored = run(python, folder, *sentiment, "score", reviews, "-o", folder / "scored.jsonl")
    assert scored.returncode == 0, scored.stderr
    assert json.loads((folder / "scored.jsonl").read_text()) == {"id": "1"} | expected
    assert json.loads((folder / "scored.quarantine.jsonl").read_text())["reason"] == "the text is blank"

    pulled = run(python, folder, *sentiment, "pull", "-o", tmp_path / "pulled")
    assert pulled.returncode == 0, pulled.stderr
    alone = run(python, tmp_path, tmp_path / "pulled/score.py", TEXT)
    assert alone.stdout == f"{expected['label']} {expected['probability']:.4f}\n", alone.stderr


def test_the_champion_is_served_there_as_the_unit_does(python: Path, folder: Path, tmp_path: Path) -> None:
    """With the options of `deploy/sentiment-serve.service`, on loopback and a free port."""
    token = "correct-horse-battery-staple"
    (tmp_path / "token").write_text(f"{token}\n")
    unit = (ROOT / "deploy/sentiment-serve.service").read_text()
    (command,) = re.findall(r"^ExecStart=(\S+) serve (.*)$", unit, re.MULTILINE)
    options = command[1].replace("0.0.0.0", "127.0.0.1").replace("5001", "0").replace("%d", str(tmp_path)).split()
    with start(folder, *options, python=python) as process:
        server = announced(process)
        assert server.post({"inputs": [TEXT]})[0] == 401
        body = json.dumps({"inputs": [TEXT]}).encode()
        kind = {"Content_Type": "application/json", "Authorization": f"Bearer {token}"}
        status, _, answer = server.ask("POST", "/invocations", body, **kind)
        process_tree = (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True))
        memory_mb = sum(one.memory_info().rss for one in process_tree) / 1e6
        process.terminate()
        assert process.wait(60) == 0
    predicted = run(python, folder, "-m", "pipeline.cli", "predict", "--json", TEXT)
    assert status == 200
    assert [{"text": TEXT} | row for row in json.loads(answer)["predictions"]] == [json.loads(predicted.stdout)]
    assert memory_mb < MOST_MB


def test_what_needs_more_says_so_in_a_sentence(python: Path, folder: Path) -> None:
    for arguments, sentence in (
        (("score", "reviews.parquet", "-o", "out.csv"), "error: reviews.parquet: Parquet needs the package pyarrow"),
        (("registry", "list"), "error: this needs the package mlflow, which is not installed here"),
        (("ui", "--port", "0"), "error: this needs the package mlflow, which is not installed here"),
    ):
        done = run(python, folder, "-m", "pipeline.cli", *arguments)
        assert done.returncode in (1, 2) and sentence in done.stderr and "Traceback" not in done.stderr
