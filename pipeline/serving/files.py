"""Scoring texts: a handful, or a file of any size row by row; and measuring a model on labelled ones."""

import codecs
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.data.copies import key
from pipeline.data.tabular import Row, Types, json_line, kind_of, open_sink, open_source, require_known_suffix
from pipeline.evaluation import evaluation_sets, selective
from pipeline.project import tables
from pipeline.project.atomic import atomic_write, read_table
from pipeline.project.errors import DataError, UsageError
from pipeline.project.params import EvaluationSet, load_params
from pipeline.project.paths import SPLIT_TABLES
from pipeline.served_model.tokenizer import why_unusable
from pipeline.serving.models import SCORE_TYPES, SCORES, columns, load, score_texts

CHUNK_ROWS = 4096
CHUNK_CHARACTERS = 2**23
"""A chunk ends at either limit: rows enough to be sorted by length, and a few dozen megabytes at most."""
SHOWN_CHARACTERS = 72
_SHOWN: dict[str, Callable[[Any], str]] = {
    "label": str,
    "probability": "{:.4f}".format,
    "logit": "{: .3f}".format,
    "sure": lambda sure: "yes" if sure else "no",
}
_LONGEST_NAME = 220
"""Bytes: Linux takes 255, some of which a name has more while the file is written."""


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
    content = stream.read()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("stdin is UTF-16; give it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content:
        raise UsageError("there is no review on stdin; it takes one a line")
    reviews = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            reviews.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"line {number}: its byte {error.start} is not UTF-8") from None
    return checked(reviews, place="line")


def table(texts: Sequence[str], scores: Sequence[Mapping[str, Any]]) -> str:
    """Returns the scores as lines of text, each with the beginning of its review."""
    shown_scores = [name for name in SCORE_TYPES if scores and name in scores[0]] or SCORES
    rows = [(*shown_scores, "review")]
    for text, score in zip(texts, scores, strict=True):
        shown = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
        shown = shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"
        rows.append((*(_SHOWN[name](score[name]) for name in shown_scores), shown))
    return tables.table(rows)


def json_lines(texts: Sequence[str], scores: Sequence[Mapping[str, Any]]) -> str:
    """Returns the text and the scores of each review as JSON, one a line."""
    rows = ({"text": text, **score} for text, score in zip(texts, scores, strict=True))
    return "".join(map(json_line, rows)).removesuffix("\n")


def score_file(
    uri: str | None,
    source: Path,
    output: Path,
    *,
    text_column: str = "text",
    progress: Callable[[int, int], None] = lambda position, size: None,
) -> str:
    """Scores each row of `source` and writes them with their scores to `output`, whole or not at all.

    All columns stay; one that is named like a score becomes `input_<name>`. Rows that cannot be scored go to
    `<stem of output>.quarantine.jsonl` with their number, counted from 0, the reason and the original; without any
    there is no such file.

    Args:
        uri: as in `load`.
        source, output: .csv, .tsv, .jsonl or .parquet, each by its own suffix.
        text_column: the column of `source` that holds the text.
        progress: called with how much of `source` is done, and its size, as `tabular.Source` has them.

    Returns:
        What became of the file, a sentence a line.

    Raises:
        UsageError, PipelineError: as in `load`.
        UsageError: a suffix is unknown, or a file would be overwritten while it is read.
        DataError: `source` is missing, damaged or lacks `text_column`, or none of its rows could be scored.
    """
    suffix = require_known_suffix(output)
    opened = open_source(source)
    quarantine = output.with_name(f"{output.stem}.quarantine.jsonl")
    _require_writable(output, quarantine, source)
    if text_column not in opened.types and opened.types:
        raise DataError(
            f"{source} has no column {text_column!r} but {', '.join(map(repr, opened.types))}; "
            "name the one that holds the text with --text-column"
        )
    model = load(uri)
    names, types = _output_columns(opened.types, columns(model))
    reasons: Counter[str] = Counter()
    scored = 0
    with ExitStack() as files:
        refused = files.enter_context(files.enter_context(atomic_write(quarantine)).open("w", encoding="utf-8"))
        aside = files.enter_context(atomic_write(output))
        write = files.enter_context(open_sink(aside, suffix, types))
        for chunk in _chunks(opened.rows(), text_column):
            good = []
            for row in chunk:
                if reason := row.problem or why_unusable(row.values.get(text_column)):
                    reasons[kind_of(reason)] += 1
                    line = {"row": row.number, "reason": reason, "original": row.original or row.values}
                    refused.write(json_line(line))
                else:
                    good.append(row.values)
            if good:
                scores = score_texts(model, [values[text_column] for values in good])
                kept = ({names[column]: value for column, value in values.items()} for values in good)
                write([given | score for given, score in zip(kept, scores, strict=True)])
                scored += len(good)
            progress(chunk[-1].position, opened.size)
    if not reasons:
        quarantine.unlink()
    elif not scored:
        raise DataError(
            f"none of the {reasons.total():,} rows of {source} could be scored ({reasons.most_common(1)[0][0]}); "
            f"they stand in {quarantine}"
        )
    sentences = [f"{scored:,} rows scored: {output}"]
    if reasons:
        most = "; ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(5))
        sentences.append(f"{reasons.total():,} rows quarantined: {quarantine} ({most})")
    renamed = {column: name for column, name in names.items() if column != name}
    sentences += [f"the input's column {column!r} is kept as {name!r}" for column, name in renamed.items()]
    return "\n".join(sentences)


def evaluate(uri: str | None, source: Path, name: str | None, **keys: Any) -> str:
    """Measures a model on the labelled texts of `source`; `name` is an entry of evaluation_sets in params.yaml, without
    it `keys` are those of one.

    Returns:
        What was found, a sentence a line.

    Raises:
        UsageError, PipelineError: as in `load`.
        UsageError: there is no such entry, or the suffix is unknown.
        DataError: as in `evaluation_sets.read_set`.
    """
    if name is None:
        entry = EvaluationSet(file=f"texts{require_known_suffix(source)}", **keys)
    elif name not in (entries := load_params().evaluation_sets):
        raise UsageError(f"params.yaml has no evaluation_sets.{name}; there are {', '.join(entries) or 'none'}")
    else:
        entry = entries[name]
    found = evaluation_sets.read_set(source, entry)
    model = load(uri)
    said = dict(zip(columns(model), model.score(found.text), strict=True))
    train = SPLIT_TABLES / "train.parquet"
    readable = train.exists() and find_spec("pandas")
    known = {key(text) for text in read_table(train, ("text",))["text"]} if readable else None
    measured = evaluation_sets.measure(found, said["probability"], known)
    if "sure" in said:
        measured["sure"] = selective.report(found.label, said["probability"], said["sure"])
    return evaluation_sets.sentences(measured, found.unusable)


def _require_writable(output: Path, quarantine: Path, source: Path) -> None:
    if len(os.fsencode(quarantine.name)) > _LONGEST_NAME:
        raise UsageError(f"{output} has too long a name for the files beside it; give --output a shorter one")
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


def _output_columns(types: Types, scores: Sequence[str]) -> tuple[dict[str, str], Types]:
    """Returns what each column of the input is called in the output, and the types of the output's columns."""
    taken = {*types, *scores}
    names = {}
    for column in types:
        name = column
        while name in scores or (name != column and name in taken):
            name = f"input_{name}"
        names[column] = name
    score_types = {name: SCORE_TYPES[name] for name in scores}
    return names, {names[column]: type_ for column, type_ in types.items()} | score_types
