"""A command does not read what a notebook, or a setting for other work, says to the libraries that it uses."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

COMMAND = """
from pipeline.project.quiet_import import import_tensorflow
from pipeline.project.run_command import run_command

def main():
    import_tensorflow()
    import keras, matplotlib
    layer = keras.layers.Dense(1)
    layer.build((None, 1))
    print(keras.config.backend(), keras.config.floatx(), keras.config.epsilon(), layer.kernel.dtype)
    from keras.src.backend.config import max_epochs, max_steps_per_epoch
    print(max_epochs(), max_steps_per_epoch(), matplotlib.get_backend())

run_command(main)
"""


def test_keras_and_matplotlib_are_as_the_project_needs_them(tmp_path: Path) -> None:
    (tmp_path / ".keras").mkdir()
    settings = {"floatx": "float16", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}
    (tmp_path / ".keras/keras.json").write_text(json.dumps(settings))
    environment = {
        "HOME": str(tmp_path),
        "KERAS_BACKEND": "jax",
        "KERAS_MAX_EPOCHS": "1",
        "KERAS_MAX_STEPS_PER_EPOCH": "2",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "-c", COMMAND], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["tensorflow float32 1e-07 float32", "None None agg"]
