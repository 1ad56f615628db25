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
    asking the mask at every step, a backward layer reverses each row's real steps, and the last real step is
    gathered; what the kernel computes past a row's end reaches nothing before it.

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
        if self.go_backwards:
            sequences = tf.reverse_sequence(sequences, lengths, seq_axis=1)
        hidden = self._run(tf.transpose(sequences, (1, 0, 2)), batch)
        if not self.return_sequences:
            return tf.gather_nd(hidden, tf.stack([lengths - 1, tf.range(batch)], axis=1))
        hidden = tf.transpose(hidden, (1, 0, 2))
        if self.go_backwards:  # Bidirectional expects the order of processing and flips it
            hidden = tf.reverse(tf.reverse_sequence(hidden, lengths, seq_axis=1), axis=[1])
        return hidden

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
            return keras.layers.Bidirectional(directions[0], backward_layer=directions[1], name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=fused)
    copy.set_weights(model.get_weights())
    return copy
