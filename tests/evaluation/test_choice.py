"""The challenger is the cheapest candidate that the reviews cannot tell from the best, and its behaviour may bar it."""

import json
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.choice import Contender, choose

ROWS = 2500


def losses(mean: float, *, spread: float = 0.1, seed: int = 0) -> np.ndarray:
    """Of reviews that all contenders find as hard, but for what a `seed` adds; their mean is `mean`."""
    hard = np.random.default_rng(99).exponential(0.3, ROWS)
    found = hard + np.random.default_rng(seed).normal(0, spread, ROWS)
    return found - found.mean() + mean


def standing(chosen: dict, name: str) -> dict:
    return next(one for one in chosen["standings"] if one["name"] == name)


def test_the_cheapest_within_a_paired_standard_error_of_the_best_is_chosen() -> None:
    error = (losses(0.25, seed=2) - losses(0.2, seed=1)).std(ddof=1) / sqrt(ROWS)
    best, cheap = Contender(losses(0.2, seed=1), 9.0), Contender(losses(0.2 + 0.9 * error, seed=2), 1.0)
    found = choose({"best": best, "cheap": cheap})
    assert (found["chosen"], found["best"]) == ("cheap", "best")
    assert standing(found, "cheap")["behind"] == pytest.approx(0.9 * error)
    assert standing(found, "cheap")["standard_error"] == pytest.approx(error)
    assert standing(found, "best")["behind"] == standing(found, "best")["standard_error"] == 0.0
    assert found["reason"] == (
        f"cheap, of log loss {0.2 + 0.9 * error:.4f} on validation, is within a standard error ({error:.4f}) of best's "
        "0.2000, and cheaper to serve: 1.00 ms a review against 9.00."
    )

    too_far = Contender(losses(0.2 + 1.1 * error, seed=2), 1.0)
    found = choose({"best": best, "cheap": too_far})
    assert found["chosen"] == "best"
    assert found["reason"] == "best has the least log loss on validation, 0.2000."


def test_the_error_is_that_of_the_difference_on_the_same_reviews() -> None:
    """Reviews differ far more than models do: between unpaired means, this difference would be noise."""
    found = choose({"best": Contender(losses(0.2, spread=0.01), 9.0), "cheap": Contender(losses(0.205), 1.0)})
    apart = sqrt(2) * losses(0.2).std(ddof=1) / sqrt(ROWS)
    assert standing(found, "cheap")["standard_error"] < 0.005 < apart
    assert found["chosen"] == "best"


def test_the_best_that_is_also_the_cheapest_of_its_equals_says_so() -> None:
    loss = losses(0.2)
    found = choose({"slow": Contender(loss + 1e-9 * np.arange(ROWS), 2.0), "best": Contender(loss, 1.0)})
    assert found["chosen"] == "best"
    assert not standing(found, "slow")["eligible"]
    found = choose({"slow": Contender(losses(0.2001, seed=1), 2.0), "best": Contender(losses(0.2), 1.0)})
    assert standing(found, "slow")["eligible"]
    assert found["reason"] == (
        "best has the least log loss on validation, 0.2000, and is the cheapest to serve within a standard error of it."
    )


def test_whose_behaviour_is_objected_to_is_passed_over_and_no_measure_for_the_others() -> None:
    contenders = {
        "barred": Contender(losses(0.1, seed=1), 1.0, "its span is too wide"),
        "good": Contender(losses(0.2, seed=2), 5.0),
        "worse": Contender(losses(0.5, seed=3), 2.0),
    }
    found = choose(contenders)
    assert (found["chosen"], found["best"]) == ("good", "good")
    assert found["reason"] == (
        "good has the least log loss on validation, 0.2000; the behaviour of barred is objected to."
    )
    barred = standing(found, "barred")
    assert (barred["eligible"], barred["objection"]) == (False, "its span is too wide") and barred["behind"] < 0


def test_where_all_are_objected_to_the_best_challenges_all_the_same() -> None:
    contenders = {
        name: Contender(losses(mean, seed=seed), 1.0, "no")
        for seed, (name, mean) in enumerate([("a", 0.3), ("b", 0.2)])
    }
    found = choose(contenders)
    assert (found["chosen"], found["best"]) == ("b", "b")
    assert found["reason"].endswith("; the behaviour of a, b is objected to.")


def test_of_equally_cheap_ones_the_better_is_chosen() -> None:
    found = choose({"a": Contender(losses(0.2002, seed=1), 1.0), "b": Contender(losses(0.2, seed=2), 1.0)})
    assert standing(found, "a")["eligible"] and found["chosen"] == "b"


@given(
    st.lists(
        st.tuples(st.floats(0.1, 0.3), st.floats(0.1, 9), st.sampled_from([None, "no"]), st.integers(0, 5)),
        min_size=1,
        max_size=5,
    )
)
def test_the_chosen_one_is_allowed_and_no_cheaper_one_is_within_the_noise(rows: list) -> None:
    contenders = {
        f"m{number}": Contender(losses(mean, seed=seed), cost, objection)
        for number, (mean, cost, objection, seed) in enumerate(rows)
    }
    found = choose(contenders)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [one["name"] for one in found["standings"]] == list(contenders)
    chosen = standing(found, found["chosen"])
    assert chosen["objection"] is None or all(one.objection for one in contenders.values())
    for one in found["standings"]:
        assert not one["eligible"] or one["milliseconds"] >= chosen["milliseconds"]
