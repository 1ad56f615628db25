"""Sentences are the reviews' own, none twice, none a labelled review, and the same from the same seed."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.copies import key
from pipeline.data.sentences import FEWEST_WORDS, draw_sentences, sentences
from pipeline.data.sources import UNLABELLED_SAMPLE
from pipeline.served_model.tokenizer import why_unusable

NONE = pd.DataFrame({"id": [], "text": [], "label": []}).astype({"id": str, "text": str, "label": "int64"})
TEXTS = st.text(st.sampled_from("ab .!?<br />\n\ud800")) | st.text()


@pytest.fixture(scope="module")
def unlabelled() -> pd.DataFrame:
    return pd.read_parquet(UNLABELLED_SAMPLE)


def of_texts(*texts: str) -> pd.DataFrame:
    ids = [f"unlabelled/{row}" for row in range(len(texts))]
    return pd.DataFrame({"id": ids, "text": texts}, dtype=object)  # pandas' strings cannot hold a lone surrogate


def test_two_sentences_of_a_real_review_are_found_in_it_by_their_ids(unlabelled: pd.DataFrame) -> None:
    drawn, report = draw_sentences(unlabelled, NONE, per_review=2, seed=42)

    text_of = unlabelled.set_index("id")["text"]
    for sentence_id, text in zip(drawn["id"], drawn["text"], strict=True):
        review_id, number = sentence_id.split("#")
        assert sentences(text_of[review_id])[int(number)] == text
        assert len(text.split()) >= FEWEST_WORDS and "<br />" not in text
    assert drawn["id"].is_unique and drawn["key"].is_unique
    per_review = drawn["id"].str.partition("#")[0].value_counts()
    assert per_review.max() == 2
    assert 1.9 * len(unlabelled) < report["kept"] == len(drawn) <= report["drawn"] <= 2 * len(unlabelled)
    order = {name: row for row, name in enumerate(unlabelled["id"])}
    where = [(order[name], int(number)) for name, number in drawn["id"].str.split("#")]
    assert where == sorted(where)


def test_the_seed_decides_and_another_review_does_not(unlabelled: pd.DataFrame) -> None:
    some = unlabelled.head(300)
    first, again, other = (draw_sentences(some, NONE, per_review=2, seed=seed)[0] for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert len(set(first["id"]) - set(other["id"])) > 0.5 * len(first)
    without, _ = draw_sentences(some.drop(index=[0, 17]), NONE, per_review=2, seed=1)
    assert set(without["id"]) == {name for name in first["id"] if name.split("#")[0] not in set(some["id"][[0, 17]])}


def test_any_sentence_of_a_review_may_be_drawn() -> None:
    numbered = of_texts(*[" ".join(f"{word} is number {row}." for word in "abcde") for row in range(500)])
    drawn, _ = draw_sentences(numbered, NONE, per_review=2, seed=42)
    shares = drawn["id"].str.partition("#")[2].value_counts(normalize=True)
    assert sorted(shares.index) == list("01234") and shares.between(0.15, 0.25).all()


def test_a_labelled_review_is_no_sentence_and_the_first_of_equal_ones_stays() -> None:
    reviews = of_texts("See it now! Bad.", "I fell asleep.<br />SEE IT: NOW.", "I fell asleep?")
    train = pd.DataFrame({"id": ["train/0"], "text": ["See it, now"], "label": [1]})
    test = pd.DataFrame({"id": ["test/0"], "text": ["Never seen."], "label": [0]})
    drawn, report = draw_sentences(reviews, train, test, per_review=5, seed=1)
    assert drawn[["id", "text"]].to_numpy().tolist() == [["unlabelled/1#0", "I fell asleep."]]
    assert report == {"drawn": 4, "kept": 1, "surplus_copies": 2, "text_of_a_labelled_review": 1}


def test_none_are_drawn_where_none_are_asked_for(unlabelled: pd.DataFrame) -> None:
    drawn, report = draw_sentences(unlabelled.head(20), NONE, per_review=0, seed=1)
    assert report["drawn"] == len(drawn) == 0
    assert drawn.dtypes.astype(str).to_dict() == dict.fromkeys(("id", "text", "key"), "str")


@given(st.lists(TEXTS, max_size=5), st.integers(0, 3), st.integers(0, 99))
def test_what_is_drawn_of_any_texts_is_usable_and_distinct(texts: list[str], per_review: int, seed: int) -> None:
    drawn, report = draw_sentences(of_texts(*texts), NONE, per_review=per_review, seed=seed)
    available = [
        sum(len(s.split()) >= FEWEST_WORDS and why_unusable(s) is None for s in sentences(text)) for text in texts
    ]
    assert report["drawn"] == sum(min(count, per_review) for count in available)
    assert drawn["text"].map(key).is_unique
    for sentence_id, text in zip(drawn["id"], drawn["text"], strict=True):
        row, number = sentence_id.removeprefix("unlabelled/").split("#")
        assert sentences(texts[int(row)])[int(number)] == text == text.strip()


@given(TEXTS)
def test_sentences_leave_out_nothing_but_white_space_and_line_breaks(text: str) -> None:
    kept = "".join("".join(sentences(text)).split())
    assert kept == "".join(text.replace("<br />", " ").split())
