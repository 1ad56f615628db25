"""What was promoted and rolled back, where a version comes from, and how a challenger differs from the champion."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.evaluation import comparison
from pipeline.registry import decisions, evidence
from pipeline.registry.decisions import Entry
from pipeline.tracking import runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

HISTORY = 10
"""Decisions that are shown, the last ones."""
_SHOWN = ("seq", "when", "decision", "from", "to", "reason")
_TAGS = ("dataset", "seed", "device", "python", "version.", "md5.", "git.", "mlflow.source.git.commit")
"""Tags of a run, by their beginnings, that say what a model was made from."""


def promoted(lines: list[Entry]) -> list[str]:
    """Returns the versions that were promoted one after the other and not rolled back, the present champion last."""
    stack: list[str] = []
    for line in lines:
        to = line["to"]
        if line["decision"] == decisions.ROLLED_BACK:
            while stack and stack[-1] != to:
                stack.pop()
        elif to is not None and (not stack or stack[-1] != to):
            stack.append(to)
    return stack


def rolled_back(lines: list[Entry], version_weights: Mapping[str, str], weights: str) -> Entry | None:
    """Returns the rollback that took these weights out of service, None where nobody did or they came back by hand.

    Args:
        version_weights: version → hash of its weights.
        weights: the hash of the weights asked about.
    """
    found = None
    for line in lines:
        if line["decision"] == decisions.ROLLED_BACK and version_weights.get(line["from"]) == weights:
            found = line
        elif line["from"] != line["to"] and version_weights.get(line["to"]) == weights:
            found = None
    return found


def trace(
    client: "MlflowClient",
    versions: "Mapping[str, ModelVersion]",
    lines: Sequence[Entry],
    decided: Entry,
    challenger: str,
    predictions: "pd.DataFrame",
    test: "pd.DataFrame",
) -> dict[str, Any]:
    """Tells what led to the present champion.

    Args:
        versions: by number.
        lines: all decisions, the oldest first.
        decided: the decision on the challenger.
        challenger: its version.
        predictions: the challenger's on `test`, which has id, text and label.

    Returns:
        `history`, the last HISTORY decisions; `champion_made_from` and `challenger_made_from`; and `against`, the
        version that was champion before the decision: what it was made from and, as `flipped`, the test reviews on
        which it (second) and the challenger (first) disagree. None stands for a version that is not there (any more).
    """
    return {
        "history": [{name: line[name] for name in _SHOWN} for line in lines[-HISTORY:]],
        "champion_made_from": made_from(client, versions.get(str(lines[-1]["to"]))),
        "challenger_made_from": made_from(client, versions[challenger]),
        "against": _against(client, versions.get(str(decided["from"])), predictions, test),
    }


def made_from(client: "MlflowClient", version: "ModelVersion | None") -> dict[str, Any] | None:
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
    if champion is None:
        return None
    kept = evidence.kept(client, str(champion.run_id), evidence.predictions_name(evidence.reviews_digest(test)))
    flipped = None
    if kept is not None:
        challenger, before = (test[["id"]].merge(table, on="id", how="left") for table in (predictions, kept))
        flipped = comparison.flipped(challenger, before, test["text"].reset_index(drop=True))
    return {"made_from": made_from(client, champion), "flipped": flipped}
