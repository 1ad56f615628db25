"""A table is text for a pipe or a log: whole, aligned, and without colours."""

import subprocess
import sys

import pytest
from conftest import ROOT

from pipeline.project.tables import table

LONG = "word " * 60


def test_columns_are_aligned_under_a_header_with_a_rule() -> None:
    rows = [("model", "accuracy"), ("single", 0.8679), ("映画", "0.9")]
    assert table(rows).splitlines() == ["model   accuracy", "----------------", "single  0.8679", "映画    0.9"]


def test_without_a_header_there_is_no_rule() -> None:
    assert table([("name", "imdb"), ("version", 3)], header=False) == "name     imdb\nversion  3"


def test_a_rule_ends_with_its_header() -> None:
    assert table([("when", "why"), ("now", LONG)]).splitlines()[1] == "---------"


@pytest.mark.parametrize("environment", [{}, {"COLUMNS": "20", "FORCE_COLOR": "1", "TERM": "xterm-256color"}])
def test_a_long_cell_is_neither_cut_nor_wrapped_in_a_pipe(environment: dict[str, str]) -> None:
    code = f"from pipeline.project.tables import table; print(table([('a', 'b', 'c'), ('1', {'x' * 300!r}, {LONG!r})]))"
    environment = environment | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2] == f"1  {'x' * 300}  {LONG.rstrip()}"
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("cell", ["[red]x[/red]", "[/]", ":smile:", "\\[bold]", "https://a.b/c"])
def test_markup_is_shown_as_it_is(cell: str) -> None:
    assert table([("what", "next"), (cell, "1")]).splitlines()[2].split() == [cell, "1"]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\u2028", "\x85"])
def test_a_cell_of_more_lines_stands_on_one(separator: str) -> None:
    assert table([(f"a{separator}b", "c")], header=False) == "a b  c"


def test_no_rows_are_a_header_alone() -> None:
    assert table([("a", "b")]) == "a  b\n----"
