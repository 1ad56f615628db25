"""What a benchmark ran on and what it measured: processor, libraries, load, commit."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import psutil

from pipeline.project.provenance import changes, cpu, git_commit

LIBRARIES = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "dvc", "mlflow")


def describe() -> dict[str, Any]:
    """Returns processor, cores that this process may use, memory in GB, and library versions."""
    return {
        "processor": cpu(),
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
