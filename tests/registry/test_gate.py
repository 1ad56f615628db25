"""The gate promotes a challenger that is measured to be better, or as good on newer rows, and nothing else."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.project.errors import DataError, UsageError
from pipeline.project.params import AccuracyFloor, BehaviourGateParams, GateParams, SpanCeilings, load_params
from pipeline.registry import gate, gate_report

PARAMS = GateParams(
    test="mcnemar",
    level=0.05,
    bootstrap_samples=1000,
    non_inferiority_margin=0.005,
    length_slice_margin=0.01,
    label_slice_margin=0.03,
    fresh_min_rows=200,
    min_accuracy=AccuracyFloor(imdb_reviews=0.8, sample=0.6),
    behaviour=BehaviourGateParams(
        margins={}, margin=0.2, lead=0.1, max_span=SpanCeilings(imdb_reviews={"identity": 0.5}, sample={})
    ),
)
REVIEWS = 25_000
ROWS = np.arange(REVIEWS)
WRONG = set(range(0, 3000))  # of a champion with 88% accuracy, evenly over labels and lengths


def predictions(wrong: Iterable[int], reviews: int = REVIEWS) -> pd.DataFrame:
    """Predictions that are right on all rows but `wrong`; labels alternate, and lengths come round every 16 rows."""
    rows = np.arange(reviews)
    label = rows % 2
    right = ~np.isin(rows, list(wrong))
    logit = np.where(right == (label == 1), 1.5, -1.5).astype(np.float32)
    length = 100 + 10 * (rows // 2 % 8)
    return pd.DataFrame({"id": [f"test/{row}" for row in rows], "label": label, "logit": logit, "length": length})


def params(**changed: Any) -> GateParams:
    return PARAMS.model_copy(update=changed)


def decide(
    challenger: pd.DataFrame, champion: pd.DataFrame | None, best_ever: pd.DataFrame | None = None, **changed: Any
) -> gate.Decision:
    options: dict[str, Any] = {
        "dataset": "imdb_reviews",
        "params": PARAMS,
        "new_rows": 0,
        "seed": 42,
        "latency_ms": {"challenger": 4.0},
        "looks": 1,
    }
    predictions = {"challenger": challenger, "champion": champion, "best_ever": best_ever}
    given = {role: table for role, table in predictions.items() if table is not None}
    return gate.decide(given, **(options | changed))


CHAMPION = predictions(WRONG)
EQUAL = predictions((WRONG - set(range(800))) | set(range(10_000, 10_800)))  # as often right, on other reviews
BETTER = predictions((WRONG - set(range(800))) | set(range(10_000, 10_600)))
A_HAIR_BETTER = predictions((WRONG - set(range(800))) | set(range(10_000, 10_796)))
SLIGHTLY_WORSE = predictions((WRONG - set(range(500))) | set(range(10_000, 10_550)))


@pytest.mark.parametrize("test", ["mcnemar", "bootstrap"])
def test_a_challenger_that_is_significantly_better_is_promoted(test: str) -> None:
    found = decide(BETTER, CHAMPION, params=params(test=test))
    assert (found.decision, found.promote) == ("promoted", True)
    assert (
        "is significantly better than the champion at α = 0.03, which is left of 0.05 at look 1: 88.80% against"
        in found.reason
    )
    assert "+0.80 points (95% interval" in found.reason


@pytest.mark.parametrize("test", ["mcnemar", "bootstrap"])
def test_a_hair_better_is_not_significant_and_keeps_the_champion(test: str) -> None:
    found = decide(A_HAIR_BETTER, CHAMPION, params=params(test=test))
    assert (found.decision, found.promote) == ("kept", False)
    assert "is not significantly better than the champion at α = 0.03" in found.reason
    assert "it takes a lead of 0.35 points at look 1" in found.reason
    assert "trained on no review that the champion has not" in found.reason


def test_a_worse_challenger_keeps_the_champion_however_sure_the_difference_is() -> None:
    found = decide(CHAMPION, BETTER, new_rows=500)
    assert found.decision == "kept"
    assert found.figures["against"]["champion"]["mcnemar_p"] < 0.05
    assert "may be worse than the champion by more than 0.50 points" in found.reason


def test_as_good_is_reason_enough_with_new_rows_and_only_then() -> None:
    with_new, without = decide(EQUAL, CHAMPION, new_rows=500), decide(EQUAL, CHAMPION, new_rows=0)
    assert (with_new.decision, without.decision) == ("promoted", "kept")
    assert "trained on 500 reviews that the champion has not" in with_new.reason
    assert "is not worse than the champion by more than 0.50 points" in with_new.reason


@pytest.mark.parametrize(("lost", "expected"), [(1000, "promoted"), (1050, "promoted"), (1250, "kept")])
def test_the_committed_margin_suits_the_noise_of_two_trained_models(lost: int, expected: str) -> None:
    # They disagree on 8% of 25,000 reviews: as good, worse by 0.2 points, and worse by a whole point.
    committed = load_params(ROOT / "params.yaml").gate
    challenger = predictions((WRONG - set(range(1000))) | set(range(10_000, 10_000 + lost)))
    assert decide(challenger, CHAMPION, new_rows=500, params=committed).decision == expected


def test_where_the_champions_rows_are_not_known_as_good_is_not_enough() -> None:
    found = decide(EQUAL, CHAMPION, new_rows=None)
    assert found.decision == "kept"
    assert "Which reviews the champion has trained on is not known" in found.reason
    assert decide(BETTER, CHAMPION, new_rows=None).decision == "promoted"


def test_too_few_reviews_to_tell_is_not_as_good() -> None:
    # Measured alike, but 400 reviews leave room for a loss of several points.
    champion, challenger = predictions(range(0, 60), 400), predictions(range(30, 90), 400)
    found = decide(challenger, champion, new_rows=500)
    assert found.figures["against"]["champion"]["difference"] == 0
    assert found.decision == "kept"


def test_small_steps_down_end_at_the_best_version_ever_promoted() -> None:
    # Each generation is a quarter point worse than the one before: never by more than the margin of half a point.
    def generation(steps: int) -> pd.DataFrame:
        return predictions(WRONG | set(range(10_000, 10_000 + 63 * steps)))

    decisions = [
        decide(generation(step + 1), generation(step), generation(0), new_rows=1).decision for step in range(3)
    ]
    unguarded = [decide(generation(step + 1), generation(step), new_rows=1).decision for step in range(3)]
    assert unguarded == ["promoted"] * 3
    assert decisions == ["promoted", "kept", "kept"]
    reason = decide(generation(2), generation(1), generation(0), new_rows=1).reason
    assert "is not worse than the champion" in reason
    assert (
        "may be worse than the best version promoted and not rolled back by more than 0.50 points: 87.50% against 88"
        in reason
    )


def test_better_than_the_champion_is_enough_whatever_was_best_once() -> None:
    assert decide(CHAMPION, predictions(WRONG | set(range(20_000, 20_400))), BETTER).decision == "promoted"


def longest(count: int) -> set[int]:
    """`count` reviews of the longest quartile that the champion is right on, half of either label."""
    rows = ROWS[(ROWS >= 3000) & (ROWS // 2 % 8 >= 6)]
    return set(rows[:count].tolist())


def test_a_slice_that_collapses_stops_a_challenger_that_is_better_overall() -> None:
    # 400 of the longest reviews lost (6.4 points of that quartile), 700 of the others won.
    won = set(ROWS[(ROWS < 3000) & (ROWS // 2 % 8 < 6)][:700].tolist())
    challenger = predictions((WRONG - won) | longest(400))
    found = decide(challenger, CHAMPION, new_rows=500)
    assert found.figures["against"]["champion"]["better"]
    assert found.decision == "kept"
    assert "loses 6.40 points on length quartile 4, more than the margin of 1.00" in found.reason
    assert [each["slice"] for each in found.figures["slices"] if each["regressed"]] == ["length_quartile_4"]
    assert decide(challenger, CHAMPION, params=params(length_slice_margin=0.07)).decision == "promoted"


def test_each_kind_of_slice_has_its_own_margin() -> None:
    # 500 negatives lost (4 points of them), 1,200 positives won: the threshold moved more than a label may lose.
    won = set(ROWS[(ROWS < 3000) & (ROWS % 2 == 1)][:1200].tolist())
    lost = set(ROWS[(ROWS >= 3000) & (ROWS % 2 == 0)][:500].tolist())
    challenger = predictions((WRONG - won) | lost)
    assert "loses 4.00 points on label negative" in decide(challenger, CHAMPION).reason
    assert decide(challenger, CHAMPION, params=params(label_slice_margin=0.05)).decision == "promoted"


def test_a_loss_on_a_slice_within_its_margin_does_not_stop() -> None:
    challenger = predictions((WRONG - set(range(800))) | longest(50) | set(range(10_000, 10_100)))
    assert decide(challenger, CHAMPION).decision == "promoted"


@pytest.mark.parametrize(("lost", "expected"), [(7, "promoted"), (9, "kept")])
def test_a_loss_on_a_small_slice_stops_only_where_it_is_significant_among_all_six(lost: int, expected: str) -> None:
    # Some of the 100 longest of 400 reviews: 7 lost have p = 0.016, once in six slices; 9 lost have p = 0.004.
    champion_wrong = set(range(80))
    won = {row for row in champion_wrong if row // 2 % 8 < 6}
    lost_rows = [row for row in range(80, 400) if row // 2 % 8 >= 6][:lost]
    found = decide(predictions((champion_wrong - won) | set(lost_rows), 400), predictions(champion_wrong, 400))
    quartile = next(each for each in found.figures["slices"] if each["slice"] == "length_quartile_4")
    assert (quartile["reviews"], quartile["difference"]) == (100, -lost / 100)
    assert found.decision == expected


def test_below_the_floor_nothing_is_promoted_nor_first() -> None:
    bad, worse = predictions(range(6000)), predictions(range(7000))
    replaced, first = decide(bad, worse), decide(bad, None)
    assert (replaced.decision, first.decision) == ("kept", "kept")
    assert replaced.figures["against"]["champion"]["better"]
    for found in (replaced, first):
        assert "76.00% on 25,000 test reviews is below the floor of 80.0% for imdb_reviews" in found.reason


def test_where_there_is_no_champion_the_floor_of_the_data_set_decides() -> None:
    found = decide(predictions(range(6000)), None, dataset="sample")
    assert (found.decision, found.promote) == ("first", True)
    assert "There was no champion; accuracy of 76.00%" in found.reason
    assert found.figures["slices"] == []
    with pytest.raises(UsageError, match=r"gate\.min_accuracy names imdb_reviews, sample, not 'yelp'"):
        decide(CHAMPION, None, dataset="yelp")


def test_the_order_of_rows_and_other_columns_do_not_matter() -> None:
    shuffled = [
        table.sample(frac=1, random_state=seed).assign(probability=0.5, label=table["label"].astype(np.int8))
        for seed, table in enumerate((EQUAL, CHAMPION, BETTER))
    ]
    expected = decide(EQUAL, CHAMPION, BETTER, new_rows=500)
    assert decide(*shuffled, new_rows=500) == expected
    assert decide(EQUAL, CHAMPION, BETTER, new_rows=500) == expected


def test_predictions_on_other_test_sets_are_refused_with_what_differs() -> None:
    moved = CHAMPION.replace({"id": {"test/7": "test/x"}})
    with pytest.raises(DataError, match="test/7 only in the challenger's and test/x only in the champion's"):
        decide(EQUAL, moved)
    with pytest.raises(DataError, match=r"champion .* 24,997 more only in the challenger's"):
        decide(EQUAL, CHAMPION.assign(id="other/" + CHAMPION["id"]))
    relabelled = CHAMPION.assign(label=CHAMPION["label"].where(CHAMPION["id"] != "test/4", 1))
    with pytest.raises(DataError, match="and best ever were not scored on the same test set: another label for test/4"):
        decide(EQUAL, CHAMPION, relabelled)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (CHAMPION.drop(columns="length"), "the champion's predictions have no column length"),
        (CHAMPION[:0], "the champion's predictions hold no review"),
        (pd.concat([CHAMPION, CHAMPION[3:4]]), "hold the same review more than once: test/3"),
        (CHAMPION.assign(label=CHAMPION["label"] * 2), "hold a label other than 0 and 1: test/1, "),
        (CHAMPION.assign(logit=np.nan), "hold a logit that is not finite: test/0, "),
    ],
)
def test_tables_that_are_no_predictions_are_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decide(EQUAL, table)


def test_the_p_value_is_that_of_the_exact_binomial_test() -> None:
    compared = decide(BETTER, CHAMPION).figures["against"]["champion"]
    assert (compared["only_first_right"], compared["only_second_right"]) == (800, 600)
    assert compared["mcnemar_p"] == binomtest(800, 1400).pvalue


@pytest.mark.parametrize("test", ["mcnemar", "bootstrap"])
def test_the_level_decides_what_is_significant(test: str) -> None:
    challenger = predictions((WRONG - set(range(800))) | set(range(10_000, 10_709)))  # McNemar's p is 0.02
    lenient, strict = (decide(challenger, CHAMPION, params=params(test=test, level=level)) for level in (0.05, 0.01))
    assert (lenient.decision, strict.decision) == ("promoted", "kept")
    assert "95% interval" in lenient.reason
    assert "99% interval" in strict.reason


@pytest.mark.parametrize("test", ["mcnemar", "bootstrap"])
def test_each_look_makes_the_next_promotion_dearer(test: str) -> None:
    decisions = [decide(BETTER, CHAMPION, params=params(test=test), looks=look) for look in (1, 100, 10_000)]
    assert [found.decision for found in decisions] == ["promoted", "promoted", "kept"]
    needed = [found.figures["against"]["champion"]["lead_needed"] for found in decisions]
    assert needed == sorted(needed) and len(set(needed)) == 3
    for found, lead in zip(decisions, needed, strict=True):  # and that lead does, and one review less does not
        for won, expected in (((1400 + lead) // 2, True), ((1400 + lead) // 2 - 1, False)):
            lost = 1400 - won
            challenger = predictions((WRONG - set(range(won))) | set(range(10_000, 10_000 + lost)))
            again = decide(challenger, CHAMPION, params=params(test=test), looks=found.figures["looks"])
            assert again.figures["against"]["champion"]["better"] == expected


def test_what_all_looks_spend_is_the_level() -> None:
    spent = [gate.spent_level(0.05, look) for look in range(1, 100_000)]
    assert 0.0499 < sum(spent) < 0.05


@pytest.mark.parametrize("disagreement", [2000, 3250])
def test_over_a_hundred_looks_equal_models_are_rarely_promoted_and_a_better_one_is(disagreement: int) -> None:
    """A store's whole life, many times, on 25,000 reviews on which challenger and champion disagree on so many: the
    chance of a false promotion for being better stays below the level, and a challenger that is better by 1.5 points is
    still promoted at the hundredth look in 9 of 10."""
    rng, lives = np.random.default_rng(7), 20_000

    def promoted(won: np.ndarray, look: int) -> np.ndarray:
        needed = gate.lead_needed(disagreement, REVIEWS, gate.spent_level(PARAMS.level, look), PARAMS.test)
        assert needed is not None
        return 2 * won - disagreement >= needed

    falsely = sum(promoted(rng.binomial(disagreement, 0.5, lives), look) for look in range(1, 101))
    one_sided = PARAMS.level / 2
    assert 0.3 * one_sided < (falsely > 0).mean() < one_sided + 3 * np.sqrt(one_sided / lives)
    better = rng.binomial(disagreement, 0.5 + 0.015 * REVIEWS / disagreement / 2, lives)
    assert promoted(better, 100).mean() > 0.9


def on_fresh(challenger: int, champion: int, reviews: int = 500) -> dict[str, pd.DataFrame]:
    """Predictions of which so many are wrong, on fresh reviews."""
    return {"challenger": predictions(range(challenger), reviews), "champion": predictions(range(champion), reviews)}


def test_significantly_better_on_fresh_reviews_and_not_worse_on_test_is_a_reason() -> None:
    found = decide(EQUAL, CHAMPION, fresh=on_fresh(50, 100))
    assert found.decision == "promoted"
    assert "On fresh reviews it is significantly better: 90.00% against 80.00% on the same 500 fresh" in found.reason
    assert decide(EQUAL, CHAMPION, fresh=on_fresh(98, 100)).decision == "kept"
    worse = decide(predictions(range(3400)), CHAMPION, fresh=on_fresh(50, 100))
    assert worse.decision == "kept" and "may be worse than the champion" in worse.reason
    assert found.figures["level"] == gate.spent_level(0.05, 1) / 2  # two tests can be a reason


def test_a_significant_loss_on_fresh_reviews_speaks_against_a_promotion() -> None:
    found = decide(BETTER, CHAMPION, fresh=on_fresh(100, 50))
    assert found.decision == "kept" and "It loses 10.00 points on 500 fresh reviews" in found.reason
    assert decide(BETTER, CHAMPION, fresh=on_fresh(101, 100)).decision == "promoted"


def test_few_fresh_reviews_are_reported_alone() -> None:
    found = decide(BETTER, CHAMPION, fresh=on_fresh(90, 0, reviews=100))
    assert found.decision == "promoted" and found.figures["level"] == gate.spent_level(0.05, 1)
    assert "they are reported alone, as the gate counts them from 200 on" in found.reason
    assert any(line.startswith("fresh ") for line in gate_report.report(found).splitlines())


def test_the_level_decides_how_sure_not_worse_must_be() -> None:
    wide, narrow = (decide(SLIGHTLY_WORSE, CHAMPION, new_rows=1, params=params(level=level)) for level in (0.001, 0.05))
    assert (wide.decision, narrow.decision) == ("kept", "promoted")
    intervals = [found.figures["against"]["champion"]["interval"] for found in (wide, narrow)]
    assert intervals[0][0] < -PARAMS.non_inferiority_margin <= intervals[1][0]


def test_latency_is_reported_and_decides_nothing() -> None:
    slow = decide(BETTER, CHAMPION, latency_ms={"challenger": 9000.0, "champion": 2}, looks=14)
    assert slow.decision == "promoted"
    assert slow.figures["latency_ms"] == {"challenger": 9000.0, "champion": 2.0}
    text = gate_report.report(slow)
    assert "look 14 at held-out reviews" in text
    assert "9000.0" in text


def test_figures_are_json_and_hold_all_that_the_decision_rests_on() -> None:
    found = decide(EQUAL, CHAMPION, BETTER, new_rows=3)
    assert json.loads(json.dumps(found.figures, allow_nan=False)) == found.figures
    assert set(found.figures["against"]) == {"champion", "best_ever"}
    assert len(found.figures["slices"]) == 6
    assert found.figures["params"] == PARAMS.model_dump()


def test_the_report_shows_models_comparisons_and_slices() -> None:
    lines = gate_report.report(decide(BETTER, CHAMPION, EQUAL)).splitlines()
    assert lines[0] == "decision  promoted"
    for start in (
        "challenger ",
        "champion ",
        "best ever ",
        "against champion ",
        "length quartile 4 ",
        "label positive ",
    ):
        assert any(line.startswith(start) for line in lines), start


small = st.integers(min_value=1, max_value=60)
rights = small.flatmap(lambda size: st.tuples(*[st.lists(st.booleans(), min_size=size, max_size=size)] * 2))
tests = st.sampled_from(["mcnemar", "bootstrap"])


def answered(rights: list[bool]) -> pd.DataFrame:
    return predictions([row for row, right in enumerate(rights) if not right], len(rights))


LENIENT = {
    "level": 0.4,
    "bootstrap_samples": 200,
    "min_accuracy": PARAMS.min_accuracy.model_copy(update={"imdb_reviews": 0.0}),
}


@settings(max_examples=60, deadline=None)
@given(rights, tests, st.integers(0, 5))
def test_no_pair_of_models_is_promoted_both_ways(pair: tuple[list[bool], list[bool]], test: str, seed: int) -> None:
    first, second = (answered(rights) for rights in pair)
    options = {"params": params(test=test, **LENIENT), "seed": seed}
    assert not (decide(first, second, **options).promote and decide(second, first, **options).promote)


@settings(max_examples=60, deadline=None)
@given(rights, tests)
def test_a_model_never_replaces_itself_without_new_rows(pair: tuple[list[bool], list[bool]], test: str) -> None:
    model = answered(pair[0])
    options = {"params": params(test=test, **LENIENT)}
    assert decide(model, model, model, **options).decision == "kept"
    assert decide(model, model, model, new_rows=1, **options).decision == "promoted"
