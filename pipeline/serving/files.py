"""Scoring with a registered model: a handful of texts, or a file of any size row by row."""

import codecs
import os
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from pipeline.data.tabular import Row, Types, json_line, kind_of, open_sink, open_source, require_known_suffix
from pipeline.evaluation import evaluation_sets
from pipeline.project import tables
from pipeline.project.atomic import atomic_write, read_table
from pipeline.project.errors import DataError, PipelineError, UsageError, one_line
from pipeline.project.params import EvaluationSet, load_params
from pipeline.project.paths import SPLIT_TABLES
from pipeline.project.quiet_import import import_tensorflow
from pipeline.registry import champion, versions
from pipeline.served_model.loading import load_scorer
from pipeline.served_model.tokenizer import why_unusable
from pipeline.serving import pulled
from pipeline.serving.lookup import NoAnswer
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

SCORES = ("label", "probability", "logit")
_IN_THE_STORE = ("models:/", "runs:/", "mlflow-artifacts:/")
_MADE_WITH = "requirements.txt"
_HAS_MLFLOW = find_spec("mlflow") is not None
CHUNK_ROWS = 4096
CHUNK_CHARACTERS = 2**23
"""A chunk ends at either limit: rows enough to be sorted by length, and a few dozen megabytes at most."""
SHOWN_CHARACTERS = 72
_LONGEST_NAME = 220
"""Bytes: Linux takes 255, some of which a name has more while the file is written."""


class Model(Protocol):
    """What scores texts: `served_model.scorer.Scorer`, of whichever version."""

    UnencodableText: type[Exception]

    def score(self, texts: Sequence[str]) -> Sequence[Any]:
        """Returns label, probability and logit, an array each; raises UnencodableText."""


def champion_uri() -> str:
    """Returns the URI of the champion on the data set that params.yaml names."""
    return f"models:/{versions.registered_name(load_params().dataset)}@{versions.CHAMPION}"


def load(uri: str | None) -> Model:
    """Loads a registered model; `uri` is any that MLflow takes, None the champion.

    Raises:
        UsageError: there is no such model, or it does not score reviews.
        PipelineError: there is no champion yet, the store cannot be used, or the model needs what is not installed.
    """
    chosen = uri or champion_uri()
    try:
        folder = pulled.model(chosen)
    except NoAnswer:
        raise
    except PipelineError as error:
        if uri is None:
            raise PipelineError(_without_champion(str(error))) from error
        raise UsageError(f"--model {uri} cannot be loaded: {error}") from error
    served = pulled.served_model(folder)
    if served is None:
        return _PyFunc(chosen, folder)
    try:
        return load_scorer(served)
    except Exception as error:  # the code of the version raises whatever it likes
        raise PipelineError(f"{chosen} cannot be loaded: {one_line(error)}") from error


class _PyFunc:
    """A model that only MLflow loads: one that was registered before versions were folders, or another project's."""

    UnencodableText: type[Exception] = ValueError

    def __init__(self, uri: str, folder: Path) -> None:
        if not _HAS_MLFLOW:
            raise PipelineError(
                f"{uri} was registered before versions were folders that need NumPy and ONNX Runtime alone, or is no "
                "model of this project's: it needs MLflow and what it was made with; install requirements.lock"
            )
        made_with = folder / _MADE_WITH
        if made_with.exists() and "tensorflow" in made_with.read_text(encoding="utf-8"):
            import_tensorflow()
        try:
            self._model = load_pyfunc(str(folder))
        except UsageError as error:
            raise PipelineError(str(error).replace(f"--model {folder}", uri)) from error

    def score(self, texts: Sequence[str]) -> list[Any]:
        import pandas as pd
        from mlflow.exceptions import MlflowException

        try:
            scores = self._model.predict(pd.DataFrame({"text": pd.Series(texts, dtype=object)}))
        except MlflowException as error:
            raise ValueError(error.message) from None
        assert isinstance(scores, pd.DataFrame)  # the signature that `load_pyfunc` asked for
        return [scores[name].to_numpy() for name in SCORES]


def load_pyfunc(uri: str | None) -> "PyFuncModel":
    """Loads a copy of a registered model as MLflow has it; `uri` and errors as in `load`."""
    chosen = uri or champion_uri()
    if chosen.startswith(_IN_THE_STORE):
        runs.connect_to_read()
    import mlflow

    try:
        with ExitStack() as copies:  # in the store's own folder MLflow would leave a file, and Python compiled code
            copy = copies.enter_context(tempfile.TemporaryDirectory())
            model = mlflow.pyfunc.load_model(chosen, dst_path=copy)
            weakref.finalize(model, copies.pop_all().close)
    except Exception as error:  # MLflow, Keras and the model's own code raise whatever they like
        if uri is None:
            raise PipelineError(_without_champion(one_line(error))) from error
        raise UsageError(f"--model {uri} cannot be loaded: {one_line(error)}") from error
    outputs = model.metadata.get_output_schema()
    if outputs is None or not set(SCORES) <= set(outputs.input_names()):
        raise UsageError(f"--model {chosen} does not score reviews: its output is not {', '.join(SCORES)}")
    return model


def _without_champion(reason: str) -> str:
    """Says why there is no champion to load, and how to get one."""
    remedy = "`dvc repro` trains and registers one"
    if _HAS_MLFLOW:
        client, name = runs.connect_to_read(), versions.registered_name(load_params().dataset)
        if lost := champion.lost_champion(client, name):
            return lost
        if client.search_registered_models(f"name = '{name}'"):
            remedy = "`sentiment registry verify` says how to mend it"
    return f"{champion_uri()} cannot be loaded ({reason}); {remedy}"


def score_texts(model: Model, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Returns label, probability and logit of each of `texts`.

    Raises:
        PipelineError: the model refuses one of them.
    """
    try:
        scores = model.score(texts)
    except model.UnencodableText as error:
        raise PipelineError(f"the model refused what it was given: {error}") from None
    columns = (scores_of.tolist() for scores_of in scores)
    return [dict(zip(SCORES, row, strict=True)) for row in zip(*columns, strict=True)]


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
    rows = [(*SCORES, "review")]
    for text, score in zip(texts, scores, strict=True):
        shown = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
        shown = shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"
        rows.append((score["label"], f"{score['probability']:.4f}", f"{score['logit']: .3f}", shown))
    return tables.table(rows)


def json_lines(texts: Sequence[str], scores: Sequence[Mapping[str, Any]]) -> str:
    """Returns text, label, probability and logit of each review as JSON, one a line."""
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
    names, types = _output_columns(opened.types)
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
                columns = ({names[column]: value for column, value in values.items()} for values in good)
                write([given | score for given, score in zip(columns, scores, strict=True)])
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


def evaluate(uri: str | None, source: Path, name: str | None, **columns: Any) -> str:
    """Measures a model on the labelled texts of `source`; `name` is an entry of evaluation_sets in params.yaml, without
    it `columns` are the keys of one.

    Returns:
        What was found, a sentence a line.

    Raises:
        UsageError, PipelineError: as in `load`.
        UsageError: there is no such entry, or the suffix is unknown.
        DataError: as in `evaluation_sets.read_set`.
    """
    if name is None:
        entry = EvaluationSet(file=f"texts{require_known_suffix(source)}", **columns)
    elif name not in (entries := load_params().evaluation_sets):
        raise UsageError(f"params.yaml has no evaluation_sets.{name}; there are {', '.join(entries) or 'none'}")
    else:
        entry = entries[name]
    found = evaluation_sets.read_set(source, entry)
    _, probability, _ = load(uri).score(found.text)
    train = SPLIT_TABLES / "train.parquet"
    training = read_table(train, ("text",))["text"].tolist() if train.exists() and find_spec("pandas") else None
    return evaluation_sets.sentences(evaluation_sets.measure(found, probability, training), found.unusable)


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


def _output_columns(types: Types) -> tuple[dict[str, str], Types]:
    """Returns what each column of the input is called in the output, and the types of the output's columns."""
    taken = {*types, *SCORES}
    names = {}
    for column in types:
        name = column
        while name in SCORES or (name != column and name in taken):
            name = f"input_{name}"
        names[column] = name
    score_types = dict(zip(SCORES, ("string", "double", "double"), strict=True))
    return names, {names[column]: type_ for column, type_ in types.items()} | score_types
