"""What a benchmark ran on and what it measured: processor, libraries, load, commit."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from pipeline.project.provenance import changes, git_commit

LIBRARIES = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "dvc", "mlflow")


def describe() -> dict[str, Any]:
    """Returns processor, cores that this process may use, memory in GB, and library versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }


def code() -> dict[str, Any]:
    """Returns the commit, whether files differ from it (None without git), and now as an ISO 8601 time in UTC."""
    commit = git_commit()
    dirty = None if commit is None else bool(changes())
    return {"commit": commit, "dirty": dirty, "taken": datetime.now(UTC).isoformat(timespec="seconds")}


def load_average() -> list[float]:
    """Returns the load of the last 1, 5 and 15 minutes: processes that ran or waited to."""
    return [round(load, 2) for load in os.getloadavg()]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
