"""Errors that a user can act on, and the exit codes they end a command with."""

from pipeline.project.credentials import without_user_info


class PipelineError(Exception):
    """Something failed; the message is one sentence that says what and what would be right, and no password."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(without_user_info(message))


class UsageError(PipelineError):
    """A parameter, option or name that the user gave is wrong."""

    exit_code = 2


class DataError(PipelineError):
    """Data was rejected: a file is not what its place demands, or an expectation broke."""

    exit_code = 3


class BusyError(PipelineError):
    """Another process is at it; 75 is EX_TEMPFAIL of sysexits.h: try again later."""

    exit_code = 75
