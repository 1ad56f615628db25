"""The gate looks at behaviour: what a challenger must not do worse than the champion, and what it may do better."""

import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from readers import reader
from test_gate import A_HAIR_BETTER, BETTER, CHAMPION, EQUAL, PARAMS, SLIGHTLY_WORSE, WRONG, decide, params, predictions

from pipeline.evaluation import behaviour
from pipeline.evaluation.behaviour import Suite, measure
from pipeline.project.errors import UsageError
from pipeline.project.params import load_params
from pipeline.registry import behaviour_gate, gate, gate_report

SEEDS = range(6)
COMMITTED = load_params(ROOT / "params.yaml").gate


@pytest.fixture(scope="module")
def trained(suite: Suite, cases: list[behaviour.Case]) -> dict[Any, behaviour_gate.Report]:
    """What readers of six seeds, and readers with a defect, make of the project's own tests."""
    sound = {seed: measure(suite, cases, reader(seed=seed)) for seed in SEEDS}
    planted = {defect: measure(suite, cases, reader(defect, seed=7)) for defect in ("negation", "nationality")}
    return sound | planted | {"perfect": measure(suite, cases, reader())}


def decided(
    challenger: behaviour_gate.Report, champion: behaviour_gate.Report, predicted: pd.DataFrame = BETTER, **changed: Any
) -> gate.Decision:
    reports = {"challenger": challenger, "champion": champion}
    return decide(predicted, CHAMPION, **({"behaviour": reports, "params": COMMITTED} | changed))


def test_a_retraining_with_another_seed_passes(trained: dict[Any, behaviour_gate.Report]) -> None:
    passed = [decided(trained[first], trained[second]).promote for first, second in permutations(SEEDS, 2)]
    assert np.mean(passed) >= 0.9


@pytest.mark.parametrize(
    ("defect", "reason"),
    [("negation", "In negation it fails"), ("nationality", "Under nationality (identity) its probability spans")],
)
def test_a_planted_defect_is_rejected_whatever_its_accuracy(
    trained: dict[Any, behaviour_gate.Report], defect: str, reason: str
) -> None:
    for seed in SEEDS:
        found = decided(trained[defect], trained[seed])
        assert found.decision == "kept" and reason in found.reason
        assert "is significantly better than the champion" in found.reason
        assert decided(trained[seed], trained[seed]).decision == "promoted"


def test_better_in_behaviour_and_as_accurate_is_a_reason(trained: dict[Any, behaviour_gate.Report]) -> None:
    champion, committed = trained["negation"], COMMITTED.model_copy(update={"non_inferiority_margin": 0.005})
    lenient = committed.model_copy(update={"behaviour": committed.behaviour.model_copy(update={"lead": 0.02})})
    better = decided(trained["perfect"], champion, EQUAL, params=lenient)
    assert better.decision == "promoted"
    assert "In behaviour it is significantly better" in better.reason
    worse = predictions(WRONG | set(range(10_000, 10_300)))
    assert decided(trained["perfect"], champion, worse, params=lenient).decision == "kept"
    assert decided(champion, champion, EQUAL, params=lenient).decision == "kept"
    # A lead that is smaller than what another seed makes is none.
    assert "it takes -99.0" in decided(trained["perfect"], champion, EQUAL, params=lead(lenient, 0.99)).reason


def lead(params: gate.GateParams, value: float) -> gate.GateParams:
    return params.model_copy(update={"behaviour": params.behaviour.model_copy(update={"lead": value})})


def test_behaviour_is_one_more_reason_and_shares_the_level() -> None:
    report = made([[0, 10], [1, 10]])
    alone, both = decide(EQUAL, CHAMPION), decided(report, report, EQUAL, params=unnamed())
    assert both.figures["level"] == pytest.approx(alone.figures["level"] / 2)


def made(counts: Sequence[Sequence[int]], capability: str = "own", **more: Any) -> dict[str, Any]:
    """A report of one test with these [failures, cases] by template."""
    failures, total = (sum(column) for column in zip(*counts, strict=True))
    test = {"capability": capability, "test": "one", "cases": total, "by_template": [[n, k] for k, n in counts], **more}
    return {"capabilities": {capability: {"failure_rate": failures / total}}, "tests": [test]}


def unnamed(**changed: Any) -> gate.GateParams:
    """The params of the gate, without a name of a capability."""
    known = PARAMS.behaviour.model_copy(update={"max_span": {"imdb_reviews": {}, "sample": {}}})
    ceilings = type(PARAMS.behaviour.max_span)(imdb_reviews=changed.pop("ceilings", {}), sample={})
    return params(behaviour=known.model_copy(update={"max_span": ceilings, **changed}))


def test_cases_of_one_template_are_one() -> None:
    """Of ten templates one fails in all of its 40 cases: by cases that is no chance, by templates it may be."""
    champion, challenger = made([[0, 40]] * 10), made([[40, 40]] + [[0, 40]] * 9)
    (found,) = compared(challenger, champion, margin=0.05)["capabilities"]
    assert found["difference"] == pytest.approx(0.1) and found["interval"][0] == 0 and not found["worse"]
    spread = made([[4, 40]] * 10)
    (found,) = compared(spread, champion, margin=0.05)["capabilities"]
    assert found["difference"] == pytest.approx(0.1) and found["interval"][0] > 0 and found["worse"]


def compared(challenger: dict[str, Any], champion: dict[str, Any], **changed: Any) -> dict[str, Any]:
    reports = {"challenger": challenger, "champion": champion}
    options = {"dataset": "imdb_reviews", "reason_level": 0.01, "seed": 42}
    return behaviour_gate.compare(reports, unnamed(**changed), **options)


def test_a_rise_within_the_margin_is_seeds_noise() -> None:
    champion, challenger = made([[0, 40]] * 10), made([[4, 40]] * 10)
    assert [compared(challenger, champion, margin=m)["capabilities"][0]["worse"] for m in (0.09, 0.11)] == [True, False]
    own = compared(challenger, champion, margin=0.09, margins={"own": 0.11})
    assert not own["capabilities"][0]["worse"]


@pytest.mark.parametrize(("span", "holds"), [(0.4, True), (0.6, False)])
def test_each_test_of_a_capability_keeps_below_its_ceiling(span: float, holds: bool) -> None:
    report = made([[0, 10]], mean_span=span)
    found = compared(report, report, ceilings={"own": 0.5})
    assert [one["holds"] for one in found["spans"]] == [holds]
    assert bool(behaviour_gate.objections(found, "imdb_reviews")) is not holds


@pytest.mark.parametrize(
    ("changed", "key"), [({"margins": {"owm": 0.1}}, "margins"), ({"ceilings": {"owm": 0.1}}, "max_span")]
)
def test_a_capability_without_tests_is_told(changed: dict[str, Any], key: str) -> None:
    report = made([[0, 10]])
    with pytest.raises(UsageError, match=rf"gate\.behaviour\.{key} names 'owm', of which there is no .* there are own"):
        compared(report, report, **changed)


def test_nothing_binds_a_first_champion() -> None:
    found = decide(BETTER, None, params=COMMITTED)
    assert found.decision == "first" and found.figures["behaviour"] is None


@pytest.mark.parametrize(("margin", "expected"), [(0.01, "kept"), (0.05, "promoted")])
def test_an_evaluation_set_guards(margin: float, expected: str) -> None:
    before, after = predictions(range(0, 60), 2000), predictions(range(0, 120), 2000)
    guarded = {"rewritten": gate.Guarded({"challenger": after, "champion": before}, margin)}
    found = decide(BETTER, CHAMPION, guarded=guarded)
    assert found.decision == expected
    assert ("It loses 3.00 points on the evaluation set rewritten" in found.reason) is (expected == "kept")
    assert "rewritten" in gate_report.report(found)


def test_a_guard_takes_chance_for_chance() -> None:
    before, after = predictions([0], 20), predictions([1, 2], 20)  # 5 points on 20 texts
    guarded = {"small": gate.Guarded({"challenger": after, "champion": before}, 0.01)}
    assert decide(BETTER, CHAMPION, guarded=guarded).decision == "promoted"


def test_figures_and_report_show_capabilities_and_spans(trained: dict[Any, behaviour_gate.Report]) -> None:
    found = decided(trained["nationality"], trained[0], A_HAIR_BETTER)
    assert json.loads(json.dumps(found.figures, allow_nan=False)) == found.figures
    text = gate_report.report(found)
    lines = text.splitlines()
    for start in ("cases failed ", "negation ", "all capabilities ", "span, nationality "):
        assert any(line.startswith(start) for line in lines), text
    assert any(line.startswith("span, nationality") and line.endswith("above") for line in lines)


def test_the_same_reports_give_the_same_figures(trained: dict[Any, behaviour_gate.Report]) -> None:
    first, second = (decided(trained[0], trained[1], SLIGHTLY_WORSE).figures for _ in range(2))
    assert first == second
