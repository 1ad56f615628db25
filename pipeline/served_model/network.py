"""The recurrent classifier: how it is built from its params, and the file that keeps it.

A network takes <int32>[batch, width] token ids, right-padded with 0, and returns <float32>[batch, 1] logits; a
probability above 0.5 (a logit above 0) is a positive review. This module imports nothing of this project, since it
travels with the registered model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def build_network(params: Mapping[str, Any], vocabulary_size: int, *, masked: bool = True) -> "keras.Model":
    """Builds an untrained classifier: embedding, bidirectional recurrent layers, pooling over time, dense, logit.

    Args:
        params: cell, embedding_dim, recurrent_units, pooling, dense_units and dropout, as in `params.yaml`.
        vocabulary_size: number of token ids, padding included.
        masked: False lets the padding be read like any other token, for the padding study.
    """
    import keras

    cell, units_of, pooling = params["cell"], params["recurrent_units"], params["pooling"]
    cells = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    embedding = keras.layers.Embedding(vocabulary_size, params["embedding_dim"], mask_zero=masked, name="embedding")
    hidden = embedding(token_ids)
    for index, units in enumerate(units_of, start=1):
        sequences = index < len(units_of) or pooling != "last"
        layer = cells[cell](units, return_sequences=sequences, name=f"{cell}_{index}")
        hidden = keras.layers.Bidirectional(layer, name=f"bidirectional_{index}")(hidden)
    hidden = _pool(hidden, token_ids, pooling, masked)
    hidden = keras.layers.Dense(params["dense_units"], activation="relu", name="dense")(hidden)
    if params["dropout"]:
        hidden = keras.layers.Dropout(params["dropout"], name="dropout")(hidden)
    return keras.Model(token_ids, keras.layers.Dense(1, name="logit")(hidden), name=f"review_{cell}")


def _pool(hidden: Any, token_ids: Any, pooling: str, masked: bool) -> Any:
    """Reduces <float32>[batch, width, units] over the real time steps; `last` was done by the recurrent layer."""
    from keras import ops

    if pooling == "last":
        return hidden
    real = ops.expand_dims(ops.not_equal(token_ids, 0 if masked else -1), -1)
    if pooling == "max":
        return ops.max(ops.where(real, hidden, -1.0), axis=1)  # -1 is the least that a tanh cell puts out
    weight = ops.cast(real, "float32")
    return ops.sum(hidden * weight, axis=1) / ops.sum(weight, axis=1)


def save_network(path: Path, params: Mapping[str, Any], vocabulary_size: int, weights: list[np.ndarray]) -> None:
    """Writes params, number of token ids and weights, in Keras's order, as NumPy arrays (`.npz`).

    The same weights give the same bytes: Keras's own format keeps the date and counts layers within the process.
    """
    settings = json.dumps({"params": dict(params), "vocabulary_size": vocabulary_size}, sort_keys=True)
    arrays = {f"weight_{index}": weight for index, weight in enumerate(weights)}
    np.savez(path, allow_pickle=False, settings=np.array(settings), **arrays)


def read_network(path: Path) -> tuple[dict[str, Any], int, list[np.ndarray]]:
    """Returns what `save_network` wrote; NumPy and the zip format raise many kinds of errors for a damaged file."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        settings = json.loads(str(arrays["settings"]))
        weights = [arrays[f"weight_{index}"] for index in range(len(arrays.files) - 1)]
    return settings["params"], int(settings["vocabulary_size"]), weights


def load_network(path: Path) -> "keras.Model":
    """Returns the saved network, for inference; errors as in `read_network`, and ValueError for weights of others."""
    params, vocabulary_size, weights = read_network(path)
    network = build_network(params, vocabulary_size)
    network.set_weights(weights)
    return network
