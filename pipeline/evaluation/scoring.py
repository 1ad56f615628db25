"""Scoring token ids that are not batched yet, as the served model does."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.served_model.scorer import BATCH_TOKENS, bucketed
from pipeline.text.batching import pad

Logits = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Scores padded batches, <int32>[rows, width] each, to <float32>[rows] each: `networks.scoring`."""


def logits_of(logits: Logits, token_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Returns <float32>[rows], the logit of each row of token ids without padding, scored in batches of like length."""
    found = np.empty(len(token_ids), np.float32)
    for rows in bucketed([len(ids) for ids in token_ids], BATCH_TOKENS):
        (found[rows],) = logits([pad([token_ids[row] for row in rows])])
    return found
