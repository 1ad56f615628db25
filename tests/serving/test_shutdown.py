"""A server that ends says first that it is about to, and answers what it has taken."""

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Registered
from served import Server, announced, start, until

pytestmark = pytest.mark.e2e
CLIENTS = 16


def ready(server: Server) -> bool:
    return server.request("GET", "/v2/health/ready")[0] == 200


def test_under_load_no_request_is_lost(registered: Registered) -> None:
    with start(registered.folder, "--port", "0", "--drain", "2") as process, ThreadPoolExecutor(CLIENTS + 1) as clients:
        server = announced(process)
        begun = threading.Barrier(CLIENTS + 1)

        def ask(number: int) -> int:
            """Asks for as long as a load balancer would: until the server is not ready any more."""
            answered = 0
            body = json.dumps({"inputs": [f"Film {number}, and its second half."] * 5})
            while True:
                status, headers, answer = server.ask(
                    "POST", "/invocations", body.encode(), Content_Type="application/json"
                )
                assert (status, len(json.loads(answer)["predictions"])) == (200, 5)
                answered += 1
                if answered == 5:
                    begun.wait()
                if headers["connection"] == "close" or not ready(server):
                    return answered

        asking = [clients.submit(ask, number) for number in range(CLIENTS)]
        begun.wait()
        many = ["word " * 400] * 3000
        large = clients.submit(server.logits, {"inputs": many})
        until(lambda: server.metric("sentiment_batch_rows_sum") > 5 * 5 * CLIENTS + 1000)
        process.send_signal(signal.SIGTERM)
        assert all(task.result() > 5 for task in asking)
        assert len(large.result()) == len(many)
        assert process.wait(60) == 0
        assert process.stderr and process.stderr.read() == ""


def test_while_it_drains_it_lives_and_is_not_ready(registered: Registered) -> None:
    with start(registered.folder, "--port", "0", "--drain", "30") as process:
        server = announced(process)
        assert ready(server)
        process.send_signal(signal.SIGTERM)
        until(lambda: not ready(server))
        for path, status in {"/ping": 503, "/health": 503, "/v2/health/live": 200, "/version": 200}.items():
            assert server.request("GET", path)[0] == status, path
        assert server.ask("GET", "/version")[1]["connection"] == "close"
        assert len(server.logits({"inputs": ["fine"]})) == 1
        process.send_signal(signal.SIGTERM)  # whoever asks twice means now
        assert process.wait(20) == 0
