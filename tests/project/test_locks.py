"""What must not happen twice at once does not, and a job that is gone takes its processes with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.project.errors import BusyError
from pipeline.project.locks import exclusive

JOB = """
import os, subprocess, sys
from pathlib import Path
from pipeline.project.locks import JOB_LOCK, exclusive
with exclusive(Path("job.lock"), "a job"):
    # As DVC does it: a shell between, and no file of ours handed down.
    shell = ["/bin/sh", "-c", f"{sys.executable} stage.py; true"]
    stage = subprocess.Popen(shell, env={**os.environ, JOB_LOCK: "job.lock"})
    stage.wait()
"""
STAGE = """
import os, signal, sys
from pipeline.project.run_command import run_command
def main():
    def ends(*_):
        print("ending", flush=True)
        sys.stdin.readline()
        os._exit(0)
    signal.signal(signal.SIGTERM, ends)
    print(os.getpid(), flush=True)
    while True:
        signal.pause()
run_command(main)
"""


STILL_IMPORTING = STAGE.replace("from pipeline.project.run_command import run_command", "import pipeline").replace(
    "run_command(main)", "main()"
)


@pytest.mark.parametrize("program", [STAGE, STILL_IMPORTING])
def test_the_lock_of_a_dead_job_is_free_when_its_last_process_has_ended(tmp_path: Path, program: str) -> None:
    (tmp_path / "stage.py").write_text(program)
    job = subprocess.Popen(
        [sys.executable, "-c", JOB],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None and job.stdin is not None
    stage = int(job.stdout.readline())
    lock = tmp_path / "job.lock"
    with pytest.raises(BusyError, match=f"a job is under way, begun by process {job.pid} of .* at 2"), held(lock):
        pass

    job.send_signal(signal.SIGKILL)
    job.wait()

    assert job.stdout.readline() == "ending\n"  # the stage was told
    with pytest.raises(BusyError), held(lock):  # and holds the lock as long as it takes
        pass
    job.stdin.write("\n")
    job.stdin.close()
    assert job.stdout.read() == ""  # its end of the pipe is closed: it is gone
    job.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)
    with held(lock):
        pass


def test_a_user_without_a_name_is_known_by_his_number() -> None:
    program = """
import getpass, os, pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown  # as in a container that runs as a number
import pipeline
from pipeline.project.locks import author
assert getpass.getuser() == str(os.getuid()) and author().startswith(f"{os.getuid()}@"), author()
"""
    env = {name: value for name, value in os.environ.items() if name not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def held(lock: Path):
    return exclusive(lock, "a job")
