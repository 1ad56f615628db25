"""Scoring texts and token ids that are not batched yet, as the served model does."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import probability
from pipeline.evaluation.predictions import Logits
from pipeline.served_model.scorer import BATCH_TOKENS, bucketed
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.batching import pad


def logits_of(logits: Logits, token_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Returns <float32>[rows], the logit of each row of token ids without padding, scored in batches of like length."""
    found = np.empty(len(token_ids), np.float32)
    for rows in bucketed([len(ids) for ids in token_ids], BATCH_TOKENS):
        (found[rows],) = logits([pad([token_ids[row] for row in rows])])
    return found


def probabilities(
    logits: Logits, tokenizer: SubwordTokenizer, max_tokens: int
) -> Callable[[Sequence[str]], NDArray[np.float64]]:
    """Returns a function that gives texts, cut at `max_tokens`, their probability of positive, <float64>[texts]."""
    return lambda texts: probability(logits_of(logits, tokenizer.encode_batch(texts, max_tokens)))
