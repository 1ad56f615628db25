"""Bytes that are not UTF-8 are named by their place in the file."""

import codecs
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
