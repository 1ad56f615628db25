"""Stage `ngrams`: fits the linear n-gram classifier, and makes a candidate of it."""

import hashlib
import time

from pipeline.evaluation import candidates
from pipeline.ngrams.classifier import fit_ngrams
from pipeline.project.atomic import atomic_write, read_table
from pipeline.project.params import load_params
from pipeline.project.paths import NGRAMS, NGRAMS_FILE, REVIEW_COLUMNS, SPLIT_TABLES
from pipeline.project.run_command import run_command
from pipeline.tracking import fitted_runs


def main() -> None:
    """Fits the n-grams, and writes them, the candidate and its metrics on held-out reviews, and the file of its run."""
    params = load_params()
    train = read_table(SPLIT_TABLES / "train.parquet", REVIEW_COLUMNS)
    logged = {"seed": params.seed, **params.tokenize.model_dump(), **params.ngrams.model_dump()}
    with fitted_runs.fitting(NGRAMS, params.dataset, logged) as run:
        started = time.perf_counter()
        classifier = fit_ngrams(
            train["text"].tolist(),
            train["label"].to_numpy(),
            max_ngram=params.ngrams.max_ngram,
            regularization=params.ngrams.regularization,
        )
        run.seconds = time.perf_counter() - started
        with atomic_write(NGRAMS_FILE) as aside:
            classifier.save(aside)
        content = NGRAMS_FILE.read_bytes()
        measured = candidates.conclude(NGRAMS, {"ngrams": content}, params)
        run.end(
            weights_sha256=hashlib.sha256(content).hexdigest(),
            parameters=len(classifier.kept),
            validation=measured["validation"],
        )


if __name__ == "__main__":
    run_command(main)
