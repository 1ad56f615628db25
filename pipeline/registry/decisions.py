"""The history of decisions about the champion of a registered model, kept in the MLflow store itself.

Each entry is one version of the registered model `<name>-decisions`. MLflow gives number and tags in one transaction
and no number twice. So an entry says in `slot` which number it expects, the last one there is plus 1; one that got
another number, because somebody was quicker or a call was sent twice, is void from birth, for every reader. The others
form a chain: `seq` counts decisions, `previous` is the hash of the entry before, `hash` the SHA-256 of the other fields
in canonical JSON. A number that is missing, or an entry that was edited or does not follow, is damage, and nothing is
decided until a person makes an entry that names it in `accepts`.

An entry's tags hold that JSON, in pieces, and `applied` once the alias `champion` stands where the decision has it
(see `champion`). What git has of the history, `reports/decisions/<id>.jsonl`, shows what was changed in the store.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.project.atomic import write_text
from pipeline.project.errors import PipelineError
from pipeline.project.locks import author
from pipeline.project.paths import DECISIONS
from pipeline.registry.versions import all_versions
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

Entry = dict[str, Any]
GENESIS = "0" * 64
"""What stands for the previous hash in the first entry."""
REGISTRY_ID = "decisions.registry"
"""The tag with the history's id: of `<name>-decisions`, and of the registered model itself, so that a history that was
deleted as a whole is missed."""
APPLIED = "applied"
ROLLED_BACK, RESTORED, UPDATED = "rolled back", "restored", "updated"
_PIECE = "entry."
_PIECE_LENGTH = 50_000
"""Characters: MLflow allows 100,000, a MySQL column 65,535."""
_LEDGER_ID, _LEDGER_HEAD = "ledger.registry", "ledger.head"
"""Tags of the registered model from when a file, the ledger, held the decisions."""


@dataclass
class History:
    """The entries that are not void, the oldest first, and what is wrong with them, one sentence each.

    `id` is the history's, "" where there is none yet; `last` the highest number there is, void ones included;
    `applied` whether the alias follows the last entry; `ledger` the lines of a ledger that is to be taken over.
    """

    id: str = ""
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    last: int = 0
    applied: bool = False
    ledger: list[Entry] = field(default_factory=list)

    @property
    def lines(self) -> list[Entry]:
        """The decisions, the oldest first, those of a ledger among them."""
        return [line for entry in self.entries for line in _decided(entry)] or self.ledger

    def find(self, entry_id: str) -> Entry | None:
        """Returns the entry of this id, None where it is not there or void."""
        return next((entry for entry in self.entries if entry["id"] == entry_id), None)


def _decided(entry: Entry) -> list[Entry]:
    """Returns the decisions in an entry: itself, or the lines of the ledger that it took over."""
    return entry.get("taken_over", [entry])


def made_champion(entries: Sequence[Mapping[str, Any]], version: str | None) -> Mapping[str, Any] | None:
    """Returns the last of `entries`, the oldest first, that made `version` champion; None where none did."""
    if version is None:
        return None
    return next((one for one in reversed(entries) if one["to"] == version and one["decision"] != "kept"), None)


def hash_of(entry: Entry) -> str:
    """Returns the SHA-256 of an entry's fields, its own `hash` aside."""
    others = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(_canonical(others).encode()).hexdigest()


def decisions_name(name: str) -> str:
    """Returns the registered model whose versions are the decisions about the registered model `name`."""
    return f"{name}-decisions"


def make_model(client: "MlflowClient", name: str, description: str, **tags: str) -> None:
    """Makes a registered model, unless there is one of this name."""
    from mlflow.exceptions import MlflowException

    if _tags(client, name) is None:
        try:
            client.create_registered_model(name, tags, description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # else another process was quicker
                raise


def begin(client: "MlflowClient", name: str, *, anew: bool) -> None:
    """Makes an empty history of the registered model `name`, unless there is one; with `anew` also where there was one
    that is gone."""
    known = REGISTRY_ID in (_tags(client, name) or {})
    if anew or not known:
        description = f"Decisions about the champion of {name}: see `sentiment registry history`."
        make_model(client, decisions_name(name), description, **{REGISTRY_ID: uuid.uuid4().hex})
    made = (_tags(client, decisions_name(name)) or {}).get(REGISTRY_ID)
    if made and not known:
        client.set_registered_model_tag(name, REGISTRY_ID, made)


def read(client: "MlflowClient", name: str) -> History:
    """Reads and checks the history of the registered model `name`; one that is not there is empty."""
    model = _tags(client, name) or {}  # first: where it names a history, that was there already
    own = _tags(client, decisions_name(name))
    history = History(id=(own or {}).get(REGISTRY_ID, ""))
    versions = {} if own is None else all_versions(client, decisions_name(name))
    found = {int(number): version for number, version in versions.items()}
    history.last = max(found, default=0)
    if model.get(REGISTRY_ID, history.id) != history.id:
        history.problems.append(f"the history {model[REGISTRY_ID]} is gone")
    elif not found:
        _read_ledger(history, name, model)
    for number in range(1, history.last + 1):
        if number not in found:
            history.problems.append(f"decision {number} is missing")
            continue
        tags = found[number].tags
        entry = _parsed("".join(tags[tag] for tag in sorted(tags) if tag.startswith(_PIECE)))
        if entry is None or entry.get("hash") != hash_of(entry):
            history.problems.append(f"decision {number} was edited: its content is not what its hash says")
        elif entry.get("slot") == number:
            if not _follows(entry, history.entries[-1] if history.entries else None, history.id):
                history.problems.append(f"decision {number} does not follow the one before it")
            accepted = entry.get("accepts", [])
            history.problems = [problem for problem in history.problems if problem not in accepted]
            history.entries.append(entry)
            history.applied = APPLIED in tags
    return history


def append(
    client: "MlflowClient", name: str, history: History, facts: Entry, entry_id: str, *, applied: bool = False
) -> None:
    """Sends an entry with `facts` to the store, to stand after those of `history`.

    Neither that it returns nor that it raises says whether the entry is there: read the history, and look for its id.
    """
    before = history.entries[-1] if history.entries else None
    entry = {
        "slot": history.last + 1,
        "id": entry_id,
        "registry": history.id,
        "seq": (before["seq"] if before else 0) + len(_decided(facts)),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "who": author(),
        **facts,
        "previous": before["hash"] if before else GENESIS,
    }
    _send(client, name, entry | {"hash": hash_of(entry)}, applied=applied)


def _send(client: "MlflowClient", name: str, entry: Entry, *, applied: bool) -> None:
    text = _canonical(entry)
    pieces = [text[start : start + _PIECE_LENGTH] for start in range(0, len(text), _PIECE_LENGTH)]
    client.create_model_version(
        decisions_name(name),
        source=f"sentiment-decision:/{entry['id']}",
        tags={f"{_PIECE}{i:04}": piece for i, piece in enumerate(pieces)} | ({APPLIED: "yes"} if applied else {}),
        description=f"{entry['decision']}: version {entry['from'] or 'none'} → {entry['to'] or 'none'}",
    )


def mark_applied(client: "MlflowClient", name: str, entry: Entry) -> None:
    """Notes of an entry that the alias follows it."""
    client.set_model_version_tag(decisions_name(name), str(entry["slot"]), APPLIED, "yes")


def take_over(client: "MlflowClient", name: str, history: History) -> None:
    """Sends one entry with all lines of the ledger that `history` found, as `append` does; the file stays as it is."""
    last = history.ledger[-1]
    applied = (_tags(client, name) or {}).get(_LEDGER_HEAD) == _ledger_head(history.ledger)
    facts = {
        "decision": "taken over",
        "from": last["from"],
        "to": last["to"],
        "reason": "the ledger's decisions",
        "evidence": {},
        "taken_over": history.ledger,
    }
    append(client, name, history, facts, uuid.uuid4().hex, applied=applied)


def _tags(client: "MlflowClient", name: str) -> dict[str, str] | None:
    """Returns a registered model's tags, None where there is no such model."""
    found = client.search_registered_models(f"name = '{name}'")
    return dict(found[0].tags) if found else None


def _follows(entry: Entry, before: Entry | None, history_id: str) -> bool:
    previous, seq = (before["hash"], before["seq"]) if before else (GENESIS, 0)
    place = entry["registry"], entry["previous"], entry["seq"]
    return place == (history_id, previous, seq + len(_decided(entry)))


def _parsed(text: str) -> Entry | None:
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _canonical(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)


# What git has of it.


def export(history: History) -> None:
    """Adds to the history's file in git the entries that it does not have yet; those it has stay as they are."""
    file = _exported_file(history)
    there = {entry["slot"]: entry for entry in map(_parsed, _rows(file)) if entry and "slot" in entry}
    entries = {entry["slot"]: entry for entry in history.entries} | there
    rows = [f"{_canonical(entries[slot])}\n" for slot in sorted(entries)]
    if rows and rows != [f"{row}\n" for row in _rows(file)]:
        write_text(file, "".join(rows))


def differences(history: History) -> list[str]:
    """Says which lines of the history's file in git are not what the store has, one sentence each."""
    file, entries = _exported_file(history), {entry["slot"]: entry for entry in history.entries}
    accepted = {problem for entry in history.entries for problem in entry.get("accepts", [])}
    found = []
    for number, row in enumerate(_rows(file), start=1):
        line = _parsed(row)
        slot = (line or {}).get("slot")
        if line is None or slot is None:
            found.append(f"{file}: line {number} is not a decision")
        elif slot not in entries:
            if not any(problem.startswith(f"decision {slot} ") for problem in accepted):
                found.append(f"{file}: line {number} has decision {slot}, which is not in the store")
        elif entries[slot] != line:
            found.append(f"{file}: line {number} is not decision {slot} as the store has it: one of them was edited")
    return found


def lacking(history: History) -> list[Entry]:
    """Returns the entries that git has after the last one of the history, which the store lost, the oldest first.

    Raises:
        PipelineError: a line of the file is not a decision as it was taken.
    """
    file = _exported_file(history)
    found = []
    for number, row in enumerate(_rows(file), start=1):
        entry = _parsed(row)
        if entry is None or "slot" not in entry or entry.get("hash") != hash_of(entry):
            raise PipelineError(f"{file}: line {number} is not a decision as it was taken; `git log -p` tells which is")
        if entry["slot"] > history.last:
            found.append(entry)
    return sorted(found, key=lambda entry: entry["slot"])


def append_again(client: "MlflowClient", name: str, history: History, entries: Mapping[int, Entry | None]) -> None:
    """Sends entries, by their slot, to the store that lost them, as they were; for None, and a slot that is none's, a
    void one takes the number."""
    for slot in range(history.last + 1, max(entries, default=0) + 1):
        void = {"slot": 0, "id": uuid.uuid4().hex, "decision": "void", "from": None, "to": None}
        _send(client, name, entries.get(slot) or void | {"hash": hash_of(void)}, applied=True)


def _exported_file(history: History) -> Path:
    return DECISIONS / f"{history.id}.jsonl"


def _rows(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


# The ledger: one line a decision, chained by hashes, in a file beside the store or in SENTIMENT_LEDGER_DIR.


def _read_ledger(history: History, name: str, tags: Mapping[str, str]) -> None:
    """Puts the lines of the store's own ledger into `history`; that of another store is none."""
    folder = os.environ.get("SENTIMENT_LEDGER_DIR") or runs.store_folder() / "registry"
    lines = [line for line in map(_parsed, _rows(Path(folder) / f"{name}.jsonl")) if line]  # a torn last one is none
    if _LEDGER_ID not in tags or not lines or lines[0].get("registry") != tags[_LEDGER_ID]:
        lines = []
    previous = GENESIS
    for seq, line in enumerate(lines, start=1):
        if (line.get("seq"), line.get("previous"), line.get("hash")) != (seq, previous, hash_of(line)):
            history.problems.append(f"line {seq} of the ledger was edited, or does not follow the one before it")
            return
        previous = line["hash"]
    if tags.get(_LEDGER_HEAD, "") not in (_ledger_head(lines), _ledger_head(lines[:-1])):
        known = tags[_LEDGER_HEAD].partition(":")[0] if _LEDGER_HEAD in tags else "a number of"
        history.problems.append(f"the ledger with its {known} decisions is not here to be taken over")
        return
    history.ledger = lines


def _ledger_head(lines: list[Entry]) -> str:
    return f"{len(lines)}:{lines[-1]['hash']}" if lines else ""
