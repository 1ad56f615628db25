"""Scoring raw text with NumPy and ONNX Runtime alone.

The folder that holds this file is a registered model: the code, the vocabulary, the network as an ONNX graph, and the
settings. Copied anywhere, it is a package of its own:

    from served_model.scorer import Scorer

    scores = Scorer().score(["A film that stays with you for days."])
    scores.label, scores.probability, scores.logit, scores.sure
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .tokenizer import SubwordTokenizer, UnencodableText

LABELS = np.array(["negative", "positive"], object)
BATCH_TOKENS = 2**13
"""Tokens of a batch, padding included; benchmarks/serving.py's `single`: twice or half as many are no faster."""
BATCH_ROWS = 512
_WORD = re.compile(r"[^\W\d_]{3}")
"""Begins a subword that is a word, or enough of one."""
_MOST_BYTES = 0.5
"""Share of tokens that are single bytes, the vocabulary's way of spelling what it does not have."""


class Scores(NamedTuple):
    """What a model says of some texts, in their order."""

    label: NDArray[np.object_]  # "negative" or "positive"
    probability: NDArray[np.float64]  # of positive
    logit: NDArray[np.float64]
    sure: NDArray[np.bool_]  # whether the answer is one of those that the model's promise is about


class Scorer:
    """A registered model. Threads may share one: after loading nothing of it changes."""

    UnencodableText = UnencodableText
    """What `score` raises: each version of the model has a class of its own."""

    def __init__(self, folder: Path | None = None, threads: int | None = None) -> None:
        """Loads the model in `folder`, by default the one that holds this file.

        Args:
            threads: how many batches are scored at the same time; by default OMP_NUM_THREADS, which Spark and other
                schedulers set for each of their workers, else one a core. One text takes one thread.

        Raises:
            OSError, ValueError: a file is missing or damaged.
            ImportError: ONNX Runtime is not installed.
        """
        folder = folder or Path(__file__).parent
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._max_tokens = settings["max_tokens"]
        self._threshold = settings["threshold"]
        self._unsure = settings["unsure"]
        self._tokenizer = SubwordTokenizer.load(folder / "vocabulary.txt")
        self._session = _session(folder / "network.onnx")
        self._threads = threads or _default_threads()
        self._is_word = np.zeros(self._tokenizer.vocabulary_size, bool)
        self._is_word[1 : 1 + len(self._tokenizer.subwords)] = [_WORD.match(one) for one in self._tokenizer.subwords]
        # A vocabulary that is larger than the network's embedding fails here.
        self._score([np.array([self._tokenizer.vocabulary_size - 1], np.int32)])

    def score(self, texts: Iterable[str]) -> Scores:
        """Returns label, probability of positive, and logit of each of `texts`, and whether the answer is sure: its
        probability lies outside the band that was fitted on validation, and its text is like what the model learnt
        from: not mostly single bytes, and with a known word.

        Raises:
            UnencodableText: a text cannot be scored: it is missing, no string, blank, or holds half of a surrogate
                pair. The message begins with its row, counted from 0. It is a ValueError.
        """
        token_ids = self.encode(texts)
        logit = self.logits(token_ids)
        probability = (1 + np.tanh(logit / 2)) / 2  # the logistic function, without overflow
        label = LABELS[(probability > self._threshold).astype(int)]
        return Scores(label, probability, logit, self._outside(probability) & self._familiar(token_ids))

    def _outside(self, probability: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self._unsure is None:  # no band keeps the promise
            return np.zeros(len(probability), bool)
        low, high = self._unsure
        return (probability <= low) | (probability >= high)

    def _familiar(self, token_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.bool_]:
        first_byte = 1 + len(self._tokenizer.subwords)
        return np.array(
            [self._is_word[ids].any() and (ids >= first_byte).mean() <= _MOST_BYTES for ids in token_ids], bool
        )

    def encode(self, texts: Iterable[str]) -> list[NDArray[np.int32]]:
        """Returns the token ids that the network reads of each text: <int32>[tokens], at most `max_tokens`. Raises as
        `score` does."""
        return self._tokenizer.encode_batch(texts, self._max_tokens)

    def logits(self, token_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
        """Returns <float64>[rows], the logit of each row of token ids, <int32>[tokens] without padding."""
        logit = np.empty(len(token_ids), np.float64)
        batches = list(bucketed([len(ids) for ids in token_ids], BATCH_TOKENS))

        def fill(rows: NDArray[np.int64]) -> None:
            logit[rows] = self._score([token_ids[row] for row in rows])

        if len(batches) <= 1 or self._threads == 1:
            for rows in batches:
                fill(rows)
        else:
            with ThreadPoolExecutor(min(self._threads, len(batches))) as pool:
                list(pool.map(fill, reversed(batches)))  # the longest first, so that all end at about the same time
        return logit

    def _score(self, token_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        padded = np.zeros((len(token_ids), max(len(ids) for ids in token_ids)), np.int32)
        for row, ids in zip(padded, token_ids, strict=True):
            row[: len(ids)] = ids
        return np.asarray(self._session.run(None, {"token_ids": padded})[0])


def bucketed(lengths: Sequence[int], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yields the rows of each batch, <int64>[rows], the shortest first: rows of similar length, at most BATCH_ROWS of
    them and, unless it is a single row, at most `batch_tokens` tokens with their padding."""
    order = np.argsort(lengths, kind="stable")
    by_length = np.asarray(lengths)[order]
    start = 0
    while start < len(order):
        widths = by_length[start : start + BATCH_ROWS]
        fitting = np.count_nonzero(np.arange(1, len(widths) + 1) * widths <= batch_tokens)
        stop = start + max(int(fitting), 1)
        yield order[start:stop]
        start = stop


def _default_threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # one number a level of nesting
    if given.isdecimal() and int(given):
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _session(graph: Path) -> Any:
    """Returns ONNX Runtime's session for a graph, on one thread that does not spin: left alone it takes every core,
    and several workers on one machine would fight for them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
