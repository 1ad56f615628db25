"""Token ids of many texts: one array after the other, memory-mapped, with the offsets at which each text begins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pipeline.project.errors import DataError

_TOKEN_IDS, _OFFSETS, _ROWS = "token_ids.npy", "offsets.npy", "rows.npz"


@dataclass(frozen=True)
class TokenArray(Sequence[NDArray[np.int32]]):
    """A sequence of <int32>[tokens] of which a text is read when it is asked for.

    Attributes:
        token_ids: <uint16 or int32>[all tokens], without padding.
        offsets: <int64>[texts + 1], where each text begins, and at the end where the last one ends.
        id: <str>[texts].
        label: <int8>[texts], None where the texts have none.
    """

    token_ids: NDArray[np.integer]
    offsets: NDArray[np.int64]
    id: NDArray[np.str_]
    label: NDArray[np.int8] | None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text: <int64>[texts]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[NDArray[np.int32]]: ...
    def __getitem__(self, row: int | slice) -> NDArray[np.int32] | Sequence[NDArray[np.int32]]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"there are {len(self)} texts")
        row %= len(self)
        return np.asarray(self.token_ids[self.offsets[row] : self.offsets[row + 1]], np.int32)


def write_tokens(
    folder: Path,
    token_ids: Iterable[NDArray[np.int32]],
    ids: Sequence[str],
    label: Sequence[int] | None,
    *,
    vocabulary_size: int,
) -> None:
    """Writes the token ids of texts with these ids and labels into the new folder `folder`, in two bytes each where the
    vocabulary allows it; the same texts give the same bytes."""
    rows = list(token_ids)
    folder.mkdir(parents=True)
    kept = np.uint16 if vocabulary_size <= 2**16 else np.int32
    np.save(folder / _TOKEN_IDS, np.concatenate([np.empty(0, kept), *(np.asarray(row, kept) for row in rows)]))
    np.save(folder / _OFFSETS, np.cumsum([0, *map(len, rows)], dtype=np.int64))
    labels = {} if label is None else {"label": np.asarray(label, np.int8)}
    np.savez(folder / _ROWS, allow_pickle=False, id=np.asarray(ids, np.str_), **labels)


def read_tokens(folder: Path) -> TokenArray:
    """Returns what `write_tokens` wrote; raises DataError for missing, truncated or foreign files."""
    try:
        token_ids = np.load(folder / _TOKEN_IDS, mmap_mode="r", allow_pickle=False)
        offsets = np.load(folder / _OFFSETS, allow_pickle=False)
        with (folder / _ROWS).open("rb") as file, np.load(file, allow_pickle=False) as rows:
            found = TokenArray(token_ids, offsets, rows["id"], rows.get("label"))
        if offsets.ndim != 1 or not len(offsets) or offsets[0] or (np.diff(offsets) < 0).any():
            raise ValueError("offsets do not rise from 0")
    except Exception as error:  # NumPy and zip raise many kinds for a damaged file
        raise DataError(
            f"{folder} holds no token ids ({' '.join(str(error).split())[:200]}); run `dvc repro`"
        ) from None
    counts = {len(found), len(found.id), len(found) if found.label is None else len(found.label)}
    if len(counts) > 1 or offsets[-1] != len(token_ids):
        raise DataError(f"{folder} holds token ids, ids and offsets that do not belong together; run `dvc repro`")
    return found
