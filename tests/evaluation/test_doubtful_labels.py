"""Confident learning counts and ranks wrong labels as its paper says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.doubtful_labels import doubt


def test_the_estimate_is_that_of_the_paper() -> None:
    """By hand: thresholds 0.7 for class 0 and 0.65 for class 1. Of the labels 0 the third counts as of class 1 and two
    as of class 0; of the labels 1 the last counts as of class 0, one as of class 1, and one as of neither."""
    label = np.array([0, 0, 0, 0, 1, 1, 1])
    positive = np.array([0.05, 0.1, 0.95, 0.1, 0.95, 0.6, 0.1])
    found = doubt(label, positive)
    assert found.threshold == pytest.approx((0.7, 0.55))
    assert found.order.tolist() == [2, 6, 5, 1, 3, 0, 4]
    assert np.flatnonzero(found.wrong).tolist() == [2, 6]


def test_calibrated_counts_are_scaled_to_how_often_a_label_comes() -> None:
    # Of ten labels 0 two count as wrong and two as right; the rest is unsure, and half of them may be wrong.
    positive = np.array([0.9, 0.9, 0.02, 0.02, *[0.5] * 6, 0.95, 0.95])
    label = np.array([0] * 10 + [1] * 2)
    found = doubt(label, positive)
    assert found.threshold[1] > 0.9 and not found.wrong.any()  # 0.9 is less sure than the labels 1 are
    positive[:2] = 0.96
    assert doubt(label, positive).wrong.sum() == 5


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=2, max_size=60))
def test_classes_are_alike(rows: list[tuple[int, float]]) -> None:
    label, positive = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if len(set(label)) < 2:
        label[0] = 1 - label[0]
    found, mirrored = doubt(label, positive), doubt(1 - label, 1 - positive)
    assert np.allclose(found.own, mirrored.own)
    assert sorted(found.order.tolist()) == list(range(len(rows)))
    assert (np.diff(found.own[found.order]) >= 0).all()
    assert np.allclose(found.own[found.order], mirrored.own[mirrored.order])
