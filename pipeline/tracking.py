"""MLflow runs: where they are stored, how one begins, is resumed, ends and is found again, and what identifies it."""

import os
import platform
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from pipeline.artifacts import read_json
from pipeline.errors import DataError, PipelineError
from pipeline.params import PARAMS_FILE

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "imdb-sentiment"
SYSTEM_METRICS_INTERVAL_S = 2
"""Also a run of half a minute gets a curve."""
_LIBRARIES = ("tensorflow", "keras", "numpy", "mlflow", "dvc")
_LOCK_FILE = Path("dvc.lock")
_WRITTEN_BY_DVC = (":(exclude)dvc.lock", ":(exclude)reports")


def store_root() -> Path:
    """Returns the folder of the default store: that of the main checkout, also inside `dvc exp run --temp`."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def tracking_uri() -> str:
    """Returns `MLFLOW_TRACKING_URI`, else the SQLite file of the main checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root() / 'mlflow.db'}"


@cache
def connect() -> "MlflowClient":
    """Returns a client of the tracking store, with the experiment in place and the runs of dead processes closed.

    Raises:
        PipelineError: the store does not answer or cannot be opened.
    """
    # A server that is not there is told at once, not after minutes of retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    try:
        if client.get_experiment_by_name(EXPERIMENT) is None:
            local = uri.startswith("sqlite:///")
            location = (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri() if local else None
            client.create_experiment(EXPERIMENT, artifact_location=location)
        _close_dead_runs(client)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"the MLflow tracking store {uri} cannot be used ({reason}); start it, or unset MLFLOW_TRACKING_URI "
            "to track in mlflow.db"
        ) from error
    return client


def experiment_id(client: "MlflowClient") -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # `connect` made it
    return experiment.experiment_id


@contextmanager
def training_run(model: str, resume: str | None, tags: Mapping[str, str], params: Mapping[str, Any]) -> Iterator[str]:
    """Begins the run of a training of `model`, or takes up again the run `resume`, and yields its id.

    The run ends FINISHED, as FAILED after an exception, or as KILLED after SIGTERM or SIGINT. System metrics are on.
    """
    client = connect()
    import mlflow

    mlflow.set_experiment(EXPERIMENT)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_INTERVAL_S)
    mlflow.set_system_metrics_samples_before_logging(1)
    resumed = find_run(client, resume) if resume else None
    previous = signal.signal(signal.SIGTERM, _raise_interrupt)
    run = mlflow.start_run(
        run_id=resumed.info.run_id if resumed else None,
        run_name=None if resumed else f"{model} {datetime.now():%Y-%m-%d %H:%M}",
        log_system_metrics=True,
    )
    status = "FAILED"
    try:
        mlflow.set_tags({**tags, **_process_tags(), **({"resumed": "true"} if resumed else {})})
        mlflow.log_params(dict(params))
        yield run.info.run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise PipelineError("training was interrupted; the next `dvc repro` goes on from its last epoch") from None
    finally:
        mlflow.end_run(status)
        signal.signal(signal.SIGTERM, previous)


def _raise_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def find_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Returns the run `run_id`, or the one that was restored from its outputs, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException:
        restored = client.search_runs([experiment_id(client)], f"tags.restored_from = '{run_id}'", max_results=1)
        return restored[0] if restored else None


def recorded_run(train_reports: Path) -> "tuple[str, dict[str, Any], pd.DataFrame]":
    """Finds the run that the outputs of a training, its `run.json` and `history.csv`, belong to.

    Where the store has no such run, as after a fresh clone with pulled outputs, it is made anew from the outputs and
    tagged `restored_from`.

    Returns:
        The run's id in this store, the content of `run.json`, and the history, one row an epoch.
    """
    import pandas as pd

    record = read_json(train_reports / "run.json")
    try:
        history = pd.read_csv(train_reports / "history.csv")
    except (OSError, ValueError) as error:
        raise DataError(f"{train_reports / 'history.csv'} cannot be read ({error}); run `dvc repro`") from None
    run = find_run(connect(), record["run_id"])
    return run.info.run_id if run else _restore_run(record, history), record, history


def _restore_run(record: Mapping[str, Any], history: "pd.DataFrame") -> str:
    import mlflow

    client = connect()
    run_id = client.create_run(
        experiment_id(client),
        run_name=f"{record['model']} (restored)",
        tags={**record["tags"], "restored_from": record["run_id"]},
    ).info.run_id
    mlflow.log_params(record["params"], run_id=run_id)
    for _, epoch in history.iterrows():
        log_epoch(run_id, {str(name): float(value) for name, value in epoch.items()})
    log_metrics(run_id, record["metrics"], step=record["metrics"]["best_epoch"])
    client.set_terminated(run_id, "FINISHED")
    return run_id


def log_epoch(run_id: str, epoch: Mapping[str, float]) -> None:
    """Logs one finished epoch, once, under the names that all models share; step = epoch."""
    step = int(epoch["epoch"])
    if any(metric.step == step for metric in connect().get_metric_history(run_id, "val/loss")):
        return
    names = {"loss": "train/loss", "accuracy": "train/accuracy", "val_loss": "val/loss", "val_accuracy": "val/accuracy"}
    log_metrics(run_id, {names[key]: epoch[key] for key in names} | {"epoch_seconds": epoch["seconds"]}, step=step)


def log_metrics(run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
    import mlflow

    connect()
    mlflow.log_metrics(dict(metrics), step=step, run_id=run_id)


def log_artifacts(run_id: str, folder: Path, name: str) -> None:
    """Logs the files of `folder` under `name` in the run, and what DVC ran from, without reopening it."""
    client = connect()
    client.log_artifacts(run_id, str(folder), name)
    for file in (_LOCK_FILE, PARAMS_FILE):
        if file.exists():
            client.log_artifact(run_id, str(file), "dvc")


def log_inputs(run_id: str, dataset: str, inputs: Mapping[str, Path]) -> None:
    """Links the data sets of a run: `inputs` maps a context (training, validation, test) to what DVC tracks."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    client = connect()
    linked = client.get_run(run_id).inputs
    known = {item.tags[0].value for item in linked.dataset_inputs} if linked else set()
    digests = lock_digests()
    client.log_inputs(
        run_id,
        datasets=[
            DatasetInput(
                Dataset(f"{dataset}-{context}", digests.get(str(path), "untracked")[:36], "dvc", f"dvc:{path}"),
                [InputTag("mlflow.data.context", context)],
            )
            for context, path in inputs.items()
            if context not in known
        ],
    )


def identity_tags(dataset: str, seed: int, device: str) -> dict[str, str]:
    """Returns the tags that say from what a run was made: code, data, machine kind and library versions."""
    versions = {f"version.{name}": metadata.version(name) for name in _LIBRARIES}
    stage = {"dvc.stage": os.environ["DVC_STAGE"]} if "DVC_STAGE" in os.environ else {}
    experiment = {"dvc.experiment": os.environ["DVC_EXP_NAME"]} if "DVC_EXP_NAME" in os.environ else {}
    inputs = {
        f"md5.{path}": digest for path, digest in lock_digests().items() if path.startswith(("data/", "models/tok"))
    }
    return {
        "dataset": dataset,
        "seed": str(seed),
        "device": device,
        "python": platform.python_version(),
        **_git_tags(),
        **versions,
        **stage,
        **experiment,
        **inputs,
    }


def lock_digests() -> dict[str, str]:
    """Returns path → md5 of every output that `dvc.lock` records; empty where there is no lock yet."""
    if not _LOCK_FILE.exists():
        return {}
    stages = (YAML(typ="safe", pure=True).load(_LOCK_FILE.read_text(encoding="utf-8")) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def _git_tags() -> dict[str, str]:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain", "--", ".", *_WRITTEN_BY_DVC))
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.dirty": str(dirty).lower()}
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout: a run is tracked all the same
        return {"git.dirty": "unknown"}


def _process_tags() -> dict[str, str]:
    import psutil

    return {
        "process.host": platform.node(),
        "process.pid": str(os.getpid()),
        "process.started": str(psutil.Process().create_time()),
    }


def _close_dead_runs(client: "MlflowClient") -> None:
    """Marks as KILLED the runs that are RUNNING though the process that held them is gone (kill -9, a crash)."""
    import psutil

    for run in client.search_runs([experiment_id(client)], "attributes.status = 'RUNNING'"):
        tags = run.data.tags
        if tags.get("process.host") != platform.node():
            continue
        try:
            alive = str(psutil.Process(int(tags["process.pid"])).create_time()) == tags["process.started"]
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            client.set_terminated(run.info.run_id, "KILLED")
