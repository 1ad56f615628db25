"""Weights are those that calibrate, a blend never costs more than a part alone, and what is held out is held out."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.evaluation import calibration
from pipeline.evaluation.metrics import binary_metrics
from pipeline.project.errors import PipelineError

LEAST, MOST = 0.01, 10.0


def planted(rows: int, seed: int, *temperatures: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the sum of the parts' true logits, and each part's logits as many times too large."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (rows, len(temperatures)))
    label = (rng.random(rows) < 1 / (1 + np.exp(-true.sum(axis=1)))).astype(int)
    return label, true * temperatures


def loss(label: np.ndarray, logit: np.ndarray) -> float:
    return float(np.logaddexp(0, np.where(label == 1, -logit, logit)).mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_part_that_is_too_sure_or_too_shy_by_a_temperature_is_divided_by_it(temperature: float) -> None:
    (weight,) = calibration.fit(*planted(50_000, 1, temperature))
    assert weight == pytest.approx(1 / temperature, rel=0.03)


def test_each_part_of_a_blend_has_its_own_temperature() -> None:
    assert calibration.fit(*planted(50_000, 2, 2.0, 0.5)) == pytest.approx([0.5, 2.0], rel=0.05)


def test_a_part_that_says_nothing_has_hardly_any_weight() -> None:
    label, logits = planted(20_000, 3, 1.0)
    noise = np.random.default_rng(4).normal(0, 2, len(label))
    weights = calibration.fit(label, np.column_stack([logits, noise]))
    assert weights[0] == pytest.approx(1.0, rel=0.05) and weights[1] < 0.05


def test_calibration_mends_the_probabilities_and_changes_no_answer() -> None:
    label, logits = planted(20_000, 5, 4.0)
    calibrated = logits @ calibration.fit(label, logits)
    before, after = (binary_metrics(label, logit, bins=15) for logit in (logits[:, 0], calibrated))
    assert after["ece"] < 0.02 < 0.1 < before["ece"]
    assert after["accuracy"] == before["accuracy"] and after["loss"] < before["loss"]


ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(-20, 20), st.floats(-20, 20)), min_size=2, max_size=60)


@given(ROWS)
@settings(max_examples=60)
def test_a_blend_costs_no_more_than_either_part_alone_and_no_weight_is_negative(
    rows: list[tuple[int, float, float]],
) -> None:
    label, logits = np.array([row[0] for row in rows]), np.array([row[1:] for row in rows])
    both = calibration.fit(label, logits)
    assert ((both >= LEAST) & (both <= MOST)).all()
    for part in range(2):
        # What a part alone costs where the other, as here, cannot be left out altogether.
        alone = np.full(2, LEAST)
        alone[part] = calibration.fit(label, logits[:, [part]])[0]
        assert loss(label, logits @ both) <= loss(label, logits @ alone) + 1e-4


@given(ROWS)
@settings(max_examples=60)
def test_no_other_weight_costs_less(rows: list[tuple[int, float, float]]) -> None:
    label, logits = np.array([row[0] for row in rows]), np.array([row[1:2] for row in rows])
    assume(np.abs(logits).max() > 1e-3)
    fitted = loss(label, logits @ calibration.fit(label, logits))
    assert all(fitted <= loss(label, logits[:, 0] * weight) + 1e-4 for weight in np.geomspace(LEAST, MOST, 60))


def test_where_a_part_is_never_wrong_its_weight_stays_finite() -> None:
    assert calibration.fit(np.array([0, 1]), np.array([[-1.0], [1.0]])) == pytest.approx([MOST])
    assert calibration.fit(np.array([0, 1]), np.array([[1.0], [-1.0]])) == pytest.approx([LEAST])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_not_finite_have_no_weights(wrong: float) -> None:
    label, logits = planted(60, 6, 2.0, 0.7)
    logits[3, 1] = wrong
    with pytest.raises(PipelineError, match="not finite"):
        calibration.fit(label, logits)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_weight_within_its_bounds_is_found_whatever_the_size_of_the_logits(scale: float) -> None:
    """What others' fits did not (gpleiss/temperature_scaling, issues 29 and 34): they stopped before the minimum."""
    label, logits = planted(20_000, 8, scale)
    (weight,) = calibration.fit(label, logits)
    assert weight == pytest.approx(np.clip(1 / scale, LEAST, MOST), rel=0.03)


@pytest.mark.parametrize("row", [0, 7, 41])
def test_a_cross_fitted_logit_does_not_depend_on_its_own_label(row: int) -> None:
    label, logits = planted(60, 6, 2.0, 0.7)
    turned = label.copy()
    turned[row] = 1 - turned[row]
    before, after = (calibration.cross_fitted(each, logits, seed=3) for each in (label, turned))
    assert before[row] == after[row]
    same_fold = np.flatnonzero(before == after)
    assert len(same_fold) == 60 / calibration.FOLDS, "all others learn from it"


def test_cross_fitted_logits_are_nearly_those_of_weights_fitted_on_all_rows_and_depend_on_the_seed_alone() -> None:
    label, logits = planted(5000, 8, 2.0, 0.7)
    found, again, other = (calibration.cross_fitted(label, logits, seed) for seed in (1, 1, 2))
    assert found.tolist() == again.tolist() != other.tolist()
    assert np.abs(found - logits @ calibration.fit(label, logits)).max() < 0.5
    assert loss(label, found) >= loss(label, logits @ calibration.fit(label, logits))
