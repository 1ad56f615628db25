"""From trained candidates to versions, and from the best of them, through the gate, to the champion."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data import drift
from pipeline.evaluation import comparison
from pipeline.project.atomic import read_table, read_text, write_json
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.locks import exclusive
from pipeline.project.params import GateParams, Params
from pipeline.project.paths import REGISTRY_REPORT, SPLIT_TABLES, TOKENS, model_card_file, predictions_file
from pipeline.registry import decisions, evidence, gate, lineage
from pipeline.registry.champion import Choice, Registry, decision_key, opened
from pipeline.registry.decisions import Entry
from pipeline.registry.versions import (
    CHALLENGER,
    LATENCY,
    WEIGHTS,
    Candidate,
    alias_version,
    all_versions,
    ensure_version,
    params_digest,
    registered_name,
    require_servable,
)
from pipeline.text.encoding import load_tokenizer
from pipeline.tracking import restoration, runs, ui_views

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


_LOCK = Path(".dvc/tmp/register.lock")
_ON_THE_LINE = ("challenger_weights_sha256", "champion", "test_sha256", "train_sha256", "rolled_back_in")
"""What a decision shows of its key's basis; the gate's figures hold the rest."""


def register_trained(params: Params) -> dict[str, Any]:
    """Registers what `dvc repro` trained, lets it challenge the champion, and writes and prints the report.

    Returns:
        `register`'s report.

    Raises:
        as `register`, and DataError where a report of the training is missing.
    """
    client = runs.connect()
    ui_views.save(client)
    candidates = []
    for name in params.models:
        run_id, record = restoration.recorded_run(name)
        candidates.append(
            Candidate(
                name,
                _first_run(client, record) or run_id,
                record["weights_sha256"],
                record["params"],
                record["metrics"]["best_val_accuracy"],
                record["metrics"]["best_val_loss"],
            )
        )
    cards = {name: read_text(model_card_file(name)) for name in params.models}
    report = register(params.dataset, candidates, cards=cards, params=params.gate, seed=params.seed)
    write_json(REGISTRY_REPORT, report)
    if figures := report.get("evidence", {}).get("figures"):
        print(gate.report(gate.Decision(report["decision"], report["reason"], figures)))
    else:
        print(f"registry: {report['decision']}: {report['reason']}")
    return report


def _first_run(client: "MlflowClient", record: Mapping[str, Any]) -> str | None:
    """Returns the first measured training that ended in the record's weights and is served with its params."""
    wanted = params_digest(record["params"])
    found = runs.trained(client, record["weights_sha256"])
    return next((run.info.run_id for run in found if params_digest(run.data.params) == wanted), None)


def register(
    dataset: str,
    candidates: Sequence[Candidate],
    *,
    cards: Mapping[str, str],
    params: GateParams,
    seed: int,
) -> dict[str, Any]:
    """Registers each candidate once as a raw-text model, and lets the best on validation challenge the champion.

    The same candidates, champion, test set, training rows and params give the same decision: the one that was taken
    already. Inside a DVC experiment nothing is registered.

    Args:
        dataset: names the registered model and the gate's floor.
        candidates: trained models, of which `dvc repro` left model, reports and predictions.
        cards: model card, Markdown, by model: the description of its version.
        params, seed: the gate's, and its bootstrap's.

    Returns:
        What was decided and why, with figures and versions, JSON-able.

    Raises:
        BusyError: another command registers in this checkout, or others kept deciding.
        DataError: a candidate's predictions are not those of the test split.
        PipelineError: a model cannot be served, or the history of decisions is damaged.
    """
    if experiment := os.environ.get("DVC_EXP_NAME"):
        reason = (
            f"{experiment} is a DVC experiment: tracked, never registered; once applied, "
            "`dvc repro --force --single-item register` registers its models"
        )
        return {"decision": "not registered", "reason": reason}
    test = read_table(SPLIT_TABLES / "test.parquet", ("id", "text", "label"))
    rows = evidence.training_rows(
        *(read_table(SPLIT_TABLES / f"{split}.parquet", ("text", "label")) for split in ("train", "validation"))
    )
    token_ids = read_table(TOKENS / "train.parquet", ("token_ids",))["token_ids"]
    known = {
        evidence.TRAINING_ROWS: rows,
        evidence.TEXT_PROFILE: drift.profile(token_ids, load_tokenizer().vocabulary_size),
    }
    with exclusive(_LOCK, "a registration"), opened(registered_name(dataset), create=True) as registry:
        predictions = {candidate.model: _predictions(candidate.model, test) for candidate in candidates}
        made = {
            candidate.model: _registered(
                registry, candidate, cards[candidate.model], test, known, predictions[candidate.model]
            )
            for candidate in candidates
        }
        best = comparison.best_on_validation(
            {candidate.model: (candidate.val_accuracy, candidate.val_loss) for candidate in candidates}
        )
        challenger = made[best]
        if alias_version(registry.client, registry.name, CHALLENGER) != str(challenger.version):
            registry.client.set_registered_model_alias(registry.name, CHALLENGER, str(challenger.version))

        def choose() -> Choice | Entry:
            registry.require_alias()
            return _Contest(registry, challenger, predictions[best], dataset, test, rows, params, seed).decision()

        registry.settle()  # others may have decided while versions were made
        line = registry.decide(choose)
        assert line is not None  # `choose` always returns something
        decisions.export(registry.history)
        versions = {str(version.version): version for version in all_versions(registry.client, registry.name)}
        return {
            "registered_model": registry.name,
            "decision": line["decision"],
            "reason": line["reason"],
            "champion": registry.champion,
            "challenger": str(challenger.version),
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
            **lineage.trace(
                registry.client,
                versions,
                registry.lines,
                line,
                str(challenger.version),
                predictions[best],
                test,
            ),
        }


def _predictions(model: str, test: "pd.DataFrame") -> "pd.DataFrame":
    file = predictions_file(model)
    predictions = read_table(file, evidence.PREDICTION_COLUMNS)
    scored, asked = (sorted(zip(table["id"], table["label"], strict=True)) for table in (predictions, test))
    if scored != asked:
        raise DataError(f"{file} does not hold the reviews of {SPLIT_TABLES / 'test.parquet'}; run `dvc repro`")
    return predictions


def _registered(
    registry: Registry,
    candidate: Candidate,
    card: str,
    test: "pd.DataFrame",
    known: "Mapping[str, pd.DataFrame]",
    predictions: "pd.DataFrame",
) -> "ModelVersion":
    """Returns the candidate's version, with everything in its run that a later gate or look for drift needs."""
    client, run_id = registry.client, candidate.run_id
    for name, table in known.items():
        evidence.keep(client, run_id, name, table)
    evidence.keep(client, run_id, evidence.predictions_name(evidence.reviews_digest(test)), predictions)
    return ensure_version(client, registry.name, candidate, card=card, test=test, predictions=predictions)


@dataclass(frozen=True)
class _Contest:
    """One challenger against the champion of an opened registry, on one test set."""

    registry: Registry
    challenger: "ModelVersion"
    predictions: "pd.DataFrame"
    dataset: str
    test: "pd.DataFrame"
    rows: "pd.DataFrame"
    params: GateParams
    seed: int

    @cached_property
    def versions(self) -> "dict[str, ModelVersion]":
        """All versions, by number."""
        return {str(version.version): version for version in all_versions(self.registry.client, self.registry.name)}

    @cached_property
    def ever_promoted(self) -> set[str]:
        """The versions still there that were champion."""
        promoted = {line["to"] for line in self.registry.lines if line["decision"] != "kept"}
        return promoted & self.versions.keys()

    @cached_property
    def test_sha256(self) -> str:
        """The identity of the test reviews."""
        return evidence.reviews_digest(self.test)

    def decision(self) -> Choice | Entry:
        """Returns the decision of this contest: the one that was taken already, or the one that is to be taken."""
        registry, number = self.registry, str(self.challenger.version)
        if number == registry.champion:
            return self._made_champion() or Choice(
                "first", number, "It was champion before decisions were kept, and is the best candidate on validation."
            )
        weights = {version: str(found.tags.get(WEIGHTS)) for version, found in self.versions.items()}
        withdrawn = lineage.rolled_back(registry.lines, weights, weights[number])
        basis = {
            "challenger_weights_sha256": weights[number],
            "champion": registry.champion,
            "ever_promoted": sorted(self.ever_promoted),
            "test_sha256": self.test_sha256,
            "train_sha256": evidence.rows_digest(self.rows),
            "gate": self.params.model_dump(),
            "seed": self.seed,
            "rolled_back_in": withdrawn["seq"] if withdrawn else None,
        }
        key = decision_key(basis)
        for line in reversed(registry.lines):
            if line["evidence"].get("key") == key:
                return line
        grounds = {"key": key, "challenger": number} | {name: basis[name] for name in _ON_THE_LINE}
        if withdrawn:
            reason = (
                f"A model of these weights was rolled back on {withdrawn['when'][:10]} ({withdrawn['reason']}); "
                "`sentiment registry promote` alone brings it back."
            )
            return Choice("kept", registry.champion, reason, grounds)
        decided = self._gate(grounds)
        if decided.promote:
            require_servable(self.challenger)
        to = number if decided.promote else registry.champion
        return Choice(decided.decision, to, decided.reason, grounds | {"figures": decided.figures})

    def _made_champion(self) -> Entry | None:
        made = (line for line in reversed(self.registry.lines) if line["decision"] != "kept")
        return next((line for line in made if line["to"] == self.registry.champion), None)

    def _gate(self, grounds: dict[str, Any]) -> gate.Decision:
        lengths = self.predictions[["id", "length"]]
        champion = best_ever = None
        new_rows: int | None = 0
        latency = {"challenger": self.challenger}
        if self.registry.champion is not None:
            champion = evidence.predictions_on(*self._model(self.registry.champion), self.test, lengths)
            latency["champion"] = self.versions[self.registry.champion]
            run_id = str(self.versions[self.registry.champion].run_id)
            new_rows = evidence.new_rows(self.rows, evidence.kept(self.registry.client, run_id, evidence.TRAINING_ROWS))
            number, best_ever = self._best_ever(champion, lengths, grounds)
            if number:
                latency["best_ever"] = self.versions[number]
            grounds["best_ever"] = number or self.registry.champion
        return gate.decide(
            self.predictions,
            champion,
            best_ever,
            dataset=self.dataset,
            params=self.params,
            new_rows=new_rows,
            samples=self.params.bootstrap_samples,
            seed=self.seed,
            latency_ms={
                role: float(version.tags[LATENCY]) for role, version in latency.items() if LATENCY in version.tags
            },
            looks=1 + sum(_looked(line, self.test_sha256) for line in self.registry.lines),
        )

    def _best_ever(
        self, champion: "pd.DataFrame", lengths: "pd.DataFrame", grounds: dict[str, Any]
    ) -> tuple[str | None, "pd.DataFrame | None"]:
        """Returns number and predictions of the version ever promoted that is the most accurate on this test set,
        None where that is the champion. One that is gone is not measured, and noted in `grounds`."""
        best: tuple[str | None, pd.DataFrame | None] = (None, None)
        most_right = _right(champion)
        for number in sorted(self.ever_promoted - {self.registry.champion}, key=int):
            try:
                predictions = evidence.predictions_on(*self._model(number), self.test, lengths)
            except PipelineError as error:
                grounds.setdefault("not_measured", {})[number] = str(error)
                continue
            if _right(predictions) > most_right:
                best, most_right = (number, predictions), _right(predictions)
        return best

    def _model(self, number: str) -> "tuple[MlflowClient, str, str]":
        version = self.versions[number]
        return self.registry.client, str(version.run_id), f"models:/{self.registry.name}/{number}"


def _right(predictions: "pd.DataFrame") -> int:
    return int(comparison.right(predictions).sum())


def _looked(line: Entry, test_sha256: str) -> bool:
    return "figures" in line["evidence"] and line["evidence"]["test_sha256"] == test_sha256
