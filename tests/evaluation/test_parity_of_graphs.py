"""A candidate is made of a network only where its ONNX graph says what the trained network says."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from pipeline.evaluation import candidates, parity
from pipeline.project.errors import PipelineError
from pipeline.project.params import ModelParams, load_params
from pipeline.project.paths import VOCABULARY
from pipeline.served_model.scorer import NETWORK, Scorer
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.training import networks, onnx_graph

MAX_TOKENS = 24
VOCABULARY_SIZE = 60
TINY = {"embedding_dim": 4, "recurrent_units": [3], "dense_units": 3}
ROWS = [np.random.default_rng(row).integers(1, VOCABULARY_SIZE, 1 + row % MAX_TOKENS, np.int32) for row in range(60)]


def params(**changed: Any) -> ModelParams:
    return load_params(ROOT / "params.yaml").models["single"].model_copy(update=TINY | changed)


def trained(of: ModelParams, vocabulary_size: int = VOCABULARY_SIZE) -> Any:
    """Returns a network in whose logit every weight shows."""
    network = networks.build_model(of, vocabulary_size)
    rng = np.random.default_rng(1)
    network.set_weights([rng.uniform(-0.9, 0.9, weight.shape) for weight in network.get_weights()])
    return network


def gates_in_another_order(patch: pytest.MonkeyPatch, of: ModelParams, weights: list[np.ndarray]) -> bytes:
    patch.setitem(onnx_graph._GATES, "gru", (1, 0, 2))
    return onnx_graph.onnx_graph(of, weights)


def of_another_training(_: pytest.MonkeyPatch, of: ModelParams, weights: list[np.ndarray]) -> bytes:
    return onnx_graph.onnx_graph(of, [*weights[:-1], weights[-1] + 1e-3])


def pooled_otherwise(_: pytest.MonkeyPatch, of: ModelParams, weights: list[np.ndarray]) -> bytes:
    return onnx_graph.onnx_graph(of.model_copy(update={"pooling": "mean"}), weights)


@pytest.mark.parametrize("pooling", ["last", "max", "mean"])
def test_the_graph_of_a_network_says_what_it_says(pooling: str) -> None:
    of = params(pooling=pooling)
    network = trained(of)
    graph = onnx_graph.onnx_graph(of, network.get_weights())
    assert parity.require_same(graph, networks.scoring(network), ROWS, MAX_TOKENS) < parity.TOLERANCE


@pytest.mark.parametrize("wrong", [gates_in_another_order, of_another_training, pooled_otherwise])
def test_a_graph_that_says_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[pytest.MonkeyPatch, ModelParams, list[np.ndarray]], bytes]
) -> None:
    of = params(cell="gru")
    network = trained(of)
    graph = wrong(monkeypatch, of, network.get_weights())
    with pytest.raises(PipelineError, match="the ONNX graph gives probabilities that differ by"):
        parity.require_same(graph, networks.scoring(network), ROWS, MAX_TOKENS)


def test_rows_of_the_least_and_the_most_tokens_are_compared_whatever_the_reviews_are() -> None:
    lengths = {len(row) for row in parity.of_lengths([np.array([3], np.int32)], MAX_TOKENS)}
    assert {1, MAX_TOKENS} < lengths


def test_what_is_no_number_is_refused() -> None:
    of = params()
    network = trained(of)
    weights = network.get_weights()
    graph = onnx_graph.onnx_graph(of, [*weights[:-1], weights[-1] * np.nan])
    with pytest.raises(PipelineError, match="differ by nan"):
        parity.require_same(graph, networks.scoring(network), ROWS, MAX_TOKENS)


TEXTS = [f"{'no ' * (row % 7)}film number {row}" for row in range(60)]


def scorer_of(folder: Path, network: Any, of: ModelParams, tokenizer: SubwordTokenizer) -> Scorer:
    VOCABULARY.parent.mkdir(parents=True)
    tokenizer.save(VOCABULARY)
    graph = onnx_graph.onnx_graph(of, network.get_weights())
    for name, content in candidates.served_files({NETWORK: graph}, {NETWORK: 1.0}, None, MAX_TOKENS).items():
        (folder / name).write_bytes(content)
    return Scorer(folder)


def left(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    return np.array([[0] * (width - len(row)) + row.tolist() for row in rows], np.int32)


def with_a_subword(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    return np.array([row.tolist() + [1] * (width - len(row)) for row in rows], np.int32)


def for_another_row(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    return np.array([row.tolist() + [0] * (width - len(row)) for row in reversed(rows)], np.int32)


@pytest.mark.parametrize("padded", [None, left, with_a_subword, for_another_row])
def test_a_scorer_that_pads_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, padded: Callable[[Sequence[np.ndarray], int], np.ndarray] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    of, tokenizer = params(), SubwordTokenizer(["no_", "film_", "number_"])
    network = trained(of, tokenizer.vocabulary_size)
    scorer = scorer_of(tmp_path, network, of, tokenizer)
    token_ids = [np.array(tokenizer.encode(text, MAX_TOKENS), np.int32) for text in TEXTS]
    if padded is None:
        assert parity.require_served(scorer, networks.scoring(network), TEXTS, token_ids) < parity.TOLERANCE
        return

    def faulty(self: Scorer, rows: Sequence[np.ndarray]) -> np.ndarray:
        width = max(map(len, rows))
        return np.asarray(self._session.run(None, {"token_ids": padded(rows, width)})[0])

    monkeypatch.setattr(Scorer, "_score", faulty)
    with pytest.raises(PipelineError, match="the ONNX scorer gives probabilities that differ by"):
        parity.require_served(scorer, networks.scoring(network), TEXTS, token_ids)
