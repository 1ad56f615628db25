"""Whether ledger, registry, runs and outputs agree with each other; and where they do not, how to mend it."""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from pipeline.project import provenance
from pipeline.project.atomic import read_json
from pipeline.project.errors import PipelineError
from pipeline.project.paths import model_file, run_file
from pipeline.registry.champion import HEAD, REGISTRY_ID, foreign_ledger, head_problems, moved_alias
from pipeline.registry.ledger import Contents, Ledger, head
from pipeline.registry.versions import CHAMPION, all_versions, ledger_file, require_servable
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RESTORE_LEDGER = (
    "put the ledger back from a backup. If it is lost for good, move the file away, "
    f"remove the tags {HEAD} and {REGISTRY_ID} of the registered model, and enter the champion anew: "
    "`sentiment registry promote VERSION --reason …`"
)
_RESTORE_ARTIFACTS = "put its files back from a backup of mlartifacts/"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be, and how to mend it, a sentence each."""

    what: str
    mend: str


def verify(name: str, models: Iterable[str]) -> list[Problem]:
    """Looks at everything that the registered model `name` rests on, and changes nothing but the status of runs whose
    process is gone.

    Args:
        name: the registered model.
        models: names of the models whose outputs stand in this checkout.

    Raises:
        BusyError: another command is changing the registry, so that nothing can be said just now.
    """
    running = _running()
    runs.connect.cache_clear()  # it looks for dead processes once, when it connects
    client = runs.connect()
    problems = list(_dead_runs(client, running))
    ledger = Ledger(ledger_file(name))
    with ledger.locked():
        problems += _registry_problems(client, name, ledger)
    problems += _run_problems(client)
    problems += _output_problems(client, models)
    return problems


def _running() -> list[str]:
    """Returns the ids of the runs that are RUNNING before `runs.connect` closes those of dead processes."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient(runs.tracking_uri())
    try:
        experiment = client.get_experiment_by_name(runs.EXPERIMENT)
        if experiment is None:
            return []
        found = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    except (MlflowException, OSError):
        return []  # `runs.connect` says what is wrong with the store
    return [run.info.run_id for run in found]


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


def _registry_problems(client: "MlflowClient", name: str, ledger: Ledger) -> Iterator[Problem]:
    contents = ledger.read()
    for problem in contents.problems:
        yield Problem(problem, _RESTORE_LEDGER)
    if contents.torn:
        yield Problem(
            f"{ledger.path} ends in a line that was never finished: its command was killed",
            "nothing was decided; run the command again, which drops the half line",
        )
    if not client.search_registered_models(f"name = '{name}'"):
        if contents.lines:
            yield Problem(
                f"{ledger.path} tells of a registered model {name} that is not in this store",
                "put mlflow.db back from a backup, or run `dvc repro`: it registers anew and keeps the ledger aside",
            )
        return
    tags = client.get_registered_model(name).tags
    aliases = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    yield from _ledger_problems(ledger, contents, tags, aliases.get(CHAMPION))
    found = {str(version.version): version for version in all_versions(client, name)}
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


def _ledger_problems(
    ledger: Ledger, contents: Contents, tags: dict[str, str], champion: str | None
) -> Iterator[Problem]:
    lines = contents.lines
    if foreign_ledger(lines, tags):
        yield Problem(
            f"{ledger.path} is the ledger of an earlier registry whose store is gone",
            "nothing: the next `dvc repro` keeps it aside and begins a new one",
        )
        return
    contradictions = head_problems(ledger.path, lines, tags)
    for contradiction in contradictions:
        yield Problem(contradiction, _RESTORE_LEDGER)
    if contradictions or contents.problems or not lines:
        return
    if tags.get(HEAD, "") != head(lines):
        yield Problem(
            f"the last decision ({lines[-1]['decision']}, version {lines[-1]['to']}) was not completed: its command "
            "was killed",
            "run that command again (`dvc repro`, `sentiment registry promote` or `rollback`); it completes the "
            "decision and takes no second one",
        )
    elif problem := moved_alias(champion, lines[-1]["to"]):
        what, _, mend = problem.partition("; ")
        yield Problem(what, mend)


def _run_problems(client: "MlflowClient") -> Iterator[Problem]:
    from mlflow.entities import ViewType

    experiment = client.get_experiment(runs.experiment_id(client))
    all_runs = _all_runs(client, experiment.experiment_id, ViewType.ALL)
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
        if outputs.is_dir() and outputs.name != "models" and outputs.name not in known:
            yield Problem(
                f"{outputs} holds the outputs of a run that is not in the store",
                "put mlflow.db back from a backup, or remove the folder",
            )


def _all_runs(client: "MlflowClient", experiment: str, view: int) -> "list[Run]":
    found: list[Run] = []
    page = client.search_runs([experiment], run_view_type=view, max_results=1000)
    found += page
    while page.token:
        page = client.search_runs([experiment], run_view_type=view, max_results=1000, page_token=page.token)
        found += page
    return found


def _output_problems(client: "MlflowClient", models: Iterable[str]) -> Iterator[Problem]:
    for model in models:
        record = run_file(model)
        if not record.exists():
            continue
        run_id = read_json(record)["run_id"]
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
