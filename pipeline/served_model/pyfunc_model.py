"""The registered model: raw text in; label, probability and logit out.

MLflow stores this file itself as the model's code ("models from code": nothing is pickled) and runs it under a name
of its own at every load. It imports nothing of this project; the modules that it needs travel beside it as artifacts
and are loaded under unique names, so that two versions, or an application's own package `pipeline`, live in one
process.
"""

import importlib.util
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray

COLUMN = "text"
LABELS = np.array(["negative", "positive"], object)
CPU_BATCH_TOKENS = 2**13
"""Tokens of a batch, padding included. benchmarks/serving.py's `single` on 2 cores: 2**12 and 2**14 are 10% slower, as
what a batch needs no longer fits a cache (some 30 MB of gates and states in a 64-unit bidirectional LSTM)."""
GPU_BATCH_TOKENS = 2**17
BATCH_ROWS = 512


def bucketed(lengths: Sequence[int], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yields the rows of each batch, <int64>[rows]: rows of similar length, at most BATCH_ROWS of them and, unless it
    is a single row, at most `batch_tokens` tokens with their padding."""
    order = np.argsort(lengths, kind="stable")
    by_length = np.asarray(lengths)[order]
    start = 0
    while start < len(order):
        widths = by_length[start : start + BATCH_ROWS]
        fitting = np.count_nonzero(np.arange(1, len(widths) + 1) * widths <= batch_tokens)
        stop = start + max(int(fitting), 1)
        yield order[start:stop]
        start = stop


class RawTextSentiment(PythonModel):
    """Scores a column of raw reviews. Threads may share one instance: after loading nothing of it changes."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads tokenizer, model and settings from the artifacts that `versions.log_model` stored."""
        import tensorflow as tf

        folder = Path(context.artifacts["classifier"])
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._max_tokens = settings["max_tokens"]
        self._threshold = settings["threshold"]
        self._subwords = _load_module(folder / "tokenizer.py")
        self._tokenizer = self._subwords.SubwordTokenizer.load(folder / "vocabulary.txt")
        model = _load_module(folder / "network.py").load_network(folder / "weights.npz")
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        self._batch_tokens = GPU_BATCH_TOKENS if has_gpu else CPU_BATCH_TOKENS
        if not has_gpu:  # on a GPU Keras's own layer runs through cuDNN
            model = _load_module(folder / "fused_lstm.py").fuse(model)
        # Traced once, for any number of rows and any width.
        self._logits = tf.function(
            lambda token_ids: tf.squeeze(model(token_ids, training=False), -1),
            input_signature=[tf.TensorSpec((None, None), tf.int32)],
        )
        # The first call is slow, and a vocabulary that is larger than the model's embedding fails here.
        self._score([np.array([self._tokenizer.vocabulary_size - 1], np.int32)])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Scores each row of the string column `text`, in the caller's order and with the caller's index.

        Returns:
            label (`negative` or `positive`), probability (of positive) and logit.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (HTTP 400), naming the row, counted from 0, for text that cannot
                be scored.
        """
        token_ids = self.encode(model_input[COLUMN])
        logit = np.empty(len(token_ids), np.float64)
        for rows in bucketed([len(ids) for ids in token_ids], self._batch_tokens):
            logit[rows] = self._score([token_ids[row] for row in rows])
        probability = (1 + np.tanh(logit / 2)) / 2  # the logistic function, without overflow
        label = LABELS[(probability > self._threshold).astype(int)]
        columns = {"label": label, "probability": probability, "logit": logit}
        return pd.DataFrame(columns, index=model_input.index)

    def encode(self, texts: Iterable[Any]) -> list[NDArray[np.int32]]:
        """Returns the token ids that the model reads of each text: int32[tokens], at most `max_tokens`.

        Raises:
            MlflowException: as in `predict`.
        """
        try:
            return self._tokenizer.encode_batch(texts, self._max_tokens)
        except self._subwords.UnencodableText as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None

    def _score(self, token_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        padded = np.zeros((len(token_ids), max(len(ids) for ids in token_ids)), np.int32)
        for row, ids in zip(padded, token_ids, strict=True):
            row[: len(ids)] = ids
        return self._logits(padded).numpy()


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sentiment_{path.stem}_{uuid.uuid4().hex}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if not __name__.startswith("pipeline."):  # MLflow runs this file, to load the model; a plain import sets nothing
    mlflow.models.set_model(RawTextSentiment())
