"""MLflow runs: where they are stored, how one begins, is resumed, ends and is found again, and what is logged."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.project import provenance
from pipeline.project.atomic import read_json
from pipeline.project.credentials import TRACKING_URI
from pipeline.project.errors import PipelineError, UsageError, one_line, store_errors
from pipeline.project.params import PARAMS_FILE
from pipeline.project.paths import (
    EVALUATED,
    LABELLED_POINTER,
    VALIDATION_BATCHES,
    behaviour_file,
    evaluated_file,
    evaluation_reports,
    metrics_file,
    teacher_folder,
)
from pipeline.tracking import availability, relocation, run_colours, run_description
from pipeline.tracking.availability import SQLITE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "imdb-sentiment"
KIND = "kind"
"""The tag that says what a run is, so that a table of runs can be one of trainings alone."""
TRAINING = "training"
IS_TRAINING = f"tags.{KIND} = '{TRAINING}'"
"""The condition by which MLflow finds the trainings."""
WEIGHTS = "weights_sha256"
"""The tag of a training with the hash of its weights."""
REGISTERED = "registered"
"""The tag of a training with the version that it became, as a URI names it: `imdb-sentiment/2`."""
NOTE = "mlflow.note.content"
"""MLflow's tag for a description, of a run or an experiment."""
_MOST_RUNS = 50_000  # MLflow's limit of one search
_FIRST = ("val/accuracy", "val_accuracy")
_DIGEST_LENGTH = 36  # MLflow's limit
_SLICES = "tables/slices.json"


def inputs(teacher: str) -> dict[str, Path]:
    """Returns the data sets of a training that learns from `teacher`, by MLflow's name of what they are for."""
    return {"training": teacher_folder(teacher), "validation": VALIDATION_BATCHES}


def store_root() -> Path:
    """Returns the folder of the default store: that of the main checkout, also inside `dvc exp run --temp`."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def tracking_uri() -> str:
    """Returns `MLFLOW_TRACKING_URI`, else the SQLite file of the main checkout; a relative SQLite path is its too.

    Raises:
        UsageError: it names a SQLite file that cannot be, as its folder does not exist.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if not uri.startswith(SQLITE):
        return uri
    file = store_root() / uri.removeprefix(SQLITE)
    if not file.parent.is_dir() or file.is_dir():  # MLflow would make a folder for a mistyped name
        what = "is a folder" if file.is_dir() else f"cannot be a file: there is no folder {file.parent}"
        raise UsageError(f"MLFLOW_TRACKING_URI={uri} is wrong: {file} {what}")
    return f"{SQLITE}{file}"


def store_folder() -> Path:
    """Returns the folder for what belongs beside the store: that of a SQLite store, else of the main checkout."""
    file = sqlite_file()
    return file.parent.resolve() if file else store_root()


def sqlite_file() -> Path | None:
    """Returns the file of a SQLite store, None where the store is a server's."""
    uri = tracking_uri()
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def store_exists() -> bool:
    """Whether there is a store to read: `connect` makes a SQLite file that is not there.

    Raises:
        PipelineError: it is damaged, locked or another MLflow's, or the server does not answer.
    """
    uri, file = tracking_uri(), sqlite_file()
    if file:
        return availability.sqlite_store_exists(file)
    if uri.startswith("http"):
        with _told(uri):
            availability.require_answer(uri)
    return True


@cache
def connect() -> "MlflowClient":
    """Returns a client of the tracking store for a command that writes: with the experiment in place, the runs of dead
    processes closed, and the files' places entered anew where the project was moved or copied.

    Raises:
        PipelineError: the store does not answer or cannot be opened, the experiment was deleted, or the project was
            moved or copied while a run may be at work on it.
    """
    store_exists()
    client = _client(tracking_uri())
    with _told(tracking_uri()):
        _ensure_experiment(client)
        _close_dead_runs(client)
        if misplaced_artifacts():
            _require_no_run(client)
            relocate()
    return client


def connect_to_read() -> "MlflowClient":
    """Returns a client of the tracking store for a command that changes nothing in it, and makes none.

    Raises:
        PipelineError: there is no store, or it does not answer or cannot be opened.
    """
    if connect.cache_info().currsize:
        return connect()
    if not store_exists():
        raise PipelineError(no_store())
    if not misplaced_artifacts():
        return _client(tracking_uri())
    named, file = tracking_uri(), sqlite_file()
    assert file
    client = _client(f"{SQLITE}{relocation.readable_copy(file)}")
    os.environ[TRACKING_URI] = named  # MLflow set it to the copy, for the processes that this one starts
    return client


def misplaced_artifacts() -> bool:
    """Whether a local store says that files are in another project's folder, as this one was moved or copied."""
    file = sqlite_file()
    return bool(file and file.exists() and relocation.misplaced(file))


def relocate() -> int:
    """Enters where the files of a local store are now; see `relocation.relocate`. Returns how many places were entered.

    Raises:
        UsageError: the store is on a server.
        PipelineError: there is none, or it cannot be used.
    """
    file = sqlite_file()
    if file is None:
        raise UsageError(f"{tracking_uri()} is no local store: who runs it decides where its files are")
    if not store_exists():
        raise PipelineError(no_store())
    return relocation.relocate(file)


def _require_no_run(client: "MlflowClient") -> None:
    if at_work := client.search_runs([experiment_id(client)], "attributes.status = 'RUNNING'", max_results=1):
        raise PipelineError(
            f"the project was moved or copied to {store_folder()}, and run {at_work[0].info.run_id} is RUNNING; let it "
            "end, or if nothing here is at work on it: `sentiment registry relocate` enters where the store's files are"
        )


def no_store() -> str:
    """Says that there is no local store, and the remedy."""
    return f"there is no registry at {sqlite_file()}; run `dvc repro`, or set MLFLOW_TRACKING_URI to another store"


def unusable(uri: str, reason: object) -> str:
    """Says that the store at `uri` cannot be used, why, and the remedy."""
    remedy = (
        "start it, or unset MLFLOW_TRACKING_URI to track in mlflow.db"
        if uri.startswith("http")
        else "where it is damaged, `sentiment registry restore` puts a backup in its place"
    )
    return f"the MLflow tracking store {uri} cannot be used ({reason}); {remedy}"


def _client(uri: str) -> "MlflowClient":
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient()


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turns what MLflow raises of the store in the block into a sentence with the remedy."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, *store_errors())):
            raise
        raise PipelineError(unusable(uri, one_line(error))) from error


def _ensure_experiment(client: "MlflowClient") -> None:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        # A server decides itself where artifacts go; a database is told, or they would go to ./mlruns.
        location = None if tracking_uri().startswith("http") else (store_folder() / relocation.ARTIFACTS).as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on training runs, not on traces
        try:
            client.create_experiment(EXPERIMENT, artifact_location=location, tags=kind)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # else another process was quicker
                raise
    elif experiment.lifecycle_stage == "deleted":
        raise PipelineError(
            f"the experiment {EXPERIMENT} was deleted: `{TRACKING_URI}={tracking_uri()} mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}` brings it back, with its runs"
        )


def experiment_id(client: "MlflowClient") -> str:
    """Returns the id of the project's experiment, which `connect` made."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return experiment.experiment_id


@contextmanager
def training_run(model: str, resume: str | None, tags: Mapping[str, str], params: Mapping[str, Any]) -> Iterator[str]:
    """Begins the run of a training of `model`, or takes up again the run `resume`, and yields its id.

    The run ends FINISHED, as FAILED after an exception, or as KILLED after SIGTERM or SIGINT; one that is left RUNNING
    by kill -9 is closed by the next command that connects. Its description says how far it has come. The machine's own
    metrics, which would stand between the model's, are logged only where MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING asks.

    Raises:
        PipelineError: the training was interrupted.
    """
    client = connect()
    import mlflow

    mlflow.set_experiment(EXPERIMENT)
    resumed = find_run(client, resume) if resume else None
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    status, run_id = "FAILED", None
    try:
        run_id = mlflow.start_run(
            run_id=resumed.info.run_id if resumed else None,
            run_name=None if resumed else run_name(model, tags, datetime.now()),
            tags={KIND: TRAINING, **tags, **provenance.process_tags(), **({"resumed": "true"} if resumed else {})},
        ).info.run_id
        mlflow.log_params(dict(params), run_id=run_id)
        describe(client, run_id)
        run_colours.paint(client, trainings(client))
        yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise PipelineError(
            "training was interrupted; the next `dvc repro` goes on from its last epoch, if data, params and code are "
            "the same"
        ) from None
    finally:
        mlflow.end_run(status)
        signal.signal(signal.SIGTERM, previous)
        if run_id:
            describe(client, run_id)


def run_name(model: str, tags: Mapping[str, str], begun: datetime) -> str:
    """Returns what tells a training's run apart: its model and its DVC experiment, or when it began (local time)."""
    return f"{model} {tags.get(provenance.EXPERIMENT) or begun.strftime('%m-%d %H:%M')}"


def find_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Returns the run `run_id`, or the one that was restored from its outputs; None if neither is there any more."""
    if experiment := client.get_experiment_by_name(EXPERIMENT):
        for condition in (f"attributes.run_id = '{run_id}'", f"tags.restored_from = '{run_id}'"):
            if found := client.search_runs([experiment.experiment_id], condition, max_results=1):
                return found[0]
    return None


def trained(client: "MlflowClient", weights_sha256: str) -> list["Run"]:
    """Returns the finished and measured trainings that ended in these weights, the oldest first."""
    ended = f"attributes.status = 'FINISHED' and tags.{WEIGHTS} = '{weights_sha256}' and metrics.`test/accuracy` >= 0"
    return list(client.search_runs([experiment_id(client)], ended, order_by=["attributes.start_time ASC"]))


def trainings(client: "MlflowClient") -> list["Run"]:
    """Returns all trainings, the oldest first."""
    order = ["attributes.start_time ASC"]
    return list(client.search_runs([experiment_id(client)], IS_TRAINING, max_results=_MOST_RUNS, order_by=order))


def tested_experiments(client: "MlflowClient") -> set[str]:
    """Returns the weights of the trainings in DVC experiments that were measured on the test split."""
    measured = f"tags.`{provenance.EXPERIMENT}` LIKE '%' and metrics.`test/accuracy` >= 0"
    found = client.search_runs([experiment_id(client)], measured, max_results=_MOST_RUNS)
    return {run.data.tags[WEIGHTS] for run in found if WEIGHTS in run.data.tags}


def run_record(run_id: str) -> dict[str, str]:
    """Returns what a training's outputs keep of their run, to find it or make it anew: id, begin (UTC, ISO 8601)."""
    started = connect().get_run(run_id).info.start_time
    return {"run_id": run_id, "begun": datetime.fromtimestamp(started / 1000, UTC).isoformat(timespec="seconds")}


def log_weights(run_id: str, sha256: str) -> None:
    """Tags a training with the hash of the weights that it ended in, so that the first one of them is found."""
    connect().set_tag(run_id, WEIGHTS, sha256)


def log_evaluation(run_id: str, model: str) -> None:
    """Logs the metrics, studies and failures that `evaluate`, `test` and `behaviour` found of `model`, its slices on
    the test split as a table that the UI compares between runs, and completes the run's description."""
    client, report = connect(), read_json(metrics_file(model), ("intervals", "slices"))
    evaluated = read_json(evaluated_file(model), ("validation",))
    by_split = {split: evaluated[split] for split in EVALUATED if split in evaluated} | {"test": report}
    by_split |= {"test/corrected": report["corrected"]} if "corrected" in report else {}
    for split, found in by_split.items():
        log_metrics(run_id, {f"{split}/{name}": value for name, value in _figures(found).items()})
    behaviour = read_json(behaviour_file(model), ("capabilities", "evaluation_sets"))
    for section, prefix in (("capabilities", "behaviour"), ("evaluation_sets", "evaluation_sets")):
        for of, found in behaviour[section].items():
            log_metrics(run_id, {f"{prefix}/{of}/{name}": value for name, value in _figures(found).items()})
    if evaluation_reports(model).exists():  # of a network
        log_artifacts(run_id, evaluation_reports(model), "evaluate")
    client.log_dict(run_id, behaviour, "evaluate/behaviour.json")
    client.log_dict(run_id, report, "evaluate/metrics.json")
    # As MLflow's `log_table` does, which however appends to a table that stands there already.
    columns = list(report["slices"][0])
    rows = [[one[column] for column in columns] for one in report["slices"]]
    client.log_dict(run_id, {"columns": columns, "data": rows}, _SLICES)
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": _SLICES, "type": "table"}]))
    describe(client, run_id, report["intervals"]["accuracy"])


def _figures(found: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a report, those of its sure answers as `sure/…`; its tables and intervals are not for the
    UI's charts."""
    named = [*found.items(), *((f"sure/{name}", value) for name, value in found.get("sure", {}).items())]
    return {name: value for name, value in named if type(value) is float}


def describe(client: "MlflowClient", run_id: str, accuracy_interval: Sequence[float] | None = None) -> None:
    """Writes into the description of a training's run how far it has come; see `run_description.of_training`."""
    run = client.get_run(run_id)
    client.set_tag(run_id, NOTE, run_description.of_training(run.info.status, run.data, accuracy_interval))


def log_epoch(run_id: str, epoch: Mapping[str, float]) -> None:
    """Logs one finished epoch, once, under the names that all models share; step = epoch."""
    step = int(epoch["epoch"])
    if any(metric.step == step for metric in connect().get_metric_history(run_id, "val/loss")):
        return
    names = {"loss": "train/loss", "accuracy": "train/accuracy", "val_loss": "val/loss", "val_accuracy": "val/accuracy"}
    log_metrics(run_id, {names[key]: epoch[key] for key in names} | {"epoch_seconds": epoch["seconds"]}, step=step)


def log_metrics(run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
    """Logs metrics in a run, without reopening it: points of curves at `step`, or, at 0, figures of the whole run,
    which the UI draws as bars side by side. Accuracy on validation goes first, as the UI's page *Compare* opens on the
    metric that was logged first of those that the runs share."""
    import mlflow

    connect()
    mlflow.log_metrics(dict(sorted(metrics.items(), key=lambda metric: metric[0] not in _FIRST)), step, run_id=run_id)


def log_artifacts(run_id: str, folder: Path, name: str) -> None:
    """Logs the files of `folder` under `name` in the run, and what DVC ran from, without reopening it."""
    client = connect()
    client.log_artifacts(run_id, str(folder), name)
    for file in (provenance.LOCK_FILE, PARAMS_FILE, LABELLED_POINTER):
        if file.exists():
            client.log_artifact(run_id, str(file), "dvc")


def log_inputs(run_id: str, dataset: str, inputs: Mapping[str, Path], digests: Mapping[str, str] | None = None) -> None:
    """Links what DVC tracks at `inputs`, by context (training, validation or test), as data sets named after `dataset`
    to a run; `digests` are their md5 by path, without it those of `dvc.lock`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digests = provenance.lock_digests() if digests is None else digests
    linked = []
    for context, path in inputs.items():  # what is linked already, MLflow leaves as it is
        digest = digests.get(str(path), "untracked")[:_DIGEST_LENGTH]
        data = Dataset(f"{dataset}-{context}", digest, "dvc", f"dvc:{path}")
        linked.append(DatasetInput(data, [InputTag("mlflow.data.context", context)]))
    connect().log_inputs(run_id, datasets=linked)


def _close_dead_runs(client: "MlflowClient") -> None:
    """Marks as KILLED the runs that are RUNNING though the process that held them is gone (kill -9, a crash)."""
    for run in client.search_runs([experiment_id(client)], "attributes.status = 'RUNNING'"):
        if provenance.is_gone(run.data.tags):
            client.set_terminated(run.info.run_id, "KILLED")
            if run.data.tags.get(KIND) == TRAINING:
                describe(client, run.info.run_id)
