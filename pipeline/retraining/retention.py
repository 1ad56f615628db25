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

from pipeline.project import checkouts
from pipeline.project.atomic import read_json
from pipeline.project.checkouts import DVC
from pipeline.project.errors import PipelineError
from pipeline.project.params import RetentionParams
from pipeline.project.paths import REPORTS
from pipeline.registry import decisions, versions
from pipeline.registry.verification import history_problems
from pipeline.retraining import pipeline_state, records
from pipeline.retraining.records import PARENT, RETRAIN, Record
from pipeline.tracking import runs

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


def plan(params: RetentionParams, dataset: str, past: list[Record]) -> Plan:
    """Returns what may go by `params`, changing nothing; records alone where decisions or aliases do not verify."""
    old_records = tuple(past[: max(len(past) - params.records, 0)])
    if not runs.store_exists():
        return Plan(old_records)
    client, name = runs.connect_to_read(), versions.registered_name(dataset)
    if problem := next(history_problems(client, name), None):
        print(f"warning: no run or version is removed: {problem.what}; see `sentiment registry verify`", flush=True)
        return Plan(old_records)
    import mlflow

    before = int((datetime.now(UTC) - timedelta(days=params.days)).timestamp() * 1000)
    past_runs = f"tags.dataset = '{dataset}' and attributes.status != 'RUNNING' and attributes.start_time < {before}"
    old_runs: set[str] = set()
    for of_job in (f"tags.{runs.KIND} = '{RETRAIN}'", f"tags.`{PARENT}` != ''"):  # its own, and those of its models
        condition = f"{of_job} and {past_runs}"
        found = mlflow.search_runs(None, condition, output_format="list", experiment_names=[runs.EXPERIMENT])
        old_runs |= {run.info.run_id for run in found}
    old_runs -= {read_json(file).get("run_id") for file in REPORTS.glob("runs/*.json")}
    there = versions.all_versions(client, name)
    if not there:
        return Plan(old_records, runs=tuple(sorted(old_runs)))
    # A version of the weights that stand here may belong to an older run, the first that had them.
    reported = {read_json(file).get("weights_sha256") for file in REPORTS.glob("train/*/training.json")}
    champions = {line[end] for line in decisions.read(client, name).lines for end in ("from", "to")}
    aliased = set(map(str, client.get_registered_model(name).aliases.values()))
    old_versions = tuple(
        number
        for number, version in there.items()
        if version.run_id in old_runs
        and number not in champions | aliased
        and version.tags.get(versions.WEIGHTS) not in reported
    )
    old_runs -= {str(version.run_id) for number, version in there.items() if number not in old_versions}
    return Plan(old_records, old_versions, tuple(sorted(old_runs)))


def apply(found: Plan, dataset: str) -> None:
    """Removes what `plan` found. The files of a run, and of the models logged in it, go before both are marked as
    deleted: after a kill in between the next plan has the run again."""
    for record in found.records:
        records.file_of(record).unlink(missing_ok=True)
    for number in found.versions:
        runs.connect().delete_model_version(versions.registered_name(dataset), number)
    for run_id in found.runs:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        client = runs.connect()
        for model in versions.logged_models(client, run_id):
            get_artifact_repository(model.artifact_location).delete_artifacts()
            client.delete_logged_model(model.model_id)
        get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts()
        client.delete_run(run_id)


def collect_cache(params: RetentionParams, *, dry: bool = False) -> int:
    """Drops what DVC cached and neither the workspace, the last `commits` of a branch, a tag nor an experiment uses,
    nor the sweep's clone. Of a cache that lies outside the checkout, and may be shared with others, nothing is dropped.
    Returns how many objects were dropped, or with `dry` would be; raises PipelineError if DVC refused, or git fails:
    then nobody knows what commits use, and nothing is dropped."""
    head, cache = checkouts.head(), pipeline_state.cache_folder()
    if not cache.is_relative_to(Path.cwd().resolve()):
        print(f"DVC's cache {cache} lies outside this checkout: what others may use is not dropped", flush=True)
        return 0
    command = [*DVC, "gc", "--force", "--workspace", *(["--dry"] if dry else [])]
    if (SWEEP_CLONE / ".dvc").exists():
        command += ["--projects", str(SWEEP_CLONE)]
    if head and head.commit:
        command += ["--rev", "HEAD", "--num", str(params.commits), "--all-branches", "--all-tags", "--all-experiments"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pipeline_state.die_with_parent())
    if done.returncode:
        raise PipelineError(f"dvc gc failed: {' '.join(done.stderr.split())[:300]}")
    return sum(int(count) for count in re.findall(r"Removed (\d+) objects", done.stdout + done.stderr))
