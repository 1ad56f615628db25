"""Locks that one process holds and the system takes back when it ends, however it ends.

`exclusive` is for what must not happen twice at once. A job whose work is done by processes that it starts only
indirectly, as DVC starts the stages, names its lock in their environment (JOB_LOCK): the first import of `pipeline`
calls `exit_with_job` in each of them, which waits for the lock beside its work, and so learns at once when the job is
gone. It then ends itself, holding the lock until it has ended. So the lock of a dead job is free exactly when nothing
of the job runs any more. What remains: a process that is in its interpreter's own start, the fraction of a second
before that import. It ends as soon as it gets there, unless the next job has the lock by then: it ends with that one.
"""

import errno
import fcntl
import getpass
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.project.errors import BusyError, PipelineError

JOB_LOCK = "SENTIMENT_JOB_LOCK"
"""The environment variable that names the lock of the job that a process works for."""


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Holds the lock file `path` for this process; the file stays, and says who held it last.

    Args:
        path: the lock's file; its folder is made.
        what: the subject of the sentence that another process is answered with, such as "a retraining".

    Raises:
        BusyError: another process holds it; the message says who, and since when.
        PipelineError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise PipelineError(f"the lock {path} cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "nobody known"
            raise BusyError(f"{what} is under way, begun by {holder}; nothing was done (lock {path})") from None
        os.ftruncate(lock, 0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        os.pwrite(lock, f"process {os.getpid()} of {author()} at {since}".encode(), 0)
        yield
    finally:
        os.close(lock)


def author() -> str:
    """Returns who acts: user@host."""
    return f"{getpass.getuser()}@{platform.node()}"


def exit_with_job() -> None:
    """Where this process works for a job (JOB_LOCK), lets it end by SIGTERM as soon as the job is gone."""
    if path := os.environ.get(JOB_LOCK):
        lock = os.open(path, os.O_RDWR)
        threading.Thread(target=_end_with, args=(lock,), name="exit with job", daemon=True).start()


def _end_with(lock: int) -> None:
    fcntl.flock(lock, fcntl.LOCK_SH)  # until the job lets go; then held until this process has ended
    os.kill(os.getpid(), signal.SIGTERM)
