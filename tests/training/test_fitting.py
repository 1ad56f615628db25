"""Training takes all its epochs, of batches drawn anew for each, and after a kill ends as if there had been none."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import ModelParams, TrainParams
from pipeline.text.batching import Batch, Plan, pad
from pipeline.training.examples import Examples
from pipeline.training.fitting import Checkpoint, Epoch, as_dataset, compile_model, fit, summarize, times
from pipeline.training.networks import accelerate, build_model, prepare_device, weights_sha256

if TYPE_CHECKING:
    import keras

VOCABULARY_SIZE = 600
MODEL = ModelParams(
    learns_from="labels",
    epochs=4,
    cell="lstm",
    embedding_dim=8,
    recurrent_units=[6, 4],
    pooling="last",
    dense_units=4,
    dropout=0.5,
    token_dropout=0.2,
    learning_rate=0.01,
)
TRAIN = TrainParams(clip_norm=1.0, average_epochs=0.5, deterministic=True)


def rows(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of low ids where the label is 0, of high ids where it is 1, and the labels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count, dtype=np.int8)
    return [rng.integers(1 + 9 * y, 10 + 9 * y, rng.integers(3, 12), dtype=np.int32) for y in label.tolist()], label


def examples(count: int, seed: int) -> Examples:
    token_ids, label = rows(count, seed)
    plan = Plan(np.array([len(row) for row in token_ids]), batch_size=8, pool_batches=2, seed=seed)
    return Examples(token_ids, label.astype(np.float32), plan)


def batches(count: int, seed: int) -> list[Batch]:
    made = []
    for number in range(count):
        token_ids, label = rows(8, seed + number)
        made.append(Batch(pad(token_ids), label, [f"validation/{row}" for row in range(8)]))
    return made


LABELS, VALIDATION = examples(48, seed=1), batches(2, seed=2)


def train(
    state: Path,
    *,
    learnt: Examples = LABELS,
    model: ModelParams = MODEL,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> "tuple[keras.Model, list[Epoch]]":
    prepare_device(seed=7, deterministic=True)
    network = accelerate(build_model(model, VOCABULARY_SIZE))
    compile_model(network, model, TRAIN, epoch_steps=learnt.plan.steps)
    history = fit(network, learnt, VALIDATION, params=model, seed=7, state=state, on_epoch=on_epoch)
    return network, history


def without_seconds(history: list[Epoch]) -> list[Epoch]:
    return [{**epoch, "seconds": 0} for epoch in history]


def test_the_end_of_an_epoch_does_not_wait_for_the_input_tuner() -> None:
    assert as_dataset(lambda: LABELS.epoch(1), 6).options().autotune.enabled is False


class Killed(Exception):
    """Stands for the end of the process after an epoch's state is safe."""


def test_interrupted_and_uninterrupted_training_end_in_the_same_weights(tmp_path: Path) -> None:
    whole, whole_history = train(tmp_path / "whole.npz")

    for last in (1, 3):

        def stop(epoch: dict[str, float], last: int = last) -> None:
            if epoch["epoch"] == last:
                raise Killed

        with pytest.raises(Killed):
            train(tmp_path / "state.npz", on_epoch=stop)
    reported: list[float] = []
    drawn: list[int] = []

    class Watched(Examples):
        def epoch(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            drawn.append(number)
            return super().epoch(number)

    watched = Watched(LABELS.token_ids, LABELS.target, LABELS.plan)
    resumed, history = train(
        tmp_path / "state.npz", learnt=watched, on_epoch=lambda epoch: reported.append(epoch["epoch"])
    )

    assert (reported, drawn) == ([1, 2, 3, 4], [4]), "finished epochs are told, the others learnt from"
    assert weights_sha256(resumed) == weights_sha256(whole)
    assert without_seconds(history) == without_seconds(whole_history)


def test_two_deterministic_trainings_are_bit_identical(tmp_path: Path) -> None:
    hashes = {weights_sha256(train(tmp_path / f"{run}.npz")[0]) for run in range(2)}
    assert len(hashes) == 1


def test_the_model_learns_in_all_its_epochs_and_is_left_with_the_weights_that_were_validated_last(
    tmp_path: Path,
) -> None:
    model = MODEL.model_copy(update={"epochs": 12, "dropout": 0.0, "learning_rate": 0.03})
    network, history = train(tmp_path / "state.npz", model=model)
    assert [epoch["epoch"] for epoch in history] == list(range(1, 13))
    assert history[-1]["val_accuracy"] > 0.9
    losses = [
        network.evaluate(batch.token_ids, batch.label[:, None].astype(np.float32), verbose=0)[0] for batch in VALIDATION
    ]
    assert np.mean(losses) == pytest.approx(history[-1]["val_loss"], abs=1e-5)


def test_a_training_that_gets_worse_on_validation_goes_on(tmp_path: Path) -> None:
    turned = replace(LABELS, target=1 - LABELS.target)
    model = MODEL.model_copy(update={"epochs": 8, "dropout": 0.0, "learning_rate": 0.03})
    _, history = train(tmp_path / "state.npz", learnt=turned, model=model)
    assert len(history) == 8
    assert history[-1]["val_loss"] > history[0]["val_loss"]


def test_soft_targets_are_learnt_and_accuracy_counts_agreement_with_them(tmp_path: Path) -> None:
    soft = replace(LABELS, target=(0.4 + 0.2 * LABELS.target).astype(np.float32))
    model = MODEL.model_copy(update={"epochs": 25, "dropout": 0.0, "token_dropout": 0.0})
    network, history = train(tmp_path / "state.npz", learnt=soft, model=model)
    assert history[-1]["accuracy"] > 0.9, "a label's accuracy is 0 where no target is 0 or 1"
    entropy = -0.4 * np.log(0.4) - 0.6 * np.log(0.6)
    assert entropy <= history[-1]["loss"] + 1e-6 and history[-1]["loss"] < entropy + 0.01
    logit = network(pad(list(soft.token_ids))).numpy()[:, 0]
    assert np.abs(1 / (1 + np.exp(-logit)) - soft.target).mean() < 0.05


def test_a_target_of_one_half_agrees_with_no_answer_above_it(tmp_path: Path) -> None:
    undecided = replace(LABELS, target=np.full(48, 0.5, np.float32))
    prepare_device(seed=7, deterministic=True)
    network = accelerate(build_model(MODEL, VOCABULARY_SIZE))
    compile_model(network, MODEL, TRAIN, epoch_steps=6)
    network.get_layer("logit").bias.assign([50.0])
    token_ids = pad(list(undecided.token_ids))
    assert network.evaluate(token_ids, undecided.target[:, None], verbose=0)[1] == 0.0
    network.get_layer("logit").bias.assign([-50.0])
    assert network.evaluate(token_ids, undecided.target[:, None], verbose=0)[1] == 1.0


def test_the_same_texts_with_other_targets_end_in_other_weights(tmp_path: Path) -> None:
    turned = replace(LABELS, target=1 - LABELS.target)
    hard, soft = train(tmp_path / "hard.npz")[0], train(tmp_path / "soft.npz", learnt=turned)[0]
    assert weights_sha256(hard) != weights_sha256(soft)


def test_a_summary_is_of_the_last_epoch_and_times_are_of_all() -> None:
    history = [
        {"epoch": number, "val_loss": loss, "val_accuracy": accuracy, "seconds": seconds}
        for number, (accuracy, loss, seconds) in enumerate([(0.8, 0.5, 2.0), (0.9, 0.3, 6.0), (0.85, 0.4, 3.0)], 1)
    ]
    assert summarize(history) == {"epochs": 3, "val_accuracy": 0.85, "val_loss": 0.4}
    assert times(history) == {"training_seconds": 11.0, "seconds_per_epoch": 3.0}


def test_a_loss_that_is_not_finite_stops_with_what_to_change(tmp_path: Path) -> None:
    prepare_device(seed=7, deterministic=True)
    network = accelerate(build_model(MODEL, VOCABULARY_SIZE))
    compile_model(network, MODEL, TRAIN, epoch_steps=LABELS.plan.steps)
    network.get_layer("logit").bias.assign([np.inf])
    state = tmp_path / "state.npz"
    with pytest.raises(PipelineError, match=r"loss became (nan|inf|-inf) in epoch 1; lower learning_rate"):
        fit(network, LABELS, VALIDATION, params=MODEL, seed=7, state=state, on_epoch=lambda epoch: None)
    assert not state.exists()


def test_a_damaged_state_is_named_with_the_remedy(tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    train(state, model=MODEL.model_copy(update={"epochs": 1}))
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
