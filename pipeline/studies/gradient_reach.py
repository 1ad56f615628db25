"""How far back a recurrent network's loss reaches: the gradient with respect to the input of each time step.

Three networks of one size (embedding, one recurrent layer that reads forwards, logit) meet the same reviews in the
same order. For held-out reviews the norm of the loss's gradient with respect to each step's embedded input is taken
before training and after it. Where it has vanished, that step cannot teach the network anything: what the network
read there changes nothing (Hochreiter 1991; Bengio, Simard & Frasconi 1994, for networks with small random weights).

- `simple_rnn_random`: h' = tanh(x W + h U + b) with U drawn between ±1/√units, as PyTorch does by default.
- `simple_rnn`: the same with an orthogonal U, Keras's default (Saxe et al. 2014): a cure by initialization.
- `lstm`: Keras's default, with a forget gate that begins at σ(1) = 0.73 (Gers et al. 2000; Jozefowicz et al. 2015).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Reviews = tuple[Sequence[NDArray[np.int32]], NDArray[np.integer]]
"""Token ids of each review, and the labels, <int>[reviews]."""
CELLS = ("simple_rnn_random", "simple_rnn", "lstm")
UNITS = 32
BATCH_SIZE = 64
EPOCHS = 3
LEARNING_RATE = 0.001  # Keras's default for Adam
CLIP_NORM = 1.0
TRAINED_REVIEWS = 4000
MEASURED_REVIEWS = 256
VALIDATED_REVIEWS = 1000
REACH = 0.01
"""A step counts as reached while its gradient is at least this share of the last step's."""


def of_length(
    token_ids: Sequence[NDArray[np.int32]], label: NDArray[np.integer], steps: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the last `steps` token ids, <int32>[reviews, steps], and the labels, <float32>[reviews], of the first
    `most` reviews that have as many: no padding, so that a step is the same distance from the end in all of them."""
    rows = [row for row, ids in enumerate(token_ids) if len(ids) >= steps][:most]
    return np.stack([token_ids[row][-steps:] for row in rows]), label[rows].astype(np.float32)


def study(
    train: Reviews, validation: Reviews, *, vocabulary_size: int, seed: int, epochs: int = EPOCHS
) -> dict[str, Any]:
    """Trains and measures the three networks.

    Args:
        train, validation: reviews.
        vocabulary_size: number of token ids, padding included.
        seed, epochs: of the training.

    Returns:
        `steps` (the median length of the training reviews, or the longest of validation's where that is less),
        `units`, `reviews` (trained, measured and validated), `epochs`, `reach_share` (REACH), and in `cells` by cell:
        `parameters`, `val_accuracy` after training, and for `untrained` and `trained` the `gradient`, the mean norm by
        steps back from the last one, relative to the last one's, and `reach`, how many steps back it stays at or above
        REACH.
    """
    steps = min(int(np.median([len(ids) for ids in train[0]])), max(len(ids) for ids in validation[0]))
    reviews, label = of_length(*train, steps, TRAINED_REVIEWS)
    held_out, held_out_label = of_length(*validation, steps, VALIDATED_REVIEWS)
    measured = held_out[:MEASURED_REVIEWS], held_out_label[:MEASURED_REVIEWS]
    cells = {}
    for cell in CELLS:
        model = build_network(cell, vocabulary_size, seed)
        norms = gradient_norms(model)
        untrained = by_distance(norms(*measured))
        model.fit(reviews, label, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)
        accuracy = model.evaluate(held_out, held_out_label, batch_size=BATCH_SIZE, verbose=0)[1]
        cells[cell] = {
            "parameters": model.count_params(),
            "val_accuracy": float(accuracy),
            "untrained": untrained,
            "trained": by_distance(norms(*measured)),
        }
    return {
        "steps": steps,
        "units": UNITS,
        "reviews": {"trained": len(reviews), "measured": len(measured[0]), "validated": len(held_out)},
        "epochs": epochs,
        "reach_share": REACH,
        "cells": cells,
    }


def gradient_norms(model: "keras.Model") -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns the function, traced once, from token ids <int32>[reviews, steps] without padding and labels
    <float32>[reviews] to <float>[reviews, steps]: the norm of the gradient of each review's cross-entropy with respect
    to the embedded input of each step. `model` is one of `build_network`."""
    import tensorflow as tf

    embedding, recurrent, logit = model.layers[-3:]

    @tf.function
    def norms(ids: Any, labels: Any) -> Any:
        embedded = embedding(ids)
        with tf.GradientTape() as tape:
            tape.watch(embedded)
            scores = logit(recurrent(embedded))[:, 0]
            # Reviews do not touch each other, so the gradient of the sum is each review's own.
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores))
        return tf.norm(tape.gradient(loss, embedded), axis=-1)

    return lambda token_ids, label: norms(token_ids, label).numpy()


def build_network(cell: str, vocabulary_size: int, seed: int) -> "keras.Model":
    """Returns an untrained network of `cell`, one of CELLS: <int32>[batch, steps] to <float32>[batch, 1] logits."""
    import keras

    keras.utils.set_random_seed(seed)
    small = keras.initializers.RandomUniform(-(UNITS**-0.5), UNITS**-0.5)
    recurrent = keras.layers.LSTM if cell == "lstm" else keras.layers.SimpleRNN
    initializer = {"recurrent_initializer": small} if cell == "simple_rnn_random" else {}
    token_ids = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(vocabulary_size, UNITS)(token_ids)
    model = keras.Model(token_ids, keras.layers.Dense(1)(recurrent(UNITS, **initializer)(embedded)))
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, clipnorm=CLIP_NORM),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    return model


def by_distance(norms: np.ndarray) -> dict[str, Any]:
    """Returns `gradient`, the mean of <float32>[reviews, steps] norms by steps back from the last one, relative to its;
    and `reach`, how many steps back it stays at or above REACH."""
    mean = norms.mean(axis=0, dtype=np.float64)[::-1]
    relative = mean / mean[0]
    below = np.flatnonzero(relative < REACH)
    return {
        "gradient": [float(f"{value:.4g}") for value in relative],
        "reach": int(below[0]) - 1 if len(below) else len(relative) - 1,
    }
