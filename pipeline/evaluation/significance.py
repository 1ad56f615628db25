"""Metrics with their bootstrap intervals, over all reviews and by slice, and the McNemar test of a difference."""

from math import sqrt
from typing import Any

import numpy as np

from pipeline.evaluation.metrics import METRICS, binary_metrics, checked, confusion, weighted_metrics

CONFIDENCE = 0.95
_Z = 1.96  # of a normal interval of that confidence
_ROWS_AT_ONCE = 200_000  # resample counts held at a time: 1.6 MB of float64, which stay in the cache


def report(label: np.ndarray, logit: np.ndarray, *, bins: int, samples: int, seed: int) -> dict[str, Any]:
    """Returns the metrics as plain numbers by name, and beside them `reviews`, `intervals` and `confusion`.

    Arguments and errors as in `bootstrap_intervals`.
    """
    return {
        **binary_metrics(label, logit, bins=bins),
        "reviews": len(label),
        "intervals": bootstrap_intervals(label, logit, bins=bins, samples=samples, seed=seed),
        "confusion": confusion(label, logit),
    }


def bootstrap_intervals(
    label: np.ndarray, logit: np.ndarray, *, bins: int, samples: int, seed: int
) -> dict[str, list[float]]:
    """Returns [low, high] of the 95% percentile bootstrap interval (Efron 1979) of each metric the rows define.

    Rows are drawn with replacement `samples` times; a resample that leaves a metric undefined does not count for it.
    Of ECE it is the basic interval (Davison & Hinkley 1997, section 5.2), from 0 on: noise within a bin only ever adds
    to it (Kumar et al. 2019), resampling adds that noise once more, and percentiles would lie above the ECE itself. It
    reaches up to the ECE, which noise alone can lift over it.
    Arguments and errors as in `binary_metrics`.
    """
    label, logit = checked(label, logit)
    count = len(label)
    generator = np.random.default_rng(seed)
    block = max(1, _ROWS_AT_ONCE // count)
    drawn = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        draws = [np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(size)]
        drawn.append(weighted_metrics(label, logit, np.array(draws, np.float64), bins=bins))
    resampled = {name: np.concatenate([metrics[name] for metrics in drawn]) for name in METRICS}
    found = {name: percentile_interval(values) for name, values in resampled.items() if np.isfinite(values).any()}
    ece = binary_metrics(label, logit, bins=bins)["ece"]
    low, high = found["ece"]
    found["ece"] = [max(0.0, 2 * ece - high), max(ece, 2 * ece - low)]
    return found


def percentile_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> list[float]:
    """Returns [low, high], between which the share `confidence` of the values lies; NaN does not count."""
    tail = 100 * (1 - confidence) / 2
    return [float(bound) for bound in np.nanpercentile(values, (tail, 100 - tail))]


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
    label, logit = checked(label, logit)
    right = (logit > 0) == label
    results = []
    for name, mask in slice_masks(label, length).items():
        rows, hits = int(mask.sum()), int(right[mask].sum())
        draws = np.random.default_rng(seed).binomial(rows, hits / rows, size=samples)  # resampling rights and wrongs
        results.append(
            {
                "slice": name,
                "reviews": rows,
                "shortest": int(length[mask].min()),
                "longest": int(length[mask].max()),
                "accuracy": hits / rows,
                "interval": percentile_interval(draws / rows),
            }
        )
    return results


def paired_accuracy(
    label: np.ndarray, logit: np.ndarray, other: np.ndarray, *, samples: int, seed: int, confidence: float = CONFIDENCE
) -> dict[str, Any]:
    """Compares two models' accuracy on the same rows.

    Returns:
        `difference`: accuracy of `logit` less that of `other`; `interval`: its paired percentile bootstrap interval
        (Efron 1979) of this `confidence`; `only_first_right` and `only_second_right`: reviews on which they disagree;
        `mcnemar_p`: see `mcnemar_p`.

    Raises:
        ValueError, PipelineError: as in `binary_metrics`.
    """
    first = (checked(label, logit)[1] > 0) == label
    second = (checked(label, other)[1] > 0) == label
    gained, lost, rows = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    # Resampling rows that are worth +1, -1 or 0 is one multinomial draw of how many of each.
    shares = np.array([gained, lost, rows - gained - lost]) / rows
    draws = np.random.default_rng(seed).multinomial(rows, shares, size=samples)
    return {
        "difference": (gained - lost) / rows,
        "interval": percentile_interval((draws[:, 0] - draws[:, 1]) / rows, confidence),
        "only_first_right": gained,
        "only_second_right": lost,
        "mcnemar_p": mcnemar_p(gained, lost),
    }


def mcnemar_p(gained: int, lost: int) -> float:
    """Returns the two-sided p-value of the exact McNemar test (McNemar 1947) of two models of which the first alone is
    right on `gained` rows and the second alone on `lost`; 1 where they never disagree."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def bootstrap_p(gained: int, lost: int, rows: int) -> float:
    """Returns twice the share of all paired bootstrap resamples of `rows` rows in which the first model is not ahead;
    `gained` and `lost` as in `mcnemar_p`.

    It is the ideal bootstrap (Efron & Tibshirani 1993, chapter 6), without drawing: the number of rows on which the two
    disagree is binomial, and given it so is how many of them the first has right. So it resolves any level.
    """
    from scipy.stats import binom

    if not gained + lost:
        return 1.0
    disagreeing = np.arange(rows + 1)
    not_ahead = binom.cdf(disagreeing // 2, disagreeing, gained / (gained + lost))
    return min(1.0, 2 * float(binom.pmf(disagreeing, rows, (gained + lost) / rows) @ not_ahead))


def wilson_interval(count: int, total: int) -> list[float]:
    """Returns the 95% interval [low, high] of a share (Wilson 1927)."""
    share, scale = count / total, 1 + _Z**2 / total
    middle = (share + _Z**2 / (2 * total)) / scale
    half = _Z * sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2)) / scale
    return [max(0.0, middle - half), min(1.0, middle + half)]
