"""What stands in a file is what comes out of it, whatever of the three kinds it is; what cannot be read is named."""

import codecs
import csv
import json
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.tabular import kind_of, open_sink, open_source
from pipeline.project.errors import DataError


def converted(source: Path, kind: str) -> Path:
    """Copies a file row by row into one of another kind, as `sentiment score` does with the columns it is given."""
    opened, target = open_source(source), source.with_name(f"converted.{kind}")
    with open_sink(target, f".{kind}", opened.types) as write:
        rows = list(opened.rows())
        for begin in range(0, len(rows), 3):
            write([row.values for row in rows[begin : begin + 3]])
    return target


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_byte_order_mark_counts_as_bytes_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "reviews.jsonl"
    content = codecs.BOM_UTF8 + b'{"text": "caf\xe9"}\n{"text": "fine"}\n{"text": "\xe9"}\n'
    file.write_bytes(content)
    problems = [row.problem for row in open_source(file).rows()]
    places = [content.index(b"\xe9"), content.rindex(b"\xe9")]
    assert problems == [
        f"the row is not UTF-8: byte {places[0]} of the file",
        None,
        f"the row is not UTF-8: byte {places[1]} of the file",
    ]
    assert {kind_of(problem) for problem in problems if problem} == {"the row is not UTF-8"}


def test_a_header_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_bytes(b"text,caf\xe9\nfine,1\n")
    with pytest.raises(DataError, match=r"is not CSV with a header line: it is not UTF-8: byte 8 of the file"):
        open_source(file)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "reviews.csv"
    file.write_bytes("\ufefftext,label\nfine,1\n".encode(encoding))
    with pytest.raises(DataError, match=r"reviews\.csv is UTF-16; save it as UTF-8"):
        open_source(file)


def test_columns_without_a_name_that_spreadsheets_leave_behind_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text,label,,,\nfine,1,,,\ndull,0, ,x,\n")
    source = open_source(file)
    first, second = source.rows()
    assert list(source.types) == ["text", "label"] and first.values == {"text": "fine", "label": "1"}
    assert second.problem == "the row has a value in a column without a name" and second.original == "dull,0, ,x,\n"
    file.write_text(",text\n0,fine\n")  # pandas' index
    assert [row.values for row in open_source(file).rows()] == [{"": "0", "text": "fine"}]


def test_a_row_that_is_nested_too_deeply_loses_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "reviews.jsonl"
    deep = "[" * 500 + "]" * 500
    wide = json.dumps([[]] * 500)
    file.write_text(f'{{"text": "one"}}\n{{"text": "two", "meta": {deep}}}\n{{"text": "three", "meta": {wide}}}\n')
    problems = [row.problem for row in open_source(file).rows()]
    assert problems == [None, "the row is nested more than 100 deep", None]


def test_a_carriage_return_alone_is_named(tmp_path: Path) -> None:
    """As old programs of the Macintosh end lines; Python's own message speaks of how the file was opened."""
    file = tmp_path / "reviews.csv"
    file.write_bytes(b"text,label\rfine,1\r")
    with pytest.raises(DataError, match="a carriage return stands outside quotation marks, without a line feed"):
        open_source(file)
    file.write_bytes(b"text,label\nfi\rne,1\nfine,1\n")
    problems = [row.problem for row in open_source(file).rows()]
    assert [problem and kind_of(problem) for problem in problems] == ["the row is not CSV", None]


TENSOR = pa.fixed_shape_tensor(pa.float32(), [2, 2], permutation=[0, 1])
FAR = 3_000_000
"""Days from 1970 to a date in the year 10183."""
UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([date(2024, 1, 31), None]), ["2024-01-31", None]),
        (pa.array([datetime(2024, 1, 31, 18, 30), None], pa.timestamp("us")), ["2024-01-31 18:30:00", None]),
        (pa.array([1, 1_500_000_000], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:01.5"]),
        (
            pa.array([0, 3_600_000], pa.timestamp("ms", "Europe/Berlin")),
            ["1970-01-01 00:00:00Z", "1970-01-01 01:00:00Z"],
        ),
        (pa.array([1, None], pa.timestamp("s", "Nowhere/Unheard-Of")), ["1970-01-01 00:00:01Z", None]),
        (pa.array([time(18, 30), time(18, 30, 1)], pa.time32("s")), ["18:30:00", "18:30:01"]),
        (pa.array([1, 2], pa.time64("ns")), ["00:00:00.000000001", "00:00:00.000000002"]),
        (pa.array([FAR, 0], pa.date32()), ["10183-09-21", "1970-01-01"]),
        (pa.array([2**62, 90], pa.duration("ms")), [f"{2**62} ms", "90 ms"]),
        (pa.array([Decimal("12.50"), Decimal("-0.99")], pa.decimal128(4, 2)), ["12.50", "-0.99"]),
        (pa.array([b"ab", b"\xff"]), ["ab", "\\xff"]),
        (pa.array([b"ab", None], pa.binary(2)), ["ab", None]),
        (pa.array([1, None], pa.date32()).dictionary_encode(), ["1970-01-02", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([bytes(range(16)), None], pa.uuid()), [UUID, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_value_of_any_type_is_text_without_quotation_marks_and_stays_itself_in_parquet(
    tmp_path: Path, column: pa.Array, texts: list[str | None]
) -> None:
    table = pa.table({"text": ["fine", "dull"], "value": column})
    pq.write_table(table, tmp_path / "in.parquet")
    written = pq.read_table(tmp_path / "in.parquet")  # Parquet has no seconds
    assert pq.read_table(converted(tmp_path / "in.parquet", "parquet")).equals(written)
    assert [row["value"] for row in read_jsonl(converted(tmp_path / "in.parquet", "jsonl"))] == texts
    rows = read_csv(converted(tmp_path / "in.parquet", "csv"))
    assert [row["value"] for row in rows] == [text or "" for text in texts]


@pytest.mark.parametrize(
    ("column", "first"),
    [
        (pa.array([["a", "b"], []]), ["a", "b"]),
        (pa.array([[FAR, None], None], pa.list_(pa.date32())), ["10183-09-21", None]),
        (
            pa.array([{"at": 1, "n": 2}, None], pa.struct([("at", pa.time64("ns")), ("n", pa.int8())])),
            {"at": "00:00:00.000000001", "n": 2},
        ),
        (pa.array([[("a", FAR)], None], pa.map_(pa.string(), pa.date32())), [["a", "10183-09-21"]]),
        (pa.array([[[(1, 2)], None], None], pa.list_(pa.map_(pa.int8(), pa.int8()))), [[[1, 2]], None]),
        (
            pa.ExtensionArray.from_storage(TENSOR, pa.array([[0, 1, 2, 3]] * 2, TENSOR.storage_type)),
            [0.0, 1.0, 2.0, 3.0],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_lists_and_structs_are_json_and_stay_themselves_in_parquet(
    tmp_path: Path, column: pa.Array, first: Any
) -> None:
    table = pa.table({"text": ["fine", "dull"], "value": column})
    pq.write_table(table, tmp_path / "in.parquet")
    assert pq.read_table(converted(tmp_path / "in.parquet", "parquet")).equals(table)
    assert read_jsonl(converted(tmp_path / "in.parquet", "jsonl"))[0]["value"] == first
    assert json.loads(read_csv(converted(tmp_path / "in.parquet", "csv"))[0]["value"]) == first


def test_what_stands_in_a_column_that_is_not_asked_for_is_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    undecodable = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pq.write_table(pa.table([pa.array(["fine"]), undecodable, undecodable], ["text", "twice", "twice"]), file)
    source = open_source(file, ("text", "label"))
    assert list(source.types) == ["text", "twice"] and [row.values for row in source.rows()] == [{"text": "fine"}]
    with pytest.raises(DataError, match="has 2 columns named 'twice'"):
        open_source(file)


def test_the_last_day_of_the_year_9999_is_not_one_of_1816(tmp_path: Path) -> None:
    """Spark's and Impala's old timestamps, which as nanoseconds overflow (apache/datafusion#1359)."""
    days = pa.array([datetime(9999, 12, 31), datetime(2024, 1, 31, 18, 30, 0, 5)])
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table({"day": days}), file, use_deprecated_int96_timestamps=True, store_schema=False)
    assert pq.read_table(converted(file, "parquet"))["day"].to_pylist() == days.to_pylist()
    assert read_jsonl(converted(file, "jsonl"))[0] == {"day": "9999-12-31 00:00:00"}


numbers = st.none() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([2**53, 2**53 + 1, 2**63, -(2**63)])


@given(st.lists(numbers, min_size=1))
def test_a_number_of_jsonl_is_exact_in_parquet_or_its_text(
    tmp_path_factory: pytest.TempPathFactory, values: Sequence[int | float | None]
) -> None:
    source = tmp_path_factory.mktemp("numbers") / "in.jsonl"
    source.write_text("".join(json.dumps({"id": value}) + "\n" for value in values))
    column = pq.read_table(converted(source, "parquet"))["id"]
    for value, kept in zip(values, column.to_pylist(), strict=True):
        if value is None or value != value:
            assert kept is None or kept != kept
        elif pa.types.is_string(column.type):
            assert kept == json.dumps(value) or value in (float("inf"), -float("inf"))
        else:
            assert kept == value  # Python compares integers and floats exactly


def test_two_ids_stay_two_beside_a_gap_and_beside_a_float(tmp_path: Path) -> None:
    ids = [1234567890123456789, 1234567890123456788]
    for other, expected in (("NaN", [*ids, None]), ("null", [*ids, None]), ("2.5", [*map(str, ids), "2.5"])):
        source = tmp_path / "in.jsonl"
        source.write_text("".join(f'{{"id": {value}}}\n' for value in (*ids, other)))
        assert pq.read_table(converted(source, "parquet"))["id"].to_pylist() == expected
