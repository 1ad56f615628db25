"""How a run of the scheduled job ends: what its training brought, what is past its time goes, the record is written,
the store is backed up, somebody is notified, git commits. What fails of the latter is a warning, and the next run makes
up for it.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.project import checkouts, provenance
from pipeline.project.atomic import read_json
from pipeline.project.errors import PipelineError, one_line, store_errors
from pipeline.project.params import Params
from pipeline.project.paths import REGISTRY_REPORT, RETRAIN_RECORDS, run_file
from pipeline.registry import decisions, versions
from pipeline.retraining import notifications, records, retention, triggers
from pipeline.retraining.records import PROMOTED, REJECTED, SKIPPED, Record
from pipeline.tracking import backups, runs
from pipeline.tracking.fitted_runs import FITTED

_OUTCOMES = {"first": PROMOTED, "promoted": PROMOTED, "updated": PROMOTED, "kept": REJECTED}
_CATCH_UP = 20
"""Earlier runs whose record is brought into an MLflow store that was away, or whose end is told, at most."""


def before_training(params: Params) -> dict[str, Any]:
    """Returns what a training may change, as a record has it: champion, decisions, and the runs of the models."""
    champion = triggers.aliased(params.dataset).get(versions.CHAMPION)
    lines = _decisions(params.dataset).lines
    files = {model: run_file(model) for model in (*params.models, *FITTED) if run_file(model).exists()}
    return {
        "champion_before": champion and str(champion.version),
        "decisions_before": lines[-1]["seq"] if lines else 0,
        "decisions_begin": lines[0]["hash"] if lines else None,
        "models_before": {model: read_json(file, ["run_id"])["run_id"] for model, file in files.items()},
    }


def _decisions(dataset: str) -> decisions.History:
    there = triggers.is_registered(dataset)
    return decisions.read(runs.connect(), versions.registered_name(dataset)) if there else decisions.History()


def after_training(record: Record, params: Params) -> dict[str, Any]:
    """Returns what came of the training: what `register` decided since this run, or the one it goes on with, began."""
    report = read_json(REGISTRY_REPORT, ("decision", "reason"))
    now, models = before_training(params), record["models_before"]
    begun_anew = now["decisions_begin"] not in (None, record["decisions_begin"])  # with a new store
    newer = begun_anew or report.get("entry", {}).get("seq", 0) > record["decisions_before"]
    outcome, reason = SKIPPED, f"the same model came out as before (ran for {record['reason']})"
    if newer and report["decision"] in _OUTCOMES:  # no rollback by a person, which the report may be of
        outcome = _OUTCOMES[report["decision"]]
        reason = f"{report['reason']} (trained for {record['reason']})"
    return {
        "champion_after": now["champion_before"],
        "children": {model: run for model, run in now["models_before"].items() if models.get(model) != run},
        "challenger": report.get("challenger"),
        "outcome": outcome,
        "reason": reason,
    }


def remove_what_is_past(params: Params, past: list[Record], record: Record) -> None:
    """Removes what is past its time, and after a training what DVC needs no more."""
    limits = params.retrain.retention
    with _warning("not everything that is past its time could be removed"):
        found = retention.plan(limits, params.dataset, past)
        record["retention"] = {name: len(gone) for name, gone in vars(found).items()}
        if found:
            print(found, flush=True)
            retention.apply(found, params.dataset)
        if record["outcome"] in (PROMOTED, REJECTED):
            record["retention"]["cached_objects"] = retention.collect_cache(limits)


def conclude(record: Record, past: list[Record], *, commit: bool) -> None:
    """Writes the record, brings it into MLflow, backs the store up, notifies, and commits, also what an earlier run was
    killed before."""
    print(f"{record['outcome']}: {record['reason']}", flush=True)
    with _warning("the record is not all written, or not in MLflow yet; the next run does it"):
        records.write(record)
        for one in [*(old for old in past if "mlflow_run" not in old), record][-_CATCH_UP:]:
            records.publish(one)
    with _warning("the store is not backed up; the next run does it"):
        backups.back_up()
    untold = list(itertools.takewhile(lambda one: not one.get("told"), reversed([*past[-_CATCH_UP:], record])))
    for one in reversed(untold):
        if one["outcome"] != SKIPPED:
            warn(notifications.notify(one["outcome"], _message(one)))
            with _warning("that somebody was notified is not noted, the next run notifies again"):
                records.write(one | {"told": True})
    if commit:
        with _warning("nothing was committed"):
            _commit(record)


def warn(failures: Iterable[str]) -> None:
    """Prints what failed and is not worth the run."""
    for failure in failures:
        print(f"warning: {failure}", flush=True)


@contextmanager
def _warning(consequence: str) -> Iterator[None]:
    """Prints what the block raises where a store is away or refuses, or the disk is full, and goes on."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (PipelineError, OSError, *store_errors())):
            raise
        print(f"warning: {consequence}: {one_line(error)}", flush=True)


def _message(record: Record) -> str:
    before, after = record.get("champion_before"), record.get("champion_after")
    moved = f"champion: version {before or 'none'} → {after or 'none'}" if before != after else f"champion: {after}"
    name = versions.registered_name(str(record["dataset"]))
    refused = [sentence for sentence in record.get("refused", []) if sentence not in record["reason"]]
    return "\n".join(
        [f"{name}, retraining run {record['run']}: {record['outcome']}", record["reason"], *refused, moved]
    )


def _commit(record: Record) -> None:
    """Commits what jobs write, the decisions there are now among it; not for records of idle runs alone."""
    decisions.export(_decisions(record["dataset"]))
    paths = [path for path in provenance.WRITTEN_BY_JOBS if Path(path).exists()]
    changed = checkouts.git("status", "--porcelain", "--untracked-files=all", "--", *paths).splitlines()
    if record["outcome"] == SKIPPED and all(RETRAIN_RECORDS.as_posix() in line for line in changed):
        return
    checkouts.git("add", "--", *paths)
    subject = f"Retraining run {record['run']}: {record['outcome'].lower()}"
    checkouts.git("commit", "--quiet", "--message", f"{subject}\n\n{record['reason']}", "--", *paths)
