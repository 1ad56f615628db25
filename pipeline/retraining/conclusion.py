"""How a run of the scheduled job ends: what is past its time goes, the record is kept, somebody is told, git commits.

None of it hides how the run ended: what fails here is a warning, and the next run makes up for it.
"""

from pathlib import Path

from pipeline.project import checkouts, provenance
from pipeline.project.errors import PipelineError
from pipeline.project.params import Params
from pipeline.project.paths import RETRAIN_RECORDS
from pipeline.registry import decisions, versions
from pipeline.retraining import notifications, records, retention, triggers
from pipeline.retraining.records import FAILED, PROMOTED, REJECTED, SKIPPED, Record
from pipeline.tracking import runs

_TOLD = (PROMOTED, REJECTED, FAILED)
_CATCH_UP = 20
"""Records of earlier runs that are brought into an MLflow store that was away, at most."""


def remove_what_is_past(params: Params, known: list[Record], record: Record) -> None:
    """Removes what is past its time, and after a training what DVC needs no more; that it cannot is no failure."""
    try:
        found = retention.plan(params.retrain.retention, params.dataset, known)
        record["retention"] = found.as_dict()
        if found:
            print(found, flush=True)
            retention.apply(found, params.dataset)
        if record["outcome"] in (PROMOTED, REJECTED):
            record["retention"]["cached_objects"] = retention.collect_cache(params.retrain.retention)
    except _store_errors() as error:
        print(f"warning: not everything that is past its time could be removed: {one_line(error)}", flush=True)


def conclude(record: Record, known: list[Record], *, commit: bool) -> None:
    """Writes the record, brings it into MLflow, tells, and commits; what an earlier run was killed before is made up
    for. None of these hides how the run ended."""
    failures = []
    print(f"{record['outcome']}: {record['reason']}", flush=True)
    try:
        records.write(record)
        for one in [*(old for old in known if "mlflow_run" not in old), record][-_CATCH_UP:]:
            records.publish(one)
    except _store_errors() as error:
        failures.append(f"the record is not all written, or not in MLflow yet; the next run does it: {one_line(error)}")
    for one in [*known[-1:], record]:
        if one["outcome"] in _TOLD and not one.get("told"):
            failures += notifications.tell(str(one["outcome"]), _message(one))
            try:
                records.write(one | {"told": True})
            except PipelineError as error:
                failures.append(f"that somebody was told is not noted, the next run tells again: {error}")
    if commit:
        try:
            _commit(record)
        except _store_errors() as error:
            failures.append(f"nothing was committed: {error}")
    for failure in failures:
        print(f"warning: {failure}", flush=True)


def _store_errors() -> tuple[type[Exception], ...]:
    """What a store raises that is away or refuses, and a full disk; an `except` clause is evaluated only then."""
    from mlflow.exceptions import MlflowException

    return (PipelineError, MlflowException, OSError)


def one_line(error: BaseException) -> str:
    """Returns what an error says, on one line and not too long."""
    return " ".join(str(error).split())[:200]


def _message(record: Record) -> str:
    before, after = record.get("champion_before"), record.get("champion_after")
    moved = f"champion: version {before or 'none'} → {after or 'none'}" if before != after else f"champion: {after}"
    name = versions.registered_name(str(record["dataset"]))
    return f"{name}, retraining run {record['run']}: {record['outcome']}\n{record['reason']}\n{moved}"


def _commit(record: Record) -> None:
    """Commits what jobs write: DVC's lock, the data set's pointer, and reports, the decisions there are now among them;
    not for records of idle runs alone."""
    if triggers.is_registered(str(record["dataset"])):
        decisions.export(decisions.read(runs.connect(), versions.registered_name(str(record["dataset"]))))
    paths = [path for path in provenance.WRITTEN_BY_JOBS if Path(path).exists()]
    changed = checkouts.git("status", "--porcelain", "--untracked-files=all", "--", *paths).splitlines()
    if record["outcome"] == SKIPPED and all(RETRAIN_RECORDS.as_posix() in line for line in changed):
        return
    checkouts.git("add", "--", *paths)
    subject = f"Retraining run {record['run']}: {record['outcome'].lower()}"
    checkouts.git("commit", "--quiet", "--message", f"{subject}\n\n{record['reason']}", "--", *paths)
