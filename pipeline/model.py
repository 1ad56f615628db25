"""Building a Keras model from its params, loading a saved one, and the device that it runs on.

A model takes <int32>[batch, width] token ids, right-padded with 0, and returns <float32>[batch, 1] logits;
a probability above 0.5 (a logit above 0) is a positive review.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import written_whole
from pipeline.errors import DataError
from pipeline.params import ModelParams

if TYPE_CHECKING:
    import keras
    import numpy as np


def prepare_device(*, seed: int, deterministic: bool) -> str:
    """Seeds Python, NumPy and TensorFlow, turns memory growth on, and returns the device that will be used.

    Call it before TensorFlow touches a device. On a GPU Keras runs LSTM layers through cuDNN by itself. On a CPU each
    kernel runs on one core, and both directions of a layer side by side, unless TF_NUM_INTRAOP_THREADS says otherwise.

    Returns:
        "GPU: <name>" where TensorFlow sees one, else "CPU".
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with this (NVIDIA)
    import keras
    import tensorflow as tf

    # TensorFloat-32 would round away more than the 1e-5 within which padding may change a score.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if not gpus:
        # One step of an LSTM of 64 units is too small a product to be divided: on 2 cores that takes more than twice
        # as long an epoch (`make bench`, `threads`).
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        return "CPU"
    return f"GPU: {tf.config.experimental.get_device_details(gpus[0]).get('device_name', gpus[0].name)}"


def build_model(params: ModelParams, vocabulary_size: int, *, masked: bool = True) -> "keras.Model":
    """Builds an untrained classifier: embedding, bidirectional recurrent layers, pooling over time, dense, logit.

    Args:
        params: the model's entry in `params.yaml`.
        vocabulary_size: number of token ids, padding included.
        masked: False lets the padding be read like any other token, for the padding study.
    """
    import keras

    cells = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    embedding = keras.layers.Embedding(vocabulary_size, params.embedding_dim, mask_zero=masked, name="embedding")
    hidden = embedding(token_ids)
    for index, units in enumerate(params.recurrent_units, start=1):
        sequences = index < len(params.recurrent_units) or params.pooling != "last"
        layer = cells[params.cell](units, return_sequences=sequences, name=f"{params.cell}_{index}")
        hidden = keras.layers.Bidirectional(layer, name=f"bidirectional_{index}")(hidden)
    hidden = _pool(hidden, token_ids, params.pooling, masked)
    hidden = keras.layers.Dense(params.dense_units, activation="relu", name="dense")(hidden)
    if params.dropout:
        hidden = keras.layers.Dropout(params.dropout, name="dropout")(hidden)
    return keras.Model(token_ids, keras.layers.Dense(1, name="logit")(hidden), name="_".join(("review", params.cell)))


def accelerate(model: "keras.Model") -> "keras.Model":
    """Returns a model with the weights of `model` that runs fast on this machine: LSTM layers go through cuDNN on a
    GPU, which Keras does by itself, and through TensorFlow's fused kernel on a CPU."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return model
    from pipeline.fused_lstm import fuse

    return fuse(model)


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


def save_model(path: Path, model: "keras.Model", params: ModelParams) -> None:
    """Writes `model` as a `.keras` file of Keras's own layers, which plain Keras loads."""
    portable = build_model(params, vocabulary_size(model))
    portable.set_weights(model.get_weights())
    with written_whole(path) as aside:
        portable.save(aside)


def load_model(path: Path, params: ModelParams, *, masked: bool = True) -> "keras.Model":
    """Loads a saved model for inference, or with `masked=False` its twin that reads padding like any token.

    Raises:
        DataError: `path` is missing, truncated, no Keras model, or not one of these `params`.
    """
    import keras

    if not path.exists():
        raise DataError(f"{path} does not exist; run `dvc repro` to make it")
    try:
        saved = keras.models.load_model(path, compile=False)
        model = build_model(params, vocabulary_size(saved), masked=masked)
        model.set_weights(saved.get_weights())
    except Exception as error:  # Keras raises zip, HDF5, key, type and value errors alike
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not a model of its params in params.yaml ({reason}); run `dvc repro`") from error
    return accelerate(model)


def vocabulary_size(model: "keras.Model") -> int:
    return int(model.get_layer("embedding").input_dim)


def summary(model: "keras.Model") -> str:
    """Returns Keras's table of layers, output shapes and parameter counts."""
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lambda line, **_: lines.append(line))
    return "\n".join(lines) + "\n"


def logits(model: "keras.Model", batches: Iterable["np.ndarray"]) -> list["np.ndarray"]:
    """Scores padded batches.

    Args:
        model: a model of this module.
        batches: <int32>[rows, width] each, widths may differ.

    Returns:
        <float32>[rows] for each batch.
    """
    import tensorflow as tf

    step = tf.function(
        lambda token_ids: tf.squeeze(model(token_ids, training=False), -1),
        input_signature=[tf.TensorSpec((None, None), tf.int32)],
    )
    return [step(batch).numpy() for batch in batches]


def weights_sha256(model: "keras.Model") -> str:
    """Returns the SHA-256 over the shapes and values of all weights: a saved file's bytes differ at every save."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(str((weight.shape, weight.dtype)).encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()
