"""The server serves the champion of the registry, whichever it is by now, and says so in each answer."""

import json
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, Registered
from mlflow import MlflowClient
from served import NAME, VERSION, Server, announced, project_copy, start, until

from pipeline.serving.server.following import Following
from pipeline.serving.server.metrics import Metrics

CHAMPION = "champion"
CLIENTS, CHANGES = 64, 20
MANY_MB = 10.0
TEXTS = [f"A film of {n} minutes that stays with you for days." for n in range(CLIENTS)]


@pytest.fixture
def folder(registered: Registered, tmp_path: Path) -> Path:
    """A project with two versions, of which the second is champion."""
    return project_copy(registered, tmp_path / "project")


@pytest.fixture
def client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def following(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Following, Metrics]]:
    """Makes what follows the champion in `folder`."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")

    def made(uri: str | None = None, *, pinned: bool = False) -> tuple[Following, Metrics]:
        metrics = Metrics()
        return Following(uri, metrics, pinned=pinned, poll_s=1), metrics

    return made


def value(metrics: Metrics, name: str) -> float:
    (found,) = (line.split()[-1] for line in metrics.text().decode().splitlines() if line.startswith(f"{name} "))
    return float(found)


@pytest.mark.e2e
def test_under_load_each_promotion_is_served_and_no_request_fails(folder: Path, client: MlflowClient) -> None:
    with start(folder, "--port", "0", "--poll", "0.1") as process:
        server = announced(process)
        expected = {}
        for version in ("2", "1"):
            promote(client, server, version)
            expected[version] = [server.logits({"inputs": [text]})[0] for text in TEXTS]
        ended, memory = threading.Event(), []

        def ask(text: str) -> list[tuple[int, str, float]]:
            found = []
            while not ended.is_set():
                body = json.dumps({"inputs": [text]}).encode()
                status, headers, answer = server.ask("POST", "/invocations", body, Content_Type="application/json")
                found.append((status, headers[VERSION], json.loads(answer)["predictions"][0]["logit"]))
            return found

        with ThreadPoolExecutor(CLIENTS) as pool:
            asking = [pool.submit(ask, text) for text in TEXTS]
            try:
                for change in range(CHANGES):
                    promote(client, server, "21"[change % 2])
                    memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            finally:
                ended.set()
        process.terminate()
    seen = set()
    for number, asked in enumerate(asking):
        for status, version, logit in asked.result():
            assert status == 200
            assert logit == pytest.approx(expected[version][number], abs=1e-5)
            seen.add(version)
    assert seen == {"1", "2"}
    assert memory[-1] < memory[CHANGES // 2] + MANY_MB  # a version that is not served any more is forgotten


def promote(client: MlflowClient, server: Server, version: str) -> None:
    """Makes `version` champion, and returns when it is served; pytest's own limit is the test's."""
    client.set_registered_model_alias(NAME, CHAMPION, version)
    until(lambda: json.loads(server.request("GET", "/version")[1])["version"] == version)


def test_a_pinned_version_stays(client: MlflowClient, following: Callable[..., tuple[Following, Metrics]]) -> None:
    assert not following(pinned=True)[0].follows
    assert not following(f"models:/{NAME}/1")[0].follows
    followed, _ = following()
    assert followed.follows and followed.served.version == "2"


def test_a_registry_that_is_away_changes_nothing_that_is_served(
    folder: Path,
    client: MlflowClient,
    following: Callable[..., tuple[Following, Metrics]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    followed, metrics = following()
    before = followed.served
    store = folder / "mlflow.db"
    store.rename(folder / "away")
    for _ in range(3):
        followed.look()
    assert followed.served is before
    assert value(metrics, "sentiment_registry_reachable") == 0
    assert capsys.readouterr().err.count("the registry cannot be asked") == 1  # said once, not at every look
    store.write_bytes(b"no database at all")
    followed.look()
    assert followed.served is before
    store.unlink()
    (folder / "away").rename(store)
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    followed.look()
    assert followed.served.version == "1"
    assert value(metrics, "sentiment_registry_reachable") == 1


def test_a_champion_that_cannot_be_loaded_changes_nothing_that_is_served(
    tmp_path: Path,
    client: MlflowClient,
    following: Callable[..., tuple[Following, Metrics]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    followed, metrics = following()
    with tarfile.open(ROOT / "tests/registry/version_of_3bf26bf.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    old = next(tmp_path.rglob("MLmodel")).parent
    number = client.create_model_version(NAME, str(old)).version
    client.set_registered_model_alias(NAME, CHAMPION, str(number))
    followed.look()
    assert followed.served.version == "2"
    assert value(metrics, "sentiment_champion_served") == 0 and value(metrics, "sentiment_registry_reachable") == 1
    told = capsys.readouterr().err
    assert f"version {number} cannot be served" in told and "version 2 is served on" in told
    client.delete_registered_model_alias(NAME, CHAMPION)
    followed.look()
    assert followed.served.version == "2" and value(metrics, "sentiment_champion_served") == 0
    client.set_registered_model_alias(NAME, CHAMPION, "2")
    followed.look()
    assert value(metrics, "sentiment_champion_served") == 1


def test_a_registry_that_is_away_at_the_start_leaves_what_was_named_last(
    folder: Path, following: Callable[..., tuple[Following, Metrics]]
) -> None:
    following()
    (folder / "mlflow.db").rename(folder / "away")
    followed, metrics = following()
    assert followed.served.version == "2"
    assert value(metrics, "sentiment_registry_reachable") == 0
