"""From a training's outputs back to its MLflow run; where the store has none, the run is made anew from them."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipeline import provenance, tracking
from pipeline.artifacts import evaluation_reports, read_json, train_reports
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_RECORD_KEYS = ("run_id", "begun", "model", "weights_sha256", "metrics", "params", "tags")


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
    run = tracking.find_run(tracking.connect(), record["run_id"])
    return run.info.run_id if run else _restore_run(record, history), record, history


def _restore_run(record: Mapping[str, Any], history: "pd.DataFrame") -> str:
    client = tracking.connect()
    begun = datetime.fromisoformat(record["begun"])
    started = int(begun.timestamp() * 1000)
    run = client.create_run(
        tracking.experiment_id(client),
        start_time=started,
        run_name=f"{tracking.run_name(record['model'], record['tags'], begun.astimezone())} (restored)",
        tags={tracking.KIND: tracking.TRAINING, **record["tags"], **provenance.process_tags()},
    )
    run_id = run.info.run_id
    tracking.log_params(run_id, record["params"])
    tags = record["tags"]
    digests = {str(path): tags.get(provenance.md5_tag(path), "untracked") for path in tracking.INPUTS.values()}
    tracking.log_inputs(run_id, tags["dataset"], tracking.INPUTS, digests)
    for _, epoch in history.iterrows():
        tracking.log_epoch(run_id, {str(name): float(value) for name, value in epoch.items()})
    tracking.log_metrics(run_id, record["metrics"])
    tracking.log_artifacts(run_id, train_reports(record["model"]), "train")
    if evaluation_reports(record["model"]).exists():
        tracking.log_evaluation(run_id, record)
    else:
        tracking.describe(client, run_id)
    client.set_tag(run_id, "restored_from", record["run_id"])  # last: a run that is restored in part is none
    ended = started + int(1000 * record["metrics"]["training_seconds"])
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    return run_id
