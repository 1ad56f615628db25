"""Stage `train`: `python -m pipeline.stages.train <model>` trains one model of params.yaml, or goes on with it."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import batching, model, provenance, tracking, training
from pipeline.artifacts import (
    CHECKPOINTS,
    RAW,
    SPLIT_TABLES,
    TOKENIZER,
    model_file,
    train_reports,
    write_json,
    written_whole,
)
from pipeline.errors import UsageError, run_command
from pipeline.params import ModelParams, load_params
from pipeline.vocabulary import load_tokenizer

NUMERICS = tuple(
    Path(__file__).parent.parent / f"{room}.py" for room in ("batching", "fused_lstm", "model", "training")
)
"""The modules whose change makes an interrupted training worthless."""


def main() -> None:
    if len(sys.argv) != 2:
        raise UsageError("name one model of params.yaml: python -m pipeline.stages.train <model>")
    name = sys.argv[1]
    params = load_params()
    model_params = params.model(name)
    tracking.connect()  # a store that is not there is told before the training, not after

    vocabulary_size = load_tokenizer().vocabulary_size
    train, validation = (batching.read_batches(folder) for folder in tracking.INPUTS.values())
    device = model.prepare_device(seed=params.seed, deterministic=params.train.deterministic)
    print(f"training {name} on {device}", flush=True)
    network = model.accelerate(model.build_model(model_params, vocabulary_size))
    training.compile_model(network, model_params, params.train, epoch_steps=len(train))

    sections = (params.tokenize, params.batch, params.train, model_params)
    described = {key: value for section in sections for key, value in section.model_dump().items()}
    libraries = [metadata.version(library) for library in ("tensorflow", "keras", "numpy")]
    files = [file for folder in tracking.INPUTS.values() for file in sorted(folder.iterdir())]
    checkpoint = training.Checkpoint(
        CHECKPOINTS / name, [described, params.seed, vocabulary_size, device, libraries], [*files, *NUMERICS]
    )
    identity = {"model": name, "dataset": params.dataset, "seed": str(params.seed), "device": device}
    identity |= provenance.identity_tags([RAW, SPLIT_TABLES, TOKENIZER, *tracking.INPUTS.values()])
    logged = {"seed": params.seed, **described}
    with checkpoint.held(), tracking.training_run(name, checkpoint.run_id, identity, logged) as run_id:
        checkpoint.begin(run_id)
        tracking.log_inputs(run_id, params.dataset, tracking.INPUTS)
        progress = training.fit(
            network,
            train,
            validation,
            params=params.train,
            token_dropout=model_params.token_dropout,
            seed=params.seed,
            state=checkpoint.state,
            on_epoch=lambda epoch: tracking.log_epoch(run_id, epoch),
        )
        metrics = training.summarize(progress) | {"parameters": network.count_params()}
        tracking.log_metrics(run_id, metrics)
        record = {
            **tracking.run_record(run_id),
            "model": name,
            "weights_sha256": model.weights_sha256(network),
            "metrics": metrics,
            "params": logged,
            "tags": identity,
        }
        write_outputs(name, network, model_params, progress, record)
        tracking.log_artifacts(run_id, train_reports(name), "train")
        checkpoint.remove()


def write_outputs(
    name: str, network: Any, params: ModelParams, progress: training.Progress, record: dict[str, Any]
) -> None:
    """Writes the model, its history and summary, and the record by which its MLflow run is found again."""
    model.save_model(model_file(name), network, params)
    with written_whole(train_reports(name)) as folder:
        folder.mkdir()
        pd.DataFrame(progress.history).to_csv(folder / "history.csv", index=False)
        (folder / "summary.txt").write_text(model.summary(network), encoding="utf-8")
        write_json(folder / "run.json", record)


if __name__ == "__main__":
    run_command(main)
