"""One challenger against the champion: what the decision about it rests on, and the decision.

A challenger that differs from the champion in its code or settings alone takes over where it says the same; any other
is measured by the gate, on the test reviews, on the fresh ones, and on what `yardsticks` holds.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation import comparison
from pipeline.evaluation.metrics import binary_metrics
from pipeline.project.errors import PipelineError
from pipeline.project.params import Params
from pipeline.registry import decisions, evidence, gate, versions
from pipeline.registry.champion import Choice, Registry, rolled_back
from pipeline.registry.decisions import Entry
from pipeline.registry.yardsticks import Yardsticks
from pipeline.tracking import runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

_SAME = 1e-5
"""Probability by which a version may differ from the champion and say the same: more than rounding does."""
_BINS = 15  # of a calibration error that is not asked for


@dataclass(frozen=True)
class Contest:
    """One challenger, trained on `rows` and chosen as `choice.choose` says, against the champion of an opened registry
    with these versions, by number, on the held-out of the `splits` and the `yardsticks`; both are measured as they are
    served."""

    registry: Registry
    versions: "dict[str, ModelVersion]"
    params: Params
    challenger: str
    choice: Mapping[str, Any]
    splits: "Mapping[str, pd.DataFrame]"
    rows: "pd.DataFrame"
    yardsticks: Yardsticks

    def decision(self) -> Choice | Entry:
        """Returns the decision of this contest: the one that was taken already, or the one that is to be taken."""
        lines, champion, number, params = self.registry.lines, self.registry.champion, self.challenger, self.params
        changes = [line for line in lines if line["decision"] != "kept"]
        if number == champion:
            reason = "It was champion before decisions were kept, and is the best candidate on validation."
            return next((line for line in reversed(changes) if line["to"] == number), Choice("first", number, reason))
        promoted = {line["to"] for line in changes} & self.versions.keys()
        bar = {earlier for earlier in promoted if not rolled_back(lines, [earlier])}
        weights = self.versions[number].tags[versions.WEIGHTS]
        same = [other for other, found in self.versions.items() if found.tags.get(versions.WEIGHTS) == weights]
        withdrawn = rolled_back(lines, same)
        shown = {
            "challenger_weights_sha256": weights,
            "challenger_served_sha256": self.versions[number].tags[versions.SERVED],
            "champion": champion,
            "test_sha256": evidence.reviews_digest(self.splits["test"]),
            "fresh_sha256": evidence.reviews_digest(self.splits["fresh"]),
            "train_sha256": evidence.rows_digest(self.rows),
            "rolled_back_in": withdrawn["seq"] if withdrawn else None,
            **self.yardsticks.identity(),
        }
        hidden = {"bar": sorted(bar), "gate": params.gate.model_dump(), "seed": params.seed}
        # An entry with this key is the decision that was taken on the same grounds.
        key = hashlib.sha256(json.dumps(shown | hidden, sort_keys=True).encode()).hexdigest()
        for line in reversed(lines):
            if line["evidence"].get("key") == key:
                return line
        grounds = {"key": key, "challenger": number, "choice": self.choice["reason"]} | shown
        if withdrawn:
            reason = (
                f"A model of these weights was rolled back on {withdrawn['when'][:10]} ({withdrawn['reason']}); "
                "`sentiment registry promote` alone brings it back."
            )
            return Choice("kept", champion, reason, grounds)
        if why := self._why_updated():
            versions.require_servable(self.versions[number])
            return Choice(decisions.UPDATED, number, why, grounds)
        decided = self._gate(grounds, bar)
        if decided.promote:
            versions.require_servable(self.versions[number])
        to = number if decided.promote else champion
        return Choice(decided.decision, to, decided.reason, grounds | {"figures": decided.figures})

    def _why_updated(self) -> str | None:
        """Returns why a challenger that differs from the champion in its code or settings alone takes over without
        another look at the test labels, None where it does not: it says the same of the test reviews, or gives them the
        same labels, and on validation probabilities of less log loss (it is calibrated better)."""
        if not self._differs_in_code_alone():
            return None
        test, validation = self.splits["test"], self.splits["validation"]
        uris = [f"models:/{self.registry.name}/{number}" for number in (self.challenger, self.registry.champion)]
        new, old = (evidence.score(uri, test)[0] for uri in uris)
        differences = np.abs(new["probability"] - old["probability"])
        relabelled = new["label"] != old["label"]
        changed = f"It has the weights of version {self.registry.champion} and other code or settings"
        # With the same probability another label is another threshold's.
        if differences.max() < _SAME and not (relabelled & (differences == 0)).any():
            return f"{changed}; on the test reviews the largest difference of a probability is {differences.max():.1g}."
        if relabelled.any():
            return None
        label = validation["label"].to_numpy()
        first, second = (
            binary_metrics(label, evidence.score(uri, validation)[0]["logit"].to_numpy(), bins=_BINS)["loss"]
            for uri in uris
        )
        if not first < second:
            return None
        return (
            f"{changed}; all labels of the test reviews are the same, and on validation its log loss is {first:.4f} "
            f"against {second:.4f}."
        )

    def _differs_in_code_alone(self) -> bool:
        if self.registry.champion is None:
            return False
        challenger, champion = (self.versions[number].tags for number in (self.challenger, self.registry.champion))
        same = (versions.WEIGHTS, versions.TOKENIZER, versions.PARAMS)
        return all(challenger.get(tag) == champion.get(tag) is not None for tag in same)

    def _gate(self, grounds: dict[str, Any], bar: set[str]) -> gate.Decision:
        """Asks the gate, and adds to `grounds` which version promoted and not rolled back is the most accurate on this
        test set, and which of them could not be measured."""
        registry, champion, best = self.registry, self.registry.champion, self.registry.champion
        roles = {"challenger": self.versions[self.challenger]}
        predictions = {"challenger": self._on("test", self.challenger)}
        new_rows: int | None = 0
        fresh = behaviour = None
        guarded: dict[str, gate.Guarded] = {}
        if champion is not None:
            roles["champion"] = self.versions[champion]
            try:
                predictions["champion"] = self._on("test", champion)
                known = evidence.load_table(registry.client, str(roles["champion"].run_id), evidence.TRAINING_ROWS)
                fresh = self._fresh(champion, known)
                both = {"challenger": self.challenger, "champion": champion}
                behaviour = {role: self._behaviour(number) for role, number in both.items()}
                for name, (table, margin) in self.yardsticks.guarded.items():
                    scored = {role: self._predictions(table, number) for role, number in both.items()}
                    guarded[name] = gate.Guarded(scored, margin)
            except PipelineError as error:
                raise PipelineError(
                    f"the champion, version {champion}, cannot be measured ({error}); put its files back from a backup "
                    "of mlartifacts/, or `sentiment registry promote` another version"
                ) from error
            new_rows = evidence.new_rows(self.rows, known)
            most_right = comparison.right(predictions["champion"]).sum()
            for number in sorted(bar - {champion}, key=int):
                try:
                    table = self._on("test", number)
                except PipelineError as error:
                    grounds.setdefault("not_measured", {})[number] = str(error)
                    continue
                if (right := comparison.right(table).sum()) > most_right:
                    best, most_right = number, right
                    roles["best_ever"], predictions["best_ever"] = self.versions[number], table
            grounds["best_ever"] = best
        latency = {role: found.tags.get(versions.LATENCY) for role, found in roles.items()}
        # One yardstick for all, whatever their tokenizers: words.
        words = self.splits["test"][["id"]].assign(length=self.splits["test"]["text"].str.count(r"\S+"))
        return gate.decide(
            {role: table.merge(words, on="id", how="left") for role, table in predictions.items()},
            dataset=self.params.dataset,
            params=self.params.gate,
            new_rows=new_rows,
            seed=self.params.seed,
            latency_ms={role: float(value) for role, value in latency.items() if value is not None},
            looks=1 + self._looks(),
            fresh=fresh,
            behaviour=behaviour,
            guarded=guarded,
        )

    def _fresh(self, champion: str, known: "pd.DataFrame | None") -> "dict[str, pd.DataFrame] | None":
        """Returns both models' predictions on the fresh reviews that neither has trained on; None where there are none,
        or it is not known what the champion has trained on."""
        reviews = self.splits["fresh"]
        if known is None or reviews.empty:
            return None
        unknown = reviews.loc[evidence.unknown(reviews, [known, self.rows]), ["id"]]
        if unknown.empty:
            return None
        both = {"challenger": self._on("fresh", self.challenger), "champion": self._on("fresh", champion)}
        return {role: unknown.merge(table, on="id") for role, table in both.items()}

    def _looks(self) -> int:
        """Counts the looks at held-out reviews so far: the decisions that were measured, and the models of experiments
        that were tested though no decision measured them."""
        measured = [line["evidence"] for line in self.registry.lines if "figures" in line["evidence"]]
        decided = {one.get("challenger_weights_sha256") for one in measured} | {
            self.versions[self.challenger].tags[versions.WEIGHTS]
        }
        return len(measured) + len(runs.tested_experiments(self.registry.client) - decided)

    def _on(self, split: str, number: str) -> "pd.DataFrame":
        return self._predictions(self.splits[split], number)

    def _behaviour(self, number: str) -> dict[str, Any]:
        return self.yardsticks.behaviour_of(self._predictions(self.yardsticks.texts, number))

    def _predictions(self, reviews: "pd.DataFrame", number: str) -> "pd.DataFrame":
        return evidence.predictions_on(self.registry.client, self.versions[number], reviews)
