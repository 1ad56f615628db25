"""From reviews to token ids: the vocabulary's file, reviews that can be encoded, and the cut of the long ones."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.project.atomic import read_table
from pipeline.project.errors import DataError
from pipeline.project.paths import REVIEW_COLUMNS, VOCABULARY
from pipeline.served_model.tokenizer import SubwordTokenizer, VocabularyError, truncate, why_unusable

if TYPE_CHECKING:
    import pandas as pd


def load_tokenizer(path: Path = VOCABULARY) -> SubwordTokenizer:
    """Reads the vocabulary file; raises DataError if it is missing, truncated, changed or something else."""
    try:
        return SubwordTokenizer.load(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro` to make it") from None
    except VocabularyError as error:
        raise DataError(f"{error}; remove it and run `dvc repro` to make it anew") from None


def read_reviews(path: Path) -> "pd.DataFrame":
    """Reads a table of reviews; raises DataError naming file and row if a text has no ids."""
    reviews = read_table(path, REVIEW_COLUMNS)
    for row, text in zip(reviews["id"], reviews["text"], strict=True):
        if reason := why_unusable(text):
            raise DataError(f"{path}: row {row}: {reason}")
    return reviews


def encode(
    tokenizer: SubwordTokenizer, texts: Iterable[str], max_tokens: int
) -> tuple[list[NDArray[np.int32]], NDArray[np.int64]]:
    """Encodes reviews and cuts the long ones, as the served model does.

    Returns:
        The token ids of each, int32[1 to max_tokens]; and their lengths before the cut, <int64>[rows].
    """
    whole = tokenizer.encode_batch(texts)
    return [truncate(ids, max_tokens) for ids in whole], np.array([len(ids) for ids in whole], np.int64)
