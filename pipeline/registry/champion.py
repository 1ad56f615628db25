"""Who is champion: the registered model's aliases, held to a ledger of decisions.

A decision is its line in the ledger; the alias `champion` and the head's tag are derived from it, and written after
it. A command that is killed in between leaves a line that the next one finds ahead of the tag, and completes. So a
decision is taken once or not at all, and a reader of `champion` sees the version before or the one after it.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.project import provenance
from pipeline.project.errors import PipelineError, UsageError
from pipeline.registry.ledger import Ledger, Line, head
from pipeline.registry.versions import (
    CHAMPION,
    alias_version,
    all_versions,
    ledger_file,
    require_registered,
    require_servable,
    resolve,
)
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

REGISTRY_ID = "ledger.registry"
HEAD = "ledger.head"
ROLLED_BACK = "rolled back"
_DESCRIPTION = "Sentiment of a movie review from its raw text."


@dataclass
class Registry:
    """A registered model with its ledger, held by this process alone; `completed` is the line of an interrupted
    command that was completed on opening, None if there was none."""

    client: "MlflowClient"
    name: str
    ledger: Ledger
    lines: list[Line]
    registry_id: str
    completed: Line | None = None

    @property
    def champion(self) -> str | None:
        """The champion's version by the ledger; where that has no line yet, by the alias."""
        return self.lines[-1]["to"] if self.lines else alias_version(self.client, self.name, CHAMPION)

    def require_alias(self) -> None:
        """Raises PipelineError if somebody moved the alias past the ledger."""
        if problem := moved_alias(alias_version(self.client, self.name, CHAMPION), self.champion):
            raise PipelineError(problem)

    def record(
        self, decision: str, to: str | None, reason: str, evidence: Mapping[str, Any] | None = None, **other: Any
    ) -> Line:
        """Writes a decision's line, which decides it, and then what follows from it."""
        entry = {
            "registered_model": self.name,
            "registry": self.registry_id,
            "decision": decision,
            "from": self.champion,
            "to": to,
            "reason": reason,
            "evidence": dict(evidence or {}),
            **_provenance(),
            **other,
        }
        self.lines.append(self.ledger.append(entry))
        self.complete()
        return self.lines[-1]

    def complete(self) -> None:
        """Brings the alias, then the head's tag, to the last line."""
        champion = self.lines[-1]["to"]
        if champion is not None and alias_version(self.client, self.name, CHAMPION) != champion:
            self.client.set_registered_model_alias(self.name, CHAMPION, champion)
        self.client.set_registered_model_tag(self.name, HEAD, head(self.lines))


@contextmanager
def opened(name: str, *, create: bool = False) -> Iterator[Registry]:
    """Holds the registered model `name` and its ledger, and completes what an interrupted command began.

    Raises:
        BusyError: another command holds it.
        PipelineError: the ledger is not the one that the registry's tag speaks of, or MLflow refused something.
        UsageError: there is no such registered model, and `create` is false.
    """
    client = runs.connect()
    from mlflow.exceptions import MlflowException

    ledger = Ledger(ledger_file(name))
    try:
        with ledger.locked():
            registry = _open(client, name, ledger, create)
            yield registry
    except MlflowException as error:
        raise PipelineError(f"MLflow refused a change of {name}: {' '.join(str(error).split())[:300]}") from error


def _open(client: "MlflowClient", name: str, ledger: Ledger, create: bool) -> Registry:
    if not client.search_registered_models(f"name = '{name}'"):
        if not create:
            require_registered(client, name)
        client.create_registered_model(name, tags={REGISTRY_ID: uuid.uuid4().hex}, description=_DESCRIPTION)
    tags = client.get_registered_model(name).tags
    contents = ledger.read()
    if foreign_ledger(contents.lines, tags):
        _set_aside(ledger, str(contents.lines[0]["registry"]))
        contents = ledger.read()
    problems = contents.problems or head_problems(ledger.path, contents.lines, tags)
    if problems:
        raise PipelineError(f"{problems[0]}; nothing was changed: `sentiment registry verify` says how to mend it")
    if REGISTRY_ID not in tags:  # registered before there were ledgers
        client.set_registered_model_tag(name, REGISTRY_ID, uuid.uuid4().hex)
        tags = client.get_registered_model(name).tags
    registry = Registry(client, name, ledger, contents.lines, tags[REGISTRY_ID])
    if tags.get(HEAD, "") != head(registry.lines):
        registry.complete()
        registry.completed = registry.lines[-1]
    return registry


def foreign_ledger(lines: list[Line], tags: Mapping[str, str]) -> bool:
    """Whether the ledger is that of an earlier registry, whose store is gone: this one is another, and still new."""
    return bool(lines) and REGISTRY_ID in tags and HEAD not in tags and lines[0].get("registry") != tags[REGISTRY_ID]


def _set_aside(ledger: Ledger, registry_id: str) -> None:
    aside = ledger.path.with_name(f"{ledger.path.stem}.{registry_id[:8]}.jsonl")
    ledger.path.rename(aside)
    print(f"the ledger of a registry that is gone was kept as {aside}")


def head_problems(file: Path, lines: list[Line], tags: Mapping[str, str]) -> list[str]:
    """Says where the ledger and the registry's tags contradict each other.

    The tag is the head of the last line, or, after an interrupted command, of the line before it.
    """
    if lines and lines[-1].get("registry") != tags.get(REGISTRY_ID):
        return [f"{file} is the ledger of another registry, or the registered model's tag {REGISTRY_ID} was changed"]
    tag = tags.get(HEAD, "")
    if tag in (head(lines), head(lines[:-1])):
        return []
    last, known = len(lines), tag.partition(":")[0] or "0"
    if not tag:
        return [f"the registered model's tag {HEAD} was removed: {file} has {last} lines"]
    if known.isdecimal() and int(known) > last:
        return [f"{file} was truncated, or is not the registry's own: it has {last} lines of {known}"]
    return [f"{file} was rewritten: its line {known} is not the one that the registry's tag {HEAD} speaks of"]


def moved_alias(alias: str | None, champion: str | None) -> str | None:
    """Says that the alias stands elsewhere than the ledger has it, and how to mend that; None where it does not."""
    if alias == champion:
        return None
    where = f"at version {alias}" if alias else "nowhere"
    by_ledger = f"version {champion}" if champion else "none"
    return (
        f"the alias {CHAMPION} points {where}, but by the ledger the champion is {by_ledger}: it was moved by hand; "
        "`sentiment registry promote VERSION --reason …` enters the version that is to be champion"
    )


def promote(name: str, alias_or_version: str, reason: str) -> Line | None:
    """Makes a version champion by hand, also one that the alias was moved to or from past the ledger.

    Returns:
        The decision's line, also where it only had to be completed; None where the version is champion already.
    """
    reason = _required(reason)
    with opened(name) as registry:
        version = resolve(registry.client, name, alias_or_version)
        require_servable(version)
        to = str(version.version)
        alias = alias_version(registry.client, name, CHAMPION)
        if to == registry.champion == alias and registry.lines:
            return registry.completed
        moved = {"alias_was": alias} if alias != registry.champion else {}
        return registry.record("promoted", to, reason, {"by_hand": True, **moved})


def rollback(name: str, reason: str) -> Line:
    """Makes the version champion that was promoted last before the present one and still is there.

    A rollback that was interrupted is completed, and no second one made.

    Raises:
        PipelineError: there is none, or the alias was moved by hand.
    """
    reason = _required(reason)
    with opened(name) as registry:
        if registry.completed and registry.completed["decision"] == ROLLED_BACK:
            return registry.completed
        registry.require_alias()
        there = {str(version.version): version for version in all_versions(registry.client, name)}
        for earlier in reversed(promoted(registry.lines)[:-1]):
            if earlier in there and earlier != registry.champion:
                require_servable(there[earlier])
                return registry.record(ROLLED_BACK, earlier, reason)
        raise PipelineError(f"no version of {name} was promoted before the present champion; there is nothing to go to")


def promoted(lines: list[Line]) -> list[str]:
    """Returns the versions that were promoted one after the other and not rolled back, the present champion last."""
    stack: list[str] = []
    for line in lines:
        to = line["to"]
        if line["decision"] == ROLLED_BACK:
            while stack and stack[-1] != to:
                stack.pop()
        elif to is not None and (not stack or stack[-1] != to):
            stack.append(to)
    return stack


def rolled_back(lines: list[Line], version_weights: Mapping[str, str], weights: str) -> Line | None:
    """Returns the rollback that took these weights out of service, None where nobody did or they came back by hand.

    Args:
        version_weights: version → hash of its weights.
        weights: the hash of the weights asked about.
    """
    found = None
    for line in lines:
        if line["decision"] == ROLLED_BACK and version_weights.get(line["from"]) == weights:
            found = line
        elif line["from"] != line["to"] and version_weights.get(line["to"]) == weights:
            found = None
    return found


def decision_key(facts: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what a decision rests on: where a line has it, that decision was taken already."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _required(reason: str) -> str:
    if not reason.strip():
        raise UsageError("--reason is empty; say why, for those who read the ledger later")
    return reason.strip()


def _provenance() -> dict[str, Any]:
    """Returns the git commit and the SHA-256 of dvc.lock that a decision was taken from, None where there is none."""
    lock = provenance.LOCK_FILE
    return {
        "git_commit": provenance.git_commit(),
        "dvc_lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
    }
