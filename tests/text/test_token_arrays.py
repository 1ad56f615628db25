"""Token ids on disk are those that were written, text by text, in two bytes or four."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.project.errors import DataError
from pipeline.text.token_arrays import TokenArray, read_tokens, write_tokens

LARGEST = 2**16


@st.composite
def written(draw: st.DrawFn) -> tuple[list[list[int]], list[str], list[int] | None, int]:
    """Rows of token ids, their ids and labels, and the size of a vocabulary that has them."""
    size = draw(st.sampled_from([300, LARGEST, LARGEST + 1, 2**20]))
    rows = draw(st.lists(st.lists(st.one_of(st.integers(1, size - 1), st.just(size - 1)), max_size=30), max_size=12))
    ids = [draw(st.sampled_from(["train/", "é/", ""])) + str(row) for row in range(len(rows))]
    label = draw(st.none() | st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
    return rows, ids, label, size


def write(folder: Path, rows: list[list[int]], ids: list[str], label: list[int] | None, size: int) -> TokenArray:
    write_tokens(folder, [np.array(row, np.int32) for row in rows], ids, label, vocabulary_size=size)
    return read_tokens(folder)


@given(written())
def test_what_is_written_is_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, given_: tuple[list[list[int]], list[str], list[int] | None, int]
) -> None:
    rows, ids, label, size = given_
    found = write(tmp_path_factory.mktemp("tokens") / "train", *given_)
    assert len(found) == len(rows)
    assert [found[row].tolist() for row in range(len(rows))] == [row.tolist() for row in found] == rows
    assert all(row.dtype == np.int32 for row in found)
    assert found.lengths.tolist() == [len(row) for row in rows]
    assert found.id.tolist() == ids
    assert label == (None if found.label is None else found.label.tolist())
    assert found.token_ids.dtype == (np.uint16 if size <= LARGEST else np.int32)


@given(written(), st.data())
def test_rows_are_those_of_a_list_from_either_end_and_in_slices(
    tmp_path_factory: pytest.TempPathFactory,
    given_: tuple[list[list[int]], list[str], list[int] | None, int],
    data: st.DataObject,
) -> None:
    rows = given_[0]
    found = write(tmp_path_factory.mktemp("tokens") / "train", *given_)
    rows_of = data.draw(st.slices(len(rows)))
    assert [row.tolist() for row in found[rows_of]] == rows[rows_of]
    for row in range(-len(rows), 0):
        assert found[row].tolist() == rows[row]
    for row in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError, match=f"there are {len(rows)} texts"):
            found[row]


def test_token_ids_stay_on_disk_until_they_are_asked_for(tmp_path: Path) -> None:
    found = write(tmp_path / "train", [[1, 2], [3]], ["a", "b"], None, 300)
    assert isinstance(found.token_ids, np.memmap) and found.token_ids.filename is not None
    assert not isinstance(found[0], np.memmap)


def test_the_same_texts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, [[1, 2], [3]], ["a", "b"], [0, 1], 300)
    one, two = ([file.read_bytes() for file in sorted((tmp_path / name).iterdir())] for name in ("one", "two"))
    assert one == two and len(one) == 3


@pytest.mark.parametrize("name", ["token_ids.npy", "offsets.npy", "rows.npz"])
@pytest.mark.parametrize("kept", [None, 0, 40, -3])
def test_a_file_that_is_missing_truncated_or_foreign_is_told_in_one_sentence(
    tmp_path: Path, name: str, kept: int | None
) -> None:
    folder = tmp_path / "train"
    write(folder, [[1, 2], [3]], ["a", "b"], [0, 1], 300)
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(content[:kept])
    with pytest.raises(DataError, match=r"^.*train holds no token ids \(.*\); run `dvc repro`$"):
        read_tokens(folder)


@pytest.mark.parametrize("name", ["token_ids.npy", "offsets.npy", "rows.npz"])
def test_files_of_different_texts_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "train"
    write(folder, [[1, 2], [3]], ["a", "b"], [0, 1], 300)
    write(tmp_path / "other", [[1, 2], [3], [4]], ["a", "b", "c"], [0, 1, 1], 300)
    (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(DataError, match="train holds token ids, ids and offsets that do not belong together"):
        read_tokens(folder)


@pytest.mark.parametrize("offsets", [[], [1, 3], [0, 3, 3, 1], [0, 2, 1, 3], [[0, 2, 3]], 3, [1, 2, 3], [0, 4, 3]])
def test_offsets_that_are_none_are_refused(tmp_path: Path, offsets: object) -> None:
    folder = tmp_path / "train"
    write(folder, [[1, 2], [3]], ["a", "b"], [0, 1], 300)
    np.save(folder / "offsets.npy", np.array(offsets, np.int64))
    with pytest.raises(DataError, match=r"^.*train holds .*; run `dvc repro`$"):
        read_tokens(folder)
