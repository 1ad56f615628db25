"""A version is found without MLflow as MLflow finds it, in a local store and on a server."""

import base64
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Registered
from mlflow import MlflowClient
from store_fixtures import mlflow_server

from pipeline.project.errors import UsageError
from pipeline.registry import versions
from pipeline.serving import lookup
from pipeline.serving.lookup import NAMED, NoAnswer, Version, find

NAME = "imdb-sentiment-sample"
ABSENT = [f"models:/{NAME}/3", f"models:/{NAME}@nobody", "models:/other@champion", "models:/other/1"]
PRESENT = [f"models:/{NAME}/1", f"models:/{NAME}/2", f"models:/{NAME}@champion"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the two versions of `log_models`."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(ROOT / "params.yaml", folder)
    with mlflow_server(folder) as (address, _):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))}
        logged = subprocess.run(
            [sys.executable, str(ROOT / "tests/log_models.py")],
            cwd=folder,
            env=kept | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": address},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert logged.returncode == 0, logged.stderr[-3000:]
        yield address


def of_mlflow(store: str, uri: str) -> Version:
    client, named = MlflowClient(store), NAMED.fullmatch(uri)
    assert named
    name = named["name"]
    number = named["version"] or client.get_model_version_by_alias(name, named["alias"]).version
    location = client.get_model_version_download_uri(name, number).removeprefix("file://")
    return Version(name, str(number), location, client.get_model_version(name, number).tags[versions.FILES])


@pytest.mark.parametrize("uri", PRESENT)
def test_a_local_store_says_what_mlflows_client_says(
    registered: Registered, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered.store)
    assert find(uri) == of_mlflow(registered.store, uri)


@pytest.mark.e2e
@pytest.mark.parametrize("uri", PRESENT)
def test_a_server_says_what_mlflows_client_says(server: str, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{server}/")
    assert find(uri) == of_mlflow(server, uri)


@pytest.mark.e2e
@pytest.mark.parametrize("uri", ABSENT)
def test_what_is_not_there_is_a_wrong_name_and_no_silence(
    registered: Registered, server: str, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    for store in (registered.store, server):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        with pytest.raises(UsageError, match="there is no models:/"):
            find(uri)


@pytest.mark.e2e
def test_any_other_store_is_asked_by_mlflow_in_a_process_of_its_own(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here of a SQLite store by the name of its driver, as a PostgreSQL store has one too."""
    other = registered.store.replace("sqlite:", "sqlite+pysqlite:")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    found = find(PRESENT[2])
    assert (found.number, found.sha256) == ("2", of_mlflow(registered.store, PRESENT[2]).sha256)
    with pytest.raises(UsageError, match="there is no models:/"):
        find(ABSENT[1])
    monkeypatch.setattr(lookup, "find_spec", lambda name: None)
    with pytest.raises(NoAnswer, match="MLflow is needed here, and is not installed"):
        find(PRESENT[2])


def test_a_project_that_was_moved_reads_its_files_where_they_are(
    registered: Registered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(registered.folder, moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved}/mlflow.db")
    location = Path(find(PRESENT[2]).location)
    assert location.is_relative_to(moved) and versions.model_files.digest(location) == find(PRESENT[2]).sha256


def test_a_store_that_cannot_be_read_gives_no_answer_and_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    with pytest.raises(NoAnswer, match="there is no registry at"):
        find(PRESENT[2])
    assert not file.exists()
    for content in (b"", b"no database at all, but a text that is longer than a page's header" * 10):
        file.write_bytes(content)
        with pytest.raises(NoAnswer, match="cannot be read"):
            find(PRESENT[2])
        assert file.read_bytes() == content


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "a page": (200, {"Content-Type": "text/html"}, b"<html>It works!</html>"),
    "JSON of another service": (200, {}, b'{"status": "ok"}'),
    "a list": (200, {}, b"[]"),
    "refused": (401, {}, b"You are not authenticated."),
    "forbidden": (403, {}, b'{"error_code": "PERMISSION_DENIED"}'),
    "not there": (404, {}, b'{"error_code": "ENDPOINT_NOT_FOUND"}'),
    "broken": (500, {}, b"null"),
}


@contextmanager
def answering(answer: tuple[int, dict[str, str], bytes], delay: float = 0) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives every request this answer; yields its address and the headers of the requests."""
    seen: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers)
            if delay:
                ended.wait(delay)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    ended = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", seen
        finally:
            ended.set()
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_server_that_is_none_of_mlflows_or_refuses_gives_no_answer(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with answering(ANSWERS[kind]) as (address, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(NoAnswer, match="the MLflow tracking store http"):
            find(PRESENT[2])


def test_a_server_that_keeps_still_or_is_away_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    begun = time.monotonic()
    with answering(ANSWERS["a page"], delay=60) as (address, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(NoAnswer, match="timed out"):
            find(PRESENT[2])
    with pytest.raises(NoAnswer, match="refused"):  # nobody listens there any more
        find(PRESENT[2])
    assert time.monotonic() - begun < 30


def test_credentials_are_sent_as_mlflow_sends_them_and_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(ANSWERS["refused"]) as (address, seen),
        answering((302, {"Location": address}, b"")) as (first, sent),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", first)
        for variables, expected in (
            ({"USERNAME": "ann", "PASSWORD": "pä:ss"}, "Basic " + base64.b64encode("ann:pä:ss".encode()).decode()),
            ({"TOKEN": "secret"}, "Bearer secret"),
        ):
            with monkeypatch.context() as patch:
                for name, value in variables.items():
                    patch.setenv(f"MLFLOW_TRACKING_{name}", value)
                with pytest.raises(NoAnswer) as silent:
                    find(PRESENT[2])
            assert sent[-1]["Authorization"] == expected
            assert "secret" not in str(silent.value) and "pä:ss" not in str(silent.value)
        assert [headers["Authorization"] for headers in seen] == [None, None]
