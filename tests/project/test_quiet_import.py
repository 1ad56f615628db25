"""TensorFlow is imported in silence, and what goes wrong with it is still told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

IMPORT = "from pipeline.project.quiet_import import import_tensorflow\nimport_tensorflow()\n"
SPEAK = "import os, sys\nos.write(2, b'of C++\\n')\nprint('of Python', file=sys.stderr)\n"


def run(code: str, path: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)


def test_the_import_says_nothing_and_what_follows_is_heard(tmp_path: Path) -> None:
    done = run(f"{IMPORT}{SPEAK}import tensorflow as tf\nprint(tf.TensorShape([3])[0])", tmp_path)
    assert done.stdout == "3\n"
    assert done.stderr == "of C++\nof Python\n"


@pytest.mark.parametrize(
    ("end", "code"),
    [("raise ImportError('no such library')", 1), ("os.abort()", -signal.SIGABRT), ("os._exit(3)", 3)],
)
def test_what_an_import_that_fails_said_is_shown(tmp_path: Path, end: str, code: int) -> None:
    """As it does where the CPU lacks an instruction: TensorFlow then says so, and aborts."""
    (tmp_path / "tensorflow.py").write_text(f"{SPEAK}sys.stderr.flush()\n{end}\n")
    (tmp_path / "keras.py").write_text("")
    done = run(IMPORT, tmp_path)
    assert done.returncode == code
    assert "of C++\nof Python\n" in done.stderr


def test_a_process_that_has_another_keras_is_told(tmp_path: Path) -> None:
    code = f"import keras\nkeras.config.set_floatx('float16')\n{IMPORT}"
    done = run(code, tmp_path)
    assert "Keras was imported with tensorflow and float16; the models need tensorflow and float32" in done.stderr
