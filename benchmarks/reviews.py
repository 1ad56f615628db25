"""What both training loops learn from: batches drawn from those of the checkout, and the same reviews whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.project.atomic import read_table
from pipeline.project.paths import BATCHES, REVIEW_COLUMNS, SPLIT_TABLES
from pipeline.text.batching import Batch, make_batches, read_batches
from pipeline.text.encoding import load_tokenizer


@dataclass(frozen=True)
class Reviews:
    """Encoded reviews, not truncated.

    Attributes:
        token_ids: <int32>[tokens] for each review.
        label: <int8>[reviews].
    """

    token_ids: list[np.ndarray]
    label: np.ndarray

    @property
    def real_tokens(self) -> int:
        return sum(map(len, self.token_ids))


def draw_batches(split: str, share: float, seed: int) -> list[Batch]:
    """Returns a share of the batches that stage `batch` made of a split, at least one, in random order.

    They stand at equal distances among the batches sorted by width, so that few are as long and short as all are.
    """
    batches = sorted(read_batches(BATCHES / split), key=lambda batch: batch.token_ids.shape[1])
    count = max(1, round(share * len(batches)))
    drawn = [batches[int((place + 0.5) * len(batches) / count)] for place in range(count)]
    return [drawn[index] for index in np.random.default_rng(seed).permutation(count)]


def rebatch(batches: Sequence[Batch], batch_size: int, seed: int) -> list[Batch]:
    """Returns the reviews of `batches` in batches of another size, of similar length each."""
    rows = [row[:length] for batch in batches for row, length in zip(batch.token_ids, batch.lengths, strict=True)]
    label = np.concatenate([batch.label for batch in batches])
    ids = [review for batch in batches for review in batch.id]
    return make_batches(rows, label, ids, batch_size=batch_size, pool_batches=None, seed=seed)


def whole_reviews(split: str, batches: Sequence[Batch]) -> Reviews:
    """Returns the reviews in `batches`, encoded anew and whole, as a loop that does not truncate reads them."""
    table = read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS).set_index("id")
    table = table.loc[[review for batch in batches for review in batch.id]]
    return Reviews(load_tokenizer().encode_batch(table["text"]), table["label"].to_numpy(np.int8))
