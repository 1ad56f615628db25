"""The benchmark measures what it says: the classic loop is the published one, and a report holds real figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, edit_params

from benchmarks import classic, machine, measure, report
from benchmarks.profiles import kernels
from benchmarks.training import _without_learning
from benchmarks.workers import Worker
from pipeline.project.atomic import write_json
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import load_params
from pipeline.project.paths import VALIDATION_REPORT, model_file
from pipeline.text.encoding import load_tokenizer
from pipeline.training.networks import accelerate, build_model, save_model

TRIAL = measure.Size(
    training=0.03,
    validation=0.03,
    rounds=1,
    vocabulary=50,
    encoding_rounds=1,
    scored=64,
    requests=5,
    short_rounds=1,
    whole=False,
)
LENGTHS = np.random.default_rng(0).integers(1, 60, 200)
TOKEN_IDS = [np.full(length, row + 1, np.int32) for row, length in enumerate(LENGTHS)]
LABEL = np.arange(200, dtype=np.int8) % 2


def test_the_classic_loop_shuffles_whole_reviews_and_pads_batches_of_64_to_their_longest() -> None:
    data = classic.batches(TOKEN_IDS, LABEL, seed=1)
    epochs = [[(ids.numpy(), label.numpy()) for ids, label in data] for _ in range(2)]
    for batches in epochs:
        assert [len(ids) for ids, _ in batches] == [64, 64, 64, 8]
        rows = [row for ids, _ in batches for row in ids]
        read = [row[row > 0] for row in rows]
        assert sorted(row[0] for row in read) == list(range(1, 201))
        assert all(len(row) == LENGTHS[row[0] - 1] for row in read)
        assert all(ids.shape[1] == LENGTHS[ids[:, 0] - 1].max() for ids, _ in batches)
        assert all((label == (ids[:, 0] - 1) % 2).all() for ids, label in batches)
    first, second = ([row[0] for ids, _ in batches for row in ids] for batches in epochs)
    assert first != second and first != sorted(first)
    in_order = [ids.numpy()[:, 0] for ids, _ in classic.batches(TOKEN_IDS, LABEL)]
    assert np.concatenate(in_order).tolist() == list(range(1, 201))


@pytest.mark.parametrize(("name", "parameters"), [("single", 598_209), ("stacked", 635_329)])
def test_the_classic_models_are_the_pipelines_without_a_mask_under_adam(name: str, parameters: int) -> None:
    model = classic.build_model(name, 8185)
    short = np.array([[5, 6, 7]], np.int32)
    alone, padded = (model(token_ids).numpy()[0, 0] for token_ids in (short, np.pad(short, ((0, 0), (0, 50)))))
    assert abs(alone - padded) > 1e-5
    assert model.count_params() == parameters
    committed = load_params(ROOT / "params.yaml").model(name)
    assert accelerate(build_model(committed, 8185)).count_params() == parameters
    assert type(model.optimizer).__name__ == "Adam"
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)
    assert model.optimizer.clipnorm is None and model.optimizer.global_clipnorm is None


def test_networks_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(DataError, match=r"single of params\.yaml has 1,200 parameters, the tutorial's 598,209"):
        measure.require_same_size("single", 598_209, 1200)


def test_warming_up_teaches_the_model_nothing() -> None:
    model = classic.build_model("single", 300)
    model.build((None, None))
    before = model.get_weights()
    data = classic.batches(TOKEN_IDS, LABEL, seed=1)
    assert _without_learning(model, lambda: model.fit(data, shuffle=False, verbose=0)) > 0
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert int(model.optimizer.iterations) == 0


def test_a_profile_names_the_kernels_that_ran() -> None:
    import tensorflow as tf

    matrix = tf.random.normal((500, 500))
    profile = kernels(tf.function(lambda: tf.matmul(matrix, matrix)))
    assert any("MatMul" in name for name in profile["kernels"])
    assert sum(profile["kernels"].values()) == pytest.approx(1, abs=0.01)


def test_a_worker_that_fails_says_why(project: Path) -> None:
    with Worker("tokenizer", "pipeline", 5) as worker, pytest.raises(PipelineError, match=r"vocabulary\.txt does not"):
        worker.ask("build")


def test_without_the_pipelines_outputs_the_benchmark_says_what_to_run(project: Path) -> None:
    with pytest.raises(DataError, match=r"train\.parquet does not exist; run `dvc repro`"):
        measure.report(TRIAL)


def test_the_machine_is_named() -> None:
    described = machine.describe()
    assert described["cores"] >= 1 and described["processor"]
    assert described["libraries"]["tensorflow"]


@pytest.fixture
def prepared(project: Path, run_stage: Callable[..., Any]) -> Path:
    """A project whose batches are made, with a short `max_tokens`."""
    edit_params(project, tokenize__max_tokens=64)
    write_json(project / VALIDATION_REPORT, {"success": True})
    for stage in ("download", "split", "vocabulary", "tokenize", "batch"):
        done = run_stage(stage)
        assert done.returncode == 0, done.stderr[-2000:]
    params = load_params().model("single")
    save_model(model_file("single"), build_model(params, load_tokenizer().vocabulary_size), params)
    return project


@pytest.mark.e2e
def test_a_report_holds_ratios_of_measured_figures(prepared: Path) -> None:
    found = {"mode": "trial", "targets": report.TARGETS, **measure.report(TRIAL)}
    write_json(report.REPORT, found)  # refuses NaN and infinities
    assert len(report.picture(found)) > 10_000
    assert json.loads(report.REPORT.read_text()) == found

    assert {*report.TARGETS, "evaluate_single", "evaluate_stacked", "threads"} <= found["ratios"].keys()
    assert all(ratio > 0 for ratio in found["ratios"].values())
    training = found["training"]
    for model in measure.MODELS:
        loops = training[f"classic_{model}"], training[f"pipeline_{model}"]
        assert all(loop["epoch_seconds"]["median"] > 0 and loop["peak_memory_mb"] > 100 for loop in loops)
        seconds = [loop["epoch_seconds"]["median"] for loop in loops]
        assert found["ratios"][f"train_{model}"] == round(seconds[0] / seconds[1], 2)
        whole, truncated = (loop["real_tokens"] for loop in loops)
        assert whole > truncated == sum(map(len, _kept_rows(training["reviews"])))
        assert any(name.startswith("BlockLSTM") for name in training["profile"][model]["kernels"])
    for name in ("vocabulary_build", "encoding"):
        assert found["tokenizer"][name]["identical"] is True
    scoring = found["scoring"]
    assert scoring["one_core"]["from_raw_text"]["median"] > 0
    assert "LSTM" in scoring["one_core"]["profile"] and "tokenizer" in scoring["one_core"]["profile"]
    assert scoring["all_cores"]["one_review_http_ms"]["count"] == TRIAL.requests
    assert scoring["all_cores"]["parity"]["reviews"] == TRIAL.scored
    assert scoring["all_cores"]["parity"]["largest_difference"] < 1e-5
    assert found["stages"]["start"]["split"]["loaded"] == []
    assert str(found["stages"]["dvc_repro_no_op_seconds"]).startswith(measure.NOT_MEASURED)
    table = report.table(found).splitlines()
    assert len(table) == 9 and all(line.count("|") == 5 for line in table)


def _kept_rows(count: int) -> list[np.ndarray]:
    """The token ids of the reviews that a trial draws, read from the tokens that they were batched from."""
    from benchmarks.reviews import draw_batches
    from pipeline.project.paths import TOKENS

    drawn = draw_batches("train", TRIAL.training, load_params().seed)
    ids = [review for batch in drawn for review in batch.id]
    assert len(ids) == count
    return pd.read_parquet(TOKENS / "train.parquet").set_index("id").loc[ids, "token_ids"].tolist()
