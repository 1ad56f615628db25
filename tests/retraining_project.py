"""A project for the retraining job's tests: DVC, registry and data set are real, training takes milliseconds.

Its stages are `split`, `train`, `track` and `register`. `split` and `register` are the product's; the others run this
file. `train` puts one of the models of `trained_project` in place: `a` as long as there are no new labelled reviews,
else `b`, and `c` where params.yaml asks for other epochs; `track` notes its run. Where a file `pause` stands, `train`
waits until it is ended.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import trained_project
from conftest import edit_params

from pipeline.project import atomic, paths

ROOT = Path(__file__).parent.parent
NAME = "imdb-sentiment-sample"
KNOWN = 60
DVC_YAML = """
stages:
  split:
    cmd: python -m pipeline.stages.split
    params: [seed, split]
    deps: [data/labelled, data/raw]
    outs: [data/splits, reports/split.json: {cache: false}]
  train:
    cmd: python train.py
    params: [models, train]
    deps: [data/splits, train.py]
    outs:
      - models/tiny
      - served/tiny
      - data/predictions
      - reports/comparison.json: {cache: false}
      - reports/train/tiny: {cache: false}
      - reports/runs/tiny.json: {cache: false}
  track:
    cmd: python train.py track
    deps: [reports/runs/tiny.json]
    outs: [reports/tracked/tiny.json: {cache: false, persist: true}]
  register:
    cmd: python -m pipeline.stages.register
    params: [gate]
    deps: [data/splits, data/predictions, served/tiny, reports/comparison.json, reports/tracked, reports/train,
      reports/runs]
    outs: [reports/registry.json: {cache: false, persist: true}]
"""
GITIGNORE = """
/data/*
!/data/labelled/
/served
/models
/trained
/mlflow.db*
/mlartifacts
/reports/registry.json
/reports/tracked
/pause
/printed*
"""


def make(folder: Path) -> None:
    """Makes the project in `folder`, a git repository with a first commit, in which nothing has run yet."""
    trained = subprocess.run(
        [sys.executable, str(ROOT / "tests/trained_project.py"), str(folder)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    shutil.rmtree(folder / paths.SPLIT_TABLES)
    reviews = pd.read_parquet(ROOT / "pipeline/data/sample/reviews.parquet")
    count = trained_project.TEST_REVIEWS
    for split, table in (("test", reviews.head(count)), ("train", reviews.iloc[count : count + KNOWN])):
        atomic.write_table(folder / paths.RAW / f"{split}.parquet", table)
    unlabelled = pd.read_parquet(ROOT / "pipeline/data/sample/unlabelled.parquet").head(KNOWN)
    atomic.write_table(folder / paths.RAW / f"{paths.UNLABELLED}.parquet", unlabelled)
    shutil.copytree(ROOT / "data/labelled", folder / "data/labelled", ignore=shutil.ignore_patterns("reviews*"))
    shutil.copy(__file__, folder / "train.py")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / ".gitignore").write_text(GITIGNORE)
    edit_params(folder, retrain__min_new_rows=20, retrain__min_free_gb=0.0, retrain__intake__settle_seconds=0.0)
    edit_params(folder, split__fresh_rows=0)
    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "A test"],
        ["git", "config", "user.email", "test@localhost"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "config", "core.analytics", "false"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", "A project"],
    ):
        subprocess.run(command, cwd=folder, check=True)


def reviews(count: int, start: int = 500) -> pd.DataFrame:
    """Returns real reviews that the project does not know yet, with the columns text and label."""
    table = pd.read_parquet(ROOT / "pipeline/data/sample/reviews.parquet").iloc[start : start + count]
    return table[["text", "label"]].reset_index(drop=True)


def main() -> None:
    if sys.argv[1:] == ["track"]:
        run_id = atomic.read_json(paths.run_file(trained_project.NAME))["run_id"]
        atomic.write_json(paths.tracked_file(trained_project.NAME), {"run_id": run_id})
        return
    if Path("pause").exists():
        print("the stage waits", flush=True)
        signal.pause()
    labelled = pd.read_parquet(paths.SPLIT_TABLES / "train.parquet")["id"].str.startswith("labelled/").any()
    trained_project.train("c" if load_params().models[trained_project.NAME].epochs == 1 else "b" if labelled else "a")


if __name__ == "__main__":
    from pipeline.project.params import load_params
    from pipeline.project.run_command import run_command

    run_command(main)
