"""Reviews like those trained on have not drifted, others have; the figures are those of the literature."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy.spatial.distance import jensenshannon

from pipeline.data.drift import jensen_shannon_distance, profile, stability_index, text_drift
from pipeline.project.params import load_params
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.vocabulary import build_vocabulary

LIMITS = load_params(ROOT / "params.yaml").retrain.drift.model_dump()


@pytest.fixture(scope="module")
def tokenizer(reviews: pd.DataFrame) -> SubwordTokenizer:
    return SubwordTokenizer(build_vocabulary(reviews["text"].head(1500), 2048))


def drifted(tokenizer: SubwordTokenizer, known: pd.Series, new: pd.Series) -> set[str]:
    """The figures that are over their limit in params.yaml."""
    profiles = [profile(tokenizer.encode_batch(texts), tokenizer.vocabulary_size) for texts in (known, new)]
    return {name for name, value in text_drift(*profiles).items() if value > LIMITS[name]}


def test_reviews_like_those_trained_on_have_not_drifted(reviews: pd.DataFrame, tokenizer: SubwordTokenizer) -> None:
    known, others = reviews["text"].iloc[:2400], reviews["text"].iloc[2400:]
    for draw in range(10):
        assert drifted(tokenizer, known, others.sample(LIMITS["min_rows"], random_state=draw)) == set()


@pytest.mark.parametrize(
    ("change", "figures"),
    [
        (str.lower, {"token_distance"}),
        (lambda text: text[:200], {"token_distance", "length_psi"}),
        (lambda text: text.upper(), {"token_distance", "byte_share"}),
        (lambda text: text.encode().decode("cp1251", errors="replace").replace("e", "é"), {"token_distance"}),
    ],
)
def test_other_texts_have(reviews: pd.DataFrame, tokenizer: SubwordTokenizer, change, figures: set[str]) -> None:
    known, new = reviews["text"].iloc[:2400], reviews["text"].iloc[2400:2600]
    assert figures <= drifted(tokenizer, known, new.map(change))


def test_the_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.integers(0, 9, 40).astype(float), rng.integers(0, 9, 40).astype(float)
    assert jensen_shannon_distance(p, q) == pytest.approx(jensenshannon(p, q, base=2))
    assert jensen_shannon_distance(p, p * 3) == pytest.approx(0, abs=1e-7)
    assert jensen_shannon_distance(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(1)


def test_the_stability_index_is_that_of_its_bins() -> None:
    reference = np.arange(1000.0)
    assert stability_index(reference, reference) == pytest.approx(0, abs=1e-3)
    upper_half = reference[500:]  # five bins of a tenth are empty, which counts as 0.0001; the others hold a fifth
    expected = 5 * (0.2 - 0.1) * np.log(2) + 5 * (1e-4 - 0.1) * np.log(1e-4 / 0.1)
    assert stability_index(reference, upper_half) == pytest.approx(expected, rel=1e-3)
