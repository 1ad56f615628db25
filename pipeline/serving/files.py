"""Scoring with a registered model: a handful of texts, or a file of any size row by row."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.data.tabular import Row, json_line, open_sink, open_source, require_known_suffix
from pipeline.project import tables
from pipeline.project.atomic import atomic_write
from pipeline.project.errors import DataError, PipelineError, UsageError
from pipeline.project.params import load_params
from pipeline.registry import versions
from pipeline.served_model.tokenizer import why_unusable
from pipeline.tracking import runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.pyfunc import PyFuncModel

SCORES = ("label", "probability", "logit")
_IN_THE_STORE = ("models:/", "runs:/", "mlflow-artifacts:/")
CHUNK_ROWS = 4096
CHUNK_CHARACTERS = 2**23
"""A chunk ends at either limit: rows enough to be sorted by length, and a few dozen megabytes at most."""
SHOWN_CHARACTERS = 72
COUNTED_REASONS = 100


@dataclass(frozen=True)
class FileReport:
    """What became of a file: rows `scored`, rows quarantined by reason, the files written, and the new names
    of columns that were named like a score."""

    scored: int
    quarantined: Mapping[str, int]
    output: Path
    quarantine: Path
    renamed: Mapping[str, str]

    def __str__(self) -> str:
        sentences = [f"{self.scored:,} rows scored: {self.output}"]
        if self.quarantined:
            reasons = "; ".join(f"{count:,} × {reason}" for reason, count in Counter(self.quarantined).most_common(5))
            sentences.append(f"{sum(self.quarantined.values()):,} rows quarantined: {self.quarantine} ({reasons})")
        sentences += [f"the input's column {name!r} is kept as {name_!r}" for name, name_ in self.renamed.items()]
        return "\n".join(sentences)


def champion_uri() -> str:
    """Returns the URI of the champion on the data set that params.yaml names."""
    return f"models:/{versions.registered_name(load_params().dataset)}@{versions.CHAMPION}"


def load(uri: str | None) -> "PyFuncModel":
    """Loads a registered model; `uri` is any that MLflow takes, None the champion.

    Raises:
        UsageError: there is no such model, or it does not score reviews.
        PipelineError: there is no champion yet, or the store cannot be used.
    """
    chosen = uri or champion_uri()
    if chosen.startswith(_IN_THE_STORE):
        _require_store(chosen)
        runs.connect()
    import mlflow

    try:
        model = mlflow.pyfunc.load_model(chosen)
    except Exception as error:  # MLflow, Keras and the model's own code raise whatever they like
        reason = " ".join(str(error).split())[:300]
        if uri is None:
            raise PipelineError(
                f"{chosen} cannot be loaded ({reason}); `dvc repro` trains and registers one"
            ) from error
        raise UsageError(f"--model {uri} cannot be loaded: {reason}") from error
    outputs = model.metadata.get_output_schema()
    if outputs is None or not set(SCORES) <= set(outputs.input_names()):
        raise UsageError(f"--model {chosen} does not score reviews: its output is not {', '.join(SCORES)}")
    return model


def _require_store(uri: str) -> None:
    if not runs.store_exists():
        raise PipelineError(
            f"{uri} cannot be loaded: there is no registry at {runs.tracking_uri().removeprefix('sqlite:///')}; "
            "run `dvc repro`, or set MLFLOW_TRACKING_URI"
        )


def score_texts(model: "PyFuncModel", texts: Sequence[str]) -> "pd.DataFrame":
    """Returns label, probability and logit of each of `texts`.

    Raises:
        PipelineError: the model refuses one of them.
    """
    import pandas as pd
    from mlflow.exceptions import MlflowException

    try:
        scores = model.predict(pd.DataFrame({"text": pd.Series(texts, dtype=object)}))
    except MlflowException as error:
        raise PipelineError(f"the model refused what it was given: {error.message}") from None
    assert isinstance(scores, pd.DataFrame)  # the signature that `load` asked for
    return scores


def checked(texts: Sequence[str], *, place: str = "review") -> list[str]:
    """Returns `texts`; raises DataError naming the first that cannot be scored, counted from 1."""
    for number, text in enumerate(texts, start=1):
        if reason := why_unusable(text):
            raise DataError(f"{place} {number}: {reason}")
    return list(texts)


def read_lines(stream: BinaryIO) -> list[str]:
    """Returns the reviews of `stream`, UTF-8 with one a line.

    Raises:
        UsageError: there are none, or it is a terminal.
        DataError: a line is not UTF-8 or cannot be scored.
    """
    if stream.isatty():
        raise UsageError("name a review, or pipe some in, one a line; see `sentiment predict --help`")
    lines = stream.read().split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise UsageError("there is no review on stdin; it takes one a line")
    reviews = []
    for number, line in enumerate(lines, start=1):
        try:
            reviews.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"line {number}: its byte {error.start} is not UTF-8") from None
    return checked(reviews, place="line")


def table(texts: Sequence[str], scores: "pd.DataFrame") -> str:
    """Returns the scores as lines of text, each with the beginning of its review."""
    rows = [(*SCORES, "review")]
    for text, label, probability, logit in zip(texts, *(scores[name] for name in SCORES), strict=True):
        shown = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
        shown = shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"
        rows.append((label, f"{probability:.4f}", f"{logit: .3f}", shown))
    return tables.table(rows)


def json_lines(texts: Sequence[str], scores: "pd.DataFrame") -> str:
    """Returns text, label, probability and logit of each review as JSON, one a line."""
    columns = [scores[name].tolist() for name in SCORES]
    rows = zip(texts, *columns, strict=True)
    return "".join(json_line(dict(zip(("text", *SCORES), row, strict=True))) for row in rows).removesuffix("\n")


def quarantine_file(output: Path) -> Path:
    """Returns where the rows of a scored file go that could not be scored."""
    return output.with_name(f"{output.stem}.quarantine.jsonl")


def score_file(
    uri: str | None,
    source: Path,
    output: Path,
    *,
    text_column: str = "text",
    begin: Callable[[int], None] = lambda size: None,
    advance: Callable[[int], None] = lambda amount: None,
) -> FileReport:
    """Scores each row of `source` and writes them with their scores to `output`, whole or not at all.

    All columns are kept; where one is named like a score it becomes `input_<name>`. Rows that cannot be scored go to
    `quarantine_file(output)` with their number, counted from 0, the reason and the original; without any there is no
    such file.

    Args:
        uri: as in `load`.
        source, output: .csv, .jsonl or .parquet, each by its own suffix.
        text_column: the column of `source` that holds the text.
        begin: called once with the size of `source`.
        advance: called with how much more of that size is done.

    Raises:
        UsageError, PipelineError: as in `load`.
        UsageError: a suffix is unknown, or a file would be overwritten while it is read.
        DataError: `source` is missing, damaged or lacks `text_column`, or none of its rows could be scored.
    """
    suffix = require_known_suffix(output)
    opened = open_source(source)
    quarantine = quarantine_file(output)
    _require_writable(output, quarantine, source)
    if text_column not in opened.types and opened.types:
        raise DataError(
            f"{source} has no column {text_column!r} but {', '.join(map(repr, opened.types))}; "
            "name the one that holds the text with --text-column"
        )
    model = load(uri)
    names = _output_names(opened.types)
    reasons: Counter[str] = Counter()
    scored = 0
    begin(opened.size)
    done = 0
    with ExitStack() as files:
        refused = files.enter_context(files.enter_context(atomic_write(quarantine)).open("w", encoding="utf-8"))
        aside = files.enter_context(atomic_write(output))
        write = files.enter_context(open_sink(aside, suffix, _output_types(opened.types, names)))
        for chunk in _chunks(opened.rows(), text_column):
            good = []
            for row in chunk:
                if reason := row.problem or why_unusable(row.values.get(text_column)):
                    reasons[reason if reason in reasons or len(reasons) < COUNTED_REASONS else "another reason"] += 1
                    original = row.original if row.problem else row.values
                    refused.write(json_line({"row": row.number, "reason": reason, "original": original}))
                else:
                    good.append(row.values)
            if good:
                write(list(_with_scores(good, names, score_texts(model, [row[text_column] for row in good]))))
                scored += len(good)
            advance(chunk[-1].position - done)
            done = chunk[-1].position
    if not reasons:
        quarantine.unlink()
    renamed = {column: name for column, name in names.items() if name != column}
    if reasons and not scored:
        raise DataError(
            f"none of the {sum(reasons.values()):,} rows of {source} could be scored ({reasons.most_common(1)[0][0]}); "
            f"they stand in {quarantine}"
        )
    return FileReport(scored, reasons, output, quarantine, renamed)


def _require_writable(output: Path, quarantine: Path, source: Path) -> None:
    for written in (output, quarantine):
        if written.is_dir():
            raise UsageError(f"{written} is a folder; give --output the name of a file")
        if written.exists() and written.samefile(source):
            raise UsageError(f"{written} would be overwritten while it is read; give --output another name")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {output.parent} is no folder ({error.strerror})") from None


def _chunks(rows: Iterable[Row], text_column: str) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        text = row.values.get(text_column)
        characters += len(text) if isinstance(text, str) else len(row.original)
        if len(chunk) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _output_names(columns: Iterable[str]) -> dict[str, str]:
    """Returns what each column of the input is called in the output."""
    taken = {*columns, *SCORES}
    names = {}
    for column in columns:
        name = column
        while name in SCORES or (name != column and name in taken):
            name = f"input_{name}"
        names[column] = name
    return names


def _output_types(types: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    import pyarrow as pa

    kept = {names[column]: kind for column, kind in types.items()}
    return {**kept, "label": pa.string(), "probability": pa.float64(), "logit": pa.float64()}


def _with_scores(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], scores: "pd.DataFrame"
) -> Iterator[dict[str, Any]]:
    columns = [scores[name].tolist() for name in SCORES]
    for values, row_scores in zip(rows, zip(*columns, strict=True), strict=True):
        yield {names[name]: value for name, value in values.items()} | dict(zip(SCORES, row_scores, strict=True))
