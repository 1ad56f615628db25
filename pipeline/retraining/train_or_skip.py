"""Whether the scheduled job trains now: what it rests on, what is decided, and what a dry run prints of both."""

from dataclasses import dataclass

from pipeline.data import intake
from pipeline.data.intake import Known
from pipeline.project.params import Params
from pipeline.retraining import pipeline_state, records, retention, triggers
from pipeline.retraining.records import PROMOTED, REJECTED, Record


@dataclass(frozen=True)
class Assessment:
    """What a decision rests on: the champion's version, the pipeline's state, and what the triggers say."""

    champion: str | None
    state: pipeline_state.State
    triggers: list[triggers.Trigger]

    def __str__(self) -> str:
        return "\n".join([f"{'fires':12}  {'trigger':19}  figures", *map(str, self.triggers)])


def assess(params: Params, known: Known, unfinished: Record | None, *, force: bool, scores: bool) -> Assessment:
    """Looks at champion, pipeline and new reviews; see `triggers.triggers` for the arguments."""
    champion = triggers.find_champion(params.dataset)
    found = triggers.triggers(
        params,
        champion,
        triggers.unseen(champion, known.in_splits()),
        known.test,
        unfinished=f"run {unfinished['run']}" if unfinished else None,
        force=force,
        scores=scores,
    )
    return Assessment(triggers.number(champion), pipeline_state.read_state(), found)


def decide(found: Assessment, changed: bool, run: int | None = None) -> tuple[bool, str]:
    """Returns whether to train, and why; `run` is the one that asks."""
    fired = "; ".join(f"{trigger.name}: {trigger.sentence}" for trigger in found.triggers if trigger.fired)
    if not fired:
        return False, "no trigger fires"
    if changed:
        return True, fired
    same = [record for record in records.read_all() if record.get("key") == found.state.key and record["run"] != run]
    by = [
        f"those of run {record['run']}, {record['outcome']}"
        for record in same
        if record["outcome"] in (PROMOTED, REJECTED)
    ]
    known = by[-1] if by else "those of the last `dvc repro`"
    return False, f"{fired}; but data, params and code are {known}, so nothing new would come out"


def explain(params: Params, *, force: bool) -> None:
    """Prints what a run would do now, and changes nothing."""
    files, left = intake.incoming(params.retrain.intake)
    known = Known()
    refused = []
    for file in files:
        finding = intake.examine(file, known, params.retrain.intake)
        known.add(finding.added)
        refused += [str(finding)] if finding.problem else []
        print(f"would {'refuse' if finding.problem else 'take in'} {finding}")
    for sentence in left:
        print(sentence)
    past = records.read_all()
    unfinished = records.unfinished(past)
    found = assess(params, known, unfinished, force=force, scores=False)
    more = len(known.labelled) > len(Known().labelled)
    trains, reason = decide(found, bool(found.state.changed or unfinished or more))
    print(f"{found}\nchanged stages: {', '.join(found.state.changed) or 'none'}; key {found.state.key[:12]}")
    decision = f"fail: {'; '.join(refused)}" if refused else f"{'train' if trains else 'skip'}: {reason}"
    print(f"decision: {decision}")
    print(f"afterwards: {retention.plan(params.retrain.retention, params.dataset, past)}")
    objects = retention.collect_cache(params.retrain.retention, dry=True)
    print(f"after a training, {objects} objects of DVC's cache too")
