"""The networks of `params.yaml` (see `network.build_network`): built, saved, loaded, and the device they run on."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.project.atomic import atomic_write
from pipeline.project.errors import DataError
from pipeline.project.params import ModelParams
from pipeline.served_model import network

if TYPE_CHECKING:
    import keras
    import numpy as np


def prepare_device(*, seed: int, deterministic: bool) -> str:
    """Seeds Python, NumPy and TensorFlow, turns memory growth on, and returns the device that will be used.

    Call it before TensorFlow touches a device. On a CPU each kernel runs on one core, and both directions of a layer
    side by side, unless TF_NUM_INTRAOP_THREADS says otherwise.

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
    """Builds an untrained classifier from its entry in `params.yaml`; see `network.build_network`."""
    return network.build_network(params.model_dump(), vocabulary_size, masked=masked)


def accelerate(model: "keras.Model") -> "keras.Model":
    """Returns a model with the weights of `model` that runs fast on this machine: LSTM and GRU layers through cuDNN on
    a GPU, LSTM layers through TensorFlow's fused kernel on a CPU.

    On a GPU a layer that cuDNN cannot run raises ValueError when it is called; Keras by itself would fall back to its
    step-by-step loop without a word.
    """
    import keras
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        from pipeline.served_model.fused_lstm import fuse

        return fuse(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Bidirectional) and hasattr(layer.forward_layer, "use_cudnn"):
            layer.forward_layer.use_cudnn = layer.backward_layer.use_cudnn = True
    return model


def save_model(path: Path, model: "keras.Model", params: ModelParams) -> None:
    """Writes `model`, with the same bytes for the same weights; see `network.save_network`."""
    with atomic_write(path) as aside:
        network.save_network(aside, params.model_dump(), vocabulary_size(model), model.get_weights())


def load_model(path: Path, params: ModelParams, *, masked: bool = True) -> "keras.Model":
    """Loads a saved model for inference, or with `masked=False` its twin that reads padding like any token.

    Raises:
        DataError: `path` is missing, truncated, no model, or not one of these `params`.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; run `dvc repro` to make it")
    try:
        _, tokens, weights = network.read_network(path)
        model = build_model(params, tokens, masked=masked)
        model.set_weights(weights)
    except Exception as error:  # NumPy and zip raise many kinds for a damaged file, Keras for other weights
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not a model of its params in params.yaml ({reason}); run `dvc repro`") from error
    return accelerate(model)


def vocabulary_size(model: "keras.Model") -> int:
    """Returns how many token ids `model` knows, padding included."""
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
    """Returns the SHA-256 over the shapes and values of all weights."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(str((weight.shape, weight.dtype)).encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()
