"""Where the time of a piece of TensorFlow work goes, by TensorFlow's own profiler."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CUDNN = ("cudnn", "rnn", "lstm")
_SHOWN = 8


def kernels(run: Callable[[], Any]) -> dict[str, Any]:
    """Profiles `run()`.

    Returns:
        `kernels`, the share of each kernel in the time of all of them, the greatest first: TensorFlow's ops on a CPU,
        CUDA kernels on a GPU; and `cudnn`, on a GPU the names of cuDNN's LSTM kernels among them, else "not measured".
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    on_gpu, on_cpu = _seconds(space, "/device:GPU"), _seconds(space, "/host:CPU")
    ops = {name: s for name, s in on_cpu.items() if hasattr(tf.raw_ops, name.removeprefix("_Mkl"))}
    counted = Counter(on_gpu or ops)
    total = sum(counted.values())
    names = sorted({name for name in on_gpu if any(part in name.lower() for part in _CUDNN)})
    return {
        "kernels": {name: round(seconds / total, 4) for name, seconds in counted.most_common(_SHOWN)},
        "cudnn": (names or "none seen") if on_gpu else "not measured",
    }


def _seconds(space: Any, device: str) -> Counter[str]:
    """Returns the seconds of each kind of event on the planes of `device`."""
    spent: Counter[str] = Counter()
    for plane in space.planes:
        if plane.name.startswith(device):
            for line in plane.lines:
                for event in line.events:
                    name = plane.event_metadata[event.metadata_id].name
                    spent[name.rsplit(":", 1)[-1]] += event.duration_ps / 1e12
    return spent
