"""Stage `evaluate`: `python -m pipeline.stages.evaluate <model>` measures one trained model on the test split."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.metrics import probability
from pipeline.evaluation.significance import report, slices
from pipeline.project.atomic import atomic_write, read_table, write_json, write_table
from pipeline.project.errors import DataError
from pipeline.project.params import Params, load_params, model_argument
from pipeline.project.paths import BATCHES, SPLIT_TABLES, evaluation_reports, metrics_file, model_file, predictions_file
from pipeline.project.run_command import run_command
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.studies import challenge_sentences, lstm_trace, padding_study
from pipeline.text.batching import Batch, pad, read_batches
from pipeline.text.encoding import load_tokenizer
from pipeline.training import networks


def main() -> None:
    """Scores the test reviews with the model that the command line names, and writes predictions, metrics, studies."""
    params = load_params()
    name = model_argument(params)
    model_params = params.model(name)
    batches = read_batches(BATCHES / "test")
    test = read_table(SPLIT_TABLES / "test.parquet", ("id", "label"))
    tokenizer = load_tokenizer()

    print(f"evaluating {name} on {networks.prepare_device(seed=params.seed, deterministic=False)}", flush=True)
    classifiers = {
        masked: networks.load_model(model_file(name), model_params, masked=masked) for masked in (True, False)
    }

    def score(token_ids: list[np.ndarray], masked: bool) -> list[np.ndarray]:
        return [probability(logits) for logits in networks.logits(classifiers[masked], token_ids)]

    def scored(reviews: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(score([pad([token_ids]) for token_ids in reviews], True))

    def read(texts: Sequence[str]) -> np.ndarray:
        return scored(tokenizer.encode_batch(texts, params.tokenize.max_tokens))

    predictions = predict(lambda padded: networks.logits(classifiers[True], padded), batches, test)
    study = study_padding(score, batches, tokenizer, params)
    write_table(predictions_file(name), predictions)
    studies: dict[str, Any] = {"padding_study": study, "limits": challenge_sentences.limits(read)}
    if model_params.cell == "lstm":
        studies["gates"] = lstm_trace.along(classifiers[True], tokenizer, lstm_trace.EXAMPLE, scored)
    write_json(metrics_file(name), measure(predictions, params))
    with atomic_write(evaluation_reports(name)) as folder:
        folder.mkdir()
        for study_name, content in studies.items():
            write_json(folder / f"{study_name}.json", content)
    if not study["masking_holds"]:
        print(f"warning: padding changes what {name} scores; see padding_study.json", file=sys.stderr)


def predict(
    logits: Callable[[list[np.ndarray]], list[np.ndarray]], batches: Sequence[Batch], test: pd.DataFrame
) -> pd.DataFrame:
    """Returns id, label, logit, probability and length (in tokens) of every test review, in the order of `test`.

    Raises:
        DataError: the batches do not hold exactly the reviews of `test` with their labels.
    """
    scored = pd.DataFrame(
        {
            "id": [review for batch in batches for review in batch.id],
            "label": np.concatenate([batch.label for batch in batches]),
            "logit": np.concatenate(logits([batch.token_ids for batch in batches])),
            "length": np.concatenate([batch.lengths for batch in batches]),
        }
    )
    ordered = test[["id"]].merge(scored, on="id", how="left")
    if len(scored) != len(test) or not ordered["label"].eq(test["label"]).all():
        raise DataError(
            f"{BATCHES / 'test'} does not hold the reviews of {SPLIT_TABLES / 'test.parquet'}; run `dvc repro`"
        )
    ordered = ordered.astype({"label": np.int8, "length": np.int32})
    ordered.insert(3, "probability", probability(ordered["logit"].to_numpy()))
    return ordered


def study_padding(
    score: padding_study.Scorer, batches: Sequence[Batch], tokenizer: SubwordTokenizer, params: Params
) -> dict[str, Any]:
    """Runs the padding study on the two sample sentences and a seeded draw of test reviews."""
    reviews = [row[:length] for batch in batches for row, length in zip(batch.token_ids, batch.lengths, strict=True)]
    label = np.concatenate([batch.label for batch in batches])
    count = min(params.evaluate.padding_study_reviews, len(reviews))
    drawn = np.random.default_rng(params.seed).choice(len(reviews), count, replace=False)
    max_tokens = params.tokenize.max_tokens
    return padding_study.padding_study(
        score,
        [reviews[row] for row in drawn],
        label[drawn],
        {
            name: np.array(tokenizer.encode(text, max_tokens), np.int32)
            for name, text in padding_study.SENTENCES.items()
        },
        max_tokens=max_tokens,
    )


def measure(predictions: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Returns the metrics of the predictions with their intervals, over all and on each slice."""
    label, logit, length = (predictions[column].to_numpy() for column in ("label", "logit", "length"))
    samples, seed = params.evaluate.bootstrap_samples, params.seed
    metrics = report(label, logit, bins=params.evaluate.calibration_bins, samples=samples, seed=seed)
    return metrics | {"slices": slices(label, logit, length, samples=samples, seed=seed)}


if __name__ == "__main__":
    run_command(main)
