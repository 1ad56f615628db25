"""A process in which everything slow is imported, and which forks for each command: seconds become tenths of one.

`Warm().run(folder, "retrain", "--force")` does what `sentiment retrain --force` does in the folder. The command may be
killed right after its n-th side effect, as `kill_everywhere` counts them, or the first of a label, stopped before a
request of a label, or not be allowed to write large files.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code or minus the signal, what it printed, its side effects by label."""

    code: int
    out: str
    side_effects: list[str]


class Warm:
    """The process, begun by the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        folder: Path,
        *arguments: str,
        kill_after: int | None = None,
        kill_at: str | None = None,
        stop_before: str | None = None,
        largest_file: int | None = None,
        **environment: str,
    ) -> Done:
        if self._process is None:
            kept = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("MLFLOW_", "DVC_", "SENTIMENT_"))
            }
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                env=kept | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin and self._process.stdout
        asked = {
            "folder": str(folder),
            "arguments": arguments,
            "kill_after": kill_after,
            "kill_at": kill_at,
            "stop_before": stop_before,
            "largest_file": largest_file,
            "environment": environment,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))

    def stopped(self) -> psutil.Process:
        """Waits until the command that another thread runs has stopped, and returns its process."""
        while True:
            for child in psutil.Process(self._process.pid).children() if self._process else ():
                if child.status() == psutil.STATUS_STOPPED:
                    return child

    def end(self) -> None:
        if self._process:
            self._process.communicate()  # it ends with its standard input


def serve() -> None:
    import great_expectations  # noqa: F401
    import sklearn.model_selection  # noqa: F401
    from dvc.repo import Repo  # noqa: F401
    from kill_everywhere import in_child

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        out = Path(asked["folder"]) / "printed"
        code, told = in_child(lambda asked=asked, out=out: command(asked, out))
        told = told or {"code": code, "side_effects": []}
        answers.write(json.dumps({**told, "out": out.read_text()}) + "\n")
        answers.flush()


def command(asked: dict[str, Any], out: Path) -> dict[str, Any]:
    from pipeline import cli

    printed = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(printed, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["folder"])
    os.environ.update(asked["environment"])
    killer = JobKiller(asked["kill_after"], asked["kill_at"], asked["stop_before"])
    killer.watch()
    if limit := asked["largest_file"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["sentiment", *asked["arguments"]]
    code: Any = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    except Exception:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return {"code": code, "side_effects": killer.labels}


def JobKiller(last: int | None, label: str | None, stop_before: str | None) -> Any:
    """Returns a Killer that counts what the retraining job does besides: files moved and replaced, and git commands."""
    from kill_everywhere import Killer

    class Watching(Killer):
        def done(self, done: str) -> None:
            if done == label:
                self.last = len(self.labels) + 1
            super().done(done)

        def watch(self) -> None:
            super().watch()
            replace, rename, run, wait = os.replace, os.rename, subprocess.run, subprocess.Popen.wait

            def replaced(source: Any, target: Any) -> None:
                replace(source, target)
                if "reports" not in str(target):
                    self.done(f"wrote {Path(target).parent}")

            def renamed(source: Any, target: Any) -> None:
                rename(source, target)
                self.done(f"moved to {Path(target).parent}")

            def ran(arguments: Sequence[str], **options: Any) -> Any:
                finished = run(arguments, **options)
                if list(arguments[:2]) in (["git", "add"], ["git", "commit"]):
                    self.done(" ".join(arguments[:2]))
                return finished

            def waited(process: Any, timeout: float | None = None) -> int:
                code = wait(process, timeout)
                if "repro" in process.args:
                    self.done("dvc repro")
                return code

            os.replace, os.rename, subprocess.run = replaced, renamed, ran  # type: ignore[assignment]
            subprocess.Popen.wait = waited  # type: ignore[assignment]

    return Watching(last, stop_before)


def put_back(template: Path, folder: Path) -> None:
    """Makes `folder` what `template` is: MLflow keeps absolute paths, so a store is of use where it was made alone."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", str(template), str(folder)], check=True)


if __name__ == "__main__":
    serve()
