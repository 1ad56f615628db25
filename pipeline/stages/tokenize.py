"""Stage `tokenize`: encodes the texts of every split with the vocabulary and truncates long ones."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.project.atomic import atomic_write, read_json, write_json
from pipeline.project.errors import DataError
from pipeline.project.params import load_params
from pipeline.project.paths import (
    SPLIT_TABLES,
    SPLITS,
    TAUGHT,
    TOKENIZER_REPORT,
    TOKENS,
    VALIDATION_REPORT,
)
from pipeline.project.run_command import run_command
from pipeline.served_model.tokenizer import truncate
from pipeline.text.encoding import load_tokenizer, read_texts
from pipeline.text.token_arrays import write_tokens


def main() -> None:
    """Encodes the texts of every split and reports what truncation does to them."""
    params = load_params()
    require_valid_data(VALIDATION_REPORT)

    tokenizer = load_tokenizer()
    reports = {}
    with atomic_write(TOKENS) as folder:
        folder.mkdir()
        for split in dict.fromkeys((*SPLITS, *TAUGHT)):
            texts = read_texts(SPLIT_TABLES / f"{split}.parquet", labelled=split in SPLITS)
            whole = tokenizer.encode_batch(texts["text"])
            lengths = np.array([len(ids) for ids in whole], np.int64)
            write_tokens(
                folder / split,
                [truncate(ids, params.tokenize.max_tokens) for ids in whole],
                texts["id"].tolist(),
                texts["label"].tolist() if split in SPLITS else None,
                vocabulary_size=tokenizer.vocabulary_size,
            )
            if len(lengths):
                reports[split] = length_report(lengths, params.tokenize.max_tokens)
    write_json(
        TOKENIZER_REPORT,
        {"vocabulary_size": tokenizer.vocabulary_size, "max_tokens": params.tokenize.max_tokens, "splits": reports},
    )


def require_valid_data(report: Path) -> None:
    """Raises DataError unless the validation report says that the data met every critical expectation."""
    content = read_json(report)
    if not (isinstance(content, dict) and content.get("success") is True):
        raise DataError(f"{report} says that the data broke a critical expectation; mend the data and validate again")


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
