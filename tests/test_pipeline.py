"""The whole pipeline as a user runs it: `dvc repro` on the sample, with models small enough for a test."""

import json
import os
import signal
import subprocess
import sys
import time
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT, edit_params
from ruamel.yaml import YAML
from store_fixtures import mlflow_server

from pipeline.registry.versions import without_head
from scripts import demo

pytestmark = pytest.mark.e2e

OPENED = "opened-by-stages"
_MODELS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["models"]
CANDIDATES = ("single", "stacked", "ngrams", "blend")
SMALLER = {
    "models": {
        "single": _MODELS["single"] | {"embedding_dim": 8, "recurrent_units": [8], "epochs": 3},
        "stacked": _MODELS["stacked"] | {"embedding_dim": 8, "recurrent_units": [8, 4], "epochs": 3},
    },
    "blend": "single",
    "candidates": list(CANDIDATES),
    "tokenize__vocabulary_size": 1024,
    "tokenize__max_tokens": 96,
    "evaluate__bootstrap_samples": 100,
    "evaluate__padding_study_reviews": 100,
    "gate__min_accuracy__sample": 0.0,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout in which `dvc repro` has run once."""
    folder = tmp_path_factory.mktemp("pipeline")
    demo.copy_checkout(folder)
    edit_params(folder, **SMALLER)
    watched = f"{ROOT / 'tests/opened_files'}{os.pathsep}{folder}"
    done = run(folder, "dvc", "repro", PYTHONPATH=watched, OPENED_FILES=str(folder / OPENED))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished folder for a test that changes it."""
    subprocess.run(["cp", "-a", f"{finished}/.", str(tmp_path)], check=True)
    return tmp_path


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=demo.environment(folder) | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def would_run(folder: Path) -> set[str]:
    """The stages that DVC finds changed."""
    status = json.loads(run(folder, "dvc", "status", "--json").stdout)
    return set(status)


def both(*stages: str) -> set[str]:
    return {f"{stage}@{model}" for stage in stages for model in ("single", "stacked")}


def each(*stages: str) -> set[str]:
    return {f"{stage}@{candidate}" for stage in stages for candidate in CANDIDATES}


def record(folder: Path, model: str) -> dict:
    training = json.loads((folder / f"reports/train/{model}/training.json").read_text())
    run = json.loads((folder / f"reports/runs/{model}.json").read_text())
    return {**training, **run, "metrics": training["metrics"] | run["metrics"]}


def metrics(folder: Path, model: str) -> dict:
    return json.loads((folder / f"reports/test/{model}.json").read_text())


def in_folder(folder: Path, code: str, **environment: str) -> Any:
    """Runs `code` in a process of its own in the folder; it prints one line of JSON last, which is returned."""
    done = run(folder, sys.executable, "-c", code, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_summary_names_each_model_with_its_results(finished: Path) -> None:
    printed = run(finished, "sentiment", "summary").stdout
    for name in ("single", "stacked", "n-grams", "blend"):
        assert name in printed
    assert f"{record(finished, 'single')['metrics']['parameters']:,}" in printed
    assert str(finished / "reports") in printed


def test_a_second_repro_runs_no_stage(finished: Path) -> None:
    assert would_run(finished) == set()
    printed = run(finished, "dvc", "repro").stdout
    assert "Running stage" not in printed and "up to date" in printed


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        (
            "models__single__recurrent_units",
            [9],
            {"train@single", "evaluate@single"},
        ),
        ("batch__batch_size", 32, {"batch", *both("train")}),
        (
            "evaluate__calibration_bins",
            10,
            {"ngrams", "blend", *both("evaluate"), *each("test", "track")},
        ),
        (
            "tokenize__max_tokens",
            90,
            {"tokenize", "ngrams", "blend", *both("train", "evaluate")},
        ),
        ("tokenize__vocabulary_size", 1000, {"vocabulary", "ngrams", *both("train")}),
    ],
)
def test_a_changed_param_concerns_only_the_stages_that_read_it(
    copy: Path, key: str, value: object, stages: set
) -> None:
    edit_params(copy, **{key: value})
    assert would_run(copy) - {"compare", "register", "report"} == stages


def test_an_edited_module_concerns_only_the_stages_that_use_it(copy: Path) -> None:
    with (copy / "pipeline/reporting/charts.py").open("a") as file:
        file.write("# edited\n")
    assert would_run(copy) == {*each("track"), "report"}


def test_no_stage_opens_code_that_it_does_not_depend_on(finished: Path) -> None:
    stages = YAML(typ="safe").load((finished / "dvc.yaml").read_text())["stages"]
    lines = [line.partition(" ") for line in (finished / OPENED).read_text().splitlines()]
    opened = {(stage.split("@")[0], Path(name)) for stage, _, name in lines if Path(name).is_relative_to(finished)}
    assert {stage for stage, _ in opened} == set(stages)
    for stage, file in opened:
        if file.parent.name == "__pycache__":
            file = file.parent.parent / f"{file.name.split('.')[0]}.py"
        name = file.relative_to(finished).as_posix()
        plumbing = name.startswith(("pipeline/project/", "pipeline/tracking/")) or file.name == "__init__.py"
        if name.startswith("pipeline/") and file.is_file() and not plumbing:
            deps = stages[stage].get("do", stages[stage])["deps"]
            assert any(name == dep or name.startswith(f"{dep}/") for dep in deps), f"{stage} opens {name}"


def test_another_run_that_ends_in_the_same_weights_reruns_what_tells_of_runs_alone(copy: Path) -> None:
    before = record(copy, "single")
    version = json.loads((copy / "reports/registry.json").read_text())["version"]
    ran = run(copy, "dvc", "repro", "--force", "--single-item", "train@single")
    assert ran.returncode == 0, ran.stderr[-3000:]
    after = record(copy, "single")
    assert after["run_id"] != before["run_id"] and after["weights_sha256"] == before["weights_sha256"]
    done = run(copy, "dvc", "repro")
    assert done.returncode == 0, done.stderr[-3000:]
    reran = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")}
    assert reran == {"track@single", "register", "report"}
    assert json.loads((copy / "reports/registry.json").read_text())["version"] == version
    runs = {run["id"]: run for run in in_folder(copy, RUNS)}
    assert runs[after["run_id"]]["metrics"]["test/accuracy"] == metrics(copy, "single")["accuracy"]


def test_the_reports_hold_what_the_stages_found(finished: Path) -> None:
    reports = finished / "reports"
    split = json.loads((reports / "split.json").read_text())
    batching = json.loads((reports / "batching.json").read_text())
    tested = metrics(finished, "single")
    validated = json.loads((reports / "metrics/single.json").read_text())
    study = json.loads((reports / "evaluate/single/padding_study.json").read_text())
    assert {name: batching[name]["rows"] for name in ("train", "validation")} == {
        name: split["rows"][name] for name in ("train", "validation")
    }
    assert batching["taught"]["rows"] == sum(split["rows"][name] for name in ("train", "unlabelled", "sentences"))
    assert batching["train"]["padding_share"] <= 0.05
    for name, report in {"test": tested, "validation": validated["validation"]}.items():
        predictions = pd.read_parquet(finished / f"data/predictions/{name}/single.parquet")
        assert predictions["id"].tolist() == pd.read_parquet(finished / f"data/splits/{name}.parquet")["id"].tolist()
        assert report["accuracy"] == ((predictions["probability"] > 0.5) == predictions["label"]).mean()
    assert set(validated) == {"validation", "calibration"} and validated["validation"]["accuracy"] == pytest.approx(
        record(finished, "single")["metrics"]["val_accuracy"]
    )
    assert study["masking_holds"]
    assert (reports / "data_docs/index.html").exists()
    for name in ("single", "stacked"):
        assert json.loads((reports / f"evaluate/{name}/gates.json").read_text())["largest_difference"] < 1e-5


def test_the_page_and_the_card_show_this_run(finished: Path) -> None:
    reports = finished / "reports"
    html, card = unescape((reports / "index.html").read_text()), (reports / "model_card.md").read_text()
    registry = json.loads((reports / "registry.json").read_text())
    best = json.loads((reports / "comparison.json").read_text())["best"]
    assert f"\n# Model card: {best}\n" in card
    for name in CANDIDATES:
        assert f"{metrics(finished, name)['accuracy']:.4f}" in html
        assert record(finished, name)["weights_sha256"] in html
    assert f"{metrics(finished, best)['accuracy']:.4f}" in card
    assert f"Version {registry['champion']} ({best})" in html and registry["choice"]["reason"] in html
    assert str(finished) not in html


RUNS = """
import json, mlflow
from pipeline.tracking.runs import connect, experiment_id
client = connect()
runs = client.search_runs([experiment_id(client)])
print(json.dumps([{"id": r.info.run_id, "status": r.info.status, "tags": r.data.tags, "metrics": r.data.metrics,
    "epochs": [m.step for m in client.get_metric_history(r.info.run_id, "val/loss")],
    "contexts": sorted(d.tags[0].value for d in r.inputs.dataset_inputs)} for r in runs]))
"""


def test_each_model_is_one_finished_run_with_the_same_metrics(finished: Path) -> None:
    runs = {run["tags"]["model"]: run for run in in_folder(finished, RUNS)}
    assert set(runs) == set(CANDIDATES)
    own = {
        name: {metric for metric in run["metrics"] if not metric.endswith("/sure/accuracy")}
        for name, run in runs.items()  # what is sure has an accuracy only where anything is
    }
    assert own["single"] == own["stacked"] and own["ngrams"] == own["blend"]
    assert {"train/loss", "val/accuracy", "test/accuracy", "val_accuracy"} <= own["single"]
    of_epochs = {f"{split}/{name}" for split in ("train", "val") for name in ("loss", "accuracy")}
    assert own["single"] - own["ngrams"] == of_epochs | {"epochs", "epoch_seconds", "seconds_per_epoch"}
    for run_ in runs.values():
        assert run_["status"] == "FINISHED"
    for run_ in (runs["single"], runs["stacked"]):
        assert run_["epochs"] == list(range(1, int(run_["metrics"]["epochs"]) + 1))
        assert run_["contexts"] == ["test", "training", "validation"]
        assert {"dataset", "seed", "device", "git.dirty", "dvc.stage", "md5.data/teacher/ngrams"} <= set(run_["tags"])


SCORE = """
import json, mlflow, pandas as pd
from pipeline.tracking.runs import connect
connect()
model = mlflow.pyfunc.load_model("models:/imdb-sentiment-sample@champion")
texts = pd.read_parquet("data/splits/test.parquet")["text"].head(50)
scores = model.predict(pd.DataFrame({"text": texts}))
try:
    model.predict(pd.DataFrame({"text": ["fine", "  "]}))
except Exception as error:
    refused = str(error)
client = mlflow.MlflowClient()
card = client.get_model_version_by_alias("imdb-sentiment-sample", "champion").description
print(json.dumps({"card": card, "probability": scores["probability"].tolist(), "label": scores["label"].tolist(),
    "refused": refused,
    "columns": list(scores.columns)}))
"""


def test_the_champion_scores_raw_text_as_the_evaluation_did(finished: Path) -> None:
    registry = json.loads((finished / "reports/registry.json").read_text())
    best = registry["choice"]["chosen"]
    assert registry["decision"] == "first"
    assert registry["champion"] == registry["version"]["version"] and registry["version"]["model"] == best
    scored = in_folder(finished, SCORE)
    expected = pd.read_parquet(finished / f"data/predictions/test/{best}.parquet").head(50)
    assert scored["columns"] == ["label", "probability", "logit", "sure"]
    card, _, made_by = scored["card"].partition("\nTrained in ")
    assert card == without_head((finished / "reports/model_card.md").read_text())
    assert " s on CPU, TensorFlow " in made_by
    assert scored["probability"] == pytest.approx(expected["probability"].tolist(), abs=1e-5)
    assert scored["label"] == ["positive" if p > 0.5 else "negative" for p in expected["probability"]]
    assert "row 1" in scored["refused"] and "blank" in scored["refused"]


def test_registering_again_changes_nothing(copy: Path) -> None:
    before = json.loads((copy / "reports/registry.json").read_text())
    assert run(copy, sys.executable, "-m", "pipeline.stages.register").returncode == 0
    after = json.loads((copy / "reports/registry.json").read_text())
    assert after == before


def test_an_experiment_is_tracked_but_never_registered(copy: Path) -> None:
    done = run(copy, sys.executable, "-m", "pipeline.stages.register", DVC_EXP_NAME="wide-otter")
    assert done.returncode == 0
    assert json.loads((copy / "reports/registry.json").read_text())["decision"] == "not registered"


def test_outputs_without_a_store_become_restored_runs(copy: Path) -> None:
    for file in copy.glob("mlflow.db*"):
        file.unlink()
    assert run(copy, sys.executable, "-m", "pipeline.stages.register").returncode == 0
    runs = {run["tags"]["model"]: run for run in in_folder(copy, RUNS)}
    (name,) = runs  # the challenger's alone; `track` makes the others'
    assert name == json.loads((copy / "reports/comparison.json").read_text())["best"]
    for name in runs:
        assert runs[name]["tags"]["restored_from"] == record(copy, name)["run_id"]
        assert runs[name]["metrics"]["val_accuracy"] == record(copy, name)["metrics"]["val_accuracy"]
        assert runs[name]["metrics"]["test/accuracy"] == metrics(copy, name)["accuracy"]
    assert len(list((copy / "reports/decisions").glob("*.jsonl"))) == 2  # one a registry: the old one's stays


def test_a_tracking_server_gets_runs_versions_and_champion(copy: Path) -> None:
    with mlflow_server(copy, environment=demo.environment(copy)) as (address, _):
        environment = {"MLFLOW_TRACKING_URI": address}
        done = run(copy, sys.executable, "-m", "pipeline.stages.register", **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        runs = {r["tags"]["model"]: r for r in in_folder(copy, RUNS, **environment)}
        scored = in_folder(copy, SCORE, **environment)
    (name,) = runs
    assert runs[name]["metrics"]["test/accuracy"] == metrics(copy, name)["accuracy"]
    assert len(scored["probability"]) == 50
    assert (copy / "server-artifacts").is_dir()


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGKILL, "KILLED"), (signal.SIGTERM, "KILLED")])
def test_a_killed_training_goes_on_and_ends_in_the_same_weights(copy: Path, stop: signal.Signals, status: str) -> None:
    expected = record(copy, "stacked")
    model = (copy / "models/stacked/weights.npz").read_bytes()
    training = subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline.stages.train", "stacked"],
        cwd=copy,
        env=demo.environment(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert training.stdout is not None
    for line in training.stdout:
        if line.startswith("Epoch 2/"):  # the first epoch's state is safe
            os.kill(training.pid, stop)
            break
    training.communicate()
    assert training.returncode != 0
    (killed,) = [r for r in in_folder(copy, RUNS) if r["status"] != "FINISHED"]
    assert killed["status"] == status

    resumed = run(copy, sys.executable, "-m", "pipeline.stages.train", "stacked")

    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "Epoch 1/" not in resumed.stdout
    assert record(copy, "stacked")["weights_sha256"] == expected["weights_sha256"]
    assert (copy / "models/stacked/weights.npz").read_bytes() == model
    assert not list((copy / "checkpoints/stacked").iterdir())
    runs = [r for r in in_folder(copy, RUNS) if r["tags"]["model"] == "stacked"]
    assert [r["status"] for r in runs] == ["FINISHED", "FINISHED"]
    assert sorted(runs[0]["epochs"]) == sorted(runs[1]["epochs"])


@pytest.mark.parametrize(
    ("stage", "damaged", "message"),
    [
        (["split"], "data/raw/train.parquet", "data/raw/train.parquet is not a Parquet table"),
        (["train", "single"], "data/batches/train/plan.npz", "plan.npz is no plan of train"),
        (["train", "single"], "data/tokens/train/token_ids.npy", "data/tokens/train holds no token ids"),
        (["train", "single"], "data/teacher/ngrams/train.parquet", "is not a Parquet table"),
        (["train", "single"], "models/tokenizer/vocabulary.txt", "vocabulary.txt is not a vocabulary"),
        (["evaluate", "single"], "models/single/weights.npz", "weights.npz is not a model of its params"),
        (["test", "single"], "served/single/network.onnx", "served/single holds no candidate"),
        (["register"], "reports/comparison.json", "comparison.json is not the JSON file that belongs there"),
    ],
)
def test_a_foreign_file_in_a_stages_place_is_named(copy: Path, stage: list[str], damaged: str, message: str) -> None:
    (copy / damaged).unlink()  # DVC links files from its cache: never write through the link
    (copy / damaged).write_bytes(b"something else")
    done = run(copy, sys.executable, "-m", f"pipeline.stages.{stage[0]}", *stage[1:])
    assert done.returncode == 3, done.stderr[-2000:]
    assert message in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_model_and_a_missing_server_are_told_before_any_work(copy: Path) -> None:
    unknown = run(copy, sys.executable, "-m", "pipeline.stages.train", "double")
    assert unknown.returncode == 2 and "there are single, stacked" in unknown.stderr
    server = "http://127.0.0.1:9"  # the discard port: nothing listens there
    missing = run(copy, sys.executable, "-m", "pipeline.stages.train", "single", MLFLOW_TRACKING_URI=server)
    assert missing.returncode == 1
    assert f"the MLflow tracking store {server} cannot be used" in missing.stderr
    assert "Epoch" not in missing.stdout


def test_reviews_that_cannot_be_had_are_told_soon_with_the_remedies(copy: Path, tmp_path: Path) -> None:
    edit_params(copy, dataset="imdb_reviews")
    proxy = "http://127.0.0.1:9"  # no network, on a machine that has one too
    nowhere = {"TFDS_DATA_DIR": str(tmp_path / "nowhere"), "http_proxy": proxy, "https_proxy": proxy}
    began = time.monotonic()
    done = run(copy, sys.executable, "-m", "pipeline.stages.download", **nowhere)
    assert time.monotonic() - began < 30
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for remedy in ("TFDS_DATA_DIR=", "cp aclImdb_v1.tar.gz", "dataset: sample"):
        assert remedy in done.stderr
    before = sorted(copy.iterdir())
    nowhere |= {"TFDS_DATA_DIR": "", "HOME": str(tmp_path / "home")}
    done = run(copy, sys.executable, "-m", "pipeline.stages.download", **nowhere)
    assert "(TFDS's default, TFDS_DATA_DIR is not set)" in done.stderr  # an undefined variable of a CI is an empty one
    assert sorted(copy.iterdir()) == before
