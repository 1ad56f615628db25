"""The benchmark measures what it says: the classic loop is the published one, and a report holds real figures."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Registered, edit_params

from benchmarks import classic, load, machine, measure, report, reviews, server, stages
from benchmarks.profiles import kernels
from benchmarks.training import _without_learning
from benchmarks.workers import Worker
from pipeline.evaluation import candidates
from pipeline.project.atomic import write_json
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import load_params
from pipeline.project.paths import BLEND, NGRAMS, TOKENS, VALIDATION_REPORT, model_file
from pipeline.served_model.scorer import NETWORK
from pipeline.text.encoding import load_tokenizer
from pipeline.text.token_arrays import TokenArray, read_tokens, write_tokens
from pipeline.training.networks import accelerate, build_model, save_model
from pipeline.training.onnx_graph import onnx_graph

TRIAL = measure.Size(
    training=0.03,
    validation=0.03,
    rounds=1,
    vocabulary=50,
    encoding_rounds=1,
    scored=64,
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


@pytest.mark.e2e
def test_clients_are_answered_by_a_server_and_told_apart(registered: Registered) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", registered.paths["mean"]]
    texts = [f"A film of {number} minutes." for number in range(20)]
    with server.running(command) as running:
        found = load.measure(running.address, texts, clients=4, reviews=8, seconds=1.0)
        assert running.memory_mb() > 50
    assert 0 < running.seconds < 60
    assert found["reviews_per_second"] % 8 == 0 and 0 < found["median_ms"] <= found["p99_ms"] < 1000
    with pytest.raises(PipelineError, match="--model nowhere"), server.running([*command[:-1], "nowhere"]):
        pass


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


def test_every_stage_of_dvc_yaml_is_a_module_with_what_it_is_run_for(project: Path) -> None:
    commands = dict(stages.commands())
    assert commands["split"] == ["pipeline.stages.split"]
    assert commands["teach@ngrams"] == ["pipeline.stages.teach", "ngrams"]
    assert commands["train@single"] == ["pipeline.stages.train", "single"]
    assert commands["test@blend"] == ["pipeline.stages.test", "blend"]
    assert not any("$" in argument for command in commands.values() for argument in command)


def test_the_machine_is_named() -> None:
    described = machine.describe()
    assert described["cores"] >= 1 and described["processor"]
    assert described["libraries"]["tensorflow"]


def test_the_picture_shows_each_speed_as_a_dot_and_what_is_slower_left_of_the_reference() -> None:
    found = json.loads((ROOT / report.REPORT).read_text())
    found["ratios"] = {"train_single": 5.3, "server_of_bulk": 0.8, "memory_single": 2.0}
    drawn = report.picture(found)
    names = ("training, single", "server, of bulk scoring", "5.3×", "0.8×")
    assert all(f">{name}</text>" in drawn for name in names) and "memory" not in drawn
    across = {name: float(x) for x, name in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>([\d.]+×)</text>', drawn)}
    assert across["0.8×"] < across["1×"] < across["5.3×"]


def test_a_missing_report_names_the_command_that_writes_it(project: Path) -> None:
    with pytest.raises(DataError, match=r"reports/benchmark\.json does not exist; run `make bench` to make it"):
        report.markdown()


@pytest.fixture
def prepared(project: Path, run_stage: Callable[..., Any]) -> Path:
    """A project with an untrained network, n-grams and both as candidates, and a short `max_tokens`."""
    edit_params(project, tokenize__max_tokens=64)
    write_json(project / VALIDATION_REPORT, {"success": True})
    for stage in ("download", "split", "vocabulary", "tokenize", "batch", "ngrams"):
        done = run_stage(stage)
        assert done.returncode == 0, done.stderr[-2000:]
    params, model_params = load_params(), load_params().model("single")
    network = build_model(model_params, load_tokenizer().vocabulary_size)
    save_model(model_file("single"), network, model_params)
    graph = {NETWORK: onnx_graph(model_params, network.get_weights())}
    candidates.conclude("single", graph, params)
    candidates.conclude(BLEND, graph | {NGRAMS: candidates.read_part(NGRAMS, NGRAMS)}, params)
    return project


@pytest.mark.e2e
def test_a_report_holds_ratios_of_measured_figures(prepared: Path) -> None:
    found = {"mode": "trial", "targets": report.TARGETS, **measure.report(TRIAL)}
    write_json(report.REPORT, found)  # refuses NaN and infinities
    assert len(report.picture(found)) > 10_000
    assert json.loads(report.REPORT.read_text()) == found

    assert {*report.TARGETS, "evaluate_single", "evaluate_stacked", "threads", "allocator"} <= found["ratios"].keys()
    assert all(ratio > 0 for ratio in found["ratios"].values())
    training = found["training"]
    for model in measure.MODELS:
        loops = training[f"classic_{model}"], training[f"pipeline_{model}"]
        assert all(loop["epoch_seconds"]["median"] > 0 and loop["peak_memory_mb"] > 100 for loop in loops)
        seconds = [loop["epoch_seconds"]["median"] for loop in loops]
        assert found["ratios"][f"train_{model}"] == round(seconds[0] / seconds[1], 2)
        whole, truncated = (loop["real_tokens"] for loop in loops)
        drawn = reviews.draw("train", TRIAL.training, load_params().seed)
        assert len(drawn) == training["reviews"]
        assert whole > truncated == drawn.lengths.sum()
        assert any(name.startswith("BlockLSTM") for name in training["profile"][model]["kernels"])
    for name in ("vocabulary_build", "encoding"):
        assert found["tokenizer"][name]["identical"] is True
    scoring = found["scoring"]
    assert all(scoring["one_core"][f"{way}from_raw_text"]["median"] > 0 for way in ("", "ngrams_", "blend_"))
    assert "LSTM" in scoring["one_core"]["profile"] and "tokenizer" in scoring["one_core"]["profile"]
    assert scoring["all_cores"]["parity"]["reviews"] == TRIAL.scored
    assert scoring["all_cores"]["parity"]["largest_difference"] < 1e-5
    assert found["stages"]["start"]["split"]["loaded"] == []
    assert str(found["stages"]["dvc_repro_no_op_seconds"]).startswith(measure.NOT_MEASURED)
    table = report.table(found).splitlines()
    assert len(table) == 11 and all(line.count("|") == 5 for line in table)

    assert report.table(_older(found)).splitlines() == [line for line in table if "n-grams" not in line]


def _older(found: dict[str, Any]) -> dict[str, Any]:
    """The report as one of before the n-grams and the blend were candidates."""
    bulk = {
        way: speed for way, speed in found["scoring"]["all_cores"].items() if not way.startswith(("ngrams", "blend"))
    }
    return found | {"scoring": {"all_cores": bulk}}


@pytest.fixture
def tokenized(project: Path) -> TokenArray:
    """Token ids of 200 training reviews, of 1 to 59 tokens."""
    ids = [f"train/{row}" for row in range(200)]
    write_tokens(project / TOKENS / "train", TOKEN_IDS, ids, LABEL.tolist(), vocabulary_size=600)
    return read_tokens(TOKENS / "train")


def test_few_reviews_are_drawn_as_long_and_short_as_all_are(tokenized: TokenArray) -> None:
    drawn = reviews.draw("train", 0.2, seed=1)
    assert len(set(drawn.id)) == len(drawn) == 40
    shares = np.linspace(0, 1, 21)
    np.testing.assert_allclose(np.quantile(drawn.lengths, shares), np.quantile(LENGTHS, shares), atol=2)
    assert sorted(drawn.lengths) != drawn.lengths.tolist()
    for row, (review, label) in enumerate(zip(drawn, reviews.labels(drawn), strict=True)):
        number = int(drawn.id[row].removeprefix("train/"))
        assert review.tolist() == TOKEN_IDS[number].tolist() and label == LABEL[number]


def test_the_pipelines_loop_reads_the_drawn_reviews_anew_each_epoch_with_labels_as_targets(
    tokenized: TokenArray,
) -> None:
    drawn = reviews.draw("train", 1.0, seed=1)
    examples = reviews.examples(drawn, load_params().batch, seed=1)
    epochs = [list(examples.epoch(number)) for number in (1, 2)]
    for batches in epochs:
        rows = [
            (int(row[0]), int(target)) for ids, targets in batches for row, target in zip(ids, targets, strict=True)
        ]
        assert sorted(rows) == [(row + 1, int(LABEL[row])) for row in range(200)]
    assert [ids.tolist() for ids, _ in epochs[0]] != [ids.tolist() for ids, _ in epochs[1]]
    assert sum(len(targets) for _, targets in reviews.first(examples, 2).epoch(1)) == 2 * 64
