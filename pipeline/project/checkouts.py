"""Checkouts of this repository: git and DVC in the one that is the working folder, and clones of it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.project.errors import PipelineError, one_line
from pipeline.project.paths import PARAMS_FILE

DVC = (sys.executable, "-m", "dvc")
"""This interpreter's DVC, whatever the PATH has."""


@dataclass(frozen=True)
class Head:
    """What is checked out: `commit`, None before the first one, and `branch`, None where HEAD is detached."""

    commit: str | None
    branch: str | None


def head() -> Head | None:
    """Returns what is checked out in this folder; None where it is no part of a git repository: there is none, or it
    does not track this folder, as that of the checkout does not track the demo's copy.

    Raises:
        PipelineError: there is a repository, and git does not read it; the message has git's reason.
    """
    here = Path.cwd()
    if "GIT_DIR" not in os.environ and not any((folder / ".git").exists() for folder in (here, *here.parents)):
        return None
    if not git("ls-files", "--", str(PARAMS_FILE)):
        return None
    told = git("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", str(PARAMS_FILE))
    found = dict(line.removeprefix("# branch.").split(" ", 1) for line in told.splitlines() if line.startswith("# "))
    commit, branch = found["oid"], found["head"]
    return Head(None if commit == "(initial)" else commit, None if branch == "(detached)" else branch)


def git(*arguments: str) -> str:
    """Returns what a git command prints; raises PipelineError with what it says if it fails or there is no git."""
    return _run(("git",), arguments)


def dvc(*arguments: str, folder: Path | None = None) -> str:
    """Returns what a DVC command prints in `folder`; raises PipelineError with what it says if it fails."""
    return _run(DVC, arguments, folder)


def _run(program: Sequence[str], arguments: Sequence[str], folder: Path | None = None) -> str:
    name = program[-1]
    try:
        done = subprocess.run([*program, *arguments], cwd=folder, capture_output=True, text=True)
    except OSError as error:
        raise PipelineError(f"{name} cannot be run: {error.strerror}") from None
    if done.returncode:
        command = next((argument for argument in arguments if not argument.startswith(("-", "/"))), "")
        reason = one_line(done.stderr or done.stdout)
        raise PipelineError(f"{name} {command} failed: {reason}")
    return done.stdout


def clone(folder: Path, commit: str) -> None:
    """Makes `folder` a clone of this repository at `commit`, or takes the clone that it is to that commit.

    Raises:
        PipelineError: the repository has no such commit.
    """
    root = git("rev-parse", "--show-toplevel").strip()
    if not (folder / ".git").exists():
        git("clone", "--quiet", "--no-checkout", root, str(folder))
    try:
        git("-C", str(folder), "fetch", "--quiet", "origin", commit)
        git("-C", str(folder), "checkout", "--quiet", "--force", "--detach", commit)
    except PipelineError:
        raise PipelineError(f"commit {commit} is not in {root}; fetch it first") from None


def clone_environment(folder: Path, *, without: tuple[str, ...] = ("DVC_",)) -> dict[str, str]:
    """Returns the environment of a pipeline in the clone `folder`: this interpreter and its libraries with the clone's
    modules, and no variable that begins like one of `without`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    return kept | {"PATH": search_path(), "PYTHONPATH": str(folder.resolve())}


def search_path() -> str:
    """Returns the PATH on which this interpreter's own programs come first, `python` of dvc.yaml's commands too."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
