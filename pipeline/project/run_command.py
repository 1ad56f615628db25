"""How every command of the project runs: what it raises becomes one sentence and an exit code."""

import io
import os
import sys
import traceback
from collections.abc import Callable

from pipeline.project.credentials import without_user_info
from pipeline.project.environment import use_own_settings
from pipeline.project.errors import PipelineError, store_error, store_errors


def run_command(command: Callable[[], None], *, debug: bool = False) -> None:
    """Runs `command` and exits with 0, or prints one sentence and exits with the error's code.

    `--debug` on the command line, `SENTIMENT_DEBUG` or `debug` shows the traceback, as do errors that are nobody's
    mistake but our own; no URL in it holds a password.
    """
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        debug = True
    debug = debug or bool(os.environ.get("SENTIMENT_DEBUG"))
    for stream in (sys.stdout, sys.stderr):  # what they cannot write, as some file's name, fails nothing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    use_own_settings()
    try:
        command()
    except Exception as error:
        known = error if isinstance(error, PipelineError) else None
        if isinstance(error, store_errors()):
            known = store_error(error)
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("pipeline"):
            known = PipelineError(
                f"this needs the package {error.name}, which is not installed here; `pip install --require-hashes -r "
                "requirements.lock` installs all that the pipeline needs"
            )
        if debug or known is None:
            print(without_user_info(traceback.format_exc()), end="", file=sys.stderr)
        else:
            print(f"error: {known}", file=sys.stderr)
        raise SystemExit(known.exit_code if known else 1) from None
