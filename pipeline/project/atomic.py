"""Files that are written whole or not at all, and read with clear errors."""

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.project.errors import DataError, PipelineError, one_line

if TYPE_CHECKING:
    import pandas as pd

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>
_REPLACED = "replaced"
_MADE_BY = "dvc repro"
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write a file or a folder to; it becomes `path` only if the block succeeds.

    The name keeps the suffix of `path`. After an error nothing is left behind and an older `path` is as it was.

    Raises:
        PipelineError: the disk is full or may not be written; the message names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in path.parent.glob(f".{path.stem}.*.partial{path.suffix}"):
        owner = left_behind.name.split(".")[-2 - bool(path.suffix)]
        if owner == _REPLACED and not path.exists():  # killed between two renames
            left_behind.replace(path)
        elif not _is_running(owner):
            _remove(left_behind)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    _remove(aside)
    try:
        yield aside
        if aside.is_dir() and path.exists():
            _exchange(aside, path)
            _remove(aside)
        else:
            if aside.is_file():
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
            aside.replace(path)
    except BaseException as error:
        _remove(aside)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise PipelineError(f"{path} could not be written, and nothing of it was: {error.strerror}") from error
        raise


def _exchange(aside: Path, path: Path) -> None:
    """Gives each of two paths the other's name, in one step where the system has one: renameat2(2) of Linux."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(aside), os.fsencode(path)
    if renameat2 and renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    between = path.with_name(f".{path.stem}.{_REPLACED}.partial{path.suffix}")  # a file system without it
    path.replace(between)
    aside.replace(path)
    between.replace(aside)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Reads UTF-8 text; raises DataError naming `path` if it is missing or something else."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:
        raise DataError(f"{path} is not the text that belongs there ({error}); {_remedy()}") from None


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON; raises ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, keys: Sequence[str] = (), *, made_by: str = _MADE_BY) -> dict[str, Any]:
    """Reads a JSON object that has `keys`; raises DataError naming `path` and the command that it is `made_by` if it is
    missing or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path, made_by) from None
    except ValueError as error:
        raise DataError(f"{path} is not the JSON file that belongs there ({error}); {_remedy(made_by)}") from None
    if not isinstance(content, dict) or (absent := [key for key in keys if key not in content]):
        reason = f"without {', '.join(absent)}" if isinstance(content, dict) else "not an object"
        raise DataError(f"{path} is not the JSON file that belongs there ({reason}); {_remedy(made_by)}")
    return content


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Writes a table as zstd-compressed Parquet, without an index."""
    with atomic_write(path) as aside:
        table.to_parquet(aside, index=False, compression="zstd")


def read_table(path: Path, columns: Sequence[str]) -> "pd.DataFrame":
    """Reads the `columns` of a Parquet file.

    Raises:
        DataError: the file is missing, truncated, not Parquet, or lacks one of the columns.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path, columns=list(columns))
    except FileNotFoundError:
        raise _missing(path) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = one_line(error)
        raise DataError(
            f"{path} is not a Parquet table with the columns {', '.join(columns)} ({reason}); {_remedy()}"
        ) from None


def _remedy(made_by: str = _MADE_BY) -> str:
    return f"remove it and run `{made_by}` to make it anew"


def _missing(path: Path, made_by: str = _MADE_BY) -> DataError:
    return DataError(f"{path} does not exist; run `{made_by}` to make it")
