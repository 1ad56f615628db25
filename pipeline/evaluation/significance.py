"""What a difference or a metric is worth: bootstrap intervals and the McNemar test."""

from typing import Any

import numpy as np

from pipeline.evaluation.metrics import METRICS, Rows, checked

INTERVAL_LEVEL = 0.95
_ROWS_AT_ONCE = 200_000  # resample counts held at a time: 1.6 MB of float64, which stay in the cache


def bootstrap_intervals(
    label: np.ndarray, logit: np.ndarray, *, bins: int, samples: int, seed: int
) -> dict[str, list[float]]:
    """Returns [low, high] of the 95% percentile bootstrap interval (Efron 1979) of each metric the rows define but ECE.

    Rows are drawn with replacement `samples` times; a resample that leaves a metric undefined does not count for it.
    ECE has none: noise within a bin only ever adds to it (Kumar et al. 2019), resampling adds that noise once more,
    and the interval of a well calibrated model would lie above its own ECE.
    Arguments and errors as in `binary_metrics`.
    """
    rows = Rows(label, logit, bins)
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
            intervals[name] = percentile_interval(resampled)
    return intervals


def percentile_interval(values: np.ndarray, level: float = INTERVAL_LEVEL) -> list[float]:
    """Returns [low, high], between which the share `level` of the values lies; NaN does not count."""
    tail = 100 * (1 - level) / 2
    return [float(bound) for bound in np.nanpercentile(values, (tail, 100 - tail))]


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

    first = (checked(label, logit)[1] > 0) == label
    second = (checked(label, other)[1] > 0) == label
    gained, lost, rows = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    # Resampling rows that are worth +1, -1 or 0 is one multinomial draw of how many of each.
    shares = np.array([gained, lost, rows - gained - lost]) / rows
    draws = np.random.default_rng(seed).multinomial(rows, shares, size=samples)
    return {
        "difference": (gained - lost) / rows,
        "interval": percentile_interval((draws[:, 0] - draws[:, 1]) / rows, interval_level),
        "only_first_right": gained,
        "only_second_right": lost,
        "mcnemar_p": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    }
