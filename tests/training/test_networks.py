"""The models are DESIGN.md's, padding changes nothing, and the fused kernel is Keras's LSTM."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import ROOT

from pipeline.project.errors import DataError
from pipeline.project.params import ModelParams, load_params
from pipeline.text.batching import pad
from pipeline.training.networks import (
    accelerate,
    build_model,
    load_model,
    read_model,
    save_model,
    scoring,
    summary,
    weights_sha256,
)

if TYPE_CHECKING:
    import keras

VOCABULARY_SIZE = 8185
MODELS = load_params(ROOT / "params.yaml").models


def small(**changes: object) -> ModelParams:
    fields = {"embedding_dim": 8, "recurrent_units": [6, 5], "dense_units": 4, "dropout": 0.0}
    return MODELS["stacked"].model_copy(update={**fields, **changes})


def logits(model: "keras.Model", batches: list[np.ndarray]) -> list[np.ndarray]:
    return scoring(model)(batches)


def batch(seed: int = 0, rows: int = 7, longest: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pad([rng.integers(1, VOCABULARY_SIZE, length, dtype=np.int32) for length in rng.integers(1, longest, rows)])


@pytest.mark.parametrize(("name", "parameters"), [("single", 598_209), ("pooled", 598_209), ("stacked", 635_329)])
def test_the_committed_models_have_the_designs_parameters(name: str, parameters: int) -> None:
    model = accelerate(build_model(MODELS[name], VOCABULARY_SIZE))
    assert model.count_params() == parameters
    assert f"{parameters:,}" in summary(model)
    assert "(None, None, 64)" in summary(model)  # the embedding's output shape


def test_the_committed_models_have_the_designs_layers() -> None:
    kinds = {name: [type(layer).__name__ for layer in build_model(MODELS[name], 100).layers] for name in MODELS}
    assert kinds["single"] == ["InputLayer", "Embedding", "Bidirectional", "Dense", "Dense"]
    assert kinds["stacked"][2:] == ["Bidirectional", "Bidirectional", "Dense", "Dense"]
    dropped = build_model(MODELS["stacked"].model_copy(update={"dropout": 0.5}), 100)
    assert [type(layer).__name__ for layer in dropped.layers][-3:] == ["Dense", "Dropout", "Dense"]


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
@pytest.mark.parametrize("pooling", ["last", "max", "mean"])
def test_a_padded_review_scores_as_it_does_unpadded(cell: str, pooling: str) -> None:
    model = accelerate(build_model(small(cell=cell, pooling=pooling), VOCABULARY_SIZE))
    padded = np.pad(batch(), ((0, 0), (0, 40)))
    (together,) = logits(model, [padded])
    alone = np.concatenate(logits(model, [row[row > 0][None] for row in padded]))
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_without_masking_padding_changes_the_score(tmp_path: Path) -> None:
    params = small()
    save_model(tmp_path / "weights.npz", build_model(params, VOCABULARY_SIZE), params)
    masked, unmasked = (load_model(tmp_path / "weights.npz", params, masked=masked) for masked in (True, False))
    short = batch().clip(min=1)[:, :5]  # no padding yet
    far = np.pad(short, ((0, 0), (0, 50)))
    np.testing.assert_allclose(*logits(masked, [short]), *logits(unmasked, [short]), atol=1e-6)
    np.testing.assert_allclose(*logits(masked, [short]), *logits(masked, [far]), atol=1e-6)
    assert np.abs(logits(unmasked, [short])[0] - logits(unmasked, [far])[0]).max() > 1e-4


@pytest.mark.parametrize("pooling", ["last", "max", "mean"])
def test_the_fused_kernel_has_the_values_and_gradients_of_keras(pooling: str) -> None:
    import tensorflow as tf

    from pipeline.training.fused_lstm import fuse

    plain = build_model(small(pooling=pooling), VOCABULARY_SIZE)
    for weight in plain.trainable_variables:  # zero biases would hide a gate that is out of place
        weight.assign(np.random.default_rng(1).normal(0, 0.3, weight.shape))
    fused = fuse(plain)
    token_ids, label = batch(), np.arange(7).reshape(-1, 1) % 2.0

    def loss_and_gradients(model: object) -> tuple[float, list[np.ndarray]]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label.astype("float32"), model(token_ids)))
        return float(loss), [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, model.trainable_variables)]

    (expected_loss, expected), (loss, gradients) = loss_and_gradients(plain), loss_and_gradients(fused)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("rows", [1, 5])
def test_both_fused_directions_put_out_what_kerass_do_on_every_real_step(sequences: bool, rows: int) -> None:
    import keras

    from pipeline.training.fused_lstm import FusedBidirectional, FusedLSTM

    rng = np.random.default_rng(rows)
    steps, lengths = rng.normal(size=(rows, 12, 3)).astype(np.float32), rng.integers(1, 13, rows)
    mask = np.arange(12) < lengths[:, None]
    plain = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=sequences))
    directions = [FusedLSTM(4, return_sequences=sequences, go_backwards=backwards) for backwards in (False, True)]
    fused = FusedBidirectional(directions[0], backward_layer=directions[1])
    for layer in (plain, fused):
        layer.build(steps.shape)
    weights = [rng.normal(0, 0.5, weight.shape) for weight in plain.get_weights()]
    plain.set_weights(weights)
    fused.set_weights(weights)
    found, expected = (np.asarray(layer(steps, mask=mask)) for layer in (fused, plain))
    if sequences:  # what stands on padding, nobody reads
        found, expected = found[mask], expected[mask]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_fused_lstm_does_not_ignore_a_state_to_begin_with() -> None:
    from pipeline.training.fused_lstm import FusedLSTM

    with pytest.raises(ValueError, match="FusedLSTM takes no initial state"):
        FusedLSTM(2).call(np.zeros((1, 3, 2), np.float32), initial_state=[np.zeros((1, 2))] * 2)


BUSIEST_THREAD = """
import psutil
from pipeline.training.networks import prepare_device
device = prepare_device(seed=1, deterministic=True)
import tensorflow as tf
matrix = tf.random.normal((1500, 1500))
before = {thread.id: thread.user_time for thread in psutil.Process().threads()}
for _ in range(20):
    matrix = tf.matmul(matrix, matrix) / 1500
matrix.numpy()
spent = [thread.user_time - before.get(thread.id, 0) for thread in psutil.Process().threads()]
print(device, max(spent) / sum(spent), sep=",")
"""


def test_on_a_cpu_a_kernel_is_not_divided_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    done = subprocess.run([sys.executable, "-c", BUSIEST_THREAD], capture_output=True, text=True, check=True)
    device, share = done.stdout.split(",")
    if device != "CPU":
        pytest.skip(f"this machine has a {device}")
    assert float(share) > 0.9


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
@pytest.mark.parametrize("pooling", ["last", "max", "mean"])
def test_a_saved_model_holds_kerass_own_weights_and_loads_as_plain_keras(
    tmp_path: Path, cell: str, pooling: str
) -> None:
    import keras

    params = small(cell=cell, pooling=pooling)
    model = accelerate(build_model(params, VOCABULARY_SIZE))
    save_model(tmp_path / "weights.npz", model, params)
    saved_params, tokens, weights = read_model(tmp_path / "weights.npz")
    assert (saved_params, tokens) == (params, VOCABULARY_SIZE)
    for saved, weight in zip(weights, build_model(params, VOCABULARY_SIZE).weights, strict=True):
        assert (saved.shape, saved.dtype.name) == (weight.shape, weight.dtype)
    plain = build_model(saved_params, tokens)
    plain.set_weights(weights)
    assert weights_sha256(plain) == weights_sha256(model)
    kinds = {type(layer.forward_layer) for layer in plain.layers if isinstance(layer, keras.layers.Bidirectional)}
    assert kinds == {{"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}[cell]}
    np.testing.assert_allclose(plain(batch()).numpy()[:, 0], logits(model, [batch()])[0], atol=1e-6)


SAVE = """
import json, sys, time
from pathlib import Path
import numpy as np
from pipeline.project.params import ModelParams
from pipeline.training.networks import build_model, save_model

folder, params = Path(sys.argv[1]), ModelParams.model_validate_json(sys.argv[2])

def save(name):
    model = build_model(params, 300)
    generator = np.random.default_rng(4)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    save_model(folder / name, model, params)

time.sleep(float(sys.argv[3]))
save("first_model.npz")
build_model(params.model_copy(update={"recurrent_units": [3, 3, 3]}), 500)  # Keras counts layers in a process
save("third_model.npz")
"""


def test_the_same_weights_give_the_same_bytes_whenever_and_after_whatever_they_are_saved(tmp_path: Path) -> None:
    folders = [tmp_path / "now", tmp_path / "later"]
    for folder, seconds in zip(folders, ("0", "3"), strict=True):  # a zip's times are of two seconds
        folder.mkdir()
        subprocess.run([sys.executable, "-c", SAVE, folder, small().model_dump_json(), seconds], cwd=ROOT, check=True)
    now, later = ([folder / name for name in ("first_model.npz", "third_model.npz")] for folder in folders)
    assert later[0].stat().st_mtime - now[1].stat().st_mtime >= 3
    assert len({file.read_bytes() for file in (*now, *later)}) == 1


def test_a_model_that_is_missing_truncated_or_another_is_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    with pytest.raises(DataError, match=r"weights\.npz does not exist"):
        load_model(file, small())
    save_model(file, build_model(small(), VOCABULARY_SIZE), small())
    with pytest.raises(DataError, match=r"weights\.npz is not a model of its params"):
        load_model(file, small(recurrent_units=[9]))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"weights\.npz is not a model of its params"):
        load_model(file, small())
