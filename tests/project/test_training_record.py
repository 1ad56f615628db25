"""What a training leaves of itself: what its weights share stands apart from what is its run's alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import edit_params

from pipeline.project import paths
from pipeline.project.atomic import write_json, write_table
from pipeline.project.errors import DataError
from pipeline.project.training_record import read_record, read_training, write_run
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.batching import make_batches, write_batches, write_plan
from pipeline.text.token_arrays import write_tokens
from pipeline.text.vocabulary import build_vocabulary

TRAINING = {
    "model": "single",
    "weights_sha256": "a" * 64,
    "metrics": {"epochs": 2, "val_accuracy": 0.8, "val_loss": 0.4, "parameters": 1200},
    "params": {"seed": 42, "recurrent_units": [8]},
}
RUN = {"run_id": "1" * 32, "begun": "2026-11-26T01:00:00+00:00"}
TIMES = {"training_seconds": 61.5, "seconds_per_epoch": 30.8}
SECONDS = [31.0, 30.5]
TAGS = {"model": "single", "device": "CPU"}


def write() -> None:
    write_json(paths.train_reports("single") / "training.json", TRAINING)
    write_run("single", RUN, times=TIMES, epoch_seconds=SECONDS, tags=TAGS)


def test_what_was_written_is_read_back_as_one(project: Path) -> None:
    write()
    assert read_training("single") == TRAINING
    metrics = {**TRAINING["metrics"], **TIMES}
    assert read_record("single") == {**TRAINING, **RUN, "metrics": metrics, "tags": TAGS, "epoch_seconds": SECONDS}


@pytest.mark.parametrize("file", ["reports/train/single/training.json", "reports/runs/single.json"])
def test_a_file_that_is_missing_or_holds_something_else_is_named(project: Path, file: str) -> None:
    write()
    Path(file).write_text('{"metrics": {}}')
    with pytest.raises(DataError, match=f"{re.escape(file)} is not the JSON file that belongs there"):
        read_record("single")
    Path(file).unlink()
    with pytest.raises(DataError, match=f"{re.escape(file)} does not exist; run `dvc repro`"):
        read_record("single")


def test_the_training_is_known_without_its_run(project: Path) -> None:
    write()
    paths.run_file("single").unlink()
    assert read_training("single") == TRAINING


@pytest.fixture
def train(
    project: Path, reviews: pd.DataFrame, run_stage: Callable[..., CompletedProcess[str]]
) -> Callable[[], dict[str, Any]]:
    """Runs stage `train` on a few real reviews in a project that stands where it begins; returns its record."""
    single = {"embedding_dim": 4, "recurrent_units": [4], "epochs": 2, "learns_from": "labels"}
    edit_params(project, **{f"models__single__{key}": value for key, value in single.items()})
    texts, label = reviews["text"].head(80).tolist(), reviews["label"].head(80).to_numpy()
    tokenizer = SubwordTokenizer(build_vocabulary(texts, 600))
    paths.TOKENIZER.mkdir(parents=True)
    tokenizer.save(paths.VOCABULARY)
    token_ids = [np.array(ids, np.int32) for ids in tokenizer.encode_batch(texts, 32)]
    ids = [f"train/{row}" for row in range(60)]
    write_tokens(
        paths.TOKENS / "train", token_ids[:60], ids, label[:60].tolist(), vocabulary_size=tokenizer.vocabulary_size
    )
    targets = pd.DataFrame({"id": ids, "target": label[:60].astype(np.float32)})
    write_table(paths.teacher_folder("labels") / "train.parquet", targets)
    paths.TRAINING_PLAN.mkdir(parents=True)
    lengths = {"train": [len(row) for row in token_ids[:60]]}
    write_plan(paths.TRAINING_PLAN, lengths, batch_size=20, pool_batches=2, seed=1)
    validation = [f"validation/{row}" for row in range(20)]
    batches = make_batches(token_ids[60:], label[60:], validation, batch_size=20, pool_batches=None, seed=1)
    write_batches(paths.VALIDATION_BATCHES, batches)

    def run() -> dict[str, Any]:
        done = run_stage("train", "single")
        assert done.returncode == 0, done.stderr[-3000:]
        return read_record("single")

    return run


def test_what_training_found_holds_no_time_run_or_device_and_is_the_same_of_the_next_run(
    train: Callable[[], dict[str, Any]],
) -> None:
    def outputs() -> dict[str, bytes]:
        files = [paths.model_file("single"), *sorted(paths.train_reports("single").iterdir())]
        return {file.name: file.read_bytes() for file in files}

    first, found = train(), outputs()
    assert list(found) == ["weights.npz", "history.csv", "summary.txt", "training.json"]
    training = json.loads(found["training.json"])
    assert training == {"model": "single", "weights_sha256": first["weights_sha256"], "params": first["params"]} | {
        "metrics": {name: value for name, value in first["metrics"].items() if name not in TIMES}
    }
    assert first["metrics"].keys() - training["metrics"].keys() == TIMES.keys()
    told = found["training.json"].decode() + found["history.csv"].decode()
    run_alone = [first["run_id"], first["begun"][:10], first["tags"]["device"], first["tags"]["python"]]
    assert not [one for one in (*run_alone, "second", "run_id", "begun", "device", "tags") if one in told]
    assert len(first["epoch_seconds"]) == first["metrics"]["epochs"] == 2 and min(first["epoch_seconds"]) > 0

    second = train()
    assert outputs() == found
    assert second["run_id"] != first["run_id"]
