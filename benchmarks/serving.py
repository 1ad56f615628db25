"""A worker that scores raw text with the registered model: one review over HTTP, and many, beside plain Keras.

What is scored with is an untrained `single` of params.yaml, logged to a store of its own with the checkout's
vocabulary: speed does not depend on the weights.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workers import ROOT, answer, arguments, spread, turns
from pipeline.project.atomic import read_table
from pipeline.project.errors import PipelineError
from pipeline.project.params import Params, load_params
from pipeline.project.paths import REVIEW_COLUMNS, SPLIT_TABLES, TOKENIZER, VOCABULARY, model_file
from pipeline.project.run_command import run_command
from pipeline.registry import versions
from pipeline.serving import files
from pipeline.text.batching import make_batches
from pipeline.text.encoding import load_tokenizer
from pipeline.tracking import runs
from pipeline.training import networks

_WARM_UP_REQUESTS = 20


def main() -> None:
    one_core, reviews, requests, rounds = arguments()
    if one_core:  # before TensorFlow counts the cores
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    params = load_params()
    texts = read_table(SPLIT_TABLES / "test.parquet", REVIEW_COLUMNS)["text"].tolist()[:reviews]
    with tempfile.TemporaryDirectory() as temporary:
        uri = _log_untrained(Path(temporary), params)
        for _ in turns():
            http_ms = {} if one_core else {"one_review_http_ms": _http_milliseconds(uri, texts, requests)}
            answer(http_ms | _bulk(uri, texts, params, rounds))


def _log_untrained(folder: Path, params: Params) -> str:
    """Logs an untrained `single` in `folder`, which becomes the working folder; returns its URI."""
    vocabulary = VOCABULARY.resolve()
    vocabulary_size = load_tokenizer().vocabulary_size
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    client = runs.connect()
    TOKENIZER.mkdir(parents=True)
    shutil.copy(vocabulary, VOCABULARY)
    params.model("single")
    networks.save_model(
        model_file("single"), networks.build_model(params.models["single"], vocabulary_size), params.models["single"]
    )
    run = client.create_run(runs.experiment_id(client))
    candidate = versions.Candidate(
        "single", run.info.run_id, "untrained", params.tokenize.model_dump(), val_accuracy=0.5, val_loss=0.7
    )
    return str(versions.log_model(candidate).model_uri)


def _http_milliseconds(uri: str, texts: list[str], requests: int) -> dict[str, float]:
    """Returns the spread of requests of one review each, on one connection to a server that is warm."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", uri, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = re.search(r"http://([^/]+)/", server.stdout.readline())
            if not address:
                raise PipelineError("the server did not start")
            connection = http.client.HTTPConnection(address[1], timeout=60)

            def ask(text: str) -> float:
                body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text]]}})
                begun = time.perf_counter()
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                reply.read()
                if reply.status != 200:
                    raise PipelineError(f"the server answered {reply.status}")
                return (time.perf_counter() - begun) * 1000

            for text in texts[:_WARM_UP_REQUESTS]:
                ask(text)
            found = [ask(texts[number % len(texts)]) for number in range(requests)]
            return spread(found) | {"p95": round(float(np.percentile(found, 95)), 4)}
        finally:
            server.terminate()


def _bulk(uri: str, texts: list[str], params: Params, rounds: int) -> dict[str, Any]:
    """Returns reviews a second of three ways that take turns: raw text to label, Keras's `predict` on padded batches,
    and the evaluation's scoring of the same batches."""
    import pandas as pd
    import tensorflow as tf

    pyfunc = files.load_pyfunc(uri)
    classifier = pyfunc.unwrap_python_model()
    table = pd.DataFrame({"text": texts})
    padded = make_batches(
        classifier.scorer.encode(texts),
        np.zeros(len(texts)),
        texts,
        batch_size=params.batch.batch_size,
        pool_batches=None,
        seed=0,
    )
    batches = [batch.token_ids for batch in padded]
    saved, vocabulary_size, weights = networks.read_model(model_file("single"))
    plain = networks.build_model(saved, vocabulary_size)
    plain.set_weights(weights)
    evaluated = networks.scoring(networks.accelerate(plain))
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=tf.TensorSpec((None, None), tf.int32)
    ).apply(tf.data.experimental.assert_cardinality(len(batches)))
    ways: dict[str, Callable[[], Any]] = {
        "from_raw_text": lambda: pyfunc.predict(table),
        "keras_predict": lambda: plain.predict(data, verbose=0),
        "evaluation": lambda: evaluated(batches),
        "encoding_alone": lambda: classifier.scorer.encode(texts),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            speeds[name].append(len(texts) / (time.perf_counter() - begun))
    return {name: spread(found) for name, found in speeds.items()}


if __name__ == "__main__":
    run_command(main)
