"""Stage `ngrams`: the linear n-gram classifier, the honest yardstick beside the recurrent models."""

import time

import numpy as np

from pipeline.evaluation import selective
from pipeline.evaluation.metrics import probability
from pipeline.evaluation.significance import report
from pipeline.ngrams.classifier import fit_ngrams
from pipeline.project.atomic import atomic_write, read_table, write_json, write_table
from pipeline.project.params import load_params
from pipeline.project.paths import (
    EVALUATED,
    NGRAMS,
    NGRAMS_FILE,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    evaluated_file,
    predictions_file,
    run_file,
)
from pipeline.project.run_command import run_command


def main() -> None:
    """Fits the n-grams, and writes them, their predictions on held-out reviews, metrics and seconds."""
    params = load_params()
    train = read_table(SPLIT_TABLES / "train.parquet", REVIEW_COLUMNS)
    started = time.perf_counter()
    classifier = fit_ngrams(
        train["text"].tolist(),
        train["label"].to_numpy(),
        max_ngram=params.ngrams.max_ngram,
        regularization=params.ngrams.regularization,
    )
    seconds = time.perf_counter() - started
    with atomic_write(NGRAMS_FILE) as aside:
        classifier.save(aside)
    measured, tables = {}, {}
    bins, samples, seed = params.evaluate.calibration_bins, params.evaluate.bootstrap_samples, params.seed
    for split in EVALUATED:
        table = read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS)
        logit = classifier.logits(table["text"].tolist()) if len(table) else np.empty(0)
        predictions = table[["id", "label"]].assign(logit=logit, probability=probability(logit))
        write_table(predictions_file(NGRAMS, split), predictions)
        tables[split] = predictions
        if len(table):
            measured[split] = report(table["label"].to_numpy(), logit, bins=bins, samples=samples, seed=seed)
    for split, found in selective.on_held_out(tables, params.serve.promise).items():
        measured[split] |= found
    write_json(evaluated_file(NGRAMS), measured | {"features": len(classifier.kept)})
    write_json(run_file(NGRAMS), {"metrics": {"training_seconds": round(seconds, 1)}})


if __name__ == "__main__":
    run_command(main)
