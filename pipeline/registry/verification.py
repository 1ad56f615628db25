"""Whether decisions, registry, runs and outputs agree with each other; and where they do not, how to mend it."""

import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from pipeline.project import provenance
from pipeline.project.atomic import read_json
from pipeline.project.errors import PipelineError
from pipeline.project.paths import model_file, run_file
from pipeline.registry import decisions
from pipeline.registry.champion import moved_alias
from pipeline.registry.versions import CHAMPION, alias_version, all_versions, require_servable
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_ACCEPT_DAMAGE = (
    "put the store back from a backup. If it is lost for good, `sentiment registry promote VERSION --reason … "
    "--accept-damage` makes a version champion, and goes on from there"
)
_RESTORE_ARTIFACTS = "put its files back from a backup of mlartifacts/"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be, and how to mend it, a sentence each."""

    what: str
    mend: str


def verify(name: str, models: Iterable[str]) -> list[Problem]:
    """Checks all that the registered model `name` rests on, and the outputs of `models` in this checkout, and changes
    nothing but the status of runs whose process is gone."""
    running = _running()
    runs.connect.cache_clear()  # it looks for dead processes once, when it connects
    client = runs.connect()
    return [
        *_dead_runs(client, running),
        *history_problems(client, name),
        *_registry_problems(client, name),
        *_run_problems(client),
        *_output_problems(client, models),
    ]


def _running() -> list[str]:
    """Returns the ids of the runs that are RUNNING before `runs.connect` closes those of dead processes."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient(runs.tracking_uri())
    with suppress(MlflowException, OSError):  # `runs.connect` says what is wrong with the store
        if experiment := client.get_experiment_by_name(runs.EXPERIMENT):
            found = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
            return [run.info.run_id for run in found]
    return []


def _dead_runs(client: "MlflowClient", running: list[str]) -> Iterator[Problem]:
    for run_id in running:
        run = client.get_run(run_id)
        if run.info.status != "RUNNING":
            yield Problem(
                f"run {_named(run)} was RUNNING though its process is gone",
                "nothing more: this command marked it KILLED; `dvc repro` goes on with its training",
            )
        elif provenance.is_of_earlier_boot(run.data.tags):
            yield Problem(
                f"run {_named(run)} is RUNNING for a process of an earlier boot of {platform.node()}",
                f"`mlflow runs delete --run-id {run_id}`, unless another machine of that name is at work on it",
            )
        elif provenance.HOST not in run.data.tags:
            yield Problem(
                f"run {_named(run)} is RUNNING and says of no process that it holds it",
                f"if nothing is at work on it: `mlflow runs delete --run-id {run_id}`",
            )


def history_problems(client: "MlflowClient", name: str) -> Iterator[Problem]:
    """Says where the history of decisions about the registered model `name`, what git has of it, and the alias
    `champion` disagree."""
    if not client.search_registered_models(f"name = '{name}'"):
        return
    history = decisions.read(client, name)
    for damage in history.problems:
        yield Problem(damage, _ACCEPT_DAMAGE)
    for difference in decisions.differences(history):
        yield Problem(difference, f"`git log -p` tells which is right. If it is the file: {_ACCEPT_DAMAGE}")
    if history.problems or not history.entries:
        return
    last = history.entries[-1]
    if not history.applied:
        yield Problem(
            f"the last decision ({last['decision']}, version {last['to']}) was not completed: its command was killed, "
            "or is at it",
            "run that command again (`dvc repro`, `sentiment registry promote` or `rollback`); it completes the "
            "decision and takes no second one",
        )
    elif problem := moved_alias(alias_version(client, name, CHAMPION), last["to"]):
        what, _, mend = problem.partition("; ")
        yield Problem(what, mend)


def _registry_problems(client: "MlflowClient", name: str) -> Iterator[Problem]:
    if not client.search_registered_models(f"name = '{name}'"):
        return
    aliases = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    found = all_versions(client, name)
    for alias, number in aliases.items():
        if number not in found:
            yield Problem(
                f"the alias {alias} points at version {number}, which does not exist",
                "`sentiment registry promote VERSION --reason …` makes an existing version champion"
                if alias == CHAMPION
                else "`dvc repro --force --single-item register` sets it anew",
            )
    for number, version in found.items():
        held = [alias for alias, holder in aliases.items() if holder == number]
        where = f"version {number}" + (f" ({', '.join(held)})" if held else "")
        way_out = "" if CHAMPION not in held else "; until then `sentiment registry promote` another version"
        try:
            require_servable(version)
        except PipelineError as error:
            yield Problem(f"{where}: {error}", _RESTORE_ARTIFACTS + way_out)
        if version.run_id and runs.find_run(client, version.run_id) is None:
            yield Problem(f"{where} belongs to run {version.run_id}, which does not exist", _RESTORE_ARTIFACTS)


def _run_problems(client: "MlflowClient") -> Iterator[Problem]:
    import mlflow
    from mlflow.entities import ViewType

    experiment = client.get_experiment(runs.experiment_id(client))
    all_runs = mlflow.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, output_format="list")
    for run in all_runs:
        training = run.info.lifecycle_stage == "active" and run.data.tags.get(runs.KIND) == runs.TRAINING
        if training and run.info.status == "FINISHED" and not client.list_artifacts(run.info.run_id, "train"):
            yield Problem(
                f"run {_named(run)} has lost its outputs: it has no artifacts",
                f"{_RESTORE_ARTIFACTS}, or give it up: `mlflow runs delete --run-id {run.info.run_id}`",
            )
    known = {run.info.run_id for run in all_runs}
    location = urlparse(experiment.artifact_location)
    folder = Path(unquote(location.path))
    if location.scheme not in ("", "file") or not folder.is_dir():
        return
    for outputs in sorted(folder.iterdir()):
        held = any(file.is_file() for file in outputs.rglob("*"))  # `mlflow gc` leaves empty folders
        if held and outputs.name != "models" and outputs.name not in known:
            yield Problem(
                f"{outputs} holds the outputs of a run that is not in the store",
                "put mlflow.db back from a backup, or remove the folder",
            )


def _output_problems(client: "MlflowClient", models: Iterable[str]) -> Iterator[Problem]:
    for model in models:
        record = run_file(model)
        if not record.exists():
            continue
        run_id = read_json(record, ("run_id",))["run_id"]
        if runs.find_run(client, run_id) is None:
            yield Problem(
                f"{record} names run {run_id}, which is not in the store",
                "`dvc repro --force --single-item register` makes the run anew from its outputs",
            )
        if not model_file(model).exists():
            yield Problem(
                f"{record} tells of a training, but {model_file(model)} does not exist",
                f"`dvc checkout models/{model}`, or `dvc pull`, or `dvc repro`",
            )


def _named(run: "Run") -> str:
    return f"{run.info.run_id} ({run.info.run_name})"
