"""Decisions in one MLflow store are taken once and in order, whoever takes them at once, and however that is cut short;
and whatever is changed in the store afterwards shows."""

import http.client
import http.server
import json
import random
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import track_in, write_sample_params
from mlflow import MlflowClient
from store_fixtures import mlflow_server
from warm import Done, Warm

from pipeline.project import paths
from pipeline.project.errors import PipelineError
from pipeline.registry import champion, decisions, verification
from pipeline.tracking import runs

if TYPE_CHECKING:
    from pipeline.registry.decisions import Entry, History

NAME = "model"
APPEND, ALIAS, TAG = "POST model-versions/create", "POST registered-models/alias", "POST model-versions/set-tag"
ROUNDS = 16


def register(client: MlflowClient, count: int = 3) -> None:
    """Registers `count` versions of a model that is one small file each; none is champion."""
    if client.get_experiment_by_name(runs.EXPERIMENT) is None:
        client.create_experiment(runs.EXPERIMENT)
    client.create_registered_model(NAME)
    for number in range(count):
        run = client.create_run(runs.experiment_id(client)).info.run_id
        client.log_text(run, f"version {number}", "model/MLmodel")
        client.set_terminated(run)
        client.create_model_version(NAME, f"runs:/{run}/model", run)


def alias(client: MlflowClient) -> str | None:
    number = client.get_registered_model(NAME).aliases.get("champion")
    return number and str(number)


# On a server, by two clones.


@dataclass(frozen=True)
class Server:
    """An MLflow server and a client of it; `clones` are folders, each with a process that runs commands there."""

    port: int
    client: MlflowClient
    clones: list[tuple[Path, Warm]]

    def history(self) -> "History":
        return decisions.read(self.client, NAME)

    def run(self, clone: int, *arguments: str, port: int | None = None, **how: str | int | None) -> Done:
        """Runs `sentiment registry …` in a clone."""
        folder, warm = self.clones[clone]
        where = f"http://127.0.0.1:{port or self.port}"
        return warm.run(folder, "registry", *arguments, "--name", NAME, MLFLOW_TRACKING_URI=where, **how)  # type: ignore[arg-type]

    def require_settled(self) -> "History":
        """The last decision is applied, the alias follows it, and the history is intact."""
        history = self.history()
        assert history.problems == [] and history.applied
        assert alias(self.client) == history.entries[-1]["to"]
        return history


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    clones = [(tmp_path_factory.mktemp("clone"), Warm()) for _ in range(2)]
    for clone, _ in clones:
        write_sample_params(clone)
    try:
        with mlflow_server(tmp_path_factory.mktemp("server"), workers=2) as (address, _):
            client = MlflowClient(address)
            register(client)
            made = Server(int(address.rpartition(":")[2]), client, clones)
            first = made.run(0, "promote", "1", "--reason", "first")
            assert first.code == 0, first.out
            yield made
    finally:
        for _, warm in clones:
            warm.end()


@pytest.mark.e2e
def test_two_clones_that_decide_at_once_lose_nothing_wherever_they_are_killed(server: Server) -> None:
    dice = random.Random(0)
    points: list[dict[str, str | int | None]] = [{}, {"kill_at": APPEND}, {"kill_at": ALIAS}, {"kill_at": TAG}]
    with ThreadPoolExecutor(2) as both:
        for number in range(ROUNDS):
            before = server.history().entries
            how = [points[number % 4], dice.choice([points[number // 4], {"kill_after": dice.randint(1, 25)}])]
            work = [
                both.submit(
                    server.run, clone, "promote", dice.choice("123"), "--reason", f"{number}.{clone}", **how[clone]
                )
                for clone in (0, 1)
            ]
            ended = [one.result() for one in work]
            for done in ended:
                assert done.code in (0, -signal.SIGKILL), done.out
            last = server.run(number % 2, "promote", "123"[number % 3], "--reason", f"{number}.last")
            assert last.code == 0, last.out
            history = server.require_settled()
            assert history.entries[: len(before)] == before
            assert history.entries[-1]["to"] == "123"[number % 3]
            reasons = [entry["reason"] for entry in history.entries]
            for clone, done in enumerate(ended):
                promoted = done.code == 0 and "promoted: " in done.out
                assert reasons.count(f"{number}.{clone}") in ((1,) if promoted else (0, 1)), done.out
    assert server.run(0, "history").code == 0


@pytest.mark.e2e
@pytest.mark.parametrize("fate", [signal.SIGCONT, signal.SIGKILL])
def test_a_writer_that_was_stopped_before_its_alias_while_another_promoted(
    server: Server, fate: signal.Signals
) -> None:
    assert server.run(0, "promote", "1", "--reason", "begin").code == 0
    with ThreadPoolExecutor(1) as beside:
        slow = beside.submit(server.run, 0, "promote", "2", "--reason", "slow", stop_before=ALIAS)
        process = server.clones[0][1].stopped()
        assert alias(server.client) == "1" and server.history().entries[-1]["to"] == "2"
        quick = server.run(1, "promote", "3", "--reason", "quick")
        assert quick.code == 0, quick.out
        assert server.require_settled().entries[-1]["to"] == "3"
        process.send_signal(signal.SIGKILL if fate == signal.SIGKILL else signal.SIGCONT)
        assert slow.result().code == (-signal.SIGKILL if fate == signal.SIGKILL else 0)
    history = server.require_settled()
    assert [(entry["reason"], entry["to"]) for entry in history.entries[-2:]] == [("slow", "2"), ("quick", "3")]


@pytest.mark.e2e
def test_a_decision_that_was_cut_short_is_told_and_completed_by_whoever_comes_next(server: Server) -> None:
    assert server.run(0, "promote", "1", "--reason", "begin").code == 0
    assert server.run(0, "promote", "2", "--reason", "cut short", kill_at=APPEND).code == -signal.SIGKILL
    assert "was not completed" in server.run(1, "verify").out
    assert server.run(1, "rollback", "--reason", "worse").code == 0
    history = server.require_settled()
    assert [entry["to"] for entry in history.entries[-2:]] == ["2", "1"]


@pytest.mark.e2e
@pytest.mark.parametrize("retries", ["0", "1"])
def test_an_answer_that_is_lost_on_the_way_loses_no_decision_and_makes_no_second_one(
    server: Server, retries: str
) -> None:
    assert server.run(0, "promote", "1", "--reason", "begin").code == 0
    before = server.history()
    with losing_an_answer(server.port, "/model-versions/create") as port:
        done = server.run(0, "promote", "2", "--reason", "unheard", port=port, MLFLOW_HTTP_REQUEST_MAX_RETRIES=retries)
    assert done.code == 0 and "promoted: version 1 → 2" in done.out, done.out
    after = server.require_settled()
    assert [entry["reason"] for entry in after.entries[len(before.entries) :]] == ["unheard"]
    assert after.last == before.last + 1 + int(retries)  # what was sent twice is void


class losing_an_answer:
    """A proxy of the server at `port`, at a port of its own, that drops the answer to the first POST to `path`."""

    def __init__(self, port: int, path: str) -> None:
        lost: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream = http.client.HTTPConnection("127.0.0.1", port)
                upstream.request(self.command, self.path, body, dict(self.headers) | {"Host": f"127.0.0.1:{port}"})
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                if self.command == "POST" and self.path.endswith(path) and not lost:
                    lost.append(self.path)
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.getheader("Content-Type", ""))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def log_message(self, *_: object) -> None:
                pass

        self.proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> int:
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        return self.proxy.server_address[1]

    def __exit__(self, *_: object) -> None:
        self.proxy.shutdown()
        self.proxy.server_close()


# In a SQLite store, by this process.


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a store with three versions and no decision (`before.db`), one in which they were promoted one after the
    other (`promoted.db`), and the versions' files."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        track_in(folder, patch)
        runs.connect.cache_clear()
        register(runs.connect())
        shutil.copy("mlflow.db", "before.db")
        for number in "123":
            champion.promote(NAME, number, f"because {number}")
        shutil.copy("mlflow.db", "promoted.db")
    return folder


def opened(store: Path, project: Path) -> Iterator[MlflowClient]:
    shutil.copy(store, project / "mlflow.db")
    runs.connect.cache_clear()
    yield runs.connect()
    runs.connect.cache_clear()


@pytest.fixture
def client(stores: Path, project: Path) -> Iterator[MlflowClient]:
    """A client of a store in which versions 1, 2 and 3 were promoted one after the other."""
    yield from opened(stores / "promoted.db", project)


def history(client: MlflowClient) -> "History":
    return decisions.read(client, NAME)


def problems(client: MlflowClient) -> list[str]:
    """What `verify` says of the history."""
    return [problem.what for problem in verification.history_problems(client, NAME)]


def test_a_history_is_a_chain_of_versions_of_a_model_of_its_own(client: MlflowClient) -> None:
    entries = history(client).entries
    assert [(entry["seq"], entry["slot"], entry["from"], entry["to"]) for entry in entries] == [
        (1, 1, None, "1"),
        (2, 2, "1", "2"),
        (3, 3, "2", "3"),
    ]
    assert [entry["previous"] for entry in entries] == [decisions.GENESIS, *(entry["hash"] for entry in entries[:-1])]
    assert {"when", "who", "reason", "git_commit", "dvc_lock_sha256", "registered_model"} <= set(entries[0])
    assert "@" in entries[0]["who"] and entries[0]["when"].endswith("+00:00")
    assert problems(client) == [] and alias(client) == "3"


def test_an_entry_may_be_longer_than_a_tag_and_hold_any_text(client: MlflowClient) -> None:
    reason = "a\nb — “ü”\udcff" + 120_000 * "long "
    champion.promote(NAME, "1", reason)
    assert history(client).entries[-1]["reason"] == reason.strip() and problems(client) == []


def test_an_entry_that_got_another_number_than_it_expected_is_void(client: MlflowClient) -> None:
    before = history(client)
    for entry_id in ("first", "second"):  # both on the same history
        facts = {"decision": "promoted", "from": "3", "to": "1", "reason": entry_id, "evidence": {}}
        decisions.append(client, NAME, before, facts, entry_id)
    after = history(client)
    assert after.find("first") and after.find("second") is None and after.last == 5
    champion.promote(NAME, "2", "later")
    entries = history(client).entries
    assert [(entry["seq"], entry["slot"], entry["reason"]) for entry in entries[3:]] == [
        (4, 4, "first"),
        (5, 6, "later"),
    ]
    assert problems(client) == [] and alias(client) == "2"


def test_what_was_decided_meanwhile_is_decided_on(client: MlflowClient) -> None:
    with champion.opened(NAME) as slow:

        def choose() -> champion.Choice:
            if slow.champion == "3":  # the first time, after it was read
                champion.promote(NAME, "1", "quicker")
            return champion.Choice("promoted", "2", f"instead of {slow.champion}")

        entry = slow.decide(choose)
    assert entry and (entry["from"], entry["reason"]) == ("1", "instead of 1")
    assert [found["to"] for found in history(client).entries] == ["1", "2", "3", "1", "2"] and alias(client) == "2"


EDITS: dict[str, tuple[Callable[[MlflowClient], object], list[str]]] = {
    "the newest deleted": (
        lambda client: client.delete_model_version(f"{NAME}-decisions", "3"),
        ["the alias champion points at version 3, but by the last decision the champion is version 2"],
    ),
    "one before deleted": (
        lambda client: client.delete_model_version(f"{NAME}-decisions", "2"),
        ["decision 2 is missing", "decision 3 does not follow the one before it"],
    ),
    "edited": (
        lambda client: edit(client, 3, lambda entry: entry | {"to": "1"}),
        ["decision 3 was edited"],
    ),
    "edited with its hash": (
        lambda client: edit(client, 2, lambda entry: hashed(entry | {"to": "1"})),
        ["decision 3 does not follow the one before it"],
    ),
    "emptied": (
        lambda client: client.delete_model_version_tag(f"{NAME}-decisions", "1", "entry.0000"),
        ["decision 1 was edited", "decision 2 does not follow the one before it"],
    ),
    "one made by hand": (
        lambda client: client.create_model_version(f"{NAME}-decisions", "elsewhere:/it", tags={}),
        ["decision 4 was edited"],
    ),
    "all deleted": (
        lambda client: client.delete_registered_model(f"{NAME}-decisions"),
        ["the history "],
    ),
    "its id deleted": (
        lambda client: client.delete_registered_model_tag(f"{NAME}-decisions", decisions.REGISTRY_ID),
        ["the history "],
    ),
}


def edit(client: MlflowClient, number: int, change: "Callable[[Entry], Entry]") -> None:
    tags = client.get_model_version(f"{NAME}-decisions", str(number)).tags
    changed = json.dumps(change(json.loads(tags["entry.0000"])))
    client.set_model_version_tag(f"{NAME}-decisions", str(number), "entry.0000", changed)


def hashed(entry: "Entry") -> "Entry":
    return entry | {"hash": decisions.hash_of(entry)}


@pytest.mark.parametrize("name", EDITS)
def test_damage_is_told_nothing_is_built_on_it_and_an_entry_made_by_hand_goes_on_from_it(
    client: MlflowClient, name: str
) -> None:
    damage, expected = EDITS[name]
    damage(client)
    found = problems(client)
    assert all(any(words in sentence for sentence in found) for words in expected), found
    for _ in range(2):  # the first may be what shows it
        with pytest.raises(PipelineError, match="nothing was decided: `sentiment registry verify` says how"):
            champion.promote(NAME, "1", "on it")
    with pytest.raises(PipelineError, match="nothing was decided"):
        champion.rollback(NAME, "on it")
    assert alias(client) == "3"
    assert any("--accept-damage" in problem.mend for problem in verification.history_problems(client, NAME))
    entry = champion.promote(NAME, "2", "I have looked", accept_damage=True)
    assert entry and entry["accepts"] and problems(client) == [] and alias(client) == "2"
    champion.promote(NAME, "1", "as before")
    assert problems(client) == [] and alias(client) == "1"
    assert [line["reason"] for line in history(client).lines][-2:] == ["I have looked", "as before"]


def test_an_alias_that_was_moved_is_told_and_a_promotion_enters_it(client: MlflowClient) -> None:
    client.set_registered_model_alias(NAME, "champion", "1")
    assert "points at version 1" in problems(client)[0]
    champion.promote(NAME, "1", "I meant it")
    assert problems(client) == [] and history(client).entries[-1]["evidence"]["alias_was"] == "1"


def test_a_version_that_was_deleted_before_its_decision_was_applied_stands_in_nobodys_way(client: MlflowClient) -> None:
    champion.promote(NAME, "1", "back to the first")
    facts = {"decision": "promoted", "from": "1", "to": "3", "reason": "cut short", "evidence": {}}
    decisions.append(client, NAME, history(client), facts, "cut")
    client.delete_model_version(NAME, "3")
    with pytest.raises(PipelineError, match="version 3, which is it by the last decision, was deleted"):
        champion.rollback(NAME, "why")
    champion.promote(NAME, "2", "the other one")
    assert alias(client) == "2" and problems(client) == []


# What git has of it.


def test_what_is_changed_in_the_store_shows_against_the_file_in_git(client: MlflowClient) -> None:
    decisions.export(history(client))
    file = paths.DECISIONS / f"{history(client).id}.jsonl"
    assert [json.loads(row) for row in file.read_text().splitlines()] == history(client).entries
    (paths.DECISIONS / f"{'0' * 32}.jsonl").write_text('{"slot": 1, "of": "another registry"}\n')
    champion.promote(NAME, "1", "not in the file yet")
    assert problems(client) == []

    client.delete_model_version(f"{NAME}-decisions", "4")
    edit(client, 3, lambda entry: hashed(entry | {"reason": "another"}))
    assert any("line 3 is not decision 3 as the store has it" in sentence for sentence in problems(client))
    client.delete_model_version(f"{NAME}-decisions", "3")
    assert any("line 3 has decision 3, which is not in the store" in sentence for sentence in problems(client))
    assert not any("0000" in sentence for sentence in problems(client))

    champion.promote(NAME, "2", "I have looked", accept_damage=True)
    assert problems(client) == []
    decisions.export(history(client))
    reasons = [json.loads(row)["reason"] for row in file.read_text().splitlines()]
    assert reasons == ["because 1", "because 2", "because 3", "I have looked"]  # what git had stays


def test_a_file_in_git_that_was_edited_is_told(client: MlflowClient) -> None:
    decisions.export(history(client))
    file = paths.DECISIONS / f"{history(client).id}.jsonl"
    first, second, third = file.read_text().splitlines()
    file.write_text("\n".join([first, second.replace("because 2", "because"), "<<<<<<< ours", third]) + "\n")
    assert [sentence.partition(": ")[2].partition(":")[0] for sentence in problems(client)] == [
        "line 2 is not decision 2 as the store has it",
        "line 3 is not a decision",
    ]


# The ledger of before.


def write_ledger(client: MlflowClient, count: int = 2, *, registry: str = "old") -> Path:
    """Makes the store what it was when a ledger held the decisions: `count` of them."""
    lines: list[Entry] = []
    for number in range(1, count + 1):
        line = {"seq": number, "registry": registry, "decision": "promoted", "from": None, "to": str(number)}
        line |= {"when": "2026-01-01T00:00:00+00:00", "who": "a@b", "reason": f"long ago {number}", "evidence": {}}
        line |= {"git_commit": None, "previous": lines[-1]["hash"] if lines else decisions.GENESIS}
        lines.append(hashed(line))
    file = Path("registry") / f"{NAME}.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    client.set_registered_model_tag(NAME, "ledger.registry", "old")
    client.set_registered_model_tag(NAME, "ledger.head", f"{count}:{lines[-1]['hash']}")
    client.set_registered_model_alias(NAME, "champion", str(count))
    return file


@pytest.fixture
def before(stores: Path, project: Path) -> Iterator[MlflowClient]:
    """A client of a store with versions and no decision."""
    yield from opened(stores / "before.db", project)


def test_a_ledger_is_taken_over_whole_by_the_first_command_that_writes(before: MlflowClient) -> None:
    file = write_ledger(before)
    content = file.read_bytes()
    lines = [json.loads(row) for row in content.splitlines()]
    assert history(before).lines == lines and history(before).last == 0 and problems(before) == []
    champion.promote(NAME, "3", "now")
    assert file.read_bytes() == content
    found = history(before)
    assert found.lines[:2] == lines and [line["seq"] for line in found.lines] == [1, 2, 3]
    assert len(found.entries) == 2 and problems(before) == [] and alias(before) == "3"
    file.unlink()  # nobody needs it any more
    champion.rollback(NAME, "worse")
    assert alias(before) == "2" and len(history(before).lines) == 4


def test_what_a_ledger_left_undone_is_completed(before: MlflowClient) -> None:
    file = write_ledger(before)
    first = json.loads(file.read_text().splitlines()[0])
    before.set_registered_model_tag(NAME, "ledger.head", f"1:{first['hash']}")
    before.set_registered_model_alias(NAME, "champion", "1")
    with file.open("a") as ledger:
        ledger.write('{"seq": 3, "decision": "prom')  # a line that was never finished
    with champion.opened(NAME) as registry:
        assert registry.champion == "2"
    assert alias(before) == "2" and problems(before) == []


def test_a_ledger_of_another_store_is_none(before: MlflowClient) -> None:
    file = Path("registry") / f"{NAME}.jsonl"
    file.parent.mkdir()
    file.write_text('{"seq": 1, "registry": "another", "to": "2"}\n')
    champion.promote(NAME, "1", "first")
    assert [line["reason"] for line in history(before).lines] == ["first"]


@pytest.mark.parametrize("damage", ["away", "edited", "cut off"])
def test_a_ledger_that_is_away_or_damaged_is_waited_for(before: MlflowClient, damage: str) -> None:
    file = write_ledger(before)
    intact = file.read_text()
    rows = intact.splitlines(keepends=True)
    if damage == "away":
        file.unlink()
    else:
        file.write_text(rows[0] if damage == "cut off" else intact.replace("long ago 1", "long ago"))
    with pytest.raises(PipelineError, match=r"the ledger .* nothing was decided"):
        champion.promote(NAME, "1", "on it")
    assert len(problems(before)) == 1 and history(before).last == 0
    file.write_text(intact)
    champion.promote(NAME, "1", "on it")
    assert len(history(before).lines) == 3 and problems(before) == []
