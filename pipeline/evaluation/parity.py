"""Whether a network's ONNX graph, which is served, says what the trained network says."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import probability
from pipeline.evaluation.scoring import Logits, logits_of
from pipeline.project.errors import PipelineError
from pipeline.served_model.scorer import open_session

REVIEWS = 1000
"""On which both are compared, drawn with a seed of their own."""
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
    difference = float(np.abs(probability(served) - probability(logits_of(logits, rows))).max())
    if not difference <= TOLERANCE:  # NaN too
        raise PipelineError(
            f"the ONNX graph gives probabilities that differ by {difference:.3g} from those of the trained network: "
            "pipeline/training/onnx_graph.py does not write that network"
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
