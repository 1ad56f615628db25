"""A registered version can be made again from its commit, its lock and its params; and it shows when it cannot."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipeline.project import provenance
from pipeline.registry.reproduction import METRICS, Made, compare, read_made, rests_on
from scripts import demo

MADE = Made(
    outputs={"data/raw": "a" * 32, "data/splits": "b" * 32},
    vocabulary_sha256="c" * 64,
    weights_sha256="d" * 64,
    metrics=dict.fromkeys(METRICS, 0.5) | {"reviews": 48, "slices": 0},
    device="CPU",
    cpu="AMD EPYC avx2 fma",
    predictions=pd.DataFrame({"id": [f"test/{i}" for i in range(100)], "logit": [1.0, -1.0] * 50}),
)
ELSEWHERE = replace(MADE, weights_sha256="e" * 64, cpu="Intel Xeon avx2 avx512f fma")


def verdicts(made: Made, *, deterministic: bool = True, tolerance: float = 0.01) -> dict[str, str]:
    rows = compare(MADE, made, deterministic=deterministic, tolerance=tolerance)
    return {row.what: row.verdict for row in rows if row.verdict != "same"}


def test_the_same_is_the_same() -> None:
    assert verdicts(MADE) == {}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (replace(MADE, outputs=MADE.outputs | {"data/splits": "e" * 32}), {"data/splits": "differs"}),
        (replace(MADE, outputs={"data/raw": "a" * 32}), {"data/splits": "differs"}),
        (replace(MADE, vocabulary_sha256="e" * 64), {"vocabulary": "differs"}),
        (replace(MADE, weights_sha256="e" * 64), {"weights": "differs"}),
        (
            replace(MADE, weights_sha256="e" * 64, device="GPU: H100"),
            {"weights": "not compared: CPU then, GPU: H100 now", "test labels": "within 8%"},
        ),
        (replace(MADE, metrics=MADE.metrics | {"accuracy": 0.495}), {"test accuracy": "within 0.01"}),
        (replace(MADE, metrics=MADE.metrics | {"accuracy": 0.485}), {"test accuracy": "differs"}),
        (replace(MADE, metrics={**MADE.metrics, "loss": float("nan")}), {"test loss": "differs"}),
    ],
)
def test_what_differs_is_named(made: Made, expected: dict[str, str]) -> None:
    assert verdicts(made) == expected


def test_weights_are_held_to_be_the_same_only_after_a_deterministic_training() -> None:
    other = replace(MADE, weights_sha256="e" * 64)
    assert verdicts(other, deterministic=False) == {
        "weights": "not compared: deterministic is false",
        "test labels": "within 8%",
    }


def with_other_labels(count: int) -> pd.DataFrame:
    """The predictions with the label of the first `count` turned."""
    assert MADE.predictions is not None
    turned = MADE.predictions["logit"].where(MADE.predictions.index >= count, -MADE.predictions["logit"])
    return MADE.predictions.assign(logit=turned).iloc[::-1]


@pytest.mark.parametrize(("count", "verdict"), [(0, "within 8%"), (8, "within 8%"), (9, "differs")])
def test_on_another_kind_of_cpu_predictions_are_compared_instead_of_weights(count: int, verdict: str) -> None:
    made = replace(ELSEWHERE, predictions=with_other_labels(count))
    rows = {row.what: row for row in compare(MADE, made, deterministic=True, tolerance=0.01)}
    assert rows["weights"].verdict == "not compared: another kind of CPU (AMD EPYC then, Intel Xeon avx512f now)"
    assert rows["test labels"][1:] == ("100 reviews", f"{count} others", verdict)


def test_without_predictions_of_these_reviews_none_are_compared() -> None:
    assert "no predictions" in verdicts(replace(ELSEWHERE, predictions=None))["test labels"]
    assert MADE.predictions is not None
    others = MADE.predictions.assign(id=[f"other/{i}" for i in range(100)])
    assert verdicts(replace(ELSEWHERE, predictions=others))["test labels"] == "differs"


def test_the_same_weights_are_the_same_on_any_kind_of_cpu() -> None:
    assert verdicts(replace(ELSEWHERE, weights_sha256=MADE.weights_sha256)) == {}


RECORD = {"weights_sha256": "d" * 64, "tags": {"device": "CPU"}}
METRICS_FILE = {"accuracy": 0.5, "roc_auc": 0.6}
LAYOUTS = {
    "as at 3bf26bf": {
        "train@m": {"models/m/model.keras": None, "reports/train/m/run.json": RECORD},
        "evaluate@m": {"reports/evaluate/m/limits.json": {}, "reports/evaluate/m/metrics.json": METRICS_FILE},
    },
    "as at 004d4bc": {
        "train@m": {
            "models/m/weights.npz": None,
            "reports/train/m/training.json": {"weights_sha256": "d" * 64},
            "reports/runs/m.json": {"run_id": "1", "tags": {"device": "CPU"}},
        },
        "evaluate@m": {"reports/evaluate/m/limits.json": {}, "reports/metrics/m.json": METRICS_FILE},
    },
}
LAYOUTS["before candidates"] = LAYOUTS["as at 004d4bc"] | {
    "evaluate@m": {"reports/evaluate/m/limits.json": {}, "reports/metrics/m.json": {"validation": {"roc_auc": 0.9}}},
    "test@m": {"reports/test/m.json": METRICS_FILE},
}

for name, folder in {"as at 396bf9a": "candidates", "as now": "served"}.items():
    LAYOUTS[name] = LAYOUTS["before candidates"] | {
        "evaluate@m": {f"{folder}/m/settings.json": {}, "reports/metrics/m.json": {"validation": {"roc_auc": 0.9}}},
    }
TRAINED = LAYOUTS["as now"]["train@m"]
FITTED = {
    "ngrams": {
        "models/ngrams/classifier.npz": None,
        "served/ngrams/settings.json": {"weights": {"ngrams": 1.2}},
        "reports/metrics/ngrams.json": {"validation": {"roc_auc": 0.9}},
        "reports/train/ngrams/training.json": TRAINED["reports/train/m/training.json"],
        "reports/runs/ngrams.json": TRAINED["reports/runs/m.json"],
    },
    "test@ngrams": {"reports/test/ngrams.json": METRICS_FILE},
}
"""What is fitted in one go has a stage of its own name."""
LAYOUTS["of n-grams"] = FITTED


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_made_is_read_from_where_its_own_commit_puts_it(tmp_path: Path, layout: str) -> None:
    model = "ngrams" if layout == "of n-grams" else "m"
    stages: dict[str, dict] = {"download": {"outs": [{"path": "data/raw", "md5": "a" * 32}]}}
    for stage, files in LAYOUTS[layout].items():
        # A file that is alone in its folder there is an output itself, others are in one that is a folder.
        outs = {str(Path(name).parent) if Path(name).parent.name == model else name for name in files}
        stages[stage] = {"outs": [{"path": out, "md5": "f" * 32} for out in outs]}
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(json.dumps(content))
    with (tmp_path / "dvc.lock").open("w") as file:
        YAML().dump({"schema": "2.0", "stages": stages}, file)
    (tmp_path / "models/tokenizer").mkdir()
    (tmp_path / "models/tokenizer/vocabulary.txt").write_text("words")
    made = read_made(tmp_path, model)
    assert made.weights_sha256 == "d" * 64 and made.device == "CPU" and made.cpu == provenance.cpu()
    assert made.metrics == METRICS_FILE and made.outputs == {"data/raw": "a" * 32}


def test_a_blend_rests_on_its_network_and_what_taught_it_and_on_no_other() -> None:
    def stage(deps: list[str], *outs: str) -> dict[str, list[dict[str, str]]]:
        return {"deps": [{"path": path} for path in deps], "outs": [{"path": path} for path in outs]}

    stages = {
        "split": stage(["data/raw", "pipeline/data/splits.py"], "data/splits"),
        "ngrams": stage(["data/splits/train.parquet"], "models/ngrams", "served/ngrams"),
        "teach@ngrams": stage(["models/ngrams"], "data/teacher/ngrams"),
        "train@m": stage(["data/teacher/ngrams"], "models/m"),
        "train@other": stage(["data/splits"], "models/other"),
        "evaluate@m": stage(["models/m"], "served/m"),
        "blend": stage(["served/m", "served/ngrams"], "served/blend"),
    }
    assert rests_on(stages, "blend") == stages.keys() - {"train@other"}
    assert rests_on(stages, "train@m") == {"split", "ngrams", "teach@ngrams", "train@m"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=demo.environment(folder),
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.e2e
def test_a_version_is_made_again_in_a_scratch_clone(tmp_path: Path) -> None:
    demo.copy_checkout(tmp_path)
    (tmp_path / ".dvc/config.local").unlink()  # this one is a git checkout
    yaml = YAML()
    params = yaml.load(tmp_path / "params.yaml")
    tiny = {"embedding_dim": 8, "recurrent_units": [8], "epochs": 1}
    params["models"] = {"single": params["models"]["single"] | tiny}
    params |= {"blend": "single", "candidates": ["single"]}
    params["tokenize"] |= {"vocabulary_size": 1024, "max_tokens": 96}
    params["evaluate"] |= {"bootstrap_samples": 100, "padding_study_reviews": 100}
    yaml.dump(params, tmp_path / "params.yaml")

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("add", "--all")
    git("commit", "-m", "As it was")
    made = run(tmp_path, "-m", "dvc", "repro", "register")
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]

    again = run(tmp_path, "-m", "pipeline.cli", "registry", "reproduce", "challenger")

    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    table = again.stdout[again.stdout.index("what ") :]
    for what in ("data/raw", "data/splits", "data/batches/train", "models/tokenizer", "vocabulary", "weights"):
        (row,) = [line for line in table.splitlines() if line.startswith(f"{what} ")]
        assert row.endswith("same"), table
    assert "differs" not in table and "test accuracy" in table

    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (version,) = store.search_model_versions("name = 'imdb-sentiment-sample'")
    assert version.tags["cpu"] == provenance.cpu() and version.tags["device"] == "CPU"
