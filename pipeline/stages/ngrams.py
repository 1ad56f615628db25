"""Stage `ngrams`: the linear n-gram classifier, the honest yardstick beside the recurrent models."""

import time

from pipeline.evaluation.metrics import binary_metrics, probability
from pipeline.evaluation.significance import report
from pipeline.ngrams.classifier import fit_ngrams
from pipeline.project.atomic import read_table, write_json, write_table
from pipeline.project.params import load_params
from pipeline.project.paths import NGRAMS, REVIEW_COLUMNS, SPLIT_TABLES, metrics_file, predictions_file, run_file
from pipeline.project.run_command import run_command


def main() -> None:
    """Fits the n-grams, and writes their predictions, metrics and seconds."""
    params = load_params()
    train, validation, test = (
        read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS) for split in ("train", "validation", "test")
    )
    started = time.perf_counter()
    classifier = fit_ngrams(
        train["text"].tolist(),
        train["label"].to_numpy(),
        max_ngram=params.ngrams.max_ngram,
        regularization=params.ngrams.regularization,
    )
    seconds = time.perf_counter() - started
    validation_logit, logit = (classifier.logits(table["text"].tolist()) for table in (validation, test))

    bins, samples = params.evaluate.calibration_bins, params.evaluate.bootstrap_samples
    validated = binary_metrics(validation["label"].to_numpy(), validation_logit, bins=bins)
    tested = report(test["label"].to_numpy(), logit, bins=bins, samples=samples, seed=params.seed)
    write_table(predictions_file(NGRAMS), test[["id", "label"]].assign(logit=logit, probability=probability(logit)))
    fitted = {"validation_accuracy": validated["accuracy"], "features": len(classifier.kept)}
    write_json(metrics_file(NGRAMS), tested | fitted)
    write_json(run_file(NGRAMS), {"metrics": {"training_seconds": round(seconds, 1)}})


if __name__ == "__main__":
    run_command(main)
