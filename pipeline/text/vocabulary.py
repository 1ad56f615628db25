"""The search for a vocabulary of subwords in a corpus.

It is that of Tensor2Tensor's and TensorFlow Datasets' SubwordTextEncoder; see `served_model.tokenizer`.
"""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.served_model.tokenizer import BYTES, ESCAPED_UNDERSCORE, LITERAL_ESCAPE, PADDING_ID, encodable

_TOKEN = re.compile(r"(\w+)( (?!\W))?|(\W+)")
_SPACE_BEFORE_WORD = re.compile(r" (?=\w)")

_MAX_SUBWORD_LENGTH = 20  # both are the defaults of SubwordTextEncoder.build_from_corpus
_ITERATIONS = 4


def _tokens(text: str) -> list[str]:
    r"""Cuts `text` into tokens.

    >>> _tokens("It is a snake_case, so ")
    ['It_', 'is_', 'a_', 'snake\\&undsccase', ', ', 'so_']
    """
    tokens = []
    for i, part in enumerate(text.split(ESCAPED_UNDERSCORE)):
        if i > 0:  # the escape itself in the text: TFDS's two halves of it, which are no escape apart
            tokens += [ESCAPED_UNDERSCORE[:2], ESCAPED_UNDERSCORE[2:]]
        for word, space, others in _TOKEN.findall(part):
            tokens.append(others or word.replace("_", ESCAPED_UNDERSCORE) + ("_" if space else ""))
    return tokens


def build_vocabulary(texts: Iterable[str], target_size: int = 2**13) -> list[str]:
    """Searches the subwords, most frequent first, that make a vocabulary of about `target_size` ids from `texts`.

    The result is that of `SubwordTextEncoder.build_from_corpus`: a binary search over the count that a subword needs,
    until the number of ids is within 1 % of the target or the range is used up; then the closest one tried. (Texts
    that hold the escape of the underscore before a space are the exception: TFDS counts that space twice.)

    Args:
        texts: the corpus, read once.
        target_size: how many ids to aim for, padding and bytes included.

    Raises:
        UnencodableText: a text is blank or holds a lone surrogate; the message begins with its row, counted from 0.
        ValueError: there are no texts, or the target is too small for a subword.
    """
    reserved_ids = PADDING_ID + 1 + BYTES
    if target_size <= reserved_ids:
        raise ValueError(f"target_size must be above {reserved_ids}, found {target_size}")
    token_counts = _count_tokens(texts)
    if not token_counts:
        raise ValueError("there are no texts to build a vocabulary from")
    prefixes = _Prefixes(token_counts)
    low, high = min(token_counts.values()), max(token_counts.values())
    tried: dict[int, dict[int, int]] = {}  # by their distance from the target, of equally close ones the last
    while True:
        min_count = (low + high) // 2
        subwords = prefixes.frequent(min_count)
        surplus = reserved_ids + len(subwords) - target_size
        tried[abs(surplus)] = subwords
        if abs(surplus) * 100 < target_size or low >= high or min_count <= 1:
            break
        if surplus > 0:
            low = min_count + 1
        else:
            high = min_count - 1
    counted = ((count, prefixes.text(node)) for node, count in tried[min(tried)].items())
    return [subword for _, subword in sorted(counted, reverse=True)]


def _count_tokens(texts: Iterable[str]) -> Counter[str]:
    stretch_counts: Counter[str] = Counter()
    token_counts: Counter[str] = Counter()
    for text in encodable(texts):
        *stretches, rest = _SPACE_BEFORE_WORD.split(text)
        stretch_counts.update(stretches)
        token_counts.update(_tokens(rest))
    for stretch, count in stretch_counts.items():
        for token in _tokens(stretch + " "):
            token_counts[token] += count
    return token_counts


class _Prefixes:
    """The prefix tree of everything that begins at any character of the tokens, up to a length.

    Nodes are numbered level by level (node 0 is the empty string), so that counts move between a level and the one
    above it as whole arrays. The characters of all tokens stand in one array; `_node[i]` is the longest string that
    begins at character i.
    """

    def __init__(self, token_counts: Counter[str]) -> None:
        tokens = "".join(token_counts)
        self._tokens = tokens
        lengths = np.fromiter(map(len, token_counts), np.int64)
        self._ends = np.cumsum(lengths)
        self._weights = np.repeat(np.fromiter(token_counts.values(), np.float64), lengths)
        remaining = np.repeat(self._ends, lengths) - np.arange(len(tokens))
        characters = np.frombuffer(tokens.encode("utf-32-le"), np.uint32).astype(np.int64)

        self._node = np.zeros(len(tokens), np.int64)
        self._parent = np.zeros(1, np.int64)
        self._example = np.zeros(1, np.int64)
        self._levels = [slice(0, 1)]
        for length in range(1, min(_MAX_SUBWORD_LENGTH, lengths.max()) + 1):
            starts = np.flatnonzero(remaining >= length)
            edges = self._node[starts] << 21 | characters[starts + length - 1]  # 21 bits hold any code point
            edges, first_start, child = np.unique(edges, return_index=True, return_inverse=True)
            first = len(self._parent)
            self._node[starts] = first + child
            self._parent = np.append(self._parent, edges >> 21)
            self._example = np.append(self._example, starts[first_start])
            self._levels.append(slice(first, first + len(edges)))

        self._length = np.repeat(np.arange(len(self._levels)), [level.stop - level.start for level in self._levels])
        self._is_byte = np.zeros(len(self._parent), bool)
        self._is_byte[self._levels[1]] = characters[self._example[self._levels[1]]] < 128
        # Without any subword a token is cut into characters, but an escaped underscore always stays whole.
        self._shortest_step = np.ones(len(tokens), np.int64)
        escapes = np.array([escape.start() for escape in LITERAL_ESCAPE.finditer(tokens)], np.int64)
        escapes = escapes[remaining[escapes] >= len(ESCAPED_UNDERSCORE)]
        self._shortest_step[escapes] = len(ESCAPED_UNDERSCORE)

    def text(self, node: int) -> str:
        """Returns the string that `node` stands for."""
        start = self._example[node]
        return self._tokens[start : start + self._length[node]]

    def frequent(self, min_count: int) -> dict[int, int]:
        """Returns the nodes, with their counts, that are left as subwords counted at least `min_count` times.

        A string counts where it begins as the subwords of the iteration before cut the tokens, but not where a longer
        string that begins with it became a subword. Single bytes are left out: the vocabulary has them anyway.
        """
        step = self._shortest_step
        for _ in range(_ITERATIONS):
            counts, accepted = self._accept(self._starts(step), min_count)
            step = self._longest_steps(accepted)
        nodes = np.flatnonzero(accepted)
        return dict(zip(nodes.tolist(), counts[nodes].astype(np.int64).tolist(), strict=True))

    def _starts(self, step: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns where subwords begin if at each character a subword of `step` characters would be taken."""
        position, end = np.append(0, self._ends[:-1]), self._ends
        starts = []
        while position.size:
            starts.append(position)
            position = position + step[position]
            inside = position < end
            position, end = position[inside], end[inside]
        return np.concatenate(starts)

    def _accept(self, starts: NDArray[np.int64], min_count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns for each node how often it, and no longer subword, begins at one of `starts`, and whether that makes
        it a subword."""
        counts = np.zeros(len(self._parent))
        counts += np.bincount(self._node[starts], self._weights[starts], minlength=len(counts))
        accepted = np.zeros(len(counts), bool)
        for level in reversed(self._levels[1:]):  # the longest first: one that is no subword counts for its prefix
            accepted[level] = (counts[level] >= min_count) & ~self._is_byte[level]
            parents = self._parent[level]
            above = slice(parents[0], parents[-1] + 1)
            counts[above] += np.bincount(parents - parents[0], np.where(accepted[level], 0, counts[level]))
        return counts, accepted

    def _longest_steps(self, accepted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns for each character the length of the longest accepted string that begins there."""
        longest = np.where(accepted, self._length, 0)
        for level in self._levels[1:]:
            longest[level] = np.maximum(longest[level], longest[self._parent[level]])
        return np.maximum(longest[self._node], self._shortest_step)
