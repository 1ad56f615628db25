"""Errors that a user can act on, and the exit codes they end a command with."""

import os
import sys
from collections.abc import Callable


class PipelineError(Exception):
    """Something failed; the message is one sentence that says what and what would be right."""

    exit_code = 1


class UsageError(PipelineError):
    """A parameter, option or name that the user gave is wrong."""

    exit_code = 2


class DataError(PipelineError):
    """Data was rejected: a file is not what its place demands, or an expectation broke."""

    exit_code = 3


class BusyError(PipelineError):
    """Another process is at it; 75 is EX_TEMPFAIL of sysexits.h: try again later."""

    exit_code = 75


def run_command(command: Callable[[], None], *, debug: bool = False) -> None:
    """Runs `command` and exits with 0, or prints one sentence and exits with the error's code.

    `--debug` on the command line, `SENTIMENT_DEBUG` or `debug` keeps the traceback.
    Errors that are nobody's mistake but our own are not caught: their traceback is the message.
    A process that works for a job ends with it.
    """
    from pipeline.locks import follow_the_job

    follow_the_job()
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
