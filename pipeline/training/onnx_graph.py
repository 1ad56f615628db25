"""A trained network as an ONNX graph, which ONNX Runtime scores with and which needs no TensorFlow.

The graph is written out layer by layer rather than exported: it has the lengths of the rows, so that padding changes
nothing, and the same weights give the same bytes.

Sources: the operators of https://onnx.ai/onnx/operators/ (LSTM, GRU, RNN), and Keras's `LSTMCell` and `GRUCell`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.project.params import ModelParams

_OPSET, _IR_VERSION = 17, 8
"""Of ONNX 1.12 (2022): what is newer is not needed, and runtimes of four years load the file."""
_OPERATORS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
_GATES = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2), "simple_rnn": (0,)}
"""Which of Keras's gates stand where in ONNX: LSTM i, f, c, o → i, o, f, c; GRU z, r, h is the same in both."""


class _Graph:
    """Nodes and arrays of a graph, added one after the other."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []

    def array(self, value: NDArray[np.float32] | Sequence[int]) -> str:
        """Adds a constant, and returns its name; integers are <int64>, as ONNX takes shapes and axes."""
        name = f"array_{len(self.arrays)}"
        kept = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(kept), name))
        return name

    def add(self, operator: str, *inputs: str, output: int = 0, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node, and returns the name of its output number `output`."""
        names = [f"{operator.lower()}_{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[output]


def onnx_graph(params: ModelParams, weights: Sequence[NDArray[np.float32]]) -> bytes:
    """Returns the network of `params` with these weights, as `networks.read_model` has them, as an ONNX file.

    Its one input is `token_ids` <int32>[batch, width], right-padded with 0, and its one output `logit`
    <float32>[batch]; a row without a token has no meaning.
    """
    graph, remaining = _Graph(), list(weights)

    def take(count: int) -> list[NDArray[np.float32]]:
        taken = remaining[:count]
        del remaining[:count]
        return taken

    by_time = graph.add("Transpose", "token_ids", perm=[1, 0])  # ONNX's recurrent layers take time first
    is_token = graph.add("Cast", graph.add("Cast", by_time, to=TensorProto.BOOL), to=TensorProto.INT32)
    lengths = graph.add("ReduceSum", is_token, graph.array([0]), keepdims=0)
    hidden = graph.add("Gather", graph.array(take(1)[0]), by_time)
    last = ""
    for units in params.recurrent_units:
        hidden, last = _bidirectional(graph, params.cell, units, take(6), hidden, lengths)
    pooled = _pooled(graph, params.pooling, hidden, last, is_token, lengths)
    dense = graph.add("Relu", graph.add("Gemm", pooled, *map(graph.array, take(2))))
    logit = graph.add("Gemm", dense, *map(graph.array, take(2)))
    graph.nodes.append(helper.make_node("Squeeze", [logit, graph.array([1])], ["logit"]))
    assert not remaining, "weights of another network"
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "review_classifier",
            [helper.make_tensor_value_info("token_ids", TensorProto.INT32, ["batch", "width"])],
            [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["batch"])],
            graph.arrays,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))


def _bidirectional(
    graph: _Graph, cell: str, units: int, weights: Sequence[NDArray[np.float32]], hidden: str, lengths: str
) -> tuple[str, str]:
    """Adds a bidirectional layer on `hidden` [width, batch, features].

    Args:
        weights: Keras's, of the forward and then of the backward direction: kernel [features, gates · units], recurrent
            kernel [units, gates · units], and bias, [gates · units] or of a GRU [2, gates · units].

    Returns:
        Its outputs [width, batch, 2 · units], both directions side by side, and its last states [batch, 2 · units].
    """
    directions = [weights[:3], weights[3:]]
    kernel, recurrent = (
        np.stack([_in_onnx_order(cell, direction[part].T) for direction in directions]) for part in (0, 1)
    )
    bias = np.stack([_biases(cell, direction[2]) for direction in directions])
    attributes = {"linear_before_reset": 1} if cell == "gru" else {}  # Keras's `reset_after`, as cuDNN's
    states = graph.add(
        _OPERATORS[cell],
        hidden,
        *map(graph.array, (kernel, recurrent, bias)),
        lengths,
        outputs=2,
        direction="bidirectional",
        hidden_size=units,
        **attributes,
    )  # [width, 2, batch, units]
    last = states.removesuffix("_0") + "_1"  # [2, batch, units]
    side_by_side = graph.array([0, 0, 2 * units])
    outputs = graph.add("Reshape", graph.add("Transpose", states, perm=[0, 2, 1, 3]), side_by_side)
    ends = graph.add("Reshape", graph.add("Transpose", last, perm=[1, 0, 2]), graph.array([0, 2 * units]))
    return outputs, ends


def _in_onnx_order(cell: str, gates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns `gates` [gates · units, …] in the order in which ONNX has them."""
    parts = np.split(gates, len(_GATES[cell]))
    return np.concatenate([parts[gate] for gate in _GATES[cell]])


def _biases(cell: str, bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns [2 · gates · units], ONNX's biases of the input and of the state; but for a GRU Keras has one of them."""
    both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
    return np.concatenate([_in_onnx_order(cell, one) for one in both])


def _pooled(graph: _Graph, pooling: str, hidden: str, last: str, is_token: str, lengths: str) -> str:
    """Reduces `hidden` [width, batch, features] over the tokens of each row, to [batch, features]."""
    if pooling == "last":
        return last
    real = graph.add("Unsqueeze", is_token, graph.array([2]))
    if pooling == "max":
        least = graph.array(np.array(-1, np.float32))  # that a tanh cell puts out
        masked = graph.add("Where", graph.add("Cast", real, to=TensorProto.BOOL), hidden, least)
        return graph.add("ReduceMax", masked, axes=[0], keepdims=0)
    weighted = graph.add("Mul", hidden, graph.add("Cast", real, to=TensorProto.FLOAT))
    total = graph.add("ReduceSum", weighted, graph.array([0]), keepdims=0)
    count = graph.add("Unsqueeze", graph.add("Cast", lengths, to=TensorProto.FLOAT), graph.array([1]))
    return graph.add("Div", total, count)
