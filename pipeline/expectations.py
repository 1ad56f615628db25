"""What must hold for the tables of reviews, as Great Expectations suites, and what was found.

Each table has three suites: `schema` (columns, types, rows, missing values), `critical` and `advisory`. A broken
expectation of the first two stops the pipeline, a broken advisory one is reported. A column that is missing or of
another type breaks its expectation in `schema`, and what presupposes it is not evaluated.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.artifacts import DATASET_INFO, RAW, RAW_SPLITS, REVIEW_COLUMNS, SPLIT_REPORT, SPLIT_TABLES, SPLITS
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["critical", "advisory"]
GX_SEVERITY = {"critical": "critical", "advisory": "warning"}

TABLE_FILES = {
    **{f"raw_{split}": RAW / f"{split}.parquet" for split in RAW_SPLITS},
    **{split: SPLIT_TABLES / f"{split}.parquet" for split in SPLITS},
}
COLUMN_TYPES = {"id": ("str", "a string"), "text": ("str", "a string"), "label": ("int64", "an integer")}
HAS_TYPE = "expect_column_values_to_be_of_type"

IMDB_ROWS = 25_000  # of each labelled split: Maas et al. 2011, section 4.1
POSITIVE_SHARE = (0.4, 0.6)  # IMDB has 0.5; beyond these bounds accuracy no longer speaks for both labels
CHARACTERS = (10, 20_000)  # IMDB has 32 to 13,704
BLANK = r"^\s*$"  # as str.isspace() has it: pandas leaves \s to Python's re, not to RE2, whose \s is ASCII only
MOJIBAKE = "[\xc2\xc3][\x80-\xbf]|\xe2\u20ac|\xef\xbb\xbf"  # é, “ and a byte order mark, read as Latin-1 or cp1252
CONTROL_CHARACTERS = r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
FREE_OF_CONTROL_CHARACTERS = 0.95  # IMDB has 0.967 in train and 0.970 in test
FREE_OF_LINE_BREAK_TAGS = 0.3  # IMDB has 0.41 in train and 0.42 in test

# Where a text must not stand as well. The raw tables are as they came: IMDB's share 123 texts.
DISJOINT_FROM = {"raw_train": ("raw_test",), "train": ("validation", "test"), "validation": ("test",)}
FREE_OF_COPIES = ("train", "validation")  # the others keep what they came with: IMDB's 96 in raw train, 199 in test

EXAMPLES = 5
EXAMPLES_IN_MESSAGE = 3
EXCERPT_CHARACTERS = 80


@dataclass(frozen=True)
class Example:
    """A row that breaks an expectation: its id, the value of the column in question (of `text`, see `excerpt`),
    and of its text the length and a printable piece."""

    id: str | None
    value: Any
    characters: int | None
    excerpt: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of one expectation; `unexpected_count` and `examples` are of rows, `observed` is of the table."""

    table: str
    file: str
    expectation: str
    column: str | None
    sentence: str
    severity: Severity
    success: bool
    observed: Any
    rows: int | None
    unexpected_count: int | None
    examples: tuple[Example, ...]

    def __str__(self) -> str:
        found = f"found {self.observed}"
        if self.unexpected_count is not None:
            shown = [self._show(example) for example in self.examples[:EXAMPLES_IN_MESSAGE]]
            more = ["…"] if self.unexpected_count > len(shown) else []
            found = f"{self.unexpected_count:,} of {self.rows:,} rows are otherwise: {'; '.join(shown + more)}"
        return f"{self.file}: {self.sentence}, but {found} [{self.table}, {self.expectation}]"

    def _show(self, example: Example) -> str:
        value = "" if self.column in ("id", "text") else f"{self.column} {example.value}, "
        text = "no text" if example.excerpt is None else f'{example.characters:,} characters, "{example.excerpt}"'
        return f"{example.id} ({value}{text})"


@dataclass(frozen=True)
class Report:
    """The outcomes of all suites; `success` means that no critical expectation is broken."""

    outcomes: tuple[Outcome, ...]

    @property
    def success(self) -> bool:
        return not self.broken("critical")

    def broken(self, severity: Severity) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.severity == severity and not outcome.success]

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as plain, JSON-ready data."""

        def counts(severity: Severity) -> dict[str, int]:
            evaluated = sum(outcome.severity == severity for outcome in self.outcomes)
            return {"evaluated": evaluated, "broken": len(self.broken(severity))}

        return {
            "success": self.success,
            "critical": counts("critical"),
            "advisory": counts("advisory"),
            "expectations": [asdict(outcome) for outcome in self.outcomes],
        }


def expected_rows(dataset: str, dataset_info: Any, split_report: Any) -> dict[str, int]:
    """Returns how many rows each table must have.

    The raw tables of `imdb_reviews` have 25,000 each, those of another data set what `dataset_info` says. Test stays
    whole: it has as many as the raw test. Train and validation have what `split_report` says.

    Raises:
        DataError: one of the two lacks a count, or `dataset_info` is of another data set.
    """

    def entry(path: Path, content: Any, keys: Sequence[str], of_type: type) -> Any:
        for key in keys:
            content = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(content, of_type):
            raise DataError(f"{path} lacks {'.'.join(keys)}; remove it and run `dvc repro` to make it anew")
        return content

    found = entry(DATASET_INFO, dataset_info, ["dataset"], str)
    if found != dataset:
        raise DataError(f"{DATASET_INFO} is of {found}, params.yaml asks for the data set {dataset}; run `dvc repro`")
    stated = {split: entry(DATASET_INFO, dataset_info, ["splits", split, "rows"], int) for split in RAW_SPLITS}
    raw = dict.fromkeys(RAW_SPLITS, IMDB_ROWS) if dataset == "imdb_reviews" else stated
    splits = {split: entry(SPLIT_REPORT, split_report, ["rows", split], int) for split in ("train", "validation")}
    return {"raw_train": raw["train"], "raw_test": raw["test"], **splits, "test": raw["test"]}


def validate(tables: Mapping[str, "pd.DataFrame"], rows: Mapping[str, int], data_docs: Path | None = None) -> Report:
    """Holds every table against its suites.

    Args:
        tables: tables of reviews by the names of `TABLE_FILES`; those that are there are compared with each other.
        rows: how many rows each of them must have.
        data_docs: folder for the results as a static site, GX's Data Docs; its index.html lists them.

    Returns:
        The outcomes, table by table.
    """
    validation = _Validation(data_docs)
    schema = {name: validation.run(name, "schema", _schema(table, rows[name]), table) for name, table in tables.items()}
    usable = {
        name: [one.column for one in outcomes if one.expectation == HAS_TYPE and one.success and one.column]
        for name, outcomes in schema.items()
    }
    comparable = {name: table for name, table in tables.items() if {"id", "text"} <= set(usable[name])}
    outcomes: list[Outcome] = []
    for name, table in tables.items():
        outcomes += schema[name]
        expectations = [one for column in usable[name] for one in _CONTENT[column]()]
        if name in comparable:
            others = [other for other in DISJOINT_FROM.get(name, ()) if other in comparable]
            table = _mark_copies(table, {other: comparable[other] for other in others})
            expectations += _copies(name, others)
        for suite, gx_severity in GX_SEVERITY.items():
            outcomes += validation.run(name, suite, [one for one in expectations if one.severity == gx_severity], table)
    validation.context.build_data_docs()
    return Report(tuple(outcomes))


def _expect(kind: str, sentence: str, severity: Severity = "critical", **arguments: Any) -> Any:
    """Returns GX's expectation `Expect<kind>`; Data Docs show `sentence`."""
    import great_expectations.expectations as gxe

    return getattr(gxe, f"Expect{kind}")(description=sentence, severity=GX_SEVERITY[severity], **arguments)


def _schema(table: "pd.DataFrame", rows: int) -> list[Any]:
    columns = list(REVIEW_COLUMNS)
    expectations = [
        _expect("TableColumnsToMatchSet", "the columns are id, text and label", column_set=columns, exact_match=True),
        _expect("TableRowCountToEqual", f"there are {rows:,} rows", value=rows),
    ]
    for column in (column for column in REVIEW_COLUMNS if column in table.columns):
        type_, name = COLUMN_TYPES[column]
        expectations += [
            _expect("ColumnValuesToBeOfType", f"every {column} is {name}", column=column, type_=type_),
            _expect("ColumnValuesToNotBeNull", f"no {column} is missing", column=column),
        ]
    return expectations


def _ids() -> list[Any]:
    return [_expect("ColumnValuesToBeUnique", "every id is unique", column="id")]


def _texts() -> list[Any]:
    def free_of(regex: str, sentence: str, severity: Severity, mostly: float = 1.0) -> Any:
        return _expect("ColumnValuesToNotMatchRegex", sentence, severity, column="text", regex=regex, mostly=mostly)

    low, high = CHARACTERS
    lengths = {"column": "text", "min_value": low, "max_value": high}
    return [
        free_of(BLANK, "no text is blank", "critical"),
        free_of(r"\x00", "no text holds a NUL character", "critical"),
        _expect("ColumnValueLengthsToBeBetween", f"every text has {low} to {high:,} characters", "advisory", **lengths),
        free_of("\ufffd", "no text holds U+FFFD, which stands for bytes that could not be decoded", "advisory"),
        free_of(MOJIBAKE, "no text holds UTF-8 that was read as Latin-1, such as Ã© for é", "advisory"),
        free_of(
            CONTROL_CHARACTERS,
            f"at least {FREE_OF_CONTROL_CHARACTERS:.0%} of the texts hold no control character "
            "(U+0080 to U+009F are mostly Windows-1252 punctuation that was read as Latin-1)",
            "advisory",
            FREE_OF_CONTROL_CHARACTERS,
        ),
        free_of(
            "<br />",
            f"at least {FREE_OF_LINE_BREAK_TAGS:.0%} of the texts hold no HTML line break",
            "advisory",
            FREE_OF_LINE_BREAK_TAGS,
        ),
    ]


def _labels() -> list[Any]:
    low, high = POSITIVE_SHARE
    share = f"the share of positive reviews is between {low} and {high}"
    return [
        _expect(
            "ColumnValuesToBeInSet", "every label is 0 (negative) or 1 (positive)", column="label", value_set=[0, 1]
        ),
        _expect("ColumnMeanToBeBetween", share, column="label", min_value=low, max_value=high),
    ]


_CONTENT = {"id": _ids, "text": _texts, "label": _labels}


def _copies(table: str, others: Sequence[str]) -> list[Any]:
    """Returns what must hold for the columns that `_mark_copies` adds."""
    within: Severity = "critical" if table in FREE_OF_COPIES else "advisory"
    across: Severity = "advisory" if table.startswith("raw_") else "critical"
    return [
        _expect("ColumnValuesToBeNull", "no text stands in the table twice", within, column="copy_of"),
        *(
            _expect("ColumnValuesToBeNull", f"no text stands in {other} too", across, column=f"also_in_{other}")
            for other in others
        ),
    ]


def _mark_copies(table: "pd.DataFrame", others: Mapping[str, "pd.DataFrame"]) -> "pd.DataFrame":
    """Returns `table` with `copy_of` (the id of an earlier row that has the same text, else null) and, for each of
    `others`, `also_in_<other>` (the id of its first row that has the same text, else null)."""

    def first_with_same_text(within: "pd.DataFrame") -> "pd.Series[Any]":
        firsts = within[["text", "id"]].dropna().drop_duplicates("text")
        return table["text"].map(firsts.set_index("text")["id"])

    also_in = {f"also_in_{name}": first_with_same_text(other) for name, other in others.items()}
    return table.assign(copy_of=first_with_same_text(table).where(table["text"].duplicated()), **also_in)


class _Validation:
    """Runs suites in a GX context that lives in memory, and keeps what Data Docs show."""

    def __init__(self, data_docs: Path | None) -> None:
        import great_expectations as gx
        from great_expectations.data_context.types import base

        site = {
            "class_name": "SiteBuilder",
            "site_name": "reviews",
            "show_how_to_buttons": False,
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str((data_docs or Path()).absolute()),
            },
        }
        config = base.DataContextConfig(
            # GX's own default is a site in a folder of its own under /tmp.
            store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            data_docs_sites={"reviews": site} if data_docs else {},
            progress_bars=base.ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        )
        self.context = gx.get_context(mode="ephemeral", project_config=config)
        self._sources = {suite: self.context.data_sources.add_pandas(suite) for suite in ("schema", *GX_SEVERITY)}
        self._run_id = gx.RunIdentifier(run_name="validate", run_time=datetime.now(UTC))

    def run(self, name: str, suite: str, expectations: Sequence[Any], table: "pd.DataFrame") -> list[Outcome]:
        """Evaluates `expectations` on `table`, as the suite `<name>.<suite>`; none are no suite."""
        import great_expectations as gx

        if not expectations:
            return []
        result_format: dict[str, Any] = {
            "result_format": "SUMMARY",
            "partial_unexpected_count": EXAMPLES,
            "return_unexpected_index_query": False,  # it would list every row
        }
        if "id" in table.columns:
            result_format["unexpected_index_column_names"] = ["id"]
        asset = self._sources[suite].add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("whole table").get_batch({"dataframe": table})
        stored = self.context.suites.add(gx.ExpectationSuite(f"{name}.{suite}", expectations=list(expectations)))
        results = batch.validate(stored, result_format=result_format)
        outcomes = [_outcome(name, result, table) for result in results.results]
        self._document(results, outcomes)
        return outcomes

    def _document(self, results: Any, outcomes: Sequence[Outcome]) -> None:
        from great_expectations.data_context.types import resource_identifiers as identifiers

        for result, outcome in zip(results.results, outcomes, strict=True):
            result.result = _presentable(result.result, outcome)
        results.meta["run_id"] = self._run_id
        suite = identifiers.ExpectationSuiteIdentifier(name=results.suite_name)
        key = identifiers.ValidationResultIdentifier(suite, self._run_id, batch_identifier=results.batch_id)
        self.context.validation_results_store.set(key=key, value=results)


def _outcome(name: str, result: Any, table: "pd.DataFrame") -> Outcome:
    config, found = result.expectation_config, result.result or {}
    if "unexpected_count" not in found and "observed_value" not in found:
        raise RuntimeError(f"{config.type} could not be evaluated on {name}: {result.exception_info}")
    column, regex = config.kwargs.get("column"), config.kwargs.get("regex")
    rows = found.get("partial_unexpected_index_list") or []
    return Outcome(
        table=name,
        file=TABLE_FILES[name].as_posix(),
        expectation=config.type,
        column=column,
        sentence=config.description,
        severity="critical" if config.severity == GX_SEVERITY["critical"] else "advisory",
        success=bool(result.success),
        observed=_plain(found.get("observed_value")),
        rows=found.get("element_count"),
        unexpected_count=found.get("unexpected_count"),
        examples=tuple(_example(row, column, regex, table) for row in rows if isinstance(row, dict)),
    )


def _example(row: Mapping[str, Any], column: str, regex: str | None, table: "pd.DataFrame") -> Example:
    texts = [row["text"]] if "text" in row else table.loc[table["id"] == row["id"]].get("text", [])
    text = next((text for text in texts if isinstance(text, str)), None)
    return Example(
        id=_plain(row["id"]),
        value=None if column in ("id", "text") else _plain(row[column]),
        characters=None if text is None else len(text),
        excerpt=None if text is None else _excerpt(text, regex),
    )


def _excerpt(text: str, regex: str | None) -> str:
    """Returns a printable piece of `text`: around what `regex` finds, else its beginning."""
    found = re.search(regex, text) if regex else None
    start = max(0, found.start() - EXCERPT_CHARACTERS // 2) if found else 0
    piece = text[start : start + EXCERPT_CHARACTERS]
    printable = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in piece)
    return ("…" if start else "") + printable + ("…" if start + len(piece) < len(text) else "")


def _plain(value: Any) -> Any:
    """Returns `value` as JSON can hold it: Python's own types, null for NaN."""
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or isinstance(value, str | int | float | list) else str(value)


def _presentable(found: Mapping[str, Any], outcome: Outcome) -> Any:
    """Returns a result as Data Docs should show it: ids and excerpts in the place of whole texts, and HTML-escaped,
    because GX 1.24 writes values into its pages as they are and a review may hold a script."""
    shown = {key: value for key, value in found.items() if not key.startswith("partial_unexpected")}
    rows = [f"{one.id}: {one.excerpt if one.value is None else one.value}" for one in outcome.examples]
    return _escaped({**shown, "partial_unexpected_counts": [{"value": row, "count": 1} for row in rows]})


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list | tuple) else value
