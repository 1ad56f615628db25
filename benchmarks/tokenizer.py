"""A worker that builds the vocabulary and encodes reviews, with the `pipeline`'s tokenizer or with that of `tfds`."""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks.workers import answer, arguments, peak_memory_mb, turns
from pipeline.project.atomic import read_table
from pipeline.project.params import load_params
from pipeline.project.paths import RAW, REVIEW_COLUMNS
from pipeline.project.run_command import run_command
from pipeline.text.encoding import load_tokenizer
from pipeline.text.vocabulary import build_vocabulary


class Tokenizer(Protocol):
    def build(self, texts: Sequence[str], target_size: int) -> list[str]: ...

    def encode(self, texts: Sequence[str]) -> list[Any]: ...


class Pipeline:
    """`text.vocabulary` and `served_model.tokenizer`."""

    def __init__(self) -> None:
        self._tokenizer = load_tokenizer()

    def build(self, texts: Sequence[str], target_size: int) -> list[str]:
        return build_vocabulary(texts, target_size)

    def encode(self, texts: Sequence[str]) -> list[Any]:
        return self._tokenizer.encode_batch(texts)


class Tfds:
    """`tfds.deprecated.text.SubwordTextEncoder`, with the checkout's vocabulary where it encodes."""

    def __init__(self) -> None:
        import tensorflow_datasets as tfds

        self._class = tfds.deprecated.text.SubwordTextEncoder
        self._encoder = self._class(list(load_tokenizer().subwords))

    def build(self, texts: Sequence[str], target_size: int) -> list[str]:
        return list(self._class.build_from_corpus(texts, target_size).subwords)

    def encode(self, texts: Sequence[str]) -> list[Any]:
        return [self._encoder.encode(text) for text in texts]


def main() -> None:
    which, count = arguments()
    tokenizer: Tokenizer = Pipeline() if which == "pipeline" else Tfds()
    texts = read_table(RAW / "train.parquet", REVIEW_COLUMNS)["text"].tolist()[:count]
    tokenizer.encode(texts[:1])  # makes the tables that it needs once
    target_size = load_params().tokenize.vocabulary_size
    for request in turns():
        begun = time.perf_counter()
        if request == "build":
            made: Any = tokenizer.build(texts, target_size)
            seconds = time.perf_counter() - begun
            sha256 = hashlib.sha256(json.dumps(made).encode()).hexdigest()
        else:
            made = tokenizer.encode(texts)
            seconds = time.perf_counter() - begun
            sha256 = hashlib.sha256(b"".join(np.array([*ids, -1], "<i4").tobytes() for ids in made)).hexdigest()
        answer(
            {"seconds": seconds, "count": len(made), "sha256": sha256, "reviews": len(texts)}
            | {"peak_memory_mb": peak_memory_mb()}
        )


if __name__ == "__main__":
    run_command(main)
