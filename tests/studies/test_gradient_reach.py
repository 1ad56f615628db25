"""Gradients through time are those of the loss, and what is said of vanishing is what the recurrences do."""

import numpy as np
import pytest

from pipeline.studies import gradient_reach

VOCABULARY = 50


def reviews_of(rows: int, length: int, seed: int) -> gradient_reach.Reviews:
    """Reviews in which the first token alone says the label, and one too short to be used."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, rows)
    ids = generator.integers(3, VOCABULARY, (rows, length)).astype(np.int32)
    ids[:, 0] = 1 + label
    return [ids[0, :2], *ids], np.concatenate([[0], label])


def test_reviews_are_taken_by_their_last_tokens() -> None:
    token_ids, labels = reviews_of(5, 12, 0)
    ids, label = gradient_reach.of_length(token_ids, labels, 8, 3)
    assert ids.shape == (3, 8) and label.tolist() == labels[1:4].tolist()
    np.testing.assert_array_equal(ids[0], token_ids[1][-8:])


@pytest.fixture(scope="module")
def study() -> dict:
    train, validation = reviews_of(64, 40, 1), reviews_of(32, 40, 2)
    return gradient_reach.study(train, validation, vocabulary_size=VOCABULARY, seed=1, epochs=1)


def test_all_networks_are_of_one_size_and_meet_the_same_reviews(study: dict) -> None:
    assert study["steps"] == 40
    assert study["reviews"] == {"trained": 64, "measured": 32, "validated": 32}
    assert set(study["cells"]) == set(gradient_reach.CELLS)
    rnn, lstm = (study["cells"][name]["parameters"] for name in ("simple_rnn", "lstm"))
    units = gradient_reach.UNITS
    assert lstm - rnn == 3 * (2 * units * units + units)  # an LSTM has four gates' weights where an RNN has one's


def test_validation_reviews_that_are_all_shorter_are_measured_as_they_are() -> None:
    train, (ids, label) = reviews_of(8, 40, 1), reviews_of(2, 12, 2)
    found = gradient_reach.study(train, (ids[1:], label[1:]), vocabulary_size=VOCABULARY, seed=1, epochs=1)
    assert found["steps"] == 12 and found["reviews"]["measured"] == 2


def test_small_random_weights_and_half_open_forget_gates_lose_the_gradient_and_orthogonal_ones_keep_it(
    study: dict,
) -> None:
    untrained = {name: cell["untrained"] for name, cell in study["cells"].items()}
    for found in untrained.values():
        assert len(found["gradient"]) == 40 and found["gradient"][0] == 1.0
    assert untrained["simple_rnn_random"]["reach"] < untrained["lstm"]["reach"] < untrained["simple_rnn"]["reach"]
    assert untrained["simple_rnn"]["gradient"][-1] > 0.1
    assert untrained["lstm"]["gradient"][-1] < gradient_reach.REACH


def test_a_gradient_is_the_change_of_the_loss_that_its_input_makes() -> None:
    import keras

    model = gradient_reach.build_network("lstm", VOCABULARY, seed=5)
    ids = np.array([[4, 7, 9, 7]], np.int32)
    label = np.array([1.0], np.float32)
    norm = gradient_reach.gradient_norms(model)(ids, label)[0, 2]
    embedding, recurrent, logit = model.layers[-3:]
    embedded = keras.ops.convert_to_numpy(embedding(ids)).astype(np.float64)

    def loss(inputs: np.ndarray) -> float:
        score = keras.ops.convert_to_numpy(logit(recurrent(inputs.astype(np.float32))))[0, 0]
        return float(np.logaddexp(0, -float(score)))

    step = 1e-2
    slopes = []
    for feature in range(embedded.shape[2]):
        moved = [embedded.copy(), embedded.copy()]
        moved[0][0, 2, feature] += step
        moved[1][0, 2, feature] -= step
        slopes.append((loss(moved[0]) - loss(moved[1])) / (2 * step))
    assert norm == pytest.approx(np.linalg.norm(slopes), rel=0.02)


@pytest.mark.parametrize(
    ("norms", "reach"),
    [([1e-5, 0.5, 1.0], 1), ([0.5, 0.5, 1.0], 2), ([1.0, 1e-3, 1.0], 0)],
)
def test_reach_is_how_far_back_the_gradient_stays_above_its_share(norms: list[float], reach: int) -> None:
    assert gradient_reach.by_distance(np.array([norms]))["reach"] == reach
