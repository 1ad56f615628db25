import importlib
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.served_model.tokenizer import SubwordTokenizer, UnencodableText, VocabularyError
from pipeline.text.vocabulary import build_vocabulary

# An underscore in the corpus puts parts of TFDS's escape into the vocabulary, which TFDS itself cannot undo.
UNDERSCORES = ["__foo__ _bar_ snake_case_name __foo__ _bar_ foo"] * 20

# What the tokenizer could stumble over: the escape and its halves, the marker of a space, bytes of any length, NUL,
# line ends that are not "\n", combining characters, digits that are letters, and words of the reviews.
PIECES = ["\\&undsc", "\\&", "undsc", "\\", "&", "_", "__", " ", "  ", "\n", "\r\n", "\u2028", "\x85", "\0", "\ufffd"]
PIECES += [
    "é",
    "e\u0301",
    "ß",
    "中文",
    "²",
    "🙂",
    "👩‍👩‍👧",
    ".",
    ", ",
    "...",
    "<br /><br />",
    "'s",
    "the ",
    "foo",
    "film",
    "good",
    "1990",
]


def is_encodable(text: str) -> bool:
    return text.strip() != ""


any_text = st.text(st.characters(exclude_categories=["Cs"])).filter(is_encodable)
tricky_text = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join).filter(is_encodable)
plain_text = st.text(st.sampled_from("aefilmot hT.,'!-_\"<br/>\n1é"), max_size=60).filter(is_encodable)


@pytest.fixture(scope="module")
def tfds() -> ModuleType:
    return importlib.import_module("tensorflow_datasets.core.deprecated.text.subword_text_encoder")


@pytest.fixture(scope="module")
def texts(reviews: pd.DataFrame) -> list[str]:
    return reviews["text"].tolist()


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> SubwordTokenizer:
    return SubwordTokenizer(build_vocabulary(texts[:1000], 2000))


@pytest.fixture(scope="module")
def underscore_tokenizer() -> SubwordTokenizer:
    return SubwordTokenizer(build_vocabulary(UNDERSCORES, 300))


@given(text=st.one_of(any_text, tricky_text, plain_text))
def test_every_text_comes_back_exactly(
    tokenizer: SubwordTokenizer, underscore_tokenizer: SubwordTokenizer, text: str
) -> None:
    for each in (tokenizer, underscore_tokenizer, SubwordTokenizer([]), SubwordTokenizer(PIECES)):
        assert each.decode(each.encode(text)) == text


def test_the_real_reviews_come_back_exactly(tokenizer: SubwordTokenizer, texts: list[str]) -> None:
    encoded = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts


def test_a_vocabulary_with_parts_of_the_escape_still_gives_underscores_back(
    underscore_tokenizer: SubwordTokenizer,
) -> None:
    assert any("undsc" in subword for subword in underscore_tokenizer.subwords)
    for text in ("__foo__", "_bar_ foo", "snake_case_name", "_", " _", "_ ", "\\&undsc_ \\&undsc foo"):
        assert underscore_tokenizer.decode(underscore_tokenizer.encode(text)) == text


@given(text=st.one_of(any_text, tricky_text))
def test_ids_are_in_range_and_never_padding(tokenizer: SubwordTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids
    assert all(0 < i < tokenizer.vocabulary_size for i in ids)


@given(text=st.one_of(any_text, tricky_text), max_tokens=st.integers(1, 20))
def test_truncation_keeps_the_beginning_and_can_be_decoded(
    tokenizer: SubwordTokenizer, text: str, max_tokens: int
) -> None:
    ids = tokenizer.encode(text, max_tokens)
    assert ids == tokenizer.encode(text)[:max_tokens]
    beginning = tokenizer.decode(ids).rstrip("\ufffd")  # of a character cut inside its bytes
    assert text.startswith(beginning)


@given(batch=st.lists(st.one_of(any_text, tricky_text), max_size=5), max_tokens=st.one_of(st.none(), st.integers(1, 9)))
def test_a_batch_gives_the_ids_of_each_text_alone(
    tokenizer: SubwordTokenizer, batch: list[str], max_tokens: int | None
) -> None:
    encoded = tokenizer.encode_batch(batch, max_tokens)
    assert [ids.tolist() for ids in encoded] == [tokenizer.encode(text, max_tokens) for text in batch]
    assert all(ids.dtype == np.int32 for ids in encoded)


def test_real_reviews_have_the_same_ids_alone_and_in_a_batch(tokenizer: SubwordTokenizer, texts: list[str]) -> None:
    encoded = tokenizer.encode_batch(texts, max_tokens=100)
    assert [ids.tolist() for ids in encoded[::40]] == [tokenizer.encode(text, max_tokens=100) for text in texts[::40]]


def test_padding_decodes_to_nothing(tokenizer: SubwordTokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("A good film"), 0, 0, 0]) == "A good film"


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: SubwordTokenizer, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"the id {wrong} is outside"):
        tokenizer.decode([1, wrong])


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u2003"])
def test_blank_text_is_refused(tokenizer: SubwordTokenizer, blank: str) -> None:
    with pytest.raises(UnencodableText, match="blank"):
        tokenizer.encode(blank)


def test_a_lone_surrogate_is_refused_with_its_position(tokenizer: SubwordTokenizer) -> None:
    with pytest.raises(UnencodableText, match=r"lone surrogate: U\+D800 at position 5"):
        tokenizer.encode("good \ud800 film")


def test_a_batch_names_the_row_that_it_refuses(tokenizer: SubwordTokenizer) -> None:
    with pytest.raises(UnencodableText, match="row 1: the text is blank"):
        tokenizer.encode_batch(["good", " "])


def test_max_tokens_below_one_is_refused(tokenizer: SubwordTokenizer) -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 1, found 0"):
        tokenizer.encode("good", max_tokens=0)


subword_lists = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.sampled_from(PIECES)), unique=True
)


@given(subwords=subword_lists)
def test_a_vocabulary_loads_as_it_was_saved(tmp_path_factory: pytest.TempPathFactory, subwords: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "vocabulary.txt"
    SubwordTokenizer(subwords).save(path)
    assert SubwordTokenizer.load(path).subwords == tuple(subwords)


def test_a_vocabulary_file_has_one_subword_a_line(tmp_path: Path) -> None:
    subwords = ["the_", "'s", 'say "', "\n", "\r", "\u2028", "\x85", "é", "中文"]
    SubwordTokenizer(subwords).save(tmp_path / "vocabulary.txt")
    lines = (tmp_path / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(subwords)
    assert lines[1] == '"the_"'


def test_a_truncated_or_changed_or_foreign_vocabulary_file_is_refused(
    tmp_path: Path, tokenizer: SubwordTokenizer
) -> None:
    path = tmp_path / "vocabulary.txt"
    tokenizer.save(path)
    whole = path.read_bytes()
    for content, reason in [
        (whole[: len(whole) // 2], r"is truncated: it holds \d+ of \d+ subwords"),
        (whole[:-1], "is truncated"),
        (whole.replace(b'"the_"', b'"teh_"'), "has been changed"),
        (whole + b'"more"\n', "has been changed"),
        (b"", "is not a vocabulary"),
        (b"### SubwordTextEncoder\n### Metadata: {}\n'the_'\n", "is not a vocabulary"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "is not a vocabulary"),
    ]:
        path.write_bytes(content)
        with pytest.raises(VocabularyError, match=reason) as refusal:
            SubwordTokenizer.load(path)
        assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("subwords", "reason"),
    [(["the_", ""], "empty"), (["the_", "a", "the_"], "'the_' stands 2 times"), (["\ud800"], "lone surrogate")],
)
def test_an_unusable_vocabulary_is_refused(subwords: list[str], reason: str) -> None:
    with pytest.raises(VocabularyError, match=reason):
        SubwordTokenizer(subwords)


def test_a_vocabulary_needs_texts_and_room_for_subwords() -> None:
    with pytest.raises(ValueError, match="there are no texts"):
        build_vocabulary([])
    with pytest.raises(ValueError, match="above 257, found 257"):
        build_vocabulary(["good"], target_size=257)
    with pytest.raises(UnencodableText, match="row 1: the text is blank"):
        build_vocabulary(["good", ""])


def test_the_file_works_by_itself_under_another_name(tmp_path: Path, tokenizer: SubwordTokenizer) -> None:
    shutil.copy(inspect.getfile(SubwordTokenizer), tmp_path / "travelled.py")
    tokenizer.save(tmp_path / "vocabulary.txt")
    script = (
        "import pathlib, sys; sys.path.insert(0, '.'); import travelled\n"
        "print(travelled.SubwordTokenizer.load(pathlib.Path('vocabulary.txt')).encode('A good film'))\n"
        "assert not any(name.split('.')[0] == 'pipeline' for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == tokenizer.encode("A good film")


Build = Callable[[list[str], int], list[str]]


@pytest.fixture(scope="module")
def tfds_build(tfds: ModuleType) -> Build:
    return lambda texts, size: tfds.SubwordTextEncoder.build_from_corpus(iter(texts), size).subwords


@pytest.mark.parametrize(("rows", "target_size"), [(60, 2**13), (60, 1000), (20, 400), (1, 300), (1, 2**13)])
def test_the_vocabulary_of_real_reviews_is_the_one_of_tfds(
    texts: list[str], tfds_build: Build, rows: int, target_size: int
) -> None:
    assert build_vocabulary(texts[:rows], target_size) == tfds_build(texts[:rows], target_size)


def test_the_vocabulary_of_underscores_and_escapes_is_the_one_of_tfds(tfds_build: Build) -> None:
    corpus = [*UNDERSCORES, "\\&undscfoo \\&undsc, foo\\&undsc" * 10, "中文 🙂 e\u0301é " * 30, "a" * 500]
    for target_size in (260, 300, 500):
        assert build_vocabulary(corpus, target_size) == tfds_build(corpus, target_size)


@pytest.fixture(scope="module")
def tfds_tokenizer(tokenizer: SubwordTokenizer, tfds: ModuleType) -> Any:
    return tfds.SubwordTextEncoder(list(tokenizer.subwords))


def test_real_reviews_have_the_ids_of_tfds(tokenizer: SubwordTokenizer, tfds_tokenizer: Any, texts: list[str]) -> None:
    assert tfds_tokenizer.vocab_size == tokenizer.vocabulary_size
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids.tolist() == tfds_tokenizer.encode(text)


@given(text=st.one_of(any_text, tricky_text, plain_text))
def test_ids_are_those_of_tfds_for_every_text_that_tfds_gives_back(
    tokenizer: SubwordTokenizer, tfds_tokenizer: Any, text: str
) -> None:
    expected = tfds_tokenizer.encode(text)
    assume(tfds_tokenizer.decode(expected) == text)
    assert tokenizer.encode(text) == expected
