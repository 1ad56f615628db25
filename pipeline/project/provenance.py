"""What something was made from and by: git commit, DVC's lock, library versions, and the process that is at it."""

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.project import checkouts
from pipeline.project.errors import PipelineError

LOCK_FILE = Path("dvc.lock")
COMMIT = "mlflow.source.git.commit"
"""MLflow's own tag: its UI shows it as the run's version."""
DIRTY = "git.dirty"
EXPERIMENT = "dvc.experiment"
CPU = "cpu"
"""The tag with the kind of CPU; see `cpu`."""
HOST, _PID, _STARTED = "process.host", "process.pid", "process.started"
_LIBRARIES = ("tensorflow", "keras", "numpy", "mlflow", "dvc")
WRITTEN_BY_JOBS = ("dvc.lock", "reports", "data/labelled")
"""What DVC and the retraining job write, and git tracks: no change of the code."""
_CPU_INFO = Path("/proc/cpuinfo")
_VECTOR_FLAGS = ("sse4", "fma", "f16c", "avx", "amx", "asimd", "sve", "bf16")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


def identity_tags(inputs: Iterable[Path]) -> dict[str, str]:
    """Returns the tags that say from what a run was made: code, md5 of each input in `dvc.lock`, DVC stage and
    experiment, kind of CPU, library versions."""
    digests = lock_digests()
    dvc = {"dvc.stage": os.environ.get("DVC_STAGE"), EXPERIMENT: os.environ.get("DVC_EXP_NAME")}
    commit = git_commit()
    code = {DIRTY: "unknown"} if commit is None else {COMMIT: commit, DIRTY: str(bool(changes())).lower()}
    return {
        "python": platform.python_version(),
        CPU: cpu(),
        **{f"version.{name}": metadata.version(name) for name in _LIBRARIES},
        **{md5_tag(path): digests[str(path)] for path in inputs if str(path) in digests},
        **{name: value for name, value in dvc.items() if value},
        **code,
    }


def md5_tag(path: Path) -> str:
    """Returns the name of the tag that holds the md5 of what DVC tracks at `path`."""
    return f"md5.{path}"


def lock_digests() -> dict[str, str]:
    """Returns path → md5 of every output that `dvc.lock` records; empty where there is no lock yet."""
    if not LOCK_FILE.exists():
        return {}
    stages = (YAML(typ="safe", pure=True).load(LOCK_FILE.read_text(encoding="utf-8")) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def git_commit() -> str | None:
    """Returns the commit that is checked out here; None where there is none (see `checkouts.head`) and, with a warning,
    where git does not read the repository."""
    try:
        head = checkouts.head()
    except PipelineError as error:
        warn(f"the commit of this checkout is not recorded: {error}")
        return None
    return head.commit if head else None


@cache
def warn(sentence: str) -> None:
    """Prints a warning on stderr, each once in a process."""
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def cpu() -> str:
    """Returns the kind of CPU: its name and the instruction sets by which numerical libraries choose their kernels.
    The same training ends in the same weights on one kind only."""
    described: dict[str, str] = {}
    if _CPU_INFO.exists():
        lines = (line.partition(":") for line in _CPU_INFO.read_text(encoding="utf-8").splitlines())
        described = {key.strip(): value.strip() for key, _, value in lines}
    name = described.get("model name") or platform.processor() or platform.machine()
    flags = (described.get("flags") or described.get("Features") or "").split()
    return " ".join([name, *sorted(flag for flag in flags if flag.startswith(_VECTOR_FLAGS))])


def changes() -> list[str]:
    """Returns what differs from the commit, in git's words, what jobs write aside; raises PipelineError."""
    written = [f":(exclude){path}" for path in WRITTEN_BY_JOBS]
    return checkouts.git("status", "--porcelain", "--", ".", *written).splitlines()


def process_tags() -> dict[str, str]:
    """Returns the tags that name this process, for other processes of this machine to find out whether it lives."""
    return {HOST: _host(), _PID: str(os.getpid()), _STARTED: _started(os.getpid())}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process that `process_tags` named is no more. False also where nothing can be known: of other
    machines and containers, and of earlier boots of this one."""
    if tags.get(HOST) != _host() or _PID not in tags:
        return False
    import psutil

    try:
        return _started(int(tags[_PID])) != tags.get(_STARTED)  # another process with its number
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True


def is_of_earlier_boot(tags: Mapping[str, str]) -> bool:
    """Whether `process_tags` named a process of this machine before it was started again."""
    name, boot, *_ = [*tags.get(HOST, "").split(), "", ""]
    return bool(boot) and name == platform.node() and boot != _boot_id()


def _started(pid: int) -> str:
    """Returns when a process began, in clock ticks since the boot, which no change of the clock moves."""
    import psutil

    if not _BOOT_ID.exists():  # no Linux
        return str(psutil.Process(pid).create_time())
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # starttime of proc(5)


def _host() -> str:
    """Names this boot of this machine and its process numbers: others share the host name, and containers the boot."""
    namespace = _PID_NAMESPACE.readlink() if _BOOT_ID.exists() else ""
    return f"{platform.node()} {_boot_id()} {namespace}".strip()


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
