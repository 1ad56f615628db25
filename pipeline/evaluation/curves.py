"""Curves of a binary classifier as tables: ROC, precision-recall, calibration, and the confusion matrix."""

import numpy as np
import pandas as pd

from pipeline.evaluation.metrics import bin_of, checked, confusion, probability

CURVE_POINTS = 400  # a curve 600 pixels wide shows no more


def curves(label: np.ndarray, logit: np.ndarray, *, bins: int) -> dict[str, pd.DataFrame]:
    """Returns the tables `roc`, `precision_recall`, `calibration` and `confusion` of the functions of these names;
    arguments and errors as in `metrics.binary_metrics`."""
    return {
        "roc": roc(label, logit),
        "precision_recall": precision_recall(label, logit),
        "calibration": calibration(label, logit, bins=bins),
        "confusion": pd.DataFrame(confusion(label, logit)),
    }


def roc(label: np.ndarray, logit: np.ndarray) -> pd.DataFrame:
    """Returns the ROC curve, thinned: false_positive_rate, true_positive_rate, and threshold, the least probability
    called positive there."""
    from sklearn.metrics import roc_curve

    false_positive_rate, true_positive_rate, threshold = roc_curve(*checked(label, logit))
    return _thinned(
        false_positive_rate=false_positive_rate, true_positive_rate=true_positive_rate, threshold=probability(threshold)
    )


def precision_recall(label: np.ndarray, logit: np.ndarray) -> pd.DataFrame:
    """Returns the precision-recall curve, thinned, recall rising: recall, precision, and threshold as in `roc`."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, threshold = precision_recall_curve(*checked(label, logit))
    threshold = probability(np.append(threshold, np.inf))
    return _thinned(recall=recall[::-1], precision=precision[::-1], threshold=threshold[::-1])


def _thinned(**curve: np.ndarray) -> pd.DataFrame:
    """Returns at most CURVE_POINTS rows evenly spaced along the curve, whose first two columns are x and y, both ends
    among them, so that no other point lies farther from one of them than length / (CURVE_POINTS - 1)."""
    points = pd.DataFrame(curve)
    travelled = points.iloc[:, :2].diff().abs().sum(axis=1).cumsum().to_numpy()
    return points.iloc[np.unique(np.searchsorted(travelled, np.linspace(0, travelled[-1], CURVE_POINTS)))]


def calibration(label: np.ndarray, logit: np.ndarray, *, bins: int) -> pd.DataFrame:
    """Returns the bins that hold reviews, as in `ece`: lower and upper (the bin's edges), reviews, predicted (mean
    probability), observed (share of positives)."""
    label, logit = checked(label, logit)
    predicted = probability(logit)
    bin_ = bin_of(predicted, bins)
    rows = pd.DataFrame({"lower": bin_ / bins, "upper": (bin_ + 1) / bins, "predicted": predicted, "observed": label})
    return rows.groupby(["lower", "upper"], as_index=False).agg(
        reviews=("observed", "size"), predicted=("predicted", "mean"), observed=("observed", "mean")
    )
