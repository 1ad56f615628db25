"""Taking in files of new labelled reviews: what is usable joins the data set, what is not is quarantined.

A file in `data/incoming/` is read to its end before anything is done with it. Then, in this order: its unusable rows
are written to `data/quarantine/`, its usable ones become a batch of the data set, and it moves to `data/accepted/`.
Each step is done whole or not at all, under a key that names the file's content, and is harmless to do again: a kill
between two of them loses no row and takes none twice.
"""

import errno
import fcntl
import hashlib
import math
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.copies import keyed
from pipeline.data.expectations import POSITIVE_SHARE, validate_incoming
from pipeline.data.labelled import DTYPES, ID_PREFIX, append, batch_of, read_labelled
from pipeline.data.splits import assigned, contradictory, is_fresh, new_reviews, split_reviews
from pipeline.data.tabular import SUFFIXES, json_line, kind_of, open_source
from pipeline.project.atomic import atomic_write, read_table
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import IntakeParams, Params
from pipeline.project.paths import ACCEPTED, INCOMING, QUARANTINE, RAW, RAW_SPLITS, REVIEW_COLUMNS
from pipeline.served_model.tokenizer import why_unusable

if TYPE_CHECKING:
    import pandas as pd

LABELS = {"negative": 0, "positive": 1}
_MISSING_TIMES = ("", "nan", "nat", "none", "null")
_STRAY_LABELS = 0.01
"""Share of the rows from which on numbers that are no labels are another scale, if there are at least two."""
REQUIRED = ("text", "label")
_READ = (*REQUIRED, "id", "timestamp")
_LONGEST_NAME = 180
"""Bytes of a source file's name within those of its files in quarantine, of which Linux takes 255 each."""
_UNKNOWN_FACTOR = 60
_COLUMNS = ("id", "text", "label", "source_file", "source_row", "source_id", "timestamp")


class Known:
    """The reviews there are before a file is taken in, with their keys: `labelled` ones, and the raw `train` and
    `test`, empty tables where they are not there."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.labelled = keyed(read_labelled())
        files = [RAW / f"{split}.parquet" for split in RAW_SPLITS]
        self.train, self.test = (
            keyed(read_table(file, REVIEW_COLUMNS)) if file.exists() else self.labelled.head(0) for file in files
        )

    def trained_on(self) -> "pd.DataFrame":
        """Returns the labelled reviews that the stage `split` gives to train and validation."""
        new, _ = new_reviews(self.train, self.test, self.labelled)
        return new[~is_fresh(new, self.params.split.fresh_rows)]

    def add(self, labelled: "pd.DataFrame") -> None:
        """Counts new labelled reviews as known from now on."""
        self.labelled = self._with(labelled)

    def why_refused(self, labelled: "pd.DataFrame") -> str | None:
        """Returns why the stage `validate` would refuse what `split` makes of all reviews with these new ones, tonight
        or once fresh ones have joined train and validation, None where it would not."""
        split, seed = self.params.split, self.params.seed
        tables, _ = split_reviews(
            self.train,
            self.test,
            self._with(labelled),
            validation_fraction=split.validation_fraction,
            fresh_rows=split.fresh_rows,
            seed=seed,
        )
        low, high = POSITIVE_SHARE
        fresh = keyed(tables["fresh"])
        goes_to = assigned(fresh, split.validation_fraction, seed)
        for name in ("train", "validation"):
            labels = np.concatenate([tables[name]["label"], fresh["label"][goes_to == name]])
            shares = (np.cumsum(labels) / np.arange(1, len(labels) + 1))[len(tables[name]) - 1 :]  # as one by one joins
            for share in (shares.min(), shares.max()):
                if not low <= share <= high:
                    return (
                        f"with it {share:.1%} of the {name} reviews would be positive, where {low:.0%} to {high:.0%} "
                        "may be"
                    )
        return None

    def _with(self, labelled: "pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        return pd.concat([self.labelled, keyed(labelled[list(REVIEW_COLUMNS)])], ignore_index=True)


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be trained on: its number in the file, counted from 0, why, and what it holds."""

    row: int
    reason: str
    content: Any


@dataclass(frozen=True)
class Finding:
    """What a file holds."""

    file: Path
    key: str  # the beginning of the SHA-256 of its bytes
    state: tuple[int, int]  # its size and time of change when it was read
    good: "pd.DataFrame"  # its usable rows, with the columns of a batch
    unusable: tuple[Unusable, ...]  # the others
    problem: str | None  # why the file as a whole is refused
    warnings: tuple[str, ...]  # advisory expectations that it breaks
    new: int  # how many of the usable rows no other review has the text of
    known: bool  # it was taken in before; then nothing of it is read again

    @property
    def added(self) -> "pd.DataFrame":
        """The rows that the file adds to the labelled reviews."""
        return self.good.head(0) if self.problem or self.known else self.good

    @property
    def reasons(self) -> Counter[str]:
        """How many rows are unusable for each kind of reason."""
        return Counter(kind_of(row.reason) for row in self.unusable)

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures, JSON-able."""
        return {
            "file": self.file.name,
            "key": self.key,
            "usable_rows": len(self.good),
            "new_rows": self.new,
            "unusable_rows": len(self.unusable),
            "reasons": dict(self.reasons.most_common(10)),
            "refused": self.problem,
            "warnings": list(self.warnings),
            "taken_in_before": self.known,
        }

    def __str__(self) -> str:
        if self.problem:
            return f"{self.file}: refused as a whole: {self.problem}"
        if self.known:
            return f"{self.file}: taken in before, nothing is added"
        sentence = f"{self.file}: {len(self.good):,} usable rows, {self.new:,} of them new"
        if self.unusable:
            reasons = "; ".join(f"{count:,} × {reason}" for reason, count in self.reasons.most_common(3))
            sentence += f"; {len(self.unusable):,} quarantined ({reasons})"
        return sentence


def incoming(params: IntakeParams, now: float | None = None) -> tuple[list[Path], list[str]]:
    """Returns the files that can be taken in, by name, and of the others a sentence each why they are left there.

    A file is left while a process has it open for writing, and for `settle_seconds` after its last change; where it
    cannot be known who has it open, for _UNKNOWN_FACTOR times as long.
    """
    now = time.time() if now is None else now
    ready, left = [], []
    for file in sorted(INCOMING.glob("[!.]*")):
        try:
            file.name.encode("utf-8")
        except UnicodeEncodeError:  # no record could hold it
            left.append(f"{INCOMING}/{file.name!a} is left: its name is not UTF-8; rename it")
            continue
        if file.is_symlink() or not file.is_file():  # what a link leads to may be anything, and change
            kind = "a link" if file.is_symlink() else "no file"
            left.append(f"{file} is left: it is {kind}; copy the file itself here")
            continue
        age = now - file.stat().st_mtime
        if file.suffix.lower() not in SUFFIXES:
            left.append(f"{file} is left: it ends in none of {', '.join(SUFFIXES)}")
            continue
        try:
            being_written = _is_open_for_writing(file)
        except OSError as error:
            left.append(f"{file} is left: it cannot be read ({error.strerror})")
            continue
        settle = params.settle_seconds * (_UNKNOWN_FACTOR if being_written is None else 1)
        if being_written or 0 <= age < settle:
            left.append(f"{file} is left for the next time: it is still being written")
        else:
            ready.append(file)  # one from the future too: the clock went backwards
    return ready, left


def _is_open_for_writing(file: Path) -> bool | None:
    """Whether a process of this machine may still write to `file`: Linux grants no read lease then (fcntl(2)). None
    where that cannot be known: the file is another user's, or its file system has no leases."""
    with file.open("rb") as opened:
        try:
            # Whoever opens the file meanwhile breaks the lease: its holder hears of it by SIGIO, which would end it, if
            # no other signal is named here. SIGURG is one that a process may not notice.
            fcntl.fcntl(opened, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            return True if error.errno == errno.EAGAIN else None
    return False


def examine(file: Path, known: Known, params: IntakeParams) -> Finding:
    """Reads a file, and says what would be done with it, without doing anything.

    Raises:
        DataError: the raw reviews are not there, without which it is not known what is new.
    """
    import pandas as pd

    if known.train.empty:
        raise DataError(f"{RAW} is not there, so what is new cannot be told; `dvc repro download` makes it")

    stat = file.stat()
    with file.open("rb") as opened:
        key = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    taken = batch_of(key) is not None
    rows, unusable, problem = ([], [], None) if taken else read(file, key)
    table = keyed(pd.DataFrame(rows, columns=list(_COLUMNS)).astype({**DTYPES, "source_row": "int64"}))
    warnings: list[str] = []
    # Of two rows of a file that contradict each other neither is believed.
    conflicting = table.groupby("key")["label"].transform("nunique") > 1
    conflicting |= contradictory(table, known.train, known.test, known.labelled)
    if not problem and len(table):
        report = validate_incoming(file, table[list(REVIEW_COLUMNS)], conflicting, params)
        problem = "; ".join(map(str, report.broken("critical"))) or known.why_refused(table[~conflicting])
        warnings = [str(outcome) for outcome in report.broken("advisory")]
    if not problem:
        unusable += [
            Unusable(row, "the text has the other label elsewhere", {"text": text, "label": label})
            for row, text, label in table.loc[conflicting, ["source_row", "text", "label"]].itertuples(index=False)
        ]
        table = table[~conflicting]
    new, _ = new_reviews(known.train, pd.concat([known.test, known.labelled]), table)
    table = table.drop(columns="key")
    return Finding(
        file=file,
        key=key,
        state=(stat.st_size, stat.st_mtime_ns),
        good=table,
        unusable=tuple(sorted(unusable, key=lambda one: one.row)),
        problem=problem,
        warnings=tuple(warnings),
        new=0 if problem else len(new),
        known=taken,
    )


def read(file: Path, key: str) -> tuple[list[dict[str, Any]], list[Unusable], str | None]:
    """Returns the usable rows of a file as a batch has them, the others, and why the file is refused as a whole for
    what is in it, None where it is not: it cannot be read to its end, or its labels are of another scale."""
    rows: list[dict[str, Any]] = []
    unusable: list[Unusable] = []
    numbers: Counter[str] = Counter()  # that are no labels
    try:
        source = open_source(file, _READ)
        if missing := [column for column in REQUIRED if column not in source.types]:
            raise DataError(f"it has no column {' and no column '.join(missing)}; there are {', '.join(source.types)}")
        for row in source.rows():
            if reason := row.problem or _why_refused(row.values):
                label = row.values.get("label")
                if read_label(label) is None and _number(label) is not None:
                    numbers[str(label).strip()] += 1
                unusable.append(Unusable(row.number, reason, row.original or row.values))
                continue
            source_id, timestamp = row.values.get("id"), row.values.get("timestamp")
            rows.append(
                {
                    "id": f"{ID_PREFIX}{key}/{row.number}",
                    "text": row.values["text"],
                    "label": read_label(row.values["label"]),
                    "source_file": file.name,
                    "source_row": row.number,
                    "source_id": None if source_id is None else str(source_id),
                    "timestamp": None if _is_missing(timestamp) else str(timestamp),
                }
            )
    except DataError as error:
        return rows, unusable, str(error)
    return rows, unusable, _other_scale(numbers, len(rows) + len(unusable))


def _why_refused(values: Mapping[str, Any]) -> str | None:
    """Returns why a row cannot be trained on, None if it can."""
    text, label, timestamp = (values.get(column) for column in ("text", "label", "timestamp"))
    if reason := why_unusable(text):
        return reason
    if "\x00" in str(text):  # the stage `validate` refuses it
        return "the text holds a NUL character"
    if read_label(label) is None:
        return f"the label is not 0, 1, negative or positive: {label!r}"
    if not _is_missing(timestamp) and not _is_time(timestamp):
        return f"the timestamp is not ISO 8601 nor seconds since 1970: {timestamp!r}"
    return None


def read_label(value: Any) -> int | None:
    """Returns 0 or 1 for what a file has as a label, None for what is none."""
    number = _number(value)
    if number in (0, 1):  # 1.0 too: a column of integers with gaps comes as floats
        return int(number)
    return LABELS.get(str(value).strip().lower())


def _number(value: Any) -> float | None:
    """Returns the number that `value` is or spells, None where it is none, and for a truth value or a NaN."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if number == number else None


def _other_scale(labels: Counter[str], rows: int) -> str | None:
    """Returns why a file of `rows` rows is refused for the numbers beside 0 and 1 in its column `label`, None where
    they may be slips: where 1 is the worse of 1 and 2, or one star of five, it must not become a positive review."""
    if sum(labels.values()) < 2 or sum(labels.values()) <= _STRAY_LABELS * rows:
        return None
    found = ", ".join(f"{count:,} × {label}" for label, count in labels.most_common(5))
    return f"its labels are of another scale than 0 and 1 ({found}); write them as 0 and 1 or negative and positive"


def _is_missing(value: Any) -> bool:
    return value is None or str(value).strip().lower() in _MISSING_TIMES


def _is_time(value: Any) -> bool:
    """Whether `value` is a date or time as ISO 8601 has it, or a number of seconds."""
    try:
        return bool(datetime.fromisoformat(str(value)))
    except ValueError:
        try:
            return math.isfinite(float(str(value)))
        except ValueError:
            return False


def _shortened(name: str) -> str:
    """Returns a file's name, of a long one the beginning and the suffix."""
    suffix = Path(name).suffix
    beginning = name.removesuffix(suffix).encode()[: _LONGEST_NAME - len(suffix)].decode(errors="ignore")
    return f"{beginning}{suffix}"


def take(finding: Finding) -> bool:
    """Does with the file what was found; returns whether it could: False where it changed since it was read.

    Raises:
        PipelineError: the file cannot be moved, or what is written cannot be.
    """
    file, name = finding.file, f"{finding.key}-{_shortened(finding.file.name)}"
    stat = file.stat()
    if (stat.st_size, stat.st_mtime_ns) != finding.state:
        return False
    kind, lines = "rows", [{"file": file.name, **vars(row)} for row in finding.unusable]
    if finding.problem:
        kind, lines = "reason", [{"file": file.name, "reason": finding.problem}]
    if lines:
        with atomic_write(QUARANTINE / f"{name}.{kind}.jsonl") as aside, aside.open("w", encoding="utf-8") as opened:
            opened.writelines(map(json_line, lines))
    if len(finding.added):
        append(finding.key, finding.added)
    folder = QUARANTINE if finding.problem else ACCEPTED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(file, folder / name)
    except OSError as error:
        raise PipelineError(
            f"{file} cannot be moved to {folder} ({error.strerror}); its rows are safe, and the next run moves it: let "
            f"this user write to {file.parent} and {folder}"
        ) from None
    return True
