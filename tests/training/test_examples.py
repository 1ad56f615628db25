"""An epoch has every text once with its own target, and files of different texts are refused."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.project.atomic import write_table
from pipeline.project.errors import DataError
from pipeline.project.paths import TOKENS, TRAINING_PLAN, teacher_folder
from pipeline.text.batching import write_plan
from pipeline.text.token_arrays import write_tokens
from pipeline.training.examples import Examples, input_files, read_examples

TEXTS = ("train", "unlabelled")
COUNT = {"train": 50, "unlabelled": 80}
VOCABULARY_SIZE = 1000


def rows_of(texts: str) -> list[np.ndarray]:
    """Each with a first token of its own, from which `target_of` makes its target."""
    first = 1 if texts == "train" else 101
    rng = np.random.default_rng(first)
    return [
        np.append(first + row, rng.integers(200, 900, rng.integers(0, 30))).astype(np.int32)
        for row in range(COUNT[texts])
    ]


def target_of(first_token: np.ndarray) -> np.ndarray:
    return (first_token / 200).astype(np.float32)


def write_plan_of(lengths: dict[str, list[int]]) -> None:
    TRAINING_PLAN.mkdir(parents=True, exist_ok=True)
    write_plan(TRAINING_PLAN, lengths, batch_size=8, pool_batches=3, seed=5)


def write_targets(texts: str, ids: list[str], targets: np.ndarray) -> None:
    write_table(teacher_folder("wise") / f"{texts}.parquet", pd.DataFrame({"id": ids, "target": targets}))


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that stands where `train` begins."""
    monkeypatch.chdir(tmp_path)
    for texts in TEXTS:
        rows, ids = rows_of(texts), [f"{texts}/{row}" for row in range(COUNT[texts])]
        label = [row % 2 for row in range(len(rows))] if texts == "train" else None
        write_tokens(TOKENS / texts, rows, ids, label, vocabulary_size=VOCABULARY_SIZE)
        write_targets(texts, ids, target_of(np.array([row[0] for row in rows])))
    write_plan_of({texts: [len(row) for row in rows_of(texts)] for texts in TEXTS})


@pytest.mark.parametrize("texts", [("train",), TEXTS, TEXTS[::-1]], ids=" and ".join)
def test_an_epoch_holds_every_text_once_with_its_target(taught: None, texts: tuple[str, ...]) -> None:
    examples = read_examples("wise", texts)
    expected = {int(row[0]): row.tolist() for one in texts for row in rows_of(one)}
    for number in (1, 2):
        batches = list(examples.epoch(number))
        assert len(batches) == examples.plan.steps
        for token_ids, target in batches:
            assert (token_ids.dtype, target.dtype) == (np.int32, np.float32)
            assert target.tolist() == target_of(token_ids[:, 0]).tolist()
        found = [row[row > 0].tolist() for token_ids, _ in batches for row in token_ids]
        assert sorted(found) == sorted(expected.values())


def test_epochs_differ_and_are_drawn_again_alike(taught: None) -> None:
    def first_tokens(examples: Examples, number: int) -> list[list[int]]:
        return [token_ids[:, 0].tolist() for token_ids, _ in examples.epoch(number)]

    examples, again = read_examples("wise", TEXTS), read_examples("wise", TEXTS)
    drawn = [first_tokens(examples, number) for number in (1, 2, 3)]
    assert [first_tokens(again, number) for number in (3, 2, 1)] == drawn[::-1]
    assert all(one != other for one, other in pairwise(drawn))


def test_token_ids_stay_on_disk_until_an_epoch_needs_them(taught: None) -> None:
    examples = read_examples("wise", TEXTS)
    assert len(examples.token_ids) == sum(COUNT.values())
    assert all(isinstance(one.token_ids, np.memmap) for one in examples.token_ids._arrays)


def test_targets_of_other_texts_are_refused(taught: None) -> None:
    ids = [f"unlabelled/{row}" for row in range(COUNT["unlabelled"])]
    ids[3], ids[4] = ids[4], ids[3]
    write_targets("unlabelled", ids, np.zeros(len(ids), np.float32))
    assert len(read_examples("wise", ["train"]).target) == COUNT["train"]
    with pytest.raises(DataError, match=r"wise/unlabelled\.parquet is not of the texts of data/tokens/unlabelled; run"):
        read_examples("wise", TEXTS)


def test_a_plan_of_texts_of_other_lengths_is_refused(taught: None) -> None:
    lengths = {texts: [len(row) for row in rows_of(texts)] for texts in TEXTS}
    write_plan_of(lengths | {"train": [1 + length for length in lengths["train"]]})
    with pytest.raises(DataError, match="data/batches/train is no plan of the texts in data/tokens; run `dvc repro`"):
        read_examples("wise", TEXTS)
    write_plan_of(lengths | {"train": lengths["train"][:-1]})
    with pytest.raises(DataError, match="is no plan of the texts"):
        read_examples("wise", TEXTS)


@pytest.mark.parametrize("missing", ["data/teacher/wise/train.parquet", "data/batches/train/plan.npz"])
def test_a_missing_file_is_told(taught: None, missing: str) -> None:
    Path(missing).unlink()
    with pytest.raises(DataError, match="run `dvc repro`"):
        read_examples("wise", TEXTS)


def test_a_checkpoint_can_be_held_to_every_file_that_examples_are_read_from(taught: None) -> None:
    files = {str(file) for file in input_files("wise", ["train"])}
    tokens = {f"data/tokens/train/{name}" for name in ("token_ids.npy", "offsets.npy", "rows.npz")}
    assert files == {"data/batches/train/plan.npz", "data/teacher/wise/train.parquet", *tokens}
