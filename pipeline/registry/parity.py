"""Whether a model that is about to be registered says what the trained network says: as it is served, against Keras."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import probability
from pipeline.evaluation.scoring import logits_of
from pipeline.project.errors import PipelineError
from pipeline.project.paths import model_file
from pipeline.project.quiet_import import import_tensorflow
from pipeline.registry import evidence
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.encoding import load_tokenizer
from pipeline.training import networks

if TYPE_CHECKING:
    import pandas as pd

REVIEWS = 1000
"""Test reviews on which both are compared, drawn with a seed of their own."""
OF_A_LENGTH = 50
"""Texts each of one token, of exactly `max_tokens`, and of more."""
TOLERANCE = 1e-5
"""Largest difference of a probability: more than single precision rounds away in a review of 1,024 tokens."""
_OTHER_DEVICE = 0.01
"""Probability by which the stage `test` may differ from it on another device: GPUs round otherwise than CPUs do."""


def require_same(
    model_uri: str,
    model: str,
    max_tokens: int,
    test: "pd.DataFrame",
    predictions: "pd.DataFrame",
    others: "Sequence[pd.DataFrame]" = (),
) -> tuple[list["pd.DataFrame"], float]:
    """Scores all test reviews, and `others`, with a logged model, as an application would, and compares it with Keras
    on some test reviews and on texts of particular lengths.

    Args:
        model_uri: the logged model.
        model: its name in `params.yaml`; the trained network is Keras's side.
        max_tokens: how many token ids of a text it reads.
        test: the test reviews (id, text, label).
        predictions: those of the stage `test` (id, probability).
        others: tables of more texts (id, text, and label where they have one).

    Returns:
        `evidence.PREDICTION_COLUMNS` of the test reviews and of each of `others`, by the logged model; and the median
        latency of one review in milliseconds.

    Raises:
        PipelineError: it does not load, or differs from Keras by more than TOLERANCE, or from `predictions`.
    """
    import pandas as pd

    tokenizer = load_tokenizer()
    drawn = test["text"].sample(min(REVIEWS, len(test)), random_state=0)
    texts = [*drawn, *of_lengths(test["text"].tolist(), tokenizer, max_tokens)]
    compared = pd.DataFrame({"id": [f"parity/{row}" for row in range(len(texts))], "text": texts})
    with ThreadPoolExecutor(1) as beside:  # a process of its own scores, while this one loads TensorFlow
        tables = [test, *others, compared]
        everything = pd.concat([table[["id", "text"]] for table in tables], ignore_index=True)
        scoring = beside.submit(evidence.score, model_uri, everything)
        expected = probability(_keras_logits(model, tokenizer.encode_batch(texts, max_tokens)))
        scores, latency_ms = scoring.result()
    parts = np.split(np.arange(len(scores)), np.cumsum([len(table) for table in tables])[:-1])
    served = scores["probability"].to_numpy()
    difference = float(np.abs(served[parts[-1]] - expected).max())
    if not difference <= TOLERANCE:  # NaN too
        raise PipelineError(
            f"{model_uri} gives probabilities that differ by {difference:.3g} from those of Keras's network; it is not "
            "registered: its ONNX graph (pipeline/training/onnx_graph.py) is not that network"
        )
    tested = test[["id"]].merge(predictions, on="id", how="left")["probability"].to_numpy()
    difference = float(np.abs(served[parts[0]] - tested).max())
    if not difference <= _OTHER_DEVICE:  # NaN where a review was not scored
        raise PipelineError(
            f"{model_uri} gives probabilities that differ by {difference:.3g} from those of the stage `test`; run "
            "`dvc repro` so that model and predictions belong together"
        )
    made = zip(parts[:-1], tables[:-1], strict=True)
    return [evidence.with_labels(scores.iloc[rows], table) for rows, table in made], latency_ms


def of_lengths(texts: list[str], tokenizer: SubwordTokenizer, max_tokens: int) -> Iterator[str]:
    """Yields OF_A_LENGTH texts of one token each, of exactly `max_tokens`, and of more, made of `texts`."""
    made = 0
    for text in cycle(texts):
        long = text
        while len(ids := tokenizer.encode(long)) <= max_tokens:
            long = f"{long} {long}"
        cuts = {count: tokenizer.decode(ids[:count]) for count in (1, max_tokens)}
        # A cut may fall inside a character, or before a space that belonged to a word.
        if all(cut.strip() and tokenizer.encode(cut) == ids[:count] for count, cut in cuts.items()):
            yield from (*cuts.values(), long)
            made += 1
        if made == OF_A_LENGTH:
            return


def _keras_logits(model: str, token_ids: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Returns <float32>[rows], the logits that Keras's own layers, on the CPU, give rows of token ids."""
    tf = import_tensorflow()
    if tf.config.list_physical_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")  # it stays with those who need it
    params, vocabulary_size, weights = networks.read_model(model_file(model))
    network = networks.build_model(params, vocabulary_size)
    network.set_weights(weights)
    return logits_of(networks.scoring(network), token_ids)
