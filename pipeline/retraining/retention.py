"""What years of nights would leave behind, and which of it may go.

Only what retraining itself made on this data set is ever removed: its records, its runs and those of the models it
trained, the versions of these that were never promoted, and what DVC cached for commits that are long past. Source
files, accepted or quarantined, stay, and so do every version that was ever promoted, with its run, and the runs of the
models that stand in `reports/`. Runs and versions go only where decisions and aliases verify. Files are deleted, and
runs and models marked as deleted: to purge them from the database is `mlflow gc`'s.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.project import provenance
from pipeline.project.atomic import read_json
from pipeline.project.checkouts import DVC
from pipeline.project.errors import PipelineError
from pipeline.project.params import RetentionParams
from pipeline.project.paths import REPORTS
from pipeline.registry import decisions, versions
from pipeline.registry.verification import history_problems
from pipeline.retraining import pipeline_state, records, triggers
from pipeline.retraining.records import PARENT, RETRAIN, Record
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SWEEP_CLONE = Path(".sweep")
"""Where `make sweep` works: a clone that shares this checkout's cache."""


@dataclass(frozen=True)
class Plan:
    """What may go: records, versions by number, and runs by id."""

    records: tuple[Record, ...] = ()
    versions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.records or self.versions or self.runs)

    def __str__(self) -> str:
        numbers = f" ({', '.join(self.versions)})" if self.versions else ""
        return (
            f"{len(self.records)} records, {len(self.versions)} versions{numbers} and {len(self.runs)} runs are past "
            "their time"
        )

    def as_dict(self) -> dict[str, int]:
        """Returns how many of each."""
        return {"records": len(self.records), "versions": len(self.versions), "runs": len(self.runs)}


def plan(params: RetentionParams, dataset: str, known: list[Record]) -> Plan:
    """Returns what may go by `params`, changing nothing; records alone where decisions or aliases do not verify."""
    past = tuple(known[: max(len(known) - params.records, 0)])
    if not runs.store_exists():
        return Plan(past)
    client, name = runs.connect(), versions.registered_name(dataset)
    if problem := next(history_problems(client, name), None):
        print(
            f"warning: no run or version is removed: {problem.what}; `sentiment registry verify` tells more", flush=True
        )
        return Plan(past)
    before = (datetime.now(UTC) - timedelta(days=params.days)).timestamp() * 1000
    ours = {run.info.run_id: run for run in _runs_of_nights(client, dataset)}
    old = {run_id for run_id, run in ours.items() if run.info.start_time < before and run.info.status != "RUNNING"}
    old -= {read_json(file).get("run_id") for file in REPORTS.glob("runs/*.json")}
    if not triggers.is_registered(dataset):
        return Plan(past, runs=tuple(sorted(old)))
    there = versions.all_versions(client, name)
    reported = {read_json(file).get("weights_sha256") for file in REPORTS.glob("train/*/training.json")}
    stays = _versions_that_stay(client, name)
    # A version of the weights that stand here may belong to an older run, the first that had them.
    stays |= {str(version.version) for version in there if version.tags.get(versions.WEIGHTS) in reported}
    run_of = {str(version.version): str(version.run_id) for version in there}
    gone = tuple(number for number, run_id in run_of.items() if run_id in old and number not in stays)
    unneeded = old - {run_id for number, run_id in run_of.items() if number not in gone}
    return Plan(past, gone, tuple(sorted(unneeded)))


def _runs_of_nights(client: "MlflowClient", dataset: str) -> "Iterator[Run]":
    """Yields the runs of retraining on `dataset`, and of the models that it trained."""
    experiment = runs.experiment_id(client)
    for condition in (f"tags.{runs.KIND} = '{RETRAIN}'", f"tags.`{PARENT}` != ''"):
        token = None
        while True:
            asked = f"{condition} and tags.dataset = '{dataset}'"
            page = client.search_runs([experiment], asked, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                break


def _versions_that_stay(client: "MlflowClient", name: str) -> set[str]:
    """Returns the versions that were ever champion, and those that an alias points at."""
    lines = decisions.read(client, name).lines
    aliases = client.get_registered_model(name).aliases
    return {line[end] for line in lines for end in ("from", "to")} | {str(number) for number in aliases.values()}


def apply(found: Plan, dataset: str) -> None:
    """Removes what `plan` found; harmless to do again after a kill."""
    for record in found.records:
        records.remove(record)
    if not found.versions and not found.runs:
        return
    client, name = runs.connect(), versions.registered_name(dataset)
    for number in found.versions:
        client.delete_model_version(name, number)
    for run_id in found.runs:
        _remove_run(client, run_id)


def _remove_run(client: "MlflowClient", run_id: str) -> None:
    """Deletes the files of a run and of the models logged in it, then marks them as deleted: after a kill in between
    the next plan has the run again."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    for model in versions.logged_models(client, run_id):
        get_artifact_repository(model.artifact_location).delete_artifacts()
        client.delete_logged_model(model.model_id)
    get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts()
    client.delete_run(run_id)


def collect_cache(params: RetentionParams, *, dry: bool = False) -> int:
    """Drops what DVC cached and neither the workspace, the last `commits` of a branch, a tag nor an experiment uses,
    nor the sweep's clone. Of a cache that lies outside the checkout, and may be shared with others, nothing is dropped.

    Returns:
        How many objects were dropped, or with `dry` would be.

    Raises:
        PipelineError: DVC refused.
    """
    cache = pipeline_state.cache_folder()
    if not cache.is_relative_to(Path.cwd().resolve()):
        print(f"DVC's cache {cache} lies outside this checkout: what others may use is not dropped", flush=True)
        return 0
    command = [*DVC, "gc", "--force", "--workspace"]
    if (SWEEP_CLONE / ".dvc").exists():
        command += ["--projects", str(SWEEP_CLONE)]
    if provenance.git_commit():
        command += ["--rev", "HEAD", "--num", str(params.commits), "--all-branches", "--all-tags", "--all-experiments"]
    done = subprocess.run(
        [*command, "--dry"] if dry else command,
        capture_output=True,
        text=True,
        preexec_fn=pipeline_state.die_with_parent(),
    )
    if done.returncode:
        raise PipelineError(f"dvc gc failed: {' '.join(done.stderr.split())[:300]}")
    return sum(int(count) for count in re.findall(r"Removed (\d+) objects", done.stdout + done.stderr))
