"""What was promoted and rolled back, where a version comes from, and how a challenger differs from the champion."""

from collections.abc import Mapping
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
    """Returns the rollback that took `weights` (their hash) out of service, None where none did or they were promoted
    after it; `version_weights` has the hash of each version's weights."""
    found = None
    for line in lines:
        if line["decision"] == decisions.ROLLED_BACK and version_weights.get(line["from"]) == weights:
            found = line
        elif line["from"] != line["to"] and version_weights.get(line["to"]) == weights:
            found = None
    return found


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


def against(
    client: "MlflowClient", champion: "ModelVersion | None", predictions: "pd.DataFrame", test: "pd.DataFrame"
) -> dict[str, Any] | None:
    """Compares a challenger with the version that was champion before the decision on it.

    Args:
        champion: that version; None where there was none, or it is gone.
        predictions: the challenger's on `test`, which has id, text and label.

    Returns:
        `made_from`, of the champion, and `flipped`, the test reviews on which challenger (first) and champion (second)
        disagree, None where the champion was not measured on them; or None where there is no champion.
    """
    if champion is None:
        return None
    before = evidence.load_table(client, str(champion.run_id), evidence.predictions_name(test))
    flipped = None
    if before is not None:
        first, second = (test[["id"]].merge(table, on="id", how="left") for table in (predictions, before))
        flipped = comparison.flipped(first, second, test["text"].reset_index(drop=True))
    return {"made_from": made_from(client, champion), "flipped": flipped}
