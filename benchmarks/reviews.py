"""What both training loops learn from: labelled reviews drawn from the checkout, as the pipeline has them and whole."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.project.atomic import read_table
from pipeline.project.params import BatchParams
from pipeline.project.paths import REVIEW_COLUMNS, SPLIT_TABLES, TOKENS
from pipeline.text.batching import Batch, Plan, make_batches
from pipeline.text.encoding import load_tokenizer
from pipeline.text.token_arrays import TokenArray, read_tokens
from pipeline.training.examples import Examples


def draw(split: str, share: float, seed: int) -> TokenArray:
    """Returns a share of a split's reviews as stage `tokenize` truncated them, at least one, in random order.

    They stand at equal distances among the reviews sorted by length, so that few are as long and short as all are.
    """
    tokens = read_tokens(TOKENS / split)
    by_length = np.argsort(tokens.lengths, kind="stable")
    count = max(1, round(share * len(tokens)))
    places = ((np.arange(count) + 0.5) * len(tokens) / count).astype(np.int64)
    rows = np.random.default_rng(seed).permutation(by_length[places])
    return _array([tokens[row] for row in rows], tokens.id[rows], labels(tokens)[rows])


def whole(split: str, reviews: TokenArray) -> TokenArray:
    """Returns the same reviews encoded anew and whole, as a loop that does not truncate reads them."""
    table = read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS).set_index("id")
    texts = table["text"].loc[reviews.id.tolist()].tolist()
    return _array(load_tokenizer().encode_batch(texts), reviews.id, labels(reviews))


def labels(reviews: TokenArray) -> NDArray[np.int8]:
    """Returns the labels that reviews of a labelled split have: <int8>[reviews]."""
    assert reviews.label is not None
    return reviews.label


def examples(reviews: TokenArray, batch: BatchParams, seed: int) -> Examples:
    """Returns the reviews as stage `train` reads them, with their labels as targets."""
    plan = Plan(reviews.lengths, batch.batch_size, batch.pool_batches, seed)
    return Examples(reviews, labels(reviews).astype(np.float32), plan)


def first(some: Examples, batches: int) -> Examples:
    """Returns as many examples as fill so many batches."""
    rows = batches * some.plan.batch_size
    plan = Plan(some.plan.lengths[:rows], some.plan.batch_size, some.plan.pool_batches, some.plan.seed)
    return Examples(some.token_ids[:rows], some.target[:rows], plan)


def padded(reviews: TokenArray, batch_size: int, seed: int) -> list[Batch]:
    """Returns the padded batches that stage `batch` would make of the reviews for validation."""
    ids = reviews.id.tolist()
    return make_batches(reviews, labels(reviews), ids, batch_size=batch_size, pool_batches=None, seed=seed)


def _array(token_ids: Sequence[NDArray[np.int32]], ids: NDArray[np.str_], label: NDArray[np.int8]) -> TokenArray:
    offsets = np.cumsum([0, *map(len, token_ids)], dtype=np.int64)
    return TokenArray(np.concatenate(token_ids), offsets, ids, label)
