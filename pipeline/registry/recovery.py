"""A backup of the store in its place again, and the decisions since: the backup lacks them, git has them.

A decision is appended again, as it was, where the versions that it names exist in the backup. The others are lost:
their numbers stay empty, and the decision "restored", an entry of its own, accepts that.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.project.errors import PipelineError
from pipeline.registry import decisions, versions
from pipeline.registry.champion import Choice, Entry, opened
from pipeline.registry.decisions import RESTORED, decisions_name
from pipeline.tracking import backups, runs

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Restored:
    """What a restoration did: the backup, where the store before is now, and how many decisions came again or not."""

    backup: Path
    replaced: Path | None
    appended: int
    lost: int

    def __str__(self) -> str:
        lines = [f"the store is {self.backup} again; decisions that were appended again: {self.appended}"]
        if self.replaced:
            lines.append(f"what was there is {self.replaced}")
        if self.lost:
            lines.append(
                f"{self.lost} decisions are lost, about versions that the backup lacks; "
                "`dvc repro --force --single-item register` registers what is trained here"
            )
        return "\n".join(lines)


def restore(backup: Path | None) -> Restored:
    """Puts a backup, by default the newest, in the place of the local store, and appends decisions again.

    Raises:
        UsageError: the store is on a server, or `backup` is no store.
        PipelineError: there is no backup, something is at work on the store, or a history is damaged in the backup or
            in git; with the latter mended it is to be called again.
    """
    chosen, replaced = backups.restore(backup)
    client = runs.connect()
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    appended = lost = 0
    for name in names:
        if decisions_name(name) in names:
            again, gone = _decide_again(client, name, chosen)
            appended, lost = appended + again, lost + gone
    return Restored(chosen, replaced, appended, lost)


def _decide_again(client: "MlflowClient", name: str, backup: Path) -> tuple[int, int]:
    """Appends the decisions about one registered model again; returns how many of them, and how many are lost."""
    history = decisions.read(client, name)
    if history.problems:
        raise PipelineError(
            f"in {backup} {history.problems[0]}; `sentiment registry restore FILE` takes another backup"
        )
    there = versions.all_versions(client, name)
    lacking = {entry["slot"]: entry for entry in decisions.lacking(history)}
    kept = {slot: entry for slot, entry in lacking.items() if _is_known(entry, there)}
    lost = [f"decision {slot} is lost: {backup.name} lacks a version of it" for slot in lacking.keys() - kept.keys()]
    decisions.append_again(client, name, history, {slot: kept.get(slot) for slot in lacking})
    with opened(name, accept_damage=bool(lost)) as registry:

        def choose() -> Choice:
            problems = registry.history.problems
            problems += [problem for problem in lost if problem not in problems]
            alias = versions.alias_version(client, name, versions.CHAMPION)
            ends = (line["to"] for line in reversed(registry.lines))
            to = next((end for end in ends if end is None or end in there), alias)
            evidence = {"backup": backup.name, "appended": sorted(kept), "lost": sorted(lacking.keys() - kept.keys())}
            return Choice(RESTORED, to, f"The store was brought back from its backup {backup.name}.", evidence)

        registry.decide(choose)
        decisions.export(registry.history)
    return len(kept), len(lost)


def _is_known(entry: Entry, there: "dict[str, versions.ModelVersion]") -> bool:
    """Whether the versions that an entry names are, or were, in a store with the versions `there`: later ones get the
    same numbers, and would be taken for them."""
    newest = max(map(int, there), default=0)
    named = {entry["to"], entry["from"], entry["evidence"].get("challenger")} - {None}
    return entry["to"] in (None, *there) and all(int(number) <= newest for number in named)
