"""When a model says that it is unsure: a band of probabilities outside which it is right as often as it promises.

After Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks" (NeurIPS 2017), algorithm 1 (SGR): of the
thresholds on the confidence max(p, 1 - p) that a binary search visits, the least at which the upper confidence bound of
the error (Clopper & Pearson 1934) keeps the promise. Each step pays for a part of the bound's level, so that it holds
for the threshold that is chosen. It holds for texts like those that the band was fitted on, and of others says nothing.
"""

from collections.abc import Mapping
from math import ceil, log2
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.significance import slice_masks, wilson_interval
from pipeline.project.atomic import read_json
from pipeline.project.paths import evaluated_file

if TYPE_CHECKING:
    import pandas as pd

DELTA = 0.1
"""The chance that the band breaks its promise on reviews like those that it is fitted on."""
_DIGITS = 10**6  # what is served differs from what is evaluated by less

Band = list[float] | None
"""[low, high]: a probability at most low or at least high is sure; None where no answer is."""


def fit(label: np.ndarray, probability: np.ndarray, promise: float) -> Band:
    """Returns the narrowest band that the search finds, None where none keeps the promise.

    Args:
        label: <int>[rows], 0 or 1, of reviews that the model was not fitted to.
        probability: <float>[rows], of 1.
        promise: the share of sure answers that is right, in (0.5, 1).
    """
    from scipy.stats import beta

    confidence = np.maximum(probability, 1 - probability)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    wrong = np.cumsum(((probability > 0.5) != label)[order])
    level = DELTA / max(1, ceil(log2(len(label) + 1)))
    threshold = None
    kept, tried = 0, len(label) + 1  # rows with which the promise holds, and with which it does not
    while tried - kept > 1:
        middle = (kept + tried) // 2
        covered = np.searchsorted(-confidence, -confidence[middle - 1], side="right")  # rows of one confidence are one
        errors = wrong[covered - 1]
        bound = beta.ppf(1 - level, errors + 1, covered - errors) if errors < covered else 1.0
        if bound <= 1 - promise:
            kept, threshold = middle, confidence[middle - 1]
        else:
            tried = middle
    if threshold is None:
        return None
    high = ceil(threshold * _DIGITS) / _DIGITS
    return [round(1 - high, 6), high]


def on_held_out(tables: "Mapping[str, pd.DataFrame]", promise: float) -> dict[str, dict[str, Any]]:
    """Fits the band on the predictions (label, probability) of the split `validation`, and returns for each split that
    has any what `report` says of them, under `sure`; beside validation's stand `promise` and `band`."""
    arrays = {
        split: (table["label"].to_numpy(), table["probability"].to_numpy())
        for split, table in tables.items()
        if len(table)
    }
    band = fit(*arrays["validation"], promise)
    found = {split: {"sure": report(*both, is_sure(both[1], band))} for split, both in arrays.items()}
    found["validation"]["sure"] |= {"promise": promise, "band": band}
    return found


def read_band(model: str) -> Band:
    """Returns the band that was fitted on validation for a candidate; raises DataError where its report is missing."""
    band: Band = read_json(evaluated_file(model), ("validation",))["validation"]["sure"]["band"]
    return band


def is_sure(probability: np.ndarray, band: Band) -> NDArray[np.bool_]:
    """Returns <bool>[rows], which answers are sure."""
    if band is None:
        return np.zeros(len(probability), bool)
    low, high = band
    return (np.asarray(probability) <= low) | (np.asarray(probability) >= high)


def report(
    label: np.ndarray, probability: np.ndarray, sure: NDArray[np.bool_], length: np.ndarray | None = None
) -> dict[str, Any]:
    """Returns the `share` of sure answers and, where there are any, their `accuracy` with its 95% `interval` (Wilson
    1927); with a `length` also the same by quartile of it, in `by_length`."""
    right = int(((probability > 0.5) == label)[sure].sum())
    found: dict[str, Any] = {"share": float(sure.mean())}
    if sure.any():
        found |= {"accuracy": right / int(sure.sum()), "interval": wilson_interval(right, int(sure.sum()))}
    if length is not None:
        quartiles = {name: rows for name, rows in slice_masks(label, length).items() if name.startswith("length")}
        found["by_length"] = {
            name: report(label[rows], probability[rows], sure[rows]) for name, rows in quartiles.items()
        }
    return found
