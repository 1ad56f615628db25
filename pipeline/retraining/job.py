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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data import intake
from pipeline.data.intake import Known
from pipeline.project import checkouts, provenance
from pipeline.project.atomic import read_json
from pipeline.project.errors import DataError, PipelineError, UsageError
from pipeline.project.locks import JOB_LOCK, exclusive
from pipeline.project.params import Params, load_params
from pipeline.project.paths import REGISTRY_REPORT, REPORTS, run_file
from pipeline.registry import decisions, versions
from pipeline.retraining import conclusion, notifications, pipeline_state, records, train_or_skip, triggers
from pipeline.retraining.records import FAILED, PROMOTED, REJECTED, RUNNING, SKIPPED, Record
from pipeline.tracking import runs

LOCK = Path(".dvc/tmp/retrain.lock")
_DECIDED = {"first": PROMOTED, "promoted": PROMOTED, "kept": REJECTED}


@dataclass(frozen=True)
class Options:
    """What the caller wants: see `sentiment retrain --help`. `max_minutes` None means that of params.yaml."""

    force: bool = False
    dry_run: bool = False
    commit: bool = False
    max_minutes: float | None = None


def retrain(options: Options) -> str:
    """Runs the job; returns how it ended: SKIPPED, PROMOTED or REJECTED.

    Raises:
        BusyError: another retraining is under way.
        UsageError: an option, params.yaml or the checkout's state does not allow it.
        DataError: data was rejected.
        PipelineError: it failed; the record says so too, and somebody was told.
    """
    with _failure_told(options):
        _require_checkout(options)
        params = load_params()
    with exclusive(LOCK, "a retraining"):
        if options.dry_run:
            train_or_skip.explain(params, force=options.force)
            return SKIPPED
        os.environ[JOB_LOCK] = str(LOCK.resolve())  # whatever this process starts ends with it
        return _run(params, options)


@contextmanager
def _failure_told(options: Options) -> Iterator[None]:
    """Tells somebody where the run fails before it has a record."""
    try:
        yield
    except PipelineError as error:
        if not options.dry_run:
            for failure in notifications.tell(FAILED, f"retraining failed: {error}"):
                print(f"warning: {failure}", flush=True)
        raise


def _require_checkout(options: Options) -> None:
    if experiment := os.environ.get("DVC_EXP_NAME"):
        raise UsageError(f"{experiment} is a DVC experiment; retraining works on the checkout itself")
    if not Path("dvc.yaml").exists():
        raise UsageError(f"dvc.yaml is not in {Path.cwd()}; run the command from the project's root")
    if provenance.git_commit() is None:
        if options.commit:
            raise UsageError("--commit needs a git checkout, with a commit")
        return
    if unmerged := checkouts.git("ls-files", "--unmerged").split("\n")[:-1]:
        names = sorted({line.partition("\t")[2] for line in unmerged})
        raise PipelineError(f"git has conflicts in {', '.join(names)}; resolve them first, nothing was done")
    if options.commit and (changes := provenance.changes()):
        raise UsageError(
            f"--commit needs a clean tree, but there are changes ({'; '.join(changes[:3])}); commit or undo them"
        )


def _run(params: Params, options: Options) -> str:
    began = time.monotonic()
    with _failure_told(options):
        known = _close_dead(records.read_all())
        record = records.begin(records.next_number(known), params.dataset)
        records.write(record)
    error: BaseException | None = None
    try:
        with _interruptible():
            _work(record, params, options, records.unfinished(known), began)
            conclusion.remove_what_is_past(params, known, record)
    except PipelineError as raised:
        error, reason = raised, str(raised)
    except KeyboardInterrupt:
        error = PipelineError("retraining was interrupted; the next run goes on from the last finished epoch")
        reason = str(error)
    except Exception as raised:  # ours or a library's mistake: recorded and told, then shown in full
        error, reason = raised, f"{type(raised).__name__}: {conclusion.one_line(raised)}"
    if error:
        record |= {"outcome": FAILED, "reason": reason}
    record["ended"] = records.now()
    record.setdefault("seconds", {})["all"] = round(time.monotonic() - began, 2)
    conclusion.conclude(record, known, commit=options.commit)
    if error:
        raise error
    return str(record["outcome"])


def _close_dead(known: list[Record]) -> list[Record]:
    """Ends the records of runs that were killed: this process holds the lock, so none of them runs."""
    for record in known:
        if record["outcome"] == RUNNING:
            record |= {"outcome": FAILED, "reason": "it was killed", "ended": records.now()}
            records.write(record)
    return known


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets SIGTERM and SIGINT arrive as KeyboardInterrupt, also where the caller ignored the latter."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _work(record: Record, params: Params, options: Options, unfinished: Record | None, began: float) -> None:
    _require_disk(params.retrain.min_free_gb)
    with _timed(record, "intake"):
        _take_in(record, params)
    with _timed(record, "decision"):
        _forget_another_store(params.dataset)
        found = train_or_skip.assess(params, Known(), unfinished, force=options.force, scores=True)
        record["champion_before"] = record["champion_after"] = found.champion
        record |= {"key": found.state.key, "changed_stages": list(found.state.changed)}
        record["triggers"] = [trigger.as_dict() for trigger in found.triggers]
        before = {
            "champion_before": found.champion,
            "decisions_before": lines[-1]["seq"] if (lines := _decisions(params.dataset)) else 0,
            "decisions_begin": lines[0]["hash"] if lines else None,
            "models_before": _model_runs(params),
        }
        record |= {name: (unfinished or {}).get(name, value) for name, value in before.items()}
        trains, reason = train_or_skip.decide(found, bool(found.state.changed) or unfinished is not None, record["run"])
    print(found)
    print(f"decision: {'train' if trains else 'skip'}: {reason}", flush=True)
    record |= {"decision": "train" if trains else "skip", "outcome": RUNNING if trains else SKIPPED, "reason": reason}
    if not trains:
        return
    records.write(record)
    with _timed(record, "repro"):
        minutes = params.retrain.max_minutes if options.max_minutes is None else options.max_minutes
        pipeline_state.repro(began + 60 * minutes)
    _read_outcome(record, params, reason)


def _forget_another_store(dataset: str) -> None:
    """Lets `track` and `register` run again where their reports are of a store that knows nothing of the model: another
    server, or one that was lost."""
    if REGISTRY_REPORT.exists() and not triggers.is_registered(dataset):
        name = versions.registered_name(dataset)
        print(f"the MLflow store does not know {name}, of which {REGISTRY_REPORT} tells: it will be registered anew")
        REGISTRY_REPORT.unlink()
        for file in REPORTS.glob("tracked/*.json"):
            file.unlink()


def _require_disk(least_gb: float) -> None:
    for folder in {Path.cwd(), runs.store_folder()}:
        free = shutil.disk_usage(folder).free / 1e9
        if free < least_gb:
            raise PipelineError(
                f"{free:.1f} GB are free at {folder}, retrain.min_free_gb asks for {least_gb:g}; free some, or lower it"
            )


def _take_in(record: Record, params: Params) -> None:
    """Takes in what is ready in `data/incoming/`; raises DataError once all is done if a file was refused."""
    files, left = intake.incoming(params.retrain.intake)
    known = Known()
    findings = []
    for file in files:
        finding = intake.examine(file, known, params.retrain.intake)
        if not intake.take(finding):
            left.append(f"{file} is left for the next time: it changed while it was read")
            continue
        known.add(finding.added)
        findings.append(finding)
        print(finding, flush=True)
    pipeline_state.track_labelled()
    for sentence in left:
        print(sentence, flush=True)
    record |= {"taken_in": [finding.as_dict() for finding in findings], "left": left}
    if refused := [str(finding) for finding in findings if finding.problem]:
        raise DataError(f"{'; '.join(refused)}; it stands in {intake.QUARANTINE}, and nothing was trained")


def _decisions(dataset: str) -> list[decisions.Entry]:
    """Returns the decisions there are; a store that is not there yet is not made."""
    if not triggers.is_registered(dataset):
        return []
    return decisions.read(runs.connect(), versions.registered_name(dataset)).lines


def _model_runs(params: Params) -> dict[str, str]:
    files = {name: run_file(name) for name in params.models}
    return {name: str(read_json(file, ["run_id"])["run_id"]) for name, file in files.items() if file.exists()}


def _read_outcome(record: Record, params: Params, trigger: str) -> None:
    """Notes what came of the training: what `register` decided since the run, or the one it goes on with, began."""
    report = read_json(REGISTRY_REPORT, ("decision", "reason"))
    champion = triggers.find_champion(params.dataset)
    record["champion_after"] = triggers.number(champion)
    after = _model_runs(params)
    record["children"] = {name: run for name, run in after.items() if record["models_before"].get(name) != run}
    record["challenger"] = report.get("challenger")
    lines = _decisions(params.dataset)
    begun_anew = bool(lines) and lines[0]["hash"] != record["decisions_begin"]  # with a new store
    newer = begun_anew or report.get("entry", {}).get("seq", 0) > record["decisions_before"]
    if newer and report["decision"] in _DECIDED:  # not a rollback by hand, which the report may tell of
        record |= {"outcome": _DECIDED[report["decision"]], "reason": f"{report['reason']} (trained for {trigger})"}
    else:
        record |= {"outcome": SKIPPED, "reason": f"the same model came out as before (ran for {trigger})"}


@contextmanager
def _timed(record: Record, step: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        record.setdefault("seconds", {})[step] = round(time.monotonic() - began, 2)
