"""From raw train and test tables to train, validation and test splits that share no text."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def split_reviews(
    train: "pd.DataFrame", test: "pd.DataFrame", *, validation_fraction: float, seed: int
) -> tuple[dict[str, "pd.DataFrame"], dict[str, Any]]:
    """Divides raw reviews so that no text stands in two splits.

    Test stays whole. From train go, in this order, the surplus copies of a text (the first stays) and the reviews
    whose text also stands in test. Of the rest, `validation_fraction` becomes validation, stratified by label;
    since every remaining text is unique, grouping by text needs no more. Rows keep their raw order.

    Args:
        train, test: tables with the columns id, text, label.
        validation_fraction: share of the remaining training reviews, in (0, 1).
        seed: seed of the stratified draw.

    Returns:
        The tables `train`, `validation` and `test`, and a report: what was dropped and why, rows of each split.
    """
    from sklearn.model_selection import train_test_split

    surplus = train["text"].duplicated()
    contradictory = train.groupby("text")["label"].nunique().gt(1).sum()
    in_test = ~surplus & train["text"].isin(test["text"])
    kept = train[~surplus & ~in_test]
    train_rows, validation_rows = train_test_split(
        kept.index, test_size=validation_fraction, stratify=kept["label"], random_state=seed
    )
    tables = {
        "train": kept.loc[sorted(train_rows)].reset_index(drop=True),
        "validation": kept.loc[sorted(validation_rows)].reset_index(drop=True),
        "test": test.reset_index(drop=True),
    }
    report = {
        "raw_rows": {"train": len(train), "test": len(test)},
        "dropped_from_train": {"surplus_copies": int(surplus.sum()), "text_also_in_test": int(in_test.sum())},
        "texts_with_contradictory_labels": int(contradictory),
        "surplus_copies_kept_in_test": int(test["text"].duplicated().sum()),
        "rows": {split: len(table) for split, table in tables.items()},
        "positive": {split: int(table["label"].sum()) for split, table in tables.items()},
    }
    return tables, report
