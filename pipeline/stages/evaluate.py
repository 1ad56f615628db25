"""Stage `evaluate`: `python -m pipeline.stages.evaluate <model>` measures one trained model on the validation split and
on fresh reviews, as often as one likes; and studies it."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import selective
from pipeline.evaluation.metrics import probability
from pipeline.evaluation.predictions import measure, predict
from pipeline.project.atomic import atomic_write, write_json, write_table
from pipeline.project.params import Params, load_params, model_argument
from pipeline.project.paths import BATCHES, EVALUATED, evaluated_file, evaluation_reports, model_file, predictions_file
from pipeline.project.run_command import run_command
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.studies import lstm_trace, padding_study
from pipeline.text.batching import Batch, pad, read_batches
from pipeline.text.encoding import load_tokenizer
from pipeline.training import networks


def main() -> None:
    """Scores held-out reviews with the model that the command line names, and writes predictions, metrics, studies."""
    params = load_params()
    name = model_argument(params)
    model_params = params.model(name)
    tokenizer = load_tokenizer()

    print(f"evaluating {name} on {networks.prepare_device(seed=params.seed, deterministic=False)}", flush=True)
    classifier = networks.load_model(model_file(name), model_params)
    unmasked = networks.load_model(model_file(name), model_params, masked=False)
    scoring = {True: networks.scoring(classifier), False: networks.scoring(unmasked)}

    def score(token_ids: list[np.ndarray], masked: bool) -> list[np.ndarray]:
        return [probability(logits) for logits in scoring[masked](token_ids)]

    def scored(reviews: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(score([pad([token_ids]) for token_ids in reviews], True))

    predictions = {split: predict(scoring[True], split) for split in EVALUATED}
    study = study_padding(score, read_batches(BATCHES / "validation"), tokenizer, params)
    for split, table in predictions.items():
        write_table(predictions_file(name, split), table)
    studies: dict[str, Any] = {"padding_study": study}
    if model_params.cell == "lstm":
        studies["gates"] = lstm_trace.along(classifier, tokenizer, lstm_trace.EXAMPLE, scored)
    measured = {
        split: measure(table, params.evaluate, params.seed) for split, table in predictions.items() if len(table)
    }
    for split, found in selective.on_held_out(predictions, params.serve.promise).items():
        measured[split] |= found
    write_json(evaluated_file(name), measured)
    with atomic_write(evaluation_reports(name)) as folder:
        folder.mkdir()
        for study_name, content in studies.items():
            write_json(folder / f"{study_name}.json", content)
    if not study["masking_holds"]:
        print(f"warning: padding changes what {name} scores; see padding_study.json", file=sys.stderr)


def study_padding(
    score: padding_study.Scorer, batches: Sequence[Batch], tokenizer: SubwordTokenizer, params: Params
) -> dict[str, Any]:
    """Runs the padding study on the two sample sentences and a seeded draw of the reviews in `batches`."""
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


if __name__ == "__main__":
    run_command(main)
