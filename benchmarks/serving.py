"""A worker that scores raw text with a registered model in bulk, beside TensorFlow and Keras.

What is scored with is the candidate `single` of `dvc repro`, logged to a store of its own; where the n-grams and the
blend are candidates too, their speed stands beside it.
"""

import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import logged
from benchmarks.workers import answer, arguments, spread, turns
from pipeline.evaluation.candidates import SETTINGS
from pipeline.evaluation.metrics import probability
from pipeline.evaluation.scoring import logits_of
from pipeline.project.atomic import read_json, read_table
from pipeline.project.paths import BLEND, NGRAMS, REVIEW_COLUMNS, SPLIT_TABLES, candidate_folder, model_file
from pipeline.project.run_command import run_command
from pipeline.served_model.loading import load_scorer
from pipeline.served_model.scorer import BATCH_TOKENS, NETWORK, PARTS, bucketed
from pipeline.serving import models
from pipeline.text.batching import make_batches, pad
from pipeline.training import networks


def main() -> None:
    one_core, reviews, compared, rounds = arguments()
    if one_core:  # before anything counts the cores
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = read_table(SPLIT_TABLES / "test.parquet", REVIEW_COLUMNS)["text"].tolist()
    networks.prepare_device(seed=0, deterministic=False)
    with tempfile.TemporaryDirectory() as temporary:
        for _ in turns():
            measured = Measured(Path(temporary))
            found: dict[str, Any] = measured.bulk(texts[:reviews], rounds)
            if one_core:
                found["profile"] = measured.profile(texts[:reviews])
            else:
                found["parity"] = measured.parity(texts[:compared])
            answer(found)


class Measured:
    """`single` in the forms that are measured: the candidate, the same in MLflow's hands, and as TensorFlow has it with
    the project's fused kernel and with Keras's own layers; and `others`, the candidates beside the networks."""

    def __init__(self, folder: Path) -> None:
        params, vocabulary_size, weights = networks.read_model(model_file("single"))
        self.folder = folder
        self.scorer = load_scorer(candidate_folder("single"))
        self.weight = read_json(candidate_folder("single") / SETTINGS, ("weights",))["weights"][NETWORK]
        folders = {name: candidate_folder(name) for name in (NGRAMS, BLEND)}
        self.others = {name: load_scorer(folder) for name, folder in folders.items() if folder.exists()}
        self.plain = networks.build_model(params, vocabulary_size)
        self.plain.set_weights(weights)
        self.fused = networks.scoring(networks.accelerate(self.plain))
        self.pyfunc = models.load_pyfunc(logged.log("single", folder).model_uri)

    def with_tensorflow(self, texts: list[str]) -> np.ndarray:
        """Returns the logits as versions did before they were folders: the same tokenizer and batches, and TensorFlow's
        fused LSTM kernel."""
        return self.weight * logits_of(self.fused, self.scorer.encode(texts))

    def bulk(self, texts: list[str], rounds: int) -> dict[str, Any]:
        """Returns reviews a second of the ways to score, which take turns."""
        import pandas as pd
        import tensorflow as tf

        table = pd.DataFrame({"text": texts})
        padded = make_batches(
            self.scorer.encode(texts), np.zeros(len(texts)), texts, batch_size=64, pool_batches=None, seed=0
        )
        batches = [batch.token_ids for batch in padded]
        data = tf.data.Dataset.from_generator(
            lambda: iter(batches), output_signature=tf.TensorSpec((None, None), tf.int32)
        ).apply(tf.data.experimental.assert_cardinality(len(batches)))
        ways: dict[str, Callable[[], Any]] = {
            "from_raw_text": lambda: self.scorer.score(texts),
            "tensorflow_from_raw_text": lambda: self.with_tensorflow(texts),
            "through_mlflow": lambda: self.pyfunc.predict(table),
            "keras_predict": lambda: self.plain.predict(data, verbose=0),
            "evaluation": lambda: self.fused(batches),
            "encoding_alone": lambda: self.scorer.encode(texts),
            **{f"{name}_from_raw_text": partial(other.score, texts) for name, other in self.others.items()},
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

    def parity(self, texts: list[str]) -> dict[str, Any]:
        """Returns on how many of `texts` the served model and TensorFlow give another label, and the largest difference
        of a probability."""
        served, reference = self.scorer.score(texts), self.with_tensorflow(texts)
        differences = np.abs(served.probability - probability(reference))
        return {
            "reviews": len(texts),
            "other_labels": int(((served.label == "positive") != (reference > 0)).sum()),
            "largest_difference": float(f"{differences.max():.2g}"),
        }

    def profile(self, texts: list[str]) -> dict[str, float]:
        """Returns the share of the tokenizer, of padding, and of each operator of the graph in what scoring `texts`
        takes, the greatest first."""
        import onnxruntime

        begun = time.perf_counter()
        token_ids = self.scorer.encode(texts)
        encoded = time.perf_counter()
        rows = bucketed([len(ids) for ids in token_ids], BATCH_TOKENS)
        batches = [pad([token_ids[row] for row in batch]) for batch in rows]
        taken = defaultdict(float, tokenizer=encoded - begun, padding=time.perf_counter() - encoded)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(self.folder / "profile")
        session = onnxruntime.InferenceSession(str(candidate_folder("single") / PARTS[NETWORK]), options)
        for batch in batches:
            session.run(None, {"token_ids": batch})
        for event in json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")):
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                taken[event["args"]["op_name"]] += event["dur"] / 1e6
        total = sum(taken.values())
        return {name: round(taken[name] / total, 4) for name in sorted(taken, key=taken.__getitem__, reverse=True)[:8]}


if __name__ == "__main__":
    run_command(main)
