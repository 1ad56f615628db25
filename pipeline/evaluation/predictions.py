"""What a network predicts on a held-out split, and how good that is."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.metrics import probability
from pipeline.evaluation.significance import report, slices
from pipeline.project.atomic import read_table
from pipeline.project.errors import DataError
from pipeline.project.params import EvaluateParams
from pipeline.project.paths import BATCHES, SPLIT_TABLES
from pipeline.text.batching import Batch, read_batches

if TYPE_CHECKING:
    import pandas as pd

Logits = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Scores padded batches, <int32>[rows, width] each, to <float32>[rows] each: `networks.scoring`."""


def predict(logits: Logits, split: str) -> "pd.DataFrame":
    """Scores the batches of a split.

    Args:
        logits: of padded batches.
        split: the split's name.

    Returns:
        id, label, logit, probability and length (in tokens) of every review, in the order of the split's table.

    Raises:
        DataError: the batches do not hold exactly the reviews of the table with their labels.
    """
    batches, reviews = read_batches(BATCHES / split), read_table(SPLIT_TABLES / f"{split}.parquet", ("id", "label"))
    scored = _scored(batches, logits([batch.token_ids for batch in batches]))
    ordered = reviews[["id"]].merge(scored, on="id", how="left")
    if len(scored) != len(reviews) or not ordered["label"].eq(reviews["label"]).all():
        raise DataError(
            f"{BATCHES / split} does not hold the reviews of {SPLIT_TABLES / f'{split}.parquet'}; run `dvc repro`"
        )
    ordered = ordered.astype({"label": np.int8, "length": np.int32})
    ordered.insert(3, "probability", probability(ordered["logit"].to_numpy()))
    return ordered


def _scored(batches: Sequence[Batch], logits: Sequence[np.ndarray]) -> "pd.DataFrame":
    """Returns id, label, logit and length of the batches' reviews; of no batch a table without rows."""
    import pandas as pd

    return pd.DataFrame(
        {
            "id": pd.Series([review for batch in batches for review in batch.id], dtype="str"),
            "label": np.concatenate([np.empty(0, np.int8), *(batch.label for batch in batches)]),
            "logit": np.concatenate([np.empty(0, np.float32), *logits]),
            "length": np.concatenate([np.empty(0, np.int64), *(batch.lengths for batch in batches)]),
        }
    )


def measure(predictions: "pd.DataFrame", params: EvaluateParams, seed: int) -> dict[str, Any]:
    """Returns the metrics of the predictions with their intervals, over all and on each slice."""
    label, logit, length = (predictions[column].to_numpy() for column in ("label", "logit", "length"))
    samples = params.bootstrap_samples
    metrics = report(label, logit, bins=params.calibration_bins, samples=samples, seed=seed)
    return metrics | {"slices": slices(label, logit, length, samples=samples, seed=seed)}
