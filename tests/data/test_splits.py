"""Splits share no text, lose nothing silently, and come out the same from the same seed."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import split_reviews

NONE = pd.DataFrame({"id": [], "text": [], "label": []}).astype({"id": str, "text": str, "label": "int64"})


def divide(
    train: pd.DataFrame, test: pd.DataFrame, seed: int = 42, labelled: pd.DataFrame = NONE
) -> tuple[dict[str, pd.DataFrame], dict]:
    return split_reviews(train, test, labelled, validation_fraction=0.1, seed=seed)


@pytest.fixture
def raw(reviews: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    in_train = reviews["id"].str.startswith("train/")
    return reviews[in_train].reset_index(drop=True), reviews[~in_train].reset_index(drop=True)


def test_surplus_copies_and_test_texts_leave_train_and_are_counted(raw) -> None:
    train, test = raw
    clean = divide(train, test)[1]
    copied = pd.concat([train, train.head(3).assign(id=["train/a", "train/b", "train/c"])], ignore_index=True)
    leaked = pd.concat([copied, test.head(2).assign(id=["train/d", "train/e"])], ignore_index=True)

    tables, report = divide(leaked, test)

    before, after = clean["dropped_from_train"], report["dropped_from_train"]
    assert after["surplus_copies"] == before["surplus_copies"] + 3
    assert after["text_also_in_test"] == before["text_also_in_test"] + 2
    assert report["rows"]["train"] + report["rows"]["validation"] == len(leaked) - sum(after.values())
    assert not tables["train"]["id"].isin(["train/a", "train/b", "train/c", "train/d", "train/e"]).any()


def test_test_stays_whole_with_its_copies_reported(raw) -> None:
    train, test = raw
    doubled = pd.concat([test, test.head(4)], ignore_index=True)
    tables, report = divide(train, doubled)
    pd.testing.assert_frame_equal(tables["test"], doubled)
    assert report["surplus_copies_kept_in_test"] == 4 + test["text"].duplicated().sum()


def test_validation_is_stratified_and_shares_no_text(raw) -> None:
    tables, report = divide(*raw)
    texts = {split: set(table["text"]) for split, table in tables.items()}
    assert not texts["train"] & texts["validation"]
    assert not (texts["train"] | texts["validation"]) & texts["test"]
    assert abs(tables["validation"]["label"].mean() - tables["train"]["label"].mean()) < 0.01
    assert report["rows"]["validation"] == pytest.approx(0.1 * len(raw[0]), abs=2)


def test_the_seed_decides_the_split(raw) -> None:
    first, again, other = (divide(*raw, seed=seed)[0]["validation"]["id"].tolist() for seed in (1, 1, 2))
    assert first == again != other


@given(st.lists(st.sampled_from("abcdefghijklmnopqrst"), min_size=40, max_size=80), st.integers(0, 99))
def test_no_text_is_ever_in_two_splits(texts: list[str], seed: int) -> None:
    unique = [f"filler {number}" for number in range(40)]
    train = pd.DataFrame({"text": texts + unique}).assign(label=lambda t: t.index % 2, id=lambda t: t.index.astype(str))
    test = train.head(5)
    tables, _ = divide(train, test, seed)
    everything = pd.concat([tables["train"], tables["validation"], tables["test"].drop_duplicates("text")])
    assert everything["text"].is_unique
    assert set(everything["text"]) == set(train["text"])


def test_new_labelled_reviews_join_train_and_validation_and_move_no_other(raw) -> None:
    train, test = raw
    before, _ = divide(train.head(1500), test)
    first, both = train.iloc[1500:2000], train.iloc[1500:]
    after_one, _ = divide(train.head(1500), test, labelled=first)
    after_both, report = divide(train.head(1500), test, labelled=both)
    for split in ("train", "validation"):
        assert after_one[split]["id"].tolist()[: len(before[split])] == before[split]["id"].tolist()
        assert set(after_one[split]["id"]) <= set(after_both[split]["id"])
    added = report["rows"]["validation"] - len(before["validation"])
    assert 0.05 * len(both) < added < 0.15 * len(both)
    pd.testing.assert_frame_equal(after_both["test"], before["test"])
    assert report["labelled"]["kept"] == report["rows"]["train"] + report["rows"]["validation"] - sum(
        len(before[split]) for split in ("train", "validation")
    )


def test_new_reviews_that_are_known_are_dropped_and_counted(raw) -> None:
    train, test = raw
    fresh = train.iloc[-3:]
    copies = pd.concat([fresh, fresh.head(1), train.head(2), test.head(4)], ignore_index=True)
    copies["id"] = [f"labelled/{row}" for row in range(len(copies))]
    copies.loc[3:4, "label"] = 1 - copies.loc[3:4, "label"]

    tables, report = divide(train.iloc[:-3], test, labelled=copies)

    assert report["labelled"] == {
        "rows": 10,
        "kept": 3,
        "text_also_in_test": 4,
        "text_also_in_train": 2,
        "surplus_copies": 1,
        "contradictory": 2,
    }
    joined = pd.concat([tables["train"], tables["validation"]])
    assert set(joined["id"][joined["id"].str.startswith("labelled/")]) == {"labelled/0", "labelled/1", "labelled/2"}
