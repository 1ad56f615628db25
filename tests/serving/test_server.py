"""`sentiment serve` over real HTTP: a score where a score makes sense, else a 4xx that names the problem."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Registered
from served import NAME, VERSION, Server, announced, in_this_process, start

from pipeline.serving.server.limits import MAX_REQUEST_BYTES, MAX_REQUEST_ROWS
from pipeline.serving.server.metrics import Metrics

pytestmark = pytest.mark.e2e

MEGABYTE = "A wonderful film, and then the second half. " * 23_000


@pytest.fixture(scope="module")
def server(registered: Registered) -> Iterator[Server]:
    """The champion, on a port that was free."""
    with start(registered.folder, "--port", "0") as process:
        yield announced(process)
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


def test_mlflows_own_client_is_answered(server: Server, champion: mlflow.pyfunc.PyFuncModel) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", server.port)
    client.ping()
    texts = pd.DataFrame({"text": TEXTS})
    found = client.invoke(texts).get_predictions()
    assert found["label"].tolist() == champion.predict(texts)["label"].tolist()


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
    (split("fine", 5), "row 1: the text is not a string but a number"),
    (split(float("nan")), "row 0: the text is missing"),
    (split({"a": 1}), "row 0: the text is not a string but an object"),
    (split("\ud800"), "row 0: the text holds a lone surrogate: U+D800 at position 0"),
    ({"inputs": ["fine", None]}, "row 1: the text is missing"),
    ({"inputs": [5]}, "row 0: the text is not a string but a number"),
    ({"inputs": [True]}, "row 0: the text is not a string but a boolean"),
    ({"inputs": [["fine"]]}, "row 0: the text is not a string but a list"),
    ({"inputs": {"text": ["fine", ""]}}, "row 1: the text is blank"),
    ({"inputs": {"text": None}}, "row 0: the text is missing"),
    ({"inputs": "fine"}, "inputs must be a list"),
    ({"inputs": None}, "inputs must be a list"),
    ({"inputs": {"review": ["fine"]}}, "inputs has no 'text'"),
    ({"inputs": [{"text": "fine"}, "fine"]}, "row 1: it has no 'text': it is not an object"),
    ({"dataframe_records": [{"text": "fine"}, {"review": "fine"}]}, "row 1: it has no 'text'"),
    ({"dataframe_records": [{}]}, "row 0: it has no 'text'"),
    ({"dataframe_records": ["fine"]}, "row 0: it has no 'text': it is not an object"),
    ({"dataframe_records": {"text": ["fine"]}}, "dataframe_records must be a list"),
    ({"dataframe_split": {"columns": ["review"], "data": [["fine"]]}}, "one column 'text'; it has 0"),
    ({"dataframe_split": {"columns": ["text", "text"], "data": [["a", "b"]]}}, "one column 'text'; it has 2"),
    ({"dataframe_split": {"columns": ["text"], "data": [["a", "b"]]}}, "row 0: it is not a list of 1 values"),
    ({"dataframe_split": {"columns": ["text"], "data": ["fine"]}}, "row 0: it is not a list of 1 values"),
    ({"dataframe_split": {"data": [["fine"]]}}, 'must have a list "columns", a list "data"'),
    ({"dataframe_split": ["fine"]}, 'must have a list "columns", a list "data"'),
    ({"dataframe_split": {}, "inputs": []}, "exactly one key, of"),
    ({"text": "fine"}, "exactly one key, of"),
    ({}, "exactly one key, of"),
    (["fine"], "exactly one key, of"),
    ("fine", "exactly one key, of"),
    (None, "exactly one key, of"),
    ({"inputs": ["fine"], "params": {}}, "exactly one key, of"),
    ({"dataframe_split": {"columns": ["text"], "data": [["fine"]], "dtype": "str"}}, 'at most an "index"'),
    (b'{"inputs": ["fine"], "inputs": ["dull"]}', "has a key twice"),
    (b'{"dataframe_records": [{"text": "fine", "text": "dull"}]}', "has a key twice"),
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
    for path in ("/ping", "/health", "/version", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2"):
        assert server.request("GET", path)[0] == 200, path
    assert server.request("GET", "/invocations")[0] == 405
    for path in ("/predict", "/docs", "/openapi.json", "/redoc", "/invocations/", "/invocations%0a", "//invocations"):
        assert server.request("POST", path, b'{"inputs": ["fine"]}', Content_Type="application/json")[0] == 404, path


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "identity, gzip"])
def test_an_encoded_body_is_a_415(server: Server, encoding: str) -> None:
    headers = {"Content_Type": "application/json", "Content_Encoding": encoding}
    status, answer = server.request("POST", "/invocations", b'{"inputs": ["fine"]}', **headers)
    assert status == 415 and b"Content-Encoding must be identity" in answer


def test_no_message_repeats_what_the_request_holds(server: Server) -> None:
    secret = "confidential"
    for payload in (
        {secret: ["fine"]},
        {"inputs": {secret: ["fine"]}},
        {"inputs": [[secret]]},
        {"inputs": [{"text": {secret: secret}}]},
        {"dataframe_split": {"columns": [secret], "data": [["fine"]]}},
        {"dataframe_records": [{secret: 1}]},
        f'{{"inputs": ["{secret}"'.encode(),
        f'{{"inputs": {secret}}}'.encode(),
    ):
        status, answer = server.post(payload)
        assert status == 400 and secret not in json.dumps(answer)


def test_another_hosts_name_is_refused(server: Server) -> None:
    for host, status in (("evil.example", 421), (f"localhost:{server.port}", 200), ("[::1]", 200), ("127.0.0.1", 200)):
        assert server.request("GET", "/version", Host=host)[0] == status, host


def test_the_version_stands_in_each_answer(server: Server) -> None:
    status, answer = server.request("GET", "/version")
    assert (status, json.loads(answer)) == (
        200,
        {"model": "imdb-sentiment-sample", "version": "2", "follows": True},
    )
    for method, path, body in (
        ("POST", "/invocations", b'{"inputs": ["fine"]}'),
        ("POST", "/invocations", b"{"),
        ("GET", "/nothing", b""),
    ):
        assert server.ask(method, path, body, Content_Type="application/json")[1][VERSION] == "2"


def infer(server: Server, payload: Any, path: str = "/v2/models/imdb-sentiment-sample/infer") -> tuple[int, Any]:
    status, answer = server.request("POST", path, json.dumps(payload).encode(), Content_Type="application/json")
    return status, json.loads(answer)


def tensor(*texts: str, **other: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)} | other]}


def test_the_open_inference_protocol_gives_the_same_scores(server: Server) -> None:
    (logit, other) = server.logits({"inputs": TEXTS[:2]})
    for payload in (tensor(*TEXTS[:2]), tensor(*TEXTS[:2], shape=[2, 1], data=[[text] for text in TEXTS[:2]])):
        status, answer = infer(server, payload | {"id": "7"})
        assert (status, answer["model_name"], answer["model_version"]) == (200, "imdb-sentiment-sample", "2")
        assert answer["id"] == "7"
        outputs = {one["name"]: one for one in answer["outputs"]}
        assert outputs["logit"]["data"] == pytest.approx([logit, other], abs=1e-5)
        assert {name: (one["datatype"], one["shape"]) for name, one in outputs.items()} == {
            "label": ("BYTES", [2]),
            "probability": ("FP64", [2]),
            "logit": ("FP64", [2]),
            "sure": ("BOOL", [2]),
        }
    status, answer = infer(server, tensor("fine") | {"outputs": [{"name": "label"}]})
    assert [one["name"] for one in answer["outputs"]] == ["label"]
    assert infer(server, tensor("fine"), "/v2/models/imdb-sentiment-sample/versions/2/infer")[0] == 200


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, '"inputs"'),
        (tensor("fine", name="review"), "the name 'text'"),
        (tensor("fine", datatype="FP32"), '"BYTES"'),
        (tensor("fine", shape=[2]), r"shape must be [1] or [1, 1]"),
        (tensor("fine", data="fine"), "must be a list"),
        (tensor("fine", data=[["fine", "fine"]]), "lists of one text"),
        (tensor("fine", ""), "row 1: the text is blank"),
        (tensor("fine") | {"outputs": [{"name": "text"}]}, "outputs may name label"),
        (tensor("fine") | {"parameters": {"threshold": 0.1}}, "the parameters of the request may be"),
        (tensor("fine", parameters={"shuffle": True}), "the parameters of the tensor may be"),
        (tensor("fine", parameters={"binary_data_size": 9}), "binary_data_size"),
        (
            tensor("fine") | {"outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            "parameters of an output",
        ),
        (tensor("fine") | {"outputs": [{"name": "label"}, {"name": "label"}]}, "each once"),
        (tensor("fine") | {"id": 7}, "id must be a string"),
        (tensor("fine") | {"model": "x"}, "at most"),
    ],
)
def test_a_wrong_inference_request_is_a_400_that_says_why(server: Server, payload: Any, reason: str) -> None:
    status, answer = infer(server, payload)
    assert status == 400 and reason in answer["error"]


def test_texts_come_as_tritons_client_sends_them(server: Server) -> None:
    """Recorded of tritonclient 2.x: by default binary data behind the JSON, and no Content-Type either way."""
    texts = ["Fine film.", "Düll 🙂"]
    data = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)
    inputs = {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"inputs": [inputs], "parameters": {"binary_data_output": True}}).encode()
    path = f"/v2/models/{NAME}/infer"
    status, answer = server.request("POST", path, header + data, Inference_Header_Content_Length=str(len(header)))
    assert status == 200, answer
    assert json.loads(answer)["outputs"] == infer(server, tensor(*texts))[1]["outputs"]
    assert server.request("POST", path, json.dumps(tensor("fine")).encode())[0] == 200
    for size, wrong, reason in (
        (len(header), data[:-1], "binary_data_size"),
        (len(header), data[:-1] + b"\xff", "row 1: the text is not in UTF-8"),
        (len(header), b"\xff" + data[1:], "row 0: the text is longer than the data"),
        (-1, data, "must be a number of bytes"),
        (0, data, "not JSON"),
    ):
        status, answer = server.request("POST", path, header + wrong, Inference_Header_Content_Length=str(size))
        assert status == 400 and reason in json.loads(answer)["error"]


def test_other_models_and_versions_are_not_found(server: Server) -> None:
    for path in ("/v2/models/other", "/v2/models/imdb-sentiment-sample/versions/1"):
        assert server.request("GET", path)[0] == 404
        assert infer(server, tensor("fine"), f"{path}/infer")[0] == 404
    status, answer = server.request("GET", "/v2/models/imdb-sentiment-sample")
    assert status == 200 and json.loads(answer)["versions"] == ["2"]
    status, answer = server.request("GET", "/v2/models/imdb-sentiment-sample/ready")
    assert status == 200 and json.loads(answer)["ready"] is True


def test_a_broken_connection_and_a_request_that_is_no_http_leave_it_running(server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    for sent in (head + b'{"inputs": [', b"\0\1\2\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(sent)
    assert len(server.logits({"inputs": ["fine"]})) == 1


def test_metrics_count_what_is_served(registered: Registered) -> None:
    with in_this_process(registered.paths["mean"]) as (server, _):
        probabilities = [row["probability"] for row in server.post({"inputs": TEXTS})[1]["predictions"]]
        server.post({"inputs": [""]})
        server.request("GET", "/nothing")
        text = server.request("GET", "/metrics")[1].decode()
    for line in (
        'sentiment_requests_total{route="/invocations",status="200"} 1.0',
        'sentiment_requests_total{route="/invocations",status="400"} 1.0',
        'sentiment_requests_total{route="other",status="404"} 1.0',
        'sentiment_request_seconds_count{route="/invocations"} 2.0',
        "sentiment_queue_seconds_count 1.0",
        "sentiment_batch_rows_sum 6.0",
        'sentiment_rows_total{version="unnumbered"} 6.0',
        f'sentiment_probability_bucket{{le="0.5",version="unnumbered"}} {sum(p <= 0.5 for p in probabilities):.1f}',
        f'sentiment_text_characters_sum{{version="unnumbered"}} {sum(map(len, TEXTS)):.1f}',
        'sentiment_version{version="unnumbered"} 1.0',
    ):
        assert line in text.splitlines(), line
    assert "stays with you" not in text


def test_the_documented_metrics_are_those_there_are() -> None:
    rows = [line for line in (ROOT / "docs/serving.md").read_text().splitlines() if line.startswith("| `sentiment_")]
    names = {name for row in rows for name in re.findall(r"`(sentiment_\w+)", row)}
    described = re.findall(r"^# TYPE (\S+)", Metrics().text().decode(), re.MULTILINE)
    assert names == set(described)


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
    with start(registered.folder, "--port", str(server.port)) as second:
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert errors.startswith(f"error: --host 127.0.0.1 --port {server.port} cannot be listened on: Address already in")
    assert "Traceback" not in errors and len(errors.splitlines()) == 1


def test_an_unknown_model_is_reported_in_a_sentence(registered: Registered) -> None:
    with start(registered.folder, "--port", "0", "--model", "models:/imdb-sentiment-sample/99") as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors == f"error: there is no models:/{NAME}/99 in the registry\n"


def test_ctrl_c_ends_it_quietly(registered: Registered) -> None:
    with start(registered.folder, "--port", "0", "--model", registered.paths["last"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
