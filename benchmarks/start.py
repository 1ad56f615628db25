"""A worker that measures one review from a cold start: `sentiment predict` in the serving environment, made anew from
its lock, beside a process that scores the same review with TensorFlow."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.workers import ROOT, answer, arguments, spread, turns
from pipeline.project.errors import PipelineError
from pipeline.project.paths import VOCABULARY, candidate_folder, model_file
from pipeline.project.run_command import run_command

LARGEST_MB = 350
"""What the serving environment may take installed, pip and setuptools included."""
_REVIEW = "A film that stays with you for days."
_WITH_TENSORFLOW = """
import sys
from pathlib import Path
from pipeline.project.params import load_params
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.batching import pad
from pipeline.training import networks
networks.prepare_device(seed=0, deterministic=False)
tokenizer = SubwordTokenizer.load(Path(sys.argv[1]))
network = networks.load_model(Path(sys.argv[2]), load_params().models["single"])
print(networks.scoring(network)([pad([tokenizer.encode_batch([sys.argv[3]])[0]])]))
"""


def main() -> None:
    (rounds,) = arguments()
    for _ in turns():
        with tempfile.TemporaryDirectory() as temporary:
            answer(report(Path(temporary), rounds))


def report(folder: Path, rounds: int) -> dict[str, Any]:
    """Returns seconds and peak memory of both, in turns, and the installed size of the serving environment, which is
    made in `folder`."""
    python, served = serving_environment(folder / "environment"), str(candidate_folder("single").resolve())
    ways = {
        "serving": [str(python), "-m", "pipeline.cli", "predict", "--model", served, _REVIEW],
        "tensorflow": [sys.executable, "-c", _WITH_TENSORFLOW, str(VOCABULARY), str(model_file("single")), _REVIEW],
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, command in ways.items():
            measured[name].append(_timed(command))
    return {
        "installed_mb": installed_mb(folder / "environment"),
        **{
            name: {
                "seconds": spread([seconds for seconds, _ in found[1:]]),  # the first one compiled Python's modules
                "peak_memory_mb": max(memory for _, memory in found),
            }
            for name, found in measured.items()
        },
    }


def serving_environment(folder: Path) -> Path:
    """Makes the environment of requirements-serving.lock, this project installed in it, in `folder`; returns its
    Python.

    Raises:
        PipelineError: pip failed, as without the package index.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    lock = str(ROOT / "requirements-serving.lock")
    for wanted in (["--require-hashes", "-r", lock], ["--no-deps", "--editable", str(ROOT)]):
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True)
        if done.returncode:
            raise PipelineError(f"the serving environment cannot be made: {done.stderr.strip().splitlines()[-1]}")
    return python


def installed_mb(environment: Path) -> float:
    """Returns the size of an environment's files, in MB (10**6 bytes)."""
    sizes = (file.lstat().st_size for file in environment.rglob("*") if file.is_file() and not file.is_symlink())
    return round(sum(sizes) / 10**6, 1)


def _timed(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[float, float]:
    """Returns the seconds that a command takes, and the most memory that it held, in MB (2**20 bytes)."""
    begun = time.perf_counter()
    with subprocess.Popen(
        command, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise PipelineError(f"{command[0]} failed: {said.decode(errors='replace')[-300:]}")
    return seconds, round(used.ru_maxrss / 1024, 1)


if __name__ == "__main__":
    run_command(main)
