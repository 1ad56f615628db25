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
_ROWS_PER_BATCH = 64

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
    rows = [*reviews, *sentences.values()]
    widths = {f"padded_to_{width}": width for width in (PAD_SHORT, FAR_BEYOND * max_tokens)}
    results: dict[str, Any] = {}
    largest_masked_change = 0.0
    for mode, masked in (("masked", True), ("unmasked", False)):
        unpadded = _probabilities(score, rows, 0, masked)
        results[mode] = {"unpadded": _outcome(unpadded, label, sentences)}
        for name, width in widths.items():
            padded = np.array([len(row) < width for row in rows])
            chance = unpadded.copy()  # a row that gets no padding is the same row
            chance[padded] = _probabilities(score, [rows[index] for index in np.flatnonzero(padded)], width, masked)
            results[mode][name] = _outcome(chance, label, sentences) | _effect(
                unpadded[: len(reviews)], chance[: len(reviews)], padded[: len(reviews)]
            )
            if masked:
                largest_masked_change = max(largest_masked_change, float(np.abs(chance - unpadded).max()))
    return {
        "reviews": len(reviews),
        "widths": widths,
        "tolerance": TOLERANCE,
        "masking_holds": largest_masked_change < TOLERANCE,
        **results,
    }


def _outcome(chance: np.ndarray, label: np.ndarray, sentences: Mapping[str, np.ndarray]) -> dict[str, Any]:
    reviews = len(label)
    return {
        "accuracy": float(((chance[:reviews] > 0.5) == label).mean()),
        "sentences": dict(zip(sentences, chance[reviews:].tolist(), strict=True)),
    }


def _effect(unpadded: np.ndarray, chance: np.ndarray, padded: np.ndarray) -> dict[str, Any]:
    change = np.abs(chance - unpadded)
    return {
        "padded": int(padded.sum()),
        "largest_change": float(change.max()),
        "mean_change": float(change.mean()),
        "flipped": int(((chance > 0.5) != (unpadded > 0.5)).sum()),
    }


def _probabilities(score: Scorer, rows: Sequence[np.ndarray], width: int, masked: bool) -> np.ndarray:
    """Returns <float64>[rows] probabilities of rows padded to at least `width`; only rows of one width share a batch,
    so that nothing is padded further than asked."""
    widths = np.array([max(len(row), width) for row in rows], np.int64)
    members, batches = [], []
    for each in np.unique(widths):
        same = np.flatnonzero(widths == each)
        for start in range(0, len(same), _ROWS_PER_BATCH):
            chosen = same[start : start + _ROWS_PER_BATCH]
            members.append(chosen)
            batches.append(pad([rows[index] for index in chosen], int(each)))
    chances = np.empty(len(rows))
    for chosen, scored in zip(members, score(batches, masked), strict=True):
        chances[chosen] = scored
    return chances
