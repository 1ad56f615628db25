"""A candidate of `dvc repro` as a model of MLflow's, in a store that the benchmark throws away."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.project.params import load_params
from pipeline.project.paths import candidate_folder
from pipeline.registry import versions
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo


def log(name: str, folder: Path) -> "ModelInfo":
    """Logs the candidate `name` in a new store in `folder`, which is the process's store from here on."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    client = runs.connect()
    run_id = client.create_run(runs.experiment_id(client)).info.run_id
    served = load_params().tokenize.model_dump()
    files = {file.name: file.read_bytes() for file in candidate_folder(name).iterdir() if file.is_file()}
    return versions.log_model(versions.Candidate(name, run_id, "benchmark", served, files))
