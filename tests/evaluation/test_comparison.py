"""Models side by side: what only one gets right, by length, and the surest mistakes."""

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation import comparison


def table(label: list[int], logit: list[float]) -> pd.DataFrame:
    scores = np.array(logit, float)
    ids = [f"test/{row}" for row in range(len(label))]
    return pd.DataFrame({"id": ids, "label": label, "logit": scores, "probability": 1 / (1 + np.exp(-scores))})


LABEL = [1, 1, 0, 0]
FIRST = table(LABEL, [2.0, 1.0, -1.0, 3.0])
SECOND = table(LABEL, [1.0, -4.0, 0.5, 1.0])
TEXT = pd.Series(["a", "b", "c", "d"])


def test_flipped_reviews_are_those_that_only_one_gets_right_the_farthest_apart_first() -> None:
    found = comparison.flipped(FIRST, SECOND, TEXT)
    assert found["only_first_right"]["reviews"] == 2
    assert [one["id"] for one in found["only_first_right"]["examples"]] == ["test/1", "test/2"]
    assert found["only_second_right"] == {"reviews": 0, "examples": []}
    example = found["only_first_right"]["examples"][0]
    assert example["probabilities"] == pytest.approx([0.7311, 0.0180], abs=1e-4)
    assert (example["label"], example["text"]) == ("positive", "b")


def test_mistakes_come_in_the_order_of_confidence() -> None:
    assert [one["id"] for one in comparison.mistakes(SECOND, TEXT)] == ["test/1", "test/3", "test/2"]
    assert comparison.mistakes(SECOND, TEXT)[0]["label"] == "positive"
    assert comparison.mistakes(table([1], [2.0]), TEXT) == []


def test_no_more_than_the_shown_mistakes_are_kept() -> None:
    many = table([0] * 50, list(range(1, 51)))
    shown = comparison.mistakes(many, pd.Series(["x"] * 50))
    assert [one["id"] for one in shown] == [f"test/{row}" for row in range(49, 39, -1)]


def test_lengths_fall_into_tenths_and_equal_ones_stay_together() -> None:
    length = np.repeat(np.arange(10, 60, 10), 40)
    label = [1, 0] * 100
    half = table(label, [1.0] * 200)
    groups = comparison.by_length({"half": half}, length)
    assert sum(group["reviews"] for group in groups) == 200
    assert [(group["shortest"], group["longest"]) for group in groups] == [(each, each) for each in range(10, 60, 10)]
    for group in groups:
        low, high = group["interval"]["half"]
        assert low < group["accuracy"]["half"] == 0.5 < high


def test_all_candidates_are_compared_with_the_best_and_the_mistakes_of_each_are_shown() -> None:
    tables = {"single": SECOND, "stacked": FIRST, "ngrams": FIRST}
    compared = comparison.compare(tables, "stacked", np.array([5, 6, 7, 8]), TEXT, samples=100, seed=0)
    assert [(pair["first"], pair["second"]) for pair in compared["pairs"]] == [
        ("stacked", "single"),
        ("stacked", "ngrams"),
    ]
    assert (compared["pairs"][0]["only_first_right"], compared["pairs"][0]["only_second_right"]) == (2, 0)
    assert compared["wrong"] == {"by_model": {"single": 3, "stacked": 1, "ngrams": 1}, "by_all": 1}
    assert list(compared["mistakes"]) == ["single", "stacked", "ngrams"]
    assert list(compared["flipped"]) == ["single", "ngrams"]


def test_candidates_are_paired_review_by_review() -> None:
    pair = comparison.paired(FIRST, SECOND, samples=100, seed=0)
    assert (pair["difference"], pair["only_first_right"], pair["only_second_right"]) == (0.5, 2, 0)


@pytest.mark.parametrize("text", ["", "short", "x" * 5000, "word " * 500])
def test_an_excerpt_keeps_both_ends_of_a_long_text(text: str) -> None:
    shown = comparison.excerpt(text)
    assert len(shown) <= 2 * comparison.EXCERPT + 5
    assert shown == text or (text.startswith(shown[:50]) and text.endswith(shown[-50:]) and " […] " in shown)
