"""The records of retraining runs: one JSON file each under `reports/retrain/`, and from it a run in MLflow.

The file comes first and holds everything; the MLflow run is made from it, and made later where the store was away.
Files are numbered, so that their order does not depend on a clock.
"""

import itertools
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.project import provenance
from pipeline.project.atomic import read_json, write_json
from pipeline.project.paths import RETRAIN_RECORDS
from pipeline.tracking import runs

RETRAIN = "retrain"
"""Value of the tag `kind` of such a run in MLflow."""
PARENT = "mlflow.parentRunId"
"""MLflow's own tag: its UI shows a run below the one that this names."""
RUNNING, SKIPPED, PROMOTED, REJECTED, FAILED = "RUNNING", "SKIPPED", "PROMOTED", "REJECTED", "FAILED"
_KILLED = "it was killed"
FIRES = {True: "yes", False: "no", None: "not measured"}
"""What a table says of a trigger that fired or did not."""
Record = dict[str, Any]
_ID = "retrain.id"


def now() -> str:
    """Returns the time, UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def timed(record: Record, step: str) -> Iterator[None]:
    """Notes how many seconds the block took."""
    began = time.monotonic()
    try:
        yield
    finally:
        record.setdefault("seconds", {})[step] = round(time.monotonic() - began, 2)


def file_of(record: Record) -> Path:
    """Returns where a record stands."""
    return RETRAIN_RECORDS / f"{record['run']:06d}.json"


def write(record: Record) -> None:
    """Writes a record, whole, in place of what stood under its number."""
    write_json(file_of(record), record)


def read_all() -> list[Record]:
    """Returns all records, the oldest first; raises DataError if one is not JSON."""
    files = RETRAIN_RECORDS.glob("[0-9]*.json")  # the name of what a killed process left half written begins with a dot
    return [read_json(file, ("run", "id", "outcome")) for file in sorted(files)]


def read_ended() -> list[Record]:
    """Returns all records, and ends those of runs that were killed: who holds the job's lock knows that none runs."""
    past = read_all()
    for record in past:
        if record["outcome"] == RUNNING:
            record |= {"outcome": FAILED, "reason": _KILLED, "ended": now()}
            write(record)
    return past


def begin(past: list[Record], dataset: str) -> Record:
    """Writes and returns the record of a run that begins now, after those of `past`."""
    record = {
        "run": 1 + max((int(one["run"]) for one in past), default=0),
        "id": uuid.uuid4().hex,
        "begun": now(),
        "ended": None,
        "outcome": RUNNING,
        "reason": "it has not come to its end",
        "dataset": dataset,
        "git_commit": provenance.git_commit(),
    }
    write(record)
    return record


def unfinished(past: list[Record]) -> Record | None:
    """Returns the record of the last run that decided to train, if its training did not come to its end."""
    trained = [record for record in past if record.get("decision") == "train"]
    return trained[-1] if trained and trained[-1]["outcome"] in (RUNNING, FAILED) else None


def also_refused(past: list[Record], refused: list[str]) -> list[str]:
    """Returns what was refused: by the last runs, where they were killed before they told anybody, and `refused`."""
    killed = itertools.takewhile(lambda one: one["outcome"] == RUNNING or one.get("reason") == _KILLED, reversed(past))
    before = [sentence for record in killed for sentence in record.get("refused", [])]
    return list(dict.fromkeys([*before, *refused]))


def publish(record: Record) -> None:
    """Makes the record's MLflow run, tagged `retrain`, with the runs of the models that it trained as its children,
    and notes its id in the record. A run that was made in part is completed."""
    client = runs.connect()
    experiment, children = runs.experiment_id(client), record.get("children", {})
    tags = {
        _ID: record["id"],
        runs.KIND: RETRAIN,
        RETRAIN: "true",
        "retrain.run": str(record["run"]),
        "retrain.outcome": record["outcome"],
        "retrain.reason": record["reason"],
        "retrain.key": str(record.get("key")),
        "champion.before": str(record.get("champion_before")),
        "champion.after": str(record.get("champion_after")),
        "dataset": str(record.get("dataset")),
        runs.NOTE: _description(record),
        **{f"retrain.child.{model}": run_id for model, run_id in children.items()},
        **provenance.process_tags(),
    }
    begun = client.search_runs([experiment], f"tags.`{_ID}` = '{record['id']}'", max_results=1)
    name = f"retrain {record['run']} {record['outcome'].lower()}"
    run = begun[0] if begun else client.create_run(experiment, _milliseconds(record["begun"]), tags, name)
    run_id = run.info.run_id
    figures = {trigger["name"].replace("'", ""): trigger["figures"] for trigger in record.get("triggers", [])}
    figures["seconds"] = record.get("seconds", {})
    metrics = {f"{of}/{figure}": float(value) for of, found in figures.items() for figure, value in found.items()}
    runs.log_metrics(run_id, metrics)
    for child in children.values():
        if runs.find_run(client, child):
            client.set_tag(child, PARENT, run_id)
    client.log_dict(run_id, record, "record.json")
    status = "FAILED" if record["outcome"] == FAILED else "FINISHED"
    client.set_terminated(run_id, status, end_time=_milliseconds(record["ended"]))
    record["mlflow_run"] = run_id
    write(record)


def _milliseconds(when: str) -> int:
    return int(datetime.fromisoformat(when).timestamp() * 1000)


def _description(record: Record) -> str:
    """Returns the record in Markdown: what was decided and why, and what each trigger saw."""
    lines = [f"**{record['outcome']}**: {record['reason']}", ""]
    if triggers := record.get("triggers"):
        lines += ["| trigger | fires | figures |", "|---|---|---|"]
        lines += [f"| {trigger['name']} | {FIRES[trigger['fired']]} | {trigger['sentence']} |" for trigger in triggers]
    lines += ["", *(f"- {one['file']}: {one['usable_rows']} usable rows" for one in record.get("taken_in", []))]
    return "\n".join(lines).strip()


def history(past: list[Record]) -> list[tuple[str, ...]]:
    """Returns the records as rows of a table, its header first."""
    rows: list[tuple[str, ...]] = [("run", "begun", "minutes", "outcome", "champion", "new reviews", "reason")]
    for record in past:
        before, after = (record.get(f"champion_{when}") or "-" for when in ("before", "after"))
        minutes = record.get("seconds", {}).get("all")
        new = [one["figures"]["new_rows"] for one in record.get("triggers", []) if one["name"] == "new reviews"]
        rows.append(
            (
                str(record["run"]),
                record["begun"].replace("+00:00", "Z"),
                "-" if minutes is None else f"{minutes / 60:.1f}",
                record["outcome"],
                after if before == after else f"{before} → {after}",
                f"{new[0]:,}" if new else "-",
                record["reason"],
            )
        )
    return rows
