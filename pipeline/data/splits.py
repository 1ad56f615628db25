"""From raw train and test tables, and new labelled reviews, to train, validation and test splits that share no text."""

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def split_reviews(
    train: "pd.DataFrame", test: "pd.DataFrame", labelled: "pd.DataFrame", *, validation_fraction: float, seed: int
) -> tuple[dict[str, "pd.DataFrame"], dict[str, Any]]:
    """Divides raw and new labelled reviews so that no text stands in two splits.

    Test stays whole. From train go, in this order, the surplus copies of a text (the first stays) and the reviews
    whose text also stands in test. Of the rest, `validation_fraction` becomes validation, stratified by label. Of the
    new labelled reviews those go that `new_reviews` drops; each of the rest goes to validation with a probability of
    `validation_fraction`, by a hash of the seed and its text, so that new reviews move no other from split to split.
    Rows keep their order, the new ones last.

    Args:
        train, test, labelled: tables with the columns id, text, label.
        validation_fraction: share of the remaining training reviews, in (0, 1).
        seed: seed of the stratified draw.

    Returns:
        The tables `train`, `validation` and `test`, and a report: what was dropped and why, rows of each split.
    """
    import numpy as np
    import pandas as pd
    from sklearn.model_selection import train_test_split

    surplus = train["text"].duplicated()
    in_test = ~surplus & train["text"].isin(test["text"])
    remaining = train[~surplus & ~in_test]
    train_rows, validation_rows = train_test_split(
        remaining.index, test_size=validation_fraction, stratify=remaining["label"], random_state=seed
    )
    new, labelled_report = new_reviews(train, test, labelled)
    held_out = np.array([_fraction(text, seed) < validation_fraction for text in new["text"]], bool)
    tables = {
        "train": pd.concat([remaining.loc[sorted(train_rows)], new[~held_out]], ignore_index=True),
        "validation": pd.concat([remaining.loc[sorted(validation_rows)], new[held_out]], ignore_index=True),
        "test": test.reset_index(drop=True),
    }
    report = {
        "raw_rows": {"train": len(train), "test": len(test)},
        "dropped_from_train": {"surplus_copies": int(surplus.sum()), "text_also_in_test": int(in_test.sum())},
        "texts_with_contradictory_labels": int(train.groupby("text")["label"].nunique().gt(1).sum()),
        "surplus_copies_kept_in_test": int(test["text"].duplicated().sum()),
        "labelled": labelled_report,
        "rows": {split: len(table) for split, table in tables.items()},
        "positive": {split: int(table["label"].sum()) for split, table in tables.items()},
    }
    return tables, report


def new_reviews(
    train: "pd.DataFrame", test: "pd.DataFrame", labelled: "pd.DataFrame"
) -> tuple["pd.DataFrame", dict[str, int]]:
    """Returns the rows of `labelled` whose text stands neither in a raw table nor in an earlier one of them, and a
    report: how many rows there are, are kept, were dropped and why, and how many of those say the opposite of the
    label that stays."""
    in_test = labelled["text"].isin(test["text"])
    in_train = ~in_test & labelled["text"].isin(train["text"])
    copies = ~in_test & ~in_train & labelled["text"].duplicated()
    new = labelled[~in_test & ~in_train & ~copies]
    return new, {
        "rows": len(labelled),
        "kept": len(new),
        "text_also_in_test": int(in_test.sum()),
        "text_also_in_train": int(in_train.sum()),
        "surplus_copies": int(copies.sum()),
        "contradictory": int(contradictory(labelled, train, test).sum()),
    }


def contradictory(labelled: "pd.DataFrame", *known: "pd.DataFrame") -> "pd.Series[bool]":
    """Returns which rows of `labelled` have another label than the first review of the same text has, in the tables
    `known` or in `labelled` itself."""
    import pandas as pd

    first = pd.concat([*known, labelled]).drop_duplicates("text").set_index("text")["label"]
    return labelled["label"] != labelled["text"].map(first)


def _fraction(text: str, seed: int) -> float:
    """Returns a number in [0, 1) that seed and text decide."""
    digest = hashlib.sha256(f"{seed}\t{text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
