"""Scoring raw text with NumPy and, where there is a network, ONNX Runtime alone.

The folder that holds this file is a registered model: the code, the vocabulary, the settings, and one or two parts, of
which each gives a text a logit: the network as an ONNX graph (`network.onnx`), the n-gram classifier (`ngrams.npz`).
The settings hold a weight for each part, and the model's logit is the weighted sum: a weight alone is an inverse
temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks"), two are a blend, a logarithmic opinion pool
(Hinton 2002, "Training Products of Experts", section 1). Copied anywhere, the folder is a package of its own:

    from served_model.scorer import Scorer

    scores = Scorer().score(["A film that stays with you for days."])
    scores.label, scores.probability, scores.logit, scores.sure
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .ngrams import NgramClassifier, blocks
from .tokenizer import SubwordTokenizer, UnencodableText

NETWORK, NGRAMS = "network", "ngrams"
PARTS = {NETWORK: "network.onnx", NGRAMS: "ngrams.npz"}
"""The parts that a model may have, and their files."""
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
            OSError, ValueError: a file is missing or damaged, or the weights are not such as the settings may have.
            ImportError: there is a network, and ONNX Runtime is not installed.
        """
        folder = folder or Path(__file__).parent
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._max_tokens = settings["max_tokens"]
        self._threshold = settings["threshold"]
        self._unsure = settings["unsure"]
        self._tokenizer = SubwordTokenizer.load(folder / "vocabulary.txt")
        self._weights = _checked(settings.get("weights"))
        self._session = open_session((folder / PARTS[NETWORK]).read_bytes()) if NETWORK in self._weights else None
        self._ngrams = NgramClassifier.load(folder / PARTS[NGRAMS]) if NGRAMS in self._weights else None
        self._threads = threads or _default_threads()
        self._is_word = np.zeros(self._tokenizer.vocabulary_size, bool)
        self._is_word[1 : 1 + len(self._tokenizer.subwords)] = [_WORD.match(one) for one in self._tokenizer.subwords]
        # All tables are made here, and a vocabulary that is larger than the network's embedding fails.
        self._parts(["."], [np.array([self._tokenizer.vocabulary_size - 1], np.int32)])

    def score(self, texts: Iterable[str]) -> Scores:
        """Returns label, probability of positive, and logit of each of `texts`, and whether the answer is sure: its
        probability lies outside the band that was fitted on validation, and its text is like what the model learnt
        from: not mostly single bytes, and with a known word.

        Raises:
            UnencodableText: a text cannot be scored: it is missing, no string, blank, or holds half of a surrogate
                pair. The message begins with its row, counted from 0. It is a ValueError.
        """
        texts = list(texts)
        token_ids = self.encode(texts)
        parts = self._parts(texts, token_ids)
        logit = sum((self._weights[name] * parts[name] for name in parts), np.zeros(len(texts)))
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

    def parts(self, texts: Iterable[str]) -> dict[str, NDArray[np.float64]]:
        """Returns the logit of each text by each part that has a weight, <float64>[texts], as the part itself has it:
        what weights are fitted on. Raises as `score` does."""
        texts = list(texts)
        return self._parts(texts, self.encode(texts))

    def _parts(self, texts: list[str], token_ids: Sequence[NDArray[np.int32]]) -> dict[str, NDArray[np.float64]]:
        logit = {name: np.empty(len(texts), np.float64) for name in self._weights}

        def network(rows: NDArray[np.int64]) -> None:
            logit[NETWORK][rows] = self._score([token_ids[row] for row in rows])

        def ngrams(rows: slice) -> None:
            assert self._ngrams
            logit[NGRAMS][rows] = self._ngrams.logits(texts[rows])

        batches = list(bucketed([len(ids) for ids in token_ids], BATCH_TOKENS)) if self._session else []
        # The longest first and the n-grams, which are short work, last, so that all end at about the same time.
        work = [partial(network, rows) for rows in reversed(batches)]
        work += [partial(ngrams, rows) for rows in blocks(texts)] if self._ngrams else []
        if len(work) <= len(logit) or self._threads == 1:
            for each in work:
                each()
        else:
            with ThreadPoolExecutor(min(self._threads, len(work))) as pool:
                for done in [pool.submit(each) for each in work]:
                    done.result()
        return logit

    def _score(self, token_ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        padded = np.zeros((len(token_ids), max(len(ids) for ids in token_ids)), np.int32)
        for row, ids in zip(padded, token_ids, strict=True):
            row[: len(ids)] = ids
        assert self._session
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


def _checked(weights: Any) -> dict[str, float]:
    """Returns the weights of the settings; raises ValueError if they are not some parts' numbers above 0."""
    if not isinstance(weights, dict) or not weights or not weights.keys() <= PARTS.keys():
        raise ValueError(f"weights must be those of {NETWORK}, {NGRAMS} or both, found {weights!r}")
    for name, weight in weights.items():
        if type(weight) not in (int, float) or not isfinite(weight) or weight <= 0:
            raise ValueError(f"the weight of {name} must be a number above 0, found {weight!r}")
    return weights


def _default_threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # one number a level of nesting
    if given.isdecimal() and int(given):
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def open_session(graph: bytes) -> Any:
    """Returns ONNX Runtime's session for an ONNX file, on one thread that does not spin: left alone it takes every
    core, and several workers on one machine would fight for them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
