"""What years of scheduled runs would leave behind, and which of it may go.

Only what retraining itself made on this data set is ever removed: its records, its runs and those of the models it
trained, the versions of these that were never promoted, and what DVC cached for commits that are long past. Source
files, accepted or quarantined, stay, and so do every version that was ever promoted, with its run, and the runs of the
models that stand in `reports/`. Runs and versions go only where decisions and aliases verify. Files are deleted, and
runs and models marked as deleted: to purge them from the database is `mlflow gc`'s.
"""

import re
import subprocess
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
        return any(vars(self).values())

    def __str__(self) -> str:
        numbers = f" ({', '.join(self.versions)})" if self.versions else ""
        found = f"{len(self.records)} records, {len(self.versions)} versions{numbers} and {len(self.runs)} runs"
        return f"{found} are past their time"

    def counts(self) -> dict[str, int]:
        """Returns how many of each."""
        return {name: len(found) for name, found in vars(self).items()}


def plan(params: RetentionParams, dataset: str, past: list[Record]) -> Plan:
    """Returns what may go by `params`, changing nothing; records alone where decisions or aliases do not verify."""
    old_records = tuple(past[: max(len(past) - params.records, 0)])
    if not runs.store_exists():
        return Plan(old_records)
    client, name = runs.connect(), versions.registered_name(dataset)
    if problem := next(history_problems(client, name), None):
        tells = "`sentiment registry verify` tells more"
        print(f"warning: no run or version is removed: {problem.what}; {tells}", flush=True)
        return Plan(old_records)
    before = (datetime.now(UTC) - timedelta(days=params.days)).timestamp() * 1000
    ended = [run.info for run in _runs_of_the_job(dataset) if run.info.status != "RUNNING"]
    old_runs = {run.run_id for run in ended if run.start_time < before}
    old_runs -= {read_json(file).get("run_id") for file in REPORTS.glob("runs/*.json")}
    if not triggers.is_registered(dataset):
        return Plan(old_records, runs=tuple(sorted(old_runs)))
    # A version of the weights that stand here may belong to an older run, the first that had them.
    reported = {read_json(file).get("weights_sha256") for file in REPORTS.glob("train/*/training.json")}
    champions = {line[end] for line in decisions.read(client, name).lines for end in ("from", "to")}
    aliased = set(map(str, client.get_registered_model(name).aliases.values()))
    there = versions.all_versions(client, name)
    old_versions = tuple(
        number
        for number, version in there.items()
        if version.run_id in old_runs
        and number not in champions | aliased
        and version.tags.get(versions.WEIGHTS) not in reported
    )
    old_runs -= {str(version.run_id) for number, version in there.items() if number not in old_versions}
    return Plan(old_records, old_versions, tuple(sorted(old_runs)))


def _runs_of_the_job(dataset: str) -> "list[Run]":
    """Returns the runs of retraining on `dataset`, and of the models that it trained."""
    import mlflow

    found = []
    for condition in (f"tags.{runs.KIND} = '{RETRAIN}'", f"tags.`{PARENT}` != ''"):
        on_dataset = f"{condition} and tags.dataset = '{dataset}'"
        found += mlflow.search_runs(None, on_dataset, output_format="list", experiment_names=[runs.EXPERIMENT])
    return found


def apply(found: Plan, dataset: str) -> None:
    """Removes what `plan` found; harmless to do again after a kill."""
    for record in found.records:
        records.file_of(record).unlink(missing_ok=True)
    for number in found.versions:
        runs.connect().delete_model_version(versions.registered_name(dataset), number)
    for run_id in found.runs:
        _remove_run(runs.connect(), run_id)


def _remove_run(client: "MlflowClient", run_id: str) -> None:
    """Deletes the files of a run and of the models logged in it, and then marks them as deleted: after a kill in
    between the next plan has the run again."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    for model in versions.logged_models(client, run_id):
        get_artifact_repository(model.artifact_location).delete_artifacts()
        client.delete_logged_model(model.model_id)
    get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts()
    client.delete_run(run_id)


def collect_cache(params: RetentionParams, *, dry: bool = False) -> int:
    """Drops what DVC cached and neither the workspace, the last `commits` of a branch, a tag nor an experiment uses,
    nor the sweep's clone. Of a cache that lies outside the checkout, and may be shared with others, nothing is dropped.
    Returns how many objects were dropped, or with `dry` would be; raises PipelineError if DVC refused."""
    cache = pipeline_state.cache_folder()
    if not cache.is_relative_to(Path.cwd().resolve()):
        print(f"DVC's cache {cache} lies outside this checkout: what others may use is not dropped", flush=True)
        return 0
    command = [*DVC, "gc", "--force", "--workspace", *(["--dry"] if dry else [])]
    if (SWEEP_CLONE / ".dvc").exists():
        command += ["--projects", str(SWEEP_CLONE)]
    if provenance.git_commit():
        command += ["--rev", "HEAD", "--num", str(params.commits), "--all-branches", "--all-tags", "--all-experiments"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pipeline_state.die_with_parent())
    if done.returncode:
        raise PipelineError(f"dvc gc failed: {' '.join(done.stderr.split())[:300]}")
    return sum(int(count) for count in re.findall(r"Removed (\d+) objects", done.stdout + done.stderr))
