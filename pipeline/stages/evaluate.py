"""Stage `evaluate`: `python -m pipeline.stages.evaluate <model>` makes a candidate of one trained network, measured on
the validation split and on fresh reviews, as often as one likes; and studies it."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import candidates, parity
from pipeline.evaluation.metrics import probability
from pipeline.project.atomic import atomic_write, read_table, write_json
from pipeline.project.params import Params, load_params, model_argument
from pipeline.project.paths import SPLIT_TABLES, TEXT_COLUMNS, TOKENS, evaluation_reports, model_file
from pipeline.project.run_command import run_command
from pipeline.served_model.scorer import NETWORK
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.studies import lstm_trace, padding_study
from pipeline.text.batching import pad
from pipeline.text.encoding import load_tokenizer
from pipeline.text.token_arrays import TokenArray, read_tokens
from pipeline.training import networks, onnx_graph


def main() -> None:
    """Scores held-out reviews with the model that the command line names, and writes candidate, predictions, metrics
    and studies."""
    params = load_params()
    name = model_argument(params)
    model_params = params.model(name)
    tokenizer, validation = load_tokenizer(), read_tokens(TOKENS / "validation")

    print(f"evaluating {name} on {networks.prepare_device(seed=params.seed, deterministic=False)}", flush=True)
    graph = onnx_graph.onnx_graph(*trained(name))
    classifier = networks.load_model(model_file(name), model_params)
    unmasked = networks.load_model(model_file(name), model_params, masked=False)
    scoring = {True: networks.scoring(classifier), False: networks.scoring(unmasked)}
    parity.require_same(graph, scoring[True], validation, params.tokenize.max_tokens)

    def score(token_ids: list[np.ndarray], masked: bool) -> list[np.ndarray]:
        return [probability(logits) for logits in scoring[masked](token_ids)]

    def scored(reviews: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(score([pad([token_ids]) for token_ids in reviews], True))

    study = study_padding(score, validation, tokenizer, params)
    studies: dict[str, Any] = {"padding_study": study}
    if model_params.cell == "lstm":
        studies["gates"] = lstm_trace.along(classifier, tokenizer, lstm_trace.EXAMPLE, scored)
    candidates.conclude(name, {NETWORK: graph}, params)
    texts = read_table(SPLIT_TABLES / "validation.parquet", TEXT_COLUMNS)["text"].tolist()
    parity.require_served(candidates.load(name), scoring[True], texts, validation)
    with atomic_write(evaluation_reports(name)) as folder:
        folder.mkdir()
        for study_name, content in studies.items():
            write_json(folder / f"{study_name}.json", content)
    if not study["masking_holds"]:
        print(f"warning: padding changes what {name} scores; see padding_study.json", file=sys.stderr)


def trained(name: str) -> tuple[Any, list[np.ndarray]]:
    """Returns the params and weights of a trained network; raises DataError where they are missing or damaged."""
    params, _, weights = networks.read_model(model_file(name))
    return params, weights


def study_padding(
    score: padding_study.Scorer, validation: TokenArray, tokenizer: SubwordTokenizer, params: Params
) -> dict[str, Any]:
    """Runs the padding study on the two sample sentences and a seeded draw of the validation reviews."""
    assert validation.label is not None
    count = min(params.evaluate.padding_study_reviews, len(validation))
    drawn = np.random.default_rng(params.seed).choice(len(validation), count, replace=False)
    max_tokens = params.tokenize.max_tokens
    return padding_study.padding_study(
        score,
        [validation[row] for row in drawn],
        validation.label[drawn],
        {
            name: np.array(tokenizer.encode(text, max_tokens), np.int32)
            for name, text in padding_study.SENTENCES.items()
        },
        max_tokens=max_tokens,
    )


if __name__ == "__main__":
    run_command(main)
