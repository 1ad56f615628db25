"""The ONNX graph of a network is that network, whatever its variant and however its reviews are padded."""

from collections.abc import Callable
from itertools import product

import numpy as np
import onnxruntime
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.project.params import ModelParams, load_params
from pipeline.text.batching import pad
from pipeline.training.networks import build_model, scoring
from pipeline.training.onnx_graph import onnx_graph

TOKENS = 40
VARIANTS = list(product(["lstm", "gru", "simple_rnn"], ["last", "max", "mean"], [[3], [4, 3]]))
Logits = Callable[[np.ndarray], np.ndarray]


def params(cell: str, pooling: str, units: list[int]) -> ModelParams:
    sizes = {"embedding_dim": 5, "recurrent_units": units, "dense_units": 4, "dropout": 0.5}
    committed = load_params(ROOT / "params.yaml").models["stacked"]
    return committed.model_copy(update={"cell": cell, "pooling": pooling, **sizes})


@pytest.fixture(scope="module")
def both() -> dict[str, tuple[Logits, Logits]]:
    """The logits of padded batches by ONNX Runtime and by Keras's own layers, of each variant."""
    made = {}
    for cell, pooling, units in VARIANTS:
        variant = params(cell, pooling, units)
        model = build_model(variant, TOKENS)
        rng = np.random.default_rng(len(made))
        # Biases too, or a gate in another's place would hide.
        model.set_weights([rng.normal(0, 0.6, weight.shape) for weight in model.get_weights()])
        session = onnxruntime.InferenceSession(onnx_graph(variant, model.get_weights()))
        keras_logits = scoring(model)
        made[f"{cell} {pooling} {units}"] = (
            lambda batch, session=session: session.run(None, {"token_ids": batch})[0],
            lambda batch, keras_logits=keras_logits: keras_logits([batch])[0],
        )
    return made


REVIEWS = st.lists(st.lists(st.integers(1, TOKENS - 1), min_size=1, max_size=30), min_size=1, max_size=6)


@pytest.mark.parametrize("variant", [f"{cell} {pooling} {units}" for cell, pooling, units in VARIANTS])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reviews=REVIEWS, padding=st.integers(0, 40))
def test_it_gives_kerass_logits_padded_or_not(
    both: dict[str, tuple[Logits, Logits]], variant: str, reviews: list[list[int]], padding: int
) -> None:
    by_onnx, by_keras = both[variant]
    batch = pad([np.array(review, np.int32) for review in reviews])
    wider = np.pad(batch, ((0, 0), (0, padding)))
    expected = by_keras(batch)
    assert np.abs(by_onnx(batch) - expected).max() < 1e-5
    assert np.abs(by_onnx(wider) - expected).max() < 1e-5
    alone = np.concatenate([by_onnx(np.array([review], np.int32)) for review in reviews])
    assert np.abs(alone - expected).max() < 1e-5


def test_the_same_weights_give_the_same_bytes_and_others_are_no_network() -> None:
    variant = params("lstm", "last", [3])
    weights = build_model(variant, TOKENS).get_weights()
    assert onnx_graph(variant, weights) == onnx_graph(variant, weights)
    with pytest.raises(AssertionError, match="weights of another network"):
        onnx_graph(variant, [*weights, weights[-1]])
