"""Fitting a model, and a state from which a killed training goes on."""

import fcntl
import hashlib
import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.project.allocator import keep_freed_memory
from pipeline.project.atomic import atomic_write
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import ModelParams, TrainParams
from pipeline.text.batching import Batch, hide_tokens
from pipeline.training.examples import Examples
from pipeline.training.networks import vocabulary_size

if TYPE_CHECKING:
    import keras

Epoch = dict[str, float]
"""One finished epoch: epoch (from 1), accuracy, loss, val_accuracy, val_loss, seconds."""


def compile_model(model: "keras.Model", params: ModelParams, train: TrainParams, *, epoch_steps: int) -> None:
    """Prepares `model` for training: Adam on the binary cross-entropy of its logits against labels or targets between
    them, gradient norm clipped.

    The learning rate falls from `params.learning_rate` to 0 along half a cosine (Loshchilov & Hutter 2017, without
    restarts) over `params.epochs` of `epoch_steps` batches. Beside the weights runs their exponential moving average
    (Polyak & Juditsky 1992) with a time constant of `train.average_epochs`.
    """
    import keras

    learning_rate = keras.optimizers.schedules.CosineDecay(params.learning_rate, params.epochs * epoch_steps)
    momentum = math.exp(-1 / (train.average_epochs * epoch_steps))
    model.compile(
        optimizer=keras.optimizers.Adam(
            learning_rate, global_clipnorm=train.clip_norm, use_ema=True, ema_momentum=momentum
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.MeanMetricWrapper(_agreement, name="accuracy")],
        jit_compile=False,  # XLA is slower on a CPU, and neither cuDNN's nor the fused kernel goes through it
    )
    model.optimizer.build(model.trainable_variables)


def _agreement(target: Any, logit: Any) -> Any:
    """Returns <float32>[rows], 1 where target and answer are on the same side; Keras's own takes labels alone."""
    from keras import ops

    return ops.cast(ops.squeeze(ops.equal(target > 0.5, logit > 0.0), -1), "float32")


def fit(
    model: "keras.Model",
    examples: Examples,
    validation: Sequence[Batch],
    *,
    params: ModelParams,
    seed: int,
    state: Path,
    on_epoch: Callable[[Epoch], None],
) -> list[Epoch]:
    """Trains a compiled `model` for all its epochs, and leaves it with its averaged weights.

    Validation is watched and decides nothing. After each epoch everything that the rest of training depends on is
    written to `state`; where that file stands at the start, training goes on after its last finished epoch and ends as
    it would have without the break.

    Args:
        examples: what is learnt from.
        validation: padded batches.
        params: epochs and token dropout among them.
        seed: of each epoch's hidden tokens.
        state: file of the state; the caller removes it when the model is safe.
        on_epoch: called with each finished epoch when its state is safe; after a restart with the earlier ones too.

    Returns:
        All finished epochs.

    Raises:
        PipelineError: a loss is not finite.
        DataError: `state` is not a state of this model.
    """
    import keras

    history = _restore(state, model) if state.exists() else []
    for epoch in history:
        on_epoch(epoch)
    validation_data = as_dataset(lambda: ((batch.token_ids, batch.label) for batch in validation), len(validation))
    hidden_id = vocabulary_size(model) - 1  # the byte 0xFF, which no UTF-8 text holds

    after_one_epoch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: setattr(model, "stop_training", True))

    def drawn(number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng([seed, number])  # of this epoch alone: a resumed training draws the same
        for token_ids, target in examples.epoch(number):
            yield hide_tokens(token_ids, params.token_dropout, hidden_id, rng), target

    for number in range(len(history) + 1, params.epochs + 1):
        started = time.perf_counter()
        logs = model.fit(
            as_dataset(partial(drawn, number), examples.plan.steps),
            initial_epoch=number - 1,
            epochs=params.epochs,
            shuffle=False,
            callbacks=[keras.callbacks.TerminateOnNaN(), after_one_epoch],
            verbose=1 if sys.stdout.isatty() else 2,
        ).history
        with _averaged_weights(model):
            validated = model.evaluate(validation_data, return_dict=True, verbose=0)
        epoch = {"epoch": number} | {name: float(values[-1]) for name, values in logs.items()}
        epoch |= {f"val_{name}": float(value) for name, value in validated.items()}
        for name in ("loss", "val_loss"):
            if not math.isfinite(epoch[name]):
                raise PipelineError(
                    f"training stopped: {name} became {epoch[name]} in epoch {number}; lower learning_rate or clip_norm"
                )
        epoch["seconds"] = round(time.perf_counter() - started, 3)
        print(
            f"validation of epoch {number}: accuracy {epoch['val_accuracy']:.4f}, loss {epoch['val_loss']:.4f}",
            flush=True,
        )
        history.append(epoch)
        _save(state, model, history)
        on_epoch(epoch)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return history


@contextmanager
def _averaged_weights(model: "keras.Model") -> Iterator[None]:
    """Puts the moving average of the weights into `model` for the time of the block."""
    trained = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    yield
    for variable, value in zip(model.trainable_variables, trained, strict=True):
        variable.assign(value)


def summarize(history: Sequence[Epoch]) -> dict[str, float]:
    """Returns the scalars that a table of runs shows and that the same weights share: how many epochs, and the metrics
    on validation after the last."""
    return {"epochs": len(history), "val_accuracy": history[-1]["val_accuracy"], "val_loss": history[-1]["val_loss"]}


def times(history: Sequence[Epoch]) -> dict[str, float]:
    """Returns the seconds of a training in all and of an epoch, the median."""
    seconds = [epoch["seconds"] for epoch in history]
    return {"training_seconds": round(sum(seconds), 1), "seconds_per_epoch": round(statistics.median(seconds), 1)}


class Checkpoint:
    """The folder `<checkpoints>/<key>` that a training needs to go on after a kill: its state and its MLflow run."""

    def __init__(self, checkpoints: Path, inputs: Any, files: Sequence[Path]) -> None:
        """Names the folder by the SHA-256 of JSON-able `inputs` and the contents of `files`."""
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        self._checkpoints = checkpoints
        self._folder = checkpoints / digest.hexdigest()
        self.state = self._folder / "state.npz"
        self._run = self._folder / "run_id"

    @property
    def run_id(self) -> str | None:
        """The MLflow run of the interrupted training, None if there is none."""
        return self._run.read_text().strip() if self._run.exists() else None

    def begin(self, run_id: str) -> None:
        """Notes the run, and removes what trainings on other inputs left behind."""
        for other in self._checkpoints.glob("*"):
            if other.is_dir() and other != self._folder:
                shutil.rmtree(other, ignore_errors=True)
        with atomic_write(self._run) as aside:
            aside.write_text(run_id)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the checkpoint for this process; raises PipelineError if another process trains on it.

        The system lets go of the lock when the process ends, however it ends.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PipelineError(
                    "another process trains this model on these inputs; wait for it, or end it"
                ) from None
            yield

    def remove(self) -> None:
        """Removes the checkpoint: the model is safe."""
        shutil.rmtree(self._folder, ignore_errors=True)


def as_dataset(batches: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]], count: int) -> Any:
    """Returns a tf.data.Dataset of (<int32>[rows, width], <float32>[rows, 1]) of the `count` padded batches, token ids
    and labels or targets, that `batches` yields."""
    import tensorflow as tf

    def generate() -> Any:
        keep_freed_memory()  # here, as the making of a generator's dataset has undone it (TensorFlow 2.21)
        for token_ids, target in batches():
            yield token_ids, target.astype(np.float32)[:, None]

    signature = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, 1), tf.float32))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    # There is nothing to tune, and the end of an epoch would wait for the tuner, whose sleep doubles up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    return dataset.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)


def _state(model: "keras.Model") -> list[Any]:
    """All variables that training changes: weights, random state, and the optimizer's."""
    return [*model.variables, *model.optimizer.variables]


def _save(path: Path, model: "keras.Model", history: Sequence[Epoch]) -> None:
    arrays = {f"state_{index}": variable.numpy() for index, variable in enumerate(_state(model))}
    with atomic_write(path) as aside:
        np.savez(aside, allow_pickle=False, history=np.array(json.dumps(history)), **arrays)


def _restore(path: Path, model: "keras.Model") -> list[Epoch]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for index, variable in enumerate(_state(model)):
                variable.assign(arrays[f"state_{index}"])
            history: list[Epoch] = json.loads(str(arrays["history"]))
            return history
    except Exception as error:  # NumPy and zip raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is not a state of this training ({reason}); remove it to start training anew"
        ) from error
