"""Keras's LSTM layer run by TensorFlow's fused CPU kernel.

Import it only where TensorFlow is loaded anyway.
"""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(__name__)
class FusedLSTM(keras.layers.LSTM):
    """An LSTM whose time loop is one `BlockLSTM` kernel, for right-padded sequences on a CPU.

    Weights, gate order (input, forget, candidate, output) and results are those of `keras.layers.LSTM`. Instead of
    asking the mask at every step, a backward layer turns each row's real steps round, and the last real step is
    gathered; what the kernel computes past a row's end reaches nothing before it. A backward layer returns its
    sequences in the order of the steps, not of processing: `FusedBidirectional` alone holds one.

    `BlockLSTMV2` has Keras's gate order, but TensorFlow 2.21 registers for it the gradient of the other order, which
    is wrong by as much as the gradient itself; so this is the first version, with the gates put into its order.

    Default activations, no recurrent dropout, no initial state: what the models of this project use.
    """

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Maps <float32>[batch, width, features] to <float32>[batch, units] or, with `return_sequences`,
        [batch, width, units]; `mask` is <bool>[batch, width], True on the real steps, which come first."""
        if initial_state is not None:
            raise ValueError("FusedLSTM takes no initial state; use keras.layers.LSTM")
        batch, width = tf.shape(sequences)[0], tf.shape(sequences)[1]
        lengths = tf.fill((batch,), width) if mask is None else tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        steps = tf.transpose(sequences, (1, 0, 2))  # one for both directions, as TensorFlow sees that they are the same
        hidden = self._run(_turned_round(steps, lengths) if self.go_backwards else steps, batch)
        if not self.return_sequences:
            return tf.gather_nd(hidden, tf.stack([lengths - 1, tf.range(batch)], axis=1))
        return tf.transpose(_turned_round(hidden, lengths) if self.go_backwards else hidden, (1, 0, 2))

    def _run(self, steps: Any, batch: Any) -> Any:
        """Returns the hidden states <float32>[width, batch, units] of `steps` <float32>[width, batch, features]."""
        zeros = tf.zeros((batch, self.units))
        no_peephole = tf.zeros((self.units,))
        weights = tf.concat([self.cell.kernel, self.cell.recurrent_kernel], axis=0)
        return tf.raw_ops.BlockLSTM(
            seq_len_max=tf.cast(tf.shape(steps)[0], tf.int64),
            x=steps,
            cs_prev=zeros,
            h_prev=zeros,
            w=_in_kernel_order(weights),
            wci=no_peephole,
            wcf=no_peephole,
            wco=no_peephole,
            b=_in_kernel_order(self.cell.bias),
            forget_bias=0.0,  # Keras keeps the 1 that it starts from in the bias itself
            cell_clip=0.0,
            use_peephole=False,
        ).h


@keras.saving.register_keras_serializable(__name__)
class FusedBidirectional(keras.layers.Bidirectional):
    """Two `FusedLSTM` layers side by side, of which the backward one's sequences are in the order of the steps."""

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Maps <float32>[batch, width, features] to both directions' outputs, one after the other in the last axis."""
        directions = (self.forward_layer, self.backward_layer)
        return tf.concat([layer(sequences, initial_state=initial_state, mask=mask) for layer in directions], axis=-1)


def _turned_round(steps: Any, lengths: Any) -> Any:
    """Returns `steps` <float32>[width, batch, features] with the first `lengths` <int32>[batch] steps of each row in
    reverse order, the rest as it is.

    TensorFlow's `reverse_sequence` does it number by number; this gathers whole steps. Done twice it is undone, so it
    is its own gradient."""
    width, batch, features = tf.unstack(tf.shape(steps))
    step, row = tf.range(width)[:, None], tf.range(batch)[None, :]
    source = tf.reshape(tf.where(step < lengths, lengths - 1 - step, step) * batch + row, (-1,))

    @tf.custom_gradient
    def turned(flat: Any) -> Any:
        return tf.gather(flat, source), lambda upstream: tf.gather(upstream, source)

    return tf.reshape(turned(tf.reshape(steps, (width * batch, features))), (width, batch, steps.shape[-1]))


def _in_kernel_order(gates: Any) -> Any:
    """Puts the gates of the last axis from Keras's order (i, f, c, o) into the kernel's (i, c, f, o)."""
    i, f, c, o = tf.split(gates, 4, axis=-1)
    return tf.concat([i, c, f, o], axis=-1)


def fuse(model: keras.Model) -> keras.Model:
    """Returns a copy of `model`, weights included, whose bidirectional LSTM layers are `FusedLSTM`."""

    def fused(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Bidirectional) and type(layer.forward_layer) is keras.layers.LSTM:
            directions = [
                FusedLSTM.from_config(direction.get_config())
                for direction in (layer.forward_layer, layer.backward_layer)
            ]
            return FusedBidirectional(directions[0], backward_layer=directions[1], name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=fused)
    copy.set_weights(model.get_weights())
    return copy
