"""The ledger tells everything that was decided, once, in order, and shows every change made to it afterwards."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.project.errors import BusyError, PipelineError
from pipeline.registry.ledger import Ledger, head

LINES = 4


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger of LINES lines."""
    ledger = Ledger(tmp_path / "registry" / "model.jsonl")
    with ledger.locked():
        for number in range(LINES):
            ledger.append({"decision": "promoted", "to": str(number), "evidence": {"accuracy": 0.1 + number / 7}})
    return ledger


def in_process(ledger: Ledger, code: str) -> subprocess.Popen[str]:
    """Begins a process that has `ledger` and runs `code`."""
    preamble = "import os, sys; from pathlib import Path\n"
    preamble += "from pipeline.project.errors import BusyError; from pipeline.registry.ledger import Ledger\n"
    preamble += f"ledger = Ledger(Path({str(ledger.path)!r}))\n"
    return subprocess.Popen(
        [sys.executable, "-c", preamble + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_ledger_begins_empty_and_keeps_what_it_is_given(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "model.jsonl")
    assert ledger.read().lines == [] and head([]) == ""
    entry = {"decision": "first", "to": "1", "reason": "a\nb — “ü”\udcff", "evidence": {"p": 1e-300, "none": None}}
    with ledger.locked():
        written = ledger.append(entry)
    contents = ledger.read()
    assert contents.lines == [written] and not contents.problems and not contents.torn
    assert {name: written[name] for name in entry} == entry
    assert written["seq"] == 1 and "@" in written["who"] and written["when"].endswith("+00:00")
    assert head(contents.lines) == f"1:{written['hash']}"


def test_an_intact_ledger_has_no_problems(ledger: Ledger) -> None:
    contents = ledger.read()
    assert [line["seq"] for line in contents.lines] == [1, 2, 3, 4]
    assert not contents.problems and not contents.torn


def rows(ledger: Ledger) -> list[dict]:
    return [json.loads(row) for row in ledger.path.read_text().splitlines()]


def write(ledger: Ledger, lines: list[dict]) -> None:
    ledger.path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("number", range(LINES))
@pytest.mark.parametrize("name", ["seq", "when", "who", "decision", "to", "evidence", "previous"])
def test_an_edited_field_shows(ledger: Ledger, number: int, name: str) -> None:
    lines = rows(ledger)
    lines[number][name] = "something else"
    write(ledger, lines)
    assert f"line {number + 1} was edited" in ledger.read().problems[0]


@pytest.mark.parametrize("number", range(LINES - 1))
def test_an_edited_line_with_a_new_hash_of_its_own_shows_in_the_next(ledger: Ledger, number: int) -> None:
    scratch = Ledger(ledger.path.with_name("scratch.jsonl"))
    lines = rows(ledger)
    write(scratch, lines[:number])
    with scratch.locked():
        forged = scratch.append({"decision": "promoted", "to": "99", "evidence": {}})
    write(ledger, [*lines[:number], forged, *lines[number + 1 :]])
    (problem, *_) = ledger.read().problems
    assert f"line {number + 2} does not follow" in problem


@pytest.mark.parametrize("change", ["remove", "swap", "repeat"])
def test_a_removed_moved_or_repeated_line_shows(ledger: Ledger, change: str) -> None:
    lines = rows(ledger)
    changed = {
        "remove": [lines[0], *lines[2:]],
        "swap": [lines[0], lines[2], lines[1], lines[3]],
        "repeat": [lines[0], lines[1], lines[1], lines[2], lines[3]],
    }
    write(ledger, changed[change])
    assert "does not follow the one before it" in ledger.read().problems[0]


def test_a_cut_off_end_shows_in_the_head(ledger: Ledger) -> None:
    before = head(ledger.read().lines)
    write(ledger, rows(ledger)[:-1])
    contents = ledger.read()
    assert not contents.problems  # what is left is in order
    assert head(contents.lines) != before


def test_nothing_is_added_to_an_edited_ledger(ledger: Ledger) -> None:
    lines = rows(ledger)
    lines[1]["to"] = "99"
    write(ledger, lines)
    before = ledger.path.read_bytes()
    with ledger.locked(), pytest.raises(PipelineError, match="line 2 was edited"):
        ledger.append({"decision": "kept", "to": "1"})
    assert ledger.path.read_bytes() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kept=st.floats(0, 1))
def test_a_line_torn_anywhere_is_dropped_and_no_finished_line_is_lost(ledger: Ledger, kept: float) -> None:
    original = ledger.path.read_bytes()
    *finished, last = original.splitlines(keepends=True)
    lines, torn = rows(ledger)[:-1], last[: int(kept * (len(last) - 2))]  # the closing brace is missing at least
    ledger.path.write_bytes(b"".join(finished) + torn)
    try:
        contents = ledger.read()
        assert contents.lines == lines and not contents.problems
        assert contents.torn == torn
        with ledger.locked():
            added = ledger.append({"decision": "kept", "to": "1"})
        assert ledger.read().lines == [*lines, added] and not ledger.read().problems
    finally:
        ledger.path.write_bytes(original)


def test_a_line_that_lacks_only_its_line_break_is_finished(ledger: Ledger) -> None:
    lines = rows(ledger)
    ledger.path.write_bytes(ledger.path.read_bytes().rstrip(b"\n"))
    assert ledger.read().lines == lines and not ledger.read().torn
    with ledger.locked():
        added = ledger.append({"decision": "kept", "to": "1"})
    assert ledger.read().lines == [*lines, added]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.floats(0, 1), byte=st.integers(0, 255))
def test_any_byte_that_changes_a_line_shows(ledger: Ledger, position: float, byte: int) -> None:
    original = ledger.path.read_bytes()
    lines, place = ledger.read().lines, int(position * (len(original) - 1))
    changed = bytearray(original)
    changed[place] = byte
    try:
        ledger.path.write_bytes(bytes(changed))
        contents = ledger.read()
        assert contents.problems or contents.torn or contents.lines == lines
    finally:
        ledger.path.write_bytes(original)


def test_a_full_disk_adds_nothing(ledger: Ledger) -> None:
    before = ledger.path.read_bytes()
    limited = in_process(
        ledger,
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 20}, {len(before) + 20}))\n"
        "with ledger.locked():\n"
        "    try: ledger.append({'decision': 'kept', 'to': '1'})\n"
        "    except Exception as error: print(error)\n",
    )
    assert "nothing was added: File too large" in limited.communicate(timeout=60)[0]
    assert ledger.path.read_bytes() == before


def test_a_second_process_is_told_and_a_killed_one_gives_the_lock_back(ledger: Ledger) -> None:
    holder = in_process(ledger, "with ledger.locked(): print('held', flush=True); sys.stdin.read()")
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"process {holder.pid} of .*nothing was done") as told, ledger.locked():
        pass
    assert told.value.exit_code == 75
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with ledger.locked():
        pass


def test_processes_that_write_at_once_lose_no_line(ledger: Ledger) -> None:
    each = 25
    code = f"""
for number in range({each}):
    while True:
        try:
            with ledger.locked():
                ledger.append({{"decision": "kept", "to": f"{{os.getpid()}}.{{number}}"}})
            break
        except BusyError:
            pass
"""
    writers = [in_process(ledger, code) for _ in range(2)]
    for writer in writers:
        assert writer.communicate(timeout=60)[1] == ""
    contents = ledger.read()
    assert not contents.problems
    expected = {f"{writer.pid}.{number}" for writer in writers for number in range(each)}
    assert {line["to"] for line in contents.lines[LINES:]} == expected
    assert len(contents.lines) == LINES + 2 * each
