"""Stage `batch`: the plan by which training draws length-bucketed batches, and padded batches for validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.project.atomic import atomic_write, write_json
from pipeline.project.params import load_params
from pipeline.project.paths import BATCHES, BATCHING_REPORT, TAUGHT, TOKENS, TRAINING_PLAN
from pipeline.project.run_command import run_command
from pipeline.text.batching import (
    Plan,
    classic_padding_share,
    describe,
    make_batches,
    read_plan,
    write_batches,
    write_plan,
)
from pipeline.text.token_arrays import read_tokens

EPOCHS = 5
"""Of which the report gives the mean."""


def main() -> None:
    """Plans the training batches, pads those of validation, and reports the padding."""
    params = load_params()
    batching = {"batch_size": params.batch.batch_size, "seed": params.seed}
    tokens = {texts: read_tokens(TOKENS / texts) for texts in (*TAUGHT, "validation")}
    with atomic_write(TRAINING_PLAN) as folder:
        folder.mkdir()
        lengths = {texts: tokens[texts].lengths for texts in TAUGHT}
        write_plan(folder, lengths, pool_batches=params.batch.pool_batches, **batching)
    report = {}
    for name, texts in (("train", TAUGHT[:1]), ("taught", TAUGHT)):
        plan = read_plan(TRAINING_PLAN, texts)
        drawn = [plan.lengths[rows] for rows in plan.epoch(1)]
        report[name] = describe(drawn) | distribution(plan.lengths, drawn) | mean_padding(plan)
        report[name]["classic_padding_share"] = classic_padding_share(plan.lengths, params.seed)
    validation = tokens["validation"]
    assert validation.label is not None
    # Only training gains from mixed lengths within a pool; here all rows are one pool.
    batches = make_batches(validation, validation.label, validation.id.tolist(), pool_batches=None, **batching)
    write_batches(BATCHES / "validation", batches)
    report["validation"] = describe([batch.lengths for batch in batches])
    report["validation"]["classic_padding_share"] = classic_padding_share(validation.lengths, params.seed)
    write_json(BATCHING_REPORT, report)


def mean_padding(plan: Plan) -> dict[str, Any]:
    """Returns the mean padding share of the first EPOCHS epochs."""
    epochs = (plan.epoch(number) for number in range(1, EPOCHS + 1))
    shares = [describe([plan.lengths[rows] for rows in batches])["padding_share"] for batches in epochs]
    return {"epochs": EPOCHS, "mean_padding_share": round(float(np.mean(shares)), 6)}


def distribution(lengths: NDArray[np.int64], batches: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Returns what a picture of the batches needs.

    Args:
        lengths: <int>[texts], tokens of each text.
        batches: <int>[rows] each, the lengths of the rows of each batch.

    Returns:
        `lengths`, a histogram with its median, and `batch_widths` and `batch_fills`, the tokens a row of each batch,
        narrowest first, and the share of it that is no padding.
    """
    texts, edges = np.histogram(lengths, bins=64)
    shapes = sorted((int(batch.max()), float(batch.mean() / batch.max())) for batch in batches)
    return {
        "lengths": {"median": float(np.median(lengths)), "edges": edges.tolist(), "reviews": texts.tolist()},
        "batch_widths": [width for width, _ in shapes],
        "batch_fills": [round(fill, 4) for _, fill in shapes],
    }


if __name__ == "__main__":
    run_command(main)
