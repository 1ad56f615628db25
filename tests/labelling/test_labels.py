"""`sentiment labels` finds labels that were turned on purpose, says why, and leaves out what somebody has judged."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from pipeline.data.sources import SAMPLE
from pipeline.data.splits import split_reviews
from pipeline.labelling.doubtful import planted
from pipeline.ngrams.classifier import fit_ngrams
from pipeline.ngrams.cross_fitting import FOLDS, cross_fit
from pipeline.project import atomic
from pipeline.project.params import load_params
from pipeline.project.paths import RAW, SPLIT_TABLES, VERDICTS

REVIEWS = pd.read_parquet(SAMPLE)
TURNED = 40


@pytest.fixture
def labelled(project: Path) -> list[str]:
    """The sample's raw reviews and splits, with some training labels turned; returns their ids."""
    train, test = (REVIEWS[REVIEWS["id"].str.startswith(f"{split}/")].copy() for split in ("train", "test"))
    turned = np.random.default_rng(3).choice(train.index, TURNED, replace=False)
    train.loc[turned, "label"] = 1 - train.loc[turned, "label"]
    atomic.write_table(RAW / "train.parquet", train)
    atomic.write_table(RAW / "test.parquet", test)
    tables, _ = split_reviews(train, test, train.head(0), validation_fraction=0.1, fresh_rows=0, seed=42)
    for split, table in tables.items():
        atomic.write_table(SPLIT_TABLES / f"{split}.parquet", table)
    return train.loc[turned, "id"].tolist()


def sentiment(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", "labels", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""})


def test_turned_labels_come_out_on_top_with_reasons(project: Path, labelled: list[str]) -> None:
    done = sentiment("doubtful", "--rows", "120", "--output", "doubtful.csv")
    assert done.stdout == "120 reviews: doubtful.csv\n", done.stderr
    table = pd.read_csv("doubtful.csv")
    assert len(set(table["id"]) & set(labelled)) >= TURNED / 2  # 5% of all hold half of them: 8 times chance
    assert table["own_probability"].is_monotonic_increasing
    assert table["rank"].tolist() == list(range(1, 121))
    assert not table["id"].str.startswith("test/").any()
    texts = REVIEWS.set_index("id")["text"]
    for row in table.head(20).itertuples():
        assert row.text == texts[row.id]
        strongest = row.reasons.split("”")[0].removeprefix("“")
        first = strongest.split()[0].removeprefix("not_")  # which a negation before it adds
        assert first.casefold() in row.text.casefold()


def test_the_terminal_shows_one_line_a_review(project: Path, labelled: list[str]) -> None:
    done = sentiment("doubtful", "-n", "3")
    assert done.returncode == 0, done.stderr
    header, _, *rows = done.stdout.splitlines()
    assert header.split()[:4] == ["rank", "id", "split", "label"] and len(rows) == 3


def test_a_verdict_is_obeyed_and_its_review_is_asked_for_no_more(project: Path, labelled: list[str]) -> None:
    done = sentiment("judge", labelled[0], "turn", "--who", "Ann Öst")
    assert done.returncode == 0, done.stderr
    right = REVIEWS.set_index("id")["label"][labelled[0]]
    assert f"{labelled[0]} counts as {['negative', 'positive'][right]}" in done.stdout
    assert "Ann Öst" in VERDICTS.read_text(encoding="utf-8")
    sentiment("doubtful", "--rows", "2400", "--output", "doubtful.csv")
    assert labelled[0] not in set(pd.read_csv("doubtful.csv")["id"])


def test_an_unknown_review_or_verdict_is_told(project: Path, labelled: list[str]) -> None:
    unknown = sentiment("judge", "train/999999", "turn")
    assert unknown.returncode == 3 and "there is no review 'train/999999'" in unknown.stderr
    assert sentiment("judge", labelled[0], "trun").returncode == 2
    assert not VERDICTS.exists()


def test_too_few_reviews_of_a_label_are_told(project: Path, labelled: list[str]) -> None:
    for split in ("train", "validation"):
        file = SPLIT_TABLES / f"{split}.parquet"
        table = pd.read_parquet(file)
        atomic.write_table(file, table[table["label"] == 0])
    done = sentiment("doubtful")
    assert done.returncode == 3 and "fewer than 5 reviews of a label: too few to judge any" in done.stderr


def test_planting_says_how_good_the_ranking_is(project: Path, labelled: list[str]) -> None:
    found = planted(load_params(), 0.03)
    assert found.turned == pytest.approx(0.03 * 2400, rel=0.05) and found.looked_at == pytest.approx(120, rel=0.05)
    assert found.turned / 2 <= found.found < found.turned


def test_a_cross_fitted_logit_is_of_a_classifier_that_never_saw_its_review() -> None:
    texts, label = REVIEWS["text"].tolist()[:300], REVIEWS["label"].to_numpy()[:300]
    options = {"max_ngram": 2, "regularization": 1.0}
    found = cross_fit(texts, label, seed=1, **options)
    assert sorted(set(found.fold.tolist())) == list(range(FOLDS))
    rest = np.flatnonzero(found.fold != 2)
    other = fit_ngrams([texts[row] for row in rest], label[rest], **options)
    held_out = np.flatnonzero(found.fold == 2)
    assert np.allclose(found.logit[held_out], other.logits([texts[row] for row in held_out]))


def test_contributions_sum_to_the_logit() -> None:
    texts, label = REVIEWS["text"].tolist()[:300], REVIEWS["label"].to_numpy()[:300]
    classifier = fit_ngrams(texts, label, max_ngram=3, regularization=1.0)
    for text in texts[:20]:
        total = sum(classifier.contributions(text).values()) + classifier.intercept
        assert total == pytest.approx(classifier.logits([text])[0], abs=0.05)  # but for n-grams that share a bucket
    assert classifier.contributions("zzzz qqqq") == {}
