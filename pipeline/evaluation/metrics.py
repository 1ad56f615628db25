"""Metrics of a binary classifier, from arrays of labels and logits.

A label is 0 (negative) or 1 (positive). A review is predicted positive when its probability is above 0.5, that is,
when its logit is above 0. What the rows do not define (the ROC AUC of one class alone) is absent, never a stand-in.
"""

from typing import Any

import numpy as np

from pipeline.project.errors import PipelineError

METRICS = ("loss", "accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "ece")


def probability(logit: np.ndarray) -> np.ndarray:
    """Returns the logistic function of `logit` as <float64>, without overflow."""
    from scipy.special import expit

    return expit(np.asarray(logit, np.float64))


def binary_metrics(label: np.ndarray, logit: np.ndarray, *, bins: int) -> dict[str, float]:
    """Returns the METRICS that the rows define.

    `loss` is the mean binary cross-entropy in nats, computed from logits. Precision without a predicted positive is 0,
    as in scikit-learn. `ece` is the expected calibration error of the positive-class probability over `bins` bins of
    equal width (Naeini et al. 2015, for binary classifiers; Guo et al. 2017 bin the top class's confidence instead):
    the mean over reviews of |observed share of positives - mean probability| of their bin, from 0 to 1.

    Args:
        label: <int>[rows], 0 or 1.
        logit: <float>[rows].

    Raises:
        ValueError: no rows, unequal lengths, or a label that is neither 0 nor 1.
        PipelineError: a logit is not finite.
    """
    metrics = weighted_metrics(label, logit, np.ones((1, len(label))), bins=bins)
    return {name: float(value[0]) for name, value in metrics.items() if np.isfinite(value[0])}


def weighted_metrics(label: np.ndarray, logit: np.ndarray, weights: np.ndarray, *, bins: int) -> dict[str, np.ndarray]:
    """Returns METRICS, <float64>[samples] each, of rows that count as often as <float64>[samples, rows] `weights` say;
    NaN where undefined. Arguments and errors as in `binary_metrics`."""
    label, logit = checked(label, logit)
    order = np.argsort(-logit, kind="stable")  # once sorted, any weighting of the rows needs running sums alone
    label, logit, weights = label[order].astype(np.float64), logit[order], weights[:, order]
    probabilities = probability(logit)
    # einsum and reduceat instead of a matrix product: the threads of BLAS stall for minutes on busy cores.
    loss = np.einsum("sr,r->s", weights, np.logaddexp(0, np.where(label == 1, -logit, logit)))
    bin_starts = np.unique(bin_of(probabilities, bins)[::-1], return_index=True)[1]  # in ascending order of logit
    gaps = np.add.reduceat((weights * (probabilities - label))[:, ::-1], bin_starts, axis=1)
    counted, true = np.cumsum(weights, axis=1), np.cumsum(weights * label, axis=1)
    total, positives = counted[:, -1], true[:, -1]
    negatives = total - positives
    called = int((logit > 0).sum())
    alarms, hits = (counted[:, called - 1], true[:, called - 1]) if called else (0 * total, 0 * total)
    threshold_ends = np.append(np.flatnonzero(np.diff(logit)), len(logit) - 1)  # rows of equal logit are one
    counted, true = counted[:, threshold_ends], true[:, threshold_ends]
    recalled = np.diff(true, axis=1, prepend=0)
    false_steps = np.diff(counted - true, axis=1, prepend=0)
    precision = np.divide(true, counted, out=np.zeros_like(true), where=counted > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "loss": loss / total,
            "accuracy": (hits + negatives - (alarms - hits)) / total,
            "precision": np.where(positives > 0, hits / np.maximum(alarms, 1), np.nan),
            "recall": hits / positives,
            "f1": np.where(positives > 0, 2 * hits / (alarms + positives), np.nan),
            "roc_auc": (false_steps * (true - recalled / 2)).sum(axis=1) / (positives * negatives),
            "average_precision": (recalled * precision).sum(axis=1) / positives,
            "ece": np.abs(gaps).sum(axis=1) / total,
        }


def checked(label: np.ndarray, logit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns <int>[rows] labels and <float64>[rows] logits; errors as in `binary_metrics`."""
    label, logit = np.asarray(label), np.asarray(logit, np.float64)
    if label.ndim != 1 or label.shape != logit.shape or not len(label):
        raise ValueError(f"labels {label.shape} and logits {logit.shape} are not one of each for one or more rows")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("a label is neither 0 nor 1")
    if broken := int((~np.isfinite(logit)).sum()):
        raise PipelineError(
            f"{broken} of {len(logit)} logits are not finite: the model diverged in training; "
            "train it again with a lower learning_rate or clip_norm"
        )
    return label, logit


def bin_of(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Returns <int>[rows], the bin of equal width that each probability falls into."""
    # A probability on an edge belongs to the bin below, as in scikit-learn's calibration_curve.
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)


def confusion(label: np.ndarray, logit: np.ndarray) -> list[dict[str, Any]]:
    """Returns the four counts, row by row: actual, predicted (each negative or positive) and reviews."""
    label, logit = checked(label, logit)
    names = ("negative", "positive")
    counts = np.bincount(2 * label + (logit > 0), minlength=4).reshape(2, 2)
    return [
        {"actual": names[actual], "predicted": names[predicted], "reviews": int(count)}
        for (actual, predicted), count in np.ndenumerate(counts)
    ]
