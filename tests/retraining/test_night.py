"""A night with twelve files in `data/incoming/`, of the kinds that go wrong: what is usable is trained on, the rest is
named, and the run ends in a decision."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import edit_params
from retraining_fixtures import champions, drop, records, rows, verified
from retraining_project import reviews
from warm import Warm

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(job_project: Path) -> Path:
    """The job's project after its first run, not conftest's empty one."""
    return job_project


def parquet(project: Path, name: str, table: pd.DataFrame, **columns: pa.Array) -> None:
    written = pa.table({"text": pa.array(table["text"]), "label": pa.array(table["label"].tolist()), **columns})
    pq.write_table(written, project / "data/incoming" / name)


def test_what_is_usable_of_twelve_files_is_trained_on_and_the_rest_is_named(project: Path, warm: Warm) -> None:
    both = [reviews(400).loc[lambda table, label=label: table["label"] == label].head(60) for label in (0, 1)]
    some = pd.concat(both).sort_values("label", kind="stable", key=lambda label: label.groupby(label).cumcount())
    parts = [some.iloc[start : start + 10].reset_index(drop=True) for start in range(0, 120, 10)]
    incoming = project / "data/incoming"
    drop(project, parts[0], "01-good.csv")
    drop(project, parts[1].to_csv(index=False).encode("utf-16"), "02-utf16.csv")
    drop(project, parts[2].assign(**{" ": "", "  ": ""}).to_csv(index=False).encode(), "03-empty-columns.csv")
    deep = {**parts[3].iloc[0].to_dict(), "extra": json.loads("[" * 500 + "]" * 500)}
    lines = [*parts[3].iloc[1:].to_dict("records"), deep]
    drop(project, "".join(json.dumps(line) + "\n" for line in lines).encode(), "04-deep.jsonl")
    drop(project, parts[4].assign(label=parts[4]["label"] + 1), "05-one-two.csv")
    drop(project, parts[5].assign(label=[1, 2, 3, 4, 5] * 2), "06-stars.csv")
    drop(project, parts[6].assign(label=parts[6]["label"].astype(float)), "07-float-labels.csv")
    parquet(project, "08-decimal.parquet", parts[7].assign(label=[Decimal(label) for label in parts[7]["label"]]))
    times = [None, "", "NaN", "2024-01-31", *[None] * 6]
    lines = parts[8].assign(timestamp=times).to_dict("records")
    drop(project, "".join(json.dumps(line) + "\n" for line in lines).encode(), "09-timestamps.jsonl")
    lasted = pa.array([timedelta(days=99_999_999).days * 86_400_000_000] * 10, pa.int64()).cast(pa.duration("us"))
    parquet(project, "10-duration.parquet", parts[9], lasted=lasted)
    two = pd.concat([parts[10].head(1), parts[10].head(1).assign(label=lambda t: 1 - t["label"])])
    two["text"] = [two["text"].iloc[0], two["text"].iloc[1].upper() + " "]
    drop(project, two, "11-contradict.csv")
    (incoming / "12-link.csv").symlink_to(incoming / "01-good.csv")
    edit_params(project, split__fresh_rows=20, split__validation_fraction=0.4)  # a tenth of 60 would be soon one-sided
    sent = project / "printed-sent"

    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f'cat > "{sent}"')

    record = records(project)[-1]
    assert done.code == 0, done.out
    assert record["outcome"] == "PROMOTED" and champions(project) == ["1", "2"] and verified(warm, project)
    named = {Path(sentence.split(":")[0].split(" is left")[0]).name for sentence in record["refused"]}
    assert named == {"02-utf16.csv", "05-one-two.csv", "06-stars.csv"}, record["refused"]
    assert [Path(sentence.split(" is left")[0]).name for sentence in record["left"]] == ["12-link.csv"]
    usable = {
        one["file"]: (one["usable_rows"], one["unusable_rows"]) for one in record["taken_in"] if not one["refused"]
    }
    whole = ("01-good.csv", "03-empty-columns.csv", "07-float-labels.csv", "08-decimal.parquet", "09-timestamps.jsonl")
    assert usable == dict.fromkeys(whole, (10, 0)) | {
        "04-deep.jsonl": (9, 1),
        "10-duration.parquet": (10, 0),
        "11-contradict.csv": (0, 2),
    }
    good = pd.concat([parts[place] for place in (0, 2, 6, 7, 8, 9)] + [parts[3].iloc[1:]])
    assert set(rows(project)["text"]) == set(good["text"])
    told = sent.read_text()
    assert told.startswith("PROMOTED") or ": PROMOTED" in told
    assert all(name in told for name in named)
    assert [file.name for file in incoming.iterdir()] == ["12-link.csv"]
    again = warm.run(project, "retrain")
    assert again.code == 0 and records(project)[-1]["outcome"] == "SKIPPED"
