"""Stage `batch`: length-bucketed, right-padded batches of each split."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.project.atomic import read_table, write_json
from pipeline.project.params import load_params
from pipeline.project.paths import BATCHES, BATCHING_REPORT, SPLITS, TOKENS
from pipeline.project.run_command import run_command
from pipeline.text.batching import Batch, classic_padding_share, describe, make_batches, write_batches


def main() -> None:
    """Batches every split and reports the padding."""
    params = load_params()
    report = {}
    for split in SPLITS:
        tokens = read_table(TOKENS / f"{split}.parquet", ("id", "label", "token_ids"))
        batches = make_batches(
            list(tokens["token_ids"]),
            tokens["label"],
            list(tokens["id"]),
            batch_size=params.batch.batch_size,
            # Only training gains from mixed lengths within a pool; elsewhere all rows are one pool.
            pool_batches=params.batch.pool_batches if split == "train" else None,
            seed=params.seed,
        )
        write_batches(BATCHES / split, batches)
        if not batches:  # as long as there are no fresh reviews
            continue
        lengths = tokens["token_ids"].str.len().to_numpy()
        report[split] = describe(batches) | {"classic_padding_share": classic_padding_share(lengths, params.seed)}
        if split == "train":
            report[split] |= distribution(lengths, batches)
    write_json(BATCHING_REPORT, report)


def distribution(lengths: np.ndarray, batches: Sequence[Batch]) -> dict[str, Any]:
    """Returns what a picture of the batches needs.

    Args:
        lengths: <int>[reviews], tokens of each review.
        batches: what was made of them.

    Returns:
        `lengths`, a histogram with its median, and `batch_widths` and `batch_fills`, the tokens a row of each batch,
        narrowest first, and the share of it that is no padding.
    """
    reviews, edges = np.histogram(lengths, bins=64)
    shapes = sorted((batch.token_ids.shape[1], batch.lengths.sum() / batch.token_ids.size) for batch in batches)
    return {
        "lengths": {"median": float(np.median(lengths)), "edges": edges.tolist(), "reviews": reviews.tolist()},
        "batch_widths": [width for width, _ in shapes],
        "batch_fills": [round(float(fill), 4) for _, fill in shapes],
    }


if __name__ == "__main__":
    run_command(main)
