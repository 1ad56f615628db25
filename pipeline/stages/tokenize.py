"""Stage `tokenize`: builds the subword vocabulary from the raw training texts and encodes every split."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.artifacts import (
    RAW,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    SPLITS,
    TOKENIZER,
    TOKENIZER_REPORT,
    TOKENS,
    VALIDATION_REPORT,
    VOCABULARY,
    read_json,
    read_table,
    write_json,
    write_table,
    written_whole,
)
from pipeline.errors import DataError, run_command
from pipeline.params import load_params
from pipeline.subwords import SubwordTokenizer, UnencodableText, refuse_unencodable, truncate
from pipeline.vocabulary import build_vocabulary


def main() -> None:
    params = load_params()
    require_valid_data(VALIDATION_REPORT)

    raw = read_reviews(RAW / "train.parquet")
    tokenizer = SubwordTokenizer(build_vocabulary(raw["text"], params.tokenize.vocabulary_size))
    with written_whole(TOKENIZER) as folder:
        folder.mkdir()
        tokenizer.save(folder / VOCABULARY.name)

    reports = {}
    with written_whole(TOKENS) as folder:
        folder.mkdir()
        for split in SPLITS:
            reviews = read_reviews(SPLIT_TABLES / f"{split}.parquet")
            encoded = tokenizer.encode_batch(reviews["text"])
            kept = pd.Series([truncate(ids, params.tokenize.max_tokens) for ids in encoded])
            write_table(folder / f"{split}.parquet", reviews[["id", "label"]].assign(token_ids=kept))
            reports[split] = length_report(np.array([len(ids) for ids in encoded]), params.tokenize.max_tokens)
    write_json(
        TOKENIZER_REPORT,
        {"vocabulary_size": tokenizer.vocabulary_size, "max_tokens": params.tokenize.max_tokens, "splits": reports},
    )


def require_valid_data(report: Path) -> None:
    """Raises DataError unless the validation report says that the data met every critical expectation."""
    content = read_json(report)
    if not (isinstance(content, dict) and content.get("success") is True):
        raise DataError(f"{report} says that the data broke a critical expectation; mend the data and validate again")


def read_reviews(path: Path) -> pd.DataFrame:
    """Reads a table of reviews; raises DataError naming file and row if a text has no ids."""
    reviews = read_table(path, REVIEW_COLUMNS)
    for row, text in zip(reviews["id"], reviews["text"], strict=True):
        try:
            refuse_unencodable(text)
        except UnencodableText as error:
            raise DataError(f"{path}: row {row}: {error}") from None
    return reviews


def length_report(lengths: NDArray[np.int64], max_tokens: int) -> dict[str, int | float]:
    """Returns what truncation does to reviews of `lengths` tokens, int[rows]: how many tokens it keeps, how many
    reviews it cuts, and how long reviews are before it."""
    truncated = int((lengths > max_tokens).sum())
    return {
        "rows": len(lengths),
        "tokens": int(np.minimum(lengths, max_tokens).sum()),
        "truncated": truncated,
        "truncated_share": round(truncated / len(lengths), 4),
        "longest": int(lengths.max()),
        "mean_length": round(float(lengths.mean()), 1),
        "median_length": float(np.median(lengths)),
    }


if __name__ == "__main__":
    run_command(main)
