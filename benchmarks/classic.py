"""The reference: the training loop of TensorFlow's tutorial "Text classification with an RNN", in its form with the
subword encoder, written here from its description.

Whole reviews in `shuffle(10_000).padded_batch(64)`, so a batch is as wide as its longest review; Keras's own layers
without a mask, so the padding is computed and read; Adam at 1e-4 on the cross-entropy of the logit. The tutorial's
second model stacks two bidirectional layers. TensorFlow's settings are its defaults but for tf.data's tuner: that is
off, since by chance the end of an epoch waits for it, up to a minute, and the reference is measured at its best.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np

SHUFFLE_BUFFER = 10_000
BATCH_SIZE = 64
LEARNING_RATE = 1e-4


def batches(token_ids: "Sequence[np.ndarray]", label: "np.ndarray", *, seed: int | None = None) -> Any:
    """Returns a tf.data.Dataset of (<int32>[64, width], <float32>[64]) padded with 0.

    Args:
        token_ids: <int32>[tokens] for each review, whole.
        label: <int>[reviews].
        seed: seed of the shuffle, which is another one each epoch; None keeps the order, as for validation.
    """
    import tensorflow as tf

    tokens, labels = tf.concat(list(token_ids), axis=0), tf.constant(label, tf.float32)
    ends = tf.cumsum([len(ids) for ids in token_ids])
    lengths = tf.constant([len(ids) for ids in token_ids])
    rows = tf.data.Dataset.range(len(token_ids)).map(
        lambda row: (tokens[ends[row] - lengths[row] : ends[row]], labels[row])
    )
    if seed is not None:
        rows = rows.shuffle(SHUFFLE_BUFFER, seed=seed)
    options = tf.data.Options()
    options.autotune.enabled = False
    return rows.padded_batch(BATCH_SIZE).with_options(options)


def build_model(name: str, vocabulary_size: int) -> "keras.Model":
    """Returns the tutorial's model `single` or `stacked`, compiled."""
    from keras import Sequential, layers, losses, metrics, optimizers

    recurrent: dict[str, list[Any]] = {
        "single": [layers.Bidirectional(layers.LSTM(64))],
        "stacked": [
            layers.Bidirectional(layers.LSTM(64, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(32)),
        ],
    }
    dropout = [layers.Dropout(0.5)] if name == "stacked" else []
    model = Sequential(
        [layers.Embedding(vocabulary_size, 64), *recurrent[name], layers.Dense(64, activation="relu"), *dropout]
    )
    model.add(layers.Dense(1))
    model.compile(
        loss=losses.BinaryCrossentropy(from_logits=True),
        optimizer=optimizers.Adam(LEARNING_RATE),
        metrics=[metrics.BinaryAccuracy("accuracy", threshold=0.0)],  # of a logit
    )
    return model
