"""Stage `register`: every trained model becomes a version in the registry; the gate decides who is champion."""

from pipeline.project.params import load_params
from pipeline.project.run_command import run_command
from pipeline.registry.challenge import register_trained


def main() -> None:
    """Registers what was trained; see `challenge.register_trained`."""
    register_trained(load_params())


if __name__ == "__main__":
    run_command(main)
