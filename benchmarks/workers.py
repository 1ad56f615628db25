"""Processes that measure one thing each and take turns: `Worker` here asks, `turns` and `answer` reply there.

A worker prepares once and stays warm, so that what is compared is measured in alternation, on one machine in one state,
and each has a peak memory of its own. A request and an answer are one line of JSON.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from pipeline.project.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent
READY = "ready"


class Worker:
    """A `python -m benchmarks.<module>` process that measures once each time it is asked."""

    def __init__(self, module: str, *arguments: Any, environment: Mapping[str, str] | None = None) -> None:
        """Starts the process; its `arguments` are read by `arguments()` there."""
        self._name = f"benchmarks.{module} {' '.join(map(str, arguments))}"
        self._is_ready = False
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 read when the process has failed
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_FORCE_GPU_ALLOW_GROWTH": "true", **(environment or {})},
        )

    def wait_until_ready(self) -> None:
        """Returns when the process waits for its first request; raises PipelineError if it ended instead."""
        if not self._is_ready:
            self._is_ready = self._read() == READY

    def ask(self, request: Any = None) -> Any:
        """Sends `request` and returns the answer; raises PipelineError if the process ended instead."""
        self.wait_until_ready()
        assert self._process.stdin
        with suppress(BrokenPipeError):  # `_read` then says what the process died of
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout
        try:
            return json.loads(self._process.stdout.readline())
        except ValueError:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise PipelineError(f"{self._name} ended with exit code {self._process.returncode}: {last}") from None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if kind is not None:
            self._process.terminate()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


_answers: TextIO | None = None


def arguments() -> list[Any]:
    """In a worker: returns what it was started with. From here on stdout belongs to the answers, and what libraries
    print goes to stderr."""
    global _answers
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return list(json.loads(sys.argv[1]))


def turns() -> Iterator[Any]:
    """In a worker: says that it is ready, and yields each request until there are no more."""
    answer(READY)
    for line in sys.stdin:
        yield json.loads(line)


def answer(content: Any) -> None:
    """In a worker: answers the request of this turn."""
    assert _answers
    _answers.write(json.dumps(content) + "\n")
    _answers.flush()


def peak_memory_mb() -> float:
    """Returns the most memory that this process has held, in MB (2**20 bytes)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, least and greatest of `values`, and how many there are."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "count": len(values),
    }
