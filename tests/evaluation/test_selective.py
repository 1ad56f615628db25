"""A band keeps its promise, is as narrow as that allows, and is none where none does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from pipeline.evaluation import selective


def drawn(rows: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and calibrated probabilities of them."""
    rng = np.random.default_rng(seed)
    probability = 1 / (1 + np.exp(-sharpness * rng.normal(0, 2, rows)))
    return (rng.random(rows) < probability).astype(int), probability


def kept(label: np.ndarray, probability: np.ndarray, band: selective.Band) -> float:
    sure = selective.is_sure(probability, band)
    return float(((probability > 0.5) == label)[sure].mean())


def test_the_promise_is_kept_on_other_reviews_as_often_as_the_bound_says() -> None:
    other = drawn(100_000, 1)
    broken = sum(kept(*other, selective.fit(*drawn(2500, seed), 0.95)) < 0.95 for seed in range(2, 102))
    assert broken <= binom.ppf(0.99, 100, selective.DELTA)


def test_the_band_is_not_wider_than_the_promise_needs() -> None:
    label, probability = drawn(100_000, 1)
    confidence = np.abs(probability - 0.5)
    order = np.argsort(-confidence)
    accuracy = np.cumsum(((probability > 0.5) == label)[order]) / np.arange(1, len(label) + 1)
    possible = np.flatnonzero(accuracy >= 0.95).max() / len(label)  # of one who knew all labels
    bands = [selective.fit(*drawn(2500, seed), 0.95) for seed in range(2, 22)]
    shares = [selective.is_sure(probability, band).mean() for band in bands]
    assert 0.85 * possible < np.mean(shares) < possible


def test_where_nothing_keeps_the_promise_no_answer_is_sure() -> None:
    rng = np.random.default_rng(5)
    label, probability = rng.integers(0, 2, 2500), rng.random(2500)
    band = selective.fit(label, probability, 0.95)
    assert band is None
    assert selective.report(label, probability, selective.is_sure(probability, band)) == {"share": 0.0}


def test_where_every_answer_is_right_all_are_sure() -> None:
    label, probability = np.array([0, 1] * 500), np.array([0.3, 0.7] * 500)
    band = selective.fit(label, probability, 0.95)
    assert selective.is_sure(probability, band).all()
    few = selective.fit(label[:20], probability[:20], 0.95)
    assert few is None  # of twenty, all right says too little


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=80), st.floats(0.51, 0.99))
def test_a_band_is_symmetric_and_of_one_confidence_all_or_none_is_sure(
    rows: list[tuple[int, float]], promise: float
) -> None:
    label, probability = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    band = selective.fit(label, probability, promise)
    if band is not None:
        low, high = band
        assert 0 <= low <= 0.5 <= high <= 1 and low + high == pytest.approx(1)
        assert kept(label, probability, band) >= promise or not selective.is_sure(probability, band).any()


def test_lengths_are_reported_by_quartile() -> None:
    label, probability = drawn(400, 3)
    length = np.arange(400)
    sure = selective.is_sure(probability, [0.2, 0.8])
    found = selective.report(label, probability, sure, length)["by_length"]
    assert list(found) == [f"length_quartile_{quarter}" for quarter in (1, 2, 3, 4)]
    assert found["length_quartile_1"]["share"] == sure[:100].mean()
