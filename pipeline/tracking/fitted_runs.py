"""The run of a candidate that is fitted in one go, as `train` has one of each network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.project import provenance
from pipeline.project.atomic import atomic_write, write_json
from pipeline.project.paths import BLEND, NGRAMS, RAW, SPLIT_TABLES, TOKENIZER, train_reports
from pipeline.project.training_record import write_run
from pipeline.tracking import runs

FITTED = (NGRAMS, BLEND)
"""The candidates that are fitted in one go, each by a stage of its name."""


@dataclass
class Fitting:
    """A fitting under way; `seconds` is what it took, set by whoever fits."""

    model: str
    run_id: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    seconds: float = field(default=0.0)

    def end(self, *, weights_sha256: str, parameters: int, validation: Mapping[str, Any]) -> None:
        """Writes and logs what the fitting found: the same files that a training leaves, without epochs."""
        metrics = {"parameters": parameters, "val_accuracy": validation["accuracy"], "val_loss": validation["loss"]}
        times = {"training_seconds": round(self.seconds, 1)}
        training = {"model": self.model, "weights_sha256": weights_sha256, "metrics": metrics, "params": self.params}
        with atomic_write(train_reports(self.model)) as folder:
            folder.mkdir()
            write_json(folder / "training.json", training)
        runs.log_metrics(self.run_id, metrics | times)
        runs.log_weights(self.run_id, weights_sha256)
        write_run(self.model, runs.run_record(self.run_id), times=times, epoch_seconds=[], tags=self.tags)
        runs.log_artifacts(self.run_id, train_reports(self.model), "train")


@contextmanager
def fitting(model: str, dataset: str, params: Mapping[str, Any]) -> Iterator[Fitting]:
    """Begins the run of a fitting with these params, and ends it as `runs.training_run` does."""
    runs.connect()
    tags = {"model": model, "dataset": dataset, "seed": str(params["seed"]), "device": "CPU"}
    tags |= provenance.identity_tags([RAW, SPLIT_TABLES, TOKENIZER])
    with runs.training_run(model, None, tags, params) as run_id:
        yield Fitting(model, run_id, params, tags)
