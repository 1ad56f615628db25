"""No URL that is printed, recorded, sent or committed holds a user or a password."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from pipeline.project.credentials import without_user_info
from pipeline.project.errors import DataError


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://ann:se@cret@host:5000/api?to=a@b", "http://host:5000/api?to=a@b"),
        ("postgresql+psycopg2://ann:s%2Fe@host/db, https://token@host", "postgresql+psycopg2://host/db, https://host"),
        ("mail ann@host about sqlite:///mlflow.db", "mail ann@host about sqlite:///mlflow.db"),
        ("models:/imdb-sentiment@champion", "models:/imdb-sentiment@champion"),
    ],
)
def test_user_and_password_leave_a_url(text: str, clean: str) -> None:
    assert without_user_info(text) == clean
    assert str(DataError(text)) == clean


def test_the_tracking_servers_password_goes_where_mlflow_looks_for_it() -> None:
    program = """
import json, os
import pipeline
names = ("URI", "USERNAME", "PASSWORD")
print(json.dumps([os.environ.get(f"MLFLOW_TRACKING_{name}") for name in names]))
"""

    def found(**environment: str) -> list[str | None]:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return list(json.loads(done.stdout))

    uri = "http://ann:s%2Fecret@localhost:5000/base"
    assert found(MLFLOW_TRACKING_URI=uri) == ["http://localhost:5000/base", "ann", "s/ecret"]
    assert found(MLFLOW_TRACKING_URI=uri, MLFLOW_TRACKING_USERNAME="bob")[1] == "bob"
    assert found(MLFLOW_TRACKING_URI="sqlite:///a@b.db") == ["sqlite:///a@b.db", None, None]
    assert found() == [None, None, None]
