"""The scheduled job: take in new labelled reviews, decide whether to train, train, and let the gate decide the rest.

One run at a time, under a lock that all its processes hold. What it does is done by parts that are harmless to do
again: a run that was killed is completed by the next one. Its record says what was decided and why.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.data.intake import Known
from pipeline.project import checkouts, provenance
from pipeline.project.errors import BusyError, DataError, PipelineError, UsageError, one_line
from pipeline.project.locks import JOB_LOCK, exclusive
from pipeline.project.params import Params, load_params
from pipeline.project.paths import RAW, REGISTRY_REPORT, REPORTS
from pipeline.registry import versions
from pipeline.retraining import conclusion, notifications, pipeline_state, records, train_or_skip, triggers
from pipeline.retraining.records import FAILED, SKIPPED, Record
from pipeline.tracking import runs

LOCK = Path(".dvc/tmp/retrain.lock")


def retrain(
    *, force: bool = False, dry_run: bool = False, commit: bool = False, max_minutes: float | None = None
) -> str:
    """Runs the job; returns how it ended: SKIPPED, PROMOTED or REJECTED. `sentiment retrain --help` has the arguments.

    Raises:
        BusyError: another retraining is under way.
        UsageError: an option, params.yaml or the checkout's state does not allow it.
        DataError: data was rejected.
        PipelineError: it failed; the record says so too, and somebody was notified.
    """
    if dry_run:
        params = _checked_params(commit)
        with exclusive(LOCK, "a retraining"):
            train_or_skip.explain(params, force=force)
        return SKIPPED
    with _end_pinged():
        with _failure_notified():
            params = _checked_params(commit)
        with exclusive(LOCK, "a retraining"):
            conclusion.warn(notifications.ping("/start"))
            os.environ[JOB_LOCK] = str(LOCK.resolve())  # whatever this process starts ends with it
            minutes = params.retrain.max_minutes if max_minutes is None else max_minutes
            return _run(params, force=force, commit=commit, deadline=time.monotonic() + 60 * minutes)


@contextmanager
def _end_pinged() -> Iterator[None]:
    """Lets a dead-man's switch know how the block ended, if it was not that another run is under way."""
    state: str | None = "/fail"
    try:
        yield
        state = ""
    except BusyError:
        state = None
        raise
    finally:
        if state is not None:
            conclusion.warn(notifications.ping(state))


@contextmanager
def _failure_notified() -> Iterator[None]:
    """Notifies somebody where the run fails before it has a record."""
    try:
        yield
    except Exception as error:
        conclusion.warn(notifications.notify(FAILED, f"retraining failed: {error}"))
        raise


def _checked_params(commit: bool) -> Params:
    """Returns params.yaml; raises UsageError or PipelineError where the run must not begin."""
    _require_checkout(commit)
    runs.tracking_uri()
    return load_params()


def _require_checkout(commit: bool) -> None:
    if experiment := os.environ.get("DVC_EXP_NAME"):
        raise UsageError(f"{experiment} is a DVC experiment; retraining works on the checkout itself")
    if not Path("dvc.yaml").exists():
        raise UsageError(f"dvc.yaml is not in {Path.cwd()}; run the command from the project's root")
    try:
        head = checkouts.head()
    except PipelineError as error:
        if commit:
            raise UsageError(f"--commit needs git: {error}") from None
        return  # the run goes on, and drops nothing that a commit may use
    if commit and (head is None or head.commit is None):
        raise UsageError("--commit needs a git checkout, with a commit")
    if commit and head and head.branch is None:
        raise UsageError("--commit would commit to no branch, since HEAD is detached; `git switch` to a branch first")
    if head is None or head.commit is None:
        return
    if unmerged := checkouts.git("diff", "--name-only", "--diff-filter=U").splitlines():
        raise PipelineError(f"git has conflicts in {', '.join(unmerged)}; resolve them first, nothing was done")
    if commit and (changes := "; ".join(provenance.changes()[:3])):
        raise UsageError(f"--commit needs a clean tree, but there are changes ({changes}); commit or undo them")


def _run(params: Params, *, force: bool, commit: bool, deadline: float) -> str:
    with _failure_notified():
        past = records.read_ended()
        record = records.begin(past, params.dataset)
    error: Exception | None = None
    with records.timed(record, "all"):
        try:
            with _interruptible():
                _work(record, past, params, force=force, deadline=deadline)
                conclusion.remove_what_is_past(params, past, record)
        except PipelineError as raised:
            error, record["reason"] = raised, str(raised)
        except Exception as raised:  # ours or a library's mistake: recorded and notified, then shown in full
            error, record["reason"] = raised, f"{type(raised).__name__}: {one_line(raised)}"
    if error:
        record["outcome"] = FAILED
    record["ended"] = records.now()
    conclusion.conclude(record, past, commit=commit)
    if error:
        raise error
    return str(record["outcome"])


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets SIGTERM and SIGINT end the block with a PipelineError, the latter also where the caller ignored it."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    except KeyboardInterrupt:
        raise PipelineError("retraining was interrupted; the next run goes on from the last finished epoch") from None
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def _work(record: Record, past: list[Record], params: Params, *, force: bool, deadline: float) -> None:
    _require_disk(params.retrain.min_free_gb)
    with records.timed(record, "intake"):
        if not (RAW / "train.parquet").exists():  # what of new reviews is known already, it alone tells
            pipeline_state.repro(deadline, "download")
        known = Known(params)
        findings, left, refused = train_or_skip.take_in(params, known)
        refused = records.also_refused(past, refused)
        record |= {"taken_in": [finding.as_dict() for finding in findings], "left": left, "refused": refused}
        if refused:
            records.write(record)
        train_or_skip.set_aside(findings)
        pipeline_state.track_labelled()
    with records.timed(record, "decision"):
        if runs.store_exists():
            runs.connect()
        _forget_another_store(params.dataset)
        found = train_or_skip.decide(params, known, past, force=force, may_score=True)
        before, unfinished = conclusion.before_training(params), records.unfinished(past) or {}
        record["champion_before"] = record["champion_after"] = before["champion_before"]
        record |= found | {name: unfinished.get(name, value) for name, value in before.items()}
    print(f"decision: {record['decision']}: {record['reason']}", flush=True)
    if record["decision"] == "skip":
        if refused:
            raise DataError(f"{'; '.join(refused)}; nothing was trained: {record['reason']}")
        record["outcome"] = SKIPPED
        return
    records.write(record)
    with records.timed(record, "repro"):
        pipeline_state.repro(deadline)
    record |= conclusion.after_training(record, params)
    record["reason"] = "; ".join([record["reason"], *refused])


def _require_disk(least_gb: float) -> None:
    for folder in {Path.cwd(), runs.store_folder()}:
        if (free := shutil.disk_usage(folder).free / 1e9) < least_gb:
            asked = f"retrain.min_free_gb asks for {least_gb:g}; free some, or lower it"
            raise PipelineError(f"{free:.1f} GB are free at {folder}, {asked}")


def _forget_another_store(dataset: str) -> None:
    """Lets `track` and `register` run again where their reports are of a store that knows nothing of the model: another
    server, or one that was lost."""
    if REGISTRY_REPORT.exists() and not triggers.is_registered(dataset):
        name = versions.registered_name(dataset)
        print(f"the MLflow store does not know {name}, which {REGISTRY_REPORT} is about: it will be registered anew")
        for file in (REGISTRY_REPORT, *REPORTS.glob("tracked/*.json")):
            file.unlink()
