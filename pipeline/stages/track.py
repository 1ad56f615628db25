"""Stage `track`: `python -m pipeline.stages.track <candidate>` logs what was measured of a candidate in the MLflow run
of its training."""

import tempfile
from pathlib import Path

import pandas as pd

from pipeline.evaluation.curves import curves
from pipeline.project.atomic import read_json, read_table, write_json, write_text
from pipeline.project.params import candidate_argument, load_params
from pipeline.project.paths import (
    SPLIT_TABLES,
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
    """Logs metrics, studies, curves and pictures of the candidate that the command line names; notes in which run."""
    params = load_params()
    name = candidate_argument(params)
    run_id, _ = restoration.recorded_run(name)
    runs.log_inputs(run_id, params.dataset, {"test": SPLIT_TABLES})
    runs.log_evaluation(run_id, name)
    with tempfile.TemporaryDirectory() as temporary:
        draw(Path(temporary), name, bins=params.evaluate.calibration_bins)
        runs.log_artifacts(run_id, Path(temporary), "evaluate")
    write_json(tracked_file(name), {"run_id": run_id, "logged": read_json(metrics_file(name))["accuracy"]})


def draw(folder: Path, model: str, *, bins: int) -> None:
    """Draws the pictures of a candidate's training and evaluation as SVG, named as the page's are, and writes its
    curves as CSV beside them."""
    predictions = read_table(predictions_file(model), ("label", "logit"))
    metrics = {model: read_json(metrics_file(model), (*charts.AREAS.values(), "confusion"))}
    tables = curves(predictions["label"].to_numpy(), predictions["logit"].to_numpy(), bins=bins)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
    pictures = {
        "roc": charts.curves({model: tables["roc"]}, "roc", metrics),
        "precision_recall": charts.curves({model: tables["precision_recall"]}, "precision_recall", metrics),
        "calibration": charts.calibration({model: tables["calibration"]}, metrics),
        "confusion": charts.confusion(tables["confusion"]),
    }
    if evaluation_reports(model).exists():  # a network
        study = read_json(evaluation_reports(model) / "padding_study.json")
        history = {model: pd.read_csv(train_reports(model) / "history.csv")}
        pictures |= {
            "learning_accuracy": charts.learning_curves(history, "accuracy"),
            "learning_loss": charts.learning_curves(history, "loss"),
            "padding_sentences": study_charts.padding_sentences(study),
            "padding_flips": study_charts.padding_flips({model: study}),
            "padding_changes": study_charts.padding_changes({model: study}),
        }
    for name, svg in pictures.items():
        write_text(folder / f"{name}.svg", svg)


if __name__ == "__main__":
    run_command(main)
