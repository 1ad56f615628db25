"""What is loaded of the embedded sample, which stands for the data set: labelled and unlabelled reviews."""

import pandas as pd

from pipeline.data.sources import load_reviews


def test_unlabelled_reviews_have_no_label_and_ids_that_say_where_they_come_from() -> None:
    tables, info = load_reviews("sample")
    assert {name: list(table.columns) for name, table in tables.items()} == {
        "train": ["id", "text", "label"],
        "test": ["id", "text", "label"],
        "unlabelled": ["id", "text"],
    }
    for name, table in tables.items():
        assert table["id"].str.fullmatch(rf"{name}/\d+").all() and table["id"].is_unique
    assert pd.concat(tables.values())["text"].str.len().max() <= 2000
    assert info["splits"] == {
        "train": {"rows": 2400, "positive": 1200},
        "test": {"rows": 1200, "positive": 600},
        "unlabelled": {"rows": 3000},
    }
