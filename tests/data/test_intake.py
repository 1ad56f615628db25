"""What is in a file of new labelled reviews is taken in once, or quarantined with the reason why it was not."""

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, edit_params, write_sample_params
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.copies import keyed
from pipeline.data.expectations import POSITIVE_SHARE
from pipeline.data.intake import Finding, Known, examine, incoming, read, read_label, take
from pipeline.data.labelled import DTYPES, read_labelled
from pipeline.data.splits import split_reviews
from pipeline.project.atomic import write_table
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.params import IntakeParams, load_params
from pipeline.project.paths import ACCEPTED, INCOMING, QUARANTINE, RAW


@pytest.fixture
def params(project: Path) -> IntakeParams:
    return load_params().retrain.intake


@pytest.fixture
def raw(project: Path, reviews: pd.DataFrame) -> pd.DataFrame:
    """The raw tables, of a part of the sample; returns real reviews that are not among them."""
    write_table(RAW / "train.parquet", reviews.iloc[:1000])
    write_table(RAW / "test.parquet", reviews.iloc[3300:])
    INCOMING.mkdir(parents=True)
    return reviews.iloc[1000:1200].reset_index(drop=True)[["text", "label"]]


def drop(name: str, table: pd.DataFrame | str | bytes) -> Path:
    """Puts a file into data/incoming/ as a user would."""
    file = INCOMING / name
    if isinstance(table, pd.DataFrame):
        write = {".csv": table.to_csv, ".parquet": table.to_parquet}.get(file.suffix)
        if write:
            write(file, index=False)
        else:
            table.to_json(file, orient="records", lines=True)
    else:
        file.write_bytes(table.encode() if isinstance(table, str) else table)
    os.utime(file, (0, 0))
    return file


def take_in(file: Path, params: IntakeParams) -> Finding:
    finding = examine(file, Known(load_params()), params)
    assert take(finding)
    return finding


def quarantined(suffix: str) -> list[dict[str, Any]]:
    (file,) = QUARANTINE.glob(f"*{suffix}")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("name", ["new.csv", "new.jsonl", "new.parquet"])
def test_a_file_of_each_kind_becomes_a_batch_and_moves(raw: pd.DataFrame, params: IntakeParams, name: str) -> None:
    file = drop(name, raw.assign(id=range(200), timestamp="2026-11-01T10:00:00Z"))
    finding = take_in(file, params)
    assert (len(finding.good), finding.new, finding.unusable, finding.problem) == (200, 200, (), None)
    labelled = read_labelled()
    assert labelled["text"].tolist() == raw["text"].tolist() and labelled["label"].tolist() == raw["label"].tolist()
    assert labelled["id"].is_unique and labelled["id"].str.startswith("labelled/").all()
    assert not file.exists() and [accepted.name for accepted in ACCEPTED.iterdir()] == [f"{finding.key}-{name}"]


def test_rows_that_cannot_be_used_are_quarantined_with_file_row_and_reason(
    raw: pd.DataFrame, params: IntakeParams
) -> None:
    good, other = json.dumps(raw["text"][0]), json.dumps(raw["text"][1])
    rows = [
        f'{{"text": {good}, "label": "Positive"}}',
        '{"text": "   ", "label": 1}',
        '{"label": 1}',
        '{"text": 7, "label": 1}',
        f'{{"text": {other}, "label": 2}}',
        f'{{"text": {other}, "label": true}}',
        f'{{"text": {other}}}',
        '{"text": "a\\u0000b", "label": 0}',
        '{"text": "\\ud800", "label": 0}',
        "not json",
        f'{{"text": {other}, "label": 1, "timestamp": "yesterday"}}',
        f'{{"text": {other}, "label": 1, "timestamp": 1{"0" * 400}}}',
        f'{{"text": {other}, "label": 1, "timestamp": true}}',
    ]
    finding = take_in(drop("mixed.jsonl", "\n".join(rows) + "\n"), params)
    assert finding.good["label"].tolist() == [1]
    lines = quarantined(".rows.jsonl")
    assert [line["row"] for line in lines] == list(range(1, 13))
    assert {line["file"] for line in lines} == {"mixed.jsonl"}
    reasons = ["blank", "missing", "not a string", "label", "label", "label", "NUL", "surrogate", "JSON"]
    for line, reason in zip(lines, [*reasons, *["timestamp"] * 3], strict=True):
        assert reason in line["reason"], line
    assert lines[0]["content"] == {"text": "   ", "label": 1}


@given(
    st.sampled_from([(0, 0), (1, 1), (1.0, 1), ("0", 0), (" Negative\n", 0), ("POSITIVE", 1)])
    | st.tuples(
        st.none() | st.booleans() | st.floats(allow_nan=True).filter(lambda x: x not in (0, 1)) | st.just("x"),
        st.none(),
    )
)
def test_labels_are_0_1_negative_and_positive_and_nothing_else(label: tuple[Any, int | None]) -> None:
    assert read_label(label[0]) == label[1]


def test_known_reviews_are_no_new_ones(raw: pd.DataFrame, params: IntakeParams, reviews: pd.DataFrame) -> None:
    known = pd.concat([raw.head(4), raw.head(2), reviews.head(3), reviews.tail(5)])[["text", "label"]]
    finding = take_in(drop("copies.csv", known), params)
    assert (len(finding.good), finding.new) == (14, 4)
    edit_params(Path(), split__fresh_rows=0)
    assert len(Known(load_params()).trained_on()) == 4


def test_rows_that_contradict_what_is_known_or_each_other_are_not_believed(
    raw: pd.DataFrame, params: IntakeParams, reviews: pd.DataFrame
) -> None:
    flipped = reviews.head(2).assign(label=1 - reviews["label"].head(2))[["text", "label"]]
    both = pd.concat([raw.head(1), raw.head(1).assign(label=1 - raw["label"].head(1))])
    finding = take_in(drop("some.csv", pd.concat([raw.iloc[5:], flipped, both])), params)
    assert finding.problem is None and len(finding.good) == 195
    assert {row.row for row in finding.unusable} == {195, 196, 197, 198}
    assert {row.reason for row in finding.unusable} == {"the text has the other label elsewhere"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda table, known: table.assign(label=1), "share of positive reviews is between 0.2 and 0.8"),
        (
            lambda table, known: pd.concat([table, known.head(30).assign(label=1 - known["label"].head(30))]),
            "at most 5% of the reviews contradict",
        ),
    ],
)
def test_a_flood_is_refused_as_a_whole_and_kept(
    raw: pd.DataFrame, params: IntakeParams, reviews: pd.DataFrame, spoil, reason: str
) -> None:
    file = drop("flood.csv", spoil(raw, reviews[["text", "label"]]))
    content = file.read_bytes()
    finding = take_in(file, params)
    assert finding.problem and reason in finding.problem
    assert read_labelled().empty and not ACCEPTED.exists()
    assert (QUARANTINE / f"{finding.key}-flood.csv").read_bytes() == content
    assert reason in quarantined(".reason.jsonl")[0]["reason"]


def test_reviews_that_would_unbalance_all_of_training_are_refused(project: Path, reviews: pd.DataFrame) -> None:
    loose = load_params().retrain.intake.model_copy(update={"max_positive": 1.0})
    write_table(RAW / "train.parquet", reviews.iloc[:100])
    write_table(RAW / "test.parquet", reviews.iloc[3300:])
    INCOMING.mkdir(parents=True)
    positive = reviews[reviews["label"] == 1].iloc[200:400][["text", "label"]]
    finding = examine(drop("positive.csv", positive), Known(load_params()), loose)
    assert finding.problem and re.search(r"\d\d\.\d% of the train reviews would be positive", finding.problem)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.csv", b"", "is empty"),
        ("broken.parquet", b"PAR1 and then nothing", "is not a Parquet file"),
        ("other.csv", b"review,stars\nGood,5\n", "has no column text and no column label; there are review, stars"),
    ],
)
def test_a_file_that_cannot_be_read_is_kept_whole(
    raw: pd.DataFrame, params: IntakeParams, name: str, content: bytes, reason: str
) -> None:
    finding = take_in(drop(name, content), params)
    assert finding.problem and reason in finding.problem
    assert (QUARANTINE / f"{finding.key}-{name}").read_bytes() == content


def test_a_truncated_file_gives_no_row(raw: pd.DataFrame, params: IntakeParams) -> None:
    whole = drop("whole.parquet", raw).read_bytes()
    (INCOMING / "whole.parquet").unlink()
    finding = take_in(drop("half.parquet", whole[: len(whole) // 2]), params)
    assert finding.problem and read_labelled().empty


def test_a_file_that_cannot_be_moved_is_named_and_loses_no_row(
    raw: pd.DataFrame, params: IntakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = drop("new.csv", raw)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with (
        monkeypatch.context() as read_only,
        pytest.raises(PipelineError, match=r"new\.csv cannot be moved to data/a"),
    ):
        read_only.setattr(shutil, "move", refuse)  # root may write everywhere
        take_in(file, params)
    rows = len(read_labelled())
    assert rows and file.exists()
    take_in(file, params)
    assert len(read_labelled()) == rows and not file.exists()


def test_files_that_are_being_written_or_of_another_kind_are_left(raw: pd.DataFrame, params: IntakeParams) -> None:
    drop("done.csv", raw)
    young, foreign, hidden = INCOMING / "young.csv", drop("notes.txt", "x"), drop(".hidden.csv", raw)
    young.write_text("text,label\n")
    link, folder = INCOMING / "link.csv", INCOMING / "table.parquet"
    link.symlink_to(hidden)
    folder.mkdir()
    unnamed = INCOMING / os.fsdecode(b"caf\xe9.csv")
    unnamed.write_text("text,label\n")
    future = drop("future.csv", raw)
    os.utime(future, (4e9, 4e9))  # a clock that went backwards does not hold a file back for ever
    now = young.stat().st_mtime + params.settle_seconds / 2
    ready, left = incoming(params, now=now)
    assert [file.name for file in ready] == ["done.csv", "future.csv"]
    assert [sentence.split(" is left")[0] for sentence in left] == [
        "data/incoming/'caf\\udce9.csv'",
        str(link),
        str(foreign),
        str(folder),
        str(young),
    ]
    assert hidden.exists()
    ready, _ = incoming(params, now=now + params.settle_seconds)
    with young.open("a"):  # a program has it open for writing
        assert young in ready and young not in incoming(params, now=now + params.settle_seconds)[0]


def test_of_a_file_whose_writer_cannot_be_known_more_rest_is_asked(
    raw: pd.DataFrame, params: IntakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "what Linux says of another user's file")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    file = drop("theirs.csv", raw)
    changed, settle = file.stat().st_mtime, params.settle_seconds
    assert settle > 0
    assert incoming(params, changed + 2 * settle)[0] == []
    assert incoming(params, changed + 61 * settle)[0] == [file]


OPENED_BY_A_WRITER = """
import fcntl, os, sys
from pathlib import Path
from pipeline.data.intake import incoming
from pipeline.project.params import load_params

asked = fcntl.fcntl
def ask(file, command, *argument):
    answer = asked(file, command, *argument)
    if argument == (fcntl.F_RDLCK,):
        try:
            os.open(file.name, os.O_WRONLY | os.O_NONBLOCK)
        except BlockingIOError:
            print("the writer waits")
    return answer

fcntl.fcntl = ask
print(incoming(load_params().retrain.intake)[0])
"""
"""A writer opens the file at the worst moment: it waits, and whoever asks for writers is sent a signal."""


def test_a_writer_that_comes_while_it_is_asked_for_writers_ends_nothing(raw: pd.DataFrame, project: Path) -> None:
    drop("new.csv", raw)
    command = [sys.executable, "-c", OPENED_BY_A_WRITER]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the writer waits\n[PosixPath('data/incoming/new.csv')]\n"), (
        done.stderr
    )


@pytest.mark.parametrize("kind", ["usable", "refused", "in part"])
@pytest.mark.parametrize("character", ["x", "ü", "🎬"])
def test_a_file_may_have_the_longest_name_there_is(
    raw: pd.DataFrame, params: IntakeParams, kind: str, character: str
) -> None:
    name = character * (251 // len(character.encode())) + ".csv"
    content = {"usable": raw, "refused": raw.assign(label=7), "in part": pd.concat([raw, raw.head(1).assign(text="")])}
    finding = take_in(drop(name, content[kind]), params)
    assert bool(finding.problem) == (kind == "refused") and bool(finding.unusable) == (kind != "usable")
    (kept,) = (QUARANTINE if kind == "refused" else ACCEPTED).glob("*.csv")
    assert kept.name.startswith(f"{finding.key}-{character * 40}")
    assert kind == "usable" or quarantined(".jsonl")[0]["file"] == name


def test_columns_that_nobody_asked_for_may_hold_anything(raw: pd.DataFrame, params: IntakeParams) -> None:
    """A day in the year 10183, a duration without end and a tensor: none is read, and so none can fail."""
    columns = {
        "day": pa.array([3_000_000] * 200, pa.date32()),
        "length": pa.array([2**62] * 200, pa.duration("ms")),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((200, 2, 2), np.float32)),
        "timestamp": pa.array(range(200), pa.timestamp("ns")),
    }
    table = pa.Table.from_pandas(raw)
    for name, column in columns.items():
        table = table.append_column(name, column)
    pq.write_table(table, INCOMING / "odd.parquet")
    finding = take_in(INCOMING / "odd.parquet", params)
    assert len(finding.good) == 200 and finding.problem is None
    assert finding.good["timestamp"].tolist()[:2] == ["1970-01-01 00:00:00", "1970-01-01 00:00:00.000000001"]


def test_a_column_of_another_type_loses_its_rows_and_no_more(raw: pd.DataFrame, params: IntakeParams) -> None:
    day = pa.array([3_000_000] * 200, pa.date32())
    pq.write_table(pa.table({"text": raw["text"].tolist(), "label": day}), INCOMING / "day.parquet")
    pq.write_table(pa.table({"text": day, "label": raw["label"].tolist()}), INCOMING / "text.parquet")
    first = [
        examine(INCOMING / f"{name}.parquet", Known(load_params()), params).unusable[0] for name in ("day", "text")
    ]
    assert [row.reason for row in first] == [
        "the label is not 0, 1, negative or positive: 10183-09-21",
        "the text is not a string: 10183-09-21",
    ]


def test_a_file_that_changes_while_it_is_read_is_left(raw: pd.DataFrame, params: IntakeParams) -> None:
    file = drop("growing.csv", raw.head(3))
    finding = examine(file, Known(load_params()), params)
    drop("growing.csv", raw.head(6))
    os.utime(file)
    assert not take(finding)
    assert file.exists() and read_labelled().empty and not ACCEPTED.exists()


def test_the_same_content_is_taken_once_whatever_its_name(raw: pd.DataFrame, params: IntakeParams) -> None:
    take_in(drop("monday.csv", raw), params)
    again = take_in(drop("tuesday.csv", raw), params)
    assert again.known and again.new == 0
    assert len(read_labelled()) == 200 and len(list(ACCEPTED.iterdir())) == 2


def test_before_the_raw_reviews_are_there_nothing_is_taken_in(project: Path, reviews: pd.DataFrame) -> None:
    INCOMING.mkdir(parents=True)
    file = drop("first.csv", reviews.head(60)[["text", "label"]])
    with pytest.raises(DataError, match=r"data/raw is not there.*`dvc repro download` makes it"):
        examine(file, Known(load_params()), load_params().retrain.intake)
    assert file.exists() and read_labelled().empty


def test_what_split_would_drop_does_not_balance_a_file(
    raw: pd.DataFrame, params: IntakeParams, reviews: pd.DataFrame
) -> None:
    """Known negatives beside new positives: half and half in the file, all positive in what is trained on."""
    write_table(RAW / "train.parquet", pd.concat([reviews[reviews["label"] == label].iloc[:100] for label in (0, 1)]))
    positive = reviews[reviews["label"] == 1].iloc[200:350]
    negative = reviews[(reviews["label"] == 0) & reviews["id"].isin(reviews["id"].iloc[3300:])].head(150)
    file = drop("mixed.csv", pd.concat([positive, negative])[["text", "label"]])
    finding = examine(file, Known(load_params()), params)
    assert finding.problem and "of the train reviews would be positive, where 40% to 60% may be" in finding.problem


@given(
    labels=st.lists(st.integers(0, 1), min_size=1, max_size=7),
    copied=st.lists(st.booleans(), min_size=1, max_size=5),
    count=st.integers(1, 240),
    batches=st.integers(1, 4),
    fresh_rows=st.sampled_from([0, 5, 2000]),
)
@settings(max_examples=40)
def test_no_file_that_is_taken_in_can_break_the_splits_now_or_later(
    reviews: pd.DataFrame, labels: list[int], copied: list[bool], count: int, batches: int, fresh_rows: int
) -> None:
    """Whatever is taken in, in whatever portions: train and validation keep their share of positive reviews and no
    copy, and so it is while fresh reviews graduate. `labels` and `copied` repeat themselves along the rows."""
    train = pd.concat([reviews[reviews["label"] == label].iloc[:40] for label in (0, 1)])
    rows = [
        {
            "id": f"labelled/{number % batches}/{number}",
            "text": f"{train['text'].iloc[number % 80]} <br />"
            if copied[number % len(copied)]
            else reviews["text"].iloc[2000 + number],
            "label": labels[number % len(labels)],
        }
        for number in range(count)
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_sample_params(Path())
        edit_params(Path(), split__fresh_rows=fresh_rows)
        write_table(RAW / "train.parquet", train)
        write_table(RAW / "test.parquet", reviews.iloc[3300:3340])
        params = load_params()
        known = Known(params)
    for batch in range(batches):
        table = pd.DataFrame(rows[batch::batches], columns=["id", "text", "label"]).astype(DTYPES)
        if known.why_refused(table) is None:
            known.add(table)
    split = {"validation_fraction": params.split.validation_fraction, "seed": params.seed}
    for held_out in range(0, fresh_rows + 1, 5)[:25]:
        tables, _ = split_reviews(known.train, known.test, known.labelled, fresh_rows=held_out, **split)
        for name in ("train", "validation"):
            assert POSITIVE_SHARE[0] <= tables[name]["label"].mean() <= POSITIVE_SHARE[1]
        everything = pd.concat([keyed(tables[name]) for name in ("train", "validation", "fresh")])
        assert everything["key"].is_unique and not everything["key"].isin(known.test["key"]).any()


SCALES = ([1, 2], [-1, 0, 1], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 0.5, 1], [0, 1, 10])


@given(
    scale=st.sampled_from(SCALES),
    spelled=st.sampled_from([str, float, lambda number: f" {number} "]),
    picked=st.lists(st.integers(0, 4), min_size=4, max_size=40),
)
def test_a_file_whose_labels_are_of_another_scale_adds_no_row(
    scale: list[float], spelled: Callable[[float], Any], picked: list[int]
) -> None:
    labels = [scale[place % len(scale)] for place in picked]
    strange = sum(label not in (0, 1) for label in labels)
    lines = [{"text": f"A film of {row} acts.", "label": spelled(label)} for row, label in enumerate(labels)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scale.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows, unusable, problem = read(file, "key")
    assert len(rows) == len(labels) - strange == len(labels) - len(unusable)
    assert bool(problem) == (strange > 1)  # a single one is a slip, and loses its row
    assert not problem or problem.startswith("its labels are of another scale than 0 and 1 (")


def test_few_slips_in_a_large_file_lose_their_rows_alone(raw: pd.DataFrame, params: IntakeParams) -> None:
    slips = raw.head(2).assign(label=[2, 3])
    finding = take_in(drop("slips.csv", pd.concat([raw.iloc[2:], slips])[["text", "label"]]), params)
    assert finding.problem is None and len(finding.good) == 198 and len(finding.unusable) == 2


@pytest.mark.parametrize(
    ("label", "expected"), [("1.0", 1), ("0.0", 0), (Decimal("1.0"), 1), ("1.5", None), ("nan", None)]
)
def test_a_label_with_a_point_is_a_label(label: Any, expected: int | None) -> None:
    assert read_label(label) == expected


def test_a_timestamp_that_is_blank_or_no_number_is_missing(tmp_path: Path) -> None:
    times = ["null", '""', "NaN", '" "', '"NaT"', '"2024-01-31"']
    lines = [f'{{"text": "A film, {row}.", "label": 1, "timestamp": {time}}}' for row, time in enumerate(times)]
    (tmp_path / "times.jsonl").write_text("\n".join(lines))
    rows, unusable, _ = read(tmp_path / "times.jsonl", "key")
    assert not unusable and [row["timestamp"] for row in rows] == [None] * 5 + ["2024-01-31"]
