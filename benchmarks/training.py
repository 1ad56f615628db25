"""A worker that trains one model, an epoch a turn: `classic` as published, or `pipeline` as the stage `train` does, at
its own batch size or another."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import classic
from benchmarks.profiles import kernels
from benchmarks.reviews import draw, examples, first, labels, padded, whole
from benchmarks.workers import answer, arguments, peak_memory_mb, turns
from pipeline.project.params import ModelParams, Params, load_params
from pipeline.project.run_command import run_command
from pipeline.text.batching import Batch, describe
from pipeline.text.encoding import load_tokenizer
from pipeline.text.token_arrays import TokenArray
from pipeline.training import fitting, networks
from pipeline.training.examples import Examples

OnEpoch = Callable[[fitting.Epoch], None]
WARM_UP_BATCHES = 2
PROFILED_BATCHES = 4


def main() -> None:
    loop, name, share, validation_share, rounds, batch_size = arguments()
    params = load_params()
    learnt = draw("train", share, params.seed)
    validation = draw("validation", validation_share, params.seed)
    if loop == "classic":
        train_classic(name, params, learnt, validation, rounds)
        return
    model_params = params.model(name)
    if batch_size != params.batch.batch_size:
        rate = model_params.learning_rate * math.sqrt(batch_size / params.batch.batch_size)
        model_params = model_params.model_copy(update={"learning_rate": rate})  # Malladi et al. 2022, for Adam
    train_pipeline(
        model_params,
        params,
        examples(learnt, params.batch.model_copy(update={"batch_size": batch_size}), params.seed),
        padded(validation, params.batch.batch_size, params.seed),
        rounds,
    )


def train_classic(name: str, params: Params, drawn: TokenArray, drawn_validation: TokenArray, rounds: int) -> None:
    """Answers each turn with an epoch on the drawn reviews, whole and batched as the tutorial does."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(params.seed)
    gpus = tf.config.list_physical_devices("GPU")
    network = classic.build_model(name, load_tokenizer().vocabulary_size)
    learnt, validation = whole("train", drawn), whole("validation", drawn_validation)
    data = classic.batches(learnt, labels(learnt), seed=params.seed)
    validation_data = classic.batches(validation, labels(validation))
    real_tokens, padded_tokens = len(learnt.token_ids), sum(int(np.prod(token_ids.shape)) for token_ids, _ in data)

    def warm_up() -> None:
        network.fit(data.take(WARM_UP_BATCHES), verbose=0)
        network.evaluate(validation_data.take(1), verbose=0)

    network.build((None, None))
    facts = {
        "device": f"GPU: {gpus[0].name}" if gpus else "CPU",
        "first_batches_seconds": _without_learning(network, warm_up),
        "parameters": network.count_params(),
        "padding_share": 1 - real_tokens / padded_tokens,
        "rows": len(learnt),
        "validation_rows": len(validation),
        "real_tokens": real_tokens,
        "padded_tokens": padded_tokens,
    }
    seconds: dict[str, float] = {}
    fit, evaluate = _clocked(network.fit, seconds), _clocked(network.evaluate, seconds)
    for _, _ in zip(range(rounds), turns(), strict=False):
        fit(data, verbose=0)
        validated = evaluate(validation_data, return_dict=True, verbose=0)
        answer(_turn({"val_accuracy": validated["accuracy"]}, seconds) | facts)


def train_pipeline(
    model_params: ModelParams, params: Params, learnt: Examples, validation: Sequence[Batch], rounds: int
) -> None:
    """Answers each turn with an epoch of `fitting.fit`, and turns after the last with a profile."""
    device = networks.prepare_device(seed=params.seed, deterministic=params.train.deterministic)
    network = networks.accelerate(networks.build_model(model_params, load_tokenizer().vocabulary_size))
    # As many epochs as there are turns, so that the learning rate falls over them as it does over the stage's.
    model_params = model_params.model_copy(update={"epochs": rounds})
    fitting.compile_model(network, model_params, params.train, epoch_steps=learnt.plan.steps)

    def fit(some: Examples, some_validation: Sequence[Batch], epochs: int, on_epoch: OnEpoch) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fitting.fit(
                network,
                some,
                some_validation,
                params=model_params.model_copy(update={"epochs": epochs}),
                seed=params.seed,
                state=Path(folder) / "state.npz",
                on_epoch=on_epoch,
            )

    def fit_a_few(count: int) -> None:
        fit(first(learnt, count), validation[:1], 1, lambda epoch: None)

    first_batches_seconds = _without_learning(network, lambda: fit_a_few(WARM_UP_BATCHES))
    lengths = [learnt.plan.lengths[rows] for rows in learnt.plan.epoch(1)]
    facts = {"device": device, "first_batches_seconds": first_batches_seconds, **describe(lengths)}
    facts |= {"parameters": network.count_params(), "learning_rate": model_params.learning_rate}
    facts["validation_rows"] = sum(len(batch.id) for batch in validation)
    seconds: dict[str, float] = {}
    network.fit = _clocked(network.fit, seconds)
    network.evaluate = _clocked(network.evaluate, seconds)
    requests = turns()

    def on_epoch(epoch: fitting.Epoch) -> None:
        answer(_turn(epoch, seconds) | facts)
        if epoch["epoch"] < rounds:
            next(requests)

    next(requests)
    fit(learnt, validation, rounds, on_epoch)
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
