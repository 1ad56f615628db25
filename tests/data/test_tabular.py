"""Bytes that are not UTF-8 are named by their place in the file."""

import codecs
import json
from pathlib import Path

import pytest

from pipeline.data.tabular import open_source
from pipeline.project.errors import DataError


def test_a_byte_order_mark_counts_as_bytes_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "reviews.jsonl"
    content = codecs.BOM_UTF8 + b'{"text": "caf\xe9"}\n{"text": "fine"}\n{"text": "\xe9"}\n'
    file.write_bytes(content)
    problems = [row.problem for row in open_source(file).rows()]
    places = [content.index(b"\xe9"), content.rindex(b"\xe9")]
    assert problems == [
        f"byte {places[0]} of the file is not UTF-8",
        None,
        f"byte {places[1]} of the file is not UTF-8",
    ]


def test_a_header_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_bytes(b"text,caf\xe9\nfine,1\n")
    with pytest.raises(DataError, match=r"reviews\.csv is not CSV with a header line: byte 8 of the file is not UTF-8"):
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
