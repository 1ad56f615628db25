"""What a training leaves of itself: one file that is the same for the same weights, and one of the run that made them.

Stages that read the first alone do not run again where another run ended in the same weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.project.atomic import read_json, write_json
from pipeline.project.paths import run_file, train_reports

_TRAINING = ("model", "weights_sha256", "metrics", "params")
_RUN = ("run_id", "begun", "metrics", "tags", "epoch_seconds")


def read_training(model: str) -> dict[str, Any]:
    """Returns model, weights_sha256, params, and the metrics that the same weights share: val_accuracy, val_loss,
    parameters, and a network's epochs; raises DataError where the file is missing or something else."""
    return read_json(train_reports(model) / "training.json", _TRAINING)


def write_run(
    model: str, run: Mapping[str, str], *, times: Mapping[str, float], epoch_seconds: Sequence[float], tags: Any
) -> None:
    """Writes the file of the run: `run` is its id and begin, `times` the metrics that differ from run to run."""
    write_json(run_file(model), {**run, "metrics": dict(times), "epoch_seconds": list(epoch_seconds), "tags": tags})


def read_record(model: str) -> dict[str, Any]:
    """Returns both files of a training as one: `read_training`'s, and run_id, begun, tags, epoch_seconds, and the
    times among the metrics; raises DataError where one is missing or something else."""
    training, run = read_training(model), read_json(run_file(model), _RUN)
    return {**training, **run, "metrics": {**training["metrics"], **run["metrics"]}}
