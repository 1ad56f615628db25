"""Padded batches: rows of similar length side by side, padded on the right with 0.

The classic `shuffle().padded_batch(64)` mixes long and short reviews, and three quarters of what it computes is
padding. Here rows are shuffled into pools, each pool is sorted by length and cut into batches, so that a batch
holds rows of nearly one length (the bucketing of fairseq, torchtext's BucketIterator and AllenNLP's
BucketBatchSampler). What a batch holds is fixed by the seed; the order of batches is drawn anew for each epoch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pipeline.project.atomic import read_table, write_table
from pipeline.project.errors import DataError
from pipeline.served_model.tokenizer import PADDING_ID

CLASSIC_BATCH_SIZE = 64  # the TensorFlow text classification tutorial's, the reference of the reported padding
_FILE = "batches.parquet"
_COLUMNS = ("id", "label", "width", "token_ids")


@dataclass(frozen=True)
class Batch:
    """One padded batch."""

    token_ids: np.ndarray  # <int32>[rows, width], each row right-padded with 0, none of them all padding
    label: np.ndarray  # <int8>[rows], 0 negative, 1 positive
    id: list[str]

    @property
    def lengths(self) -> np.ndarray:
        """Real tokens of each row: <int64>[rows]."""
        return np.count_nonzero(self.token_ids != PADDING_ID, axis=1)


def pad(rows: Sequence[np.ndarray], width: int | None = None) -> np.ndarray:
    """Right-pads `rows` of token ids with 0 to `width`, by default that of the longest.

    Returns:
        <int32>[len(rows), width].

    Raises:
        ValueError: a row is empty, holds the padding id, or is longer than `width`; nothing is cut here.
    """
    width = max(map(len, rows), default=0) if width is None else width
    padded = np.full((len(rows), width), PADDING_ID, np.int32)
    for index, row in enumerate(rows):
        if not 0 < len(row) <= width:
            raise ValueError(f"row {index} has {len(row)} token ids; a row of width {width} takes 1 to {width}")
        if PADDING_ID in row:
            raise ValueError(f"row {index} holds the padding id {PADDING_ID}")
        padded[index, : len(row)] = row
    return padded


def make_batches(
    token_ids: Sequence[np.ndarray],
    label: ArrayLike,
    ids: Sequence[str],
    *,
    batch_size: int,
    pool_batches: int | None,
    seed: int,
) -> list[Batch]:
    """Divides rows into padded batches of similar length; every row is in exactly one.

    Args:
        token_ids, label, ids: of each row; see `pad` for what is refused.
        batch_size: rows a batch; only the last batch of a pool may have fewer.
        pool_batches: batches whose rows are sorted together; None sorts all rows, which pads least.
        seed: seed of the shuffle that fills the pools and breaks ties of length.
    """
    labels = np.asarray(label, np.int8)
    lengths = np.array([len(row) for row in token_ids])
    order = np.random.default_rng(seed).permutation(len(lengths))
    pool_rows = pool_batches * batch_size if pool_batches else max(len(order), 1)
    batches = []
    for start in range(0, len(order), pool_rows):
        pool = order[start : start + pool_rows]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        for rows in (pool[first : first + batch_size] for first in range(0, len(pool), batch_size)):
            batches.append(Batch(pad([token_ids[row] for row in rows]), labels[rows], [ids[row] for row in rows]))
    return batches


def hide_tokens(token_ids: np.ndarray, share: float, hidden_id: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a copy of <int32>[rows, width] in which each real token id became `hidden_id` with probability `share`
    (the token dropout of Iyyer et al. 2015, "Deep unordered composition"); padding and lengths stay."""
    hidden = (rng.random(token_ids.shape) < share) & (token_ids != PADDING_ID)
    return np.where(hidden, np.int32(hidden_id), token_ids)


def write_batches(folder: Path, batches: Iterable[Batch]) -> None:
    """Writes batches to `folder`, one record a batch, in their order."""
    import pandas as pd

    records = [
        {"id": batch.id, "label": batch.label, "width": batch.token_ids.shape[1], "token_ids": batch.token_ids.ravel()}
        for batch in batches
    ]
    write_table(folder / _FILE, pd.DataFrame.from_records(records, columns=_COLUMNS))


def read_batches(folder: Path) -> list[Batch]:
    """Reads what `write_batches` wrote; raises DataError for a missing, truncated or foreign file."""
    table = read_table(folder / _FILE, _COLUMNS)
    try:
        return [
            Batch(token_ids.astype(np.int32).reshape(len(ids), width), label.astype(np.int8), list(ids))
            for ids, label, width, token_ids in zip(*(table[column] for column in _COLUMNS), strict=True)
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{folder / _FILE} holds no padded batches ({error}); run `dvc repro`") from None


def describe(batches: Sequence[Batch]) -> dict[str, Any]:
    """Returns rows, batches, real tokens, padded tokens and `padding_share`, the share of the work that is padding."""
    real = sum(int(batch.lengths.sum()) for batch in batches)
    padded = sum(batch.token_ids.size for batch in batches)
    return {
        "rows": sum(len(batch.id) for batch in batches),
        "batches": len(batches),
        "real_tokens": real,
        "padded_tokens": padded,
        "padding_share": round(1 - real / padded, 6) if padded else 0.0,
    }


def classic_padding_share(lengths: ArrayLike, seed: int) -> float:
    """Returns the padding share of the classic shuffled `padded_batch(64)` on rows of these token counts."""
    order = np.random.default_rng(seed).permutation(np.asarray(lengths))
    starts = np.arange(0, len(order), CLASSIC_BATCH_SIZE)
    rows = np.diff(starts, append=len(order))
    return round(1 - int(order.sum()) / int((np.maximum.reduceat(order, starts) * rows).sum()), 6)
