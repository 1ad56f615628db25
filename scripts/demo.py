"""Runs the whole pipeline on the embedded sample in a scratch copy of this checkout: `make demo`.

So that it ends within 5 minutes on two cores, set-up included, it trains few of the networks for few epochs.

The copy, `.demo/`, holds the files that git tracks or would track, as they are now; its data, models, reports and
tracking store are its own, so the checkout stays as it is. A second run goes on where the first one stopped.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec
from ruamel.yaml import YAML

from pipeline.project.checkouts import clone_environment
from pipeline.project.params import load_params
from pipeline.project.run_command import run_command
from scripts import plots

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
BIN = Path(sys.executable).parent
# What the real run left behind in git is about other data.
LEFT_OUT = ("reports/", "dvc.lock", "data/labelled/reviews.dvc", ".dvc/config.local")
NOT_OURS = ("/.git", "/.dvc/tmp/", "/.dvc/cache/", "/.dvc/plots/page.html")
MEASURED = ("reports/ablations.json", "reports/noise.json")
"""No stage writes them, and `report` reads them: they say themselves which data set they are of."""
EPOCHS = 2
"""Of each network, at most."""


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
    files = [name for name in own_files() if name in MEASURED or not name.startswith(LEFT_OUT)]
    shutil.rmtree(folder / "pipeline", ignore_errors=True)  # a module that was removed must not live on
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    shorten(folder / "params.yaml")
    # The checkout's git ignores .demo/, and DVC refuses to work on ignored files: the copy does without git.
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


def shorten(file: Path) -> None:
    """Puts the sample into params.yaml, and leaves of its networks the first, that of the blend and those that teach,
    with EPOCHS epochs; raises UsageError where it is no params.yaml."""
    load_params(file)
    yaml = YAML()
    params = yaml.load(file)
    models, teachers = params["models"], params["teachers"].values()
    kept = {next(iter(models)), params["blend"], *(teacher["by"] for teacher in teachers)}
    for name in list(models):
        if name not in kept:
            del models[name]
            params["candidates"] = [candidate for candidate in params["candidates"] if candidate != name]
    for model in models.values():
        model["epochs"] = min(EPOCHS, model["epochs"])
    params["dataset"] = "sample"
    yaml.dump(params, file)


def own_files() -> Iterator[str]:
    """Yields the files of this checkout but for those that .gitignore names: a zip has no git that could list them."""
    ignored = GitIgnoreSpec.from_lines([*NOT_OURS, *(ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()])
    for folder, folders, files in os.walk(ROOT):
        inside = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not ignored.match_file(f"{inside / name}/")]
        yield from (str(inside / name) for name in files if not ignored.match_file(inside / name))


if __name__ == "__main__":
    run_command(main)
