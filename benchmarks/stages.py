"""How long each DVC stage takes and what it loads, and how long `dvc repro` takes to see that there is nothing to do.

Stages run in a scratch copy with a tracking store of its own, in the order of dvc.yaml; the trainings, which are too
long for that, are told by the records of the last run.
"""

import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.workers import ROOT, spread
from pipeline.project.params import PARAMS_FILE, load_params
from pipeline.project.paths import BEHAVIOUR, EVALUATION_SETS, RAW, model_file, run_file, train_reports
from pipeline.project.training_record import read_record

NOT_MEASURED = "not measured"
HEAVY = ("tensorflow", "great_expectations", "mlflow", "tensorflow_datasets", "sklearn", "matplotlib")
_BIN = Path(sys.executable).parent


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yields each stage of dvc.yaml with the module and arguments that its command runs, in order."""
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        # of a mapping, such as `models`, its keys; of a list, such as `candidates`, its entries
        keys = list(getattr(load_params(), stage["foreach"].strip("${}"))) if "foreach" in stage else [None]
        for key in keys:
            command = stage.get("do", stage)["cmd"].replace("${key}", key or "").replace("${item}", key or "")
            yield f"{name}@{key}" if key else name, command.split()[2:]


def start_costs(rounds: int) -> dict[str, Any]:
    """Returns for each stage's module the seconds until a fresh interpreter has imported it, and which heavy libraries
    it had loaded by then."""
    modules = {name.split("@")[0]: command[0] for name, command in commands()}
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    loaded: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, module in modules.items():
            code = f"import sys, {module}; print(*(set({HEAVY!r}) & sys.modules.keys()))"
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=True
            )
            seconds[name].append(time.perf_counter() - begun)
            loaded[name] = sorted(done.stdout.split())
    return {name: {"seconds": spread(seconds[name]), "loaded": loaded[name]} for name in modules}


def run_stages() -> dict[str, Any]:
    """Runs every stage but the trainings once in a scratch copy.

    Returns:
        For each stage `seconds`, `source` (`scratch run`, or `record of the last run`), the heavy libraries that it
        `loaded` and its `peak_memory_mb`; or why it was not measured.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        for name in (PARAMS_FILE.name, "dvc.yaml", "dvc.lock"):
            if Path(name).exists():
                shutil.copy(name, scratch)
        for given in (BEHAVIOUR, EVALUATION_SETS):
            _copy(given, scratch)
        for name, command in commands():
            stage, _, model = name.partition("@")
            if stage == "train":
                found[name] = _recorded_training(model)
                for made in (model_file(model).parent, train_reports(model), run_file(model)):
                    _copy(made, scratch)
                continue
            found[name] = _run(command, scratch)
            if stage == "download" and "seconds" not in found[name]:
                _copy(RAW, scratch)
    return found


def _run(command: list[str], scratch: Path) -> dict[str, Any]:
    facts = scratch / "facts.json"
    facts.unlink(missing_ok=True)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stages", str(facts), *command],
        cwd=scratch,
        env=_environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{scratch / 'mlflow.db'}", "DVC_ROOT": str(scratch)},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    if done.returncode or not facts.exists():
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        told = next((line for line in lines if line.startswith("error: ")), lines[-1])
        return {"reason": f"{NOT_MEASURED}: {told[:300]}"}
    return {"seconds": round(seconds, 2), "source": "scratch run", **json.loads(facts.read_text())}


def _recorded_training(model: str) -> dict[str, Any]:
    if not run_file(model).exists():
        return {"reason": f"{NOT_MEASURED}: no {run_file(model)}"}
    metrics = read_record(model)["metrics"]
    source = f"record of the last run, {metrics['epochs']} epochs with validation, start left out"
    return {"seconds": metrics["training_seconds"], "source": source}


def _copy(path: Path, scratch: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, scratch / path, dirs_exist_ok=True)
    elif path.exists():
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, scratch / path)


def no_op(rounds: int) -> Any:
    """Returns the spread of the seconds of a `dvc repro` that has nothing to do, or why it was not measured."""
    if not Path("dvc.lock").exists():
        return f"{NOT_MEASURED}: there is no dvc.lock here"
    environment = _environment()
    status = subprocess.run([_BIN / "dvc", "status", "--quiet"], env=environment, capture_output=True)
    if status.returncode:
        return f"{NOT_MEASURED}: `dvc status` says that stages have to run"
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run([_BIN / "dvc", "repro"], env=environment, capture_output=True, check=True)
        seconds.append(time.perf_counter() - begun)
    return spread(seconds)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def _run_and_tell() -> None:
    """Runs a stage in this process, as `python -m` would, and writes what it loaded and took."""
    facts, module, *rest = sys.argv[1:]
    sys.argv = [module, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told = {"loaded": sorted(set(HEAVY) & sys.modules.keys()), "peak_memory_mb": round(memory, 1)}
        Path(facts).write_text(json.dumps(told))


if __name__ == "__main__":
    _run_and_tell()
