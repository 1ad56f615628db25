"""Requests that mean harm get an answer that says so, or none; those of others are answered as before."""

import random
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, Registered
from served import Server, announced, in_this_process, start

from pipeline.served_model.loading import load_scorer
from pipeline.serving import pulled

pytestmark = pytest.mark.e2e
REQUESTS, CLIENTS, TEXTS = 1000, 64, 10_000
BODY = b'{"inputs": ["fine"]}'
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
MANY_MB = 60.0


def post(body: bytes, *headers: bytes, length: int | None = None, path: bytes = b"/invocations") -> bytes:
    size = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (path, HOST, b"".join(headers), size, body)


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
BUILT = [  # what each is about stands before it
    *(
        post(BODY, JSON, b"%s\r\n" % line)
        for line in (b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: +20")
    ),
    *(
        b"POST /invocations HTTP/1.1\r\n%s%s%s\r\n\r\n%s" % (HOST, JSON, lengths, b"0\r\n\r\n" + SMUGGLED)
        for lengths in (
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding:\x0bchunked",
            b"Content-Length: 0x05",
            b"Content-Length: 5, 6",
        )
    ),
    # chunks
    *(
        b"POST /invocations HTTP/1.1\r\n%s%sTransfer-Encoding: chunked\r\n\r\n%s" % (HOST, JSON, chunks)
        for chunks in (b"zz\r\n", b"-1\r\n", b"ffffffffffffffffffff\r\n", b"14\r\n" + BODY, b"1;" + b"x" * 70_000)
    ),
    # paths
    *(
        post(BODY, JSON, path=path)
        for path in (
            b"/invocations%0a",
            b"/invocations%00",
            b"/invocations/",
            b"//invocations",
            b"/./invocations",
            b"/INVOCATIONS",
            b"/invocations;x",
            b"/%2e%2e/etc/passwd",
            b"/invocations%E2%80%A8",
            b"/%ff",
            b"/caf\xe9",
            b"*",
            b"http://x/invocations",
            b"/v2/models/model%2finfer",
            b"/v2/models/%0a/infer",
            b"/v2/models//infer",
            b"/" + b"a" * 60_000,
        )
    ),
    # what is no HTTP
    b"\r\n\r\n\r\n",
    b"\0" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/3.0\r\n\r\n",
    b"GET /\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /ping HTTP/1.1\r\n\r\n",
    b"GET /ping HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"GET /ping HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    b"GET /ping HTTP/1.1\r\n" + HOST + b"X: \0\r\n\r\n",
    b"GET /ping HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET /ping HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 20_000,
    b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"TRACE /ping HTTP/1.1\r\n" + HOST + b"\r\n",
    # codings
    *(post(BODY, JSON, b"Content-Encoding: %s\r\n" % coding) for coding in (b"gzip", b"br", b"deflate", b"x" * 1000)),
    *(
        post(BODY, b"Content-Type: %s\r\n" % kind)
        for kind in (b"text/csv", b"application/json; charset=utf-16", b"\xff", b"")
    ),
    post(BODY),
    # JSON
    *(
        post(body, JSON)
        for body in (
            b"[" * 100_000,
            b'{"inputs":' * 50_000,
            b"\xff\xfe{",
            b'{"inputs": [' + b"9" * 10_000 + b"]}",
            b"NaN",
            b"null",
            b"1e999",
            b'{"inputs": ["\\ud800"]}',
            b'{"inputs": ["fine"], "inputs": ["dull"]}',
            b'{"inputs": [NaN, null, true, {}]}',
            b'{"inputs": ["fine"], "params": {"x": 1}}',
            b'{"inputs": ["\\u0000\\u202e"]}',
            b'{"inputs": [' + b'"",' * 20_000 + b'""]}',
            b'{"inputs": [' + b"[]," * 500_000 + b"[]]}",
            b'{"dataframe_split": {"columns": ["text"], "data": [[]]}}',
            b"{" * 7_000_000,
            b'{"inputs": ["' + b"a " * 2_000_000 + b'"]}',
        )
    ),
    # lengths
    post(BODY, JSON, length=10**12),
    post(BODY, JSON, length=2**23 + 1),
    post(BODY, JSON, length=10),
    post(BODY, JSON, b"Expect: 100-continue\r\n"),
    post(BODY, JSON, b"Inference-Header-Content-Length: 5\r\n", path=b"/v2/models/model/infer"),
    post(
        b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":4}}]}\xff\xff\xff\xff',
        JSON,
        b"Inference-Header-Content-Length: 95\r\n",
        path=b"/v2/models/model/infer",
    ),
]


def hostile(rng: random.Random) -> Iterator[bytes]:
    """Yields what stands above, and changed versions of it: bytes lost, doubled, exchanged, cut."""
    yield from BUILT
    while True:
        data = bytearray(rng.choice(BUILT)[:5000])
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[place] = rng.randrange(256)
                case 1:
                    del data[place : place + rng.randint(1, 8)]
                case 2:
                    data[place:place] = data[place : place + rng.randint(1, 40)]
                case _:
                    data[place:place] = rng.choice((b"\r\n", b"\0", b":", b"%0d%0a", b"\xe2\x80\xa8", b'"', b"{"))
            if not data:
                break
        yield bytes(data)


def statuses(server: Server, data: bytes, way: int) -> list[int]:
    """Sends `data` whole, byte by byte at its beginning, or leaves without waiting; returns the statuses that came."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        try:
            if way == 1:
                for place in range(min(len(data), 40)):
                    connection.sendall(data[place : place + 1])
                data = data[40:]
            connection.sendall(data)
            if way == 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return []
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(2**16):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            return []  # it was closed while there was more to send
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert lines or not answer
    return [int(line.split()[1]) for line in lines]


def test_a_thousand_hostile_requests_leave_it_as_it_was(registered: Registered, tmp_path: Path) -> None:
    texts = ["A film that stays with you for days.", "Dull.", "🙂"]
    with (tmp_path / "errors").open("w") as errors, start(registered.folder, "--port", "0", errors=errors) as process:
        server = announced(process)
        before = server.logits({"inputs": texts})
        requests = hostile(random.Random(0))
        ways = random.Random(1)
        with ThreadPoolExecutor(8) as clients:
            first = [clients.submit(statuses, server, next(requests), 0) for _ in BUILT]
            found = [task.result() for task in first]
            held = memory_mb(process.pid)
            more = [
                clients.submit(statuses, server, next(requests), ways.randrange(3))
                for _ in range(REQUESTS - len(BUILT))
            ]
            found += [task.result() for task in more]
        assert len(found) == REQUESTS
        wrong = [status for answers in found for status in answers if status >= 500 and status != 503]
        assert not wrong
        assert all(200 not in answers for answers, data in zip(found, BUILT, strict=False) if SMUGGLED in data)
        assert server.logits({"inputs": texts}) == before
        assert memory_mb(process.pid) < held + MANY_MB
        process.terminate()
        assert process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "errors").read_text()


def memory_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


def test_each_of_many_texts_gets_its_own_scores(registered: Registered) -> None:
    rng = random.Random(0)
    words = (ROOT / "README.md").read_text().split()
    texts = [f"{number} {' '.join(rng.choices(words, k=rng.randint(1, 30)))}" for number in range(TEXTS)]
    rng.shuffle(texts)
    served = pulled.served_model(Path(registered.paths["mean"]))
    assert served
    expected = load_scorer(served).score(texts).logit
    requests, start_at = [], 0
    while start_at < TEXTS:
        requests.append(slice(start_at, start_at := start_at + rng.randint(1, 20)))
    with in_this_process(registered.paths["mean"]) as (server, _), ThreadPoolExecutor(CLIENTS) as clients:
        together = threading.Barrier(CLIENTS)

        def ask(number: int) -> list[float]:
            if number < CLIENTS:
                together.wait()
            return server.logits({"inputs": texts[requests[number]]})

        found = [logit for logits in clients.map(ask, range(len(requests))) for logit in logits]
        batches = server.metric("sentiment_batch_rows_count")
    assert np.abs(np.array(found) - expected).max() < 1e-5
    assert batches < len(requests) / 2  # they were scored together
