"""Errors that a user can act on, and the exit codes they end a command with."""

import sys

from pipeline.project.credentials import without_user_info


class PipelineError(Exception):
    """Something failed; the message is one sentence that says what and what would be right, and no password."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        printable = message.encode("utf-8", errors="backslashreplace").decode("utf-8")  # a file name may be any bytes
        super().__init__(without_user_info(printable))


class UsageError(PipelineError):
    """A parameter, option or name that the user gave is wrong."""

    exit_code = 2


class DataError(PipelineError):
    """Data was rejected: a file is not what its place demands, or an expectation broke."""

    exit_code = 3


class BusyError(PipelineError):
    """Another process is at it; 75 is EX_TEMPFAIL of sysexits.h: try again later."""

    exit_code = 75


def one_line(error: BaseException | str) -> str:
    """Returns the beginning of what an error says, in one line: libraries write paragraphs."""
    return " ".join(str(error).split())[:300]


_STORE_ERRORS = {"mlflow.exceptions": "MlflowException", "sqlalchemy.exc": "SQLAlchemyError", "sqlite3": "Error"}


def store_errors() -> tuple[type[Exception], ...]:
    """Returns what an MLflow store's client and database raise, of the libraries that are loaded."""
    return tuple(getattr(sys.modules[name], error) for name, error in _STORE_ERRORS.items() if name in sys.modules)


def store_error(error: Exception) -> PipelineError:
    """Returns the sentence for one of `store_errors`: MLflow's own, or of a database the first line and the remedy."""
    if type(error).__module__.startswith(("sqlalchemy", "sqlite3")):
        reason = str(error).strip().partition("\n")[0]
        return PipelineError(
            f"the database of the MLflow store cannot be used ({reason}); where another process holds it, wait for it, "
            "where it is damaged, put a backup in its place"
        )
    return PipelineError(f"the MLflow store refused or went away: {one_line(error)}")
