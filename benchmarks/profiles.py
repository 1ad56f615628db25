"""Where the time of a piece of TensorFlow work goes, by TensorFlow's own profiler."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CUDNN_OP = "CudnnRNN"
_SHOWN = 8


def kernels(run: Callable[[], Any]) -> dict[str, Any]:
    """Profiles `run()`.

    Returns:
        `kernels`, the share of each kernel in the time of all of them, the greatest first: TensorFlow's ops on a CPU,
        CUDA kernels on a GPU; and `cudnn_share`, the share of what TensorFlow's cuDNN ops launched, None on a CPU.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    counted: defaultdict[str, float] = defaultdict(float)
    cudnn_seconds = 0.0
    for name, by_cudnn, seconds in _events(space, "/device:GPU"):
        counted[name.partition("<")[0].partition("(")[0]] += seconds
        cudnn_seconds += seconds * by_cudnn
    on_gpu = bool(counted)
    if not on_gpu:
        for name, _, seconds in _events(space, "/host:CPU"):
            op = name.rsplit(":", 1)[-1]
            if hasattr(tf.raw_ops, op.removeprefix("_Mkl")):
                counted[op] += seconds
    total = sum(counted.values())
    shown = sorted(counted, key=counted.__getitem__, reverse=True)[:_SHOWN]
    return {
        "kernels": {name: round(counted[name] / total, 4) for name in shown},
        "cudnn_share": round(cudnn_seconds / total, 4) if on_gpu else None,
    }


def _events(space: Any, device: str) -> Iterator[tuple[str, bool, float]]:
    """Yields name, whether a cuDNN op launched it, and seconds of each event on the planes of `device`."""
    for plane in space.planes:
        if plane.name.startswith(device):
            for line in plane.lines:
                if device == "/device:GPU" and not line.name.startswith("Stream"):
                    continue  # what is derived from the streams' kernels would count them twice
                for event in line.events:
                    ops = [
                        stat.str_value or plane.stat_metadata[stat.ref_value].name
                        for stat in event.stats
                        if plane.stat_metadata[stat.metadata_id].name == "tf_op"
                    ]
                    name = plane.event_metadata[event.metadata_id].name
                    yield name, any(_CUDNN_OP in op for op in ops), event.duration_ps / 1e12
