"""The LSTM written out in NumPy is the layer that Keras trains."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.project.params import ModelParams
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.studies.lstm_trace import EXAMPLE, SHOWN_UNITS, along, lstm_steps
from pipeline.text.vocabulary import build_vocabulary

FEATURES, UNITS = 5, 12


@given(steps=st.integers(1, 60), scale=st.floats(0.01, 1), seed=st.integers(0, 2**16))
@settings(max_examples=15)
def test_numpy_computes_what_keras_does(steps: int, scale: float, seed: int) -> None:
    import keras

    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(steps, FEATURES)).astype(np.float32)
    layer = keras.layers.LSTM(UNITS, return_sequences=True)
    layer.build((None, steps, FEATURES))
    layer.set_weights([generator.normal(scale=scale, size=weight.shape) for weight in layer.get_weights()])
    written_out = lstm_steps(inputs, *layer.get_weights())
    np.testing.assert_allclose(written_out["hidden"], layer(inputs[None])[0], atol=1e-5)


def test_the_gates_do_what_their_names_say() -> None:
    """A cell state is kept where the forget gate is open and the input gate shut, and dropped where it is shut."""
    kernel, recurrent = np.zeros((1, 4)), np.zeros((1, 4))
    wide_open, shut = 50.0, -50.0
    kernel[0] = [100.0, 0.0, 10.0, 0.0]  # an input of 1 opens the input gate and sets the candidate to 1
    inputs = np.array([[1.0], [0.0], [0.0]])
    keeping = lstm_steps(inputs, kernel, recurrent, np.array([shut, wide_open, 0.0, wide_open]))
    np.testing.assert_allclose(keeping["cell"][:, 0], [1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(keeping["hidden"][:, 0], np.tanh([1, 1, 1]), atol=1e-6)
    forgetting = lstm_steps(inputs, kernel, recurrent, np.array([shut, shut, 0.0, wide_open]))
    np.testing.assert_allclose(forgetting["cell"][:, 0], [1, 0, 0], atol=1e-6)
    hiding = lstm_steps(inputs, kernel, recurrent, np.array([shut, wide_open, 0.0, shut]))
    np.testing.assert_allclose(hiding["hidden"][:, 0], [0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("units", [[12], [12, 4]])
def test_a_models_first_layer_is_followed_along_a_review(reviews: pd.DataFrame, units: list[int]) -> None:
    import keras

    from pipeline.training.networks import accelerate, build_model

    params = ModelParams(
        learns_from="labels",
        epochs=1,
        cell="lstm",
        embedding_dim=6,
        recurrent_units=units,
        pooling="last",
        dense_units=4,
        dropout=0.0,
        token_dropout=0.0,
        learning_rate=0.001,
    )
    keras.utils.set_random_seed(3)
    tokenizer = SubwordTokenizer(build_vocabulary(reviews["text"].head(300), 1000))
    model = build_model(params, tokenizer.vocabulary_size)
    generator = np.random.default_rng(3)
    model.set_weights([generator.uniform(-1, 1, weight.shape) for weight in model.get_weights()])

    def scored(token_ids: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([len(ids) / 100 for ids in token_ids])

    followed = along(accelerate(model), tokenizer, EXAMPLE, scored)
    assert "".join(followed["tokens"]) == EXAMPLE
    assert followed["largest_difference"] < 1e-5
    assert followed["probability"] == [count / 100 for count in range(1, len(followed["tokens"]) + 1)]
    assert followed["units"] == 12 and len(followed["shown"]) == SHOWN_UNITS
    for name in ("input_gate", "forget_gate", "output_gate", "cell"):
        assert np.shape(followed[name]) == (SHOWN_UNITS, len(followed["tokens"]))
