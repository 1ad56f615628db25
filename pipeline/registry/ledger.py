"""The append-only ledger of decisions: one JSON line each, chained by hashes, written by one process at a time.

A line's `hash` is the SHA-256 of its other fields in canonical JSON; `previous` is the hash of the line before it. So
an edited, removed, inserted or reordered line shows in the file itself. A file cut off at its end does not: for that
the head (number and hash of the last line) is kept in a second place, a tag of the registered model.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.project.errors import PipelineError
from pipeline.project.locks import author, exclusive

Line = dict[str, Any]
GENESIS = "0" * 64
"""What stands for the previous hash in the first line."""


@dataclass
class Contents:
    """What a ledger's file holds: its whole `lines`, the `problems` found in them, one sentence each, and the
    `torn` bytes of a last line whose writing was cut short."""

    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    torn: bytes = b""


class Ledger:
    """The ledger in the file `path`, which comes into being with its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def locked(self) -> AbstractContextManager[None]:
        """Holds the ledger for this process; raises BusyError if another process holds it."""
        return exclusive(self.path.with_name(f"{self.path.name}.lock"), "a change of the registry")

    def read(self) -> Contents:
        """Reads and checks the whole file; one that is not there is an empty ledger."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return Contents()
        found = Contents()
        rows = content.split(b"\n")
        last_row = len(rows) - (1 if rows[-1] else 2)
        previous = GENESIS
        for number, row in enumerate(rows[: last_row + 1], start=1):
            line = _parsed(row)
            if line is None:
                if number == last_row + 1:
                    found.torn = content[len(b"\n".join(rows[:last_row])) + bool(last_row) :]
                else:
                    found.problems.append(f"{self.path}: line {number} is not a line of a ledger")
                    previous = ""
                continue
            if line.get("hash") != _hash(line):
                found.problems.append(f"{self.path}: line {number} was edited: its content is not what its hash says")
            elif previous and (line.get("previous") != previous or line.get("seq") != number):
                found.problems.append(
                    f"{self.path}: line {number} does not follow the one before it: a line was edited, removed, "
                    "inserted or moved"
                )
            found.lines.append(line)
            previous = str(line.get("hash"))
        return found

    def append(self, entry: Mapping[str, Any]) -> Line:
        """Adds a line of `entry` and of seq, when (UTC), who, previous and hash, and returns it once it is on disk.

        Call it while holding the lock. What a killed writer left of an unfinished line is dropped first.

        Raises:
            PipelineError: a line before it was edited, or the file cannot be written; nothing was added then.
        """
        contents = self.read()
        if contents.problems:
            raise PipelineError(f"{contents.problems[0]}; `sentiment registry verify` says how to mend it")
        lines = contents.lines
        line = {
            "seq": len(lines) + 1,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": author(),
            **entry,
            "previous": lines[-1]["hash"] if lines else GENESIS,
        }
        line["hash"] = _hash(line)
        try:
            self._write(_canonical(line) + b"\n", drop=len(contents.torn))
        except OSError as error:
            raise PipelineError(f"{self.path} could not be written, and nothing was added: {error.strerror}") from error
        return json.loads(_canonical(line))  # as `read` gives it

    def _write(self, row: bytes, *, drop: int) -> None:
        """Appends `row` durably in place of the last `drop` bytes; after an error the file is as it was."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            end = os.fstat(file).st_size - drop
            os.ftruncate(file, end)
            if end and os.pread(file, 1, end - 1) != b"\n":
                row = b"\n" + row  # a line that was finished but for its line break
            try:
                written = 0
                while written < len(row):
                    written += os.pwrite(file, row[written:], end + written)
                os.fsync(file)
            except OSError:
                os.ftruncate(file, end)
                raise
        finally:
            os.close(file)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def head(lines: list[Line]) -> str:
    """Returns number and hash of the last line, "" where there is none: what the registry's tag holds."""
    return f"{len(lines)}:{lines[-1]['hash']}" if lines else ""


def _parsed(row: bytes) -> Line | None:
    try:
        line = json.loads(row)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _canonical(line: Line) -> bytes:
    return json.dumps(line, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _hash(line: Line) -> str:
    return hashlib.sha256(_canonical({name: value for name, value in line.items() if name != "hash"})).hexdigest()
