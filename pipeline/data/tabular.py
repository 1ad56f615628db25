"""Rows of CSV, JSONL and Parquet files, read and written as streams: a file of any size needs little memory.

CSV is UTF-8 with a header line and commas; its values stay the strings that they are. JSONL is one JSON object a line.
"""

import codecs
import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.project.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    Types = Mapping[str, pa.DataType]
    Write = Callable[[Sequence[Mapping[str, Any]]], None]

SUFFIXES = (".csv", ".jsonl", ".parquet")
LONGEST_FIELD = 2**26
"""Characters of a CSV field; a longer one is an unclosed quote, not a review."""
_PARQUET_ROWS = 512
_MOST_NESTED = 100
"""Deeper JSON ends writers and readers that call themselves, also of other programs."""


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    number: int  # counted from 0; a header and blank lines are none
    position: int  # how much of the file has been read at its end, in the unit of `Source.size`
    values: Mapping[str, Any] = field(default_factory=dict)  # by column; empty where the row could not be read
    problem: str | None = None  # why it could not be read
    original: str = ""  # the text of a row that could not be read


@dataclass(frozen=True)
class Source:
    """A file of rows."""

    types: "Types"  # what each column of the file, in their order, is in a Parquet file
    size: int  # bytes of the file, or rows of a Parquet file
    rows: Callable[[], Iterator[Row]]  # begins to read the rows; raises DataError where the file is damaged


def require_known_suffix(path: Path) -> str:
    """Returns the suffix of `path`, in lower case; raises UsageError if it is none of SUFFIXES."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} must end in one of {', '.join(SUFFIXES)}, which says what kind of file it is")
    return suffix


def open_source(path: Path) -> Source:
    """Finds out the columns of `path`, whose suffix says what it is.

    Raises:
        UsageError: the suffix is none of SUFFIXES.
        DataError: the file is missing, cannot be read, or is something else.
    """
    opened = {".csv": _csv_source, ".jsonl": _jsonl_source, ".parquet": _parquet_source}[require_known_suffix(path)]
    try:
        return opened(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


class _Lines:
    """The lines of a UTF-8 file; since `begin`, those read, and where they are not UTF-8."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.position = 0
        self.begin()

    def begin(self) -> None:
        self.problem: str | None = None
        self.read: list[str] = []

    def __iter__(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            for line in file:
                if self.position == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise DataError(f"{self._path} is UTF-16; save it as UTF-8")
                if self.position == 0 and line.startswith(codecs.BOM_UTF8):
                    self.position, line = len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    self.problem = f"byte {self.position + error.start} of the file is not UTF-8"
                    text = line.decode("utf-8", errors="replace")
                self.position += len(line)
                self.read.append(text)
                yield text


def _csv_source(path: Path) -> Source:
    import pyarrow as pa

    lines = _Lines(path)
    try:
        header = next(csv.reader(lines, strict=True), None)
    except csv.Error as error:
        raise DataError(f"{path} is not CSV with a header line: {error}") from None
    if lines.problem:
        raise DataError(f"{path} is not CSV with a header line: {lines.problem}")
    if not header:
        raise DataError(f"{path} is empty: a CSV file begins with a line of column names")
    named = [header[place] for place in _named(header)]
    _require_distinct(path, named)
    return Source(dict.fromkeys(named, pa.string()), path.stat().st_size, lambda: _csv_rows(path))


def _named(header: Sequence[str]) -> list[int]:
    """Returns the places of the columns that count: all but those without a name, where there are several of them, as
    spreadsheets leave them behind."""
    named = [place for place, name in enumerate(header) if name.strip()]
    return named if len(header) - len(named) > 1 else list(range(len(header)))


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    lines = _Lines(path)
    reader = csv.reader(lines, strict=True)
    header = next(reader)
    named = _named(header)
    number = 0
    while True:
        lines.begin()
        try:
            fields = next(reader, None)
            problem = lines.problem
        except csv.Error as error:  # the reader goes on at the next line
            fields, problem = [], f"the row is not CSV: {error}"
        if fields is None:
            return
        if not fields and not problem:  # a blank line
            continue
        if not problem and len(fields) != len(header):
            problem = f"the row has {len(fields)} fields, the header {len(header)}"
        if not problem and any(field.strip() for place, field in enumerate(fields) if place not in named):
            problem = "the row has a value in a column without a name"
        values = {} if problem else {header[place]: fields[place] for place in named}
        yield Row(number, lines.position, values, problem, "".join(lines.read) if problem else "")
        number += 1


def _jsonl_source(path: Path) -> Source:
    import pyarrow as pa

    kinds: dict[str, set[type]] = defaultdict(set)
    for row in _jsonl_rows(path):
        for name, value in row.values.items():
            is_huge = type(value) is int and not -(2**63) <= value < 2**63
            kinds[name].add(str if is_huge else type(value))
    columns = {(bool,): pa.bool_(), (int,): pa.int64(), (float,): pa.float64(), (int, float): pa.float64()}
    of_kinds = {frozenset(found): type_ for found, type_ in columns.items()}
    types = {name: of_kinds.get(frozenset(found - {type(None)}), pa.string()) for name, found in kinds.items()}
    return Source(types, path.stat().st_size, lambda: _jsonl_rows(path))


def _jsonl_rows(path: Path) -> Iterator[Row]:
    lines = _Lines(path)
    number = 0
    for line in lines:
        line = line.removesuffix("\n")
        if line.strip():
            values, problem = ({}, lines.problem) if lines.problem else _parse_object(line)
            yield Row(number, lines.position, values, problem, line if problem else "")
            number += 1
        lines.begin()


def _parse_object(line: str) -> tuple[dict[str, Any], str | None]:
    """Returns the JSON object in `line`, or an empty one and why there is none."""
    try:
        parsed = json.loads(line)
        if line.count("[") + line.count("{") > _MOST_NESTED and _depth(parsed) > _MOST_NESTED:
            return {}, f"the row is nested more than {_MOST_NESTED} deep"
        if "\\ud" in line.lower():  # the escape of a surrogate, perhaps a lone one, which no file can hold
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        return {}, f"the row holds the lone surrogate U+{ord(error.object[error.start]):04X}"
    except (ValueError, RecursionError) as error:
        return {}, f"the row is not JSON: {error}"
    return (parsed, None) if isinstance(parsed, dict) else ({}, "the row is not a JSON object")


def _depth(value: Any) -> int:
    """Returns how many lists and objects stand inside each other in `value`."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _parquet_source(path: Path) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows() -> Iterator[Row]:
        number = 0
        try:
            with pq.ParquetFile(path, buffer_size=2**20) as file:
                for batch in file.iter_batches(_PARQUET_ROWS):
                    for values in batch.to_pylist():
                        yield Row(number, number + 1, values)
                        number += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is damaged after row {number}: {error}") from None

    try:
        with pq.ParquetFile(path) as file:
            schema, size = file.schema_arrow, file.metadata.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from None
    _require_distinct(path, schema.names)
    return Source({column.name: column.type for column in schema}, size, rows)


def _require_distinct(path: Path, columns: Sequence[str]) -> None:
    for column, count in Counter(columns).items():
        if count > 1:
            raise DataError(f"{path} has {count} columns named {column!r}; give each a name of its own")


@contextmanager
def open_sink(path: Path, suffix: str, types: "Types") -> "Iterator[Write]":
    """Yields a function that appends rows to the new file `path`, of the kind that `suffix` says; what is no text in a
    column of texts becomes JSON."""
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        def value_of(value: Any, kind: pa.DataType) -> Any:
            if value is None or isinstance(value, str):
                return value
            if pa.types.is_string(kind):
                return _json(value)
            return float(value) if pa.types.is_float64(kind) else value

        def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
            columns = {name: [value_of(row.get(name), kind) for row in rows] for name, kind in types.items()}
            return pa.table(columns, schema)

        schema = pa.schema(list(types.items()))
        with pq.ParquetWriter(path, schema, compression="zstd") as parquet:
            yield lambda rows: parquet.write_table(table(rows))
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix == ".jsonl":
            yield lambda rows: file.writelines(map(json_line, rows))
            return
        # Every string is quoted: one that holds a carriage return comes back whole.
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(types)
        yield lambda rows: writer.writerows([_csv_value(row.get(name)) for name in types] for row in rows)


def _csv_value(value: Any) -> Any:
    return value if value is None or type(value) in (str, int, float) else _json(value)


def json_line(row: Mapping[str, Any]) -> str:
    """Returns `row` as a line of JSONL: a NaN or an infinity is null, a date or a decimal its text."""
    return _json(row) + "\n"


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    if "NaN" in text or "Infinity" in text:  # perhaps of a text: it stays what it is
        return json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    return text
