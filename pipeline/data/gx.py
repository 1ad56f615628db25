"""Runs Great Expectations suites on tables of reviews in a context that lives in memory, and says what was found."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["critical", "advisory"]
GX_SEVERITY: dict[Severity, str] = {"critical": "critical", "advisory": "warning"}

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
            shown += ["…"] if self.unexpected_count > len(shown) else []
            found = f"{self.unexpected_count:,} of {self.rows:,} rows are otherwise: {'; '.join(shown)}"
        return f"{self.file}: {self.sentence}, but {found} [{self.table}, {self.expectation}]"

    def _show(self, example: Example) -> str:
        value = "" if self.column in ("id", "text") else f"{self.column} {example.value}, "
        text = "no text" if example.excerpt is None else f'{example.characters:,} characters, "{example.excerpt}"'
        return f"{example.id} ({value}{text})"


@dataclass(frozen=True)
class Report:
    """The outcomes of all suites."""

    outcomes: tuple[Outcome, ...]

    @property
    def success(self) -> bool:
        """Whether no critical expectation is broken."""
        return not self.broken("critical")

    def broken(self, severity: Severity) -> list[Outcome]:
        """Returns the broken expectations of a severity."""
        return [outcome for outcome in self.outcomes if outcome.severity == severity and not outcome.success]

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as plain, JSON-ready data."""
        counts: dict[str, Any] = {
            severity: {
                "evaluated": sum(outcome.severity == severity for outcome in self.outcomes),
                "broken": len(self.broken(severity)),
            }
            for severity in GX_SEVERITY
        }
        return {"success": self.success, **counts, "expectations": [asdict(outcome) for outcome in self.outcomes]}


def expect(kind: str, sentence: str, severity: Severity = "critical", **arguments: Any) -> Any:
    """Returns GX's expectation `Expect<kind>`; Data Docs show `sentence`."""
    import great_expectations.expectations as gxe

    return getattr(gxe, f"Expect{kind}")(description=sentence, severity=GX_SEVERITY[severity], **arguments)


class Validation:
    """Runs suites, and collects what Data Docs, GX's static site, show: `context.build_data_docs()` writes it."""

    def __init__(self, files: Mapping[str, Path], data_docs: Path | None = None) -> None:
        """Args: `files`, the file that each table comes from, by its name; `data_docs`, the folder of the site."""
        import great_expectations as gx
        from great_expectations.data_context.types import base

        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str((data_docs or Path()).absolute())}
        site = {
            "class_name": "SiteBuilder",
            "site_name": "reviews",
            "show_how_to_buttons": False,
            "store_backend": store,
        }
        config = base.DataContextConfig(
            # GX's own default is a site in a folder of its own under /tmp.
            store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            data_docs_sites={"reviews": site} if data_docs else {},
            progress_bars=base.ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        )
        self._files = files
        self.context = gx.get_context(mode="ephemeral", project_config=config)
        self._sources = {suite: self.context.data_sources.add_pandas(suite) for suite in ("schema", *GX_SEVERITY)}
        self._run_id = gx.RunIdentifier(run_name="validate", run_time=datetime.now(UTC))

    def run_by_severity(self, name: str, expectations: Sequence[Any], table: "pd.DataFrame") -> list[Outcome]:
        """Evaluates `expectations` on `table`, as the suites `<name>.critical` and `<name>.advisory`."""
        outcomes: list[Outcome] = []
        for severity, gx_severity in GX_SEVERITY.items():
            of_severity = [one for one in expectations if one.severity == gx_severity]
            outcomes += self.run(name, severity, of_severity, table)
        return outcomes

    def run(self, name: str, suite: str, expectations: Sequence[Any], table: "pd.DataFrame") -> list[Outcome]:
        """Evaluates `expectations` on `table`, as the suite `<name>.<suite>`; none are no suite."""
        import great_expectations as gx
        from great_expectations.data_context.types import resource_identifiers as identifiers

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
        outcomes = [_outcome(name, self._files[name], result, table) for result in results.results]
        for result, outcome in zip(results.results, outcomes, strict=True):
            result.result = _presentable(result.result, outcome)
        results.meta["run_id"] = self._run_id
        suite_id = identifiers.ExpectationSuiteIdentifier(name=results.suite_name)
        key = identifiers.ValidationResultIdentifier(suite_id, self._run_id, batch_identifier=results.batch_id)
        self.context.validation_results_store.set(key=key, value=results)
        return outcomes


def _outcome(name: str, file: Path, result: Any, table: "pd.DataFrame") -> Outcome:
    config, found = result.expectation_config, result.result or {}
    if "unexpected_count" not in found and "observed_value" not in found:
        raise RuntimeError(f"{config.type} could not be evaluated on {name}: {result.exception_info}")
    column, regex = config.kwargs.get("column"), config.kwargs.get("regex")
    rows = found.get("partial_unexpected_index_list") or []
    return Outcome(
        table=name,
        file=file.as_posix(),
        expectation=config.type,
        column=column,
        sentence=config.description,
        severity="critical" if config.severity == "critical" else "advisory",
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
