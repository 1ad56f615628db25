"""What a stage encodes, and with what: reviews that have token ids, and the vocabulary's file."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.project.atomic import read_table
from pipeline.project.errors import DataError
from pipeline.project.paths import REVIEW_COLUMNS, VOCABULARY
from pipeline.served_model.tokenizer import SubwordTokenizer, VocabularyError, why_unusable

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
