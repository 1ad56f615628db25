"""Runs the whole pipeline on the embedded sample in a scratch copy of this checkout: `make demo`.

The copy, `.demo/`, holds the files that git tracks or would track, as they are now; its data, models, reports and
tracking store are its own, so the checkout stays as it is. A second run goes on where the first one stopped.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import plots

from pipeline.project.checkouts import clone_environment

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
BIN = Path(sys.executable).parent
# What the real run left behind in git is about other data.
LEFT_OUT = ("reports/", "dvc.lock", "data/labelled/reviews.dvc", ".dvc/config.local")
MEASURED = "reports/noise.json"
"""No stage writes it, and `report` reads it: it says itself which data set it is of."""


def main() -> None:
    copy_checkout(DEMO)
    plots.prepare(DEMO)
    for command in (["dvc", "repro"], ["sentiment", "summary"]):
        done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=DEMO, env=environment(DEMO))
        if done.returncode:
            raise SystemExit(done.returncode)


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment in which commands run in the copy at `folder`: this interpreter, the copy's own modules
    rather than the installed checkout's, and a tracking store of its own."""
    return clone_environment(folder, without=("MLFLOW_", "DVC_"))


def copy_checkout(folder: Path) -> None:
    """Makes `folder` a copy of this checkout that uses the sample; what a pipeline made there stays."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = (name for name in listed.split("\0") if name == MEASURED or not name.startswith(LEFT_OUT))
    files = [name for name in wanted if name and (ROOT / name).is_file()]
    shutil.rmtree(folder / "pipeline", ignore_errors=True)  # a module that was removed must not live on
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    params = folder / "params.yaml"
    text, changed = re.subn(r"(?m)^dataset: \w+", "dataset: sample", params.read_text(encoding="utf-8"))
    if changed != 1:
        raise SystemExit(f"error: {params} has no line `dataset: ...` to put the sample in")
    params.write_text(text, encoding="utf-8")
    # The checkout's git ignores .demo/, and DVC refuses to work on ignored files: the copy does without git.
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


if __name__ == "__main__":
    main()
