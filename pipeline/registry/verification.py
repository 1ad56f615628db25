"""Whether decisions, registry, runs and outputs agree with each other; and where they do not, how to mend it."""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from pipeline.project import provenance
from pipeline.project.atomic import read_json
from pipeline.project.errors import PipelineError
from pipeline.project.paths import candidate_folder, model_file, run_file
from pipeline.registry import decisions
from pipeline.registry.champion import moved_alias
from pipeline.registry.versions import CHAMPION, all_versions, require_servable
from pipeline.tracking import runs
from pipeline.tracking.fitted_runs import FITTED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_ACCEPT_DAMAGE = (
    "put the store back from a backup. If it is lost for good, `sentiment registry promote VERSION --reason … "
    "--accept-damage` makes a version champion, and goes on from there"
)
_RESTORE_ARTIFACTS = "put its files back from a backup of mlartifacts/"
_RESTORE_STORE = (
    "`sentiment registry restore FILE` brings a backup of the store back that has it; without one its figures are "
    "lost, and the version serves all the same"
)


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be, and how to mend it, a sentence each."""

    what: str
    mend: str


def verify(name: str, models: Iterable[str]) -> list[Problem]:
    """Checks all that the registered model `name` rests on, and the outputs of `models`, fitted ones among
    them, in this checkout, and changes nothing."""
    client = runs.connect_to_read()
    return [
        *_misplaced_files(),
        *_dead_runs(client),
        *history_problems(client, name),
        *_registry_problems(client, name),
        *_run_problems(client),
        *_output_problems(client, models),
    ]


def _misplaced_files() -> Iterator[Problem]:
    if runs.misplaced_artifacts():
        yield Problem(
            f"the project was moved or copied to {runs.store_folder()}, and the store has its files elsewhere",
            "`sentiment registry relocate`, as does every command that writes",
        )


def _dead_runs(client: "MlflowClient") -> Iterator[Problem]:
    experiment, makers = client.get_experiment_by_name(runs.EXPERIMENT), _makers(client)
    for run in client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'") if experiment else ():
        run_id = run.info.run_id
        give_up = f"`mlflow runs delete --run-id {run_id}`"
        if run_id in makers:
            give_up = f"`mlflow.MlflowClient().set_terminated('{run_id}')` in Python: a registered version needs it"
        if provenance.is_gone(run.data.tags):
            yield Problem(
                f"run {_named(run)} is RUNNING though its process is gone",
                "`dvc repro` marks it KILLED, as does every command that writes, and goes on with its training",
            )
        elif provenance.is_of_earlier_boot(run.data.tags):
            yield Problem(
                f"run {_named(run)} is RUNNING for a process of an earlier boot of {platform.node()}",
                f"{give_up}, unless another machine of that name is at work on it",
            )
        elif provenance.HOST not in run.data.tags:
            yield Problem(
                f"run {_named(run)} is RUNNING and says of no process that it holds it",
                f"if nothing is at work on it: {give_up}",
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
    deleted = last["to"] not in (None, *all_versions(client, name))
    if not history.applied and not deleted:
        yield Problem(
            f"the last decision ({last['decision']}, version {last['to']}) was not completed: its command was killed, "
            "or is at it",
            "run that command again (`dvc repro`, `sentiment registry promote` or `rollback`); it completes the "
            "decision and takes no second one",
        )
    elif problem := moved_alias(client, name, last["to"]):
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
        until_then = "; until then `sentiment registry promote` another version" if CHAMPION in held else ""
        give_up = "" if held else "; or delete the version in MLflow's UI: nothing but a rollback would need it"
        try:
            require_servable(version)
        except PipelineError as error:
            yield Problem(f"{where}: {error}", _RESTORE_ARTIFACTS + until_then + give_up)
        lost = _RESTORE_STORE + give_up
        if version.run_id and (problem := missing_run(client, version.run_id, lost=lost)):
            yield Problem(f"{where} belongs to {problem.what}", problem.mend)


def missing_run(client: "MlflowClient", run_id: str, *, lost: str) -> Problem | None:
    """Says where the run `run_id`, which something belongs to, is instead of among the project's, and how it comes
    back, where it is gone as `lost` says; None where it, or what was restored of it, is there."""
    from mlflow.exceptions import MlflowException

    if runs.find_run(client, run_id):
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return Problem(f"run {run_id}, which is not in the store", lost)
    if run.info.lifecycle_stage == "deleted":
        return Problem(f"run {run_id}, which is in MLflow's trash", f"`mlflow runs restore --run-id {run_id}`")
    theirs, ours = client.get_experiment(run.info.experiment_id), client.get_experiment_by_name(runs.EXPERIMENT)
    first = f"`{_rename(ours, f'{runs.EXPERIMENT}-{ours.experiment_id}')}`, then " if ours else ""
    return Problem(
        f"run {run_id} in the experiment {theirs.name}, which was {runs.EXPERIMENT}",
        f"{first}`{_rename(theirs, runs.EXPERIMENT)}`",
    )


def _rename(experiment: "Experiment", name: str) -> str:
    return f"mlflow experiments rename --experiment-id {experiment.experiment_id} --new-name {name}"


def _run_problems(client: "MlflowClient") -> Iterator[Problem]:
    import mlflow
    from mlflow.entities import ViewType

    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    if experiment is None:
        return
    # Whatever the runs' experiments are called now: their outputs lie in one folder.
    everywhere = [found.experiment_id for found in client.search_experiments(ViewType.ALL)]
    all_runs = mlflow.search_runs(everywhere, run_view_type=ViewType.ALL, output_format="list")
    makers = _makers(client)
    for run in all_runs:
        ours = run.info.experiment_id == experiment.experiment_id and run.info.lifecycle_stage == "active"
        if not ours or run.data.tags.get(runs.KIND) != runs.TRAINING or run.info.status != "FINISHED":
            continue
        if not client.list_artifacts(run.info.run_id, "train"):
            give_up = f", or give it up: `mlflow runs delete --run-id {run.info.run_id}`"
            yield Problem(
                f"run {_named(run)} has lost its outputs: it has no artifacts",
                _RESTORE_ARTIFACTS + ("" if run.info.run_id in makers else give_up),
            )
    known = {run.info.run_id for run in all_runs}
    location = urlparse(experiment.artifact_location)
    folder = Path(unquote(location.path))
    if location.scheme not in ("", "file") or not folder.is_dir():
        return
    for outputs in sorted(folder.iterdir()):
        held = any(file.is_file() for file in outputs.rglob("*"))  # `mlflow gc` leaves empty folders
        if held and outputs.name != "models" and outputs.name not in known | makers:
            yield Problem(
                f"{outputs} holds the outputs of a run that is not in the store",
                "`sentiment registry restore FILE` brings a backup of the store back that has it, or remove the folder",
            )


def _makers(client: "MlflowClient") -> set[str]:
    """Returns the runs that made the versions of every registered model of the store, also those that are gone."""
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    return {str(version.run_id) for name in names for version in all_versions(client, name).values()}


def _output_problems(client: "MlflowClient", models: Iterable[str]) -> Iterator[Problem]:
    for model in models:
        record = run_file(model)
        if not record.exists():
            continue
        run_id = read_json(record, ("run_id",))["run_id"]
        output = candidate_folder(model) if model in FITTED else model_file(model)
        anew = "`dvc repro --force --single-item register` makes the run anew from its outputs"
        if problem := missing_run(client, run_id, lost=anew):
            yield Problem(f"{record} names {problem.what}", problem.mend)
        if not output.exists():
            yield Problem(
                f"{record} tells of a training, but {output} does not exist",
                f"`dvc checkout {'/'.join(output.parts[:2])}`, or `dvc pull`, or `dvc repro`",
            )


def _named(run: "Run") -> str:
    return f"{run.info.run_id} ({run.info.run_name})"
