"""Models side by side on the same test reviews: whether a difference is real, where it lies, and on which reviews.

Tables of predictions have one row a test review, in the same order: id, label (0 or 1), logit, probability.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.significance import INTERVAL_LEVEL, paired_accuracy

if TYPE_CHECKING:
    import pandas as pd

LENGTH_GROUPS = 10
SHOWN = 10
"""Reviews shown of each kind of mistake."""
EXCERPT = 320
"""Characters shown of a long review's beginning, and of its end, where the verdict often stands."""


def best_on_validation(results: Mapping[str, tuple[float, float]]) -> str:
    """Returns which model is the best: the highest validation accuracy, of equals the lowest validation loss.

    Args:
        results: validation accuracy and loss by model.
    """
    return max(results, key=lambda model: (results[model][0], -results[model][1]))


def right(predictions: "pd.DataFrame") -> np.ndarray:
    """Returns <bool>[rows], whether each review's predicted label is its label."""
    return ((predictions["logit"] > 0) == predictions["label"]).to_numpy()


def pairs(predictions: Mapping[str, "pd.DataFrame"], best: str, *, samples: int, seed: int) -> list[dict[str, Any]]:
    """Compares `best` with each other model; see `significance.paired_accuracy` for the figures."""
    first = predictions[best]
    return [
        {"first": best, "second": name}
        | paired_accuracy(
            first["label"].to_numpy(),
            first["logit"].to_numpy(),
            second["logit"].to_numpy(),
            samples=samples,
            seed=seed,
        )
        for name, second in predictions.items()
        if name != best
    ]


def by_length(predictions: Mapping[str, "pd.DataFrame"], length: np.ndarray) -> list[dict[str, Any]]:
    """Returns for each tenth of the reviews, the shortest first: reviews, shortest, longest and median length in
    tokens, and by model the accuracy and its Wilson interval (Wilson 1927). Reviews of equal length stay together."""
    from scipy.stats import binomtest

    inner = np.quantile(length, np.arange(1, LENGTH_GROUPS) / LENGTH_GROUPS)
    group = np.searchsorted(inner, length)
    rows = []
    for number in np.unique(group):
        mask = group == number
        hits = {name: int(right(table)[mask].sum()) for name, table in predictions.items()}
        bounds = {
            name: binomtest(hit, int(mask.sum())).proportion_ci(INTERVAL_LEVEL, method="wilson")
            for name, hit in hits.items()
        }
        rows.append(
            {
                "reviews": int(mask.sum()),
                "shortest": int(length[mask].min()),
                "longest": int(length[mask].max()),
                "median": float(np.median(length[mask])),
                "accuracy": {name: hit / int(mask.sum()) for name, hit in hits.items()},
                "interval": {name: [float(bound.low), float(bound.high)] for name, bound in bounds.items()},
            }
        )
    return rows


def wrong(predictions: Mapping[str, "pd.DataFrame"]) -> dict[str, Any]:
    """Returns how many reviews each model gets wrong, and how many of them all models do (`by_all`)."""
    mistaken = {name: ~right(table) for name, table in predictions.items()}
    by_all = np.logical_and.reduce(list(mistaken.values()))
    return {"by_model": {name: int(mask.sum()) for name, mask in mistaken.items()}, "by_all": int(by_all.sum())}


def mistakes(predictions: "pd.DataFrame", text: "pd.Series[str]") -> list[dict[str, Any]]:
    """Returns the SHOWN reviews that were predicted wrong with the most confidence, with an excerpt of their text."""
    wrong = predictions["logit"].abs()[~right(predictions)]
    return [
        {
            "id": str(predictions["id"][row]),
            "label": _name(predictions["label"][row]),
            "probability": float(predictions["probability"][row]),
            "text": excerpt(str(text[row])),
        }
        for row in wrong.sort_values(ascending=False, kind="stable").index[:SHOWN]
    ]


def flipped(first: "pd.DataFrame", second: "pd.DataFrame", text: "pd.Series[str]") -> dict[str, Any]:
    """Tells on which reviews two models disagree.

    Returns:
        `only_first_right` and `only_second_right`: how many `reviews`, and of those the SHOWN on which the two lie
        farthest apart as `examples`: id, label, both probabilities and an excerpt of the text.
    """
    here, there = right(first), right(second)
    apart = (first["logit"] - second["logit"]).abs()
    found = {}
    for name, mask in {"only_first_right": here & ~there, "only_second_right": there & ~here}.items():
        rows = apart[mask].sort_values(ascending=False, kind="stable").index[:SHOWN]
        found[name] = {
            "reviews": int(mask.sum()),
            "examples": [
                {
                    "id": str(first["id"][row]),
                    "label": _name(first["label"][row]),
                    "probabilities": [float(table["probability"][row]) for table in (first, second)],
                    "text": excerpt(str(text[row])),
                }
                for row in rows
            ],
        }
    return found


def excerpt(text: str) -> str:
    """Returns `text`, a long one as its beginning and its end, cut between words where there are any."""
    if len(text) <= 2 * EXCERPT:
        return text
    beginning, end = text[:EXCERPT], text[-EXCERPT:]
    return f"{beginning.rpartition(' ')[0] or beginning} […] {end.partition(' ')[2] or end}"


def compare(
    predictions: Mapping[str, "pd.DataFrame"],
    yardsticks: Sequence[str],
    best: str,
    length: np.ndarray,
    text: "pd.Series[str]",
    *,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Compares all models on the same test reviews.

    Args:
        predictions: by model, all of the same reviews in the same order.
        yardsticks: those among them that are no candidates, so that their mistakes are not shown.
        best: the model that the others are compared with.
        length: <int>[rows], tokens of each review.
        text: the reviews, with the index of the tables.

    Returns:
        `reviews`, `best`, `pairs`, `wrong`, `lengths`, `mistakes` by model, and `flipped` by each other model.
    """
    candidates = [name for name in predictions if name not in yardsticks]
    return {
        "reviews": len(text),
        "best": best,
        "pairs": pairs(predictions, best, samples=samples, seed=seed),
        "wrong": wrong(predictions),
        "lengths": by_length(predictions, length),
        "mistakes": {name: mistakes(predictions[name], text) for name in candidates},
        "flipped": {name: flipped(predictions[best], predictions[name], text) for name in candidates if name != best},
    }


def _name(label: int) -> str:
    return "positive" if label else "negative"
