"""MLflow stores of the test's own: a local one, and a server's."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import track_in

from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store without runs; making it takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        track_in(folder, patch)
        runs.connect.cache_clear()
        runs.connect()
        runs.connect.cache_clear()
    return folder / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, project: Path) -> Iterator[Path]:
    """The file of a store in the test's project folder, that nothing has connected to yet."""
    runs.connect.cache_clear()
    yield Path(shutil.copy(empty_store, project))
    runs.connect.cache_clear()


@pytest.fixture
def client(store: Path) -> "MlflowClient":
    """A client of the test's store."""
    return runs.connect()


@contextmanager
def mlflow_server(
    folder: Path, *, workers: int = 1, environment: Mapping[str, str] | None = None
) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
    """Runs an MLflow server whose store and artifacts are in `folder`, and yields its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    store = ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", "./server-artifacts"]
    where = ["--host", "127.0.0.1", "--port", port, "--workers", str(workers)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *store, *where],
        cwd=folder,
        env={**(environment or os.environ), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight more processes
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    reader = threading.Thread(target=server.stdout.read)  # so that the pipe is never full
    try:
        # With one worker uvicorn says the first before it takes the port, with several the other way round.
        expected = {"startup complete", "Uvicorn running on"}
        while expected:
            line = server.stdout.readline()
            assert line, "the server ended before it served"
            expected -= {said for said in expected if said in line}
        reader.start()
        yield f"http://127.0.0.1:{port}", server
    finally:
        stop(server)
        if reader.ident:
            reader.join()
        server.stdout.close()


def stop(server: "subprocess.Popen[str]") -> None:
    """Kills the server with its workers."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
