"""Padded batches: rows of similar length side by side, padded on the right with 0.

The classic `shuffle().padded_batch(64)` mixes long and short reviews, and three quarters of what it computes is
padding. Here rows are shuffled into pools, each pool is sorted by length and cut into batches, so that a batch
holds rows of nearly one length (the bucketing of fairseq, torchtext's BucketIterator and AllenNLP's
BucketBatchSampler). What is validated on is batched once; training draws batches and their order anew for each epoch,
by its plan.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.project.atomic import atomic_write, read_table, write_table
from pipeline.project.errors import DataError
from pipeline.served_model.tokenizer import PADDING_ID

CLASSIC_BATCH_SIZE = 64  # the TensorFlow text classification tutorial's, the reference of the reported padding
_FILE = "batches.parquet"
_PLAN = "plan.npz"
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


def bucketed_rows(
    lengths: ArrayLike, *, batch_size: int, pool_batches: int | None, seed: int | Sequence[int]
) -> list[NDArray[np.int64]]:
    """Divides rows of these lengths into batches of similar length; every row is in exactly one.

    Args:
        lengths: <int>[rows].
        batch_size: rows a batch; only the last batch of a pool may have fewer.
        pool_batches: batches whose rows are sorted together; None sorts all rows, which pads least.
        seed: seed of the shuffle that fills the pools and breaks ties of length.

    Returns:
        The rows of each batch.
    """
    lengths = np.asarray(lengths)
    order = np.random.default_rng(seed).permutation(len(lengths))
    pool_rows = pool_batches * batch_size if pool_batches else max(len(order), 1)
    batches = []
    for start in range(0, len(order), pool_rows):
        pool = order[start : start + pool_rows]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return batches


@dataclass(frozen=True)
class Plan:
    """How training draws its batches: the batches of an epoch are a function of seed and epoch alone, so that a
    training that goes on after a kill draws what it would have drawn.

    Attributes:
        lengths: <int>[rows], of all texts that are learnt from.
        batch_size, pool_batches: as in `bucketed_rows`.
        seed: of all epochs.
    """

    lengths: NDArray[np.int64]
    batch_size: int
    pool_batches: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches of an epoch; every epoch has as many."""
        pool, last = divmod(len(self.lengths), self.pool_batches * self.batch_size)
        return pool * self.pool_batches + -(-last // self.batch_size)

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        """Returns the rows of each batch of an epoch, in the order in which they are learnt from."""
        seed = [self.seed, number]
        batches = bucketed_rows(self.lengths, batch_size=self.batch_size, pool_batches=self.pool_batches, seed=seed)
        return [batches[index] for index in np.random.default_rng([*seed, 1]).permutation(len(batches))]


def make_batches(
    token_ids: Sequence[np.ndarray],
    label: ArrayLike,
    ids: Sequence[str],
    *,
    batch_size: int,
    pool_batches: int | None,
    seed: int,
) -> list[Batch]:
    """Divides rows into padded batches of similar length, as `bucketed_rows` does; see `pad` for what is refused."""
    labels, lengths = np.asarray(label, np.int8), [len(row) for row in token_ids]
    return [
        Batch(pad([token_ids[row] for row in rows]), labels[rows], [str(ids[row]) for row in rows])
        for rows in bucketed_rows(lengths, batch_size=batch_size, pool_batches=pool_batches, seed=seed)
    ]


def hide_tokens(token_ids: np.ndarray, share: float, hidden_id: int, rng: np.random.Generator) -> np.ndarray:
    """Returns <int32>[rows, width] token ids of which each real one became `hidden_id` with probability `share`
    (the token dropout of Iyyer et al. 2015, "Deep unordered composition"); padding and lengths stay."""
    if not share:
        return token_ids
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


def write_plan(
    folder: Path, lengths: Mapping[str, ArrayLike], *, batch_size: int, pool_batches: int, seed: int
) -> None:
    """Writes to `folder` the plan of trainings on texts of these lengths, <int>[texts] by what the texts are."""
    kept = {f"lengths_{texts}": np.asarray(found, np.int32) for texts, found in lengths.items()}
    with atomic_write(folder / _PLAN) as aside:
        np.savez(aside, allow_pickle=False, batch_size=batch_size, pool_batches=pool_batches, seed=seed, **kept)


def read_plan(folder: Path, texts: Sequence[str]) -> Plan:
    """Returns the plan of a training on `texts`, in this order, of what `write_plan` wrote.

    Raises:
        DataError: the file is missing or truncated, or has no such texts.
    """
    try:
        with (folder / _PLAN).open("rb") as file, np.load(file, allow_pickle=False) as plan:
            lengths = np.concatenate([plan[f"lengths_{one}"] for one in texts]).astype(np.int64)
            return Plan(lengths, int(plan["batch_size"]), int(plan["pool_batches"]), int(plan["seed"]))
    except Exception as error:  # NumPy and zip raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder / _PLAN} is no plan of {', '.join(texts)} ({reason}); run `dvc repro`") from None


def describe(lengths: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Returns rows, batches, real tokens, padded tokens and `padding_share`, the share of the work that is padding, of
    batches with rows of these lengths, <int>[rows] each."""
    real = sum(int(batch.sum()) for batch in lengths)
    padded = sum(int(batch.max()) * len(batch) for batch in lengths)
    return {
        "rows": sum(map(len, lengths)),
        "batches": len(lengths),
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
