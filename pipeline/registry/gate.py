"""The gate: whether a challenger takes the champion's place, from what both predict on the same held-out reviews.

It is pure: tables of predictions in, a decision with its reason and every figure it rests on out. The same
predictions, params and seed give the same decision, in whatever order the rows stand.

The rule. A challenger is promoted when it has a reason to be, and nothing speaks against it.

A reason is one of:
- it is *significantly better* than the champion on the test reviews: right on more of them, and the exact McNemar test
  (McNemar 1947, two-sided), or with `test: bootstrap` the paired bootstrap, has p < α;
- it is so on the *fresh* reviews, which neither has trained on, and not worse on the test reviews (below);
- it is *better in behaviour*, and not worse on the test reviews: it fails less often, by the mean of all capabilities,
  by more than `lead`, and significantly (bootstrap over templates, p < α);
- it has trained on reviews that the champion has not, and is *not worse* than the champion, nor than the best version
  that was promoted and not rolled back, which stops a drift of small steps: the lower end of each paired interval of
  1 - `level` is no lower than -`non_inferiority_margin`. Both must hold, so neither comparison needs a correction
  (Berger 1982).

These speak against it:
- a slice of the test reviews (length quartile, label) *regresses beyond its margin*: what it loses exceeds the margin,
  and is significant at `level` after Bonferroni's correction (exact McNemar, p < level / number of slices). Of
  challengers that are as good as the champion everywhere, drawn with a disagreement on 13% of the reviews, this stops
  1%; the margin alone would stop 5%, a test of each slice at α 10%, and asking each slice to be shown not worse 86%;
- on the fresh reviews it loses more than `non_inferiority_margin`, and significantly (exact McNemar, p < level);
- a capability's failure rate rises by more than its margin, and significantly (`behaviour_gate`), or its probability
  moves more under identity terms than the data set's ceiling allows;
- on an evaluation set with a guard it loses more than that, and significantly (exact McNemar, p < level / number of
  such sets);
- its accuracy is below the *floor* of the data set.

Looks at held-out reviews are paid for. α is not `level`, of which each look spends a part (`spent_level`), divided by
the number of tests that can be a reason (Bonferroni): over a store's whole life, however many challengers are measured
and on whatever held-out reviews, the chance of one false *better* stays below `level`.

Fresh reviews are part of it from `fresh_min_rows` of them on; fewer are reported. Where there is no champion, the floor
alone decides. Latency is reported and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.evaluation.significance import bootstrap_p, mcnemar_p, paired_accuracy, slice_masks
from pipeline.project.errors import DataError
from pipeline.project.params import GateParams
from pipeline.registry import behaviour_gate

if TYPE_CHECKING:
    import pandas as pd

Comparison = dict[str, Any]
Models = Mapping[str, "pd.DataFrame"]
"""Predictions by role."""


@dataclass(frozen=True)
class Guarded:
    """An evaluation set that guards: predictions of `challenger` and `champion`, and the accuracy that may be lost."""

    predictions: Models
    margin: float


_ROLES = {"champion": "the champion", "best_ever": "the best version promoted and not rolled back"}
_NAMED = 3  # reviews named in a message


@dataclass(frozen=True)
class Decision:
    """`first` (there was no champion), `promoted` or `kept`; why, in words; and all figures behind it, JSON-able."""

    decision: Literal["first", "promoted", "kept"]
    reason: str
    figures: dict[str, Any]

    @property
    def promote(self) -> bool:
        """Whether the challenger becomes champion."""
        return self.decision != "kept"


def decide(
    predictions: Models,
    *,
    dataset: str,
    params: GateParams,
    new_rows: int | None,
    seed: int,
    latency_ms: Mapping[str, float],
    looks: int,
    fresh: Models | None = None,
    behaviour: Mapping[str, behaviour_gate.Report] | None = None,
    guarded: Mapping[str, Guarded] | None = None,
) -> Decision:
    """Decides whether the challenger becomes champion.

    Args:
        predictions: of the `challenger`, of the `champion` where there is one, and of the version promoted and not
            rolled back that is the best on these reviews (`best_ever`) where that is another: tables on the same test
            reviews, one row a review in any order: id, label (0 or 1), logit, length (by one yardstick for all).
        dataset: whose floor in `params` holds.
        new_rows: training reviews that the challenger has trained on and the champion has not; None where the
            champion's are not known, and then being as good is not enough.
        seed: of the paired bootstrap.
        latency_ms: of one review, by role as `predictions`; reported.
        looks: how often held-out reviews have been looked at before a decision, this one included, 1 or more.
        fresh: predictions of `challenger` and `champion` on the fresh reviews that neither has trained on, as
            `predictions`, length aside; None where there are none.
        behaviour: what `challenger` and `champion` make of the same behavioural tests; None where there is no champion.
        guarded: the evaluation sets that guard, by name.

    Raises:
        DataError: the tables are not finite predictions on the same reviews with the same labels; names what differs.
        UsageError: the params have no floor for `dataset`, or name a capability without tests.
    """
    floor = params.floor(dataset)
    models = {role: _by_id(role, table, "length") for role, table in predictions.items()}
    for role in models:
        _require_same_reviews(models["challenger"], models[role], role)
    accuracy = {role: _accuracy(model) for role, model in models.items()}
    counts = fresh is not None and len(fresh["champion"]) >= params.fresh_min_rows
    level = spent_level(params.level, looks) / (1 + counts + (behaviour is not None))
    figures = {
        "reviews": len(models["challenger"]),
        "looks": looks,
        "level": level,
        "accuracy": accuracy,
        "against": {role: _compare(models, role, params, level, seed) for role in _ROLES if role in models},
        "fresh": _compare_fresh(fresh, params, level, seed) | {"counts": counts} if fresh else None,
        "slices": _compare_slices(models, params, seed) if "champion" in models else [],
        "behaviour": behaviour
        and behaviour_gate.compare(behaviour, params, dataset=dataset, reason_level=level, seed=seed),
        "evaluation_sets": _compare_guarded(guarded or {}, params, seed),
        "floor": {"dataset": dataset, "min_accuracy": floor, "holds": accuracy["challenger"] >= floor},
        "new_rows": new_rows,
        "latency_ms": {name: float(value) for name, value in latency_ms.items()},
        "params": params.model_dump(),
        "bootstrap": {"samples": params.bootstrap_samples, "seed": seed},
    }
    return _judge(figures, params)


def spent_level(level: float, look: int) -> float:
    """Returns what the `look`-th look, counted from 1, may spend of `level`: 6 level / (π² look²), which sums to
    `level` over all looks, however many there will be (α-spending: Lan & DeMets 1983; Σ 1/k² = π²/6)."""
    return 6 * level / (np.pi * look) ** 2


def lead_needed(disagreeing: int, rows: int, level: float, test: str) -> int | None:
    """Returns how many reviews more than the champion a challenger must have right to be significantly better at
    `level`, where the two disagree on `disagreeing` of `rows`; None where no lead would do."""
    low, high = disagreeing // 2, disagreeing + 1  # won: not enough, and enough
    while high - low > 1:
        won = (low + high) // 2
        low, high = (low, won) if _p(won, disagreeing - won, rows, test) < level else (won, high)
    return None if high > disagreeing else 2 * high - disagreeing


def _p(won: int, lost: int, rows: int, test: str) -> float:
    return mcnemar_p(won, lost) if test == "mcnemar" else bootstrap_p(won, lost, rows)


def needed(one: Comparison, figures: Mapping[str, Any]) -> str:
    """Says what would have been significantly better at this look."""
    lead, disagreeing = one["lead_needed"], one["only_first_right"] + one["only_second_right"]
    what = "no lead would do" if lead is None else f"a lead of {100 * lead / one['reviews']:.2f} points"
    level = f"(α = {figures['level']:.2g})"
    return f"{what} at look {figures['looks']} {level}, as the two disagree on {disagreeing:,} reviews"


def _accuracy(model: "pd.DataFrame") -> float:
    return float(((model["logit"] > 0) == model["label"]).mean())


def words(name: str) -> str:
    """Returns a role's or a slice's name as it is said."""
    return name.replace("_", " ")


def _by_id(role: str, table: "pd.DataFrame", *more: str) -> "pd.DataFrame":
    name = f"the {words(role)}'s predictions"
    if missing := [column for column in ("id", "label", "logit", *more) if column not in table]:
        raise DataError(f"{name} have no column {', '.join(missing)}")
    if table.empty:
        raise DataError(f"{name} hold no review")
    ordered = table.sort_values("id", ignore_index=True)
    faults = {
        "the same review more than once": ordered["id"].duplicated(),
        "a label other than 0 and 1": ~ordered["label"].isin((0, 1)),
        "a logit that is not finite": ~np.isfinite(ordered["logit"]),
    }
    for fault, rows in faults.items():
        if rows.any():
            raise DataError(f"{name} hold {fault}: {_some(ordered['id'][rows])}")
    return ordered


def _require_same_reviews(challenger: "pd.DataFrame", other: "pd.DataFrame", role: str) -> None:
    here, there = challenger["id"], other["id"]
    alone = {"challenger": here[~here.isin(there)], words(role): there[~there.isin(here)]}
    differences = [f"{_some(ids)} only in the {name}'s" for name, ids in alone.items() if len(ids)]
    if not differences and (relabelled := challenger["label"] != other["label"]).any():
        differences = [f"another label for {_some(here[relabelled])}"]
    if differences:
        raise DataError(
            f"challenger and {words(role)} were not scored on the same test set: {' and '.join(differences)}; "
            f"score the {words(role)} again, on the challenger's test set"
        )


def _some(ids: "pd.Series") -> str:
    named = ", ".join(str(review) for review in ids.iloc[:_NAMED])
    return named if len(ids) <= _NAMED else f"{named} and {len(ids) - _NAMED:,} more"


def _compare(models: Models, role: str, params: GateParams, level: float, seed: int) -> Comparison:
    compared = _paired(models, role, slice(None), params.level, params, seed)
    won, lost, rows = compared["only_first_right"], compared["only_second_right"], compared["reviews"]
    return {
        **compared,
        "better": bool(compared["difference"] > 0 and _p(won, lost, rows, params.test) < level),
        "not_worse": bool(compared["interval"][0] >= -params.non_inferiority_margin),
        "lead_needed": lead_needed(won + lost, rows, level, params.test),
    }


def _compare_fresh(fresh: Models, params: GateParams, level: float, seed: int) -> Comparison:
    models = {role: _by_id(role, table) for role, table in fresh.items()}
    _require_same_reviews(models["challenger"], models["champion"], "champion")
    compared = _compare(models, "champion", params, level, seed)
    lost = compared["difference"] < -params.non_inferiority_margin and compared["mcnemar_p"] < params.level
    return {
        **compared,
        "accuracy": {role: _accuracy(model) for role, model in models.items()},
        "regressed": bool(lost),
    }


def _compare_slices(models: Models, params: GateParams, seed: int) -> list[Comparison]:
    masks = slice_masks(models["champion"]["label"].to_numpy(), models["champion"]["length"].to_numpy())
    level = params.level / len(masks)
    results = []
    for name, mask in masks.items():
        compared = _paired(models, "champion", mask, level, params, seed)
        margin = params.label_slice_margin if name.startswith("label") else params.length_slice_margin
        regressed = compared["difference"] < -margin and compared["mcnemar_p"] < level
        results.append({"slice": name, **compared, "margin": margin, "regressed": bool(regressed)})
    return results


def _compare_guarded(guarded: Mapping[str, Guarded], params: GateParams, seed: int) -> list[Comparison]:
    results = []
    for name, one in guarded.items():
        models = {role: _by_id(role, table) for role, table in one.predictions.items()}
        level = params.level / len(guarded)
        compared = _paired(models, "champion", slice(None), level, params, seed)
        regressed = compared["difference"] < -one.margin and compared["mcnemar_p"] < level
        results.append({"evaluation_set": name, **compared, "margin": one.margin, "regressed": bool(regressed)})
    return results


def _paired(
    models: Models, role: str, rows: np.ndarray | slice, level: float, params: GateParams, seed: int
) -> Comparison:
    challenger, other = models["challenger"], models[role]
    label, logit, others = (
        column.to_numpy()[rows] for column in (challenger["label"], challenger["logit"], other["logit"])
    )
    compared = paired_accuracy(label, logit, others, samples=params.bootstrap_samples, seed=seed, confidence=1 - level)
    return {"reviews": len(label), **compared, "interval_level": 1 - level}


def _judge(figures: dict[str, Any], params: GateParams) -> Decision:
    """Applies the rule to the figures and says why, a sentence a fact."""
    against, fresh, objections = figures["against"], figures["fresh"], _objections(figures)
    if "champion" not in against:
        if objections:
            return Decision("kept", " ".join(["There is no champion, and none is made.", *objections]), figures)
        return Decision("first", f"There was no champion; {_standing(figures)} reaches the floor.", figures)
    better, not_worse = against["champion"]["better"], all(one["not_worse"] for one in against.values())
    better_on_fresh = bool(fresh and fresh["counts"] and fresh["better"])
    facts = [
        f"The challenger is {'' if better else 'not '}significantly better than the champion at α = "
        f"{figures['level']:.2g}, which is left of {params.level:g} at look {figures['looks']}: "
        f"{_measure('champion', figures, params)}."
    ]
    if not better:
        facts[0] = f"{facts[0][:-1]}; it takes {needed(against['champion'], figures)}."
    if fresh:
        facts.append(_on_fresh(figures, params))
    behaviour = figures["behaviour"]
    better_elsewhere = better_on_fresh or bool(behaviour and behaviour["overall"]["better"])
    if behaviour:
        facts.append(behaviour_gate.sentence(behaviour))
    if not better:
        facts += _freshness(figures, params, better_elsewhere)
    due = not_worse and (bool(figures["new_rows"]) or better_elsewhere)
    if (better or due) and not objections:
        held = "slice" + (", capability" if behaviour else "") + (" or guard" if figures["evaluation_sets"] else "")
        facts.append(f"No {held} regresses beyond its margin, and the floor holds.")
        return Decision("promoted", " ".join(facts), figures)
    return Decision("kept", " ".join(facts + objections), figures)


def _on_fresh(figures: dict[str, Any], params: GateParams) -> str:
    fresh = figures["fresh"]
    measured = _measured(fresh, fresh["accuracy"], "champion", "fresh", params)
    if not fresh["counts"]:
        return (
            f"On fresh reviews it reaches {measured}; they are reported alone, as the gate counts them from "
            f"{params.fresh_min_rows:,} on."
        )
    return f"On fresh reviews it is {'' if fresh['better'] else 'not '}significantly better: {measured}."


def _objections(figures: dict[str, Any]) -> list[str]:
    sentences = [
        f"It loses {-100 * one['difference']:.2f} points on {words(one['slice'])}, more than the margin of "
        f"{100 * one['margin']:.2f} and significant after Bonferroni's correction (McNemar p = {one['mcnemar_p']:.2g})."
        for one in figures["slices"]
        if one["regressed"]
    ]
    fresh = figures["fresh"]
    if fresh and fresh["counts"] and fresh["regressed"]:
        sentences.append(
            f"It loses {-100 * fresh['difference']:.2f} points on {fresh['reviews']:,} fresh reviews, more than the "
            f"margin, and significantly (McNemar p = {fresh['mcnemar_p']:.2g})."
        )
    if figures["behaviour"]:
        sentences += behaviour_gate.objections(figures["behaviour"], figures["floor"]["dataset"])
    sentences += [
        f"It loses {-100 * one['difference']:.2f} points on the evaluation set {one['evaluation_set']}, more than its "
        f"guard of {100 * one['margin']:.2f}, and significantly (McNemar p = {one['mcnemar_p']:.2g})."
        for one in figures["evaluation_sets"]
        if one["regressed"]
    ]
    floor = figures["floor"]
    if not floor["holds"]:
        sentences.append(
            f"The challenger's {_standing(figures)} is below the floor of {floor['min_accuracy']:.1%} "
            f"for {floor['dataset']}."
        )
    return sentences


def _freshness(figures: dict[str, Any], params: GateParams, better_elsewhere: bool) -> list[str]:
    """Says what new training rows, or a lead on fresh reviews or in behaviour, and non-inferiority make of a challenger
    that is not better on test."""
    new = figures["new_rows"]
    sentences = []
    if new:
        sentences.append(f"It has trained on {new:,} reviews that the champion has not.")
    elif not better_elsewhere:
        unknown = "Which reviews the champion has trained on is not known"
        known = "It has trained on no review that the champion has not"
        return [f"{unknown if new is None else known}, so being as good is no reason to change."]
    for role, one in figures["against"].items():
        verdict = "is not worse" if one["not_worse"] else "may be worse"
        evidence = "" if role == "champion" else f": {_measure(role, figures, params)}"
        sentences.append(
            f"It {verdict} than {_ROLES[role]} by more than {100 * params.non_inferiority_margin:.2f} points{evidence}."
        )
    return sentences


def _standing(figures: dict[str, Any]) -> str:
    return f"accuracy of {figures['accuracy']['challenger']:.2%} on {figures['reviews']:,} test reviews"


def _measure(role: str, figures: dict[str, Any], params: GateParams) -> str:
    return _measured(figures["against"][role], figures["accuracy"], role, "test", params)


def _measured(one: Comparison, accuracy: Mapping[str, float], role: str, split: str, params: GateParams) -> str:
    low, high = (100 * bound for bound in one["interval"])
    return (
        f"{accuracy['challenger']:.2%} against {accuracy[role]:.2%} on the same {one['reviews']:,} {split} reviews, "
        f"{100 * one['difference']:+.2f} points ({100 * (1 - params.level):g}% interval {low:+.2f} to {high:+.2f}, "
        f"exact McNemar p = {one['mcnemar_p']:.2g})"
    )
