"""The gate: whether a challenger takes the champion's place, from what both predict on the same test reviews.

It is pure: tables of predictions in, a decision with its reason and every figure it rests on out. The same
predictions, params and seed give the same decision, in whatever order the rows stand.

The rule. A challenger is promoted when it has a reason to be, and nothing speaks against it.

A reason is one of:
- it is *significantly better* than the champion at α = `level`: right on more reviews, and the exact McNemar test
  (McNemar 1947, two-sided) has p < α; or, with `test: bootstrap`, the whole paired bootstrap interval (Efron 1979) lies
  above 0;
- it has trained on reviews that the champion has not, and is *not worse* than the champion, nor than the best version
  ever promoted, which stops a drift of small steps: the lower end of each paired interval of 1 - α is no lower than
  -`non_inferiority_margin`. Both must hold, so neither comparison needs a correction (Berger 1982).

Two things speak against it:
- a slice (length quartile, label) *regresses beyond its margin*: what it loses exceeds the margin, and is significant
  at α after Bonferroni's correction (exact McNemar, p < α / number of slices). Of challengers that are as good as the
  champion everywhere, drawn with a disagreement on 13% of the reviews, this stops 1%; the margin alone would stop 5%, a
  test of each slice at α 10%, and asking each slice to be shown not worse 86%;
- its accuracy is below the *floor* of the data set.

Where there is no champion, the floor alone decides. Latency, and how often the test split has been looked at, are
reported and decide nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.evaluation.significance import paired_accuracy, slice_masks
from pipeline.project.errors import DataError
from pipeline.project.params import GateParams

if TYPE_CHECKING:
    import pandas as pd

Comparison = dict[str, Any]
Models = Mapping[str, "pd.DataFrame"]
"""Predictions by role."""

_ROLES = {"champion": "the champion", "best_ever": "the best version ever promoted"}
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
) -> Decision:
    """Decides whether the challenger becomes champion.

    Args:
        predictions: of the `challenger`, of the `champion` where there is one, and of the version ever promoted that is
            the best on these reviews (`best_ever`) where that is another: tables on the same test reviews, one row a
            review in any order: id, label (0 or 1), logit, length (in tokens).
        dataset: whose floor in `params` holds.
        new_rows: training reviews that the challenger has trained on and the champion has not; None where the
            champion's are not known, and then being as good is not enough.
        seed: of the paired bootstrap.
        latency_ms: of one review, by role as `predictions`; reported.
        looks: how often the test split has been looked at before a decision, this one included; reported.

    Raises:
        DataError: the tables are not finite predictions on the same reviews with the same labels; names what differs.
        UsageError: the params have no floor for `dataset`.
    """
    floor = params.floor(dataset)
    models = {role: _by_id(role, table) for role, table in predictions.items()}
    for role in models:
        _require_same_reviews(models["challenger"], models[role], role)
    accuracy = {role: float(((model["logit"] > 0) == model["label"]).mean()) for role, model in models.items()}
    figures = {
        "reviews": len(models["challenger"]),
        "looks": looks,
        "accuracy": accuracy,
        "against": {role: _compare(models, role, params, seed) for role in _ROLES if role in models},
        "slices": _compare_slices(models, params, seed) if "champion" in models else [],
        "floor": {"dataset": dataset, "min_accuracy": floor, "holds": accuracy["challenger"] >= floor},
        "new_rows": new_rows,
        "latency_ms": {name: float(value) for name, value in latency_ms.items()},
        "params": params.model_dump(),
        "bootstrap": {"samples": params.bootstrap_samples, "seed": seed},
    }
    return _judge(figures, params)


def report(decision: Decision) -> str:
    """Returns the decision as lines for a terminal: what and why, the models, and the paired comparisons."""
    figures = decision.figures
    lines = [
        f"decision  {decision.decision}",
        f"reason    {decision.reason}",
        f"test set  {figures['reviews']:,} reviews, looked at for {figures['looks']} decision(s)",
        "",
        f"{'model':18}  accuracy  ms a review",
    ]
    for role, accuracy in figures["accuracy"].items():
        latency = figures["latency_ms"].get(role)
        lines.append(f"{_words(role):18}  {accuracy:8.2%}  {'-' if latency is None else f'{latency:.1f}':>11}")
    compared = {f"against {_words(role)}": one for role, one in figures["against"].items()}
    compared |= {_words(one["slice"]): one for one in figures["slices"]}
    if compared:
        # The slices' intervals hold all together at the level at which that of the whole test set holds alone.
        lines += ["", f"{'challenger':18}  reviews   points          interval      won : lost      McNemar p"]
    for name, one in compared.items():
        interval = " to ".join(f"{100 * bound:+.2f}" for bound in one["interval"])
        won, lost = one["only_first_right"], one["only_second_right"]
        mark = "  regressed" if one.get("regressed") else ""
        lines.append(
            f"{name:18}  {one['reviews']:7,}  {100 * one['difference']:+7.2f}  {interval:>16}  "
            f"{won:7,} : {lost:<7,} {one['mcnemar_p']:10.2g}{mark}"
        )
    return "\n".join(lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _by_id(role: str, table: "pd.DataFrame") -> "pd.DataFrame":
    name = f"the {_words(role)}'s predictions"
    if missing := [column for column in ("id", "label", "logit", "length") if column not in table]:
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
    alone = {"challenger": here[~here.isin(there)], _words(role): there[~there.isin(here)]}
    differences = [f"{_some(ids)} only in the {name}'s" for name, ids in alone.items() if len(ids)]
    if not differences and (relabelled := challenger["label"] != other["label"]).any():
        differences = [f"another label for {_some(here[relabelled])}"]
    if differences:
        raise DataError(
            f"challenger and {_words(role)} were not scored on the same test set: {' and '.join(differences)}; "
            f"score the {_words(role)} again, on the challenger's test set"
        )


def _some(ids: "pd.Series") -> str:
    named = ", ".join(str(review) for review in ids.iloc[:_NAMED])
    return named if len(ids) <= _NAMED else f"{named} and {len(ids) - _NAMED:,} more"


def _compare(models: Models, role: str, params: GateParams, seed: int) -> Comparison:
    compared = _paired(models, role, slice(None), params.level, params, seed)
    low = compared["interval"][0]
    significant = compared["mcnemar_p"] < params.level if params.test == "mcnemar" else low > 0
    return {
        **compared,
        "better": bool(compared["difference"] > 0 and significant),
        "not_worse": bool(low >= -params.non_inferiority_margin),
    }


def _compare_slices(models: Models, params: GateParams, seed: int) -> list[Comparison]:
    # The champion's lengths make the quartiles: another tokenizer of the challenger does not move the yardstick.
    masks = slice_masks(models["champion"]["label"].to_numpy(), models["champion"]["length"].to_numpy())
    level = params.level / len(masks)
    results = []
    for name, mask in masks.items():
        compared = _paired(models, "champion", mask, level, params, seed)
        margin = params.label_slice_margin if name.startswith("label") else params.length_slice_margin
        regressed = compared["difference"] < -margin and compared["mcnemar_p"] < level
        results.append({"slice": name, **compared, "margin": margin, "regressed": bool(regressed)})
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
    against, objections = figures["against"], _objections(figures)
    if "champion" not in against:
        if objections:
            return Decision("kept", " ".join(["There is no champion, and none is made.", *objections]), figures)
        return Decision("first", f"There was no champion; {_standing(figures)} reaches the floor.", figures)
    better = against["champion"]["better"]
    due = bool(figures["new_rows"]) and all(one["not_worse"] for one in against.values())
    facts = [
        f"The challenger is {'' if better else 'not '}significantly better than the champion at α = {params.level:g}: "
        f"{_measure('champion', figures, params)}."
    ]
    if not better:
        facts += _freshness(figures, params)
    if (better or due) and not objections:
        facts.append("No slice regresses beyond its margin, and the floor holds.")
        return Decision("promoted", " ".join(facts), figures)
    return Decision("kept", " ".join(facts + objections), figures)


def _objections(figures: dict[str, Any]) -> list[str]:
    sentences = [
        f"It loses {-100 * one['difference']:.2f} points on {_words(one['slice'])}, more than the margin of "
        f"{100 * one['margin']:.2f} and significant after Bonferroni's correction (McNemar p = {one['mcnemar_p']:.2g})."
        for one in figures["slices"]
        if one["regressed"]
    ]
    floor = figures["floor"]
    if not floor["holds"]:
        sentences.append(
            f"The challenger's {_standing(figures)} is below the floor of {floor['min_accuracy']:.1%} "
            f"for {floor['dataset']}."
        )
    return sentences


def _freshness(figures: dict[str, Any], params: GateParams) -> list[str]:
    """Says what new training rows and non-inferiority make of a challenger that is not better."""
    if figures["new_rows"] is None:
        return ["Which reviews the champion has trained on is not known, so being as good is no reason to change."]
    if not figures["new_rows"]:
        return ["It has trained on no review that the champion has not, so being as good is no reason to change."]
    sentences = [f"It has trained on {figures['new_rows']:,} reviews that the champion has not."]
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
    one, accuracy = figures["against"][role], figures["accuracy"]
    low, high = (100 * bound for bound in one["interval"])
    return (
        f"{accuracy['challenger']:.2%} against {accuracy[role]:.2%} on the same {one['reviews']:,} test reviews, "
        f"{100 * one['difference']:+.2f} points ({100 * (1 - params.level):g}% interval {low:+.2f} to {high:+.2f}, "
        f"exact McNemar p = {one['mcnemar_p']:.2g})"
    )
