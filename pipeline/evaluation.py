"""Metrics, bootstrap intervals, curves and slices, from numpy arrays to results.

A label is 0 (negative) or 1 (positive). A review is predicted positive when its probability is above 0.5, that is,
when its logit is above 0. What the rows do not define (the ROC AUC of one class alone) is absent, never a stand-in.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("loss", "accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "ece")
INTERVAL_LEVEL = 0.95
CURVE_POINTS = 400  # a curve 600 pixels wide shows no more
_ROWS_AT_ONCE = 200_000  # resample counts held at a time: 1.6 MB of float64, which stay in the cache


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
    metrics = _Rows(label, logit, bins).metrics(np.ones((1, len(label))))
    return {name: float(value[0]) for name, value in metrics.items() if np.isfinite(value[0])}


def bootstrap_intervals(
    label: np.ndarray, logit: np.ndarray, *, bins: int, samples: int, seed: int
) -> dict[str, list[float]]:
    """Returns [low, high] of the 95% percentile bootstrap interval (Efron 1979) of each metric the rows define but ECE.

    Rows are drawn with replacement `samples` times; a resample that leaves a metric undefined does not count for it.
    ECE has none: noise within a bin only ever adds to it (Kumar et al. 2019), resampling adds that noise once more,
    and the interval of a well calibrated model would lie above its own ECE.
    Arguments and errors as in `binary_metrics`.
    """
    rows = _Rows(label, logit, bins)
    count = len(rows.label)
    generator = np.random.default_rng(seed)
    block = max(1, _ROWS_AT_ONCE // count)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in METRICS if name != "ece"}
    for start in range(0, samples, block):
        size = min(block, samples - start)
        draws = [np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(size)]
        metrics = rows.metrics(np.array(draws, np.float64))
        for name, values in drawn.items():
            values.append(metrics[name])
    intervals = {}
    for name, blocks in drawn.items():
        resampled = np.concatenate(blocks)
        if np.isfinite(resampled).any():
            intervals[name] = _percentile_interval(resampled)
    return intervals


class _Rows:
    """Rows in descending order of logit, so that any weighting of them needs running sums and no further sort."""

    def __init__(self, label: np.ndarray, logit: np.ndarray, bins: int) -> None:
        label, logit = _checked(label, logit)
        self.order = np.argsort(-logit, kind="stable")
        self.label = label[self.order].astype(np.float64)
        logit = logit[self.order]
        chance = probability(logit)
        self.cross_entropy = np.logaddexp(0, np.where(self.label == 1, -logit, logit))
        self.gap = chance - self.label
        self.bin_starts = np.unique(_bin_of(chance, bins)[::-1], return_index=True)[1]  # in ascending order of logit
        self.predicted_positive = int((logit > 0).sum())
        self.threshold_ends = np.append(np.flatnonzero(np.diff(logit)), len(logit) - 1)  # rows of equal logit are one

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each metric, <float64>[samples], of rows weighted by <float64>[samples, rows]; NaN if undefined."""
        weights = weights[:, self.order]
        # einsum and reduceat instead of a matrix product: the threads of BLAS stall for minutes on busy cores.
        loss = np.einsum("sr,r->s", weights, self.cross_entropy)
        gaps = np.add.reduceat((weights * self.gap)[:, ::-1], self.bin_starts, axis=1)
        all_ = np.cumsum(weights, axis=1)
        true = np.cumsum(weights * self.label, axis=1)
        total, positives = all_[:, -1], true[:, -1]
        negatives = total - positives
        last = self.predicted_positive - 1
        alarms, hits = (all_[:, last], true[:, last]) if self.predicted_positive else (0 * total, 0 * total)
        all_, true = all_[:, self.threshold_ends], true[:, self.threshold_ends]
        recalled = np.diff(true, axis=1, prepend=0)
        false_steps = np.diff(all_ - true, axis=1, prepend=0)
        precision = np.divide(true, all_, out=np.zeros_like(true), where=all_ > 0)
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


def _checked(label: np.ndarray, logit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _bin_of(chance: np.ndarray, bins: int) -> np.ndarray:
    # A probability on an edge belongs to the bin below, as in scikit-learn's calibration_curve.
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], chance)


def _percentile_interval(values: np.ndarray, level: float = INTERVAL_LEVEL) -> list[float]:
    tail = 100 * (1 - level) / 2
    return [float(bound) for bound in np.nanpercentile(values, (tail, 100 - tail))]


def report(label: np.ndarray, logit: np.ndarray, *, bins: int, samples: int, seed: int) -> dict[str, Any]:
    """Returns the metrics as plain numbers by name, and beside them `reviews`, `intervals` and `confusion`.

    Arguments and errors as in `bootstrap_intervals`.
    """
    return {
        **binary_metrics(label, logit, bins=bins),
        "reviews": len(label),
        "intervals": bootstrap_intervals(label, logit, bins=bins, samples=samples, seed=seed),
        "confusion": confusion(label, logit).to_dict("records"),
    }


def paired_accuracy(
    label: np.ndarray,
    logit: np.ndarray,
    other: np.ndarray,
    *,
    samples: int,
    seed: int,
    interval_level: float = INTERVAL_LEVEL,
) -> dict[str, Any]:
    """Compares two models' accuracy on the same rows.

    Returns:
        `difference`: accuracy of `logit` less that of `other`; `interval`: its paired percentile bootstrap interval
        (Efron 1979) of `interval_level`;
        `only_first_right` and `only_second_right`: reviews on which they disagree; `mcnemar_p`: the two-sided exact
        McNemar test's p-value (McNemar 1947), 1 where they never disagree.

    Raises:
        ValueError, PipelineError: as in `binary_metrics`.
    """
    from scipy.stats import binomtest

    first = (_checked(label, logit)[1] > 0) == label
    second = (_checked(label, other)[1] > 0) == label
    gained, lost, rows = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    # Resampling rows that are worth +1, -1 or 0 is one multinomial draw of how many of each.
    shares = np.array([gained, lost, rows - gained - lost]) / rows
    draws = np.random.default_rng(seed).multinomial(rows, shares, size=samples)
    return {
        "difference": (gained - lost) / rows,
        "interval": _percentile_interval((draws[:, 0] - draws[:, 1]) / rows, interval_level),
        "only_first_right": gained,
        "only_second_right": lost,
        "mcnemar_p": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    }


def curves(label: np.ndarray, logit: np.ndarray, *, bins: int) -> "dict[str, pd.DataFrame]":
    """Returns the tables `roc`, `precision_recall`, `calibration` and `confusion` of the functions of these names."""
    return {
        "roc": roc(label, logit),
        "precision_recall": precision_recall(label, logit),
        "calibration": calibration(label, logit, bins=bins),
        "confusion": confusion(label, logit),
    }


def confusion(label: np.ndarray, logit: np.ndarray) -> "pd.DataFrame":
    """Returns the four counts: columns actual, predicted (each negative or positive) and reviews."""
    import pandas as pd

    label, logit = _checked(label, logit)
    names = ("negative", "positive")
    cells = [
        (names[actual], names[predicted], int(((label == actual) & ((logit > 0) == predicted)).sum()))
        for actual in (0, 1)
        for predicted in (0, 1)
    ]
    return pd.DataFrame(cells, columns=["actual", "predicted", "reviews"])


def roc(label: np.ndarray, logit: np.ndarray) -> "pd.DataFrame":
    """Returns the ROC curve in at most CURVE_POINTS rows; see `_thinned`.

    Columns: false_positive_rate, true_positive_rate, and threshold, the least probability called positive there.
    """
    import pandas as pd
    from sklearn.metrics import roc_curve

    false_positive_rate, true_positive_rate, threshold = roc_curve(*_checked(label, logit))
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

    precision, recall, threshold = precision_recall_curve(*_checked(label, logit))
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

    label, logit = _checked(label, logit)
    chance = probability(logit)
    rows = pd.DataFrame({"bin": _bin_of(chance, bins), "predicted": chance, "observed": label})
    curve = rows.groupby("bin").agg(
        reviews=("observed", "size"), predicted=("predicted", "mean"), observed=("observed", "mean")
    )
    curve.insert(0, "lower", curve.index / bins)
    curve.insert(1, "upper", (curve.index + 1) / bins)
    return curve.reset_index(drop=True)


def slice_masks(label: np.ndarray, length: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the rows, <bool>[rows], of each slice that has any: length_quartile_1 (shortest) to 4, and both labels.

    Reviews of equal length are in one quartile, so quartiles are of equal size only as far as ties allow.
    """
    label, length = np.asarray(label), np.asarray(length)
    quartile = np.searchsorted(np.quantile(length, (0.25, 0.5, 0.75)), length)
    masks = {f"length_quartile_{index + 1}": quartile == index for index in range(4)}
    masks |= {"label_negative": label == 0, "label_positive": label == 1}
    return {name: mask for name, mask in masks.items() if mask.any()}


def slices(
    label: np.ndarray, logit: np.ndarray, length: np.ndarray, *, samples: int, seed: int
) -> list[dict[str, Any]]:
    """Returns for each slice of `slice_masks` its reviews, shortest and longest length, accuracy and its interval."""
    label, logit = _checked(label, logit)
    results = []
    for name, mask in slice_masks(label, length).items():
        right = int(((logit > 0) == label)[mask].sum())
        rows = int(mask.sum())
        draws = np.random.default_rng(seed).binomial(rows, right / rows, size=samples)  # resampling rights and wrongs
        results.append(
            {
                "slice": name,
                "reviews": rows,
                "shortest": int(length[mask].min()),
                "longest": int(length[mask].max()),
                "accuracy": right / rows,
                "interval": _percentile_interval(draws / rows),
            }
        )
    return results
