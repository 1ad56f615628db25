"""Which candidate challenges the champion: the cheapest to serve within the noise of the best on validation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Contender:
    """A candidate on validation: `loss` <float64>[rows], the log loss of each review in nats, calibrated; what a review
    takes to serve, in `milliseconds`; and `objection`, why its behaviour alone would keep the gate closed, if it does.
    """

    loss: NDArray[np.float64]
    milliseconds: float
    objection: str | None = None


@dataclass(frozen=True)
class Standing:
    """A contender beside the one of least loss: mean `loss`, `behind` by how much on average it is, and the
    `standard_error` of that over the same reviews."""

    name: str
    loss: float
    behind: float
    standard_error: float
    milliseconds: float
    objection: str | None

    @property
    def eligible(self) -> bool:
        """Whether it is within one standard error of the best, and there is no objection."""
        return self.objection is None and self.behind <= self.standard_error


def choose(contenders: Mapping[str, Contender]) -> dict[str, Any]:
    """Chooses the challenger: of those within one paired standard error of the least log loss (Breiman et al. 1984,
    the one-standard-error rule), the cheapest to serve; whose behaviour is objected to only where it is so for all.

    Accuracy would not do: on a few thousand reviews it cannot tell apart what log loss can.

    Args:
        contenders: by name, measured on the same reviews in the same order.

    Returns:
        JSON-able: `chosen`, `best` (the one of least log loss), the `reason`, and `standings`.
    """
    allowed = {name: one for name, one in contenders.items() if one.objection is None} or contenders
    best = min(allowed, key=lambda name: float(allowed[name].loss.mean()))
    standings = []
    for name, one in contenders.items():
        behind = one.loss - contenders[best].loss
        error = float(behind.std(ddof=1)) / sqrt(len(behind))
        mean = float(behind.mean())
        standings.append(Standing(name, float(one.loss.mean()), mean, error, one.milliseconds, one.objection))
    eligible = [one for one in standings if one.eligible] or [one for one in standings if one.name == best]
    chosen = min(eligible, key=lambda one: (one.milliseconds, one.loss))
    return {
        "chosen": chosen.name,
        "best": best,
        "reason": _reason(chosen, best, standings, eligible),
        "standings": [asdict(one) | {"eligible": one.eligible} for one in standings],
    }


def _reason(chosen: Standing, best: str, standings: list[Standing], eligible: list[Standing]) -> str:
    least = next(one for one in standings if one.name == best)
    if chosen.name == best:
        reason = f"{best} has the least log loss on validation, {least.loss:.4f}"
        cheaper = len(eligible) > 1
        reason += ", and is the cheapest to serve within a standard error of it" if cheaper else ""
    else:
        reason = (
            f"{chosen.name}, of log loss {chosen.loss:.4f} on validation, is within a standard error "
            f"({chosen.standard_error:.4f}) of {best}'s {least.loss:.4f}, and cheaper to serve: "
            f"{chosen.milliseconds:.2f} ms a review against {least.milliseconds:.2f}"
        )
    barred = [one.name for one in standings if one.objection]
    if barred:
        reason += f"; the behaviour of {', '.join(barred)} is objected to"
    return f"{reason}."
