"""MLflow runs: where they are stored, how one begins, is resumed, ends and is found again, and what identifies it."""

import os
import platform
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from pipeline.artifacts import evaluation_reports, read_json, train_reports
from pipeline.errors import DataError, PipelineError
from pipeline.params import PARAMS_FILE

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "imdb-sentiment"
SYSTEM_METRICS_INTERVAL_S = 2
"""Also a run of half a minute gets a curve."""
_RECORD_KEYS = ("run_id", "model", "weights_sha256", "metrics", "params", "tags")
_SQLITE = "sqlite:///"
_LIBRARIES = ("tensorflow", "keras", "numpy", "mlflow", "dvc")
_LOCK_FILE = Path("dvc.lock")
_WRITTEN_BY_DVC = (":(exclude)dvc.lock", ":(exclude)reports")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK_TOLERANCE_S = 2.0
_DIGEST_LENGTH = 36  # MLflow's limit


def store_root() -> Path:
    """Returns the folder of the default store: that of the main checkout, also inside `dvc exp run --temp`."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def tracking_uri() -> str:
    """Returns `MLFLOW_TRACKING_URI`, else the SQLite file of the main checkout; a relative SQLite path is its too."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    return f"{_SQLITE}{store_root() / uri.removeprefix(_SQLITE)}" if uri.startswith(_SQLITE) else uri


@cache
def connect() -> "MlflowClient":
    """Returns a client of the tracking store, with the experiment in place and the runs of dead processes closed.

    Raises:
        PipelineError: the store does not answer or cannot be opened, or the experiment was deleted.
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
        _ensure_experiment(client, uri)
        _close_dead_runs(client)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"the MLflow tracking store {uri} cannot be used ({reason}); start it, or unset MLFLOW_TRACKING_URI "
            "to track in mlflow.db"
        ) from error
    return client


def _ensure_experiment(client: "MlflowClient", uri: str) -> None:
    from mlflow.exceptions import MlflowException

    if client.get_experiment_by_name(EXPERIMENT) is None:
        # A server decides itself where artifacts go; a database is told, or they would go to ./mlruns.
        location = None if uri.startswith("http") else (_store_folder(uri) / "mlartifacts").as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on training runs, not on traces
        try:
            client.create_experiment(EXPERIMENT, artifact_location=location, tags=kind)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # else another process was quicker
                raise
    if client.get_experiment(experiment_id(client)).lifecycle_stage == "deleted":
        raise PipelineError(f"the experiment {EXPERIMENT} was deleted; restore it with `mlflow experiments restore`")


def _store_folder(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE)).parent if uri.startswith(_SQLITE) else store_root()


def experiment_id(client: "MlflowClient") -> str:
    """Returns the id of the project's experiment."""
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
    status = "FAILED"
    try:
        run = mlflow.start_run(
            run_id=resumed.info.run_id if resumed else None,
            run_name=None if resumed else f"{model} {datetime.now():%Y-%m-%d %H:%M}",
            tags={**tags, **_process_tags(), **({"resumed": "true"} if resumed else {})},
            log_system_metrics=True,
        )
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
    """Returns the run `run_id`, or the one that was restored from its outputs; None if neither is there any more."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            return run
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    restored = client.search_runs([experiment_id(client)], f"tags.restored_from = '{run_id}'", max_results=1)
    return restored[0] if restored else None


def recorded_run(model: str) -> "tuple[str, dict[str, Any], pd.DataFrame]":
    """Finds the run that the outputs of the training of `model`, its `run.json` and `history.csv`, belong to.

    Where the store has no such run, as after a fresh clone with pulled outputs, it is made anew from the outputs and
    tagged `restored_from`.

    Returns:
        The run's id in this store, the content of `run.json`, and the history, one row an epoch.

    Raises:
        DataError: one of the two files is missing or something else.
    """
    import pandas as pd

    record = read_json(train_reports(model) / "run.json", _RECORD_KEYS)
    try:
        history = pd.read_csv(train_reports(model) / "history.csv")
        history = history[["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "seconds"]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{train_reports(model) / 'history.csv'} is no history ({error}); run `dvc repro`") from None
    run = find_run(connect(), record["run_id"])
    return run.info.run_id if run else _restore_run(record, history), record, history


def _restore_run(record: Mapping[str, Any], history: "pd.DataFrame") -> str:
    import mlflow

    client = connect()
    tags = {**record["tags"], **_process_tags()}
    run = client.create_run(experiment_id(client), run_name=f"{record['model']} (restored)", tags=tags)
    run_id = run.info.run_id
    mlflow.log_params(record["params"], run_id=run_id)
    for _, epoch in history.iterrows():
        log_epoch(run_id, {str(name): float(value) for name, value in epoch.items()})
    log_metrics(run_id, record["metrics"], step=record["metrics"]["best_epoch"])
    log_artifacts(run_id, train_reports(record["model"]), "train")
    if evaluation_reports(record["model"]).exists():
        log_evaluation(run_id, record)
    client.set_tag(run_id, "restored_from", record["run_id"])  # last: a run that is restored in part is none
    client.set_terminated(run_id, "FINISHED")
    return run_id


def log_evaluation(run_id: str, record: Mapping[str, Any]) -> None:
    """Logs the metrics and files of the evaluation of the model in `record`, a `run.json`."""
    folder = evaluation_reports(record["model"])
    metrics = {
        f"test/{name}": value for name, value in read_json(folder / "metrics.json").items() if type(value) is float
    }
    log_metrics(run_id, metrics, step=record["metrics"]["best_epoch"])
    log_artifacts(run_id, folder, "evaluate")


def log_epoch(run_id: str, epoch: Mapping[str, float]) -> None:
    """Logs one finished epoch, once, under the names that all models share; step = epoch."""
    step = int(epoch["epoch"])
    if any(metric.step == step for metric in connect().get_metric_history(run_id, "val/loss")):
        return
    names = {"loss": "train/loss", "accuracy": "train/accuracy", "val_loss": "val/loss", "val_accuracy": "val/accuracy"}
    log_metrics(run_id, {names[key]: epoch[key] for key in names} | {"epoch_seconds": epoch["seconds"]}, step=step)


def log_metrics(run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
    """Logs metrics in a run, without reopening it."""
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
    known = {(item.tags[0].value, item.dataset.digest) for item in linked.dataset_inputs} if linked else set()
    digests = _lock_digests()
    named = {context: digests.get(str(path), "untracked")[:_DIGEST_LENGTH] for context, path in inputs.items()}
    client.log_inputs(
        run_id,
        datasets=[
            DatasetInput(
                Dataset(f"{dataset}-{context}", digest, "dvc", f"dvc:{inputs[context]}"),
                [InputTag("mlflow.data.context", context)],
            )
            for context, digest in named.items()
            if (context, digest) not in known
        ],
    )


def identity_tags(inputs: Iterable[Path]) -> dict[str, str]:
    """Returns the tags that say from what a run was made: code, md5 of each input in `dvc.lock`, DVC stage and
    experiment, library versions."""
    digests = _lock_digests()
    dvc = {"dvc.stage": os.environ.get("DVC_STAGE"), "dvc.experiment": os.environ.get("DVC_EXP_NAME")}
    return {
        "python": platform.python_version(),
        **{f"version.{name}": metadata.version(name) for name in _LIBRARIES},
        **{f"md5.{path}": digests[str(path)] for path in inputs if str(path) in digests},
        **{name: value for name, value in dvc.items() if value},
        **_git_tags(),
    }


def _lock_digests() -> dict[str, str]:
    """Returns path → md5 of every output that `dvc.lock` records; empty where there is no lock yet."""
    if not _LOCK_FILE.exists():
        return {}
    stages = (YAML(typ="safe", pure=True).load(_LOCK_FILE.read_text(encoding="utf-8")) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def _git_tags() -> dict[str, str]:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != Path.cwd().resolve():
            return {"git.dirty": "unknown"}  # a copy inside another checkout, as the demo is
        dirty = bool(git("status", "--porcelain", "--", ".", *_WRITTEN_BY_DVC))
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.dirty": str(dirty).lower()}
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout: a run is tracked all the same
        return {"git.dirty": "unknown"}


def _process_tags() -> dict[str, str]:
    import psutil

    return {
        "process.host": _host(),
        "process.pid": str(os.getpid()),
        "process.started": str(psutil.Process().create_time()),
    }


def _host() -> str:
    """Names this boot of this machine: other machines may share its host name."""
    return f"{platform.node()} {_BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ''}".strip()


def _close_dead_runs(client: "MlflowClient") -> None:
    """Marks as KILLED the runs that are RUNNING though the process that held them is gone (kill -9, a crash).

    Only for processes of this boot of this machine: of others nothing is known here.
    """
    for run in client.search_runs([experiment_id(client)], "attributes.status = 'RUNNING'"):
        tags = run.data.tags
        if tags.get("process.host") == _host() and "process.pid" in tags and not _is_alive(tags):
            client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(tags: Mapping[str, str]) -> bool:
    import psutil

    try:
        started = psutil.Process(int(tags["process.pid"])).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(started - float(tags.get("process.started", "nan"))) < _CLOCK_TOLERANCE_S
