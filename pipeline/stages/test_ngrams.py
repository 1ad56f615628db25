"""Stage `test_ngrams`: the n-gram classifier on the test split."""

from pipeline.evaluation import selective
from pipeline.evaluation.corrections import corrected
from pipeline.evaluation.metrics import probability
from pipeline.evaluation.significance import report
from pipeline.ngrams.classifier import load_ngrams
from pipeline.project.atomic import read_table, write_json, write_table
from pipeline.project.params import load_params
from pipeline.project.paths import (
    NGRAMS,
    NGRAMS_FILE,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    metrics_file,
    predictions_file,
)
from pipeline.project.run_command import run_command


def main() -> None:
    """Scores the test reviews with the n-grams, and writes predictions and metrics."""
    params = load_params()
    test = read_table(SPLIT_TABLES / "test.parquet", REVIEW_COLUMNS)
    logit = load_ngrams(NGRAMS_FILE).logits(test["text"].tolist())
    bins, samples = params.evaluate.calibration_bins, params.evaluate.bootstrap_samples
    tested = report(test["label"].to_numpy(), logit, bins=bins, samples=samples, seed=params.seed)
    predictions = test[["id", "label"]].assign(logit=logit, probability=probability(logit))
    write_table(predictions_file(NGRAMS), predictions)
    label, words = test["label"].to_numpy(), test["text"].str.count(r"\S+").to_numpy()
    is_sure = selective.is_sure(probability(logit), selective.read_band(NGRAMS))
    sure = selective.report(label, probability(logit), is_sure, words)
    write_json(metrics_file(NGRAMS), tested | {"sure": sure} | corrected(predictions))


if __name__ == "__main__":
    run_command(main)
