"""What one client sends, or does not, costs the others nothing that has no bound."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conftest import Registered
from served import Server, in_this_process, until

from pipeline.serving.server import limits

pytestmark = pytest.mark.e2e
HEADERS = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HALF = HEADERS + b'Content-Length: 100\r\n\r\n{"inputs": ["fi'


@contextmanager
def sent(server: Server, data: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data)
        yield connection


def received(connection: socket.socket) -> bytes:
    """Returns all that comes until the connection ends."""
    parts = []
    while part := connection.recv(2**16):
        parts.append(part)
    return b"".join(parts)


def test_a_request_that_is_not_there_in_full_is_closed(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_S", 0.5)
    with in_this_process(registered.paths["mean"]) as (server, service), ExitStack() as connections:
        halves = [b"", b"POST /invo", HEADERS, b"GET /ping HTTP/1.1\r\nHost: localhost\r\n", HALF] * 4
        for half, connection in [(half, connections.enter_context(sent(server, half))) for half in halves]:
            try:
                answer = received(connection)
            except ConnectionResetError:
                answer = b""
            assert answer == b"" if half != HALF else answer.startswith(b"HTTP/1.1 408 ")
        assert server.logits({"inputs": ["fine"]})
        assert (service.admission.requests, service.admission.bytes) == (0, 0)


def test_a_long_scoring_is_not_taken_for_a_late_request(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "READ_S", 0.5)
    texts = ["Long. " * 1000] * 1300
    with in_this_process(registered.paths["mean"]) as (server, _):
        pair = HEADERS + b'Content-Length: 20\r\n\r\n{"inputs": ["fine"]}'
        with sent(server, pair * 2) as connection:  # the second begins while the first is answered
            assert received(connection).count(b"HTTP/1.1 200 OK") == 2
        assert len(server.logits({"inputs": texts})) == len(texts)


def test_more_requests_than_are_served_at_once_are_told_to_come_again(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 3)
    with in_this_process(registered.paths["mean"]) as (server, service):
        with ExitStack() as connections:
            for _ in range(3):
                connections.enter_context(sent(server, HALF))
            until(lambda: service.admission.requests == 3)
            status, headers, answer = server.ask(
                "POST", "/invocations", b'{"inputs": ["fine"]}', Content_Type="application/json"
            )
            assert (status, headers["retry-after"]) == (503, "1")
            assert "try again later" in json.loads(answer)["message"]
            assert server.request("GET", "/ping")[0] == 200
        until(lambda: service.admission.requests == 0)  # they are gone
        assert server.logits({"inputs": ["fine"]})


def test_all_bodies_together_are_bounded(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BYTES", 1000)
    with in_this_process(registered.paths["mean"]) as (server, service):
        with sent(server, HEADERS + b"Content-Length: 2000\r\n\r\n" + b" " * 900):
            until(lambda: service.admission.bytes == 900)
            assert server.post({"inputs": ["x" * 200]})[0] == 503
        until(lambda: service.admission.bytes == 0)
        assert server.logits({"inputs": ["x" * 200]})


def test_what_cannot_be_answered_in_time_is_refused_at_once(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_this_process(registered.paths["mean"]) as (server, _):
        monkeypatch.setattr(limits, "ANSWER_S", 1.0)
        body = json.dumps({"inputs": ["word " * 2000] * 800}).encode()
        status, headers, answer = server.ask("POST", "/invocations", body, Content_Type="application/json")
        assert status == 503 and int(headers["retry-after"]) >= 1
        assert "would take" in json.loads(answer)["message"]
        assert server.metric("sentiment_batch_rows_count") == 0


def test_too_many_tokens_are_refused(registered: Registered) -> None:
    with in_this_process(registered.paths["mean"]) as (server, _):
        status, answer = server.post({"inputs": ["a " * 1000] * 4000})
        assert status == 413 and "tokens; send at most 2,500,000" in answer["message"]
        status, answer = server.post({"inputs": ["fine", "x" * (limits.MAX_TEXT_CHARACTERS + 1)]})
        assert status == 413 and "row 1: the text has 1,048,577 characters" in answer["message"]


def test_the_work_of_a_client_that_is_gone_is_not_done(registered: Registered) -> None:
    body = json.dumps({"inputs": ["word " * 400] * 4000}).encode()
    with in_this_process(registered.paths["last"]) as (server, service):
        with sent(server, HEADERS + b"Content-Length: %d\r\n\r\n" % len(body) + body) as connection:
            until(lambda: service.batcher.waiting > 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
        until(lambda: service.batcher.waiting == service.admission.requests == 0)
        assert server.metric("sentiment_batch_rows_sum") < 4000
        assert server.metric("sentiment_rows_total") == 0
        assert server.logits({"inputs": ["fine"]})
