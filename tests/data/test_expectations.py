"""What validation accepts, what it stops and what it says of it; on real reviews, broken in the test."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT

from pipeline.data.expectations import TABLE_FILES, expected_rows, validate
from pipeline.data.gx import Outcome, Report
from pipeline.data.sentences import sentences as sentences_of
from pipeline.data.sources import SAMPLE, UNLABELLED_SAMPLE
from pipeline.project.atomic import read_table, write_json, write_table
from pipeline.project.errors import DataError
from pipeline.project.paths import (
    DATA_DOCS,
    DATASET_INFO,
    REVIEW_COLUMNS,
    SPLIT_REPORT,
    SPLITS,
    TEXT_COLUMNS,
    VALIDATION_REPORT,
)

Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def reviews() -> Tables:
    """Consistent tables of real reviews: 260 train, 40 validation, 100 test and 20 fresh, half of each positive, 80
    unlabelled and their first sentences."""
    sample = read_table(SAMPLE, REVIEW_COLUMNS).drop_duplicates("text")
    origin = sample["id"].str.partition("/")[0]

    def balanced(split: str, start: int, stop: int) -> pd.DataFrame:
        by_label = [sample[(origin == split) & (sample["label"] == label)][start:stop] for label in (0, 1)]
        return pd.concat(by_label, ignore_index=True)

    train, validation, test = balanced("train", 0, 130), balanced("train", 130, 150), balanced("test", 0, 50)
    raw_train = pd.concat([train, validation], ignore_index=True)
    splits = {"train": train, "validation": validation, "test": test, "fresh": balanced("train", 150, 160)}
    unlabelled = read_table(UNLABELLED_SAMPLE, TEXT_COLUMNS).tail(80).reset_index(drop=True)
    sentences = unlabelled.assign(id=unlabelled["id"] + "#0", text=[sentences_of(t)[0] for t in unlabelled["text"]])
    raw = {"raw_train": raw_train, "raw_test": test, "raw_unlabelled": unlabelled}
    return raw | splits | {"unlabelled": unlabelled, "sentences": sentences.drop_duplicates("text", ignore_index=True)}


def _validate(tables: Tables) -> Report:
    return validate(tables, {name: len(table) for name, table in tables.items()})


def _broken(report: Report) -> dict[str, Outcome]:
    return {outcome.sentence: outcome for outcome in report.outcomes if not outcome.success}


def test_healthy_reviews_break_no_expectation(reviews: Tables, tmp_path: Path) -> None:
    # given / when
    report = validate(reviews, {name: len(table) for name, table in reviews.items()}, tmp_path / "data_docs")
    # then
    assert report.success
    assert _broken(report) == {}
    assert {outcome.table for outcome in report.outcomes} == set(TABLE_FILES)
    plain = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert plain["critical"]["evaluated"] + plain["advisory"]["evaluated"] == len(plain["expectations"]) > 90


def _with(column: str, value: Any, rows: tuple[int, ...] = (7, 11)) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def broken(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        table.loc[list(rows), column] = value
        return table

    return broken


def _with_text(change: Callable[[str], str]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def broken(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        for row in (7, 11):
            table.loc[row, "text"] = change(str(table.loc[row, "text"]))
        return table

    return broken


ROW_BREAKAGES = {
    "null text": (_with("text", None), "no text is missing"),
    "empty text": (_with("text", ""), "no text is blank"),
    "text of blanks": (_with("text", " \t\r\n\v\xa0\u3000\u2009\u2028"), "no text is blank"),
    "label 2": (_with("label", 2), "every label is 0 (negative) or 1 (positive)"),
    "null label": (_with("label", None), "no label is missing"),
    "null id": (_with("id", None, rows=(7,)), "no id is missing"),
    "one id twice": (lambda table: table.assign(id=table["id"].mask(table.index == 11, table["id"][7])), "every id is"),
    "NUL": (_with_text(lambda text: text[:9] + "\x00" + text[9:]), "no text holds a NUL character"),
}


@pytest.mark.parametrize(("broken", "sentence"), ROW_BREAKAGES.values(), ids=ROW_BREAKAGES)
def test_a_broken_row_stops_the_pipeline_and_is_named(
    reviews: Tables, broken: Callable[[pd.DataFrame], pd.DataFrame], sentence: str
) -> None:
    # given
    table = broken(reviews["train"])
    # when
    report = _validate({"train": table})
    # then
    assert not report.success
    outcome = next(outcome for outcome in report.broken("critical") if outcome.sentence.startswith(sentence))
    ids = [None if pd.isna(table["id"][row]) else table["id"][row] for row in (7, 11)][: outcome.unexpected_count]
    assert outcome.unexpected_count == (1 if "id is missing" in sentence else 2)
    assert [example.id for example in outcome.examples] == ids
    assert str(outcome).startswith(f"data/splits/train.parquet: {outcome.sentence}, but {outcome.unexpected_count} of")
    assert all(str(id_) in str(outcome) for id_ in ids)


ADVISORY_BREAKAGES = {
    "U+FFFD": (lambda text: "Caf\ufffd. " + text, "no text holds U+FFFD", "Caf\ufffd. "),
    "mojibake": (
        lambda text: "A clich\u00c3\u00a9. " + text,
        "no text holds UTF-8 that was read as",
        "clich\u00c3\u00a9",
    ),
    "too long": (
        lambda text: text[:50] + " again" * 20_000,
        "every text has 10 to 20,000 characters",
        "120,050 characters",
    ),
    "too short": (lambda text: "Bad!", "every text has 10 to 20,000 characters", "4 characters"),
}


@pytest.mark.parametrize(("change", "sentence", "shown"), ADVISORY_BREAKAGES.values(), ids=ADVISORY_BREAKAGES)
def test_a_doubtful_text_is_reported_and_does_not_stop_the_pipeline(
    reviews: Tables, change: Callable[[str], str], sentence: str, shown: str
) -> None:
    # given
    table = _with_text(change)(reviews["raw_test"])
    # when
    report = _validate({"raw_test": table})
    # then
    assert report.success
    outcome = next(outcome for outcome in report.broken("advisory") if outcome.sentence.startswith(sentence))
    assert outcome.unexpected_count == 2
    assert [example.id for example in outcome.examples] == [table["id"][7], table["id"][11]]
    assert shown in str(outcome)
    assert all(len(example.excerpt or "") <= 90 for example in outcome.examples)


def test_residue_of_the_web_page_is_counted_and_advises_when_it_is_everywhere(reviews: Tables) -> None:
    # given
    residue = reviews["test"].assign(text=reviews["test"]["text"] + " \x96 fin<br />")
    # when
    as_it_is, everywhere = _validate({"test": reviews["test"]}), _validate({"test": residue})
    # then
    line_breaks = next(outcome for outcome in as_it_is.outcomes if "HTML line break" in outcome.sentence)
    assert line_breaks.success
    assert line_breaks.unexpected_count == reviews["test"]["text"].str.contains("<br />").sum() > 0
    assert everywhere.success
    assert [outcome.unexpected_count for outcome in everywhere.broken("advisory")] == [100, 100]


TABLE_BREAKAGES = {
    "missing column": (
        lambda table: table.drop(columns="label"),
        "the columns are id, text and label",
        "['id', 'text']",
    ),
    "no text": (lambda table: table.drop(columns="text"), "the columns are id, text and label", "['id', 'label']"),
    "no id": (lambda table: table.drop(columns="id"), "the columns are id, text and label", "['label', 'text']"),
    "surplus column": (lambda table: table.assign(stars=4), "the columns are id, text and label", "stars"),
    "labels as text": (lambda table: table.assign(label=table["label"].astype(str)), "every label is an int", "str"),
    "labels as fractions": (lambda table: table.assign(label=table["label"] / 1), "every label is an int", "float64"),
    "texts as numbers": (lambda table: table.assign(text=1), "every text is a string", "int64"),
    "a row lost": (lambda table: table[1:], "there are 260 rows", "259"),
    "no rows": (lambda table: table[:0], "there are 260 rows", "0"),
    "unbalanced": (lambda table: table[table["label"].eq(1) | table.index.isin(range(50))], "the share of", "0.72"),
}


@pytest.mark.parametrize(("broken", "sentence", "observed"), TABLE_BREAKAGES.values(), ids=TABLE_BREAKAGES)
def test_a_broken_table_stops_the_pipeline_with_what_was_found(
    reviews: Tables, broken: Callable[[pd.DataFrame], pd.DataFrame], sentence: str, observed: str
) -> None:
    # given
    tables = {"train": broken(reviews["train"]).reset_index(drop=True), "test": reviews["test"]}
    # when
    report = validate(tables, {"train": len(reviews["train"]), "test": len(reviews["test"])})
    # then
    outcome = next(outcome for outcome in report.broken("critical") if outcome.sentence.startswith(sentence))
    assert f"but found {observed}" in str(outcome) or observed in str(outcome.observed)
    assert {outcome.table for outcome in report.broken("critical")} == {"train"}
    json.dumps(report.as_dict(), allow_nan=False)


def test_texts_that_are_bytes_stop_the_pipeline_with_their_ids(reviews: Tables) -> None:
    # given
    table = reviews["train"].assign(text=[text.encode() for text in reviews["train"]["text"]])
    # when
    report = _validate({"train": table})
    # then
    (outcome,) = report.broken("critical")
    assert (outcome.sentence, outcome.unexpected_count) == ("every text is a string", 260)
    assert outcome.examples[0].id == table["id"][0]


def test_no_fresh_reviews_are_fine_and_so_is_any_share_of_positive_ones(reviews: Tables) -> None:
    assert _validate({"fresh": reviews["fresh"].head(0)}).success
    assert _validate({"fresh": reviews["fresh"][reviews["fresh"]["label"] == 1]}).success


@pytest.mark.parametrize(
    ("table", "other"),
    [
        ("train", "validation"),
        ("train", "test"),
        ("train", "fresh"),
        ("validation", "test"),
        ("validation", "fresh"),
        ("fresh", "test"),
        *((table, split) for table in ("unlabelled", "sentences") for split in SPLITS),
    ],
)
def test_a_text_in_two_splits_stops_the_pipeline_and_both_rows_are_named(
    reviews: Tables, table: str, other: str
) -> None:
    # given
    leaky = reviews[table].copy()
    leaky.loc[3, "text"] = f"{reviews[other]['text'][5]} <br />".upper()
    # when
    report = _validate({name: reviews[name] for name in (*SPLITS, "unlabelled", "sentences")} | {table: leaky})
    # then
    (outcome,) = report.broken("critical")
    assert (outcome.table, outcome.sentence) == (table, f"no text stands in {other} too")
    assert outcome.unexpected_count == 1
    assert (outcome.examples[0].id, outcome.examples[0].value) == (leaky["id"][3], reviews[other]["id"][5])
    assert f"{leaky['id'][3]} (also_in_{other} {reviews[other]['id'][5]}," in str(outcome)


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("raw_train", "advisory"),
        ("raw_test", "advisory"),
        ("raw_unlabelled", "advisory"),
        ("train", "critical"),
        ("validation", "critical"),
        ("fresh", "critical"),
        ("test", "advisory"),
        ("unlabelled", "critical"),
        ("sentences", "critical"),
    ],
)
def test_copies_stop_the_pipeline_where_split_removes_them_and_advise_elsewhere(
    reviews: Tables, name: str, severity: str
) -> None:
    # given
    table = _with("text", reviews[name]["text"][0])(reviews[name])
    # when
    report = _validate({name: table})
    # then
    assert report.success == (severity == "advisory")
    outcome = _broken(report)["no text stands in the table twice"]
    assert (outcome.severity, outcome.unexpected_count) == (severity, 2)
    assert [(example.id, example.value) for example in outcome.examples] == [
        (table["id"][7], table["id"][0]),
        (table["id"][11], table["id"][0]),
    ]


@pytest.mark.parametrize("name", ["raw_train", "raw_unlabelled"])
def test_a_raw_table_may_share_texts_with_raw_test(reviews: Tables, name: str) -> None:
    # given
    raw = reviews[name].copy()
    raw.loc[3, "text"] = reviews["raw_test"]["text"][5]
    # when
    report = _validate({name: raw, "raw_test": reviews["raw_test"]})
    # then
    assert report.success
    assert _broken(report)["no text stands in raw_test too"].examples[0].value == reviews["raw_test"]["id"][5]


@pytest.mark.parametrize("name", ["raw_unlabelled", "unlabelled", "sentences"])
def test_a_label_has_no_place_beside_an_unlabelled_text(reviews: Tables, name: str) -> None:
    # when
    report = _validate({name: reviews[name].assign(label=-1)})
    # then
    (outcome,) = report.broken("critical")
    assert outcome.sentence == "the columns are id and text"
    assert "label" in str(outcome)


@pytest.mark.parametrize("name", ["raw_unlabelled", "unlabelled", "sentences"])
@pytest.mark.parametrize("breakage", ["null text", "text of blanks", "null id", "one id twice", "NUL"])
def test_a_broken_unlabelled_row_stops_the_pipeline_like_a_labelled_one(
    reviews: Tables, name: str, breakage: str
) -> None:
    # given
    broken, sentence = ROW_BREAKAGES[breakage]
    # when
    report = _validate({name: broken(reviews[name])})
    # then
    assert [one.table for one in report.broken("critical") if one.sentence.startswith(sentence)] == [name]


def test_no_sentences_are_fine(reviews: Tables) -> None:
    assert _validate({"sentences": reviews["sentences"].head(0)}).success


def test_a_script_in_a_review_is_text_in_data_docs(reviews: Tables, tmp_path: Path) -> None:
    # given
    table = _with_text(lambda text: "<script>alert(1)</script>\ufffd")(reviews["raw_test"])
    # when
    validate({"raw_test": table}, {"raw_test": len(table)}, tmp_path / "data_docs")
    # then
    (page,) = (tmp_path / "data_docs" / "validations" / "raw_test" / "advisory").rglob("*.html")
    content = page.read_text(encoding="utf-8")
    assert f"{table['id'][7]}: &lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert "<script>alert(1)" not in content


def test_imdb_has_25000_raw_reviews_a_split_and_50000_unlabelled_whatever_the_download_says() -> None:
    # given
    info = {"dataset": "imdb_reviews", "splits": {name: {"rows": 24_000} for name in ("train", "test", "unlabelled")}}
    splits = {"train": 22_300, "validation": 2_478, "fresh": 0, "unlabelled": 48_884, "sentences": 96_561}
    # when
    rows = expected_rows("imdb_reviews", info, {"rows": {**splits, "test": 24_000}})
    # then
    raw = {"raw_train": 25_000, "raw_test": 25_000, "raw_unlabelled": 50_000}
    assert rows == {**raw, **splits, "test": 25_000}


def test_counts_that_are_not_there_are_asked_for_by_name() -> None:
    splits = {"train": {"rows": 2_400}, "test": {"rows": 1_200}, "unlabelled": {"rows": 3_000}}
    info = {"dataset": "sample", "splits": splits}
    with pytest.raises(DataError, match=r"reports/split\.json lacks rows\.validation"):
        expected_rows("sample", info, {"rows": {"train": 2_000}})
    rows = dict.fromkeys(SPLITS, 1)
    with pytest.raises(DataError, match=r"reports/split\.json lacks rows\.unlabelled"):
        expected_rows("sample", info, {"rows": rows})
    with pytest.raises(DataError, match=r"reports/split\.json lacks rows\.sentences"):
        expected_rows("sample", info, {"rows": rows | {"unlabelled": 1}})
    with pytest.raises(DataError, match=r"dataset_info\.json lacks splits\.test\.rows"):
        expected_rows("sample", {"dataset": "sample", "splits": {"train": {"rows": 2_400}, "test": []}}, {})
    with pytest.raises(DataError, match=r"is of sample, params\.yaml asks for the data set imdb_reviews"):
        expected_rows("imdb_reviews", info, {})


def test_the_stage_rejects_leaky_splits_and_leaves_the_report_and_data_docs(reviews: Tables, tmp_path: Path) -> None:
    # given
    leaky = reviews["train"].copy()
    leaky.loc[3, "text"] = reviews["test"]["text"][5]
    for name, table in {**reviews, "train": leaky}.items():
        write_table(tmp_path / TABLE_FILES[name], table)
    rows = {name: len(table) for name, table in reviews.items()}
    raw = {split: {"rows": rows[f"raw_{split}"]} for split in ("train", "test", "unlabelled")}
    write_json(tmp_path / DATASET_INFO, {"dataset": "sample", "splits": raw})
    write_json(tmp_path / SPLIT_REPORT, {"rows": rows})
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(params.replace("dataset: imdb_reviews", "dataset: sample"), encoding="utf-8")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    # when
    stage = subprocess.run(
        [sys.executable, "-m", "pipeline.stages.validate"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    # then
    assert stage.returncode == 3, stage.stderr
    assert stage.stdout == ""
    (message,) = stage.stderr.splitlines()
    assert message.startswith("error: data/splits/train.parquet: no text stands in test too, but 1 of 260 rows")
    assert leaky["id"][3] in message
    report = json.loads((tmp_path / VALIDATION_REPORT).read_text(encoding="utf-8"))
    assert report["success"] is False
    assert report["critical"]["broken"] == 1
    (broken,) = [one for one in report["expectations"] if not one["success"]]
    assert (broken["table"], broken["unexpected_count"], broken["examples"][0]["id"]) == ("train", 1, leaky["id"][3])
    index = (tmp_path / DATA_DOCS / "index.html").read_text(encoding="utf-8")
    advised = TABLE_FILES.keys() - {"unlabelled", "sentences"}
    for suite, names in {"schema": TABLE_FILES.keys(), "critical": TABLE_FILES.keys(), "advisory": advised}.items():
        assert set(re.findall(rf"(\w+)\.{suite}", index)) == names
    assert not any(temporary.iterdir())
