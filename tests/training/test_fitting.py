"""Training stops early, keeps the best weights, and after a kill ends as if there had been none."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import ModelParams, TrainParams
from pipeline.text.batching import Batch, pad
from pipeline.training.fitting import Checkpoint, Progress, as_dataset, compile_model, fit, summarize, times
from pipeline.training.networks import accelerate, build_model, prepare_device, weights_sha256

VOCABULARY_SIZE = 600
MODEL = ModelParams(
    cell="lstm",
    embedding_dim=8,
    recurrent_units=[6, 4],
    pooling="last",
    dense_units=4,
    dropout=0.5,
    token_dropout=0.2,
    learning_rate=0.01,
)
TRAIN = TrainParams(epochs=4, patience=4, clip_norm=1.0, average_epochs=0.5, deterministic=True)


def batches(count: int, seed: int) -> list[Batch]:
    """Rows of low ids where the label is 0, of high ids where it is 1."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        label = rng.integers(0, 2, 8, dtype=np.int8)
        rows = [rng.integers(1 + 9 * y, 10 + 9 * y, rng.integers(3, 12), dtype=np.int32) for y in label.tolist()]
        made.append(Batch(pad(rows), label, [f"train/{row}" for row in range(8)]))
    return made


TRAINING, VALIDATION = batches(6, seed=1), batches(2, seed=2)


def train(state: Path, *, params: TrainParams = TRAIN, model: ModelParams = MODEL, on_epoch=lambda epoch: None):
    prepare_device(seed=7, deterministic=True)
    network = accelerate(build_model(model, VOCABULARY_SIZE))
    compile_model(network, model, params, epoch_steps=len(TRAINING))
    progress = fit(
        network,
        TRAINING,
        VALIDATION,
        params=params,
        token_dropout=model.token_dropout,
        seed=7,
        state=state,
        on_epoch=on_epoch,
    )
    return network, progress


def test_the_end_of_an_epoch_does_not_wait_for_the_input_tuner() -> None:
    assert as_dataset(TRAINING).options().autotune.enabled is False


class Killed(Exception):
    """Stands for the end of the process after an epoch's state is safe."""


def test_interrupted_and_uninterrupted_training_end_in_the_same_weights(tmp_path: Path) -> None:
    whole, whole_progress = train(tmp_path / "whole.npz")

    for last in (1, 3):

        def stop(epoch: dict[str, float], last: int = last) -> None:
            if epoch["epoch"] == last:
                raise Killed

        with pytest.raises(Killed):
            train(tmp_path / "state.npz", on_epoch=stop)
    reported: list[float] = []
    resumed, progress = train(tmp_path / "state.npz", on_epoch=lambda epoch: reported.append(epoch["epoch"]))
    assert reported == [1, 2, 3, 4]

    assert weights_sha256(resumed) == weights_sha256(whole)
    without_seconds = [[{**epoch, "seconds": 0} for epoch in p.history] for p in (progress, whole_progress)]
    assert without_seconds[0] == without_seconds[1]
    assert progress.best_epoch == whole_progress.best_epoch


def test_two_deterministic_trainings_are_bit_identical(tmp_path: Path) -> None:
    hashes = {weights_sha256(train(tmp_path / f"{run}.npz")[0]) for run in range(2)}
    assert len(hashes) == 1


def test_the_model_learns_and_keeps_the_weights_of_its_best_epoch(tmp_path: Path) -> None:
    params = TRAIN.model_copy(update={"epochs": 12})
    network, progress = train(tmp_path / "state.npz", params=params)
    assert progress.best["val_accuracy"] > 0.9
    compiled_loss = network.evaluate(VALIDATION[0].token_ids, VALIDATION[0].label[:, None], verbose=0)[0]
    other_loss = network.evaluate(VALIDATION[1].token_ids, VALIDATION[1].label[:, None], verbose=0)[0]
    assert (compiled_loss + other_loss) / 2 == pytest.approx(progress.best["val_loss"], abs=1e-5)


def test_the_best_epoch_is_that_of_best_accuracy_then_of_least_loss() -> None:
    progress = Progress()
    for number, (accuracy, loss) in enumerate([(0.8, 0.5), (0.9, 0.5), (0.9, 0.4), (0.85, 0.3), (0.9, 0.4)], start=1):
        progress.record({"epoch": number, "val_loss": loss, "val_accuracy": accuracy, "seconds": 2.0})
    assert (progress.best_epoch, progress.stalled_epochs, progress.epoch) == (3, 2, 5)
    assert summarize(progress) == {"epochs": 5, "best_epoch": 3, "best_val_accuracy": 0.9, "best_val_loss": 0.4}
    assert times(progress) == {"training_seconds": 10.0, "seconds_per_epoch": 2.0}


def test_a_loss_that_is_not_finite_stops_with_what_to_change(tmp_path: Path) -> None:
    diverging = MODEL.model_copy(update={"learning_rate": 1.0})
    network_params = TRAIN.model_copy(update={"clip_norm": 1e30})
    poisoned = [Batch(batch.token_ids, np.full(8, 127, np.int8), batch.id) for batch in TRAINING]
    prepare_device(seed=7, deterministic=True)
    network = accelerate(build_model(diverging, VOCABULARY_SIZE))
    compile_model(network, diverging, network_params, epoch_steps=len(TRAINING))
    network.get_layer("logit").bias.assign([np.inf])
    state = tmp_path / "state.npz"
    with pytest.raises(PipelineError, match=r"loss became (nan|inf|-inf) in epoch 1; lower learning_rate"):
        fit(
            network,
            poisoned,
            VALIDATION,
            params=network_params,
            token_dropout=0.0,
            seed=7,
            state=state,
            on_epoch=lambda epoch: None,
        )
    assert not state.exists()


def test_a_damaged_state_is_named_with_the_remedy(tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    train(state, params=TRAIN.model_copy(update={"epochs": 1}))
    state.write_bytes(state.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"state\.npz is not a state of this training .* remove it"):
        train(state)


def test_a_checkpoint_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = (Checkpoint(tmp_path, ["single"], []) for _ in range(2))
    with first.held(), pytest.raises(PipelineError, match="another process trains this model"), second.held():
        pass
    with second.held():  # free again
        pass


def test_a_checkpoint_belongs_to_its_inputs_alone(tmp_path: Path) -> None:
    data = tmp_path / "batches.parquet"
    data.write_bytes(b"one")
    checkpoint = Checkpoint(tmp_path / "checkpoints", ["single", 42], [data])
    checkpoint.begin("run-1")
    assert Checkpoint(tmp_path / "checkpoints", ["single", 42], [data]).run_id == "run-1"
    assert Checkpoint(tmp_path / "checkpoints", ["single", 43], [data]).run_id is None
    data.write_bytes(b"two")
    other = Checkpoint(tmp_path / "checkpoints", ["single", 42], [data])
    assert other.run_id is None
    other.begin("run-2")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1, "the state of other inputs is gone"
