"""Somebody is notified, with retries; the secret URL is nowhere, and nothing of it fails the job."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.retraining import notifications


class Webhook:
    """A server on loopback that answers with the given statuses, one a request, then 200; it keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.bodies: list[dict] = []
        self.paths: list[str] = []
        waiting = list(statuses)
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                webhook.paths.append(self.path)
                self.send_response(waiting.pop(0) if waiting else 200)
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.bodies.append(json.loads(body))
                self.send_response(waiting.pop(0) if waiting else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def webhook(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    made = Webhook(*getattr(request, "param", ()))
    monkeypatch.setenv(notifications.URL, made.url)
    yield made
    made.server.shutdown()
    made.server.server_close()


def no_wait(_: float) -> None: ...


def test_a_webhook_gets_slacks_json(webhook: Webhook) -> None:
    assert notifications.notify("PROMOTED", "version 1 → 2", wait=no_wait) == []
    assert webhook.bodies == [{"text": "version 1 → 2"}]


def test_the_url_may_stand_in_a_file(webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text(f"{webhook.url}\n")
    monkeypatch.delenv(notifications.URL)
    monkeypatch.setenv(notifications.URL_FILE, str(tmp_path / "url"))
    assert notifications.notify("FAILED", "why", wait=no_wait) == []
    assert len(webhook.bodies) == 1


@pytest.mark.parametrize("webhook", [(503, 429)], indirect=True)
def test_what_may_pass_is_tried_again(webhook: Webhook) -> None:
    waits: list[float] = []
    assert notifications.notify("FAILED", "why", wait=waits.append) == []
    assert len(webhook.bodies) == 3 and waits == list(notifications.WAITS_S)


@pytest.mark.parametrize(("webhook", "attempts"), [((500,) * 9, 3), ((403,), 1)], indirect=["webhook"])
def test_a_refusal_is_reported_without_the_secret(webhook: Webhook, attempts: int) -> None:
    (failure,) = notifications.notify("FAILED", "why", wait=no_wait)
    assert "HTTP status" in failure and "secret" not in failure and len(webhook.bodies) == attempts


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/secret", "no url, secret", "http://secret host/", "unknown://secret", "http://[secret"]
)
def test_a_url_that_leads_nowhere_is_reported_without_the_secret(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notifications.URL, url)
    (failure,) = notifications.notify("FAILED", "why", wait=no_wait)
    assert failure.startswith("the webhook was not notified") and "secret" not in failure


def test_a_missing_secret_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notifications.URL_FILE, str(tmp_path / "url"))
    assert notifications.notify("FAILED", "why") == ["the webhook was not notified: No such file or directory"]


def test_a_command_gets_the_message_and_the_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notifications.COMMAND, f'(echo "$SENTIMENT_OUTCOME"; cat) > {tmp_path / "notified"}')
    assert notifications.notify("REJECTED", "not better") == []
    assert (tmp_path / "notified").read_text() == "REJECTED\nnot better"
    monkeypatch.setenv(notifications.COMMAND, "exit 7")
    assert notifications.notify("REJECTED", "not better") == [f"the command of {notifications.COMMAND} ended with 7"]


@pytest.mark.parametrize("webhook", [(503,)], indirect=True)
def test_a_dead_mans_switch_is_asked_for_by_the_state_of_the_run(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notifications.ping("/start") == [] and webhook.paths == []  # there is none
    monkeypatch.setenv(notifications.PING_URL, f"{webhook.url}/?key=1")
    for state in ("/start", "", "/fail"):
        assert notifications.ping(state, wait=no_wait) == []
    once = [f"/secret-token{state}?key=1" for state in ("/start", "", "/fail")]
    assert webhook.paths == [once[0], *once]  # the first attempt was answered with 503


def test_a_dead_mans_switch_that_is_not_reached_is_reported_without_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:9/secret", "no url, secret", "unknown://secret"):
        monkeypatch.setenv(notifications.PING_URL, url)
        (failure,) = notifications.ping(wait=no_wait)
        assert failure.startswith("the dead-man's switch was not reached") and "secret" not in failure


def test_without_anybody_to_notify_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (notifications.URL, notifications.URL_FILE, notifications.COMMAND):
        monkeypatch.delenv(name, raising=False)
    assert notifications.notify("FAILED", "why") == []
