"""A worker that trains one model, an epoch a turn: `classic` as published, or `pipeline` as the stage `train` does, at
its own batch size or another."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import classic
from benchmarks.profiles import kernels
from benchmarks.reviews import draw_batches, rebatch, whole_reviews
from benchmarks.workers import answer, arguments, peak_memory_mb, turns
from pipeline.project.params import ModelParams, Params, load_params
from pipeline.project.run_command import run_command
from pipeline.text import batching
from pipeline.text.encoding import load_tokenizer
from pipeline.training import fitting, networks

Batches = list[batching.Batch]
WARM_UP_BATCHES = 2
PROFILED_BATCHES = 4


def main() -> None:
    loop, name, share, validation_share, rounds, batch_size = arguments()
    params = load_params()
    learnt = draw_batches("train", share, params.seed)
    validation = draw_batches("validation", validation_share, params.seed)
    if loop == "classic":
        train_classic(name, params, learnt, validation, rounds)
        return
    model_params = params.model(name)
    if batch_size != params.batch.batch_size:
        learnt = rebatch(learnt, batch_size, params.seed)
        rate = model_params.learning_rate * math.sqrt(batch_size / params.batch.batch_size)
        model_params = model_params.model_copy(update={"learning_rate": rate})  # Malladi et al. 2022, for Adam
    train_pipeline(model_params, params, learnt, validation, rounds)


def train_classic(name: str, params: Params, batches: Batches, validation_batches: Batches, rounds: int) -> None:
    """Answers each turn with an epoch on the reviews of `batches`, whole and batched as the tutorial does."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(params.seed)
    gpus = tf.config.list_physical_devices("GPU")
    network = classic.build_model(name, load_tokenizer().vocabulary_size)
    learnt, validation = whole_reviews("train", batches), whole_reviews("validation", validation_batches)
    data = classic.batches(learnt.token_ids, learnt.label, seed=params.seed)
    validation_data = classic.batches(validation.token_ids, validation.label)
    padded = sum(int(np.prod(token_ids.shape)) for token_ids, _ in data)

    def warm_up() -> None:
        network.fit(data.take(WARM_UP_BATCHES), verbose=0)
        network.evaluate(validation_data.take(1), verbose=0)

    network.build((None, None))
    facts = {
        "device": f"GPU: {gpus[0].name}" if gpus else "CPU",
        "first_batches_seconds": _without_learning(network, warm_up),
        "parameters": network.count_params(),
        "padding_share": 1 - learnt.real_tokens / padded,
        "rows": len(learnt.label),
        "validation_rows": len(validation.label),
        "real_tokens": learnt.real_tokens,
        "padded_tokens": padded,
    }
    seconds: dict[str, float] = {}
    fit, evaluate = _clocked(network.fit, seconds), _clocked(network.evaluate, seconds)
    for _, _ in zip(range(rounds), turns(), strict=False):
        fit(data, verbose=0)
        validated = evaluate(validation_data, return_dict=True, verbose=0)
        answer(_turn({"val_accuracy": validated["accuracy"]}, seconds) | facts)


def train_pipeline(
    model_params: ModelParams, params: Params, batches: Batches, validation_batches: Batches, rounds: int
) -> None:
    """Answers each turn with an epoch of `fitting.fit` on `batches`, and turns after the last with a profile."""
    device = networks.prepare_device(seed=params.seed, deterministic=params.train.deterministic)
    network = networks.accelerate(networks.build_model(model_params, load_tokenizer().vocabulary_size))
    # As many epochs as there are turns, so that the learning rate falls over them as it does over the stage's.
    train_params = params.train.model_copy(update={"epochs": rounds, "patience": rounds})
    fitting.compile_model(network, model_params, train_params, epoch_steps=len(batches))

    def fit(some: Batches, some_validation: Batches, epochs: int, on_epoch: Callable[[fitting.Epoch], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fitting.fit(
                network,
                some,
                some_validation,
                params=train_params.model_copy(update={"epochs": epochs}),
                token_dropout=model_params.token_dropout,
                seed=params.seed,
                state=Path(folder) / "state.npz",
                on_epoch=on_epoch,
            )

    def fit_a_few(count: int) -> None:
        fit(batches[:count], validation_batches[:1], 1, lambda epoch: None)

    first_batches_seconds = _without_learning(network, lambda: fit_a_few(WARM_UP_BATCHES))
    facts = {"device": device, "first_batches_seconds": first_batches_seconds, **batching.describe(batches)}
    facts |= {"parameters": network.count_params(), "learning_rate": model_params.learning_rate}
    facts["validation_rows"] = batching.describe(validation_batches)["rows"]
    seconds: dict[str, float] = {}
    network.fit = _clocked(network.fit, seconds)
    network.evaluate = _clocked(network.evaluate, seconds)
    requests = turns()

    def on_epoch(epoch: fitting.Epoch) -> None:
        answer(_turn(epoch, seconds) | facts)
        if epoch["epoch"] < rounds:
            next(requests)

    next(requests)
    fit(batches, validation_batches, rounds, on_epoch)
    for _ in requests:  # what is asked after the last epoch
        answer(kernels(lambda: fit_a_few(PROFILED_BATCHES)))


def _turn(epoch: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "train_seconds": seconds["fit"],
        "evaluate_seconds": seconds["evaluate"],
        "val_accuracy": epoch["val_accuracy"],
        "peak_memory_mb": peak_memory_mb(),
    }


def _clocked(method: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    """Returns `method` with the seconds of its last call kept in `seconds` under its name."""

    @wraps(method)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        result = method(*args, **kwargs)
        seconds[method.__name__] = time.perf_counter() - begun
        return result

    return clocked


def _without_learning(network: Any, run: Callable[[], None]) -> float:
    """Runs `run`, so that everything is traced and allocated, and puts back what it changed in the model and its
    optimizer; returns the seconds that it took."""
    network.optimizer.build(network.trainable_variables)
    variables = [*network.variables, *network.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    begun = time.perf_counter()
    run()
    seconds = time.perf_counter() - begun
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return seconds


if __name__ == "__main__":
    run_command(main)
