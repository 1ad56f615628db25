"""Beyond this machine the server is exposed on purpose only."""

from pathlib import Path

import pytest
from conftest import Registered
from served import in_this_process, start

TOKEN = "correct-horse-battery-staple"
ASKED = {"Content_Type": "application/json"}
BODY = b'{"inputs": ["fine"]}'


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_it_asks_for_a_token_or_a_word(registered: Registered, host: str) -> None:
    code, errors = refused(registered, "--host", host)
    assert (
        code == 2
        and errors == f"error: --host {host} is more than this machine: name a --token-file, or say --no-auth\n"
    )


@pytest.mark.parametrize("content", ["", "short", "two words of some length", "ümlauts-of-some-length", None])
def test_a_token_file_that_cannot_be_used_is_refused(
    registered: Registered, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    code, errors = refused(registered, "--token-file", str(file))
    assert code == 2 and errors.startswith(f"error: --token-file {file} ") and len(errors.splitlines()) == 1


def refused(registered: Registered, *options: str) -> tuple[int, str]:
    with start(registered.folder, "--port", "0", *options) as process:
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_without_the_token_nothing_but_a_probe_is_answered(registered: Registered) -> None:
    with in_this_process(registered.paths["mean"], token=TOKEN) as (server, _):
        for path in ("/ping", "/health", "/v2/health/live", "/v2/health/ready"):
            assert server.request("GET", path)[0] == 200
        for path in ("/version", "/metrics", "/v2", "/v2/models/model", "/ping/", "/nothing"):
            assert server.request("GET", path)[0] == 401, path
        for given in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer é"):
            status, headers, answer = server.ask("POST", "/invocations", BODY, Authorization=given, **ASKED)
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), given
            assert TOKEN not in answer.decode()
        for given in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
            assert server.request("POST", "/invocations", BODY, Authorization=given, **ASKED)[0] == 200


def test_another_name_is_refused_unless_it_is_allowed(registered: Registered) -> None:
    with in_this_process(registered.paths["mean"], hosts=["reviews.example", "localhost"]) as (server, _):
        for host, status in {
            "evil.example": 421,
            "reviews.example.evil.example": 421,
            "127.0.0.1.evil.example": 421,
            "": 421,
            "Reviews.Example:80": 200,
            "localhost": 200,
            "127.0.0.1:5001": 200,
            "[::1]:5001": 200,
        }.items():
            assert server.request("GET", "/version", Host=host)[0] == status, host
    with in_this_process(registered.paths["mean"], hosts=["*"]) as (server, _):
        assert server.request("GET", "/version", Host="evil.example")[0] == 200
