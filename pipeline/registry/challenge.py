"""From the candidate that was chosen to a version, and through the gate to the champion."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data import drift
from pipeline.evaluation import comparison
from pipeline.project.atomic import read_json, read_table, read_text, write_json
from pipeline.project.errors import DataError
from pipeline.project.locks import exclusive
from pipeline.project.params import Params
from pipeline.project.paths import (
    COMPARISON_REPORT,
    REGISTRY_REPORT,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    SPLITS,
    TEXT_COLUMNS,
    TOKENS,
    UNLABELLED,
    candidate_folder,
    model_card_file,
    predictions_file,
    tracked_file,
)
from pipeline.registry import decisions, evidence, gate, gate_report, versions, yardsticks
from pipeline.registry.champion import Choice, opened
from pipeline.registry.contest import Contest
from pipeline.registry.decisions import Entry
from pipeline.registry.versions import Candidate
from pipeline.text.encoding import load_tokenizer
from pipeline.text.token_arrays import read_tokens
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
_WEEK = timedelta(days=7)
_METRICS = ("test/loss", "test/roc_auc", "test/ece")  # beside the accuracies and the behaviour
_SERVING = ("megabytes", "milliseconds")
"""What a version costs to serve: size of its files, time of a review; tags of it as `serving.<name>`."""


def register_trained(params: Params) -> dict[str, Any]:
    """Registers the candidate that `compare` chose, lets it challenge the champion, and writes and prints the report.

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
    if experiment := os.environ.get("DVC_EXP_NAME"):
        for candidate in params.candidates:
            file = tracked_file(candidate)
            write_json(file, read_json(file) | {"experiment": experiment})
        reason = f"{experiment} is a DVC experiment: tracked, never registered; once applied, `dvc repro` decides on it"
        report: dict[str, Any] = {"decision": "not registered", "reason": reason}
    else:
        choice = read_json(COMPARISON_REPORT, ("choice",))["choice"]
        report = _register(params, _candidate(client, choice["chosen"]), choice)
    write_json(REGISTRY_REPORT, report)
    if figures := report.get("evidence", {}).get("figures"):
        print(gate_report.report(gate.Decision(report["decision"], report["reason"], figures)))
    else:
        print(f"registry: {report['decision']}: {report['reason']}")
    return report


def _candidate(client: "MlflowClient", model: str) -> Candidate:
    """Returns what `train` left of a model, of the first measured run that ended in these weights and params."""
    run_id, record = restoration.recorded_run(model)
    weights, params = record["weights_sha256"], record["params"]
    digest = versions.params_digest(params)
    same = (
        run.info.run_id for run in runs.trained(client, weights) if versions.params_digest(run.data.params) == digest
    )
    folder = candidate_folder(model)
    files = {file.name: file.read_bytes() for file in sorted(folder.glob("*")) if file.is_file()}
    return Candidate(model, next(same, run_id), weights, params, files)


def _register(params: Params, candidate: Candidate, choice: dict[str, Any]) -> dict[str, Any]:
    splits = {split: read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS) for split in SPLITS}
    test, measured_on = splits["test"], yardsticks.read(params, splits["validation"]["text"].tolist())
    learnt = UNLABELLED in candidate.params.get("texts", ())
    unlabelled = read_table(SPLIT_TABLES / f"{UNLABELLED}.parquet", TEXT_COLUMNS) if learnt else None
    rows = evidence.training_rows(splits["train"], splits["validation"], unlabelled)
    token_ids = read_tokens(TOKENS / "train")
    # What a later gate or measurement of drift needs, beside the predictions.
    known = {
        evidence.TRAINING_ROWS: rows,
        evidence.TEXT_PROFILE: drift.profile(token_ids, load_tokenizer().vocabulary_size),
    }
    with exclusive(_LOCK, "a registration"), opened(versions.registered_name(params.dataset), create=True) as registry:
        client = registry.client
        predictions, card = _predictions(candidate.model, "test", test), read_text(model_card_file(candidate.model))
        for name, table in known.items():
            evidence.log_table(client, candidate.run_id, name, table)
        made = versions.ensure_version(
            client,
            registry.name,
            candidate,
            card=card,
            test=test,
            predictions=predictions,
            others=measured_on.tables,
        )
        challenger = str(made.version)
        client.set_tag(str(made.run_id), "chosen", choice["reason"])
        client.set_tag(str(made.run_id), runs.REGISTERED, f"{registry.name}/{challenger}")
        for name, value in zip(_SERVING, _cost(candidate, choice), strict=True):
            client.set_model_version_tag(registry.name, challenger, f"serving.{name}", f"{value:.3f}")
        if versions.alias_version(client, registry.name, versions.CHALLENGER) != challenger:
            client.set_registered_model_alias(registry.name, versions.CHALLENGER, challenger)

        def choose() -> Choice | Entry:
            registry.require_alias()
            there = versions.all_versions(client, registry.name)
            return Contest(registry, there, params, challenger, choice, splits, rows, measured_on).decision()

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
            "version": {
                "model": candidate.model,
                "version": challenger,
                "run_id": str(made.run_id),
                **candidate.identity(),
            },
            "choice": choice,
            "entry": {name: line[name] for name in ("seq", "when", "hash")},
            "evidence": line["evidence"],
            "history": [{name: line[name] for name in _SHOWN} for line in registry.lines[-_SHOWN_DECISIONS:]],
            "champion_by": _champion_by(registry.lines, registry.champion),
            "champion_made_from": _made_from(client, found.get(str(registry.champion))),
            "challenger_made_from": _made_from(client, found[challenger]),
            "against": _against(client, found.get(str(line["from"])), predictions, test),
            "week_ago": _week_ago(client, registry.lines, found),
        }


def _cost(candidate: Candidate, choice: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the megabytes of a candidate's files, and the milliseconds of a review as it was chosen by them."""
    standing = next(one for one in choice["standings"] if one["name"] == candidate.model)
    return sum(len(content) for content in candidate.files.values()) / 1e6, standing["milliseconds"]


def _champion_by(lines: Sequence[Entry], champion: str | None) -> dict[str, Any] | None:
    """Returns the decision that made `champion` what it is, with why it was chosen (None where no candidate was: a
    person decided)."""
    line = decisions.made_champion(lines, champion)
    if line is None:
        return None
    return {name: line[name] for name in _SHOWN} | {"choice": line["evidence"].get("choice")}


def _week_ago(client: "MlflowClient", lines: Sequence[Entry], found: "Mapping[str, ModelVersion]") -> dict[str, Any]:
    """Returns the day a week ago, and what the champion of then was made from, None where there was none."""
    then = datetime.now(UTC) - _WEEK
    champion = [line["to"] for line in lines if datetime.fromisoformat(line["when"]) <= then][-1:]
    made_from = _made_from(client, found.get(str(champion[0]))) if champion else None
    return {"when": then.date().isoformat(), "made_from": made_from}


def _predictions(model: str, split: str, reviews: "pd.DataFrame") -> "pd.DataFrame":
    file = predictions_file(model, split)
    predictions = read_table(file, evidence.PREDICTION_COLUMNS)
    scored, asked = (sorted(zip(table["id"], table["label"], strict=True)) for table in (predictions, reviews))
    if scored != asked:
        raise DataError(f"{file} does not hold the reviews of {SPLIT_TABLES / f'{split}.parquet'}; run `dvc repro`")
    return predictions


def _made_from(client: "MlflowClient", version: "ModelVersion | None") -> dict[str, Any] | None:
    """Returns a version's number, its model's name, the day it was registered, validation and test accuracy, other
    metrics, those of behaviour among them, params, the tags that say what it was made from, how many reviews it learnt
    from by split, and what it costs to serve; the last two are None where they were not recorded."""
    if version is None:
        return None
    run = runs.find_run(client, str(version.run_id))
    rows = evidence.load_table(client, str(version.run_id), evidence.TRAINING_ROWS)
    serving = {name: version.tags.get(f"serving.{name}") for name in _SERVING}
    metrics, params, tags = (run.data.metrics, run.data.params, run.data.tags) if run else ({}, {}, {})
    registered = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return {
        "version": str(version.version),
        "model": version.tags.get("model"),
        "registered": registered.date().isoformat(),
        "test_accuracy": metrics.get("test/accuracy"),
        "val_accuracy": metrics.get("val_accuracy"),
        "metrics": {
            name: value
            for name, value in metrics.items()
            if name in _METRICS or (name.startswith("behaviour/") and name.endswith("/failure_rate"))
        },
        "rows": None if rows is None else {str(split): len(of) for split, of in rows.groupby("split")},
        "serving": None if None in serving.values() else {name: float(str(value)) for name, value in serving.items()},
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
    before = evidence.load_table(client, str(champion.run_id), evidence.predictions_name(test, champion.tags))
    flipped = None
    if before is not None:
        first, second = (test[["id"]].merge(table, on="id", how="left") for table in (predictions, before))
        flipped = comparison.flipped(first, second, test["text"].reset_index(drop=True))
    return {"made_from": _made_from(client, champion), "flipped": flipped}
