"""What a stage encodes, and with what: reviews that have token ids, and the vocabulary's file."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.project.atomic import read_table
from pipeline.project.errors import DataError
from pipeline.project.paths import REVIEW_COLUMNS, TEXT_COLUMNS, VOCABULARY
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


def read_texts(path: Path, *, labelled: bool) -> "pd.DataFrame":
    """Reads a table of texts with id and, where they are `labelled`, label; raises DataError naming file and row if a
    text has no ids."""
    texts = read_table(path, REVIEW_COLUMNS if labelled else TEXT_COLUMNS)
    for row, text in zip(texts["id"], texts["text"], strict=True):
        if reason := why_unusable(text):
            raise DataError(f"{path}: row {row}: {reason}")
    return texts
