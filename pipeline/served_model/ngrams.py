"""A linear n-gram classifier as it is served: hashed n-grams, a weight each, NumPy alone.

    classifier = NgramClassifier.load(Path("ngrams.npz"))
    classifier.logits(["A film that stays with you for days."])    # float64[1]

A feature is the bucket of an n-gram: of 1 to `max_ngram` tokens after each other, as TOKEN_PATTERN finds them in the
lower-cased text. No string is made of a token or an n-gram. A token's hash is the sum of a random number for each
character at its position (Zobrist 1970, "A New Hashing Method with Application for Game Playing"); an n-gram's mixes in
the hash of one token after the other. The random numbers are those of `_mixed`, so that a text has the same buckets on
every machine, and in every Python whose Unicode has the same lower case and the same letters.

A token behind a negation is another token than without it, so that praise that is denied is no praise (Das & Chen 2001,
"Yahoo! for Amazon"; Pang, Lee & Vaithyanathan 2002, "Thumbs up?").
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from .tokenizer import word_characters

# Words with the n't of a negation split off, as in the Penn Treebank, and the punctuation between them.
# The best of three patterns in cross-validation on the training reviews.
TOKEN_PATTERN = r"""\w+(?=n't)|n't|\w+|'\w+|[!?.,;:()"]"""
NEGATIONS = ("not", "n't", "never", "cannot", "hardly", "nobody")
NEGATED = 3
"""Tokens behind a negation that it reaches, as far as no punctuation comes between. In 5-fold cross-validation on the
training reviews 0.9183 are right with it and 0.9165 without."""
BUCKET_BITS = 24
HASH_BUCKETS = 2**BUCKET_BITS  # three times the 5.0 million distinct n-grams of IMDB; 2**26 scored no better
CHARACTER_BITS = 21  # of a code point

_UTF_32 = f"utf-32-{sys.byteorder[0]}e"
_WORD, _MARK, _APOSTROPHE = 1, 2, 3
_MARKS = '!?.,;:()"'
_BLOCK_CHARACTERS = 2**16  # so that what is computed of a block stays in a core's cache
_BLOCK_TEXTS = 2 ** (32 - BUCKET_BITS)  # so that row and bucket are one uint32, which sorts faster than uint64


def blocks(texts: Sequence[str]) -> Iterator[slice]:
    """Yields the rows of `texts` in order, in blocks of a size that is fast; how they are grouped changes no result."""
    start = characters = 0
    for row, text in enumerate(texts):
        if row > start and (characters + len(text) > _BLOCK_CHARACTERS or row - start == _BLOCK_TEXTS):
            yield slice(start, row)
            start, characters = row, 0
        characters += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def presence(texts: Sequence[str], max_ngram: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Returns the distinct buckets of each text, sorted, as the rows of a sparse matrix: <int64>[texts + 1], where the
    buckets of a text begin and the next one's do, and <uint32>[sum over texts], the buckets."""
    found = [_block_presence(texts[rows], max_ngram) for rows in blocks(texts)]
    counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(starts) for starts, _ in found)])
    return np.cumsum(counts), np.concatenate([np.zeros(0, np.uint32), *(buckets for _, buckets in found)])


def buckets(text: str, max_ngram: int) -> NDArray[np.uint32]:
    """Returns the buckets of a text's n-grams, <uint32>[distinct], sorted."""
    return presence([text], max_ngram)[1]


@dataclass(frozen=True)
class NgramClassifier:
    """A fitted classifier. Threads may share one.

    Attributes:
        max_ngram: longest n-gram in tokens.
        kept: <uint32>[features], the buckets that are features, sorted.
        weight: <float32>[features], what an n-gram adds to the log-odds.
        intercept: the log-odds of a text without a feature.

    Raises:
        ValueError: these are not the arrays of a classifier.
    """

    max_ngram: int
    kept: NDArray[np.uint32]
    weight: NDArray[np.float32]
    intercept: float

    def __post_init__(self) -> None:
        if (self.kept.dtype, self.weight.dtype) != (np.uint32, np.float32):
            raise ValueError("kept and weight are not of the types uint32 and float32")
        if self.kept.ndim != 1 or self.kept.shape != self.weight.shape:
            raise ValueError("kept and weight are not two rows of one length")
        if self.max_ngram < 1 or not np.isfinite(self.weight).all() or not np.isfinite(self.intercept):
            raise ValueError("max_ngram is less than one, or a weight is not finite")
        if not (self.kept[:-1] < self.kept[1:]).all() or (self.kept >= HASH_BUCKETS).any():
            raise ValueError(f"the features are not sorted buckets below {HASH_BUCKETS}")

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns <float64>[len(texts)], the log-odds that each text is positive: the same in whatever company."""
        parts = [self.logits_of(*_block_presence(texts[rows], self.max_ngram)) for rows in blocks(texts)]
        return np.concatenate([np.zeros(0), *parts])

    def logits_of(self, starts: NDArray[np.int64], buckets: NDArray[np.uint32]) -> NDArray[np.float64]:
        """Returns <float64>[texts], the log-odds of texts as `presence` has them."""
        texts = len(starts) - 1
        row = np.repeat(np.arange(texts), np.diff(starts))
        # One after the other, in float64: a sum is the same wherever it stands among others.
        total = np.bincount(row, weights=self._weights_of(buckets), minlength=texts)
        return np.asarray(total + self.intercept, np.float64)

    def contributions(self, text: str) -> dict[str, float]:
        """Returns the n-grams of a text that have a weight, each with what it adds to the log-odds. Of two in one
        bucket, which `logits` counts once, each is named."""
        tokens = _tokens([text])
        joined = tokens.characters.tobytes().decode(_UTF_32, "surrogatepass")
        words = [joined[first:end] for first, end in pairwise([*tokens.first.tolist(), len(joined)])]
        found = {}
        hashes = _token_hashes(tokens)
        words = [f"not_{word}" if one else word for word, one in zip(words, _negated(tokens, hashes), strict=True)]
        for n, in_order in enumerate(_ngram_buckets(tokens, self.max_ngram), start=1):
            weights = self._weights_of(in_order)
            for first in np.flatnonzero(weights).tolist():
                found[" ".join(words[first : first + n])] = float(weights[first])
        return found

    def save(self, path: Path) -> None:
        """Writes the classifier as NumPy arrays (`.npz`); the same one gives the same bytes."""
        with path.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                max_ngram=self.max_ngram,
                kept=self.kept,
                weight=self.weight,
                intercept=self.intercept,
            )

    @classmethod
    def load(cls, path: Path) -> "NgramClassifier":
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is another kind of file, or is damaged.
            OSError: the file cannot be read.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(int(arrays["max_ngram"]), arrays["kept"], arrays["weight"], float(arrays["intercept"]))
        except (ValueError, TypeError, AttributeError, KeyError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path} is no n-gram classifier ({error})") from None

    @cached_property
    def _lookup(self) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.float32]]:
        """A bit for each bucket, whether it is a feature, <uint64>[HASH_BUCKETS / 64]; how many features there are to
        the end of the 64 before (Jacobson 1989, "Space-efficient Static Trees and Graphs"); and 0 and the weights. 3 MB
        beside the weights: half as fast as a table of all buckets would be, which takes 64, and ten times as fast as a
        binary search."""
        is_feature = np.zeros(HASH_BUCKETS, bool)
        is_feature[self.kept] = True
        bits = np.packbits(is_feature, bitorder="little").view("<u8")
        count = np.bitwise_count(bits)
        return bits, np.cumsum(count, dtype=np.int32) - count, np.append(np.float32(0), self.weight)

    def _weights_of(self, buckets: NDArray[np.uint32]) -> NDArray[np.float64]:
        """Returns the weight of each of `buckets`, 0 where it is no feature."""
        bits, before, weights = self._lookup
        word = buckets >> 6
        bit = np.uint64(1) << (buckets & np.uint32(63)).astype(np.uint64)
        found = bits.take(word)
        place = before.take(word) + np.bitwise_count(found & (bit - np.uint64(1))) + 1
        return weights.take(place * ((found & bit) != 0)).astype(np.float64)


def _block_presence(texts: Sequence[str], max_ngram: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Returns what `presence` does, of at most _BLOCK_TEXTS texts."""
    tokens = _tokens(texts)
    row = np.repeat(np.arange(len(texts), dtype=np.uint32) << BUCKET_BITS, np.diff(tokens.of_text))
    keys = []
    for n, in_order in enumerate(_ngram_buckets(tokens, max_ngram)):
        first, last = row[: len(row) - n], row[n:]
        keys.append((in_order | last)[first == last])  # else it begins in one text and ends in the next
    key = np.sort(np.concatenate(keys))
    is_new = np.append(True, key[1:] != key[:-1])[: len(key)]
    key = key[is_new]
    starts = np.searchsorted(key, np.arange(len(texts), dtype=np.uint32) << BUCKET_BITS)
    return np.append(starts, len(key)), key & np.uint32(HASH_BUCKETS - 1)


class _Tokens(NamedTuple):
    """The tokens of some texts, one after the other."""

    characters: NDArray[np.uint32]  # [characters], code points of all tokens
    first: NDArray[np.int64]  # [tokens], where among the characters each begins
    of_text: NDArray[np.int64]  # [texts + 1], the number of each text's first token, and of all

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.first, append=len(self.characters))


def _tokens(texts: Sequence[str]) -> _Tokens:
    """Returns the tokens of `texts`: of each those of `re.findall(TOKEN_PATTERN, text.lower())`."""
    lowered = [text.lower() for text in texts]
    joined = "\n" + "".join(text + "\n" for text in lowered)
    characters = np.frombuffer(joined.encode(_UTF_32, "surrogatepass"), np.uint32)
    kind = _kinds().take(characters)
    is_word = kind == _WORD
    begins = is_word.copy()
    begins[1:] &= ~is_word[:-1]
    begins |= kind == _MARK
    inside = (kind == _WORD) | (kind == _MARK)

    apostrophes = np.flatnonzero(kind == _APOSTROPHE)
    negations = _negations(characters, is_word, apostrophes)
    suffixes = np.setdiff1d(apostrophes[is_word.take(apostrophes + 1)], negations, assume_unique=True)
    inside[negations] = inside[suffixes] = True
    begins[negations + 1] = begins[suffixes + 1] = False
    begins[negations - 1] = begins[suffixes] = True
    begins[negations + 2] |= is_word[negations + 2]

    position = np.flatnonzero(inside)
    first = np.flatnonzero(begins.take(position))
    starts = np.cumsum([1, *(len(text) + 1 for text in lowered)])
    return _Tokens(characters.take(position), first, np.searchsorted(position.take(first), starts))


def _negations(
    characters: NDArray[np.uint32], is_word: NDArray[np.bool_], apostrophes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the apostrophes whose n't is a token: not where the word before it begins with an apostrophe, which then
    is that word's ("'didn't"), unless that is part of an n't itself."""
    between = (characters.take(apostrophes - 1) == ord("n")) & (characters.take(apostrophes + 1) == ord("t"))
    candidates = apostrophes[between]
    if not candidates.size:
        return candidates
    no_word = np.flatnonzero(~is_word)
    before = no_word.take(np.searchsorted(no_word, candidates) - 1)  # what stands before the word
    found: set[int] = set()
    for candidate, other in zip(candidates.tolist(), before.tolist(), strict=True):
        if characters[other] != ord("'") or other in found:
            found.add(candidate)
    return np.array(sorted(found), np.int64)


def _token_hashes(tokens: _Tokens) -> NDArray[np.uint64]:
    """Returns <uint64>[tokens], the sum over a token's characters of a random number for each of them where it is."""
    place = np.arange(len(tokens.characters)) - np.repeat(tokens.first, tokens.lengths)
    numbers = _mixed((place.astype(np.uint64) << np.uint64(CHARACTER_BITS)) | tokens.characters)
    return np.add.reduceat(numbers, tokens.first) if tokens.first.size else numbers


def _negated(tokens: _Tokens, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Returns <bool>[tokens], which of them a negation reaches."""
    stops = _kinds().take(tokens.characters.take(tokens.first)) == _MARK
    begins = np.append(stops, False)
    begins[tokens.of_text] = True  # no negation reaches from one text into the next
    reached = np.isin(hashes, _negation_hashes())
    found = np.zeros(len(hashes), bool)
    for _ in range(NEGATED):
        reached = np.append(False, reached)[: len(hashes)] & ~begins[: len(hashes)]
        found |= reached
    return found


@cache
def _negation_hashes() -> NDArray[np.uint64]:
    return np.array([_token_hashes(_tokens([word]))[0] for word in NEGATIONS], np.uint64)


def _ngram_buckets(tokens: _Tokens, max_ngram: int) -> Iterator[NDArray[np.uint32]]:
    """Yields for n = 1 .. max_ngram the bucket of the n-gram that begins at each token, <uint32>[tokens - n + 1]."""
    hashes = _token_hashes(tokens)
    hashes = np.where(_negated(tokens, hashes), _mixed(hashes), hashes)
    mixed = np.zeros(len(hashes) + 1, np.uint64)
    for n in range(max_ngram):
        mixed = _mixed(mixed[:-1] + hashes[n:])
        yield (mixed >> np.uint64(64 - BUCKET_BITS)).astype(np.uint32)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the number that splitmix64 gives for each state (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom
    Number Generators"; the constants are Stafford's variant 13)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers ^= numbers >> np.uint64(30)
    numbers *= np.uint64(0xBF58476D1CE4E5B9)
    numbers ^= numbers >> np.uint64(27)
    numbers *= np.uint64(0x94D049BB133111EB)
    numbers ^= numbers >> np.uint64(31)
    return numbers


@cache
def _kinds() -> NDArray[np.uint8]:
    """Returns for each code point what it is to TOKEN_PATTERN."""
    kinds = np.where(word_characters(), _WORD, 0).astype(np.uint8)
    kinds[[ord(mark) for mark in _MARKS]] = _MARK
    kinds[ord("'")] = _APOSTROPHE
    return kinds
