"""Kills a command of the registry after each of its side effects in turn, and lets the next run complete it.

`python tests/kill_everywhere.py TEMPLATE ACTION [LABEL]` runs in an empty folder, in which the project that was moved
to TEMPLATE was made. For n = 1, 2, … it puts the project back, runs the action in a process that kills itself with
SIGKILL right after its n-th side effect, notes what stands then, runs the action again without harm, and notes what
stands after it. With LABEL, before the side effect so labelled, only the first n and the last: what comes before is
slow to do again, and the rest begins where a kill right after LABEL left off. It prints a JSON list, one entry a kill.

A side effect is whatever outlives the process: a committed change of MLflow's database, labelled by its table, or a
request to MLflow's server, labelled by its method and path; a file among its artifacts; a report. The first of several
files is also cut short halfway. Nothing of the product is replaced: the functions beneath it (the database driver's
commit, `requests`, `shutil.copy2`, `os.replace`) are watched.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mlflow
import pandas  # noqa: F401  (imported once, before the forks)
import requests
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect

from pipeline.project.errors import PipelineError
from pipeline.project.params import load_params
from pipeline.project.paths import candidate_folder
from pipeline.project.training_record import read_record
from pipeline.registry import champion, decisions, verification, versions
from pipeline.registry.challenge import register_trained
from pipeline.tracking import runs

NAME = "imdb-sentiment-sample"


def log() -> dict[str, Any]:
    """Logs the trained model, and returns the ids of the run's models that are whole, with the hash of their files."""
    record = read_record("tiny")
    files = {file.name: file.read_bytes() for file in sorted(candidate_folder("tiny").iterdir())}
    candidate = versions.Candidate("tiny", record["run_id"], record["weights_sha256"], record["params"], files)
    client = runs.connect()
    versions.logged_model(client, candidate)
    models = versions.logged_models(client, candidate.run_id)
    return {model.model_id: [model.status, versions.files_digest(f"models:/{model.model_id}")] for model in models}


ACTIONS: dict[str, Callable[[], Any]] = {
    "log": log,
    "register": lambda: register_trained(load_params()),
    "promote": lambda: champion.promote(NAME, "1", "because"),
    "rollback": lambda: champion.rollback(NAME, "because"),
}


class Killer:
    """Labels the side effects of this process, and ends it after the `last`-th, or stops it (SIGSTOP) before the first
    request that is labelled `stop_before`."""

    def __init__(self, last: int | None, stop_before: str | None = None) -> None:
        self.last, self.stop_before, self.labels, self.table = last, stop_before, list[str](), ""

    def done(self, label: str) -> None:
        self.labels.append(label)
        if len(self.labels) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        @event.listens_for(Engine, "before_cursor_execute")
        def note(_: Any, __: Any, statement: str, *___: Any) -> None:
            words = statement.split(maxsplit=3)
            if words[0].upper() in ("INSERT", "UPDATE", "DELETE"):
                self.table = words[1 if words[0].upper() == "UPDATE" else 2]

        commit, copy2, replace = DefaultDialect.do_commit, shutil.copy2, os.replace
        send = requests.Session.send

        def send_and_count(session: Any, request: Any, **options: Any) -> Any:
            label = f"{request.method} {request.path_url.partition('?')[0].partition('/mlflow/')[2]}"
            if label == self.stop_before:
                self.stop_before = None
                os.kill(os.getpid(), signal.SIGSTOP)
            answer = send(session, request, **options)
            self.done(label)
            return answer

        def do_commit(dialect: Any, connection: Any) -> None:
            commit(dialect, connection)
            if self.table:
                table, self.table = self.table, ""
                self.done(table)

        def copy_in_two(source: Any, target: Any, **options: Any) -> Any:
            if "mlartifacts" not in str(target):
                return copy2(source, target, **options)
            if not self.labels or self.labels[-1] != "file":  # of the files of a model, cutting the first says it all
                file = Path(target) / Path(source).name if Path(target).is_dir() else Path(target)
                content = Path(source).read_bytes()
                file.write_bytes(content[: len(content) // 2])
                self.done("file")
            copied = copy2(source, target, **options)
            if Path(source).suffix in (".npz", ".parquet"):
                self.done("file")
            return copied

        def replace_and_count(source: Any, target: Any) -> None:
            replace(source, target)
            if "reports" in str(target):
                self.done("report")

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
        shutil.copy2, os.replace = copy_in_two, replace_and_count  # type: ignore[assignment]
        requests.Session.send = send_and_count  # type: ignore[method-assign]


def in_child(work: Callable[[], object]) -> tuple[int, Any]:
    """Runs `work` in a fork; returns the signal or exit code that it ended with, and what it returned, by JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = work()
            os.write(writing, json.dumps(result, default=str).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(answer) if answer else None


def watched(action: str, last: int | None) -> list[str]:
    """Runs the action, killed after its `last`-th side effect; returns the labels of all if it ends unharmed."""
    killer = Killer(last)
    killer.watch()
    ACTIONS[action]()
    return killer.labels


def completed(action: str) -> dict[str, Any]:
    """Returns what stands before and after the next run of the action, that run's error, and what is wrong then."""
    between, refused, returned = state(), None, None
    try:
        returned = ACTIONS[action]()
    except PipelineError as error:
        refused = str(error)
    wrong = verification.verify(NAME, load_params().models)
    return {
        "between": between,
        "refused": refused,
        "returned": returned,
        "after": state(),
        "problems": [problem.what for problem in wrong],
    }


def state() -> dict[str, Any]:
    """Returns versions, champion and whether it can be served, and the decisions."""
    client = mlflow.MlflowClient(runs.tracking_uri())
    mlflow.set_tracking_uri(runs.tracking_uri())
    try:
        champion = client.get_model_version_by_alias(NAME, "champion")
        versions.require_servable(champion)
    except MlflowException:
        champion = None
    return {
        "versions": list(versions.all_versions(client, NAME)),
        "champion": champion and str(champion.version),
        "decisions": [[line["decision"], line["from"], line["to"]] for line in decisions.read(client, NAME).lines],
    }


def put_back(template: Path) -> None:
    for entry in Path().iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    subprocess.run(["cp", "-a", f"{template}/.", "."], check=True)


def side_effects(template: Path, action: str) -> list[str]:
    """Returns the labels of all side effects of the action."""
    put_back(template)
    return in_child(lambda: watched(action, None))[1]


def kills(template: Path, action: str, labels: list[str], numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Kills the action after each of the side effects `numbers`, counted from 1."""
    results = []
    for number in numbers:
        put_back(template)
        code, _ = in_child(lambda number=number: watched(action, number))
        outcome = in_child(lambda: completed(action))[1]
        results.append({"side_effect": labels[number - 1], "killed": code, **outcome})
    return results


def main() -> None:
    template, action, *label = Path(sys.argv[1]), *sys.argv[2:]
    out = os.dup(1)
    os.dup2(2, 1)  # what the action prints is not the result
    labels, results = side_effects(template, action), []
    if label:
        before = labels.index(label[0])
        results = kills(template, action, labels, [1, before])
        put_back(template)
        in_child(lambda: watched(action, before + 1))
        template = template.with_name(f"{template.name} after {label[0]}")
        subprocess.run(["cp", "-a", ".", str(template)], check=True)
        labels = side_effects(template, action)
    results += kills(template, action, labels, range(1, len(labels) + 1))
    os.write(out, json.dumps(results).encode())


if __name__ == "__main__":
    main()
