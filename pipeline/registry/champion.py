"""Who is champion: the alias `champion` of a registered model, which follows the history of decisions.

Any number of commands, on any number of machines, may work on one MLflow store: there is no lock. A command reads the
history, chooses, and appends its decision; where somebody was quicker its entry is void, and it chooses again. The last
entry is the decision. Then the alias is brought to it, both are read again until they agree, and the entry is marked as
applied. A command that is killed in between leaves an entry that is not, which the next one completes. So a decision is
taken once or not at all, and a reader of `champion` sees the version before or the one after it. An alias has no
compare-and-set: a command that slept just before it moved the alias, and is killed just after, leaves it at a version
that is champion no more; `verify` reports it as moved without a decision, and `promote` mends it.
"""

import hashlib
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.project import provenance
from pipeline.project.errors import BusyError, PipelineError, UsageError, one_line
from pipeline.registry import decisions, model_description, versions
from pipeline.registry.decisions import Entry, History
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DESCRIPTION = "Sentiment of a movie review from its raw text."
_ATTEMPTS = 10


@dataclass(frozen=True)
class Choice:
    """A decision that is to be taken: which, the version that is champion after it, why, and on what grounds."""

    decision: str
    to: str | None
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Registry:
    """A registered model with its history as it was read last.

    `completed` is the decision of an interrupted command that was completed on opening, None if there was none. With
    `accept_damage` a decision may be taken on a damaged history, and names the damage.
    """

    client: "MlflowClient"
    name: str
    accept_damage: bool = False
    history: History = field(default_factory=History)
    completed: Entry | None = None

    @property
    def lines(self) -> list[Entry]:
        """The decisions, the oldest first."""
        return self.history.lines

    @property
    def champion(self) -> str | None:
        """The champion's version by the last decision; where there is none yet, by the alias."""
        return self.lines[-1]["to"] if self.lines else versions.alias_version(self.client, self.name, versions.CHAMPION)

    def require_alias(self) -> None:
        """Raises PipelineError if somebody deleted the champion, or moved the alias without a decision."""
        if problem := moved_alias(self.client, self.name, self.champion):
            raise PipelineError(problem)

    def decide(self, choose: Callable[[], Choice | Entry | None]) -> Entry | None:
        """Takes the decision that `choose` makes of this registry, and brings the alias to it.

        Args:
            choose: called anew, on the history as it stands then, whenever another command decided first. Where it
                returns no Choice, nothing is decided.

        Returns:
            The decision's entry, or what else `choose` returned.

        Raises:
            BusyError: other commands were quicker each time.
            PipelineError: the history is damaged, or the store did not take the entry.
        """
        from mlflow.exceptions import MlflowException

        entry_id, refusal = uuid.uuid4().hex, ""
        for _ in range(_ATTEMPTS):
            chosen = choose()
            if not isinstance(chosen, Choice):
                return chosen
            try:
                decisions.append(self.client, self.name, self.history, self._facts(chosen), entry_id)
                refusal = ""
            except MlflowException as error:
                refusal = one_line(error)
            self.settle()
            if entry := self.history.find(entry_id):
                return entry
        if refusal:
            raise PipelineError(f"MLflow did not take a decision about {self.name}: {refusal}")
        raise BusyError(f"other commands kept deciding about {self.name}; nothing was decided, try again")

    def _facts(self, chosen: Choice) -> Entry:
        lock = provenance.LOCK_FILE
        return {
            "registered_model": self.name,
            "decision": chosen.decision,
            "from": self.champion,
            "to": chosen.to,
            "reason": chosen.reason,
            "evidence": dict(chosen.evidence),
            "git_commit": provenance.git_commit(),
            "dvc_lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
            **({"accepts": self.history.problems} if self.history.problems else {}),
        }

    def settle(self) -> Entry | None:
        """Reads the history, takes over a ledger, and brings the alias to the last decision; returns that decision if
        it was not applied yet.

        Raises:
            BusyError: the alias did not stay where it was brought, as other commands decided.
            PipelineError: the history is damaged, and that is not accepted.
        """
        completed, moved = None, False
        for _ in range(_ATTEMPTS):
            alias = versions.alias_version(self.client, self.name, versions.CHAMPION)
            self.history = decisions.read(self.client, self.name)
            if self.history.problems:
                if self.accept_damage:
                    return None
                raise PipelineError(
                    f"{self.history.problems[0]}; nothing was decided: `sentiment registry verify` says how to mend it"
                )
            if self.history.ledger:
                decisions.take_over(self.client, self.name, self.history)
                continue
            if not self.history.entries or (self.history.applied and not moved):
                return completed
            last = self.history.entries[-1]
            completed = completed if self.history.applied else last
            if last["to"] not in (None, alias):  # also where this command itself was slow, and moved it back
                if last["to"] not in versions.all_versions(self.client, self.name):
                    return completed  # it was deleted: `require_alias` reports it, and a promotion goes on
                self.client.set_registered_model_alias(self.name, versions.CHAMPION, last["to"])
                moved = True
                continue
            if not self.history.applied:
                decisions.mark_applied(self.client, self.name, last)
            return completed
        raise BusyError(f"other commands kept deciding about {self.name}; try again")


@contextmanager
def opened(name: str, *, create: bool = False, accept_damage: bool = False) -> Iterator[Registry]:
    """Yields the registered model `name` with its history, once what an interrupted command began is completed; then
    its description says who is champion and why.

    Raises:
        PipelineError: the history is damaged, and that is not accepted, or MLflow refused something.
        UsageError: there is no such registered model, and `create` is false.
    """
    client = runs.connect()
    from mlflow.exceptions import MlflowException

    try:
        if create:
            decisions.make_model(client, name, _DESCRIPTION)
        versions.require_registered(client, name)
        decisions.begin(client, name, anew=accept_damage)
        registry = Registry(client, name, accept_damage)
        registry.completed = registry.settle()
        yield registry
        _describe(registry)
    except MlflowException as error:
        raise PipelineError(f"MLflow refused a change of {name}: {one_line(error)}") from error


def _describe(registry: Registry) -> None:
    """Writes the registered model's description, unless somebody put another one in its place. Of two commands at once
    the older one may write last: the next one corrects it."""
    client, name, champion = registry.client, registry.name, registry.champion
    found = client.get_registered_model(name).description or ""
    version = versions.all_versions(client, name).get(str(champion))
    run = runs.find_run(client, str(version.run_id)) if version else None
    description = model_description.of_model(_DESCRIPTION, registry.lines, version, run.data.metrics if run else {})
    if found != description and (not found or found.startswith(_DESCRIPTION)):
        client.update_registered_model(name, description)


def moved_alias(client: "MlflowClient", name: str, champion: str | None) -> str | None:
    """Says that the alias is not at the `champion` of the last decision, or this one was deleted, and how to mend that;
    None where all is well."""
    alias = versions.alias_version(client, name, versions.CHAMPION)
    if alias == champion:
        return None
    if champion and champion not in (left := versions.all_versions(client, name)):
        others = f"makes one of the versions {', '.join(left)} champion" if left else "makes it champion"
        first = "" if left else "`dvc repro --force --single-item register` registers what is trained here, then "
        return (
            f"{name} has no champion: version {champion}, which is it by the last decision, was deleted; {first}"
            f"`sentiment registry promote VERSION --reason …` {others}"
        )
    where = f"at version {alias}" if alias else "nowhere"
    decided = f"version {champion}" if champion else "none"
    return (
        f"the alias champion points {where}, but by the last decision the champion is {decided}: it was moved without "
        "a decision; `sentiment registry promote VERSION --reason …` enters the version that is to be champion"
    )


def lost_champion(client: "MlflowClient", name: str) -> str | None:
    """Says that the version that the last decision made champion is it no more, as somebody deleted it or moved the
    alias, and how to mend that; None where all is well, or the history is damaged, or a decision not completed yet."""
    history = decisions.read(client, name)
    if not history.entries or not history.applied or history.problems:
        return None
    return moved_alias(client, name, history.entries[-1]["to"])


def promote(name: str, alias_or_version: str, reason: str, *, accept_damage: bool = False) -> Entry | None:
    """Makes a version champion on a person's word, also where the alias was moved without a decision, and with
    `accept_damage` where the history is damaged: the decision names the damage, which is none from then on.

    Returns:
        The decision, also where it only had to be completed; None where the version is champion already.
    """
    reason = _required(reason)
    with opened(name, accept_damage=accept_damage) as registry:
        version = versions.resolve(registry.client, name, alias_or_version)
        versions.require_servable(version)
        to = str(version.version)

        def choose() -> Choice | Entry | None:
            alias = versions.alias_version(registry.client, name, versions.CHAMPION)
            if to == registry.champion == alias and registry.lines and not registry.history.problems:
                completed = registry.completed
                return completed if completed and (completed["decision"], completed["to"]) == ("promoted", to) else None
            moved = {"alias_was": alias} if alias != registry.champion else {}
            return Choice("promoted", to, reason, {"by_hand": True, **moved})

        return registry.decide(choose)


def rollback(name: str, reason: str) -> Entry:
    """Makes the version champion that was promoted last before the present one and still is there. A rollback that was
    interrupted is completed, and no second one made.

    Raises:
        PipelineError: there is none, the alias was moved without a decision, or another command changes the champion
            meanwhile.
    """
    reason = _required(reason)
    with opened(name) as registry:
        present = registry.champion

        def choose() -> Choice | Entry:
            if registry.completed and registry.completed["decision"] == decisions.ROLLED_BACK:
                return registry.completed
            if registry.champion != present:
                raise PipelineError(
                    f"another command made version {registry.champion} champion meanwhile; nothing was rolled back"
                )
            registry.require_alias()
            there = versions.all_versions(registry.client, name)
            for earlier in reversed(promoted(registry.lines)[:-1]):
                if earlier in there and earlier != present:
                    versions.require_servable(there[earlier])
                    return Choice(decisions.ROLLED_BACK, earlier, reason)
            raise PipelineError(
                f"no version of {name} was promoted before the present champion; there is nothing to go to"
            )

        entry = registry.decide(choose)
        assert entry is not None  # `choose` always returns something
        return entry


def promoted(lines: list[Entry]) -> list[str]:
    """Returns the versions that were promoted one after the other and not rolled back, the present champion last."""
    stack: list[str] = []
    for line in lines:
        to = line["to"]
        if line["decision"] == decisions.ROLLED_BACK:
            while stack and stack[-1] != to:
                stack.pop()
        elif to is not None and stack[-1:] != [to]:
            stack.append(to)
    return stack


def rolled_back(lines: list[Entry], numbers: Collection[str]) -> Entry | None:
    """Returns the rollback that took one of these versions out of service, None where none did or one of them was
    promoted after it."""
    for line in reversed(lines):
        if line["decision"] == decisions.ROLLED_BACK and line["from"] in numbers:
            return line
        if line["from"] != line["to"] and line["to"] in numbers:
            return None
    return None


def _required(reason: str) -> str:
    if not reason.strip():
        raise UsageError("--reason is empty; say why, for those who read the history later")
    return reason.strip()
