"""Stage `batch`: length-bucketed, right-padded batches of each split."""

import numpy as np

from pipeline.project.atomic import read_table, write_json
from pipeline.project.params import load_params
from pipeline.project.paths import BATCHES, BATCHING_PICTURE, BATCHING_REPORT, SPLITS, TOKENS
from pipeline.project.run_command import run_command
from pipeline.reporting import plots
from pipeline.text.batching import classic_padding_share, describe, make_batches, write_batches


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
        lengths = tokens["token_ids"].str.len().to_numpy()
        report[split] = describe(batches) | {"classic_padding_share": classic_padding_share(lengths, params.seed)}
        if split == "train":
            plots.batching(
                BATCHING_PICTURE,
                lengths=lengths,
                batch_widths=np.array([batch.token_ids.shape[1] for batch in batches]),
                batch_rows=np.array([len(batch.id) for batch in batches]),
                batch_real_tokens=np.array([batch.lengths.sum() for batch in batches]),
            )
    write_json(BATCHING_REPORT, report)


if __name__ == "__main__":
    run_command(main)
