"""Models side by side on the same test reviews: which differences are significant, and on which reviews they show.

Tables of predictions have one row a test review, in the same order: id, label (0 or 1), logit, probability.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.significance import CONFIDENCE, paired_accuracy

if TYPE_CHECKING:
    import pandas as pd

LENGTH_GROUPS = 10
SHOWN = 10
"""Reviews shown of each kind of mistake."""
EXCERPT = 320
"""Characters shown of a long review's beginning, and of its end, where the verdict often stands."""


def compare(
    predictions: Mapping[str, "pd.DataFrame"],
    best: str,
    length: np.ndarray,
    text: "pd.Series[str]",
    *,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Compares all candidates on the same test reviews.

    Args:
        predictions: by candidate.
        best: the model that the others are compared with.
        length: <int>[rows], tokens of each review.
        text: the reviews, with the index of the tables.
        samples, seed: of the bootstrap.

    Returns:
        `reviews`; `best`; `pairs`, `best` with each other model (`significance.paired_accuracy`); `wrong`, how many
        reviews each model gets wrong (`by_model`), and how many of them all do (`by_all`); `lengths`; `mistakes` by
        model; and `flipped` by each other model.
    """
    first = predictions[best]
    others = {name: table for name, table in predictions.items() if name != best}
    wrong = {name: ~right(table) for name, table in predictions.items()}
    by_all = np.logical_and.reduce(list(wrong.values()))
    return {
        "reviews": len(text),
        "best": best,
        "pairs": [
            {"first": best, "second": name} | paired(first, other, samples=samples, seed=seed)
            for name, other in others.items()
        ],
        "wrong": {"by_model": {name: int(rows.sum()) for name, rows in wrong.items()}, "by_all": int(by_all.sum())},
        "lengths": by_length(predictions, length),
        "mistakes": {name: mistakes(table, text) for name, table in predictions.items()},
        "flipped": {name: flipped(first, other, text) for name, other in others.items()},
    }


def paired(first: "pd.DataFrame", second: "pd.DataFrame", *, samples: int, seed: int) -> dict[str, Any]:
    """Returns what `significance.paired_accuracy` says of two candidates."""
    label, logit = first["label"].to_numpy(), first["logit"].to_numpy()
    return paired_accuracy(label, logit, second["logit"].to_numpy(), samples=samples, seed=seed)


def right(predictions: "pd.DataFrame") -> np.ndarray:
    """Returns <bool>[rows], whether each review's predicted label is its label."""
    return ((predictions["logit"] > 0) == predictions["label"]).to_numpy()


def by_length(predictions: Mapping[str, "pd.DataFrame"], length: np.ndarray) -> list[dict[str, Any]]:
    """Returns for each tenth of the reviews, the shortest first: reviews, shortest, longest and median length in
    tokens, and by model the accuracy and its Wilson interval (Wilson 1927). Reviews of equal length stay together."""
    import pandas as pd
    from scipy.stats import binomtest

    group = np.searchsorted(np.quantile(length, np.arange(1, LENGTH_GROUPS) / LENGTH_GROUPS), length)
    rows = []
    for _, rights in pd.DataFrame({name: right(table) for name, table in predictions.items()}).groupby(group):
        tokens, count = length[rights.index], len(rights)
        hits = {name: int(hit) for name, hit in rights.sum().items()}
        bounds = {name: binomtest(hit, count).proportion_ci(CONFIDENCE, "wilson") for name, hit in hits.items()}
        rows.append(
            {
                "reviews": count,
                "shortest": int(tokens.min()),
                "longest": int(tokens.max()),
                "median": float(np.median(tokens)),
                "accuracy": {name: hit / count for name, hit in hits.items()},
                "interval": {name: [float(low), float(high)] for name, (low, high) in bounds.items()},
            }
        )
    return rows


def mistakes(predictions: "pd.DataFrame", text: "pd.Series[str]") -> list[dict[str, Any]]:
    """Returns the SHOWN reviews that were predicted wrong with the most confidence: id, label, probability and an
    excerpt of the text."""
    confidence = predictions["logit"].abs()[~right(predictions)]
    return [
        _shown(predictions, row, text, probability=float(predictions["probability"][row])) for row in _top(confidence)
    ]


def flipped(first: "pd.DataFrame", second: "pd.DataFrame", text: "pd.Series[str]") -> dict[str, Any]:
    """Returns on which reviews two models disagree: `only_first_right` and `only_second_right`, how many `reviews`, and
    of those the SHOWN with the farthest logits as `examples`: id, label, both probabilities, an excerpt of the text."""
    here, there = right(first), right(second)
    apart = (first["logit"] - second["logit"]).abs()
    return {
        name: {
            "reviews": int(rows.sum()),
            "examples": [
                _shown(first, row, text, probabilities=[float(table["probability"][row]) for table in (first, second)])
                for row in _top(apart[rows])
            ],
        }
        for name, rows in {"only_first_right": here & ~there, "only_second_right": there & ~here}.items()
    }


def _top(values: "pd.Series[float]") -> "pd.Index":
    """Returns where the SHOWN highest of `values` stand, the highest first."""
    return values.sort_values(ascending=False, kind="stable").index[:SHOWN]


def _shown(predictions: "pd.DataFrame", row: int, text: "pd.Series[str]", **scores: Any) -> dict[str, Any]:
    label = "positive" if predictions["label"][row] else "negative"
    return {"id": str(predictions["id"][row]), "label": label, **scores, "text": excerpt(str(text[row]))}


def excerpt(text: str) -> str:
    """Returns `text`, a long one as its beginning and its end, cut between words where there are any."""
    if len(text) <= 2 * EXCERPT:
        return text
    beginning, end = text[:EXCERPT], text[-EXCERPT:]
    return f"{beginning.rpartition(' ')[0] or beginning} […] {end.partition(' ')[2] or end}"
