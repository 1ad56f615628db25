"""`sentiment serve` over real HTTP: a score where a score makes sense, else a 4xx that names the problem."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Registered

from pipeline.serving.server import MAX_REQUEST_BYTES, MAX_REQUEST_ROWS

pytestmark = pytest.mark.e2e

MEGABYTE = "A wonderful film, and then the second half. " * 23_000


@dataclass(frozen=True)
class Server:
    process: "subprocess.Popen[str]"
    port: int

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, payload: Any) -> tuple[int, Any]:
        """Posts bytes as they are, anything else as JSON; returns the status and the JSON that came back."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        status, answer = self.request("POST", "/invocations", body, Content_Type="application/json")
        return status, json.loads(answer)

    def logits(self, payload: Any) -> list[float]:
        status, answer = self.post(payload)
        assert status == 200, answer
        return [row["logit"] for row in answer["predictions"]]


@contextmanager
def start(registered: Registered, *options: str) -> "Iterator[subprocess.Popen[str]]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "serve", *options],
        cwd=registered.folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # one that does not end must fail its test, not hang it


@pytest.fixture(scope="module")
def server(registered: Registered) -> Iterator[Server]:
    """The champion, on a port that was free. The kernel queues connections from before the line is printed on."""
    with start(registered, "--port", "0") as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        found = re.fullmatch(
            r"serving models:/imdb-sentiment-sample@champion at http://127\.0\.0\.1:(\d+)/invocations\n", line
        )
        assert found, line + process.stderr.read()
        yield Server(process, int(found[1]))
        process.terminate()


@pytest.fixture(scope="module")
def champion(registered: Registered) -> mlflow.pyfunc.PyFuncModel:
    return mlflow.pyfunc.load_model(registered.paths["mean"])


TEXTS = ["A film that stays with you for days.", "Two hours that I will never get back.", "🙂", "null", "NaN", "a\0"]

SHAPES: dict[str, Any] = {
    "dataframe_split": {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}},
    "dataframe_split with an index": {
        "dataframe_split": {"columns": ["text"], "index": [*range(9, 15)], "data": [[text] for text in TEXTS]}
    },
    "dataframe_split with more columns": {
        "dataframe_split": {"columns": ["id", "text"], "data": [[None, text] for text in TEXTS]}
    },
    "dataframe_records": {"dataframe_records": [{"text": text} for text in TEXTS]},
    "dataframe_records with more columns": {"dataframe_records": [{"id": 7, "text": text} for text in TEXTS]},
    "inputs, a list of texts": {"inputs": TEXTS},
    "inputs, a list of objects": {"inputs": [{"text": text} for text in TEXTS]},
    "inputs, a column": {"inputs": {"text": TEXTS}},
    "instances": {"instances": [{"text": text} for text in TEXTS]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_of_a_request_gives_the_models_scores(
    server: Server, champion: mlflow.pyfunc.PyFuncModel, shape: str
) -> None:
    status, answer = server.post(SHAPES[shape])
    assert status == 200, answer
    expected = champion.predict(pd.DataFrame({"text": TEXTS}))
    found = pd.DataFrame(answer["predictions"])
    assert list(found.columns) == ["label", "probability", "logit", "sure"]
    assert found["label"].tolist() == expected["label"].tolist()
    assert np.abs(found["logit"] - expected["logit"]).max() < 1e-5
    assert np.abs(found["probability"] - expected["probability"]).max() < 1e-5


def test_a_single_text_as_a_column_and_no_texts_at_all(server: Server) -> None:
    assert len(server.logits({"inputs": {"text": "fine"}})) == 1
    assert server.logits({"inputs": []}) == []
    assert server.logits({"dataframe_records": []}) == []


@pytest.mark.parametrize("text", [MEGABYTE, "x" * 2**20, "é" * 2**20, "\0", "\0" * 1000, "👩‍👩‍👧", "\u202e", "-1", "."])
def test_an_unusual_text_has_a_score(server: Server, text: str) -> None:
    (logit,) = server.logits({"inputs": [text]})
    assert np.isfinite(logit)


def split(*texts: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]}}


REFUSED: list[tuple[Any, str]] = [
    (split("fine", ""), "row 1: the text is blank"),
    (split("\u2003\n"), "row 0: the text is blank"),
    (split(None), "row 0: the text is missing"),
    (split("fine", 5), "row 1: the text is not a string: 5"),
    (split(float("nan")), "row 0: the text is missing"),
    (split({"a": 1}), "row 0: the text is not a string: {'a': 1}"),
    (split("\ud800"), "row 0: the text holds a lone surrogate: U+D800 at position 0"),
    ({"inputs": ["fine", None]}, "row 1: the text is missing"),
    ({"inputs": [5]}, "row 0: the text is not a string: 5"),
    ({"inputs": [True]}, "row 0: the text is not a string: True"),
    ({"inputs": [["fine"]]}, "row 0: the text is not a string: ['fine']"),
    ({"inputs": {"text": ["fine", ""]}}, "row 1: the text is blank"),
    ({"inputs": {"text": None}}, "row 0: the text is missing"),
    ({"inputs": "fine"}, "inputs must be a list"),
    ({"inputs": None}, "inputs must be a list"),
    ({"inputs": {"review": ["fine"]}}, "inputs has no 'text' but ['review']"),
    ({"inputs": [{"text": "fine"}, "fine"]}, "row 1: it has no 'text': it is not an object"),
    ({"dataframe_records": [{"text": "fine"}, {"review": "fine"}]}, "row 1: it has no 'text' but ['review']"),
    ({"dataframe_records": [{}]}, "row 0: it has no 'text' but nothing"),
    ({"dataframe_records": ["fine"]}, "row 0: it has no 'text': it is not an object"),
    ({"dataframe_records": {"text": ["fine"]}}, "dataframe_records must be a list"),
    ({"dataframe_split": {"columns": ["review"], "data": [["fine"]]}}, "one column 'text'; it has ['review']"),
    ({"dataframe_split": {"columns": ["text", "text"], "data": [["a", "b"]]}}, "one column 'text'; it has"),
    ({"dataframe_split": {"columns": ["text"], "data": [["a", "b"]]}}, "row 0: it is not a list of 1 values"),
    ({"dataframe_split": {"columns": ["text"], "data": ["fine"]}}, "row 0: it is not a list of 1 values"),
    ({"dataframe_split": {"data": [["fine"]]}}, 'must have a list "columns" and a list "data"'),
    ({"dataframe_split": ["fine"]}, 'must have a list "columns" and a list "data"'),
    ({"dataframe_split": {}, "inputs": []}, "exactly one of"),
    ({"text": "fine"}, "exactly one of"),
    ({}, "exactly one of"),
    (["fine"], "exactly one of"),
    ("fine", "exactly one of"),
    (None, "exactly one of"),
    (b"", "not JSON"),
    (b'{"inputs": ["fi', "not JSON"),
    (b'{"inputs": [fine]}', "not JSON"),
    (b'{"inputs": ["\xff\xfe"]}', "not JSON"),
    (b"\xff\xfe\x00", "not JSON"),
    (b'{"inputs": ["a\x00b"]}', "not JSON"),
    (b'{"inputs": [' + b"9" * 10_000 + b"]}", "not JSON"),
    (b"[" * 1_000_000, "nested too deeply"),
]


@pytest.mark.parametrize(("payload", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_scored_is_a_400_that_says_why(server: Server, payload: Any, reason: str) -> None:
    status, answer = server.post(payload)
    assert status == 400
    assert reason in answer["message"]
    assert answer["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'"' + b"x" * MAX_REQUEST_BYTES, f"more than {MAX_REQUEST_BYTES:,} bytes"),
        ({"inputs": ["fine"] * (MAX_REQUEST_ROWS + 1)}, f"at most {MAX_REQUEST_ROWS:,} at a time"),
    ],
)
def test_more_than_a_request_may_hold_is_a_413(server: Server, payload: Any, reason: str) -> None:
    status, answer = server.post(payload)
    assert status == 413
    assert reason in answer["message"]


@pytest.mark.parametrize(
    "headers", [{}, {"Content_Type": "text/csv"}, {"Content_Type": "application/json; charset=latin-1"}]
)
def test_another_content_type_is_a_415(server: Server, headers: dict[str, str]) -> None:
    status, answer = server.request("POST", "/invocations", b'{"inputs": ["fine"]}', **headers)
    assert status == 415
    assert b"application/json" in answer or b"UTF-8" in answer


def test_other_methods_and_paths_are_answered(server: Server) -> None:
    assert server.request("GET", "/ping")[0] == 200
    assert server.request("GET", "/invocations")[0] == 405
    assert server.request("POST", "/predict")[0] == 404


def test_a_broken_connection_and_a_request_that_is_no_http_leave_it_running(server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    for sent in (head + b'{"inputs": [', b"\0\1\2\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(sent)
    assert len(server.logits({"inputs": ["fine"]})) == 1


def test_many_clients_at_once_get_their_own_scores(
    server: Server, champion: mlflow.pyfunc.PyFuncModel, reviews: pd.DataFrame
) -> None:
    texts = reviews["text"].head(60).tolist()
    expected = champion.predict(pd.DataFrame({"text": texts}))["logit"].to_numpy()
    with ThreadPoolExecutor(12) as clients:
        found = [logit for (logit,) in clients.map(server.logits, [{"inputs": [text]} for text in texts])]
    assert np.abs(np.array(found) - expected).max() < 1e-5


def test_a_request_as_large_as_allowed_is_answered_in_time(server: Server, reviews: pd.DataFrame) -> None:
    texts = reviews["text"].tolist()
    size = sum(len(json.dumps(text)) + 2 for text in texts)
    texts *= MAX_REQUEST_BYTES // size
    assert len(server.logits({"inputs": texts})) == len(texts)
    assert len(server.logits({"inputs": ["."] * MAX_REQUEST_ROWS})) == MAX_REQUEST_ROWS


def test_a_port_in_use_is_reported_before_the_model_loads(server: Server, registered: Registered) -> None:
    with start(registered, "--port", str(server.port)) as second:
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert errors.startswith(f"error: --host 127.0.0.1 --port {server.port} cannot be listened on: Address already in")
    assert "Traceback" not in errors and len(errors.splitlines()) == 1


def test_an_unknown_model_is_reported_in_a_sentence(registered: Registered) -> None:
    with start(registered, "--port", "0", "--model", "models:/imdb-sentiment-sample/99") as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--model models:/imdb-sentiment-sample/99 cannot be loaded" in errors and "Traceback" not in errors


def test_ctrl_c_ends_it_quietly(registered: Registered) -> None:
    with start(registered, "--port", "0", "--model", registered.paths["last"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
