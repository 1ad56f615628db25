"""What speaks for and against a challenger in behaviour: both models' reports of the same behavioural tests.

Cases of one template are alike, so what is drawn with replacement, for an interval, are templates; of perturbed reviews
each is a template of its own. Templates say how sure a difference is of these two models. How much two equally good
trainings differ they do not say: that is what the margins are for, which are measured over seeds (reports/noise.json).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.significance import percentile_interval
from pipeline.project.errors import UsageError
from pipeline.project.params import PARAMS_FILE, GateParams

Report = Mapping[str, Any]
"""As `evaluation.behaviour.measure` returns it."""


def compare(
    reports: Mapping[str, Report], params: GateParams, *, dataset: str, reason_level: float, seed: int
) -> dict[str, Any]:
    """Compares the failure rates of `challenger` and `champion`, and holds the challenger's spans against the ceiling.

    Args:
        reports: by role, of the same tests and cases.
        dataset: whose ceilings in `params` hold.
        reason_level: at which a lower failure rate over all capabilities is a reason for promotion.
        seed: of the bootstrap.

    Returns:
        `capabilities`, each with both rates, `difference` (above 0: the challenger fails more often), its bootstrap
        `interval` of 1 - `level` / number of capabilities, `margin` and `worse`; `overall`, the same of the mean of all
        capabilities at 1 - `level`, with `p` and `better`; and `spans`, each test with a ceiling, and `holds`.

    Raises:
        UsageError: the params name a capability that there is no test of.
    """
    known = params.behaviour
    names = list(reports["champion"]["capabilities"])
    ceilings = known.ceilings(dataset)
    for key, named in (("margins", known.margins), ("max_span", ceilings)):
        if strange := sorted(named.keys() - names):
            raise UsageError(
                f"{PARAMS_FILE}: gate.behaviour.{key} names {strange[0]!r}, of which there is no behavioural test; "
                f"there are {', '.join(names)}"
            )
    drawn = {
        name: _resampled(_contributions(reports, name), params.bootstrap_samples, seed + place)
        for place, name in enumerate(names)
    }
    overall = np.mean(list(drawn.values()), axis=0)
    capabilities = []
    for name in names:
        rates = {role: report["capabilities"][name]["failure_rate"] for role, report in reports.items()}
        interval = percentile_interval(drawn[name], 1 - params.level / len(names))
        margin, difference = known.margins.get(name, known.margin), rates["challenger"] - rates["champion"]
        worse = difference > margin and interval[0] > 0
        capabilities.append(
            {
                "capability": name,
                **rates,
                "difference": difference,
                "interval": interval,
                "margin": margin,
                "worse": bool(worse),
            }
        )
    rates = {role: float(np.mean([one[role] for one in capabilities])) for role in reports}
    difference = rates["challenger"] - rates["champion"]
    p = min(1.0, 2 * float((overall >= 0).sum() + 1) / (len(overall) + 1))
    return {
        "capabilities": capabilities,
        "overall": {
            **rates,
            "difference": difference,
            "interval": percentile_interval(overall, 1 - params.level),
            "lead": known.lead,
            "p": p,
            "better": bool(difference < -known.lead and p < reason_level),
        },
        "spans": spans(reports["challenger"], ceilings),
    }


def spans(report: Report, ceilings: Mapping[str, float]) -> list[dict[str, Any]]:
    """Returns each test of a report whose capability has a ceiling: its `mean_span`, the `ceiling`, and `holds`."""
    return [
        {
            "capability": test["capability"],
            "test": test["test"],
            "mean_span": test["mean_span"],
            "ceiling": ceilings[test["capability"]],
            "holds": test["mean_span"] <= ceilings[test["capability"]],
        }
        for test in report["tests"]
        if test["capability"] in ceilings and "mean_span" in test
    ]


def objections(compared: Mapping[str, Any], dataset: str) -> list[str]:
    """Says what speaks against the challenger, a sentence each."""
    sentences = [
        f"In {one['capability']} it fails {_rates(one)}, {100 * one['difference']:.1f} points more, which is more than "
        f"the margin of {100 * one['margin']:.1f}, and significant over templates after Bonferroni's correction."
        for one in compared["capabilities"]
        if one["worse"]
    ]
    return sentences + span_objections(compared["spans"], dataset)


def span_objections(found: Sequence[Mapping[str, Any]], dataset: str) -> list[str]:
    """Says which of `spans` are above their ceiling, a sentence each."""
    return [
        f"Under {one['test']} ({one['capability']}) its probability spans {one['mean_span']:.2f} on average, more than "
        f"the ceiling of {one['ceiling']:.2f} for {dataset}."
        for one in found
        if not one["holds"]
    ]


def sentence(compared: Mapping[str, Any]) -> str:
    """Says whether the challenger is better over all capabilities."""
    overall = compared["overall"]
    return (
        f"In behaviour it is {'' if overall['better'] else 'not '}significantly better: over all capabilities it fails "
        f"{_rates(overall)}, {100 * overall['difference']:+.1f} points (it takes {-100 * overall['lead']:+.1f})."
    )


def _rates(one: Mapping[str, float]) -> str:
    return f"{one['challenger']:.1%} of the cases against {one['champion']:.1%}"


def _contributions(reports: Mapping[str, Report], capability: str) -> NDArray[np.float64]:
    """Returns <float64>[templates], which sum to the difference of the capability's failure rates."""
    pairs = [
        (first, second)
        for first, second in zip(reports["challenger"]["tests"], reports["champion"]["tests"], strict=True)
        if first["capability"] == capability
    ]
    return np.array(
        [
            (failed - others_failed) / first["cases"] / len(pairs)
            for first, second in pairs
            for (_, failed), (_, others_failed) in zip(first["by_template"], second["by_template"], strict=True)
        ]
    )


def _resampled(values: Sequence[float] | NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    """Returns <float64>[samples], the sums of as many of the values, drawn with replacement: one multinomial draw of
    how often each of the distinct ones comes."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=samples)
    return np.asarray(drawn @ distinct, np.float64)
