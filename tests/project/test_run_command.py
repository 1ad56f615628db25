"""What a command raises becomes one sentence and an exit code, and a traceback only where it is our own mistake."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

URL = "http://ann:secret@host"
STORE_DAMAGED = """
from sqlalchemy import create_engine, text
engine = create_engine("sqlite:///params.yaml")
try:
    with engine.connect() as connection:
        connection.execute(text("select 1 from runs"))
finally:
    engine.dispose()
"""


def run(body: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    lines = "\n    ".join(body.strip().splitlines())
    program = f"""
from pipeline.project.errors import DataError
from pipeline.project.run_command import run_command
def main():
    {lines}
run_command(main)
"""
    env = os.environ | environment
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (f'raise DataError("no table at {URL}/x")', 3, "error: no table at http://host/x"),
        (
            STORE_DAMAGED,
            1,
            "error: the database of the MLflow store cannot be used ((sqlite3.DatabaseError) file is not",
        ),
        (
            f'from mlflow.exceptions import MlflowException; raise MlflowException("away: {URL}/api")',
            1,
            "error: the MLflow store refused or went away: away: http://host/api",
        ),
        (
            "import a_package_of_the_pipeline",
            1,
            "error: this needs the package a_package_of_the_pipeline, which is not",
        ),
    ],
)
def test_an_error_is_one_sentence_without_a_password(body: str, code: int, sentence: str) -> None:
    done = run(body)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line.startswith(sentence) and "secret" not in line
    shown = run(body, SENTIMENT_DEBUG="1")
    assert shown.returncode == code and "Traceback" in shown.stderr and "secret" not in shown.stderr


def test_what_the_terminal_cannot_write_fails_nothing() -> None:
    done = run('print("caf\\udce9 é"); raise DataError("caf\\udce9.csv is empty")', PYTHONIOENCODING="ascii")
    assert done.returncode == 3
    assert done.stdout == "caf\\udce9 \\xe9\n" and done.stderr == "error: caf\\udce9.csv is empty\n"


def test_a_mistake_of_ours_shows_its_traceback_without_a_password() -> None:
    done = run(f'raise KeyError("{URL}/x")')
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "KeyError: 'http://host/x'" in done.stderr
    assert "secret" not in done.stderr


def test_a_module_of_our_own_that_is_missing_is_our_mistake() -> None:
    done = run("import pipeline.nothing")
    assert done.returncode == 1 and "Traceback" in done.stderr
