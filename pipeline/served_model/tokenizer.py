"""The subword tokenizer: text to ids and back.

The algorithm is the SubwordTextEncoder of Tensor2Tensor (Noam Shazeer), in the form that TensorFlow Datasets kept as
`tfds.deprecated.text.SubwordTextEncoder`: same vocabulary, same ids. Text is cut into tokens (a word with the single
space after it, or a run of other characters) and each token, from left to right, into the longest known subwords; a
character in no subword is written as its UTF-8 bytes. Inside a token a final `_` stands for the space, so an underscore
of the text is escaped.

This file needs nothing of its package, because it also travels by itself inside a served model.
"""

import hashlib
import json
import math
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PADDING_ID = 0
BYTES = 256

ESCAPED_UNDERSCORE = "\\&undsc"
LITERAL_ESCAPE = re.compile(re.escape(ESCAPED_UNDERSCORE))

_INSIDE_TOKEN = re.compile(r"[^\W_]*_?|\W+")
_FIRST_OF_MORE_BYTES = (0x80, 0x800, 0x10000)  # the code points at which UTF-8 takes a byte more

_BLOCK_CHARACTERS = 2**18


_FILE_FORMAT = "subwords-1"


class UnencodableText(ValueError):
    """The text has no ids; see `why_unusable`."""


class VocabularyError(ValueError):
    """A vocabulary, or the file that should hold one, is not usable."""


def why_unusable(text: Any) -> str | None:
    """Returns why `text` has no ids: it is missing, no string, blank, or holds a surrogate that is half of no
    character. None where it has."""
    if not isinstance(text, str):
        is_nan = isinstance(text, float) and math.isnan(text)
        missing = text is None or is_nan or type(text).__name__ == "NAType"  # pandas' own None; pandas is not needed
        return "the text is missing" if missing else f"the text is not a string: {reprlib.repr(text)}"
    if not text.strip():
        return "the text is blank"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"the text holds a lone surrogate: U+{ord(text[error.start]):04X} at position {error.start}"
    return None


def encodable(texts: Iterable[str]) -> Iterator[str]:
    """Yields `texts`; raises UnencodableText, with the row counted from 0, at one that has no ids."""
    for row, text in enumerate(texts):
        if reason := why_unusable(text):
            raise UnencodableText(f"row {row}: {reason}")
        yield text


def truncate(ids: NDArray[np.int32], max_tokens: int | None) -> NDArray[np.int32]:
    """Returns the first `max_tokens` of `ids`, all of them for None; raises ValueError if that is less than one."""
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, found {max_tokens}")
    return ids[:max_tokens]


class SubwordTokenizer:
    """Text to ids and back, exactly: `decode(encode(text)) == text` for every text that can be encoded.

    Id 0 is padding, then come the subwords in order, then the 256 bytes.

    >>> tokenizer = SubwordTokenizer(["the_", "film"])
    >>> tokenizer.encode("the films")
    [1, 2, 118]
    >>> tokenizer.decode([1, 2, 118, 0, 0])
    'the films'
    """

    def __init__(self, subwords: Iterable[str]) -> None:
        """Raises VocabularyError if a subword is empty, repeated, or holds a lone surrogate."""
        self._subwords = tuple(subwords)
        if "" in self._subwords:
            raise VocabularyError("a subword is empty")
        for subword, count in Counter(self._subwords).items():
            if count > 1:
                raise VocabularyError(f"the subword {subword!r} stands {count} times in the vocabulary")
        self._first_byte_id = PADDING_ID + 1 + len(self._subwords)
        try:
            surfaces = [re.sub("_$", " ", subword).encode("utf-8") for subword in self._subwords]
        except UnicodeEncodeError as error:
            raise VocabularyError(f"the subword {error.object!r} holds a lone surrogate") from None
        self._surface = [b"", *surfaces, *(bytes([byte]) for byte in range(BYTES))]
        self._cutter = _Cutter(self._subwords)

    @property
    def subwords(self) -> tuple[str, ...]:
        return self._subwords

    @property
    def vocabulary_size(self) -> int:
        """The number of ids: padding, subwords and bytes."""
        return self._first_byte_id + BYTES

    def encode(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Returns the ids of `text`, none of them padding; `max_tokens` keeps that many from the beginning.

        The ids are those of TFDS wherever TFDS gives the text back exactly. Where it does not (an underscore, if a
        subword holds part of its escape; the escape itself before a space), they may differ.

        Raises:
            UnencodableText: the text has no ids; see `why_unusable`.
            ValueError: `max_tokens` is less than one.
        """
        if reason := why_unusable(text):
            raise UnencodableText(reason)
        return truncate(self._cutter.ids([text])[0], max_tokens).tolist()

    def encode_batch(self, texts: Iterable[str], max_tokens: int | None = None) -> list[NDArray[np.int32]]:
        """Returns what `encode` returns for each of `texts`, many times faster: an array int32[tokens] a text.

        Raises:
            UnencodableText: a text has no ids; the message begins with its row, counted from 0.
            ValueError: `max_tokens` is less than one.
        """
        encoded: list[NDArray[np.int32]] = []
        block: list[str] = []
        characters = 0
        for text in encodable(texts):
            block.append(text)
            characters += len(text)
            if characters >= _BLOCK_CHARACTERS:
                encoded += self._cutter.ids(block)
                block, characters = [], 0
        encoded += self._cutter.ids(block)
        return [truncate(ids, max_tokens) for ids in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; padding is skipped, a character cut by truncation becomes U+FFFD.

        Raises:
            ValueError: an id is outside [0, vocabulary_size).
        """
        ids = list(ids)
        wrong = next((i for i in ids if not 0 <= i < self.vocabulary_size), None)
        if wrong is not None:
            raise ValueError(f"the id {wrong} is outside [0, {self.vocabulary_size})")
        return b"".join([self._surface[i] for i in ids]).decode("utf-8", errors="replace")

    def save(self, path: Path) -> None:
        """Writes the vocabulary as UTF-8 text: a header with count and SHA-256, then a JSON string a line."""
        body = "".join(json.dumps(s, ensure_ascii=not s.isprintable()) + "\n" for s in self._subwords).encode("utf-8")
        header = f"{_FILE_FORMAT} {len(self._subwords)} {hashlib.sha256(body).hexdigest()}\n"
        path.write_bytes(header.encode("ascii") + body)

    @classmethod
    def load(cls, path: Path) -> "SubwordTokenizer":
        """Reads what `save` wrote.

        Raises:
            VocabularyError: the file is another kind of file, is truncated, or has been changed.
            OSError: the file cannot be read.
        """
        header, _, body = path.read_bytes().partition(b"\n")
        form = re.fullmatch(rf"{_FILE_FORMAT} (\d+) ([0-9a-f]{{64}})".encode(), header)
        if form is None:
            raise VocabularyError(f"{path} is not a vocabulary: its first line is not '{_FILE_FORMAT} COUNT SHA256'")
        lines, expected = body.count(b"\n"), int(form[1])
        if lines < expected:
            raise VocabularyError(f"{path} is truncated: it holds {lines} of {expected} subwords")
        if hashlib.sha256(body).hexdigest().encode() != form[2]:
            raise VocabularyError(f"{path} has been changed since it was written: its checksum differs")
        return cls(json.loads(line) for line in body.decode("utf-8").split("\n")[:-1])


class _Cutter:
    """Cuts texts into the longest known subwords, character arrays of many texts at a time.

    The subwords are a prefix tree in one flat table: a node is the offset of its row, a column is the class of a
    character (0 is any character in no subword), an entry is the child, or 0 where there is none. A subword that is
    neither one word, perhaps with its space, nor other characters only fits into no token and stays out of the tree.
    """

    def __init__(self, subwords: Sequence[str]) -> None:
        usable = [(subword, i) for i, subword in enumerate(subwords, start=1) if _INSIDE_TOKEN.fullmatch(subword)]
        usable.sort(key=lambda item: len(item[0]))  # prefixes first: a node then inherits the match of its parent
        alphabet = sorted({character for subword, _ in usable for character in subword})
        class_of = {character: i for i, character in enumerate(alphabet, start=1)}
        width = len(alphabet) + 1
        children: list[dict[int, int]] = [{}]
        match, length = [0], [1]
        apart = np.ones((width, width), bool)
        for subword, i in usable:
            node = 0
            classes = [class_of[character] for character in subword]
            for column in classes:
                if column not in children[node]:
                    children[node][column] = len(children)
                    children.append({})
                    match.append(match[node])
                    length.append(length[node])
                node = children[node][column]
            match[node], length[node] = i, len(subword)
            apart[classes[:-1], classes[1:]] = False
        tree = np.zeros((len(children), width), np.int32)
        for node, child in enumerate(children):
            tree[node, list(child)] = np.array(list(child.values()), np.int32) * width

        self._width = width
        self._tree = tree.ravel()
        self._match = np.array(match, np.int32)
        self._length = np.array(length, np.int32)
        self._apart = apart.ravel()
        self._space_class = class_of.get("_", 0)
        self._class = np.zeros(sys.maxunicode + 1, np.int32)
        self._class[[ord(character) for character in alphabet]] = np.arange(1, width)
        self._class[ord("_")] = 0  # an underscore of the text is always a byte: in a subword it stands for a space
        self._first_byte_id = 1 + len(subwords)

    def ids(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Returns the ids of each text, int32[tokens]."""
        joined = "_" + "".join(text + "_" for text in texts)  # in class 0, and a word character after a last space
        characters = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        ends = np.cumsum([0, *(len(text) + 1 for text in texts)])
        is_end = np.zeros(len(joined), bool)
        is_end[ends] = True

        escapes = np.array([escape.start() for escape in LITERAL_ESCAPE.finditer(joined)], np.int64)

        classes = self._class.take(characters)
        spaces = np.flatnonzero(characters == ord(" "))
        before = word_characters().take(characters.take(spaces - 1)) & ~is_end.take(spaces - 1)
        after = word_characters().take(characters.take(spaces + 1)) | np.isin(spaces + 1, escapes)
        classes[spaces[before & after]] = self._space_class

        # A subword begins wherever no subword holds the two characters beside each other.
        begins = np.append(True, self._apart.take(classes[:-1] * self._width + classes[1:]))
        begins[escapes] = begins[escapes + len(ESCAPED_UNDERSCORE)] = True
        inner_classes = np.where(begins, 0, classes)
        begins[ends] = False
        inside = ~(begins | is_end)

        ids = np.full(len(joined), -1, np.int32)
        starts = np.flatnonzero(begins)
        while starts.size:
            nodes = self._deepest(starts, classes, inner_classes)
            ids[starts] = self._match.take(nodes)
            starts = starts + self._length.take(nodes)
            starts = starts[inside.take(starts)]
        return self._with_bytes(ids, characters, ends)

    def _deepest(
        self, starts: NDArray[np.int64], classes: NDArray[np.int32], inner_classes: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """Returns for each of `starts` the number of the deepest node that the characters from there on lead to."""
        node = self._tree.take(classes.take(starts))
        deepest = node.copy()
        alive = np.flatnonzero(node)
        node, position = node.take(alive), starts.take(alive)
        while alive.size:
            position += 1
            node = self._tree.take(node + inner_classes.take(position))
            further = np.flatnonzero(node)
            node, alive, position = node.take(further), alive.take(further), position.take(further)
            deepest[alive] = node
        return deepest // self._width

    def _with_bytes(
        self, ids: NDArray[np.int32], characters: NDArray[np.uint32], ends: NDArray[np.int64]
    ) -> list[NDArray[np.int32]]:
        """Returns `ids` a text, without the characters inside a subword (-1), with bytes for those in none (0)."""
        taken = np.flatnonzero(ids >= 0)
        ids = ids.take(taken)
        unknown = characters.take(taken[ids == 0])
        if unknown.size:
            repeats = np.ones(len(ids), np.int64)
            repeats[ids == 0] = 1 + sum((unknown >= first).astype(np.int64) for first in _FIRST_OF_MORE_BYTES)
            ids, taken = np.repeat(ids, repeats), np.repeat(taken, repeats)
            utf8 = unknown.tobytes().decode("utf-32-le").encode("utf-8")
            ids[ids == 0] = np.frombuffer(utf8, np.uint8).astype(np.int32) + self._first_byte_id
        return [ids[first:last] for first, last in pairwise(np.searchsorted(taken, ends).tolist())]


@cache
def word_characters() -> NDArray[np.bool_]:
    r"""Returns for each code point whether it is a word character, `\w`."""
    every = (chr(point) for point in range(sys.maxunicode + 1))
    return np.fromiter((character.isalnum() or character == "_" for character in every), bool)
