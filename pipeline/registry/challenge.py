"""From trained candidates to versions, and from the best of them, through the gate, to the champion."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import drift
from pipeline.evaluation import comparison
from pipeline.evaluation.metrics import binary_metrics
from pipeline.project.atomic import read_json, read_table, read_text, write_json
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.locks import exclusive
from pipeline.project.params import Params
from pipeline.project.paths import (
    REGISTRY_REPORT,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    SPLITS,
    TOKENS,
    model_card_file,
    predictions_file,
    tracked_file,
)
from pipeline.registry import decisions, evidence, gate, versions
from pipeline.registry.champion import Choice, Registry, opened, rolled_back
from pipeline.registry.decisions import Entry
from pipeline.registry.versions import Candidate
from pipeline.text.encoding import load_tokenizer
from pipeline.tracking import restoration, runs, ui_views

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_LOCK = Path(".dvc/tmp/register.lock")
_TAGS = ("dataset", "seed", "device", "cpu", "python", "version.", "md5.", "git.", "mlflow.source.git.commit")
"""Tags of a run, by their beginnings, that say what a model was made from."""
_SHOWN = ("seq", "when", "decision", "from", "to", "reason")
_SHOWN_DECISIONS = 10
HELD_OUT = ("test", "fresh")
_SAME = 1e-5
"""Probability by which a version may differ from the champion and say the same: more than rounding does."""
_BINS = 15  # of a calibration error that is not asked for


def register_trained(params: Params) -> dict[str, Any]:
    """Registers each model that `dvc repro` trained once, as a raw-text model, lets the best on validation challenge
    the champion, and writes and prints the report.

    The same models, champion, held-out reviews, training rows and params give the same decision: the one that was taken
    already. Inside a DVC experiment nothing is registered, and what `track` wrote is marked: so DVC, which keeps what a
    stage read as it is when the stage ends, finds this one not up to date once the experiment is applied.

    Returns:
        What was decided and why, with figures, versions and the decisions before; JSON-able.

    Raises:
        BusyError: another command registers in this checkout, or others kept deciding.
        DataError: a report of a training is missing, or its predictions are not those of the test split.
        PipelineError: a model cannot be served, or the history of decisions is damaged.
    """
    client = runs.connect()
    ui_views.save(client)
    candidates = [_candidate(client, model) for model in params.models]
    if experiment := os.environ.get("DVC_EXP_NAME"):
        for candidate in candidates:
            file = tracked_file(candidate.model)
            write_json(file, read_json(file) | {"experiment": experiment})
        reason = f"{experiment} is a DVC experiment: tracked, never registered; once applied, `dvc repro` decides on it"
        report: dict[str, Any] = {"decision": "not registered", "reason": reason}
    else:
        report = _register(params, candidates)
    write_json(REGISTRY_REPORT, report)
    if figures := report.get("evidence", {}).get("figures"):
        print(gate.report(gate.Decision(report["decision"], report["reason"], figures)))
    else:
        print(f"registry: {report['decision']}: {report['reason']}")
    return report


def _candidate(client: "MlflowClient", model: str) -> Candidate:
    """Returns what `train` left of a model, of the first measured run that ended in these weights and params."""
    run_id, record = restoration.recorded_run(model)
    weights, params, metrics = record["weights_sha256"], record["params"], record["metrics"]
    digest = versions.params_digest(params)
    same = (
        run.info.run_id for run in runs.trained(client, weights) if versions.params_digest(run.data.params) == digest
    )
    return Candidate(model, next(same, run_id), weights, params, metrics["best_val_accuracy"], metrics["best_val_loss"])


def _register(params: Params, candidates: list[Candidate]) -> dict[str, Any]:
    splits = {split: read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS) for split in SPLITS}
    test = splits["test"]
    rows = evidence.training_rows(splits["train"], splits["validation"])
    token_ids = read_table(TOKENS / "train.parquet", ("token_ids",))["token_ids"]
    # What a later gate or measurement of drift needs, beside the predictions.
    known = {
        evidence.TRAINING_ROWS: rows,
        evidence.TEXT_PROFILE: drift.profile(token_ids, load_tokenizer().vocabulary_size),
    }
    with exclusive(_LOCK, "a registration"), opened(versions.registered_name(params.dataset), create=True) as registry:
        client = registry.client
        predictions = {candidate.model: _predictions(candidate.model, "test", test) for candidate in candidates}
        made = {}
        for candidate in candidates:
            scored, card = predictions[candidate.model], read_text(model_card_file(candidate.model))
            for name, table in known.items():
                evidence.log_table(client, candidate.run_id, name, table)
            version = versions.ensure_version(
                client, registry.name, candidate, card=card, test=test, predictions=scored
            )
            evidence.log_table(client, candidate.run_id, evidence.predictions_name(test, version), scored)
            made[candidate.model] = version
        best = comparison.best_on_validation(
            {candidate.model: (candidate.val_accuracy, candidate.val_loss) for candidate in candidates}
        )
        challenger = str(made[best].version)
        if versions.alias_version(client, registry.name, versions.CHALLENGER) != challenger:
            client.set_registered_model_alias(registry.name, versions.CHALLENGER, challenger)

        def choose() -> Choice | Entry:
            registry.require_alias()
            there = versions.all_versions(client, registry.name)
            of_challenger = {split: _predictions(best, split, splits[split]) for split in HELD_OUT}
            return _Contest(registry, there, params, challenger, of_challenger, splits, rows).decision()

        registry.settle()  # others may have decided while versions were made
        line = registry.decide(choose)
        assert line is not None  # `choose` always returns something
        decisions.export(registry.history)
        found = versions.all_versions(client, registry.name)
        return {
            "registered_model": registry.name,
            "decision": line["decision"],
            "reason": line["reason"],
            "champion": registry.champion,
            "challenger": challenger,
            "versions": {
                candidate.model: {
                    "version": str(made[candidate.model].version),
                    "run_id": str(made[candidate.model].run_id),
                    **candidate.identity(),
                    "val_accuracy": candidate.val_accuracy,
                }
                for candidate in candidates
            },
            "entry": {name: line[name] for name in ("seq", "when", "hash")},
            "evidence": line["evidence"],
            "history": [{name: line[name] for name in _SHOWN} for line in registry.lines[-_SHOWN_DECISIONS:]],
            "champion_made_from": _made_from(client, found.get(str(registry.champion))),
            "challenger_made_from": _made_from(client, found[challenger]),
            "against": _against(client, found.get(str(line["from"])), predictions[best], test),
        }


def _predictions(model: str, split: str, reviews: "pd.DataFrame") -> "pd.DataFrame":
    file = predictions_file(model, split)
    predictions = read_table(file, evidence.PREDICTION_COLUMNS)
    scored, asked = (sorted(zip(table["id"], table["label"], strict=True)) for table in (predictions, reviews))
    if scored != asked:
        raise DataError(f"{file} does not hold the reviews of {SPLIT_TABLES / f'{split}.parquet'}; run `dvc repro`")
    return predictions


def _made_from(client: "MlflowClient", version: "ModelVersion | None") -> dict[str, Any] | None:
    """Returns a version's number, its model's name, the day it was registered, validation and test accuracy, params,
    and the tags that say what it was made from."""
    if version is None:
        return None
    run = runs.find_run(client, str(version.run_id))
    metrics, params, tags = (run.data.metrics, run.data.params, run.data.tags) if run else ({}, {}, {})
    registered = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return {
        "version": str(version.version),
        "model": version.tags.get("model"),
        "registered": registered.date().isoformat(),
        "test_accuracy": metrics.get("test/accuracy"),
        "val_accuracy": metrics.get("best_val_accuracy"),
        "params": dict(params),
        "tags": {name: value for name, value in tags.items() if name.startswith(_TAGS)},
    }


def _against(
    client: "MlflowClient", champion: "ModelVersion | None", predictions: "pd.DataFrame", test: "pd.DataFrame"
) -> dict[str, Any] | None:
    """Returns what the champion before the decision was made from, and the test reviews on which the challenger (first)
    and it (second) disagree, None where it was not measured on them; None where there was none, or it is gone."""
    if champion is None:
        return None
    before = evidence.load_table(client, str(champion.run_id), evidence.predictions_name(test, champion))
    flipped = None
    if before is not None:
        first, second = (test[["id"]].merge(table, on="id", how="left") for table in (predictions, before))
        flipped = comparison.flipped(first, second, test["text"].reset_index(drop=True))
    return {"made_from": _made_from(client, champion), "flipped": flipped}


@dataclass(frozen=True)
class _Contest:
    """One challenger, trained on `rows`, against the champion of an opened registry with these versions, by number;
    `predictions` are the challenger's on the held-out of the `splits`."""

    registry: Registry
    versions: "dict[str, ModelVersion]"
    params: Params
    challenger: str
    predictions: "Mapping[str, pd.DataFrame]"
    splits: "Mapping[str, pd.DataFrame]"
    rows: "pd.DataFrame"

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
            "challenger_served_sha256": versions.served_digest(self.versions[number]),
            "champion": champion,
            "test_sha256": evidence.reviews_digest(self.splits["test"]),
            "fresh_sha256": evidence.reviews_digest(self.splits["fresh"]),
            "train_sha256": evidence.rows_digest(self.rows),
            "rolled_back_in": withdrawn["seq"] if withdrawn else None,
        }
        hidden = {"bar": sorted(bar), "gate": params.gate.model_dump(), "seed": params.seed}
        # An entry with this key is the decision that was taken on the same grounds.
        key = hashlib.sha256(json.dumps(shown | hidden, sort_keys=True).encode()).hexdigest()
        for line in reversed(lines):
            if line["evidence"].get("key") == key:
                return line
        grounds = {"key": key, "challenger": number} | shown
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
        own = self._differs_in_code_alone()  # then what its run found was found by the champion's code, or by its own
        predictions = {"challenger": self._on("test", self.challenger) if own else self.predictions["test"]}
        new_rows: int | None = 0
        fresh = None
        if champion is not None:
            roles["champion"] = self.versions[champion]
            try:
                predictions["champion"] = self._on("test", champion)
                known = evidence.load_table(registry.client, str(roles["champion"].run_id), evidence.TRAINING_ROWS)
                fresh = self._fresh(champion, known)
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
        both = {"challenger": self.predictions["fresh"], "champion": self._on("fresh", champion)}
        return {role: unknown.merge(table, on="id").assign(length=0) for role, table in both.items()}

    def _looks(self) -> int:
        """Counts the looks at held-out reviews so far: the decisions that were measured, and the models of experiments
        that were tested though no decision measured them."""
        measured = [line["evidence"] for line in self.registry.lines if "figures" in line["evidence"]]
        decided = {one.get("challenger_weights_sha256") for one in measured} | {
            self.versions[self.challenger].tags[versions.WEIGHTS]
        }
        return len(measured) + len(runs.tested_experiments(self.registry.client) - decided)

    def _on(self, split: str, number: str) -> "pd.DataFrame":
        return evidence.predictions_on(self.registry.client, self.versions[number], self.splits[split])
