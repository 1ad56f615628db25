"""What the machine's environment says to libraries and must not say to this project's commands."""

import os

_OURS = {
    "MPLBACKEND": "agg",  # a notebook's kernel names one that is not installed here
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,  # no `keras.json`: another backend, float type or epsilon
}
_NOBODYS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")


def use_own_settings() -> None:
    """Has Keras, imported after this, use TensorFlow, float32 and all epochs, and Matplotlib draw to files, whatever
    environment variables and a `keras.json` say."""
    os.environ.update(_OURS)
    for name in _NOBODYS:
        os.environ.pop(name, None)
