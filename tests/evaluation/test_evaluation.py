"""What evaluation reports is what scikit-learn would, with honest intervals; padding is studied as it is."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from pipeline.evaluation import curves, metrics, significance
from pipeline.project.errors import PipelineError
from pipeline.studies import padding_study

BINS = 15
Curve = Callable[[np.ndarray, np.ndarray], Any]


def scored(rows: int, seed: int = 0, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of a fair classifier; `decimals` rounds the logits, which makes ties."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, rows)
    logit = generator.normal(3 * label - 1.5, 2).astype(np.float32)
    return label, logit if decimals is None else logit.round(decimals)


def sklearn_metrics(label: np.ndarray, logit: np.ndarray) -> dict[str, float]:
    chance, predicted = metrics.probability(logit), logit > 0
    return {
        "loss": reference.log_loss(label, chance),
        "accuracy": reference.accuracy_score(label, predicted),
        "precision": reference.precision_score(label, predicted, zero_division=0),
        "recall": reference.recall_score(label, predicted),
        "f1": reference.f1_score(label, predicted),
        "roc_auc": reference.roc_auc_score(label, logit),
        "average_precision": reference.average_precision_score(label, logit),
    }


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_the_metrics_are_those_of_scikit_learn_ties_or_not(decimals: int | None) -> None:
    label, logit = scored(997, decimals=decimals)
    found = metrics.binary_metrics(label, logit, bins=BINS)
    assert tuple(found) == metrics.METRICS
    for name, expected in sklearn_metrics(label, logit).items():
        assert found[name] == pytest.approx(expected, rel=1e-10), name


def test_a_certain_model_that_errs_pays_its_whole_logit() -> None:
    found = metrics.binary_metrics(np.array([1, 0, 1, 0]), np.array([1000.0, -1000.0, -1000.0, 1000.0]), bins=BINS)
    assert found["loss"] == 500.0
    assert found["accuracy"] == found["roc_auc"] == 0.5
    assert found["ece"] == 0.5


def test_a_probability_of_exactly_one_half_is_not_positive() -> None:
    found = metrics.binary_metrics(np.array([1, 0]), np.array([0.0, 0.0]), bins=BINS)
    assert (found["recall"], found["precision"], found["f1"]) == (0, 0, 0)
    assert found["loss"] == pytest.approx(np.log(2))


def test_what_one_label_alone_does_not_define_is_absent() -> None:
    logit = np.array([2.0, -1.0, 3.0])
    negatives = metrics.binary_metrics(np.zeros(3, int), logit, bins=BINS)
    positives = metrics.binary_metrics(np.ones(3, int), logit, bins=BINS)
    assert set(negatives) == {"loss", "accuracy", "ece"}
    assert set(positives) == set(metrics.METRICS) - {"roc_auc"}
    assert positives["recall"] == pytest.approx(2 / 3)
    assert "roc_auc" not in significance.bootstrap_intervals(np.ones(3, int), logit, bins=BINS, samples=100, seed=0)


def test_calibration_error_by_hand() -> None:
    # Two bins: 0.25, 0.25 and 0.5 below (one of three positive), 0.8 above (positive).
    label = np.array([0, 0, 1, 1])
    logit = np.log(np.array([0.25, 0.25, 0.5, 0.8]) / (1 - np.array([0.25, 0.25, 0.5, 0.8])))
    logit[2] = 0.0  # the edge belongs to the bin below
    assert metrics.binary_metrics(label, logit, bins=2)["ece"] == pytest.approx(
        3 / 4 * abs(1 / 3 - 1 / 3) + 1 / 4 * 0.2
    )
    curve = curves.calibration(label, logit, bins=2)
    assert curve["reviews"].tolist() == [3, 1]
    assert curve["observed"].tolist() == pytest.approx([1 / 3, 1])
    assert curve["predicted"].tolist() == pytest.approx([1 / 3, 0.8])


def test_the_calibration_curve_is_that_of_scikit_learn_and_adds_up_to_the_error() -> None:
    from sklearn.calibration import calibration_curve

    label, logit = scored(5000)
    curve = curves.calibration(label, logit, bins=BINS)
    observed, predicted = calibration_curve(label, metrics.probability(logit), n_bins=BINS)
    np.testing.assert_allclose(curve[["observed", "predicted"]].to_numpy(), np.column_stack([observed, predicted]))
    error = (curve["reviews"] / 5000 * (curve["observed"] - curve["predicted"]).abs()).sum()
    assert metrics.binary_metrics(label, logit, bins=BINS)["ece"] == pytest.approx(error)


def test_intervals_are_those_of_resampled_reviews() -> None:
    label, logit = scored(300, decimals=1)
    generator = np.random.default_rng(7)
    draws = [generator.integers(300, size=300) for _ in range(200)]
    resampled = pd.DataFrame([sklearn_metrics(label[draw], logit[draw]) for draw in draws])
    intervals = significance.bootstrap_intervals(label, logit, bins=BINS, samples=200, seed=7)
    assert set(intervals) == {*resampled, "ece"}
    for name in resampled:
        assert intervals[name] == pytest.approx(np.percentile(resampled[name], (2.5, 97.5)), rel=1e-9), name


@pytest.mark.parametrize("skew", [0.0, 0.8])
def test_the_interval_of_the_calibration_error_is_turned_round_it_and_begins_at_0_or_above(skew: float) -> None:
    label, logit = scored(300)
    logit = logit + np.float32(skew)
    generator = np.random.default_rng(7)
    draws = [generator.integers(300, size=300) for _ in range(200)]
    drawn = [metrics.binary_metrics(label[draw], logit[draw], bins=BINS)["ece"] for draw in draws]
    ece = metrics.binary_metrics(label, logit, bins=BINS)["ece"]
    low, high = np.percentile(drawn, (2.5, 97.5))
    intervals = significance.bootstrap_intervals(label, logit, bins=BINS, samples=200, seed=7)
    assert intervals["ece"] == pytest.approx([max(0, 2 * ece - high), max(ece, 2 * ece - low)])


def calibrated(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels as often positive as they say."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(0, 2, rows)
    return (generator.random(rows) < metrics.probability(logit)).astype(int), logit


@pytest.mark.parametrize("rows", [100, 2500])
def test_the_interval_of_the_calibration_error_holds_the_error_and_of_a_calibrated_model_nearly_0(rows: int) -> None:
    """A percentile interval lies above the error of a calibrated model, and never holds its 0."""
    lows = []
    for seed in range(20):
        label, logit = calibrated(rows, seed)
        ece = metrics.binary_metrics(label, logit, bins=BINS)["ece"]
        low, high = significance.bootstrap_intervals(label, logit, bins=BINS, samples=200, seed=seed)["ece"]
        assert 0 <= low <= ece <= high
        lows.append(low / ece)
    assert np.median(lows) < 0.5


def test_intervals_hold_the_metric_and_depend_on_the_seed_alone() -> None:
    label, logit = scored(2000)
    found = metrics.binary_metrics(label, logit, bins=BINS)
    first, again, other = (
        significance.bootstrap_intervals(label, logit, bins=BINS, samples=200, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    for name, (low, high) in first.items():
        assert low < found[name] < high


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = metrics.binary_metrics(*scored(200_000, seed=99), bins=BINS)
    hits = 0
    for seed in range(100):
        intervals = significance.bootstrap_intervals(*scored(300, seed), bins=BINS, samples=200, seed=seed)
        low, high = intervals["roc_auc"]
        hits += low <= truth["roc_auc"] <= high
    assert 87 <= hits <= 100


def test_a_thousand_resamples_of_the_test_split_take_seconds() -> None:
    label, logit = scored(25_000)
    started = time.process_time()
    significance.bootstrap_intervals(label, logit, bins=BINS, samples=1000, seed=0)
    assert time.process_time() - started < 15


@pytest.mark.parametrize(
    ("curve", "exact", "axes"),
    [
        (curves.roc, lambda y, z: reference.roc_curve(y, z)[:2], ["false_positive_rate", "true_positive_rate"]),
        (
            curves.precision_recall,
            lambda y, z: reference.precision_recall_curve(y, z)[1::-1],
            ["recall", "precision"],
        ),
    ],
)
def test_a_thinned_curve_passes_within_a_hundredth_of_every_point(curve: Curve, exact: Curve, axes: list[str]) -> None:
    label, logit = scored(25_000)
    thinned = curve(label, logit)
    assert 100 < len(thinned) <= curves.CURVE_POINTS
    kept = thinned[axes].to_numpy()
    for point in np.column_stack(exact(label, logit))[::25]:
        assert np.abs(kept - point).max(axis=1).min() < 0.01
    assert thinned[axes[0]].is_monotonic_increasing
    assert thinned["threshold"].between(0, 1).all()


def test_confusion_counts_every_review_once() -> None:
    label, logit = scored(500)
    table = pd.DataFrame(metrics.confusion(label, logit))
    assert table["reviews"].tolist() == reference.confusion_matrix(label, logit > 0).ravel().tolist()
    assert table.iloc[1].tolist()[:2] == ["negative", "positive"]


def test_the_report_holds_plain_numbers_by_name_and_is_json() -> None:
    import json

    label, logit = scored(500)
    reported = significance.report(label, logit, bins=BINS, samples=100, seed=0)
    assert all(type(reported[name]) is float for name in metrics.METRICS)
    assert json.loads(json.dumps(reported, allow_nan=False)) == reported


def test_slices_divide_the_reviews_by_length_and_by_label() -> None:
    label, logit = scored(1000)
    length = np.random.default_rng(3).integers(10, 512, 1000)
    by_name = {each["slice"]: each for each in significance.slices(label, logit, length, samples=100, seed=0)}
    quartiles = [by_name[f"length_quartile_{index}"] for index in (1, 2, 3, 4)]
    assert sum(each["reviews"] for each in quartiles) == 1000
    assert all(abs(each["reviews"] - 250) < 10 for each in quartiles)
    assert all(before["longest"] < after["shortest"] for before, after in pairwise(quartiles))
    assert sum(each["accuracy"] * each["reviews"] for each in quartiles) == pytest.approx(((logit > 0) == label).sum())
    assert by_name["label_positive"]["accuracy"] == pytest.approx(reference.recall_score(label, logit > 0))
    assert all(each["interval"][0] <= each["accuracy"] <= each["interval"][1] for each in by_name.values())


def test_reviews_of_one_length_are_one_slice() -> None:
    masks = significance.slice_masks(np.array([0, 1, 1]), np.array([512, 512, 512]))
    assert set(masks) == {"length_quartile_1", "label_negative", "label_positive"}


def test_a_better_model_is_significantly_better_and_a_model_is_not_better_than_itself() -> None:
    label, logit = scored(2000)
    worse = logit.copy()
    worse[:200] *= -1
    compared = significance.paired_accuracy(label, logit, worse, samples=1000, seed=0)
    assert compared["difference"] == pytest.approx(
        (compared["only_first_right"] - compared["only_second_right"]) / 2000
    )
    assert 0 < compared["interval"][0] < compared["difference"] < compared["interval"][1]
    assert compared["mcnemar_p"] < 1e-6
    same = significance.paired_accuracy(label, logit, logit, samples=1000, seed=0)
    assert (same["difference"], same["interval"], same["mcnemar_p"]) == (0, [0, 0], 1)


def test_a_diverged_model_is_named_as_such() -> None:
    with pytest.raises(PipelineError, match="1 of 2 logits are not finite: the model diverged"):
        metrics.binary_metrics(np.array([0, 1]), np.array([0.5, np.nan]), bins=BINS)


@pytest.mark.parametrize(("label", "logit"), [([], []), ([0, 1], [0.0]), ([0, 2], [0.0, 1.0])])
def test_labels_and_logits_that_do_not_fit_are_refused(label: list[int], logit: list[float]) -> None:
    with pytest.raises(ValueError, match="label"):
        metrics.binary_metrics(np.array(label), np.array(logit), bins=BINS)


def toy_logits(batches: list[np.ndarray], masked: bool = True) -> list[np.ndarray]:
    """A model of one-dimensional embeddings (the id less 5) whose mean over the row, padding or not, is the logit."""
    rows = []
    for token_ids in batches:
        counted = token_ids > 0 if masked else np.ones_like(token_ids, bool)
        rows.append((((token_ids - 5) * counted).sum(axis=1) / counted.sum(axis=1)).astype(np.float32))
    return rows


def toy_score(batches: list[np.ndarray], masked: bool) -> list[np.ndarray]:
    return [metrics.probability(logit) for logit in toy_logits(batches, masked)]


def test_padding_moves_the_unmasked_model_and_not_the_masked_one() -> None:
    generator = np.random.default_rng(0)
    reviews = [generator.integers(1, 11, length).astype(np.int32) for length in generator.integers(3, 100, 200)]
    label = np.array([row.mean() > 5 for row in reviews], int)
    sentences = {"positive": np.full(30, 9, np.int32), "negative": np.full(35, 2, np.int32)}
    study = padding_study.padding_study(toy_score, reviews, label, sentences, max_tokens=100)

    assert study["widths"] == {"padded_to_64": 64, "padded_to_200": 200}
    assert study["masking_holds"] is True
    short = sum(len(row) < 64 for row in reviews)
    assert 0 < short < 200
    for mode in ("masked", "unmasked"):
        assert study[mode]["unpadded"]["accuracy"] == 1
        assert (study[mode]["padded_to_64"]["padded"], study[mode]["padded_to_200"]["padded"]) == (short, 200)
    for name in study["widths"]:
        assert study["masked"][name]["largest_change"] < padding_study.TOLERANCE
        assert study["masked"][name]["flipped"] == 0
        assert study["unmasked"][name]["largest_change"] > 0.4
        assert study["unmasked"][name]["mean_change"] < study["unmasked"][name]["largest_change"]
    assert study["unmasked"]["padded_to_200"]["flipped"] == int(label.sum())
    assert study["unmasked"]["padded_to_200"]["accuracy"] == pytest.approx(1 - label.mean())
    assert study["masked"]["padded_to_200"]["sentences"]["positive"] == pytest.approx(1 / (1 + np.exp(-4)))
    mean = (30 * 4 - 170 * 5) / 200
    assert study["unmasked"]["padded_to_200"]["sentences"]["positive"] == pytest.approx(1 / (1 + np.exp(-mean)))


def test_a_masked_model_that_padding_moves_is_found_out() -> None:
    reviews, label = [np.array([7, 8], np.int32)], np.array([1])
    sentences = {"positive": np.array([9], np.int32)}
    study = padding_study.padding_study(
        lambda batches, masked: toy_score(batches, False), reviews, label, sentences, max_tokens=8
    )
    assert study["masking_holds"] is False
