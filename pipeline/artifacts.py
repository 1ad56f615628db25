"""Where every file of the pipeline stands, and how one is written whole or not at all and read with clear errors."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError, PipelineError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
RAW_SPLITS = ("train", "test")

RAW = Path("data/raw")
DATASET_INFO = RAW / "dataset_info.json"
SPLIT_TABLES = Path("data/splits")
TOKENS = Path("data/tokens")
BATCHES = Path("data/batches")
PREDICTIONS = Path("data/predictions")
LABELLED = Path("data/labelled")
LABELLED_REVIEWS = LABELLED / "reviews"
LABELLED_POINTER = LABELLED / "reviews.dvc"
INCOMING = Path("data/incoming")
ACCEPTED = Path("data/accepted")
QUARANTINE = Path("data/quarantine")
TOKENIZER = Path("models/tokenizer")
VOCABULARY = TOKENIZER / "vocabulary.txt"
CHECKPOINTS = Path("checkpoints")
REPORTS = Path("reports")
SPLIT_REPORT = REPORTS / "split.json"
VALIDATION_REPORT = REPORTS / "validation.json"
DATA_DOCS = REPORTS / "data_docs"
TOKENIZER_REPORT = REPORTS / "tokenizer.json"
BATCHING_REPORT = REPORTS / "batching.json"
BATCHING_PICTURE = REPORTS / "batching.png"
BASELINE_REPORT = REPORTS / "baseline.json"
COMPARISON_REPORT = REPORTS / "comparison.json"
RECURRENCE_REPORT = REPORTS / "recurrence.json"
REGISTRY_REPORT = REPORTS / "registry.json"
RETRAIN_RECORDS = REPORTS / "retrain"
MODEL_CARD = REPORTS / "model_card.md"
REPORT_PAGE = REPORTS / "index.html"

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}

REVIEW_COLUMNS = ("id", "text", "label")


def model_file(model: str) -> Path:
    return Path("models") / model / "model.keras"


def train_reports(model: str) -> Path:
    return REPORTS / "train" / model


def evaluation_reports(model: str) -> Path:
    return REPORTS / "evaluate" / model


def model_card_file(model: str) -> Path:
    return REPORTS / "model_cards" / f"{model}.md"


def predictions_file(model: str) -> Path:
    return PREDICTIONS / f"{model}.parquet"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write a file or a folder to; it becomes `path` only if the block succeeds.

    The name keeps the suffix of `path`. After an error nothing is left behind and an older `path` is as it was.

    Raises:
        PipelineError: the disk is full or may not be written; the message names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in path.parent.glob(f".{path.stem}.*.partial{path.suffix}"):
        if not _is_running(left_behind.name.split(".")[-2 - bool(path.suffix)]):
            _remove(left_behind)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    _remove(aside)
    try:
        yield aside
        if aside.is_dir():
            _remove(path)
        else:
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException as error:
        _remove(aside)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise PipelineError(f"{path} could not be written, and nothing of it was: {error.strerror}") from error
        raise


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
        raise DataError(f"{path} is not the text that belongs there ({error}); {_REMEDY}") from None


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON; raises ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a JSON object that has `keys`; raises DataError naming `path` if it is missing or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:
        raise DataError(f"{path} is not the JSON file that belongs there ({error}); {_REMEDY}") from None
    if not isinstance(content, dict) or (absent := [key for key in keys if key not in content]):
        reason = f"without {', '.join(absent)}" if isinstance(content, dict) else "not an object"
        raise DataError(f"{path} is not the JSON file that belongs there ({reason}); {_REMEDY}")
    return content


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Writes a table as zstd-compressed Parquet, without an index."""
    with written_whole(path) as aside:
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
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is not a Parquet table with the columns {', '.join(columns)} ({reason}); {_REMEDY}"
        ) from None


_REMEDY = "remove it and run `dvc repro` to make it anew"


def _missing(path: Path) -> DataError:
    return DataError(f"{path} does not exist; run `dvc repro` to make it")
