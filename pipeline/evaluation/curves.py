"""Curves of a binary classifier as tables: ROC, precision-recall, calibration, and the confusion matrix."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.metrics import bin_of, checked, confusion, probability

if TYPE_CHECKING:
    import pandas as pd

CURVE_POINTS = 400  # a curve 600 pixels wide shows no more


def curves(label: np.ndarray, logit: np.ndarray, *, bins: int) -> "dict[str, pd.DataFrame]":
    """Returns the tables `roc`, `precision_recall`, `calibration` and `confusion` of the functions of these names."""
    return {
        "roc": roc(label, logit),
        "precision_recall": precision_recall(label, logit),
        "calibration": calibration(label, logit, bins=bins),
        "confusion": confusion(label, logit),
    }


def roc(label: np.ndarray, logit: np.ndarray) -> "pd.DataFrame":
    """Returns the ROC curve in at most CURVE_POINTS rows; see `_thinned`.

    Columns: false_positive_rate, true_positive_rate, and threshold, the least probability called positive there.
    """
    import pandas as pd
    from sklearn.metrics import roc_curve

    false_positive_rate, true_positive_rate, threshold = roc_curve(*checked(label, logit))
    kept = _thinned(false_positive_rate, true_positive_rate)
    return pd.DataFrame(
        {
            "false_positive_rate": false_positive_rate,
            "true_positive_rate": true_positive_rate,
            "threshold": probability(threshold),
        }
    ).iloc[kept]


def precision_recall(label: np.ndarray, logit: np.ndarray) -> "pd.DataFrame":
    """Returns the precision-recall curve in at most CURVE_POINTS rows, recall rising; see `_thinned`.

    Columns: recall, precision, and threshold, the least probability called positive there.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_curve

    precision, recall, threshold = precision_recall_curve(*checked(label, logit))
    curve = pd.DataFrame(
        {"recall": recall, "precision": precision, "threshold": probability(np.append(threshold, np.inf))}
    )
    curve = curve.iloc[::-1]
    return curve.iloc[_thinned(curve["recall"].to_numpy(), curve["precision"].to_numpy())]


def _thinned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the indices of at most CURVE_POINTS points evenly spaced along the curve, both ends among them,
    so that no left-out point lies farther from a kept one than length / (CURVE_POINTS - 1)."""
    travelled = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    return np.unique(np.searchsorted(travelled, np.linspace(0, travelled[-1], CURVE_POINTS)))


def calibration(label: np.ndarray, logit: np.ndarray, *, bins: int) -> "pd.DataFrame":
    """Returns the bins that hold reviews, as in `ece`.

    Columns: lower and upper (the bin's edges), reviews, predicted (mean probability), observed (share of positives).
    """
    import pandas as pd

    label, logit = checked(label, logit)
    chance = probability(logit)
    rows = pd.DataFrame({"bin": bin_of(chance, bins), "predicted": chance, "observed": label})
    curve = rows.groupby("bin").agg(
        reviews=("observed", "size"), predicted=("predicted", "mean"), observed=("observed", "mean")
    )
    curve.insert(0, "lower", curve.index / bins)
    curve.insert(1, "upper", (curve.index + 1) / bins)
    return curve.reset_index(drop=True)
