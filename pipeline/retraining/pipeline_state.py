"""DVC as the retraining job uses it: what the pipeline's inputs are, whether they changed, and running it."""

import ctypes
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.data.labelled import batches, stated_files
from pipeline.project.checkouts import DVC, search_path
from pipeline.project.errors import DataError, PipelineError, one_line
from pipeline.project.paths import LABELLED_POINTER, LABELLED_REVIEWS

if TYPE_CHECKING:
    from dvc.repo import Repo

T = TypeVar("T")
GRACE_S = 60
"""How long a stage that is asked to end may take to write its state before it is killed."""
BUSY_WAIT_S = 60
"""How long another DVC in this checkout is waited for, such as that of a job that was just killed."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_VALIDATION_FAILED = "failed to reproduce 'validate'"


@dataclass(frozen=True)
class State:
    """The pipeline as DVC sees it: `changed` stages have other inputs or outputs than `dvc.lock` records; `key` is the
    SHA-256 over commands, params, and the md5 of what the stages read and no stage writes, code and data. Code counts
    by what it says, not by where it stands: a file that is only moved changes nothing."""

    key: str
    changed: tuple[str, ...]


def read_state() -> State:
    """Returns the pipeline's state; raises PipelineError if DVC cannot read dvc.yaml, dvc.lock or a pointer."""
    return _in_repo(_state, "DVC cannot read the pipeline")


def cache_folder() -> Path:
    """Returns where DVC keeps outputs, absolute; raises PipelineError if DVC cannot tell."""
    return _in_repo(lambda repo: Path(repo.cache.local.path).resolve(), "DVC cannot tell where its cache is")


def track_labelled() -> None:
    """Lets DVC's pointer speak of all batches of new labelled reviews; raises PipelineError if it cannot be written."""
    if len(batches()) != stated_files():
        _in_repo(lambda repo: repo.add(str(LABELLED_REVIEWS)), f"{LABELLED_POINTER} could not be written")


def _in_repo(do: "Callable[[Repo], T]", failure: str) -> "T":
    """Returns what `do` returns of DVC's repository, once no other DVC is at work in it; raises PipelineError, which
    begins with `failure`, if DVC fails."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    deadline = time.monotonic() + BUSY_WAIT_S
    while True:
        try:
            with Repo() as repo:
                return do(repo)
        except LockError as error:
            if time.monotonic() > deadline:
                raise PipelineError(f"another DVC is at work here: {one_line(error)}") from error
            # DVC asks only whether there is a process of the number that its file of claims names: one that was killed
            # and not yet waited for, or after a reboot any other, would keep every scheduled run from running.
            claimed = [int(number) for number in re.findall(r"\(PID (\d+)\)", str(error))]
            if claimed and not any(map(_is_dvc, claimed)):
                Path(".dvc/tmp/rwlock").unlink(missing_ok=True)  # as DVC's own message advises
            else:
                time.sleep(0.2)
        except (DvcException, OSError) as error:
            raise PipelineError(f"{failure}: {one_line(error)}") from error


def _is_dvc(process: int) -> bool:
    import psutil

    try:
        return "dvc" in " ".join(psutil.Process(process).cmdline())  # of a zombie it is empty
    except psutil.Error:
        return False


def _state(repo: "Repo") -> State:
    stages = [stage for stage in repo.index.stages if stage.cmd]
    written = {Path(out.fs_path) for stage in stages for out in stage.outs}
    inputs: dict[str, object] = {}
    for stage in stages:
        code: list[str] = []
        inputs[stage.addressing] = stage.cmd
        for dep in stage.deps:
            path = Path(dep.fs_path)
            if hasattr(dep, "read_params"):
                inputs[f"{stage.addressing} params"] = dep.read_params()
            elif not any(path in (out, *out.parents) or out in path.parents for out in written):
                digest = dep.get_hash().value
                if path.suffix == ".py":
                    code.append(str(digest))
                else:
                    inputs[dep.def_path] = digest
        inputs[f"{stage.addressing} code"] = sorted(code)
    text = json.dumps(inputs, sort_keys=True, default=str)
    return State(hashlib.sha256(text.encode()).hexdigest(), tuple(sorted(repo.status())))


def repro(deadline: float, *targets: str) -> None:
    """Runs `dvc repro` of these stages, by default all, its output going to ours. What still runs at `deadline`, by
    `time.monotonic`, is asked to end, as it is on KeyboardInterrupt. Whatever ends this process ends DVC and the
    stages: DVC by the kernel, the stages through the job's lock, which JOB_LOCK names in this process's environment.

    Raises:
        PipelineError: a stage failed, with the sentence that it ended with, or the time was over.
        DataError: the failed stage was `validate`.
    """
    process = subprocess.Popen(
        [*DVC, "repro", *targets],
        env={**os.environ, "PATH": search_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    errors: list[str] = []
    echo = threading.Thread(target=_echo, args=(process, errors), daemon=True)
    echo.start()
    try:
        code = process.wait(timeout=max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        _end(process)
        raise PipelineError("the time was over; the next run goes on from the last finished epoch") from None
    except BaseException:
        _end(process)
        raise
    echo.join()
    if code:
        raise _failure(errors, code)


def _echo(process: "subprocess.Popen[str]", errors: list[str]) -> None:
    """Prints what DVC and the stages print, and adds to `errors` those lines that report one."""
    assert process.stdout
    with process.stdout:
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(("error: ", "ERROR: ")):
                errors.append(line.rstrip())


def _failure(errors: list[str], code: int) -> PipelineError:
    """Returns which stage failed, with the sentence that it ended with, from the errors that stages and DVC printed."""
    sentences = [line.removeprefix("error: ") for line in errors if line.startswith("error: ")]
    failed = next((line for line in reversed(errors) if "failed to reproduce" in line), f"dvc repro ended with {code}")
    stage, last = failed.removeprefix("ERROR: ").partition(":")[0], sentences[-1] if sentences else "see its output"
    return (DataError if _VALIDATION_FAILED in failed else PipelineError)(f"{stage}: {last}")


def _end(process: "subprocess.Popen[str]") -> None:
    """Asks DVC and its stages, which are one process group, to end, and kills what does not."""
    with suppress(ProcessLookupError):  # the group is gone
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            deadline = time.monotonic() + GRACE_S
            while time.monotonic() < deadline:
                process.poll()  # a child that has ended is there until it is waited for
                os.killpg(process.pid, 0)
                time.sleep(0.1)
    process.wait()


def die_with_parent() -> Callable[[], None] | None:
    """Returns what a process that is started runs first, so that the kernel kills it when this one ends; on Linux."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
