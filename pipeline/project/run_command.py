"""How every command of the project runs: what it raises becomes one sentence and an exit code."""

import os
import sys
from collections.abc import Callable

from pipeline.project.errors import PipelineError


def run_command(command: Callable[[], None], *, debug: bool = False) -> None:
    """Runs `command` and exits with 0, or prints one sentence and exits with the error's code.

    `--debug` on the command line, `SENTIMENT_DEBUG` or `debug` keeps the traceback.
    Errors that are nobody's mistake but our own are not caught: their traceback is the message.
    """
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        debug = True
    debug = debug or bool(os.environ.get("SENTIMENT_DEBUG"))
    try:
        command()
    except PipelineError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except _mlflow_errors() as error:
        if debug:
            raise
        print(f"error: the MLflow store refused or went away: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(PipelineError.exit_code) from None


def _mlflow_errors() -> tuple[type[Exception], ...]:
    """MLflow's exception where MLflow is loaded; an `except` clause is evaluated only once something was raised."""
    exceptions = sys.modules.get("mlflow.exceptions")
    return (exceptions.MlflowException,) if exceptions else ()
