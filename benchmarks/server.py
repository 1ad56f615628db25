"""A worker that measures `sentiment serve` beside MLflow's own scoring server, and beside scoring in bulk.

Ours runs in the serving environment, made anew from its lock file, MLflow's in the pipeline's. Both serve the candidate
`blend` of `dvc repro`, or `single` where there is no blend.
"""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import load, logged
from benchmarks.start import serving_environment
from benchmarks.workers import ROOT, answer, arguments, spread, turns
from pipeline.project.atomic import read_table
from pipeline.project.errors import PipelineError
from pipeline.project.paths import BLEND, REVIEW_COLUMNS, SPLIT_TABLES, candidate_folder
from pipeline.project.run_command import run_command
from pipeline.served_model.loading import load_scorer

LOADS = {"one_client": (1, 1), "many_clients": (64, 1), "many_clients_of_eight": (64, 8)}
"""Clients at the same time, and reviews in each of their requests."""
_START_S = 120
_READY = b'{"inputs": ["A film that stays with you for days."]}'


@dataclass(frozen=True)
class Running:
    """A server that answers; `seconds` after it was started, it did for the first time."""

    process: "subprocess.Popen[bytes]"
    address: str
    seconds: float

    def memory_mb(self) -> float:
        """Returns the resident memory of its process tree, in MB (10**6 bytes)."""
        parent = psutil.Process(self.process.pid)
        return round(sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True))) / 10**6, 1)


def main() -> None:
    reviews, seconds, rounds = arguments()
    texts = read_table(SPLIT_TABLES / "test.parquet", REVIEW_COLUMNS)["text"].tolist()[:reviews]
    for _ in turns():
        with tempfile.TemporaryDirectory() as temporary:
            answer(report(Path(temporary), texts, seconds, rounds))


def report(folder: Path, texts: Sequence[str], seconds: float, rounds: int) -> dict[str, Any]:
    """Returns what each load of LOADS gives with either server, in turns, and what both take to start and to hold."""
    name = BLEND if candidate_folder(BLEND).exists() else "single"
    served = candidate_folder(name).resolve()
    python = serving_environment(folder / "environment")
    ours = [str(python), "-m", "pipeline.cli", "serve", "--model", str(served)]
    logged_at = logged.log(name, folder).artifact_path
    theirs = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", logged_at]
    scorer = load_scorer(served)
    found: dict[str, list[dict[str, Any]]] = {f"{one}_{way}": [] for one in LOADS for way in ("ours", "mlflow")}
    bulk = []
    with running(ours) as first, running(theirs) as second:
        servers = {"ours": first, "mlflow": second}
        for number in range(rounds + 1):  # the first warms up
            for one, (clients, of_each) in LOADS.items():
                for way, server in servers.items():
                    told = load.measure(server.address, texts, clients=clients, reviews=of_each, seconds=seconds)
                    if number:
                        found[f"{one}_{way}"].append(told)
            begun = time.perf_counter()
            scorer.score(texts)
            bulk.append(len(texts) / (time.perf_counter() - begun))
        memory = {way: server.memory_mb() for way, server in servers.items()}
    return {
        "model": name,
        "bulk_reviews_per_second": spread(bulk[1:]),
        "start_seconds": {way: round(server.seconds, 2) for way, server in servers.items()},
        "memory_mb": memory,
        **{
            load_name: {measure: spread([one[measure] for one in each]) for measure in each[0]}
            for load_name, each in found.items()
        },
    }


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Returns how many times as good ours is: reviews a second of many clients and the median of one beside MLflow's,
    and of many clients with eight reviews each beside scoring in bulk."""
    speed = {name: found[name]["reviews_per_second"]["median"] for name in found if name.startswith("many")}
    return {
        "server_many_clients": speed["many_clients_ours"] / speed["many_clients_mlflow"],
        "server_one_client": found["one_client_mlflow"]["median_ms"]["median"]
        / found["one_client_ours"]["median_ms"]["median"],
        "server_of_bulk": speed["many_clients_of_eight_ours"] / found["bulk_reviews_per_second"]["median"],
    }


@contextmanager
def running(command: Sequence[str]) -> Iterator[Running]:
    """Runs a server on a free port until the block ends; raises PipelineError if it does not answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--port", str(port)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() > begun + _START_S:
                    process.kill()
                    assert process.stderr
                    raise PipelineError(f"{command[2]} does not answer: {process.stderr.read().decode()[-500:]}")
            yield Running(process, f"127.0.0.1:{port}", time.perf_counter() - begun)
        finally:
            for one in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                one.terminate()
            process.terminate()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_S)
    try:
        connection.request("POST", "/invocations", _READY, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        time.sleep(0.02)
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    run_command(main)
