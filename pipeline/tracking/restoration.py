"""From a training's outputs back to its MLflow run; where the store has none, the run is made anew from them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline.project import provenance
from pipeline.project.errors import DataError
from pipeline.project.paths import behaviour_file, evaluated_file, metrics_file, train_reports
from pipeline.project.training_record import read_record
from pipeline.tracking import runs

_METRICS = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]


def recorded_run(model: str) -> tuple[str, dict[str, Any]]:
    """Finds the run that the outputs of the training of `model` belong to.

    Where the store has no such run, as after a fresh clone with pulled outputs, it is made anew from the outputs and
    tagged `restored_from`.

    Returns:
        The run's id in this store, and the training's record; see `training_record.read_record`.

    Raises:
        DataError: one of the training's files is missing or something else.
    """
    record = read_record(model)
    history = _history(model, record["epoch_seconds"])
    run = runs.find_run(runs.connect(), record["run_id"])
    return (run.info.run_id if run else _restore_run(record, history)), record


def _history(model: str, seconds: Sequence[float]) -> list[dict[str, float]]:
    """Returns the epochs of a training; of what was fitted in one go none."""
    import pandas as pd

    if not seconds:
        return []
    file = train_reports(model) / "history.csv"
    try:
        history = pd.read_csv(file)[_METRICS].assign(seconds=seconds)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} is no history ({error}); run `dvc repro`") from None
    return [{str(name): float(value) for name, value in epoch.items()} for epoch in history.to_dict("records")]


def _restore_run(record: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    import mlflow

    client, model, tags = runs.connect(), record["model"], record["tags"]
    begun = datetime.fromisoformat(record["begun"])
    started = int(1000 * begun.timestamp())
    run = client.create_run(
        runs.experiment_id(client),
        start_time=started,
        run_name=f"{runs.run_name(model, tags, begun.astimezone())} (restored)",
        tags={runs.KIND: runs.TRAINING, **tags, **provenance.process_tags()},
    )
    run_id = run.info.run_id
    mlflow.log_params(record["params"], run_id=run_id)
    teacher = record["params"].get("learns_from")
    inputs = runs.inputs(teacher) if teacher else {}
    digests = {str(path): tags.get(provenance.md5_tag(path), "untracked") for path in inputs.values()}
    runs.log_inputs(run_id, tags["dataset"], inputs, digests)
    for epoch in history:
        runs.log_epoch(run_id, epoch)
    runs.log_metrics(run_id, record["metrics"])
    runs.log_artifacts(run_id, train_reports(model), "train")
    runs.log_weights(run_id, record["weights_sha256"])
    if all(path.exists() for path in (evaluated_file(model), metrics_file(model), behaviour_file(model))):
        runs.log_evaluation(run_id, model)
    else:
        runs.describe(client, run_id)
    client.set_tag(run_id, "restored_from", record["run_id"])  # last: a run that is restored in part is none
    client.set_terminated(run_id, "FINISHED", end_time=started + int(1000 * record["metrics"]["training_seconds"]))
    return run_id
