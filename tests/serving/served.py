"""`sentiment serve` for the tests: as a process of its own, or in this one, where its limits can be set."""

import asyncio
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from conftest import ROOT, Registered

from pipeline.serving.server import run
from pipeline.serving.server.app import application
from pipeline.serving.server.batching import Batcher
from pipeline.serving.server.following import Following
from pipeline.serving.server.listening import listen
from pipeline.serving.server.metrics import Metrics
from pipeline.serving.server.service import Service
from pipeline.tracking.relocation import relocate

NAME = "imdb-sentiment-sample"
VERSION = "x-model-version"


@dataclass(frozen=True)
class Server:
    port: int
    process: "subprocess.Popen[str] | None" = None

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, bytes]:
        """Returns status, headers and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        status, _, answer = self.ask(method, path, body, **headers)
        return status, answer

    def post(self, payload: Any) -> tuple[int, Any]:
        """Posts bytes as they are, anything else as JSON; returns the status and the JSON that came back."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        status, answer = self.request("POST", "/invocations", body, Content_Type="application/json")
        return status, json.loads(answer)

    def logits(self, payload: Any) -> list[float]:
        status, answer = self.post(payload)
        assert status == 200, answer
        return [row["logit"] for row in answer["predictions"]]

    def metric(self, name: str) -> float:
        """Returns the sum of a metric over its labels."""
        text = self.request("GET", "/metrics")[1].decode()
        found = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))


@contextmanager
def start(
    folder: Path, *options: str, errors: "int | IO[str]" = subprocess.PIPE, python: Path = Path(sys.executable)
) -> "Iterator[subprocess.Popen[str]]":
    """Begins `sentiment serve` in a project's folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    with subprocess.Popen(
        [str(python), "-m", "pipeline.cli", "serve", *options],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # one that does not end must fail its test, not hang it


def announced(process: "subprocess.Popen[str]") -> Server:
    """Waits until the server that is begun says where it is; the kernel queues connections from before."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"serving \S+ at http://127\.0\.0\.1:(\d+)/invocations\n", line)
    assert found, line + (process.stderr.read() if process.stderr else "")
    return Server(int(found[1]), process)


@contextmanager
def in_this_process(model: str, **options: Any) -> Iterator[tuple[Server, Service]]:
    """Serves a model's folder; `options` are those of `application`."""
    metrics = Metrics()
    service = Service(Following(model, metrics, pinned=True, poll_s=1), metrics, Batcher(metrics))
    listening = listen("127.0.0.1", 0)
    app = application(service, **({"hosts": ("localhost",), "token": None} | options))
    server = run.server(service, app, "", drain_s=0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        yield Server(listening.getsockname()[1]), service
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        listening.close()


def until(condition: Callable[[], bool]) -> None:
    """Returns when `condition` holds; fails where it does not in a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"


def project_copy(registered: Registered, folder: Path) -> Path:
    """Returns a copy of a project with a registry of its own."""
    shutil.copytree(registered.folder, folder, ignore=shutil.ignore_patterns("mlflow.db.pulled"))
    relocate(folder / "mlflow.db")
    return folder
