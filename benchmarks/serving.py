"""Measures the registered model: one review over HTTP, many reviews from raw text, beside plain Keras.

    python benchmarks/serving.py [--model models:/imdb-sentiment@champion]

Without `--model` it logs an untrained `single` of params.yaml (speed does not depend on the weights) in a store of its
own. The reviews are those of the embedded sample. All figures are of this machine, in this one run: the three bulk ways
take turns, and each counts its fastest turn.
"""

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import model, registry, scoring, tracking
from pipeline.artifacts import TOKENIZER, VOCABULARY, model_file
from pipeline.batching import make_batches
from pipeline.params import Params, load_params
from pipeline.reviews import SAMPLE
from pipeline.subwords import SubwordTokenizer
from pipeline.vocabulary import build_vocabulary

ROOT = Path(__file__).resolve().parent.parent
TURNS = 3
REQUESTS = 200


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", help="a model URI; default: an untrained one")
    arguments.add_argument("--reviews", type=int, default=3600, help="how many of the sample's reviews")
    options = arguments.parse_args()
    params = load_params(ROOT / "params.yaml")
    texts = pd.read_parquet(SAMPLE)["text"].tolist()[: options.reviews]
    with tempfile.TemporaryDirectory() as temporary:
        uri = options.model or log_untrained(Path(temporary), params, texts)
        print(
            f"{uri}, {len(texts):,} reviews, {os.cpu_count()} CPUs, {model.prepare_device(seed=0, deterministic=False)}"
        )
        latencies = measure_http(uri, texts)
        print(f"one review over HTTP, warm: {statistics.median(latencies):.1f} ms median, ", end="")
        print(f"{np.percentile(latencies, 95):.1f} ms 95th percentile of {len(latencies)}")
        report_bulk(uri, texts, params)


def log_untrained(folder: Path, params: Params, texts: list[str]) -> str:
    """Logs an untrained `single` with a vocabulary of the sample in `folder`; returns its URI."""
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    client = tracking.connect()
    TOKENIZER.mkdir(parents=True)
    tokenizer = SubwordTokenizer(build_vocabulary(texts, params.tokenize.vocabulary_size))
    tokenizer.save(VOCABULARY)
    network = model.build_model(params.models["single"], tokenizer.vocabulary_size)
    model.save_model(model_file("single"), network, params.models["single"])
    run = client.create_run(tracking.experiment_id(client))
    candidate = registry.Candidate("single", run.info.run_id, "untrained", val_accuracy=0.5, val_loss=0.7)
    return str(registry.log_model(candidate, max_tokens=params.tokenize.max_tokens).model_uri)


def measure_http(uri: str, texts: list[str]) -> list[float]:
    """Returns the milliseconds of REQUESTS requests of one review each, on one connection."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", uri, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = re.search(r"http://([^/]+)/", server.stdout.readline())
            if not address:
                raise SystemExit("the server did not start")
            connection = http.client.HTTPConnection(address[1], timeout=60)

            def ask(text: str) -> float:
                body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text]]}})
                begun = time.perf_counter()
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
                return (time.perf_counter() - begun) * 1000

            wait_until_ready(connection)
            for text in texts[:20]:
                ask(text)
            return [ask(text) for text in texts[20 : 20 + REQUESTS]]
        finally:
            server.terminate()


def wait_until_ready(connection: http.client.HTTPConnection) -> None:
    for _ in range(100):
        try:
            connection.request("GET", "/ping")
            connection.getresponse().read()
            return
        except ConnectionError:
            connection.close()
            time.sleep(0.1)
    raise SystemExit("the server does not answer")


def report_bulk(uri: str, texts: list[str], params: Params) -> None:
    """Prints reviews a second from raw text, of Keras's `predict`, and of the evaluation, and how they compare."""
    import keras
    import tensorflow as tf

    pyfunc = scoring.load(uri)
    classifier = pyfunc.unwrap_python_model()
    table = pd.DataFrame({"text": texts})
    token_ids = classifier.encode(texts)
    batches = [
        batch.token_ids
        for batch in make_batches(
            token_ids, np.zeros(len(texts)), texts, batch_size=params.batch.batch_size, pool_batches=None, seed=0
        )
    ]
    folder = Path(pyfunc._model_impl.context.artifacts["classifier"])
    plain = keras.models.load_model(folder / "model.keras", compile=False)
    evaluated = model.accelerate(plain)
    padded = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=tf.TensorSpec((None, None), tf.int32)
    ).apply(tf.data.experimental.assert_cardinality(len(batches)))
    ways: dict[str, Callable[[], Any]] = {
        "evaluation, on padded batches": lambda: model.logits(evaluated, batches),
        "pyfunc, from raw text": lambda: pyfunc.predict(table),
        "Keras predict, on padded batches": lambda: plain.predict(padded, verbose=0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(TURNS):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    speed = {name: len(texts) / min(found) for name, found in seconds.items()}
    for name, reviews in speed.items():
        print(f"{name}: {reviews:,.0f} reviews/s")
    evaluation, raw, predict = speed.values()
    begun = time.perf_counter()
    classifier.encode(texts)
    print(f"(of which encoding alone: {len(texts) / (time.perf_counter() - begun):,.0f} reviews/s)")
    print(f"pyfunc to evaluation: {raw / evaluation:.2f}; pyfunc to Keras predict: {raw / predict:.2f}")


if __name__ == "__main__":
    main()
