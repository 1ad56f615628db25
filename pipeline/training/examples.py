"""What a network learns from: texts and their targets, in batches drawn anew for each epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.project.atomic import read_table
from pipeline.project.errors import DataError
from pipeline.project.paths import TOKENS, TRAINING_PLAN, teacher_folder
from pipeline.text.batching import Plan, pad, read_plan
from pipeline.text.token_arrays import TokenArray, read_tokens


@dataclass(frozen=True)
class Examples:
    """Texts with their targets.

    Attributes:
        token_ids: <int32>[tokens] for each text.
        target: <float32>[texts], in [0, 1].
        plan: of the batches.
    """

    token_ids: Sequence[NDArray[np.int32]]
    target: NDArray[np.float32]
    plan: Plan

    def epoch(self, number: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """Yields the padded batches of an epoch: token ids <int32>[rows, width], targets <float32>[rows]."""
        for rows in self.plan.epoch(number):
            yield pad([self.token_ids[row] for row in rows]), self.target[rows]


def input_files(teacher: str, texts: Sequence[str]) -> list[Path]:
    """Returns the files that examples are read from."""
    folders = [TRAINING_PLAN, *(TOKENS / one for one in texts)]
    tables = [teacher_folder(teacher) / f"{one}.parquet" for one in texts]
    return [*(file for folder in folders for file in sorted(folder.glob("*"))), *tables]


def read_examples(teacher: str, texts: Sequence[str]) -> Examples:
    """Reads the token ids of `texts` and what the teacher makes of them; token ids stay on disk until they are used.

    Raises:
        DataError: a file is missing or something else, or they are not of the same texts.
    """
    arrays, target = [], []
    for one in texts:
        tokens, file = read_tokens(TOKENS / one), teacher_folder(teacher) / f"{one}.parquet"
        table = read_table(file, ("id", "target"))
        if table["id"].tolist() != tokens.id.tolist():
            raise DataError(f"{file} is not of the texts of {TOKENS / one}; run `dvc repro`")
        arrays.append(tokens)
        target.append(table["target"].to_numpy(np.float32))
    plan = read_plan(TRAINING_PLAN, texts)
    if plan.lengths.tolist() != [length for tokens in arrays for length in tokens.lengths]:
        raise DataError(f"{TRAINING_PLAN} is no plan of the texts in {TOKENS}; run `dvc repro`")
    return Examples(_Joined(arrays), np.concatenate(target), plan)


class _Joined(Sequence[NDArray[np.int32]]):
    """Several arrays of token ids as one."""

    def __init__(self, arrays: Sequence[TokenArray]) -> None:
        self._arrays = arrays
        self._starts = np.cumsum([0, *map(len, arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: Any) -> Any:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._arrays[number][int(row - self._starts[number])]
