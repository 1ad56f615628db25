"""The records of retraining runs: one JSON file each under `reports/retrain/`, and from it a run in MLflow.

The file comes first and holds everything; the MLflow run is made from it, and made later where the store was away.
Files are numbered, so that their order does not depend on a clock.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.project import provenance
from pipeline.project.atomic import read_json, write_json
from pipeline.project.paths import RETRAIN_RECORDS
from pipeline.tracking import runs

RETRAIN = "retrain"
"""Value of the tag `kind` of such a run in MLflow."""
RUNNING, SKIPPED, PROMOTED, REJECTED, FAILED = "RUNNING", "SKIPPED", "PROMOTED", "REJECTED", "FAILED"
ENDED_WELL = (SKIPPED, PROMOTED, REJECTED)
Record = dict[str, Any]
_STATUS = {FAILED: "FAILED"}
_ID = "retrain.id"
PARENT = "mlflow.parentRunId"
"""MLflow's own tag: its UI shows a run below the one that this names."""
_KEYS = ("run", "id", "outcome")
_FILES = "[0-9]*.json"  # not what a killed process left half written, whose name begins with a dot


def now() -> str:
    """Returns the time, UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_all() -> list[Record]:
    """Returns all records, the oldest first; raises DataError if one is not JSON."""
    return [read_json(file, _KEYS) for file in sorted(RETRAIN_RECORDS.glob(_FILES))]


def next_number(records: list[Record]) -> int:
    """Returns the number of the run to come."""
    return 1 + max((int(record["run"]) for record in records), default=0)


def write(record: Mapping[str, Any]) -> None:
    """Writes a record, whole, in place of what stood under its number."""
    write_json(RETRAIN_RECORDS / f"{record['run']:06d}.json", record)


def remove(record: Mapping[str, Any]) -> None:
    """Removes a record; one that is gone already is no error."""
    (RETRAIN_RECORDS / f"{record['run']:06d}.json").unlink(missing_ok=True)


def unfinished(records: list[Record]) -> Record | None:
    """Returns the record of the last run that decided to train, if its training did not come to its end."""
    trained = [record for record in records if record.get("decision") == "train"]
    return trained[-1] if trained and trained[-1]["outcome"] not in ENDED_WELL else None


def publish(record: Record) -> None:
    """Makes the record's MLflow run, tagged `retrain`, with the runs of the models that it trained as its children,
    and notes its id in the record. A run that was made in part is completed."""
    client = runs.connect()
    experiment = runs.experiment_id(client)
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
        runs.NOTE: describe(record),
        **{f"retrain.child.{model}": run_id for model, run_id in record.get("children", {}).items()},
        **provenance.process_tags(),
    }
    begun = client.search_runs([experiment], f"tags.`{_ID}` = '{record['id']}'", max_results=1)
    run = (
        begun[0]
        if begun
        else client.create_run(
            experiment,
            start_time=_milliseconds(record["begun"]),
            run_name=f"retrain {record['run']} {record['outcome'].lower()}",
            tags=tags,
        )
    )
    run_id = run.info.run_id
    figures = {
        f"{trigger['name']}/{name}".replace("'", ""): float(value)
        for trigger in record.get("triggers", [])
        for name, value in trigger["figures"].items()
        if value is not None
    }
    seconds = {f"seconds/{step}": float(value) for step, value in record.get("seconds", {}).items()}
    runs.log_metrics(run_id, figures | seconds)
    for child in record.get("children", {}).values():
        if runs.find_run(client, child):
            client.set_tag(child, PARENT, run_id)
    client.log_dict(run_id, record, "record.json")
    client.set_terminated(run_id, _STATUS.get(record["outcome"], "FINISHED"), end_time=_milliseconds(record["ended"]))
    record["mlflow_run"] = run_id
    write(record)


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def describe(record: Mapping[str, Any]) -> str:
    """Returns the record in Markdown: what was decided and why, and what each trigger saw."""
    lines = [f"**{record['outcome']}**: {record['reason']}", ""]
    if triggers := record.get("triggers"):
        lines += ["| trigger | fires | figures |", "|---|---|---|"]
        said = {True: "yes", False: "no", None: "not measured"}
        lines += [f"| {trigger['name']} | {said[trigger['fired']]} | {trigger['sentence']} |" for trigger in triggers]
    taken = [f"- {finding['file']}: {finding['usable_rows']} usable rows" for finding in record.get("taken_in", [])]
    return "\n".join([*lines, "", *taken]).strip()


def history(records: list[Record]) -> list[tuple[str, ...]]:
    """Returns the records as rows of a table, its header first."""
    rows: list[tuple[str, ...]] = [("run", "begun", "minutes", "outcome", "champion", "new reviews", "reason")]
    for record in records:
        before, after = record.get("champion_before"), record.get("champion_after")
        minutes = record.get("seconds", {}).get("all")
        new = {trigger["name"]: trigger for trigger in record.get("triggers", [])}.get("new reviews")
        rows.append(
            (
                str(record["run"]),
                record["begun"].replace("+00:00", "Z"),
                "-" if minutes is None else f"{minutes / 60:.1f}",
                record["outcome"],
                f"{before or '-'} → {after or '-'}" if before != after else f"{after or '-'}",
                "-" if new is None else f"{new['figures']['new_rows']:,}",
                record["reason"],
            )
        )
    return rows


def begin(number: int, dataset: str) -> Record:
    """Returns the record of a run that begins now."""
    return {
        "run": number,
        "id": uuid.uuid4().hex,
        "begun": now(),
        "ended": None,
        "outcome": RUNNING,
        "reason": "it has not come to its end",
        "dataset": dataset,
        "git_commit": provenance.git_commit(),
    }
