"""Stage `evaluate`: `python -m pipeline.stages.evaluate <model>` measures one trained model on the test split."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline import evaluation, limits, lstm_steps, model, padding, plots, restoration, tracking
from pipeline.artifacts import (
    BATCHES,
    SPLIT_TABLES,
    evaluation_reports,
    model_file,
    predictions_file,
    read_table,
    write_json,
    write_table,
    written_whole,
)
from pipeline.batching import Batch, pad, read_batches
from pipeline.errors import DataError, UsageError, run_command
from pipeline.params import Params, load_params
from pipeline.subwords import SubwordTokenizer
from pipeline.vocabulary import load_tokenizer


def main() -> None:
    if len(sys.argv) != 2:
        raise UsageError("name one model of params.yaml: python -m pipeline.stages.evaluate <model>")
    name = sys.argv[1]
    params = load_params()
    model_params = params.model(name)
    run_id, record, history = restoration.recorded_run(name)
    batches = read_batches(BATCHES / "test")
    test = read_table(SPLIT_TABLES / "test.parquet", ("id", "label"))
    tokenizer = load_tokenizer()

    print(f"evaluating {name} on {model.prepare_device(seed=params.seed, deterministic=False)}", flush=True)
    networks = {masked: model.load_model(model_file(name), model_params, masked=masked) for masked in (True, False)}

    def score(token_ids: list[np.ndarray], masked: bool) -> list[np.ndarray]:
        return model.logits(networks[masked], token_ids)

    def scored(reviews: Sequence[np.ndarray]) -> np.ndarray:
        return evaluation.probability(np.concatenate(score([pad([token_ids]) for token_ids in reviews], True)))

    def read(texts: Sequence[str]) -> np.ndarray:
        return scored(tokenizer.encode_batch(texts, params.tokenize.max_tokens))

    predictions = predict(score, batches, test)
    study = study_padding(score, batches, tokenizer, params)
    write_table(predictions_file(name), predictions)
    studies: dict[str, Any] = {"padding_study": study, "limits": limits.limits(read)}
    if model_params.cell == "lstm":
        studies["gates"] = lstm_steps.along(networks[True], tokenizer, lstm_steps.EXAMPLE, scored)
    write_reports(name, predictions, studies, history, record["metrics"]["best_epoch"], params)
    tracking.log_inputs(run_id, params.dataset, {"test": BATCHES / "test"})
    tracking.log_evaluation(run_id, record)
    if not study["masking_holds"]:
        print(f"warning: padding changes what {name} scores; see padding_study.json", file=sys.stderr)


def predict(score: padding.Scorer, batches: Sequence[Batch], test: pd.DataFrame) -> pd.DataFrame:
    """Returns id, label, logit, probability and length (in tokens) of every test review, in the order of `test`.

    Raises:
        DataError: the batches do not hold exactly the reviews of `test` with their labels.
    """
    scored = pd.DataFrame(
        {
            "id": [review for batch in batches for review in batch.id],
            "label": np.concatenate([batch.label for batch in batches]),
            "logit": np.concatenate(score([batch.token_ids for batch in batches], True)),
            "length": np.concatenate([batch.lengths for batch in batches]),
        }
    )
    ordered = test[["id"]].merge(scored, on="id", how="left")
    if len(scored) != len(test) or not ordered["label"].eq(test["label"]).all():
        raise DataError(
            f"{BATCHES / 'test'} does not hold the reviews of {SPLIT_TABLES / 'test.parquet'}; run `dvc repro`"
        )
    ordered = ordered.astype({"label": np.int8, "length": np.int32})
    ordered.insert(3, "probability", evaluation.probability(ordered["logit"].to_numpy()))
    return ordered


def study_padding(
    score: padding.Scorer, batches: Sequence[Batch], tokenizer: SubwordTokenizer, params: Params
) -> dict[str, Any]:
    """Runs the padding study on the two sample sentences and a seeded draw of test reviews."""
    reviews = [row[:length] for batch in batches for row, length in zip(batch.token_ids, batch.lengths, strict=True)]
    label = np.concatenate([batch.label for batch in batches])
    count = min(params.evaluate.padding_study_reviews, len(reviews))
    drawn = np.random.default_rng(params.seed).choice(len(reviews), count, replace=False)
    max_tokens = params.tokenize.max_tokens
    return padding.padding_study(
        score,
        [reviews[row] for row in drawn],
        label[drawn],
        {name: np.array(tokenizer.encode(text, max_tokens), np.int32) for name, text in padding.SENTENCES.items()},
        max_tokens=max_tokens,
    )


def write_reports(
    name: str,
    predictions: pd.DataFrame,
    studies: dict[str, Any],
    history: pd.DataFrame,
    kept_epoch: int,
    params: Params,
) -> None:
    """Writes the metrics, the curves as CSV for DVC and as PNG, and each study as JSON of its name."""
    label, logit, length = (predictions[column].to_numpy() for column in ("label", "logit", "length"))
    bins, samples, seed = params.evaluate.calibration_bins, params.evaluate.bootstrap_samples, params.seed
    metrics = evaluation.report(label, logit, bins=bins, samples=samples, seed=seed)
    metrics["slices"] = evaluation.slices(label, logit, length, samples=samples, seed=seed)
    tables = evaluation.curves(label, logit, bins=bins)
    with written_whole(evaluation_reports(name)) as folder:
        folder.mkdir()
        write_json(folder / "metrics.json", metrics)
        for study_name, study in studies.items():
            write_json(folder / f"{study_name}.json", study)
        for table_name, table in tables.items():
            table.to_csv(folder / f"{table_name}.csv", index=False, float_format="%.6f")
        plots.roc(folder / "roc.png", tables["roc"], area=metrics["roc_auc"])
        plots.precision_recall(
            folder / "precision_recall.png",
            tables["precision_recall"],
            average_precision=metrics["average_precision"],
            positive_share=float(label.mean()),
        )
        plots.calibration(folder / "calibration.png", tables["calibration"], ece=metrics["ece"])
        plots.confusion(folder / "confusion.png", tables["confusion"])
        plots.padding_study(folder / "padding_study.png", studies["padding_study"])
        plots.learning_curves(folder / "learning_curves.png", history, kept_epoch=kept_epoch)


if __name__ == "__main__":
    run_command(main)
