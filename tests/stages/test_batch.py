"""What training draws is planned for all texts that can be learnt from, and validation is padded once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.project.atomic import read_json
from pipeline.project.params import load_params
from pipeline.project.paths import BATCHING_REPORT, TAUGHT, TOKENS, TRAINING_PLAN, VALIDATION_BATCHES
from pipeline.stages import batch
from pipeline.text.batching import classic_padding_share, describe, read_batches, read_plan
from pipeline.text.token_arrays import write_tokens

COUNT = {"train": 700, "unlabelled": 900, "sentences": 400, "validation": 130}


@pytest.fixture
def tokens(project: Path, reviews: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Rows as long as real reviews, in a project that stands where `batch` begins."""
    lengths = np.clip(reviews["text"].str.len().to_numpy() // 5, 1, 1024)
    made = {}
    for seed, (texts, count) in enumerate(COUNT.items()):
        drawn = np.random.default_rng(seed).choice(lengths, count) if texts != "sentences" else np.full(count, 9)
        made[texts] = [np.full(length, 7, np.int32) for length in drawn]
        label = None if texts in TAUGHT[1:] else [row % 2 for row in range(count)]
        ids = [f"{texts}/{row}" for row in range(count)]
        write_tokens(TOKENS / texts, made[texts], ids, label, vocabulary_size=1000)
    return made


def test_the_plan_is_of_the_texts_that_can_be_learnt_from_and_the_report_is_its(
    tokens: dict[str, list[np.ndarray]],
) -> None:
    batch.main()

    params, report = load_params(), read_json(BATCHING_REPORT)
    for name, texts in (("train", TAUGHT[:1]), ("taught", TAUGHT)):
        plan = read_plan(TRAINING_PLAN, texts)
        assert plan.lengths.tolist() == [len(row) for one in texts for row in tokens[one]]
        assert (plan.batch_size, plan.pool_batches) == (params.batch.batch_size, params.batch.pool_batches)
        epochs = [describe([plan.lengths[rows] for rows in plan.epoch(number)]) for number in (1, 2, 3, 4, 5)]
        assert report[name].items() >= epochs[0].items()
        assert report[name]["mean_padding_share"] == pytest.approx(
            np.mean([epoch["padding_share"] for epoch in epochs]), abs=1e-6
        )
        assert report[name]["classic_padding_share"] == classic_padding_share(plan.lengths, params.seed)
        assert report[name]["padding_share"] < report[name]["classic_padding_share"] / 3
        assert sum(report[name]["lengths"]["reviews"]) == len(plan.lengths)
        assert report[name]["batch_widths"] == sorted(report[name]["batch_widths"])
        assert len(report[name]["batch_fills"]) == report[name]["batches"] == plan.steps


def test_validation_is_padded_in_batches_that_hold_every_review_once(tokens: dict[str, list[np.ndarray]]) -> None:
    batch.main()

    batches = read_batches(VALIDATION_BATCHES)
    assert sorted(one for each in batches for one in each.id) == sorted(f"validation/{row}" for row in range(130))
    for each in batches:
        for one, label, length in zip(each.id, each.label, each.lengths, strict=True):
            row = int(one.removeprefix("validation/"))
            assert (label, length) == (row % 2, len(tokens["validation"][row]))
    report = read_json(BATCHING_REPORT)["validation"]
    assert report.items() >= describe([each.lengths for each in batches]).items()


def test_two_runs_write_the_same_bytes(tokens: dict[str, list[np.ndarray]]) -> None:
    def outputs() -> list[bytes]:
        batch.main()
        files = [*TRAINING_PLAN.iterdir(), *VALIDATION_BATCHES.iterdir(), BATCHING_REPORT]
        return [file.read_bytes() for file in files]

    assert outputs() == outputs()
