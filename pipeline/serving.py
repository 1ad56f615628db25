"""The registered model: raw text in; label, probability and logit out.

MLflow stores this file itself as the model's code ("models from code": nothing is pickled) and runs it under a name
of its own at every load. It imports nothing of this project; the modules that it needs travel beside it as artifacts
and are loaded under unique names, so that two versions, or an application's own package `pipeline`, live in one
process.
"""

import importlib.util
import json
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

COLUMN = "text"
BATCH_SIZE = 64
LABELS = np.array(["negative", "positive"])


class RawTextSentiment(PythonModel):
    """Scores a column of raw reviews."""

    def load_context(self, context: Any) -> None:
        """Loads tokenizer, model and settings from the artifacts that `registry.log_model` stored."""
        import keras

        folder = Path(context.artifacts["classifier"])
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._max_tokens = settings["max_tokens"]
        self._threshold = settings["threshold"]
        self._subwords = _load_module(folder / "subwords.py")
        self._tokenizer = self._subwords.SubwordTokenizer.load(folder / "vocabulary.txt")
        self._model = keras.models.load_model(folder / "model.keras", compile=False)
        if not _has_gpu():
            self._model = _load_module(folder / "fused_lstm.py").fuse(self._model)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Scores each row of the string column `text`, in the caller's order.

        Returns:
            label (`negative` or `positive`), probability (of positive) and logit.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (HTTP 400), naming the row, for text that cannot be scored.
        """
        token_ids = self._encode(model_input[COLUMN])
        order = np.argsort([len(ids) for ids in token_ids], kind="stable")
        logit = np.empty(len(token_ids), np.float64)
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            logit[rows] = self._score([token_ids[row] for row in rows])
        probability = 1 / (1 + np.exp(-logit))
        label = LABELS[(probability > self._threshold).astype(int)]
        return pd.DataFrame({"label": label, "probability": probability, "logit": logit})

    def _encode(self, texts: pd.Series) -> list[np.ndarray]:
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise MlflowException(f"row {row}: {COLUMN} is {text!r}, not a string", INVALID_PARAMETER_VALUE)
        try:
            return self._tokenizer.encode_batch(texts, self._max_tokens)
        except self._subwords.UnencodableText as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None

    def _score(self, token_ids: list[np.ndarray]) -> np.ndarray:
        import keras

        padded = keras.utils.pad_sequences(token_ids, dtype="int32", padding="post")
        return self._model(padded, training=False).numpy()[:, 0]


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sentiment_{path.stem}_{uuid.uuid4().hex}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


mlflow.models.set_model(RawTextSentiment())
