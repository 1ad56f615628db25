"""`sentiment predict` and `sentiment score`: what people type to score texts and files."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Registered, edit_params, write_sample_params

from pipeline import cli

KINDS = ("csv", "tsv", "jsonl", "parquet")
DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Sentiment = Callable[..., Done]


@pytest.fixture
def sentiment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Sentiment:
    """Runs `sentiment` with arguments, and bytes on stdin, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["sentiment", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def model(registered: Registered) -> list[str]:
    return ["--model", registered.paths["mean"]]


@pytest.fixture(scope="module")
def logit(registered: Registered) -> Callable[[list[str]], list[float]]:
    loaded = mlflow.pyfunc.load_model(registered.paths["mean"])
    return lambda texts: loaded.predict(pd.DataFrame({"text": pd.Series(texts, dtype=object)}))["logit"].tolist()


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix in DELIMITERS:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter=DELIMITERS[path.suffix]))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return pq.read_table(path).to_pylist()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix in DELIMITERS:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter=DELIMITERS[path.suffix])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


def quarantined(folder: Path) -> list[tuple[int, str, Any]]:
    return [(line["row"], line["reason"], line["original"]) for line in read(folder / "out.quarantine.jsonl")]


# predict


def test_predict_prints_a_table(sentiment: Sentiment, model: list[str], logit: Any) -> None:
    done = sentiment("predict", *model, "A film that\nstays with you.", "\x1b[31mred")
    header, _, first, second = done.out.splitlines()
    expected = logit(["A film that\nstays with you.", "\x1b[31mred"])
    assert done.code == 0
    assert header.split() == ["label", "probability", "logit", "sure", "review"]
    assert first.startswith("positive" if expected[0] > 0 else "negative") and f"{expected[0]:.3f}" in first
    assert first.endswith("A film that stays with you.")
    assert "\x1b" not in second, "what a review holds must not steer the terminal"


def test_predict_reads_a_review_a_line_and_prints_json(sentiment: Sentiment, model: list[str], logit: Any) -> None:
    texts = ["Schön\u2028und gut", "a\0b\x0b", "  spaces  "]
    done = sentiment("predict", *model, "--json", stdin="\r\n".join(texts).encode() + b"\n")
    lines = [json.loads(line) for line in done.out.split("\n") if line]
    assert [list(line) for line in lines] == [["text", "label", "probability", "logit", "sure"]] * 3
    assert [line["text"] for line in lines] == texts
    assert [line["logit"] for line in lines] == pytest.approx(logit(texts), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["fine", " "], b"", 3, "review 2: the text is blank"),
        (["\udce9t\udce9"], b"", 3, "review 1: the text holds a lone surrogate: U+DCE9 at position 0"),
        ([], b"fine\n\nfine\n", 3, "line 2: the text is blank"),
        ([], b"fine\n\xe9t\xe9\n", 3, "line 2: its byte 0 is not UTF-8"),
        ([], b"", 2, "there is no review on stdin"),
        ([], b"\xef\xbb\xbf", 2, "there is no review on stdin"),
        ([], "\ufefffine\n".encode("utf-16-le"), 3, "stdin is UTF-16; give it as UTF-8"),
        (["--model", "models:/m-0", "fine"], b"", 1, "there is no registry at"),
        (["--model", "nowhere", "fine"], b"", 2, "--model nowhere cannot be loaded"),
        (["fine"], b"", 2, "params.yaml is not in"),
    ],
)
def test_predict_says_what_is_wrong_in_a_sentence(
    sentiment: Sentiment, arguments: list[str], stdin: bytes, code: int, message: str
) -> None:
    done = sentiment("predict", *arguments, stdin=stdin)
    assert done.code == code
    assert done.err.startswith("error: ") and message in done.err and "Traceback" not in done.err
    assert done.out == ""


def test_a_review_may_begin_with_a_dash(sentiment: Sentiment, model: list[str]) -> None:
    texts = ["fine", "-10/10 worst film", "- dull", "-great fun", "-1", "--- a line", "-", "fine too"]
    done = sentiment("predict", *texts, "--json", *model, "--", "--awful", "-10/10 again")
    assert [json.loads(line)["text"] for line in done.out.splitlines()] == [*texts, "--awful", "-10/10 again"], done.err


@pytest.mark.parametrize("option", ["--modle", "--modle=x y", "-m"])
def test_an_option_that_is_misspelt_is_no_review(sentiment: Sentiment, option: str) -> None:
    done = sentiment("predict", option, "fine")
    assert done.code == 2 and f"No such option: {option.partition('=')[0]}" in done.err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_the_terminal_cannot_show_is_no_error(
    sentiment: Sentiment, model: list[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "ascii"))  # PYTHONIOENCODING=ascii
    done = sentiment("predict", "Schön → …", *model, *options)
    sys.stdout.flush()
    assert done.code == 0, done.err
    text = shown.getvalue().decode()
    assert json.loads(text)["text"] == "Schön → …" if options else r"Sch\xf6n \u2192 \u2026" in text


def test_a_byte_order_mark_is_no_part_of_a_review(
    sentiment: Sentiment, model: list[str], tmp_path: Path, logit: Any
) -> None:
    """As Notepad saves a file, whether it is piped in or scored."""
    done = sentiment("predict", *model, "--json", stdin=b"\xef\xbb\xbfawful film\nfine film\n")
    scores = [json.loads(line)["logit"] for line in done.out.splitlines()]
    expected = pytest.approx(logit(["awful film", "fine film"]), abs=1e-5)
    assert scores == expected and logit(["\ufeffawful film"]) != logit(["awful film"])
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbftext\nawful film\nfine film\n")
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "awful film"}\n{"text": "fine film"}\n')
    for kind in ("csv", "jsonl"):
        assert sentiment("score", f"in.{kind}", "-o", "out.jsonl", *model).code == 0
        assert [row["logit"] for row in read(tmp_path / "out.jsonl")] == expected


# score


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("origin", KINDS)
def test_score_reads_and_writes_each_kind(
    sentiment: Sentiment, model: list[str], tmp_path: Path, reviews: pd.DataFrame, logit: Any, origin: str, target: str
) -> None:
    table = reviews.head(20)[["id", "text"]].assign(stars=[*range(20)]).to_dict("records")
    table[3]["text"] = 'quotes ", commas, \r carriage\r\nreturns and\nlines'
    table[4]["text"] = "NA"
    table[5]["text"] = "🙂\0\u2028"
    source, output = tmp_path / f"in.{origin}", tmp_path / f"out.{target}"
    write(source, table)
    done = sentiment("score", source, "-o", output, *model)
    rows = read(output)
    assert done.code == 0 and "20 rows scored" in done.out
    assert [list(row) for row in rows] == [["id", "text", "stars", "label", "probability", "logit", "sure"]] * 20
    assert [row["text"] for row in rows] == [row["text"] for row in table]
    assert [row["id"] for row in rows] == [row["id"] for row in table]
    stars = [row["stars"] for row in table]
    assert [row["stars"] for row in rows] == (list(map(str, stars)) if {"csv", "tsv"} & {origin, target} else stars)
    expected = logit([row["text"] for row in table])
    assert [float(row["logit"]) for row in rows] == pytest.approx(expected, abs=1e-5)
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        (1 / (1 + np.exp(-np.array(expected)))).tolist()
    )
    assert [row["label"] for row in rows] == ["positive" if value > 0 else "negative" for value in expected]
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, output.name]


def test_values_stay_what_they_are(sentiment: Sentiment, model: list[str], tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["fine", "awful"]).dictionary_encode(),
            "when": [date(2026, 1, 2), None],
            "price": [Decimal("1.50"), Decimal("2.25")],
            "tags": [["a", "b"], []],
            "score": pa.array([float("nan"), 1.5], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    for target in KINDS:
        assert sentiment("score", tmp_path / "in.parquet", "-o", tmp_path / f"out.{target}", *model).code == 0
    written = pq.read_table(tmp_path / "out.parquet").select(table.column_names)
    assert written.schema == table.schema and written.drop(["score"]) == table.drop(["score"])
    first = read(tmp_path / "out.jsonl")[0]
    assert (first["when"], first["price"], first["tags"], first["score"]) == ("2026-01-02", "1.50", ["a", "b"], None)
    assert read(tmp_path / "out.csv")[0]["tags"] == '["a", "b"]'


def test_json_values_of_many_kinds_fit_a_parquet_column(sentiment: Sentiment, model: list[str], tmp_path: Path) -> None:
    rows = [
        {"text": "a", "n": 1, "x": 1, "mixed": 5, "deep": {"k": [1]}, "flag": True, "huge": 2**70, "never": None},
        {"text": "b", "n": 2, "x": 0.5, "mixed": "five", "flag": False, "late": "here"},
    ]
    write(tmp_path / "in.jsonl", rows)
    sentiment("score", tmp_path / "in.jsonl", "-o", tmp_path / "out.parquet", *model)
    first, second = read(tmp_path / "out.parquet")
    assert (first["n"], first["x"], first["mixed"], first["deep"]) == (1, 1.0, "5", '{"k": [1]}')
    assert (first["flag"], first["huge"], first["never"], first["late"]) == (True, str(2**70), None, None)
    assert (second["x"], second["mixed"], second["deep"], second["late"]) == (0.5, "five", None, "here")


def test_a_csv_row_that_cannot_be_scored_is_quarantined(sentiment: Sentiment, model: list[str], tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbfid,text\r\n"
        b'a,"two\nlines"\r\n'
        b"b,\r\n"
        b"\r\n"
        b"c,one,too many\r\n"
        b"d\r\n"
        b'e,"closed"too early\r\n'
        b"f,caf\xe9\r\n"
        b"\xe9,fine\r\n"
        b"g," + b"long " * 100_000 + b"\r\n"
        b'h,"never closed\r\n'
    )
    broken = content.index(b"\xe9")
    (tmp_path / "in.csv").write_bytes(content)
    done = sentiment("score", "in.csv", "-o", "out.csv", *model)
    assert done.code == 0
    assert [row["id"] for row in read(tmp_path / "out.csv")] == ["a", "g"]
    assert quarantined(tmp_path) == [
        (1, "the text is blank", {"id": "b", "text": ""}),
        (2, "the row has another number of fields than the header: 3, not 2", "c,one,too many\r\n"),
        (3, "the row has another number of fields than the header: 1, not 2", "d\r\n"),
        (4, "the row is not CSV: ',' expected after '\"'", 'e,"closed"too early\r\n'),
        (5, f"the row is not UTF-8: byte {broken} of the file", "f,caf\ufffd\r\n"),
        (6, f"the row is not UTF-8: byte {broken + 3} of the file", "\ufffd,fine\r\n"),
        (8, "the row is not CSV: unexpected end of data", 'h,"never closed\r\n'),
    ]
    assert "2 rows scored" in done.out and "7 rows quarantined" in done.out and "1 × the text is blank" in done.out


def test_a_json_row_that_cannot_be_scored_is_quarantined(
    sentiment: Sentiment, model: list[str], tmp_path: Path
) -> None:
    lines = [
        b'{"text": "fine"}',
        b'{"text": null, "id": 1}',
        b"",
        b'{"text": 5}',
        b'{"id": 2}',
        b'{"text": "cut',
        b'["fine"]',
        b'{"text": "half \\ud83d"}',
        b'{"text": "caf\xe9"}',
        b"[" * 100_000,
        b'{"text": "whole \\ud83d\\ude42", "note": NaN}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    sentiment("score", "in.jsonl", "-o", "out.jsonl", *model)
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == ["fine", "whole 🙂"]
    found = quarantined(tmp_path)
    assert [row for row, _, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found[0] == (1, "the text is missing", {"text": None, "id": 1})
    assert found[1][1] == "the text is not a string: 5"
    assert found[2] == (3, "the text is missing", {"id": 2})
    assert found[3][1].startswith("the row is not JSON: Unterminated string") and found[3][2] == '{"text": "cut'
    assert found[4][1] == "the row is not a JSON object"
    assert found[5][1] == "the row holds a lone surrogate: U+D83D"
    assert "is not UTF-8" in found[6][1]
    assert found[7][1].startswith("the row is not JSON")


def test_a_parquet_row_without_a_text_is_quarantined(sentiment: Sentiment, model: list[str], tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", [{"text": "fine", "n": 1}, {"text": None, "n": 2}, {"text": "\t", "n": 3}])
    sentiment("score", "in.parquet", "-o", "out.parquet", *model)
    assert [row["n"] for row in read(tmp_path / "out.parquet")] == [1]
    assert quarantined(tmp_path) == [
        (1, "the text is missing", {"text": None, "n": 2}),
        (2, "the text is blank", {"text": "\t", "n": 3}),
    ]


def test_a_labelled_file_keeps_its_labels_under_another_name(
    sentiment: Sentiment, model: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "in.csv", [{"label": "1", "review": "fine", "input_label": "x"}])
    done = sentiment("score", "in.csv", "-o", "out.csv", "--text-column", "review", *model)
    (row,) = read(tmp_path / "out.csv")
    assert (row["review"], row["input_label"], row["input_input_label"]) == ("fine", "x", "1")
    assert row["label"] in ("negative", "positive")
    assert "column 'label' is kept as 'input_input_label'" in done.out


def test_a_clean_file_leaves_no_quarantine_of_an_earlier_one(
    sentiment: Sentiment, model: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "in.csv", [{"text": ""}, {"text": "fine"}])
    sentiment("score", "in.csv", "-o", "out.csv", *model)
    assert (tmp_path / "out.quarantine.jsonl").exists()
    write(tmp_path / "in.csv", [{"text": "fine"}])
    sentiment("score", "in.csv", "-o", "out.csv", *model)
    assert not (tmp_path / "out.quarantine.jsonl").exists()


def test_a_file_with_no_row_to_score_ends_with_3_and_the_reasons(
    sentiment: Sentiment, model: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [{"text": ""}, {"text": None}])
    done = sentiment("score", "in.jsonl", "-o", "out.csv", *model)
    assert done.code == 3
    assert "none of the 2 rows of in.jsonl could be scored" in done.err
    assert len(quarantined(tmp_path)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_columns_and_no_rows_gives_one_too(
    sentiment: Sentiment, model: list[str], tmp_path: Path, kind: str
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n")
    done = sentiment("score", "in.csv", "-o", f"out.{kind}", *model)
    assert done.code == 0 and "0 rows scored" in done.out
    assert read(tmp_path / f"out.{kind}") == []


@pytest.mark.parametrize(
    ("name", "content", "options", "code", "message"),
    [
        ("in.csv", None, ["-o", "out.csv"], 3, "in.csv does not exist"),
        ("in.xlsx", b"", ["-o", "out.csv"], 2, "in.xlsx must end in one of .csv, .tsv, .jsonl, .parquet"),
        ("in.csv", b"text\nfine\n", ["-o", "out.txt"], 2, "out.txt must end in one of"),
        ("in.csv", b"", ["-o", "out.csv"], 3, "in.csv is empty"),
        ("in.csv", b"id,review\n1,fine\n", ["-o", "out.csv"], 3, "no column 'text' but 'id', 'review'; name the one"),
        ("in.csv", b"text,text\na,b\n", ["-o", "out.csv"], 3, "in.csv has 2 columns named 'text'"),
        ("in.csv", b"text\nfine\n", ["-o", "./in.csv"], 2, "in.csv would be overwritten while it is read"),
        ("in.parquet", b"something else", ["-o", "out.csv"], 3, "in.parquet is not a Parquet file"),
        ("out.quarantine.jsonl", b'{"text": "a"}', ["-o", "out.csv"], 2, "out.quarantine.jsonl would be overwritten"),
        ("in.csv", b"text\nfine\n", ["-o", "in.csv/out.csv"], 2, "out.csv cannot be written: in.csv is no folder"),
        ("in.csv", b"text\nfine\n", ["-o", "."], 2, ". must end in one of"),
        ("in.csv", b"text\nfine\n", ["-o", f"{'x' * 240}.csv"], 2, "x.csv has too long a name for the files beside it"),
        ("in.csv", b"text\nfine\n", ["-o", f"{'x' * 300}.csv"], 2, "give --output a shorter one"),
    ],
)
def test_score_says_what_is_wrong_in_a_sentence(
    sentiment: Sentiment,
    model: list[str],
    tmp_path: Path,
    name: str,
    content: bytes | None,
    options: list[str],
    code: int,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = sentiment("score", name, *options, *model)
    assert (done.code, message in done.err, "Traceback" in done.err) == (code, True, False), done.err
    assert {path.name for path in tmp_path.iterdir()} == ({name} if content is not None else set())


def test_a_file_damaged_in_its_middle_leaves_an_older_output_as_it_was(
    sentiment: Sentiment, model: list[str], tmp_path: Path
) -> None:
    rows = pa.table({"text": [f"review {row} of many" for row in range(20_000)]})
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=5000, compression="none", use_dictionary=False)
    damaged = bytearray((tmp_path / "in.parquet").read_bytes())
    middle = len(damaged) * 2 // 3
    damaged[middle : middle + 20_000] = b"\xff" * 20_000
    (tmp_path / "in.parquet").write_bytes(damaged)
    (tmp_path / "out.csv").write_text("older")
    done = sentiment("score", "in.parquet", "-o", "out.csv", *model)
    assert done.code == 3 and "in.parquet is damaged after row" in done.err
    assert (tmp_path / "out.csv").read_text() == "older"
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "out.csv"}


def test_reasons_are_counted_by_kind(sentiment: Sentiment, model: list[str], tmp_path: Path) -> None:
    """A hundred rows that are Latin-1, each with a position of its own, hide no other reason."""
    latin, blank = "".join(f"café film {row},1\n" for row in range(101)), " ,2\n" * 40
    (tmp_path / "in.csv").write_bytes(f"text,n\n{latin}{blank}fine,3\n".encode("latin-1"))
    done = sentiment("score", "in.csv", "-o", "out.csv", *model)
    assert "(101 × the row is not UTF-8; 40 × the text is blank)" in done.out
    assert len({reason for _, reason, _ in quarantined(tmp_path)}) == 102


def test_values_that_python_does_not_hold_are_kept_and_are_no_text(
    sentiment: Sentiment, model: list[str], tmp_path: Path
) -> None:
    table = pa.table({"text": ["fine", "dull"], "day": pa.array([3_000_000, 1], pa.date32())})
    pq.write_table(table, tmp_path / "in.parquet")
    assert sentiment("score", "in.parquet", "-o", "out.parquet", *model).code == 0
    assert pq.read_table(tmp_path / "out.parquet").select(["text", "day"]) == table
    done = sentiment("score", "in.parquet", "-o", "out.csv", "--text-column", "day", *model)
    assert done.code == 3 and "none of the 2 rows of in.parquet could be scored (the text is not a string)" in done.err
    assert quarantined(tmp_path)[0] == (
        0,
        "the text is not a string: 10183-09-21",
        {"text": "fine", "day": "10183-09-21"},
    )


@pytest.mark.parametrize("uri", ["models:/imdb-sentiment-sample/2", "models:/imdb-sentiment-sample@champion", None])
def test_any_uri_of_the_registry_names_a_model(
    sentiment: Sentiment, registered: Registered, monkeypatch: pytest.MonkeyPatch, uri: str | None, logit: Any
) -> None:
    from pipeline.tracking import runs

    monkeypatch.chdir(registered.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered.store)
    runs.connect.cache_clear()
    try:
        done = sentiment("predict", "--json", "fine", *(["--model", uri] if uri else []))
    finally:
        runs.connect.cache_clear()
    assert json.loads(done.out)["logit"] == pytest.approx(logit(["fine"])[0], abs=1e-5)


@pytest.mark.e2e
def test_memory_does_not_grow_with_the_file(registered: Registered, tmp_path: Path) -> None:
    """The file in memory would be some 150 MB more."""
    peaks = []
    for rows in (8_192, 200_000):
        source = tmp_path / f"{rows}.csv"
        source.write_text("id,text\n" + "".join(f"{row},one short review like so many\n" for row in range(rows)))
        command = [sys.executable, "-m", "pipeline.cli", "score", source.name, "-o", "out.jsonl"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        scoring = subprocess.Popen(
            [*command, "--model", registered.paths["last"]], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(scoring.pid, 0)
        scoring.returncode = os.waitstatus_to_exitcode(status)
        assert scoring.returncode == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 200_000
    assert peaks[1] - peaks[0] < 60


# evaluate


def test_evaluate_measures_a_model_on_labelled_texts(
    sentiment: Sentiment, model: list[str], logit: Any, tmp_path: Path
) -> None:
    texts = ["A film that stays with you.", "Dull.", "Not for me.", "Fine."]
    said = [value > 0 for value in logit(texts)]
    labels = ["good" if positive else "bad" for positive in [*said[:3], not said[3]]]
    file = tmp_path / "own.tsv"
    file.write_text("words\tsays\n" + "".join(f"{text}\t{label}\n" for text, label in zip(texts, labels, strict=True)))
    columns = ["--text-column", "words", "--label-column", "says", "--positive", "good", "--negative", "bad"]
    done = sentiment("evaluate", file, *model, *columns)
    assert done.code == 0, done.err
    assert done.out.startswith("accuracy 0.7500 on 4 texts (95% interval 0.3006 to 0.9544)\n")
    wrong = sentiment("evaluate", file, *model)
    assert wrong.code == 3 and "own.tsv has no column 'text', which is its text; there are 'words', 'says'" in wrong.err


def test_evaluate_takes_an_entry_of_params(
    sentiment: Sentiment, model: list[str], registered: Registered, tmp_path: Path
) -> None:
    write_sample_params(tmp_path)
    (tmp_path / "own.csv").write_text("text,label\nFine.,1\nDull.,0\n")
    unknown = sentiment("evaluate", tmp_path / "own.csv", *model, "--name", "mine")
    assert unknown.code == 2 and "params.yaml has no evaluation_sets.mine; there are none" in unknown.err
    edit_params(tmp_path, evaluation_sets={"mine": {"file": "own.csv", "positive": ["0"], "negative": ["1"]}})
    turned = sentiment("evaluate", tmp_path / "own.csv", *model, "--name", "mine")
    plain = sentiment("evaluate", tmp_path / "own.csv", *model)
    accuracy = [float(done.out.split()[1]) for done in (turned, plain)]
    assert sum(accuracy) == 1.0
