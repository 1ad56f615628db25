"""Stage `train`: `python -m pipeline.stages.train <model>` trains one model of params.yaml, or goes on with it."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.project import provenance
from pipeline.project.atomic import atomic_write, write_json
from pipeline.project.params import ModelParams, load_params, model_argument
from pipeline.project.paths import (
    CHECKPOINTS,
    RAW,
    SPLIT_TABLES,
    TOKENIZER,
    VALIDATION_BATCHES,
    model_file,
    train_reports,
)
from pipeline.project.run_command import run_command
from pipeline.project.training_record import write_run
from pipeline.text import batching
from pipeline.text.encoding import load_tokenizer
from pipeline.tracking import runs
from pipeline.training import fitting, networks
from pipeline.training.examples import input_files, read_examples

NUMERICS = ("text.batching", "training.examples", "training.networks", "training.fitting", "training.fused_lstm")
"""The modules whose change makes an interrupted training worthless."""


def main() -> None:
    """Trains the model that the command line names, and writes model, reports and the file of its run."""
    params = load_params()
    name = model_argument(params)
    model_params = params.model(name)
    runs.connect()  # a store that is not there is told before the training, not after

    vocabulary_size = load_tokenizer().vocabulary_size
    teacher = model_params.learns_from
    texts = params.teachers[teacher].texts
    examples, validation = read_examples(teacher, texts), batching.read_batches(VALIDATION_BATCHES)
    device = networks.prepare_device(seed=params.seed, deterministic=params.train.deterministic)
    print(f"training {name} on {device}", flush=True)
    network = networks.accelerate(networks.build_model(model_params, vocabulary_size))
    fitting.compile_model(network, model_params, params.train, epoch_steps=examples.plan.steps)

    sections = (params.tokenize, params.batch, params.train, params.teachers[teacher], model_params)
    described = {key: value for section in sections for key, value in section.model_dump().items()}
    libraries = [metadata.version(library) for library in ("tensorflow", "keras", "numpy")]
    inputs = runs.inputs(teacher)
    files = [*input_files(teacher, texts), *sorted(VALIDATION_BATCHES.iterdir())]
    checkpoint = fitting.Checkpoint(
        CHECKPOINTS / name,
        [described, params.seed, vocabulary_size, device, libraries],
        [*files, *map(_source, NUMERICS)],
    )
    identity = {"model": name, "dataset": params.dataset, "seed": str(params.seed), "device": device}
    identity |= provenance.identity_tags([RAW, SPLIT_TABLES, TOKENIZER, *inputs.values()])
    logged = {"seed": params.seed, **described}
    with checkpoint.held(), runs.training_run(name, checkpoint.run_id, identity, logged) as run_id:
        checkpoint.begin(run_id)
        runs.log_inputs(run_id, params.dataset, inputs)
        history = fitting.fit(
            network,
            examples,
            validation,
            params=model_params,
            seed=params.seed,
            state=checkpoint.state,
            on_epoch=lambda epoch: runs.log_epoch(run_id, epoch),
        )
        metrics, times = fitting.summarize(history), fitting.times(history)
        metrics["parameters"] = network.count_params()
        weights = networks.weights_sha256(network)
        runs.log_metrics(run_id, metrics | times)
        runs.log_weights(run_id, weights)
        training = {"model": name, "weights_sha256": weights, "metrics": metrics, "params": logged}
        write_outputs(name, network, model_params, history, training)
        seconds = [epoch["seconds"] for epoch in history]
        write_run(name, runs.run_record(run_id), times=times, epoch_seconds=seconds, tags=identity)
        runs.log_artifacts(run_id, train_reports(name), "train")
        checkpoint.remove()


def _source(module: str) -> Path:
    spec = find_spec(f"pipeline.{module}")
    assert spec and spec.origin
    return Path(spec.origin)


def write_outputs(
    name: str, network: Any, params: ModelParams, history: list[fitting.Epoch], training: dict[str, Any]
) -> None:
    """Writes the model, its history and summary, and what training found: the same bytes for the same weights."""
    networks.save_model(model_file(name), network, params)
    with atomic_write(train_reports(name)) as folder:
        folder.mkdir()
        pd.DataFrame(history).drop(columns="seconds").to_csv(folder / "history.csv", index=False)
        (folder / "summary.txt").write_text(networks.summary(network), encoding="utf-8")
        write_json(folder / "training.json", training)


if __name__ == "__main__":
    run_command(main)
