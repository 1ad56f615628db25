"""Every way in gives the same token ids: the stage, the pyfunc, HTTP, `sentiment predict` and `sentiment score`.

Ids do not leave the model by the last three, so there the logits are compared with those that the model's network has
for the stage's ids. The registered model `mean` is made so that each single id shows in its logit.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Registered
from served import announced, start

from pipeline.served_model.tokenizer import truncate
from pipeline.text.batching import pad
from pipeline.text.encoding import load_tokenizer
from pipeline.training.networks import accelerate, build_model, read_model, scoring

pytestmark = pytest.mark.e2e

MAX_TOKENS = 1024
HOSTILE = [
    "_ __ snake_case \\&undsc \\&undsc_",
    " leading and trailing  ",
    "tab\there, line\nbreak, carriage\rreturn, both\r\n, next line \x85 and \u2028 too",
    "\ufeffbyte order mark",
    "nul\0 inside and at the end\0",
    "\0",
    "🙂👩‍👩‍👧é e\u0301 ß 中文 ²\ufffd",
    '"quoted", and ,commas,, ""',
    "null",
    "NaN",
    "None",
    "007",
    "-",
    "<br /><br />&nbsp;&#39;",
    "{'a': 1}",
    "x" * 5000,
    "ab" * 300_000,
    "é" * 2000,
    "\u202eright to left",
]


@pytest.fixture(scope="module")
def texts(reviews: pd.DataFrame) -> list[str]:
    return [*reviews["text"].sample(1000, random_state=3), *HOSTILE]


@pytest.fixture(scope="module")
def stage_ids(registered: Registered, texts: list[str]) -> list[np.ndarray]:
    """The ids that stage `tokenize` writes: from the vocabulary file of the pipeline, not from that of the model."""
    tokenizer = load_tokenizer(registered.folder / "models/tokenizer/vocabulary.txt")
    return [truncate(ids, MAX_TOKENS) for ids in tokenizer.encode_batch(texts)]


@pytest.fixture(scope="module")
def network(registered: Registered) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Logits of token ids from the pipeline's own model file."""
    params, vocabulary_size, weights = read_model(registered.folder / "models/mean/weights.npz")
    model = build_model(params, vocabulary_size)
    model.set_weights(weights)
    logits = scoring(accelerate(model))
    return lambda rows: np.concatenate(logits([pad([ids]) for ids in rows]))


@pytest.fixture(scope="module")
def expected(network: Callable[[list[np.ndarray]], np.ndarray], stage_ids: list[np.ndarray]) -> np.ndarray:
    return network(stage_ids)


def assert_same(found: list[float], expected: np.ndarray) -> None:
    assert len(found) == len(expected)
    assert np.abs(np.array(found) - expected).max() < 1e-5


def test_a_single_other_id_would_show(
    network: Callable[[list[np.ndarray]], np.ndarray], stage_ids: list[np.ndarray], expected: np.ndarray
) -> None:
    rng = np.random.default_rng(5)
    rows = rng.choice(len(stage_ids), 50, replace=False)
    changed = []
    for row in rows:
        ids = stage_ids[row].copy()
        place = rng.integers(len(ids))
        ids[place] = ids[place] % 1900 + 1
        changed.append(ids)
    assert np.abs(network(changed) - expected[rows]).min() > 1e-5


def test_the_pyfunc_reads_the_stages_ids(
    registered: Registered, texts: list[str], stage_ids: list[np.ndarray], expected: np.ndarray
) -> None:
    model = mlflow.pyfunc.load_model(registered.paths["mean"])
    for found, ids in zip(model.unwrap_python_model().scorer.encode(texts), stage_ids, strict=True):
        assert found.tolist() == ids.tolist()
    assert_same(model.predict(pd.DataFrame({"text": pd.Series(texts, dtype=object)}))["logit"].tolist(), expected)


def test_http_reads_the_stages_ids(registered: Registered, texts: list[str], expected: np.ndarray) -> None:
    with start(registered.folder, "--port", "0") as process:
        server = announced(process)
        try:
            assert_same(server.logits({"inputs": texts}), expected)
            assert_same(server.logits({"dataframe_records": [{"text": text} for text in HOSTILE]}), expected[1000:])
            assert_same([logit for text in HOSTILE for logit in server.logits({"inputs": [text]})], expected[1000:])
        finally:
            process.terminate()


def sentiment(registered: Registered, *arguments: str | Path, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        cwd=registered.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": registered.store},
        input=stdin.encode(),
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


def test_predict_reads_the_stages_ids(registered: Registered, texts: list[str], expected: np.ndarray) -> None:
    in_a_line = [row for row, text in enumerate(texts) if not {"\n", "\r"} & set(text)]
    lines = "".join(texts[row] + "\n" for row in in_a_line)
    printed = sentiment(registered, "predict", "--json", stdin=lines)
    assert_same([json.loads(line)["logit"] for line in printed.split("\n")[:-1]], expected[in_a_line])

    arguments = [row for row, text in enumerate(texts) if row >= 980 and "\0" not in text and len(text) < 10_000]
    printed = sentiment(registered, "predict", "--json", "--", *(texts[row] for row in arguments))
    assert_same([json.loads(line)["logit"] for line in printed.split("\n")[:-1]], expected[arguments])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_batch_scoring_reads_the_stages_ids(
    registered: Registered, texts: list[str], expected: np.ndarray, tmp_path: Path, kind: str
) -> None:
    table = pd.DataFrame({"text": pd.Series(texts, dtype=object)})
    source, output = tmp_path / f"in.{kind}", tmp_path / "out.parquet"
    if kind == "csv":
        table.to_csv(source, index=False, lineterminator="\r\n")  # with "\n" pandas leaves a carriage return unquoted
    elif kind == "jsonl":
        table.to_json(source, orient="records", lines=True)
    else:
        table.to_parquet(source)
    sentiment(registered, "score", source, "-o", output)
    scored = pd.read_parquet(output)
    assert scored["text"].tolist() == texts
    assert_same(scored["logit"].tolist(), expected)
