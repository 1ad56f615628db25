"""Fitting a model: early stopping, best weights, and a state from which a killed training goes on."""

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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.project.atomic import atomic_write
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import ModelParams, TrainParams
from pipeline.text.batching import Batch, hide_tokens
from pipeline.training.networks import vocabulary_size

if TYPE_CHECKING:
    import keras

Epoch = dict[str, float]
"""One finished epoch: epoch (from 1), accuracy, loss, val_accuracy, val_loss, seconds."""


@dataclass
class Progress:
    """What training knows after its last finished epoch, weights aside.

    `best_epoch` counts from 1, 0 before the first; `stalled_epochs` have passed since it.
    """

    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    stalled_epochs: int = 0

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def best(self) -> Epoch:
        """The best epoch so far; there must be one."""
        return self.history[self.best_epoch - 1]

    def record(self, epoch: Epoch) -> bool:
        """Adds a finished epoch; returns whether it is the best so far."""
        better = not self.history or _score(epoch) > _score(self.best)
        self.history.append(epoch)
        self.stalled_epochs = 0 if better else self.stalled_epochs + 1
        if better:
            self.best_epoch = self.epoch
        return better


def _score(epoch: Epoch) -> tuple[float, float]:
    """Ranks epochs: by validation accuracy, as the gate ranks models, and among equals by validation loss."""
    return epoch["val_accuracy"], -epoch["val_loss"]


def compile_model(model: "keras.Model", params: ModelParams, train: TrainParams, *, epoch_steps: int) -> None:
    """Prepares `model` for training: Adam on the binary cross-entropy of its logits, gradient norm clipped.

    The learning rate falls from `params.learning_rate` to 0 along half a cosine (Loshchilov & Hutter 2017, without
    restarts) over `train.epochs` of `epoch_steps` batches. Beside the weights runs their exponential moving average
    (Polyak & Juditsky 1992) with a time constant of `train.average_epochs`.
    """
    import keras

    learning_rate = keras.optimizers.schedules.CosineDecay(params.learning_rate, train.epochs * epoch_steps)
    momentum = math.exp(-1 / (train.average_epochs * epoch_steps))
    model.compile(
        optimizer=keras.optimizers.Adam(
            learning_rate, global_clipnorm=train.clip_norm, use_ema=True, ema_momentum=momentum
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
        jit_compile=False,  # XLA is slower on a CPU, and neither cuDNN's nor the fused kernel goes through it
    )
    model.optimizer.build(model.trainable_variables)


def fit(
    model: "keras.Model",
    training: Sequence[Batch],
    validation: Sequence[Batch],
    *,
    params: TrainParams,
    token_dropout: float,
    seed: int,
    state: Path,
    on_epoch: Callable[[Epoch], None],
) -> Progress:
    """Trains a compiled `model` and leaves it with the averaged weights of its best epoch on validation.

    After each epoch everything that the rest of training depends on is written to `state`; where that file
    stands at the start, training goes on after its last finished epoch and ends as it would have without the break.

    Args:
        training, validation: padded batches.
        params: epochs, patience and the rest of what all models share.
        token_dropout: share of the token ids hidden from the model in training.
        seed: seed of each epoch's order of batches and hidden tokens.
        state: file of the state; the caller removes it when the model is safe.
        on_epoch: called with each finished epoch when its state is safe; after a restart with the earlier ones too.

    Raises:
        PipelineError: a loss is not finite.
        DataError: `state` is not a state of this model.
    """
    import keras

    progress, best_weights = _restore(state, model) if state.exists() else (Progress(), None)
    for epoch in progress.history:
        on_epoch(epoch)
    validation_data = as_dataset(validation)
    hidden_id = vocabulary_size(model) - 1  # the byte 0xFF, which no UTF-8 text holds
    after_one_epoch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: setattr(model, "stop_training", True))
    while progress.epoch < params.epochs and progress.stalled_epochs < params.patience:
        number = progress.epoch + 1
        started = time.perf_counter()
        epoch_seed = [seed, number]  # of this epoch alone: a resumed training draws the same
        order = np.random.default_rng(epoch_seed).permutation(len(training))
        logs = model.fit(
            as_dataset([training[index] for index in order], token_dropout, hidden_id, epoch_seed),
            initial_epoch=number - 1,
            epochs=params.epochs,
            shuffle=False,
            callbacks=[keras.callbacks.TerminateOnNaN(), after_one_epoch],
            verbose=1 if sys.stdout.isatty() else 2,
        ).history
        with _averaged_weights(model):
            validated = model.evaluate(validation_data, return_dict=True, verbose=0)
            weights = model.get_weights()
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
        if progress.record(epoch):
            best_weights = weights
        assert best_weights is not None  # the first epoch's finite loss is the best so far
        _save(state, model, progress, best_weights)
        on_epoch(epoch)
    model.set_weights(best_weights)
    return progress


@contextmanager
def _averaged_weights(model: "keras.Model") -> Iterator[None]:
    """Puts the moving average of the weights into `model` for the time of the block."""
    trained = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    yield
    for variable, value in zip(model.trainable_variables, trained, strict=True):
        variable.assign(value)


def summarize(progress: Progress) -> dict[str, float]:
    """Returns the scalars that a table of runs shows and that the same weights share: epochs, the best one and its
    metrics."""
    return {
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_val_accuracy": progress.best["val_accuracy"],
        "best_val_loss": progress.best["val_loss"],
    }


def times(progress: Progress) -> dict[str, float]:
    """Returns the seconds of a training in all and of an epoch, the median."""
    seconds = [epoch["seconds"] for epoch in progress.history]
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


def as_dataset(
    batches: Sequence[Batch], token_dropout: float = 0.0, hidden_id: int = 0, seed: Sequence[int] = (0,)
) -> Any:
    """Returns a tf.data.Dataset of (<int32>[rows, width], <float32>[rows, 1]); see `hide_tokens` for the rest."""
    import tensorflow as tf

    def generate() -> Any:
        rng = np.random.default_rng(seed)
        for batch in batches:
            token_ids = (
                hide_tokens(batch.token_ids, token_dropout, hidden_id, rng) if token_dropout else batch.token_ids
            )
            yield token_ids, batch.label.astype(np.float32)[:, None]

    signature = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, 1), tf.float32))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    # There is nothing to tune, and the end of an epoch would wait for the tuner, whose sleep doubles up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(2)


def _state(model: "keras.Model") -> list[Any]:
    """All variables that training changes: weights, random state, and the optimizer's."""
    return [*model.variables, *model.optimizer.variables]


def _save(path: Path, model: "keras.Model", progress: Progress, best_weights: list[np.ndarray]) -> None:
    arrays = {f"state_{index}": variable.numpy() for index, variable in enumerate(_state(model))}
    arrays |= {f"best_{index}": weight for index, weight in enumerate(best_weights)}
    with atomic_write(path) as aside:
        np.savez(aside, allow_pickle=False, progress=np.array(json.dumps(asdict(progress))), **arrays)


def _restore(path: Path, model: "keras.Model") -> tuple[Progress, list[np.ndarray]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for index, variable in enumerate(_state(model)):
                variable.assign(arrays[f"state_{index}"])
            best_weights = [arrays[f"best_{index}"] for index in range(len(model.get_weights()))]
            return Progress(**json.loads(str(arrays["progress"]))), best_weights
    except Exception as error:  # NumPy and zip raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is not a state of this training ({reason}); remove it to start training anew"
        ) from error
