"""What a run of the scheduled job takes in, and whether it trains; a dry run prints both."""

from dataclasses import asdict
from typing import Any

from pipeline.data import intake
from pipeline.data.intake import Finding, Known
from pipeline.data.labelled import read_labelled
from pipeline.project.errors import DataError, PipelineError, one_line
from pipeline.project.params import Params
from pipeline.registry import champion, versions
from pipeline.retraining import pipeline_state, records, retention, triggers
from pipeline.retraining.records import PROMOTED, REJECTED, Record
from pipeline.tracking import runs


def take_in(params: Params, known: Known, *, dry_run: bool = False) -> tuple[list[Finding], list[str], list[str]]:
    """Takes in the files that are ready in `data/incoming/`, in a dry run only into `known`, and prints what they hold.
    Those that are refused stay there until `set_aside`.

    Returns:
        What was found in each file, and a sentence about each that is left there, and about each that is refused or
        could not be read or moved: none keeps another from being taken in.
    """
    files, left = intake.incoming(params.retrain.intake)
    findings, refused = [], []
    for file in files:
        try:
            finding = intake.examine(file, known, params.retrain.intake)
            taken = dry_run or finding.problem or intake.take(finding)
        except Exception as error:  # whatever a library raises for a file that nobody foresaw
            if isinstance(error, PipelineError) and not isinstance(error, DataError):
                raise  # a full disk, or a folder that is read-only, is no fault of the file
            refused.append(f"{file} is left: {type(error).__name__}: {one_line(error)}")
            print(refused[-1], flush=True)
            continue
        if not taken:
            left.append(f"{file} is left for the next time: it changed while it was read")
            continue
        print(f"would {'refuse' if finding.problem else 'take in'} {finding}" if dry_run else finding, flush=True)
        known.add(finding.added)
        findings.append(finding)
        if finding.problem:
            refused.append(f"{finding}; it stands in {intake.QUARANTINE}")
    for sentence in left:
        print(sentence, flush=True)
    return findings, left, refused


def set_aside(findings: list[Finding]) -> None:
    """Moves the files that are refused to `data/quarantine/`. A run does so when its record says that it refused them:
    should it be killed, the next one knows."""
    for finding in findings:
        if finding.problem and not intake.take(finding):
            print(f"{finding.file} is left for the next time: it changed while it was read", flush=True)


def decide(params: Params, known: Known, past: list[Record], *, force: bool, may_score: bool) -> dict[str, Any]:
    """Decides whether to train, after the runs of `past`, on the reviews that are `known`: those that are not in the
    data set yet count as a change. See `triggers.triggers` for the other arguments.

    Returns:
        What the record says of it: decision (train or skip), reason, key, changed_stages, triggers.

    Raises:
        PipelineError: the champion was deleted, or moved without a decision: a training would not bring one.
    """
    if triggers.is_registered(params.dataset):
        name = versions.registered_name(params.dataset)
        if lost := champion.lost_champion(runs.connect_to_read(), name):
            raise PipelineError(lost)
    unfinished = records.unfinished(past)
    number = unfinished["run"] if unfinished else None
    found = triggers.triggers(params, known, unfinished=number, force=force, may_score=may_score)
    state = pipeline_state.read_state()
    print("\n".join([f"{'fires':12}  {'trigger':19}  figures", *map(str, found)]))
    decision = "skip"
    reason = "; ".join(f"{trigger.name}: {trigger.sentence}" for trigger in found if trigger.fired)
    if not reason:
        reason = "no trigger fires"
    elif state.changed or unfinished or len(known.labelled) > len(read_labelled()):
        decision = "train"
    else:
        same = [one for one in past if one.get("key") == state.key and one["outcome"] in (PROMOTED, REJECTED)]
        earlier = f"run {same[-1]['run']}, {same[-1]['outcome']}" if same else "the last `dvc repro`"
        reason += f"; but data, params and code are those of {earlier}, so nothing new would come out"
    return {
        "key": state.key,
        "changed_stages": list(state.changed),
        "triggers": list(map(asdict, found)),
        "decision": decision,
        "reason": reason,
    }


def explain(params: Params, *, force: bool) -> None:
    """Prints what a run would do now, and changes nothing."""
    known, past = Known(params), records.read_all()
    _, _, found_refused = take_in(params, known, dry_run=True)
    refused = records.also_refused(past, found_refused)
    found = decide(params, known, past, force=force, may_score=False)
    print(f"changed stages: {', '.join(found['changed_stages']) or 'none'}; key {found['key'][:12]}")
    fails = refused and found["decision"] == "skip"
    sentences = [*refused, found["reason"]] if fails else [found["reason"], *refused]
    print(f"decision: {'fail' if fails else found['decision']}: {'; '.join(sentences)}")
    print(f"afterwards: {retention.plan(params.retrain.retention, params.dataset, past)}")
    objects = retention.collect_cache(params.retrain.retention, dry=True)
    print(f"after a training, {objects} objects of DVC's cache too")
