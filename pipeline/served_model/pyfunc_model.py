"""The registered model as MLflow loads it: a thin wrapper around the served model's folder.

MLflow stores this file itself as the model's code ("models from code": nothing is pickled) and runs it under a name
of its own at every load. It imports nothing of this project.
"""

import runpy
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

COLUMN = "text"


class RawTextSentiment(PythonModel):
    """Scores a column of raw reviews. Threads may share one instance."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the served model from the artifacts that `versions.log_model` stored."""
        folder = Path(context.artifacts["served_model"])
        self.scorer = runpy.run_path(str(folder / "loading.py"))["load_scorer"](folder)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Scores each row of the string column `text`, in the caller's order and with the caller's index.

        Returns:
            label (`negative` or `positive`), probability (of positive), logit and sure.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (HTTP 400), naming the row, counted from 0, for text that cannot
                be scored.
        """
        try:
            scores = self.scorer.score(model_input[COLUMN])
        except self.scorer.UnencodableText as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        return pd.DataFrame(scores._asdict(), index=model_input.index)


if not __name__.startswith("pipeline."):  # MLflow runs this file, to load the model; a plain import sets nothing
    mlflow.models.set_model(RawTextSentiment())
