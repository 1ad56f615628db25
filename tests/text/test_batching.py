"""Padded batches: every row once, similar lengths together, padding on the right alone."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.project.errors import DataError
from pipeline.text.batching import (
    Plan,
    bucketed_rows,
    classic_padding_share,
    describe,
    hide_tokens,
    make_batches,
    pad,
    read_batches,
    read_plan,
    write_batches,
    write_plan,
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
    batches = batches_of(rows, batch_size=2, pool_batches=None)
    assert describe([batch.lengths for batch in batches]) == {
        "rows": 4,
        "batches": 2,
        "real_tokens": 24,
        "padded_tokens": 26,
        "padding_share": round(2 / 26, 6),
    }


def test_buckets_pad_real_reviews_a_twentieth_of_what_the_classic_batches_do(reviews) -> None:
    lengths = np.array([max(1, len(text) // 5) for text in reviews["text"]])
    rows = bucketed_rows(lengths, batch_size=64, pool_batches=50, seed=0)
    share = describe([lengths[batch] for batch in rows])["padding_share"]
    assert share < 0.05
    assert share < classic_padding_share(lengths, seed=0) / 5


def test_no_batches_have_no_padding() -> None:
    assert describe([]) == {"rows": 0, "batches": 0, "real_tokens": 0, "padded_tokens": 0, "padding_share": 0.0}


plans = st.builds(
    Plan,
    lengths=st.lists(st.integers(1, 1024), max_size=200).map(np.array),
    batch_size=st.integers(1, 9),
    pool_batches=st.integers(1, 6),
    seed=st.integers(0, 2**31 - 1),
)


@given(plans, st.integers(1, 9))
def test_an_epoch_has_every_text_once_in_as_many_batches_as_every_other(plan: Plan, number: int) -> None:
    batches = plan.epoch(number)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(plan.lengths)))
    assert len(batches) == plan.steps
    assert all(1 <= len(batch) <= plan.batch_size for batch in batches)


@given(plans, st.integers(1, 9))
def test_a_batch_of_an_epoch_is_one_that_bucketing_makes(plan: Plan, number: int) -> None:
    made = bucketed_rows(
        plan.lengths, batch_size=plan.batch_size, pool_batches=plan.pool_batches, seed=[plan.seed, number]
    )
    assert sorted(batch.tolist() for batch in plan.epoch(number)) == sorted(batch.tolist() for batch in made)


def test_batches_are_a_function_of_seed_and_epoch_alone_and_differ_between_epochs() -> None:
    def drawn(seed: int, number: int) -> list[list[int]]:
        plan = Plan(np.arange(1, 301) % 40 + 1, batch_size=8, pool_batches=5, seed=seed)
        return [batch.tolist() for batch in plan.epoch(number)]

    assert drawn(1, 3) == drawn(1, 3)
    epochs = [{frozenset(batch) for batch in drawn(1, number)} for number in range(1, 6)]
    assert all(not one & other for one, other in pairwise(epochs)), "not the same batches in another order"
    assert drawn(1, 1) != drawn(2, 1)


def test_short_and_long_batches_of_an_epoch_come_in_any_order() -> None:
    plan = Plan(np.arange(1, 641), batch_size=16, pool_batches=40, seed=0)
    widths = [int(plan.lengths[rows].max()) for rows in plan.epoch(1)]
    assert sorted(widths) == list(range(16, 641, 16))
    assert abs(np.corrcoef(widths, range(40))[0, 1]) < 0.5


@given(plans, st.lists(st.integers(1, 1024), max_size=20))
def test_a_plan_comes_back_from_disk_for_the_texts_that_are_asked_for(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, more: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    drawn = {"batch_size": plan.batch_size, "pool_batches": plan.pool_batches, "seed": plan.seed}
    write_plan(folder, {"train": plan.lengths, "sentences": more}, **drawn)
    read = read_plan(folder, ["train"])
    assert read.lengths.tolist() == plan.lengths.tolist()
    assert [rows.tolist() for rows in read.epoch(2)] == [rows.tolist() for rows in plan.epoch(2)]
    both = read_plan(folder, ["sentences", "train"])
    assert both.lengths.tolist() == [*more, *plan.lengths.tolist()]
    assert both.steps == Plan(both.lengths, **drawn).steps


def test_a_plan_that_is_damaged_or_of_other_texts_is_named(tmp_path: Path) -> None:
    write_plan(tmp_path, {"train": [3, 4]}, batch_size=2, pool_batches=1, seed=0)
    with pytest.raises(DataError, match=r"plan\.npz is no plan of train, unlabelled .*run `dvc repro`"):
        read_plan(tmp_path, ["train", "unlabelled"])
    whole = (tmp_path / "plan.npz").read_bytes()
    for content in (b"", b"not a zip", whole[:-30], whole[: len(whole) // 2]):
        (tmp_path / "plan.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"plan\.npz is no plan of train .*run `dvc repro`"):
            read_plan(tmp_path, ["train"])
    with pytest.raises(DataError, match=r"missing/plan\.npz is no plan"):
        read_plan(tmp_path / "missing", ["train"])


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
