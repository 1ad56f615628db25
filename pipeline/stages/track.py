"""Stage `track`: `python -m pipeline.stages.track <model>` logs what `evaluate` and `test` found in the training's
MLflow run."""

import tempfile
from pathlib import Path

import pandas as pd

from pipeline.evaluation.curves import curves
from pipeline.project.atomic import read_json, read_table, write_json, write_text
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
from pipeline.reporting import charts, study_charts
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
    """Draws the pictures of a model's training and evaluation as SVG, named as the page's are, and writes its curves as
    CSV beside them."""
    predictions = read_table(predictions_file(model), ("label", "logit"))
    metrics = {model: read_json(metrics_file(model), (*charts.AREAS.values(), "confusion"))}
    study = read_json(evaluation_reports(model) / "padding_study.json")
    history = {model: pd.read_csv(train_reports(model) / "history.csv")}
    tables = curves(predictions["label"].to_numpy(), predictions["logit"].to_numpy(), bins=bins)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
    pictures = {
        "roc": charts.curves({model: tables["roc"]}, "roc", metrics),
        "precision_recall": charts.curves({model: tables["precision_recall"]}, "precision_recall", metrics),
        "calibration": charts.calibration({model: tables["calibration"]}, metrics),
        "confusion": charts.confusion(tables["confusion"]),
        "learning_accuracy": charts.learning_curves(history, "accuracy", {model: kept_epoch}),
        "learning_loss": charts.learning_curves(history, "loss", {model: kept_epoch}),
        "padding_sentences": study_charts.padding_sentences(study),
        "padding_flips": study_charts.padding_flips({model: study}),
        "padding_changes": study_charts.padding_changes({model: study}),
    }
    for name, svg in pictures.items():
        write_text(folder / f"{name}.svg", svg)


if __name__ == "__main__":
    run_command(main)
