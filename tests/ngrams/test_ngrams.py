"""The n-gram classifier learns real reviews, hears a negation and is the same at every fit."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, edit_params

from pipeline.data.sources import SAMPLE
from pipeline.evaluation import metrics
from pipeline.ngrams.classifier import fit_ngrams
from pipeline.project.atomic import write_table
from pipeline.project.paths import (
    BEHAVIOUR,
    NGRAMS,
    NGRAMS_FILE,
    SPLIT_TABLES,
    VOCABULARY,
    behaviour_file,
    evaluated_file,
    metrics_file,
    predictions_file,
)
from pipeline.project.training_record import read_record
from pipeline.served_model.ngrams import NgramClassifier
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.stages import behaviour as behaviour_stage
from pipeline.stages import ngrams as ngrams_stage
from pipeline.stages import test as tested_stage
from pipeline.text.vocabulary import build_vocabulary

REVIEWS = pd.read_parquet(SAMPLE)
TRAIN = REVIEWS[REVIEWS["id"].str.startswith("train/")]
TEST = REVIEWS[REVIEWS["id"].str.startswith("test/")]


def fit() -> NgramClassifier:
    return fit_ngrams(TRAIN["text"].tolist(), TRAIN["label"].to_numpy(), max_ngram=3, regularization=1.0)


@pytest.fixture(scope="module")
def ngrams() -> NgramClassifier:
    return fit()


def test_it_learns_the_sample_reviews(ngrams: NgramClassifier) -> None:
    label = TEST["label"].to_numpy()
    accuracy = ((ngrams.logits(TEST["text"].tolist()) > 0) == label).mean()
    assert accuracy > 0.75


def test_the_same_reviews_give_the_same_classifier(ngrams: NgramClassifier) -> None:
    texts = TEST["text"].tolist()[:50]
    np.testing.assert_array_equal(fit().logits(texts), ngrams.logits(texts))


def test_it_hears_a_contracted_negation() -> None:
    liked, disliked = ["I did like this movie a lot"] * 5, ["I didn't like this movie a lot"] * 5
    negation = fit_ngrams(liked + disliked, np.repeat([1, 0], 5), max_ngram=3, regularization=1.0)
    good, bad = negation.logits(["You will like it", "You don't like it"])
    assert good > 0 > bad


def test_a_text_of_unknown_words_scores_at_the_intercept(ngrams: NgramClassifier) -> None:
    assert ngrams.logits(["xyzzy frotz"])[0] == pytest.approx(ngrams.intercept)


def test_what_is_saved_scores_as_what_was_fitted_with_the_same_bytes(ngrams: NgramClassifier, tmp_path: Path) -> None:
    texts = TEST["text"].tolist()[:200]
    for name in ("one.npz", "two.npz"):
        ngrams.save(tmp_path / name)
    np.testing.assert_array_equal(NgramClassifier.load(tmp_path / "one.npz").logits(texts), ngrams.logits(texts))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_negation_turns_what_stands_behind_it() -> None:
    liked, disliked = ["a good story", "a fine cast"] * 4, ["not a good story", "not a fine cast"] * 4
    label = np.repeat([1, 0], 8)
    fitted = fit_ngrams(liked + disliked, label, max_ngram=1, regularization=10.0)
    for praise, denied in (("good", "never so good"), ("fine", "hardly fine"), ("good story", "nobody saw story")):
        good, bad = fitted.logits([praise, denied])
        assert good > fitted.intercept > bad
    assert fitted.logits(["not that. good"])[0] > fitted.logits(["not that good"])[0], "not over punctuation"


def test_the_stages_make_a_candidate_of_the_n_grams_and_measure_it_under_the_models_metric_names(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(project, evaluate__bootstrap_samples=100)
    tables = {"train": TRAIN[::2], "validation": TRAIN[1::8], "test": TEST, "fresh": TRAIN.head(0)}
    for split, table in tables.items():
        write_table(SPLIT_TABLES / f"{split}.parquet", table)
    VOCABULARY.parent.mkdir(parents=True)
    SubwordTokenizer(build_vocabulary(TRAIN["text"].head(100), 600)).save(VOCABULARY)
    corrected = pd.DataFrame({"id": TEST["id"].head(3), "corrected_label": [-1, *(1 - TEST["label"].iloc[1:3])]})
    write_table(SPLIT_TABLES / "corrections.parquet", corrected)
    shutil.copytree(ROOT / BEHAVIOUR, BEHAVIOUR)
    monkeypatch.setattr(sys, "argv", ["stage.py", NGRAMS])
    ngrams_stage.main()
    tested_stage.main()
    behaviour_stage.main()

    evaluated, report = (json.loads(file.read_text()) for file in (evaluated_file(NGRAMS), metrics_file(NGRAMS)))
    predictions = pd.read_parquet(predictions_file(NGRAMS))
    assert predictions.columns.tolist() == ["id", "label", "logit", "probability", "length"]
    assert predictions["id"].tolist() == TEST["id"].tolist()
    weight = evaluated["calibration"]["weights"][NGRAMS]
    classifier = NgramClassifier.load(NGRAMS_FILE)
    assert predictions["logit"].to_numpy() == pytest.approx(weight * classifier.logits(TEST["text"].tolist()))
    right = ((predictions["probability"] > 0.5) == predictions["label"]).to_numpy().copy()
    assert report["accuracy"] == right.mean()
    right[1:3] = ~right[1:3]
    assert report["corrected"]["accuracy"] == right[1:].mean()
    assert (report["corrected"]["turned"], report["corrected"]["dropped"]) == (2, 1)
    assert all(isinstance(report[name], float) for name in metrics.METRICS)
    assert report["sure"].keys() >= {"share", "by_length"}
    assert 0.7 < evaluated["validation"]["accuracy"] < 1 and "fresh" not in evaluated
    assert not [name for name in report if "second" in name]  # a time would differ from run to run
    record = read_record(NGRAMS)
    assert record["metrics"]["training_seconds"] > 0
    assert record["metrics"]["parameters"] == len(classifier.kept) > 1000
    assert record["metrics"]["val_loss"] == evaluated["validation"]["loss"]
    behaviour = json.loads(behaviour_file(NGRAMS).read_text())
    assert set(behaviour["capabilities"]) > {"negation", "names"}
