"""An evaluation set of one's own is read as its entry says, and every row that does not count is counted."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.copies import key
from pipeline.evaluation.evaluation_sets import measure, read_set, report, sentences
from pipeline.project.errors import DataError
from pipeline.project.params import EvaluationSet
from pipeline.project.paths import EVALUATION_SETS

ROWS = [
    ("Positive", 'Good, "really"\tgood.', "1"),
    ("Negative", "Bad.\nVery bad.", "1"),
    ("Positive", "Fine.", "2"),
    ("Negative", "Not fine.", "2"),
    ("Neutral", "So so.", "3"),
    ("Positive", " ", "3"),
]
ENTRY = EvaluationSet(
    file="own.tsv", text="Text", label="Sentiment", positive=["Positive"], negative=["Negative"], pair="batch_id"
)


def write(file: Path) -> Path:
    table = pd.DataFrame(ROWS, columns=["Sentiment", "Text", "batch_id"])
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")))
    elif file.suffix == ".parquet":
        table.to_parquet(file)
    else:
        table.to_csv(file, sep="\t" if file.suffix == ".tsv" else ",", index=False, quoting=csv.QUOTE_MINIMAL)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_rows_and_pairs_are_measured_and_what_cannot_be_used_is_counted(tmp_path: Path, suffix: str) -> None:
    found = read_set(write(tmp_path / f"own{suffix}"), ENTRY)
    assert list(found.text) == [text for _, text, _ in ROWS[:4]]
    assert found.label.tolist() == [1, 0, 1, 0]
    assert found.unusable == {"the label is none of Negative, Positive": 1, "the text is blank": 1}
    measured = measure(found, np.array([0.9, 0.2, 0.9, 0.8]), ["fine", "another"])
    assert (measured["reviews"], measured["accuracy"], measured["unusable_rows"]) == (4, 0.75, 2)
    assert (measured["pairs"], measured["both_right"], measured["also_in_train"]) == (2, 0.5, 1)
    said = sentences(measured, found.unusable).splitlines()
    assert said[0].startswith("accuracy 0.7500 on 4 texts (95% interval 0.3006 to 0.9544)")
    assert said[1:3] == [
        "both right in 50.0% of 2 pairs",
        "1 of the texts stand among the training reviews: there it is memory; on the others accuracy is 0.6667 "
        "(0.2077 to 0.9385)",
    ]
    assert said[3] == "2 rows cannot be used: 1 × the label is none of Negative, Positive; 1 × the text is blank"


def test_without_pairs_there_are_none(tmp_path: Path) -> None:
    found = read_set(write(tmp_path / "own.tsv"), ENTRY.model_copy(update={"pair": None}))
    assert "pairs" not in measure(found, np.zeros(4))


@pytest.mark.parametrize("known", [None, set(), {key(text) for _, text, _ in ROWS[:4]}])
def test_without_known_or_other_texts_there_are_no_others(tmp_path: Path, known: set[str] | None) -> None:
    found = read_set(write(tmp_path / "own.tsv"), ENTRY)
    assert "others" not in measure(found, np.zeros(4), known)


def test_labels_and_columns_unless_an_entry_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "negative"}\n{"text": "c", "label": 0}\n')
    assert read_set(file, EvaluationSet(file="own.jsonl")).label.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "text"}, r"no column 'text', which is its text; there are 'Sentiment', 'Text', 'batch_id'"),
        ({"pair": "couple"}, r"no column 'couple', which is its pair"),
        ({"positive": ["pos"], "negative": ["neg"]}, r"has no usable row \(the label is none of neg, pos\)"),
    ],
)
def test_a_set_that_cannot_be_measured_is_told_with_its_entry(
    project: Path, change: dict[str, object], message: str
) -> None:
    EVALUATION_SETS.mkdir(parents=True)
    write(EVALUATION_SETS / "own.tsv")
    entries = {"mine": ENTRY.model_copy(update=change)}
    with pytest.raises(DataError, match=f"own\\.tsv.*{message}.*evaluation_sets\\.mine of params\\.yaml"):
        report(entries, lambda texts: np.zeros(len(texts)), set(), None)


def test_a_file_that_is_not_there_is_told(project: Path) -> None:
    with pytest.raises(DataError, match=r"own\.tsv does not exist; it is evaluation_sets\.mine"):
        report({"mine": ENTRY}, lambda texts: np.zeros(len(texts)), set(), None)
