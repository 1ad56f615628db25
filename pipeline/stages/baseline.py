"""Stage `baseline`: a linear n-gram classifier, the honest yardstick beside the recurrent models."""

import time

from pipeline.artifacts import (
    BASELINE_REPORT,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    evaluation_reports,
    predictions_file,
    read_table,
    write_json,
    write_table,
    written_whole,
)
from pipeline.baseline import fit_baseline
from pipeline.errors import run_command
from pipeline.evaluation import binary_metrics, curves, probability, report
from pipeline.params import load_params


def main() -> None:
    params = load_params()
    train, validation, test = (
        read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS) for split in ("train", "validation", "test")
    )
    started = time.perf_counter()
    baseline = fit_baseline(
        train["text"].tolist(),
        train["label"].to_numpy(),
        max_ngram=params.baseline.max_ngram,
        regularization=params.baseline.regularization,
    )
    seconds = time.perf_counter() - started
    validation_logit, logit = (baseline.logits(table["text"].tolist()) for table in (validation, test))

    bins, samples = params.evaluate.calibration_bins, params.evaluate.bootstrap_samples
    validated = binary_metrics(validation["label"].to_numpy(), validation_logit, bins=bins)
    label = test["label"].to_numpy()
    tested = report(label, logit, bins=bins, samples=samples, seed=params.seed)
    fitted = {"features": len(baseline.kept), "seconds": round(seconds, 1)}
    write_table(predictions_file("baseline"), test[["id", "label"]].assign(logit=logit, probability=probability(logit)))
    with written_whole(evaluation_reports("baseline")) as folder:
        folder.mkdir()
        for name, table in curves(label, logit, bins=bins).items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f")
    write_json(BASELINE_REPORT, tested | {"validation_accuracy": validated["accuracy"]} | fitted)


if __name__ == "__main__":
    run_command(main)
