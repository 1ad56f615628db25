"""Stage `track`: `python -m pipeline.stages.track <model>` logs what `evaluate` found in the training's MLflow run."""

import tempfile
from pathlib import Path

import pandas as pd

from pipeline.evaluation.curves import curves
from pipeline.project.atomic import read_json, read_table, write_json
from pipeline.project.params import load_params, model_argument
from pipeline.project.paths import (
    BATCHES,
    evaluation_reports,
    metrics_file,
    predictions_file,
    tracked_file,
    train_reports,
)
from pipeline.project.run_command import run_command
from pipeline.reporting import plots
from pipeline.tracking import restoration, runs


def main() -> None:
    """Logs metrics, studies, curves and pictures of the model that the command line names, and notes in which run."""
    params = load_params()
    name = model_argument(params)
    run_id, record = restoration.recorded_run(name)
    runs.log_inputs(run_id, params.dataset, {"test": BATCHES / "test"})
    runs.log_evaluation(run_id, name)
    with tempfile.TemporaryDirectory() as temporary:
        draw(Path(temporary), name, kept_epoch=record["metrics"]["best_epoch"], bins=params.evaluate.calibration_bins)
        runs.log_artifacts(run_id, Path(temporary), "evaluate")
    write_json(tracked_file(name), {"run_id": run_id, "logged": read_json(metrics_file(name))["accuracy"]})


def draw(folder: Path, model: str, *, kept_epoch: int, bins: int) -> None:
    """Draws the pictures of a model's training and evaluation as PNG, and writes its curves as CSV beside them."""
    predictions = read_table(predictions_file(model), ("label", "logit"))
    label, logit = predictions["label"].to_numpy(), predictions["logit"].to_numpy()
    metrics = read_json(metrics_file(model), ("roc_auc", "average_precision", "ece"))
    tables = curves(label, logit, bins=bins)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
    plots.roc(folder / "roc.png", tables["roc"], area=metrics["roc_auc"])
    plots.precision_recall(
        folder / "precision_recall.png",
        tables["precision_recall"],
        average_precision=metrics["average_precision"],
        positive_share=float(label.mean()),
    )
    plots.calibration(folder / "calibration.png", tables["calibration"], ece=metrics["ece"])
    plots.confusion(folder / "confusion.png", tables["confusion"])
    plots.padding_study(folder / "padding_study.png", read_json(evaluation_reports(model) / "padding_study.json"))
    history = pd.read_csv(train_reports(model) / "history.csv")
    plots.learning_curves(folder / "learning_curves.png", history, kept_epoch=kept_epoch)


if __name__ == "__main__":
    run_command(main)
