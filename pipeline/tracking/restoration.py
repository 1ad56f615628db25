"""From a training's outputs back to its MLflow run; where the store has none, the run is made anew from them."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline.project import provenance
from pipeline.project.errors import DataError
from pipeline.project.paths import evaluated_file, evaluation_reports, metrics_file, train_reports
from pipeline.project.training_record import read_record
from pipeline.tracking import runs

if TYPE_CHECKING:
    import pandas as pd

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
    import pandas as pd

    record, file = read_record(model), train_reports(model) / "history.csv"
    try:
        history = pd.read_csv(file)[_METRICS].assign(seconds=record["epoch_seconds"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} is no history ({error}); run `dvc repro`") from None
    run = runs.find_run(runs.connect(), record["run_id"])
    return (run.info.run_id if run else _restore_run(record, history)), record


def _restore_run(record: Mapping[str, Any], history: "pd.DataFrame") -> str:
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
    digests = {str(path): tags.get(provenance.md5_tag(path), "untracked") for path in runs.INPUTS.values()}
    runs.log_inputs(run_id, tags["dataset"], runs.INPUTS, digests)
    for epoch in history.to_dict("records"):
        runs.log_epoch(run_id, {str(name): float(value) for name, value in epoch.items()})
    runs.log_metrics(run_id, record["metrics"])
    runs.log_artifacts(run_id, train_reports(model), "train")
    runs.log_weights(run_id, record["weights_sha256"])
    if all(path.exists() for path in (evaluated_file(model), metrics_file(model), evaluation_reports(model))):
        runs.log_evaluation(run_id, model)
    else:
        runs.describe(client, run_id)
    client.set_tag(run_id, "restored_from", record["run_id"])  # last: a run that is restored in part is none
    client.set_terminated(run_id, "FINISHED", end_time=started + int(1000 * record["metrics"]["training_seconds"]))
    return run_id
