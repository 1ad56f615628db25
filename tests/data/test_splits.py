"""Splits share no text, lose nothing silently, and come out the same from the same seed."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.copies import key
from pipeline.data.sources import UNLABELLED_SAMPLE
from pipeline.data.splits import split_reviews, unlabelled_reviews
from pipeline.project.errors import UsageError

NONE = pd.DataFrame({"id": [], "text": [], "label": []}).astype({"id": str, "text": str, "label": "int64"})


def divide(
    train: pd.DataFrame, test: pd.DataFrame, seed: int = 42, labelled: pd.DataFrame = NONE, fresh_rows: int = 0
) -> tuple[dict[str, pd.DataFrame], dict]:
    return split_reviews(train, test, labelled, validation_fraction=0.1, fresh_rows=fresh_rows, seed=seed)


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
    shouted = fresh.head(1).assign(text=fresh["text"].iloc[0].upper() + " <BR/>!!")
    copies = pd.concat([fresh, shouted, train.head(2), test.head(4)], ignore_index=True)
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


def test_copies_are_found_whatever_their_case_markup_spacing_and_punctuation(raw) -> None:
    train, test = raw
    text = test["text"].iloc[0]
    assert "<br />" in "".join(test["text"])
    copies = [text.replace("<br />", "\n"), f"\ufeff{text.lower()} ", text.replace(".", " …"), text.replace("i", "ｉ")]
    leaked = pd.DataFrame({"id": [f"train/c{row}" for row in range(4)], "text": copies, "label": 1})
    before, after = (
        divide(table, test)[1]["dropped_from_train"] for table in (train, pd.concat([train, leaked], ignore_index=True))
    )
    assert sum(after.values()) == sum(before.values()) + 4


def test_what_is_dropped_is_shown_by_an_example_and_near_copies_are_counted(raw) -> None:
    train, test = raw
    review = test["text"].str.len().idxmax()
    near = test.loc[[review]].assign(id="train/near", text=lambda table: table["text"].str[:400] + " And so on.")
    copy = train.head(1).assign(id="train/copy")
    spoilt = pd.concat([train.head(1), copy, near, train.tail(-1)], ignore_index=True)
    before, after = (divide(table, test)[1] for table in (train, spoilt))
    assert after["near_copies"]["text_also_in_test"] == before["near_copies"]["text_also_in_test"] + 1
    shown = {example["kind"]: (example["id"], example["copy_of"]) for example in after["examples"]}
    assert shown["surplus copy"] == ("train/copy", train["id"].iloc[0])
    assert shown["near-copy"] == ("train/near", test["id"][review])


def test_what_only_looks_alike_is_no_copy() -> None:
    """Rows that a destructive normalization takes for one: figures, words of symbols alone, other scripts' signs."""
    texts = [
        "1|2|300$",
        "1|2|400$",
        "7/10",
        "8/10",
        ":-(",
        ":-)",
        "😀",
        "😡",
        "की",
        "का",
        "café",
        "cafe",
        "not good",
        "good",
    ]
    assert len({key(text) for text in texts}) == len(texts)


@given(st.text())
def test_a_key_is_the_key_of_itself(text: str) -> None:
    assert key(key(text)) == key(text)
    assert key(f" {text.upper()} ") == key(text.upper())
    assert bool(key(text)) == bool(text.strip())


def labelled_batches(reviews: pd.DataFrame, sizes: list[int]) -> pd.DataFrame:
    names = [f"labelled/{batch}/{row}" for batch, size in enumerate(sizes) for row in range(size)]
    return reviews.tail(len(names)).reset_index(drop=True).assign(id=names)


def test_the_newest_reviews_are_held_out_as_fresh_and_graduate_as_others_come(raw) -> None:
    train, test = raw
    sizes = [60, 7, 100, 40]
    labelled = labelled_batches(train, sizes)
    known = train.head(1500)
    earlier: set[str] = set()
    for count in (60, 67, 167, 207):
        some = labelled.head(count)
        tables, report = divide(known, test, labelled=some, fresh_rows=50)
        fresh, rest = set(tables["fresh"]["id"]), set(pd.concat([tables["train"], tables["validation"]])["id"])
        assert not fresh & rest and len((fresh | rest) & set(some["id"])) == report["labelled"]["kept"]
        assert report["rows"]["fresh"] == len(fresh) <= 50
        for batch, size in enumerate(sizes):  # at most half of each, so that each teaches something
            assert sum(name.startswith(f"labelled/{batch}/") for name in fresh) <= size / 2
        assert not fresh & earlier, "what was trained on once is never held out again"
        earlier |= rest
    assert len(fresh) == 50 and "labelled/0/" not in "".join(fresh)
    again, _ = divide(known, test, seed=7, labelled=labelled, fresh_rows=50)
    assert set(again["fresh"]["id"]) == fresh


def test_a_validation_share_that_leaves_a_side_without_a_label_is_a_usage_error(raw) -> None:
    with pytest.raises(UsageError, match=r"params\.yaml: split\.validation_fraction 0\.0001 does not leave"):
        split_reviews(*raw, NONE, validation_fraction=0.0001, fresh_rows=0, seed=1)


@pytest.fixture
def unlabelled() -> pd.DataFrame:
    return pd.read_parquet(UNLABELLED_SAMPLE)


def test_no_unlabelled_review_stands_twice_or_in_a_split(raw, unlabelled) -> None:
    train, test = raw
    labelled = labelled_batches(train, [30])
    known = train.head(1500)
    with_label = pd.concat([known.head(3), test.head(4), labelled.head(5)])
    shouted = with_label["text"].str.upper() + " <br />!!"
    copies = pd.DataFrame({"text": pd.concat([shouted, unlabelled["text"].head(6)])})
    spoilt = pd.concat([unlabelled, copies.assign(id=[f"unlabelled/c{row}" for row in range(len(copies))])])

    kept, report = unlabelled_reviews(spoilt, known, test, labelled)
    before = unlabelled_reviews(unlabelled, known, test, labelled)[1]

    found = {name: count - before[name] for name, count in report.items()}
    assert found == {
        "rows": 18,
        "kept": 0,
        "surplus_copies": 6,
        "text_also_in_test": 4,
        "text_also_in_train": 3,
        "text_also_in_labelled": 5,
        "near_copies_of_test": 0,
    }
    assert not kept["id"].str.startswith("unlabelled/c").any()
    assert kept["id"].tolist() == [name for name in unlabelled["id"] if name in set(kept["id"])]
    tables, _ = divide(known, test, labelled=labelled, fresh_rows=10)
    for table in tables.values():
        assert len(table) and not set(kept["key"]) & set(table["text"].map(key))
    assert kept["key"].is_unique
    assert report["rows"] == report["kept"] + sum(
        count for name, count in report.items() if name.startswith(("surplus", "text_"))
    )


@given(st.lists(st.sampled_from(["a b", "A, b!", "c", "d", "e<br />"]), max_size=12))
def test_what_stays_of_unlabelled_texts_is_the_first_of_each_that_no_labelled_one_has(texts: list[str]) -> None:
    table = pd.DataFrame({"id": [f"unlabelled/{row}" for row in range(len(texts))], "text": texts}, dtype="str")
    train, test = (NONE.reindex(range(1)).assign(text=text) for text in ("C.", "e"))
    kept, _ = unlabelled_reviews(table, train, test, NONE)
    first = {key(text): f"unlabelled/{row}" for row, text in reversed(list(enumerate(texts)))}
    assert dict(zip(kept["key"], kept["id"], strict=True)) == {k: v for k, v in first.items() if k not in ("c", "e")}
