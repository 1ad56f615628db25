"""Padded batches: every row once, similar lengths together, padding on the right alone."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.project.errors import DataError
from pipeline.text.batching import (
    classic_padding_share,
    describe,
    hide_tokens,
    make_batches,
    pad,
    read_batches,
    write_batches,
)

rows_of_ids = st.lists(
    st.lists(st.integers(1, 8184), min_size=1, max_size=40).map(lambda ids: np.array(ids, np.int32)),
    min_size=1,
    max_size=60,
)


def batches_of(rows: list[np.ndarray], batch_size: int = 4, pool_batches: int | None = 3, seed: int = 0) -> list:
    labels, ids = [len(row) % 2 for row in rows], [f"train/{index}" for index in range(len(rows))]
    return make_batches(rows, labels, ids, batch_size=batch_size, pool_batches=pool_batches, seed=seed)


@given(rows_of_ids)
def test_padding_adds_zeros_on_the_right_and_nothing_else(rows: list[np.ndarray]) -> None:
    padded = pad(rows)
    assert padded.dtype == np.int32 and padded.shape == (len(rows), max(map(len, rows)))
    for row, ids in zip(padded, rows, strict=True):
        assert (row[: len(ids)] == ids).all() and not row[len(ids) :].any()


@pytest.mark.parametrize(
    ("rows", "width", "message"),
    [
        ([[1, 2], []], None, "row 1 has 0 token ids"),
        ([[1, 2, 3]], 2, "row 0 has 3 token ids; a row of width 2 takes 1 to 2"),
        ([[1, 0, 2]], None, "row 0 holds the padding id"),
    ],
)
def test_a_row_that_padding_would_falsify_is_refused(rows: list, width: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pad([np.array(row, np.int32) for row in rows], width)


@given(rows_of_ids, st.integers(1, 9), st.one_of(st.none(), st.integers(1, 5)), st.integers(0, 99))
def test_every_row_is_in_exactly_one_batch_with_its_label(rows, batch_size, pool_batches, seed) -> None:
    batches = batches_of(rows, batch_size, pool_batches, seed)
    found = {
        name: (ids[ids > 0], label)
        for b in batches
        for name, ids, label in zip(b.id, b.token_ids, b.label, strict=True)
    }
    assert sum(len(batch.id) for batch in batches) == len(found) == len(rows)
    for index, row in enumerate(rows):
        ids, label = found[f"train/{index}"]
        assert (ids == row).all() and label == len(row) % 2
    assert all(len(batch.id) <= batch_size for batch in batches)


@given(rows_of_ids)
def test_batches_of_one_pool_do_not_overlap_in_length(rows: list[np.ndarray]) -> None:
    batches = batches_of(rows, pool_batches=None)
    for shorter, longer in pairwise(batches):
        assert shorter.lengths.max() <= longer.lengths.min()


def test_the_seed_alone_decides_what_a_batch_holds() -> None:
    rows = [np.arange(1, 2 + index % 7, dtype=np.int32) for index in range(100)]
    assert [b.id for b in batches_of(rows, seed=1)] == [b.id for b in batches_of(rows, seed=1)]
    assert [b.id for b in batches_of(rows, seed=1)] != [b.id for b in batches_of(rows, seed=2)]


@given(rows_of_ids)
def test_batches_come_back_from_disk_as_they_were(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    folder = tmp_path_factory.mktemp("batches")
    batches = batches_of(rows)
    write_batches(folder, batches)
    for read, written in zip(read_batches(folder), batches, strict=True):
        assert read.id == written.id
        assert (read.label == written.label).all() and (read.token_ids == written.token_ids).all()
        assert read.token_ids.dtype == np.int32 and read.label.dtype == np.int8


def test_padding_share_counts_the_work_that_is_padding() -> None:
    rows = [np.ones(length, np.int32) for length in (1, 3, 10, 10)]
    assert describe(batches_of(rows, batch_size=2, pool_batches=None)) == {
        "rows": 4,
        "batches": 2,
        "real_tokens": 24,
        "padded_tokens": 26,
        "padding_share": round(2 / 26, 6),
    }


def test_buckets_pad_real_reviews_a_twentieth_of_what_the_classic_batches_do(reviews) -> None:
    rows = [np.ones(max(1, len(text) // 5), np.int32) for text in reviews["text"]]
    share = describe(batches_of(rows, batch_size=64, pool_batches=50))["padding_share"]
    assert share < 0.05
    assert share < classic_padding_share([len(row) for row in rows], seed=0) / 5


@given(st.integers(0, 9))
def test_hidden_tokens_leave_padding_and_lengths_alone(seed: int) -> None:
    token_ids = pad([np.full(length, 7, np.int32) for length in (50, 80, 100)])
    hidden = hide_tokens(token_ids, 0.3, 8184, np.random.default_rng(seed))
    assert ((hidden == 0) == (token_ids == 0)).all()
    assert 0.1 < (hidden == 8184).sum() / (token_ids > 0).sum() < 0.5


@pytest.mark.parametrize("content", [b"", b"not parquet", None])
def test_a_truncated_or_foreign_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    write_batches(tmp_path, batches_of([np.ones(3, np.int32)]))
    file = tmp_path / "batches.parquet"
    file.write_bytes(file.read_bytes()[:-20] if content is None else content)
    with pytest.raises(DataError, match=r"batches\.parquet is not a Parquet table.*dvc repro"):
        read_batches(tmp_path)
