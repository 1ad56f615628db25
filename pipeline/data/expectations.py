"""What must hold for the tables of reviews, and for files of new labelled ones, as Great Expectations suites.

Each table has three suites: `schema` (columns, types, rows, missing values), `critical` and `advisory`; unlabelled
texts have the advisory one in the raw table alone. A broken expectation of the first two stops the pipeline, a broken
advisory one is reported. A column that is missing or of another type breaks its expectation in `schema`, and what
presupposes it is not evaluated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.copies import keyed
from pipeline.data.gx import Outcome, Report, Severity, Validation, expect
from pipeline.project.errors import DataError
from pipeline.project.params import IntakeParams
from pipeline.project.paths import (
    DATASET_INFO,
    RAW,
    RAW_SPLITS,
    REVIEW_COLUMNS,
    SENTENCES,
    SPLIT_REPORT,
    SPLIT_TABLES,
    SPLITS,
    TEXT_COLUMNS,
    UNLABELLED,
)

if TYPE_CHECKING:
    import pandas as pd

TABLE_FILES = {
    **{f"raw_{split}": RAW / f"{split}.parquet" for split in (*RAW_SPLITS, UNLABELLED)},
    **{split: SPLIT_TABLES / f"{split}.parquet" for split in (*SPLITS, UNLABELLED, SENTENCES)},
}
WITHOUT_LABEL = (f"raw_{UNLABELLED}", UNLABELLED, SENTENCES)
"""They have no column for it, so that nothing can take a stand-in for a label."""
COLUMN_TYPES = {"id": ("str", "a string"), "text": ("str", "a string"), "label": ("int64", "an integer")}
HAS_TYPE = "expect_column_values_to_be_of_type"

IMDB_ROWS = {"train": 25_000, "test": 25_000, UNLABELLED: 50_000}  # Maas et al. 2011, section 4.1
POSITIVE_SHARE = (0.4, 0.6)  # IMDB has 0.5; beyond these bounds accuracy no longer speaks for both labels
CHARACTERS = (10, 20_000)  # IMDB has 32 to 13,704
BLANK = r"^\s*$"  # as str.isspace() has it: pandas leaves \s to Python's re, not to RE2, whose \s is ASCII only
MOJIBAKE = "[\xc2\xc3][\x80-\xbf]|\xe2\u20ac|\xef\xbb\xbf"  # é, “ and a byte order mark, read as Latin-1 or cp1252
CONTROL_CHARACTERS = r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
FREE_OF_CONTROL_CHARACTERS = 0.95  # IMDB has 0.967 in train and 0.970 in test
FREE_OF_LINE_BREAK_TAGS = 0.3  # IMDB has 0.41 in train and 0.42 in test

# Where a text must not stand as well, by its key. The raw tables are as they came: IMDB's train and test share
# 123 texts.
DISJOINT_FROM = {
    "raw_train": ("raw_test",),
    "raw_unlabelled": ("raw_train", "raw_test"),
    "train": ("validation", "test", "fresh"),
    "validation": ("test", "fresh"),
    "fresh": ("test",),
    UNLABELLED: SPLITS,
    SENTENCES: SPLITS,
}
FREE_OF_COPIES = ("train", "validation", "fresh", UNLABELLED, SENTENCES)
"""The others keep what they came with: IMDB's 99 in raw train, 201 in test, 495 in raw unlabelled."""
BALANCED = ("raw_train", "raw_test", "train", "validation", "test")
"""Fresh reviews are as they come."""


def expected_rows(dataset: str, dataset_info: Any, split_report: Any) -> dict[str, int]:
    """Returns how many rows each table must have.

    The raw tables of `imdb_reviews` have IMDB_ROWS, those of another data set what `dataset_info` says. Test stays
    whole: it has as many as the raw test. The others have what `split_report` says.

    Raises:
        DataError: one of the two lacks a count, or `dataset_info` is of another data set.
    """

    def entry(path: Path, content: Any, keys: str, of_type: type) -> Any:
        for key in keys.split("."):
            content = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(content, of_type):
            raise DataError(f"{path} lacks {keys}; remove it and run `dvc repro` to make it anew")
        return content

    found = entry(DATASET_INFO, dataset_info, "dataset", str)
    if found != dataset:
        raise DataError(f"{DATASET_INFO} is of {found}, params.yaml asks for the data set {dataset}; run `dvc repro`")
    raw = {split: entry(DATASET_INFO, dataset_info, f"splits.{split}.rows", int) for split in IMDB_ROWS}
    if dataset == "imdb_reviews":
        raw = IMDB_ROWS
    made = [name for name in (*SPLITS, UNLABELLED, SENTENCES) if name != "test"]
    splits = {name: entry(SPLIT_REPORT, split_report, f"rows.{name}", int) for name in made}
    return {**{f"raw_{split}": rows for split, rows in raw.items()}, **splits, "test": raw["test"]}


def validate(tables: Mapping[str, "pd.DataFrame"], rows: Mapping[str, int], data_docs: Path | None = None) -> Report:
    """Holds every table against its suites.

    Args:
        tables: tables of reviews by the names of `TABLE_FILES`; those that are there are compared with each other.
        rows: how many rows each of them must have.
        data_docs: folder for the results as a static site, GX's Data Docs; its index.html lists them.

    Returns:
        The outcomes, table by table.
    """
    validation = Validation(TABLE_FILES, data_docs)
    schema = {
        name: validation.run(name, "schema", _schema(table, _columns(name), rows[name]), table)
        for name, table in tables.items()
    }
    usable = {
        name: [one.column for one in outcomes if one.expectation == HAS_TYPE and one.success and one.column]
        for name, outcomes in schema.items()
    }
    comparable = {name: keyed(table) for name, table in tables.items() if {"id", "text"} <= set(usable[name])}
    outcomes: list[Outcome] = []
    for name, table in tables.items():
        content = _content(balanced=name in BALANCED, advised=name not in (UNLABELLED, SENTENCES))
        expectations = [one for column in usable[name] for one in content[column]]
        if name in comparable:
            others = {other: comparable[other] for other in DISJOINT_FROM.get(name, ()) if other in comparable}
            table, without_copies = _mark_copies(name, comparable[name], others)
            expectations += without_copies
        outcomes += schema[name] + validation.run_by_severity(name, expectations, table)
    validation.context.build_data_docs()
    return Report(tuple(outcomes))


def _columns(name: str) -> list[str]:
    return list(TEXT_COLUMNS if name in WITHOUT_LABEL else REVIEW_COLUMNS)


def _schema(table: "pd.DataFrame", columns: list[str], rows: int) -> list[Any]:
    *others, last = columns
    sentence = f"the columns are {', '.join(others)} and {last}"
    expectations = [
        expect("TableColumnsToMatchSet", sentence, column_set=columns, exact_match=True),
        expect("TableRowCountToEqual", f"there are {rows:,} rows", value=rows),
    ]
    for column in columns:
        type_, name = COLUMN_TYPES[column]
        if column in table.columns:
            expectations += [
                expect("ColumnValuesToBeOfType", f"every {column} is {name}", column=column, type_=type_),
                expect("ColumnValuesToNotBeNull", f"no {column} is missing", column=column),
            ]
    return expectations


def _content(*, balanced: bool, advised: bool = True) -> dict[str, list[Any]]:
    """Returns what must hold for the values of each column, with `balanced` also for the share of the labels, without
    `advised` only what is critical."""

    def free_of(regex: str, sentence: str, severity: Severity = "advisory", mostly: float = 1.0) -> Any:
        return expect("ColumnValuesToNotMatchRegex", sentence, severity, column="text", regex=regex, mostly=mostly)

    low, high = CHARACTERS
    lengths = {"column": "text", "min_value": low, "max_value": high}
    labels = "every label is 0 (negative) or 1 (positive)"
    no_control_character = (
        f"at least {FREE_OF_CONTROL_CHARACTERS:.0%} of the texts hold no control character "
        "(U+0080 to U+009F are mostly Windows-1252 punctuation that was read as Latin-1)"
    )
    no_line_break = f"at least {FREE_OF_LINE_BREAK_TAGS:.0%} of the texts hold no HTML line break"
    content = {
        "id": [expect("ColumnValuesToBeUnique", "every id is unique", column="id")],
        "text": [
            free_of(BLANK, "no text is blank", "critical"),
            free_of(r"\x00", "no text holds a NUL character", "critical"),
            expect(
                "ColumnValueLengthsToBeBetween", f"every text has {low} to {high:,} characters", "advisory", **lengths
            ),
            free_of("\ufffd", "no text holds U+FFFD, which stands for bytes that could not be decoded"),
            free_of(MOJIBAKE, "no text holds UTF-8 that was read as Latin-1, such as Ã© for é"),
            free_of(CONTROL_CHARACTERS, no_control_character, mostly=FREE_OF_CONTROL_CHARACTERS),
            free_of("<br />", no_line_break, mostly=FREE_OF_LINE_BREAK_TAGS),
        ],
        "label": [
            expect("ColumnValuesToBeInSet", labels, column="label", value_set=[0, 1]),
            *([_positive_share(*POSITIVE_SHARE)] if balanced else []),
        ],
    }
    if not advised:
        return {column: [one for one in of_it if one.severity == "critical"] for column, of_it in content.items()}
    return content


def _positive_share(low: float, high: float) -> Any:
    share = f"the share of positive reviews is between {low} and {high}"
    return expect("ColumnMeanToBeBetween", share, column="label", min_value=low, max_value=high)


def _mark_copies(
    name: str, table: "pd.DataFrame", others: Mapping[str, "pd.DataFrame"]
) -> tuple["pd.DataFrame", list[Any]]:
    """Returns `table` without its key, with `copy_of` (the id of an earlier row that has the same text, else null) and,
    for each of `others`, `also_in_<other>` (the id of its first row that has the same text, else null), and what must
    hold for these columns. All of them have the column key."""

    def first_with_same_text(within: "pd.DataFrame") -> "pd.Series[Any]":
        firsts = within[["key", "id"]].dropna().drop_duplicates("key")
        return table["key"].map(firsts.set_index("key")["id"])

    within: Severity = "critical" if name in FREE_OF_COPIES else "advisory"
    across: Severity = "advisory" if name.startswith("raw_") else "critical"
    marked = table.drop(columns="key")  # GX hashes all that it is given
    marked["copy_of"] = first_with_same_text(table).where(table["key"].duplicated())
    expectations = [expect("ColumnValuesToBeNull", "no text stands in the table twice", within, column="copy_of")]
    for other, rows in others.items():
        column = f"also_in_{other}"
        marked[column] = first_with_same_text(rows)
        expectations.append(expect("ColumnValuesToBeNull", f"no text stands in {other} too", across, column=column))
    return marked, expectations


def validate_incoming(
    file: Path, table: "pd.DataFrame", contradictory: "pd.Series[bool]", params: IntakeParams
) -> Report:
    """Holds the usable rows of a file of new labelled reviews against what must hold for them as a whole.

    Args:
        file, table: where the rows come from, and the rows: id, text, label.
        contradictory: which of them have another label than their text has already.
        params: the bounds; those on shares count from `shares_from_rows` rows on.

    Returns:
        The outcomes; where a critical expectation is broken, the file as a whole must not be trained on.
    """
    expectations = _content(balanced=False)["text"]
    if len(table) >= params.shares_from_rows:
        most = params.max_contradictory
        agreeing = f"at most {most:.0%} of the reviews contradict a label that their text has already"
        expectations += [
            _positive_share(params.min_positive, params.max_positive),
            expect("ColumnValuesToBeNull", agreeing, column="contradictory", mostly=1 - most),
        ]
    marked = table.assign(contradictory=table["label"].where(contradictory).astype(object))
    return Report(tuple(Validation({"incoming": file}).run_by_severity("incoming", expectations, marked)))
