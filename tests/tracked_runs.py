"""Trainings as the stages track them, with the committed learning curves and evaluations instead of hours at work."""

import json
import shutil
from typing import Any

import pandas as pd
from conftest import ROOT

from pipeline.project import paths
from pipeline.tracking import runs

HISTORY = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "seconds")


def history(model: str) -> pd.DataFrame:
    """The committed learning curve of `model`."""
    return pd.read_csv(ROOT / paths.train_reports(model) / "history.csv")[list(HISTORY)]


def evaluation(model: str) -> dict[str, Any]:
    """The committed metrics of `model` on test."""
    return json.loads((ROOT / paths.evaluation_reports(model) / "metrics.json").read_text())


def track_training(model: str, *, seed: int = 42, **tags: str) -> dict[str, Any]:
    """Tracks a training of `model` in the working folder; returns its `run.json`, which it writes."""
    committed = json.loads((ROOT / paths.train_reports(model) / "run.json").read_text())
    params = committed["params"] | {"seed": seed}
    identity = {"model": model, "dataset": "sample", "device": "CPU", **tags}
    curve = history(model)
    best = curve.loc[curve["val_accuracy"].idxmax()]
    with runs.training_run(model, None, identity, params) as run_id:
        runs.log_inputs(run_id, identity["dataset"], runs.INPUTS)
        for epoch in curve.to_dict("records"):
            runs.log_epoch(run_id, epoch)
        metrics = {
            "epochs": len(curve),
            "best_epoch": int(best["epoch"]),
            "best_val_accuracy": float(best["val_accuracy"]),
            "best_val_loss": float(best["val_loss"]),
            "training_seconds": float(curve["seconds"].sum()),
            "seconds_per_epoch": float(curve["seconds"].median()),
        }
        runs.log_metrics(run_id, metrics)
        record = {
            **runs.run_record(run_id),
            "model": model,
            "weights_sha256": committed["weights_sha256"],
            "metrics": metrics,
            "params": params,
            "tags": identity,
        }
        folder = paths.train_reports(model)
        folder.mkdir(parents=True, exist_ok=True)
        curve.to_csv(folder / "history.csv", index=False)
        (folder / "run.json").write_text(json.dumps(record))
        runs.log_artifacts(run_id, folder, "train")
    return record


def track_evaluation(record: dict[str, Any], *, accuracy: float | None = None) -> None:
    """Tracks the committed evaluation, with an `accuracy` of its own if given, as that of a tracked training."""
    folder = paths.evaluation_reports(record["model"])
    shutil.copytree(ROOT / folder, folder, dirs_exist_ok=True)
    if accuracy is not None:
        (folder / "metrics.json").write_text(json.dumps(evaluation(record["model"]) | {"accuracy": accuracy}))
    runs.log_evaluation(record["run_id"], record)
