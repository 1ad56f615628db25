"""From raw train and test tables, and new labelled reviews, to train, validation, test and fresh splits that share no
text; and from raw unlabelled reviews to those whose text is in none of them. Two texts are the same where their keys
are: see `copies.key`."""

import hashlib
from typing import TYPE_CHECKING, Any

from pipeline.data.copies import keyed
from pipeline.data.verdicts import Verdict, obeyed
from pipeline.project.errors import UsageError
from pipeline.project.paths import PARAMS_FILE

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NEAR = 120
"""Characters that the keys of near-copies begin with alike: IMDB has 7 of them across train and test."""
MOST_FRESH = 0.5
"""Share of a batch's new reviews that may be held out as fresh, so that a training learns of each batch."""
_SHOWN = 160  # characters


def split_reviews(
    train: "pd.DataFrame",
    test: "pd.DataFrame",
    labelled: "pd.DataFrame",
    *,
    validation_fraction: float,
    fresh_rows: int,
    seed: int,
    verdicts: dict[str, Verdict] | None = None,
) -> tuple[dict[str, "pd.DataFrame"], dict[str, Any]]:
    """Divides raw and new labelled reviews so that no text stands in two splits.

    Test stays whole, with its labels; in the other tables a person's verdicts are obeyed first. From train go, in this
    order, the surplus copies of a text (the first stays) and the reviews whose text also stands in test. Of the rest,
    `validation_fraction` becomes validation, stratified by label. The new labelled reviews that `new_reviews` keeps go
    where `assigned` and `is_fresh` say. Rows keep their order, the new ones last.

    Args:
        train, test, labelled: tables with the columns id, text, label.
        validation_fraction: share of the remaining training reviews, in (0, 1).
        fresh_rows: how many of the newest labelled reviews are held out from training, at most.
        seed: seed of the stratified draw.
        verdicts: of `read_verdicts`.

    Returns:
        The tables `train`, `validation`, `test` and `fresh`, and a report: what was dropped and why, with an example
        each, how many near-copies stay, rows of each split.

    Raises:
        UsageError: `validation_fraction` leaves train or validation without a review of each label.
    """
    import pandas as pd

    verdicts = verdicts or {}
    (train, in_raw), (labelled, in_new) = obeyed(train, verdicts), obeyed(labelled, verdicts)
    train, test, labelled = keyed(train), keyed(test), keyed(labelled)
    surplus = train["key"].duplicated()
    in_test = ~surplus & train["key"].isin(test["key"])
    remaining = train[~surplus & ~in_test]
    in_validation = _stratified(remaining["label"], validation_fraction, seed)
    new, labelled_report = new_reviews(train, test, labelled)
    fresh = is_fresh(new, fresh_rows)
    split = assigned(new, validation_fraction, seed)
    tables = {
        "train": pd.concat([remaining[~in_validation], new[~fresh & (split == "train")]]),
        "validation": pd.concat([remaining[in_validation], new[~fresh & (split == "validation")]]),
        "test": test,
        "fresh": new[fresh],
    }
    kept = pd.concat([remaining, new])
    near = kept[kept["key"].str[:NEAR].isin(test["key"].str[:NEAR])]
    report = {
        "raw_rows": {"train": len(train) + in_raw["dropped"], "test": len(test)},
        "verdicts": {
            "texts": len(verdicts),
            **{name: count + in_new[name] for name, count in in_raw.items()},
        },
        "dropped_from_train": {"surplus_copies": int(surplus.sum()), "text_also_in_test": int(in_test.sum())},
        "texts_with_contradictory_labels": int(train.groupby("key")["label"].nunique().gt(1).sum()),
        "surplus_copies_kept_in_test": int(test["key"].duplicated().sum()),
        "labelled": labelled_report,
        "near_copies": {"first_characters": NEAR, "text_also_in_test": len(near)},
        "examples": [
            *_example("surplus copy", train[surplus], train),
            *_example("text also in test", train[in_test], test),
            *_example("near-copy", near, test, NEAR),
        ],
        "rows": {name: len(table) for name, table in tables.items()},
        "positive": {name: int(table["label"].sum()) for name, table in tables.items()},
    }
    return {name: table.drop(columns="key").reset_index(drop=True) for name, table in tables.items()}, report


def _stratified(label: "pd.Series[int]", validation_fraction: float, seed: int) -> "np.ndarray":
    """Returns which rows become validation, <bool>[rows]."""
    from sklearn.model_selection import train_test_split

    try:
        _, validation = train_test_split(label.index, test_size=validation_fraction, stratify=label, random_state=seed)
    except ValueError as error:
        raise UsageError(
            f"{PARAMS_FILE}: split.validation_fraction {validation_fraction:g} does not leave train and validation a "
            f"review of each label, of {len(label):,} ({error})"
        ) from None
    return label.index.isin(validation)


def new_reviews(
    train: "pd.DataFrame", test: "pd.DataFrame", labelled: "pd.DataFrame"
) -> tuple["pd.DataFrame", dict[str, int]]:
    """Returns the rows of `labelled` whose key stands neither in a raw table nor in an earlier one of them, and a
    report: how many rows there are, are kept, were dropped and why, and how many of those say the opposite of the
    label that stays. The tables have the column key."""
    in_test = labelled["key"].isin(test["key"])
    in_train = ~in_test & labelled["key"].isin(train["key"])
    copies = ~in_test & ~in_train & labelled["key"].duplicated()
    new = labelled[~in_test & ~in_train & ~copies]
    return new, {
        "rows": len(labelled),
        "kept": len(new),
        "text_also_in_test": int(in_test.sum()),
        "text_also_in_train": int(in_train.sum()),
        "surplus_copies": int(copies.sum()),
        "contradictory": int(contradictory(labelled, train, test).sum()),
    }


def unlabelled_reviews(
    unlabelled: "pd.DataFrame", train: "pd.DataFrame", test: "pd.DataFrame", labelled: "pd.DataFrame"
) -> tuple["pd.DataFrame", dict[str, int]]:
    """Returns the unlabelled reviews that share no text with each other or with a labelled one.

    Go, in this order, the surplus copies of a text (the first stays) and the reviews whose text also stands in raw
    test, in raw train or among the new labelled ones: whatever split those went to, and though a verdict dropped them.

    Args:
        unlabelled: a table with the columns id, text.
        train, test, labelled: the raw tables and the new labelled reviews, as `split_reviews` takes them.

    Returns:
        The rows that stay, in their order, with the columns id, text, key; and a report: how many rows there are, are
        kept, were dropped and why, and how many of those that stay are near-copies of a test review.
    """
    unlabelled, train, test, labelled = (keyed(table) for table in (unlabelled, train, test, labelled))
    surplus = unlabelled["key"].duplicated()
    in_test = ~surplus & unlabelled["key"].isin(test["key"])
    in_train = ~surplus & ~in_test & unlabelled["key"].isin(train["key"])
    in_labelled = ~surplus & ~in_test & ~in_train & unlabelled["key"].isin(labelled["key"])
    kept = unlabelled[~surplus & ~in_test & ~in_train & ~in_labelled].reset_index(drop=True)
    return kept, {
        "rows": len(unlabelled),
        "kept": len(kept),
        "surplus_copies": int(surplus.sum()),
        "text_also_in_test": int(in_test.sum()),
        "text_also_in_train": int(in_train.sum()),
        "text_also_in_labelled": int(in_labelled.sum()),
        "near_copies_of_test": int(kept["key"].str[:NEAR].isin(test["key"].str[:NEAR]).sum()),
    }


def contradictory(labelled: "pd.DataFrame", *known: "pd.DataFrame") -> "pd.Series[bool]":
    """Returns which rows of `labelled` have another label than the first review of the same key has, in the tables
    `known` or in `labelled` itself."""
    import pandas as pd

    first = pd.concat([*known, labelled]).drop_duplicates("key").set_index("key")["label"]
    return labelled["label"] != labelled["key"].map(first)


def assigned(new: "pd.DataFrame", validation_fraction: float, seed: int) -> "np.ndarray":
    """Returns for each new review whether it goes to `train` or to `validation`, the latter with a probability of
    `validation_fraction`, by a hash of the seed and its key, so that new reviews move no other from split to split."""
    import numpy as np

    held_out = [fraction(f"{seed}\t{key}") < validation_fraction for key in new["key"]]
    return np.where(np.array(held_out, bool), "validation", "train")


def is_fresh(new: "pd.DataFrame", fresh_rows: int) -> "pd.Series[bool]":
    """Returns which of the new reviews, in order of arrival, are held out from training for now.

    They are the newest `fresh_rows` of those that may be: in each batch MOST_FRESH, drawn by a hash of their keys. So
    each batch teaches something, a review that was once trained on is never held out again as others come, and no seed
    decides which are.
    """
    batch = new["id"].str.rsplit("/", n=1).str[0]
    drawn = new["key"].map(fraction).groupby(batch).rank(method="first")
    candidates = drawn <= MOST_FRESH * new.groupby(batch)["key"].transform("size")
    return candidates & (candidates.sum() - candidates.cumsum() < fresh_rows)


def fraction(text: str) -> float:
    """Returns a number in [0, 1) that the text decides."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _example(
    kind: str, found: "pd.DataFrame", others: "pd.DataFrame", characters: int | None = None
) -> list[dict[str, str]]:
    """Returns ids and beginnings of the first review found and of what it is a copy of: the first of `others` whose key
    begins like its with this many characters, without a number with all; nothing where none was found."""
    if found.empty:
        return []
    review = found.iloc[0]
    other = others[others["key"].str[:characters] == review["key"][:characters]].iloc[0]
    texts = {"text": review["text"][:_SHOWN], "copied_text": other["text"][:_SHOWN]}
    return [{"kind": kind, "id": review["id"], "copy_of": other["id"], **texts}]
