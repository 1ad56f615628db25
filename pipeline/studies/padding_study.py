"""The padding study of the course notes: what padding does to a score, with padding masked and not masked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.text.batching import pad

PAD_SHORT = 64  # the padding of the TensorFlow text classification tutorial's sample predictions
FAR_BEYOND = 2  # times max_tokens: every review, the longest too, gets at least max_tokens of padding
TOLERANCE = 1e-5  # change in probability below which only float32 arithmetic differs
SENTENCES = {
    "positive": "The movie was cool. The animation and the graphics were out of this world. "
    "I would recommend this movie.",
    "negative": "The movie was not good. The animation and the graphics were terrible. "
    "I would not recommend this movie.",
}
_BATCH_SIZE = 64

Scorer = Callable[[list[np.ndarray], bool], list[np.ndarray]]
"""score(batches of <int32>[rows, width] token ids, masked) -> for each batch its <float64>[rows] probabilities."""


def padding_study(
    score: Scorer,
    reviews: Sequence[np.ndarray],
    label: np.ndarray,
    sentences: Mapping[str, np.ndarray],
    *,
    max_tokens: int,
) -> dict[str, Any]:
    """Scores reviews unpadded, padded to PAD_SHORT and padded far beyond, with padding masked and not masked.

    Args:
        score: the model with and without masking; see Scorer.
        reviews: unpadded token ids of each review, <int32>[length]. One that is longer than a width stays as it is.
        label: <int>[len(reviews)], 0 or 1.
        sentences: unpadded token ids by name.
        max_tokens: the most token ids that a review has.

    Returns:
        `reviews` (how many), `widths` by padding, `tolerance` and `masking_holds`: with masking every review's and
        every sentence's probability changed by less than TOLERANCE. For each of `masked` and `unmasked`, by padding:
        `accuracy`, `sentences` (probability of each) and, against unpadded, `padded` (reviews that got padding),
        `largest_change` and `mean_change` in probability over all reviews, `flipped` (reviews whose predicted label
        changed).
    """
    count = len(reviews)
    rows = [*reviews, *sentences.values()]
    widths = {f"padded_to_{width}": width for width in (PAD_SHORT, FAR_BEYOND * max_tokens)}

    def outcome(probabilities: np.ndarray) -> dict[str, Any]:
        return {
            "accuracy": float(((probabilities[:count] > 0.5) == label).mean()),
            "sentences": dict(zip(sentences, probabilities[count:].tolist(), strict=True)),
        }

    results: dict[str, dict[str, Any]] = {}
    largest = {"masked": 0.0, "unmasked": 0.0}  # change in probability, of the sentences too
    for mode, masked in (("masked", True), ("unmasked", False)):
        unpadded = _probabilities(score, rows, 0, masked)
        results[mode] = {"unpadded": outcome(unpadded)}
        for name, width in widths.items():
            padded = np.array([len(row) < width for row in rows])
            probabilities = unpadded.copy()  # a row that gets no padding is the same row
            probabilities[padded] = _probabilities(score, [row for row in rows if len(row) < width], width, masked)
            change = np.abs(probabilities - unpadded)
            results[mode][name] = outcome(probabilities) | {
                "padded": int(padded[:count].sum()),
                "largest_change": float(change[:count].max()),
                "mean_change": float(change[:count].mean()),
                "flipped": int(((probabilities > 0.5) != (unpadded > 0.5))[:count].sum()),
            }
            largest[mode] = max(largest[mode], float(change.max()))
    holds = largest["masked"] < TOLERANCE
    return {"reviews": count, "widths": widths, "tolerance": TOLERANCE, "masking_holds": holds} | results


def _probabilities(score: Scorer, rows: Sequence[np.ndarray], width: int, masked: bool) -> np.ndarray:
    """Returns <float64>[rows] probabilities of rows padded to at least `width`; only rows of one width share a batch,
    so that nothing is padded further than asked."""
    widths = np.array([max(len(row), width) for row in rows], np.int64)
    same_width = [np.flatnonzero(widths == each) for each in np.unique(widths)]
    parts = [same[start : start + _BATCH_SIZE] for same in same_width for start in range(0, len(same), _BATCH_SIZE)]
    batches = [pad([rows[index] for index in part], int(widths[part[0]])) for part in parts]
    probabilities = np.empty(len(rows))
    for part, scored in zip(parts, score(batches, masked), strict=True):
        probabilities[part] = scored
    return probabilities
