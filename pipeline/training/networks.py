"""The recurrent classifiers of `params.yaml`: built, saved, loaded, and the device they run on.

A network takes <int32>[batch, width] token ids, right-padded with 0, and returns <float32>[batch, 1] logits; a
probability above 0.5 (a logit above 0) is a positive review.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.project.atomic import atomic_write
from pipeline.project.errors import DataError
from pipeline.project.params import ModelParams
from pipeline.project.quiet_import import import_tensorflow

if TYPE_CHECKING:
    import keras


def prepare_device(*, seed: int, deterministic: bool) -> str:
    """Seeds Python, NumPy and TensorFlow, turns memory growth on, and returns the device that will be used.

    Call it before TensorFlow touches a device. On a CPU each kernel runs on one core, and both directions of a layer
    side by side, unless TF_NUM_INTRAOP_THREADS says otherwise.

    Returns:
        "GPU: <name>" where TensorFlow sees one, else "CPU".
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with this (NVIDIA)
    tf = import_tensorflow()
    import keras

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
        params: its entry in `params.yaml`.
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
    return keras.Model(token_ids, keras.layers.Dense(1, name="logit")(hidden), name=f"review_{params.cell}")


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


def accelerate(model: "keras.Model") -> "keras.Model":
    """Returns a model with the weights of `model` that runs fast on this machine: LSTM and GRU layers through cuDNN on
    a GPU, LSTM layers through TensorFlow's fused kernel on a CPU.

    On a GPU a layer that cuDNN cannot run raises ValueError when it is called; Keras by itself would fall back to its
    step-by-step loop without a word.
    """
    import keras
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        from pipeline.training.fused_lstm import fuse

        return fuse(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Bidirectional) and hasattr(layer.forward_layer, "use_cudnn"):
            layer.forward_layer.use_cudnn = layer.backward_layer.use_cudnn = True
    return model


def save_model(path: Path, model: "keras.Model", params: ModelParams) -> None:
    """Writes params, number of token ids and weights, in Keras's order, as NumPy arrays (`.npz`).

    The same weights give the same bytes: Keras's own format keeps the date and counts layers within the process.
    """
    described = {"params": params.model_dump(), "vocabulary_size": vocabulary_size(model)}
    arrays = {f"weight_{index}": weight for index, weight in enumerate(model.get_weights())}
    with atomic_write(path) as aside:
        np.savez(aside, allow_pickle=False, settings=np.array(json.dumps(described, sort_keys=True)), **arrays)


def read_model(path: Path) -> tuple[ModelParams, int, list[np.ndarray]]:
    """Returns what `save_model` wrote: params, number of token ids, and the weights in Keras's order.

    Raises:
        DataError: `path` is missing, truncated, or no model.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; run `dvc repro` to make it")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            described = json.loads(str(arrays["settings"]))
            weights = [arrays[f"weight_{index}"] for index in range(len(arrays.files) - 1)]
        return ModelParams.model_validate(described["params"]), int(described["vocabulary_size"]), weights
    except Exception as error:  # NumPy and zip raise many kinds for a damaged file
        raise _no_model(path, error) from error


def load_model(path: Path, params: ModelParams, *, masked: bool = True) -> "keras.Model":
    """Loads a saved model for inference, or with `masked=False` its twin that reads padding like any token.

    Raises:
        DataError: `path` is missing, truncated, no model, or not one of these `params`.
    """
    _, tokens, weights = read_model(path)
    model = build_model(params, tokens, masked=masked)
    try:
        model.set_weights(weights)
    except ValueError as error:
        raise _no_model(path, error) from error
    return accelerate(model)


def _no_model(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{path} is not a model of its params in params.yaml ({reason}); run `dvc repro`")


def vocabulary_size(model: "keras.Model") -> int:
    """Returns how many token ids `model` knows, padding included."""
    return int(model.get_layer("embedding").input_dim)


def summary(model: "keras.Model") -> str:
    """Returns Keras's table of layers, output shapes and parameter counts."""
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lambda line, **_: lines.append(line))
    return "\n".join(lines) + "\n"


def scoring(model: "keras.Model") -> Callable[[Iterable[np.ndarray]], list[np.ndarray]]:
    """Returns the function that scores padded batches with `model`: <int32>[rows, width] each, of any widths, to
    <float32>[rows] logits each. It is traced once."""
    import tensorflow as tf

    step = tf.function(
        lambda token_ids: tf.squeeze(model(token_ids, training=False), -1),
        input_signature=[tf.TensorSpec((None, None), tf.int32)],
    )
    return lambda batches: [step(batch).numpy() for batch in batches]


def weights_sha256(model: "keras.Model") -> str:
    """Returns the SHA-256 over the shapes and values of all weights."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(str((weight.shape, weight.dtype)).encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()
