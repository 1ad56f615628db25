"""All that is reported of one model's predictions, as plain numbers: over all reviews, and over parts of them that it
must do well on by themselves."""

from typing import Any

import numpy as np

from pipeline.evaluation.metrics import binary_metrics, checked, confusion
from pipeline.evaluation.significance import bootstrap_intervals, percentile_interval


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
                "interval": percentile_interval(draws / rows),
            }
        )
    return results
