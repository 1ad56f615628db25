"""The data set of new labelled reviews only grows, in order, and a part of it that is not there is reported."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.labelled import append, read_labelled
from pipeline.project.errors import DataError
from pipeline.project.paths import LABELLED_POINTER, LABELLED_REVIEWS


def batch(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"labelled/{text}" for text in texts], "text": texts, "label": 1})


def test_without_any_there_is_an_empty_table_of_reviews(project: Path) -> None:
    table = read_labelled()
    assert table.empty and list(table.columns) == ["id", "text", "label"] and table["label"].dtype == "int64"


def test_batches_come_back_in_the_order_in_which_they_were_appended(project: Path) -> None:
    for key in ("ff", "aa", "bb"):
        append(key, batch(key))
    assert read_labelled()["text"].tolist() == ["ff", "aa", "bb"]


def test_the_same_key_is_appended_once(project: Path) -> None:
    assert append("aa", batch("first")) == append("aa", batch("second"))
    assert read_labelled()["text"].tolist() == ["first"]


def test_a_batch_that_dvc_knows_of_and_is_not_there_is_reported(project: Path) -> None:
    file = append("aa", batch("first"))
    append("bb", batch("second"))
    LABELLED_POINTER.write_text("outs:\n- md5: 0.dir\n  nfiles: 2\n  path: reviews\n")
    assert len(read_labelled()) == 2
    file.unlink()
    with pytest.raises(DataError, match=f"{LABELLED_REVIEWS} holds 1 of the 2 files .* run `dvc checkout"):
        read_labelled()
    LABELLED_POINTER.write_text("<<<<<<< HEAD\n")
    with pytest.raises(DataError, match="is not a pointer of DVC"):
        read_labelled()
