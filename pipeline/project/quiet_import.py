"""TensorFlow, imported without the lines that its libraries print on stderr, which no setting of theirs turns off."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pipeline.project.environment import use_own_settings
from pipeline.project.errors import PipelineError

_KERAS = ("tensorflow", "float32")
_ENDED_WELL = b"\0"
_READER = f"""
import sys
said = sys.stdin.buffer.read()
if not said.endswith({_ENDED_WELL!r}):
    sys.stderr.buffer.write(said)
"""


@cache
def import_tensorflow() -> Any:
    """Returns the module `tensorflow`; Keras will use it. What the import says on stderr shows only where it fails.

    Raises:
        PipelineError: the process has imported Keras with another backend or float type.
    """
    use_own_settings()
    keras = sys.modules.get("keras")
    if keras and (found := (keras.config.backend(), keras.config.floatx())) != _KERAS:
        raise PipelineError(f"Keras was imported with {' and '.join(found)}; the models need {' and '.join(_KERAS)}")
    with _quiet_unless_it_fails():
        import tensorflow
    return tensorflow


@contextmanager
def _quiet_unless_it_fails() -> Iterator[None]:
    """Keeps what the block says on stderr, from C++ too, and shows it if the block raises or ends the process, as
    TensorFlow does on a CPU without the instructions that it was built for: so it is another process that keeps it."""
    sys.stderr.flush()
    shown = os.dup(2)
    with subprocess.Popen([sys.executable, "-ISc", _READER], stdin=subprocess.PIPE, stderr=shown) as reader:
        assert reader.stdin
        os.dup2(reader.stdin.fileno(), 2)
        try:
            yield
            sys.stderr.flush()
            os.write(2, _ENDED_WELL)
        finally:
            os.dup2(shown, 2)
            os.close(shown)
