"""A model is pulled once, checked at each call, follows its alias, and serves when the store is away."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Registered, write_sample_params
from mlflow import MlflowClient
from store_fixtures import mlflow_server, stop
from test_lookup import ANSWERS, NAME, answering

from pipeline.project.errors import PipelineError, UsageError
from pipeline.registry import model_files
from pipeline.served_model.loading import load_scorer
from pipeline.serving import models, pulled
from pipeline.tracking.relocation import relocate

CHAMPION = f"models:/{NAME}@champion"
TEXT = "A film that stays with you for days."


@pytest.fixture
def folder(registered: Registered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of a project with two registered versions, of which the second is champion; the working folder."""
    copy = tmp_path / "project"
    shutil.copytree(registered.folder, copy, ignore=shutil.ignore_patterns("mlflow.db.pulled"))
    relocate(copy / "mlflow.db")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}/mlflow.db")
    return copy


@pytest.fixture
def logits(registered: Registered) -> dict[str, float]:
    """The logit of TEXT by each version, by number."""
    scorers = [load_scorer(Path(path) / "artifacts/served_model") for path in registered.paths.values()]
    return {str(number): float(scorer.score([TEXT]).logit[0]) for number, scorer in enumerate(scorers, start=1)}


def logit(uri: str | None = None) -> float:
    return models.score_texts(models.load(uri), [TEXT])[0]["logit"]


def test_the_champion_is_pulled_once_and_a_rollback_in_the_ui_shows_at_once(
    folder: Path, logits: dict[str, float]
) -> None:
    first = pulled.model(CHAMPION)
    assert first == pulled.model(CHAMPION) and first.is_relative_to(folder / "mlflow.db.pulled")
    assert logit() == logits["2"]
    MlflowClient(f"sqlite:///{folder}/mlflow.db").set_registered_model_alias(NAME, "champion", "1")
    assert logit() == logits["1"] != logits["2"]


def test_without_an_answer_the_version_that_was_named_last_serves(
    folder: Path, logits: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    logit()
    (folder / "mlflow.db").rename(folder / "away.db")
    shutil.move(folder / "mlartifacts", folder / "elsewhere")
    assert logit() == logits["2"]
    said = capsys.readouterr().err
    assert said.startswith("warning: there is no registry at") and "version 2, which was named last, is used" in said
    with pytest.raises(PipelineError, match="there is no registry at"):
        logit(f"models:/{NAME}/1")  # nobody asked for it before


def test_a_pulled_file_that_was_changed_is_pulled_again(folder: Path, logits: dict[str, float]) -> None:
    network = pulled.model(CHAMPION) / "artifacts/served_model/network.onnx"
    network.write_bytes(network.read_bytes()[:-100])
    assert logit() == logits["2"]
    (pointer,) = (folder / "mlflow.db.pulled").glob("*.json")
    pointer.write_bytes(b"")
    assert logit() == logits["2"]
    network.write_bytes(b"")
    (folder / "mlflow.db").rename(folder / "away.db")
    with pytest.raises(PipelineError, match="there is no registry at"):
        logit()


def test_registered_files_that_were_changed_or_are_missing_are_refused(folder: Path) -> None:
    stored = Path(pulled.lookup.find(CHAMPION).location)
    settings = stored / "artifacts/served_model/settings.json"
    settings.write_text('{"max_tokens": 1, "threshold": 0.0}')
    with pytest.raises(UsageError, match="are not those that were registered"):
        logit(CHAMPION)
    shutil.rmtree(stored)
    with pytest.raises(UsageError, match="the model's files are missing: there is no"):
        logit(CHAMPION)
    assert not list((folder / "mlflow.db.pulled").rglob("network.onnx")), "nothing half-pulled is left"


def test_a_number_that_is_given_again_is_another_version(folder: Path, logits: dict[str, float]) -> None:
    assert logit(f"models:/{NAME}/1") == logits["1"]
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    tags, location = client.get_model_version(NAME, "2").tags, pulled.lookup.find(f"models:/{NAME}/2").location
    client.delete_registered_model(NAME)
    client.create_registered_model(NAME)
    assert str(client.create_model_version(NAME, f"file://{location}", tags=tags).version) == "1"
    assert logit(f"models:/{NAME}/1") == logits["2"]


def test_the_cache_keeps_a_few_versions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulled, "_KEPT", 1)
    first, second = (pulled.model(f"models:/{NAME}/{number}") for number in (1, 2))
    assert second.exists() and not first.exists()


def test_a_store_that_may_only_be_read_is_read(
    folder: Path, logits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # for root every folder is writable
    assert logit() == logits["2"]
    assert not (folder / "mlflow.db.pulled").exists()


def test_any_uri_of_mlflows_is_taken(folder: Path, logits: dict[str, float]) -> None:
    logged = MlflowClient(f"sqlite:///{folder}/mlflow.db").get_model_version(NAME, "1").source
    location = pulled.lookup.find(f"models:/{NAME}/1").location
    for uri in (location, f"file://{location}", logged):
        assert logit(uri) == logits["1"]


WITHOUT = """
import sys
from pipeline import cli
sys.argv = ["sentiment", "predict", "--json", "fine"]
try: cli.main()
finally: print([name for name in ("mlflow", "pandas", "pyarrow", "tensorflow", "sklearn") if name in sys.modules])
"""


def test_predict_loads_neither_mlflow_nor_what_it_needs(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]" and done.stderr == ""


# From a server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[tuple[str, Callable[[], None]]]":
    """The address of a server with two versions, and what ends it."""
    made = tmp_path_factory.mktemp("server")
    write_sample_params(made)
    with mlflow_server(made) as (address, process):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
        environment = kept | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": address}
        subprocess.run([sys.executable, str(ROOT / "tests/log_models.py")], cwd=made, env=environment, check=True)
        yield address, lambda: stop(process)


@pytest.mark.e2e
def test_a_servers_champion_is_pulled_followed_and_kept_for_when_it_is_away(
    server: tuple[str, Callable[[], None]],
    logits: dict[str, float],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, end = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    assert logit() == pytest.approx(logits["2"], abs=1e-6)
    MlflowClient(address).set_registered_model_alias(NAME, "champion", "1")
    assert logit() == pytest.approx(logits["1"], abs=1e-6)
    assert pulled.model(CHAMPION).is_relative_to(project / "cache/sentiment-pipeline")
    end()
    assert logit() == pytest.approx(logits["1"], abs=1e-6)
    assert "version 1, which was named last, is used" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../score.py", "/etc/passwd", "..", ""])
def test_a_server_writes_nowhere_but_into_the_folder(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = json.dumps({"files": [{"path": name, "is_dir": False}]}).encode()
    with answering((200, {}, listed)) as (address, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(PipelineError, match="it lists the file"):
            pulled._bring("mlflow-artifacts:/0/models/m-1/artifacts", tmp_path / "deep/model")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_download_that_breaks_off_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, _, body = ANSWERS["a page"]
    with answering((status, {"Content-Length": str(len(body) + 100)}, body)) as (address, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with pytest.raises(PipelineError, match="the MLflow tracking store http"):
            pulled._bring("mlflow-artifacts:/0/models/m-1/artifacts", tmp_path / "model")


# `sentiment pull`


def test_a_pulled_folder_scores_without_this_project(folder: Path, logits: dict[str, float], tmp_path: Path) -> None:
    pulled.pull(CHAMPION, tmp_path / "out")
    there = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*")}
    assert there >= {"score.py", "requirements.txt", "served_model/network.onnx", "served_model/scorer.py"}
    assert len((tmp_path / "out/score.py").read_text().splitlines()) == 3
    pins = (tmp_path / "out/requirements.txt").read_text().split()
    assert [pin.partition("==")[0] for pin in pins] == ["numpy", "onnxruntime"]
    done = subprocess.run(
        [sys.executable, "-sE", str(tmp_path / "out/score.py"), TEXT, "Dull."],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
    )
    label, probability = done.stdout.splitlines()[0].split()
    assert (label == "positive") == (logits["2"] > 0) == (float(probability) > 0.5), done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert logit(str(tmp_path / "out")) == logits["2"]


def test_pull_replaces_what_was_pulled_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pulled.pull(f"models:/{NAME}/1", out)
    before = model_files.digest(out)
    pulled.pull(CHAMPION, out)
    assert model_files.digest(out) != before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for wrong in (mine, mine / "notes.txt"):
        with pytest.raises(UsageError, match="holds something else"):
            pulled.pull(CHAMPION, wrong)
    assert (mine / "notes.txt").read_text() == "mine"
