"""Trainings as the stages track them, with the committed learning curves and evaluations instead of hours at work."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import reported_project
from conftest import ROOT

from pipeline.project import atomic, paths
from pipeline.project.training_record import read_record, write_run
from pipeline.stages import track
from pipeline.tracking import runs


def committed(file: Path) -> dict[str, Any]:
    return json.loads((ROOT / file).read_text())


def history(model: str) -> pd.DataFrame:
    """The committed learning curve of `model`, with the seconds that its run took for each epoch."""
    curve = pd.read_csv(ROOT / paths.train_reports(model) / "history.csv")
    return curve.assign(seconds=committed(paths.run_file(model))["epoch_seconds"])


def evaluation(model: str) -> dict[str, Any]:
    """The committed metrics of `model` on test."""
    return committed(paths.metrics_file(model))


def track_training(model: str, *, seed: int = 42, accuracy: float | None = None, **tags: str) -> dict[str, Any]:
    """Tracks a training of `model` in the working folder, with an `accuracy` on validation of its own if given; returns
    its record, whose two files it writes."""
    learnt = committed(paths.train_reports(model) / "training.json")
    params = learnt["params"] | {"seed": seed}
    identity = {"model": model, "dataset": "sample", "device": "CPU", **tags}
    curve = history(model)
    last = curve.iloc[-1]
    with runs.training_run(model, None, identity, params) as run_id:
        runs.log_inputs(run_id, identity["dataset"], runs.inputs(params["learns_from"]))
        for epoch in curve.to_dict("records"):
            runs.log_epoch(run_id, epoch)
        metrics = {
            "epochs": len(curve),
            "val_accuracy": float(last["val_accuracy"]) if accuracy is None else accuracy,
            "val_loss": float(last["val_loss"]),
        }
        times = {
            "training_seconds": float(curve["seconds"].sum()),
            "seconds_per_epoch": float(curve["seconds"].median()),
        }
        runs.log_metrics(run_id, metrics | times)
        runs.log_weights(run_id, learnt["weights_sha256"])
        folder = paths.train_reports(model)
        training = {"model": model, "weights_sha256": learnt["weights_sha256"], "metrics": metrics, "params": params}
        atomic.write_json(folder / "training.json", training)
        curve.drop(columns="seconds").to_csv(folder / "history.csv", index=False)
        seconds = curve["seconds"].tolist()
        write_run(model, runs.run_record(run_id), times=times, epoch_seconds=seconds, tags=identity)
        runs.log_artifacts(run_id, folder, "train")
    return read_record(model)


def track_evaluation(record: dict[str, Any], *, accuracy: float | None = None) -> None:
    """Tracks the committed evaluation, with an `accuracy` of its own if given, as that of a tracked training."""
    model = record["model"]
    shutil.copytree(ROOT / paths.evaluation_reports(model), paths.evaluation_reports(model), dirs_exist_ok=True)
    report = evaluation(model)
    atomic.write_json(paths.metrics_file(model), report if accuracy is None else report | {"accuracy": accuracy})
    for file in (paths.evaluated_file(model), paths.behaviour_file(model)):
        atomic.write_json(file, committed(file))
    runs.log_evaluation(record["run_id"], model)


def track_pictures(record: dict[str, Any]) -> None:
    """Tracks the pictures of a tracked evaluation, drawn as stage `track` does; its predictions are made up."""
    model = record["model"]
    atomic.write_table(paths.predictions_file(model), reported_project.predictions(1.0))
    with tempfile.TemporaryDirectory() as folder:
        track.draw(Path(folder), model, bins=15)
        runs.log_artifacts(record["run_id"], Path(folder), "evaluate")
