"""Whether what is served of a network, its ONNX graph and the scorer around it, says what the trained network says."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import probability
from pipeline.evaluation.scoring import Logits, logits_of
from pipeline.project.errors import PipelineError
from pipeline.served_model.scorer import NETWORK, Scorer, open_session
from pipeline.text.batching import pad

REVIEWS = 1000
"""On which both are compared, drawn with a seed of their own."""
ALONE = 200
"""Reviews that the network scores one by one, without padding, beside the scorer's batches."""
OF_A_LENGTH = 50
"""Rows each of one token, of exactly `max_tokens`, and of all lengths between."""
TOLERANCE = 1e-5
"""Largest difference of a probability: more than single precision rounds away in a review of 1,024 tokens."""


def require_same(graph: bytes, logits: Logits, token_ids: Sequence[NDArray[np.int32]], max_tokens: int) -> float:
    """Scores reviews, and rows of particular lengths made of them, with the ONNX graph and with the network.

    Args:
        graph: the ONNX file.
        logits: of padded batches, by the trained network.
        token_ids: <int32>[tokens] for each review.
        max_tokens: the most that a row has.

    Returns:
        The largest difference of a probability.

    Raises:
        PipelineError: it is larger than TOLERANCE.
    """
    drawn = np.random.default_rng(0).permutation(len(token_ids))[:REVIEWS]
    rows = [*(token_ids[row] for row in drawn), *of_lengths(token_ids, max_tokens)]
    session = open_session(graph)
    served = logits_of(lambda batches: [session.run(None, {"token_ids": batch})[0] for batch in batches], rows)
    return _largest_difference(served, logits_of(logits, rows), "graph", "training/onnx_graph.py does not write")


def require_served(
    scorer: Scorer, logits: Logits, texts: Sequence[str], token_ids: Sequence[NDArray[np.int32]]
) -> float:
    """Scores reviews with the scorer, which batches and pads them, and with the network, each alone.

    Args:
        scorer: of a candidate with a network.
        logits: of padded batches, by the trained network.
        texts, token_ids: the reviews, and <int32>[tokens] for each.

    Returns:
        The largest difference of a probability that the network part gives.

    Raises:
        PipelineError: it is larger than TOLERANCE.
    """
    drawn = np.random.default_rng(0).permutation(len(texts))[:ALONE]
    served = scorer.parts([texts[row] for row in drawn])[NETWORK]
    alone = np.concatenate([np.empty(0), *logits([pad([token_ids[row]]) for row in drawn])])
    return _largest_difference(served, alone, "scorer", "served_model/scorer.py does not score")


def _largest_difference(served: NDArray[np.floating], trained: NDArray[np.floating], what: str, fault: str) -> float:
    difference = float(np.abs(probability(served) - probability(trained)).max(initial=0.0))
    if not difference <= TOLERANCE:  # NaN too
        raise PipelineError(
            f"the ONNX {what} gives probabilities that differ by {difference:.3g} from those of the trained network: "
            f"pipeline/{fault} that network"
        )
    return difference


def of_lengths(token_ids: Sequence[NDArray[np.int32]], max_tokens: int) -> Iterator[NDArray[np.int32]]:
    """Yields OF_A_LENGTH rows each of one token, of `max_tokens`, and of a drawn number, of tokens of `token_ids`."""
    everything = np.concatenate([token_ids[row] for row in range(min(len(token_ids), REVIEWS))])
    rng = np.random.default_rng(1)
    for _ in range(OF_A_LENGTH):
        for length in (1, max_tokens, int(rng.integers(1, max_tokens + 1))):
            start = rng.integers(len(everything))
            yield np.take(everything, np.arange(start, start + length), mode="wrap")
