"""A decision of the gate as lines for a terminal."""

from collections.abc import Mapping
from typing import Any

from pipeline.registry.gate import Decision, needed, words


def report(decision: Decision) -> str:
    """Returns the decision as lines for a terminal: what and why, the models, and the paired comparisons."""
    figures = decision.figures
    lines = [
        f"decision  {decision.decision}",
        f"reason    {decision.reason}",
        f"test set  {figures['reviews']:,} reviews; look {figures['looks']} at held-out reviews",
        "",
        f"{'model':18}  accuracy  ms a review",
    ]
    for role, accuracy in figures["accuracy"].items():
        latency = figures["latency_ms"].get(role)
        lines.append(f"{words(role):18}  {accuracy:8.2%}  {'-' if latency is None else f'{latency:.1f}':>11}")
    compared = {f"against {words(role)}": one for role, one in figures["against"].items()}
    compared |= {words(one["slice"]): one for one in figures["slices"]}
    if fresh := figures.get("fresh"):
        compared |= {"fresh": fresh}
    compared |= {one["evaluation_set"]: one for one in figures.get("evaluation_sets", ())}
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
    if behaviour := figures.get("behaviour"):
        lines += ["", *_behaviour(behaviour)]
    if champion := figures["against"].get("champion"):
        lines += ["", f"needed    {needed(champion, figures)}"]
    return "\n".join(lines)


def _behaviour(behaviour: Mapping[str, Any]) -> list[str]:
    """Returns the failure rates by capability, and the spans that have a ceiling."""
    lines = [f"{'cases failed':18}  challenger  champion   points          interval   margin"]
    rows = {one["capability"]: (one, one["margin"], one["worse"]) for one in behaviour["capabilities"]}
    rows["all capabilities"] = (behaviour["overall"], -behaviour["overall"]["lead"], False)
    for name, (one, margin, worse) in rows.items():
        interval = " to ".join(f"{100 * bound:+.1f}" for bound in one["interval"])
        lines.append(
            f"{name:18}  {one['challenger']:10.1%}  {one['champion']:8.1%}  {100 * one['difference']:+7.1f}  "
            f"{interval:>16}  {100 * margin:+7.1f}{'  worse' if worse else ''}"
        )
    for one in behaviour["spans"]:
        mark = "" if one["holds"] else "  above"
        lines.append(f"span, {one['test']:12}  {one['mean_span']:10.2f}  ceiling {one['ceiling']:.2f}{mark}")
    return lines
