"""The LSTM, step by step and gate by gate, in plain NumPy: what the trained layer computes, written out.

With x the input of step t, h and c the hidden and cell state of the step before, σ the logistic function and ∘ the
product unit by unit (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000):

    i = σ(x W_i + h U_i + b_i)        input gate: how much of the candidate is written
    f = σ(x W_f + h U_f + b_f)        forget gate: how much of the old cell state is kept
    g = tanh(x W_g + h U_g + b_g)     candidate
    o = σ(x W_o + h U_o + b_o)        output gate: how much of the cell state is shown
    c' = f ∘ c + i ∘ g
    h' = o ∘ tanh(c')

The gradient reaches an earlier step through c' mainly, multiplied by f at each step: where f is near 1 it does not
vanish. (`gradient_reach` measures that.) Keras puts the four side by side, in this order, in one matrix.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

    from pipeline.served_model.tokenizer import SubwordTokenizer

EXAMPLE = (
    "I expected to love it. The actors are wonderful and the music is lovely, "
    "but the story is dull, the jokes are awful, and by the end I was bored."
)
"""Written for the figure: praise first, then a verdict that turns."""
SHOWN_UNITS = 8
SHOWN_STEPS = ("input_gate", "forget_gate", "output_gate", "cell")


def lstm_steps(
    inputs: np.ndarray, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns what each step of an LSTM layer computes along one sequence, from states of zero: input_gate,
    forget_gate, candidate, output_gate, cell, hidden, <float64>[steps, units] each.

    Args:
        inputs: <float>[steps, features].
        kernel, recurrent_kernel, bias: the layer's weights as Keras has them, <float>[features, 4 * units],
            [units, 4 * units] and [4 * units].
    """
    hidden = cell = np.zeros(len(recurrent_kernel))
    steps = []
    for x in np.asarray(inputs, np.float64):
        i, f, g, o = np.split(x @ kernel + hidden @ recurrent_kernel + bias, 4)
        i, f, g, o = _logistic(i), _logistic(f), np.tanh(g), _logistic(o)
        cell = f * cell + i * g
        hidden = o * np.tanh(cell)
        steps.append((i, f, g, o, cell, hidden))
    names = ("input_gate", "forget_gate", "candidate", "output_gate", "cell", "hidden")
    return dict(zip(names, np.stack(steps, axis=1), strict=True))


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def along(
    model: "keras.Model", tokenizer: "SubwordTokenizer", text: str, scored: Callable[[Sequence[np.ndarray]], np.ndarray]
) -> dict[str, Any]:
    """Follows the first layer's forward LSTM of a trained model along `text`.

    Args:
        model: a model of `training.networks` whose cell is an LSTM.
        scored: reviews as token ids to their probabilities.

    Returns:
        `text`, `tokens` (its subwords), `layer`, `units` (how many); `shown`, the SHOWN_UNITS units whose cell state
        moves most, and of these, a list of a value a token for each unit: `input_gate`, `forget_gate`, `output_gate`,
        `cell`; `mean_forget_gate` over all units and tokens; `probability` of positive after each token;
        `largest_difference` between the hidden states of `lstm_steps` and of the Keras layer.
    """
    import keras

    token_ids = np.array(tokenizer.encode(text), np.int32)
    embedded = model.get_layer("embedding").get_weights()[0][token_ids]
    weights = model.get_layer("bidirectional_1").forward_layer.get_weights()
    steps = lstm_steps(embedded, *weights)
    units = len(weights[1])
    layer = keras.layers.LSTM(units, return_sequences=True)
    layer.build((None, None, embedded.shape[1]))
    layer.set_weights(weights)
    expected = keras.ops.convert_to_numpy(layer(embedded[None]))[0]
    shown = np.sort(np.argsort(-np.ptp(steps["cell"], axis=0), kind="stable")[:SHOWN_UNITS])
    return {
        "text": text,
        "tokens": [tokenizer.decode([token]) for token in token_ids],
        "layer": "bidirectional_1, forward",
        "units": units,
        "shown": shown.tolist(),
        **{name: steps[name][:, shown].T.round(4).tolist() for name in SHOWN_STEPS},
        "mean_forget_gate": float(steps["forget_gate"].mean()),
        "probability": scored([token_ids[:end] for end in range(1, len(token_ids) + 1)]).tolist(),
        "largest_difference": float(np.abs(steps["hidden"] - expected).max()),
    }
