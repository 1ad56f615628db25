"""Rows of CSV, TSV, JSONL and Parquet files, read and written as streams: a file of any size needs little memory.

CSV is UTF-8 with a header line and commas, TSV has tabs in their place; values stay the strings that they are. JSONL is
one JSON object a line.
What Python cannot hold of a Parquet file, as nanoseconds or the year 10183, stays as Arrow has it.
"""

import codecs
import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.project.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

Types = Mapping[str, "pa.DataType | str"]
"""The type of each column, as Arrow has it, or as it names it: `string`, `bool`, `int64`, `double`."""
Write = Callable[[Sequence[Mapping[str, Any]]], None]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST_FIELD = 2**26
"""Characters of a CSV field; a longer one is an unclosed quote, not a review."""
_PARQUET_ROWS = 512
_LARGEST_EXACT = 2**53
"""Beyond it not every integer is a float64."""
_MOST_NESTED = 100
"""Deeper JSON ends writers and readers that call themselves, also of other programs."""


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    number: int  # counted from 0; a header and blank lines are none
    position: int  # how much of the file has been read at its end, in the unit of `Source.size`
    values: Mapping[str, Any] = field(default_factory=dict)  # by column; empty where the row could not be read
    problem: str | None = None  # why it could not be read: a `kind_of` problem, and often what tells this row
    original: str = ""  # the text of a row that could not be read


@dataclass(frozen=True, repr=False, eq=False)
class ArrowValue:
    """A value of a Parquet file of a type that Python does not hold exactly; its string is its text."""

    array: "pa.Array"  # of this value alone

    def __repr__(self) -> str:
        plain = self.plain()
        return plain if isinstance(plain, str) else _json(plain)

    def plain(self) -> Any:
        """Returns the value as JSON has it: a text, a list or an object."""
        return _plain(self.array[0])


@dataclass(frozen=True)
class Source:
    """A file of rows."""

    types: Types  # what each column of the file, in their order, is in a Parquet file
    size: int  # bytes of the file, or rows of a Parquet file
    rows: Callable[[], Iterator[Row]]  # begins to read the rows; raises DataError where the file is damaged


def require_known_suffix(path: Path) -> str:
    """Returns the suffix of `path`, in lower case; raises UsageError if it is none of SUFFIXES, or pyarrow, which
    Parquet needs, is not installed."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} must end in one of {', '.join(SUFFIXES)}, which says what kind of file it is")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError(f"{path}: Parquet needs the package pyarrow, which is not installed here; use .csv or .jsonl")
    return suffix


def kind_of(problem: str) -> str:
    """Returns what is wrong with a row, without the position or the value that tells the row from others."""
    return problem.partition(":")[0]


def open_source(path: Path, columns: Collection[str] | None = None) -> Source:
    """Finds out the columns of `path`, whose suffix says what it is.

    Args:
        path: the file.
        columns: those of a Parquet file that are read, without it all. What stands in others is then no matter.

    Raises:
        UsageError: the suffix is none of SUFFIXES.
        DataError: the file is missing, cannot be read, or is something else.
    """
    suffix = require_known_suffix(path)
    try:
        if suffix == ".parquet":
            return _parquet_source(path, columns)
        return _csv_source(path, _DELIMITERS[suffix]) if suffix in _DELIMITERS else _jsonl_source(path)
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
                    self.problem = f"not UTF-8: byte {self.position + error.start} of the file"
                    text = line.decode("utf-8", errors="replace")
                self.position += len(line)
                self.read.append(text)
                yield text


def _csv_source(path: Path, delimiter: str) -> Source:
    lines = _Lines(path)
    try:
        header = next(csv.reader(lines, strict=True, delimiter=delimiter), None)
    except csv.Error as error:
        raise DataError(f"{path} is not CSV with a header line: {_csv_problem(error)}") from None
    if lines.problem:
        raise DataError(f"{path} is not CSV with a header line: it is {lines.problem}")
    if not header:
        raise DataError(f"{path} is empty: a CSV file begins with a line of column names")
    named = [header[place] for place in _named(header)]
    _require_distinct(path, named)
    return Source(dict.fromkeys(named, "string"), path.stat().st_size, lambda: _csv_rows(path, delimiter))


def _named(header: Sequence[str]) -> list[int]:
    """Returns the places of the columns that count: all but those without a name, where there are several of them, as
    spreadsheets leave them behind."""
    named = [place for place, name in enumerate(header) if name.strip()]
    return named if len(header) - len(named) > 1 else list(range(len(header)))


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    lines = _Lines(path)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    header = next(reader)
    named = _named(header)
    number = 0
    while True:
        lines.begin()
        try:
            fields = next(reader, None)
            problem = lines.problem and f"the row is {lines.problem}"
        except csv.Error as error:  # the reader goes on at the next line
            fields, problem = [], f"the row is not CSV: {_csv_problem(error)}"
        if fields is None:
            return
        if not fields and not problem:  # a blank line
            continue
        if not problem and len(fields) != len(header):
            problem = f"the row has another number of fields than the header: {len(fields)}, not {len(header)}"
        if not problem and any(field.strip() for place, field in enumerate(fields) if place not in named):
            problem = "the row has a value in a column without a name"
        values = {} if problem else {header[place]: fields[place] for place in named}
        yield Row(number, lines.position, values, problem, "".join(lines.read) if problem else "")
        number += 1


def _csv_problem(error: csv.Error) -> str:
    if "new-line character" in str(error):  # Python speaks of how the file was opened, which is not at fault
        return "a carriage return stands outside quotation marks, without a line feed"
    return str(error)


def _jsonl_source(path: Path) -> Source:
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in _jsonl_rows(path):
        for name, value in row.values.items():
            kinds[name].add(_kind(value))
    types = {name: _column_type(found - {"gap"}) for name, found in kinds.items()}
    return Source(types, path.stat().st_size, lambda: _jsonl_rows(path))


def _kind(value: Any) -> str:
    """Returns what `value` asks of its column's type."""
    if value is None or value != value:  # many write NaN where there is nothing
        return "gap"
    if type(value) is int:
        return "int" if abs(value) <= _LARGEST_EXACT else "long" if -(2**63) <= value < 2**63 else "other"
    return {bool: "bool", float: "float"}.get(type(value), "other")


def _column_type(kinds: set[str]) -> str:
    """Returns the type that holds values of these kinds exactly: integers too large for a float beside floats, and
    whatever else has no common type, become text."""
    columns = [({"bool"}, "bool"), ({"int", "long"}, "int64"), ({"int", "float"}, "double")]
    return next((type_ for held, type_ in columns if kinds and kinds <= held), "string")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    lines = _Lines(path)
    number = 0
    for line in lines:
        line = line.removesuffix("\n")
        if line.strip():
            values, problem = ({}, f"the row is {lines.problem}") if lines.problem else _parse_object(line)
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
        return {}, f"the row holds a lone surrogate: U+{ord(error.object[error.start]):04X}"
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


def _parquet_source(path: Path, asked: Collection[str] | None) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def opened(**options: Any) -> pq.ParquetFile:  # as nanoseconds the times of old programs end in 2262
        return pq.ParquetFile(path, coerce_int96_timestamp_unit="us", **options)

    def rows() -> Iterator[Row]:
        number = 0
        try:
            with opened(buffer_size=2**20) as file:
                for batch in file.iter_batches(_PARQUET_ROWS, columns=None if asked is None else list(types)):
                    for values in zip(*map(_values, batch.columns), strict=True):
                        yield Row(number, number + 1, dict(zip(batch.schema.names, values, strict=True)))
                        number += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is damaged after row {number}: {error}") from None

    try:
        with opened() as file:
            schema, size = file.schema_arrow, file.metadata.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from None
    read = [column for column in schema if asked is None or column.name in asked]
    _require_distinct(path, [column.name for column in read])
    types = {column.name: column.type for column in read}
    return Source({column.name: column.type for column in schema}, size, rows)


def _values(column: "pa.Array") -> list[Any]:
    """Returns the values of a column, in Python where it holds all that may be of their type."""
    import pyarrow as pa

    of, is_ = column.type, pa.types
    of = of.value_type if is_.is_dictionary(of) else of
    binary = is_.is_binary(of) or is_.is_large_binary(of) or is_.is_binary_view(of) or is_.is_fixed_size_binary(of)
    text = is_.is_string(of) or is_.is_large_string(of) or is_.is_string_view(of)
    if binary or text or is_.is_null(of) or is_.is_boolean(of) or is_.is_integer(of) or is_.is_floating(of):
        return list(column.to_pylist())
    there = column.is_valid().to_pylist()
    return [ArrowValue(column.slice(place, 1)) if valid else None for place, valid in enumerate(there)]


def _plain(value: "pa.Scalar") -> Any:
    """Returns `value` as JSON has it: times and decimals as text, bytes too, lists, maps and structs of such values."""
    import pyarrow as pa

    of, is_ = value.type, pa.types
    if not value.is_valid:
        return None
    if isinstance(value, (pa.DictionaryScalar, pa.ExtensionScalar)):
        return str(value.as_py()) if isinstance(value, pa.UuidScalar) else _plain(value.value)
    if isinstance(value, pa.StructScalar):
        return {of.field(place).name: _plain(value[place]) for place in range(of.num_fields)}
    if isinstance(value, pa.MapScalar):  # its keys may be no texts
        return [[_plain(entry[0]), _plain(entry[1])] for entry in value.values]
    if isinstance(value, pa.ListScalar):
        return [_plain(one) for one in value.values]
    if is_.is_duration(of):
        return f"{value.value} {of.unit}"
    if is_.is_timestamp(of) and of.tz:  # no database of time zones is asked for
        return f"{_plain(value.cast(pa.timestamp(of.unit)))}Z"
    if is_.is_temporal(of):
        text = str(value.cast(pa.string()).as_py())
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value.as_py()) if is_.is_decimal(of) else value.as_py()


def _require_distinct(path: Path, columns: Sequence[str]) -> None:
    for column, count in Counter(columns).items():
        if count > 1:
            raise DataError(f"{path} has {count} columns named {column!r}; give each a name of its own")


@contextmanager
def open_sink(path: Path, suffix: str, types: Types) -> Iterator[Write]:
    """Yields a function that appends rows to the new file `path`, of the kind that `suffix` says; what is no text in a
    column of texts becomes JSON."""
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        def value_of(value: Any, kind: pa.DataType) -> Any:
            if value is None or isinstance(value, str):
                return value
            if pa.types.is_floating(kind):
                return float(value)
            if value != value:
                return None
            return _json(value) if pa.types.is_string(kind) else value

        def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
            if any(isinstance(value, ArrowValue) for value in values):
                return pa.concat_arrays([pa.nulls(1, kind) if value is None else value.array for value in values])
            if all(value is None for value in values):
                return pa.nulls(len(values), kind)
            return pa.array([value_of(value, kind) for value in values], kind)

        def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
            return pa.table([column([row.get(name) for row in rows], kind) for name, kind in kinds], schema)

        kinds = [(name, pa.type_for_alias(kind) if isinstance(kind, str) else kind) for name, kind in types.items()]
        schema = pa.schema(kinds)
        with pq.ParquetWriter(path, schema, compression="zstd") as parquet:
            yield lambda rows: parquet.write_table(table(rows))
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix == ".jsonl":
            yield lambda rows: file.writelines(map(json_line, rows))
            return
        # Every string is quoted: one that holds a carriage return comes back whole.
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n", delimiter=_DELIMITERS[suffix])
        writer.writerow(types)
        yield lambda rows: writer.writerows([_csv_value(row.get(name)) for name in types] for row in rows)


def _csv_value(value: Any) -> Any:
    value = _json_value(value) if isinstance(value, (ArrowValue, bytes)) else value
    return value if value is None or type(value) in (str, int, float) else _json(value)


def json_line(row: Mapping[str, Any]) -> str:
    """Returns `row` as a line of JSONL: a NaN or an infinity is null, a date or a decimal its text."""
    return _json(row) + "\n"


def _json_value(value: Any) -> Any:
    """Returns what JSON has for a value that is none of its own: of bytes their UTF-8, of others of them `\\xff`."""
    if isinstance(value, ArrowValue):
        return value.plain()
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=_json_value)
    if "NaN" in text or "Infinity" in text:  # perhaps of a text: it stays what it is
        return json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    return text
