"""A linear n-gram classifier, the honest yardstick: logistic regression on NB-weighted n-grams.

After Wang & Manning 2012, "Baselines and Bigrams": whether each n-gram stands in a review (not how often), weighted
by its naive Bayes log-count ratio, with logistic regression where they took an SVM.

N-grams are hashed instead of listed (scikit-learn's HashingVectorizer), a sixth of the time and less memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.project.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import HashingVectorizer

# Words with the n't of a negation split off, as in the Penn Treebank, and the punctuation between them.
# It and MIN_REVIEWS were the best of three patterns and of 2 and 3 reviews in cross-validation on the training reviews.
TOKEN_PATTERN = r"""\w+(?=n't)|n't|\w+|'\w+|[!?.,;:()"]"""
MIN_REVIEWS = 3  # n-grams in fewer training reviews are left out
HASH_BUCKETS = 2**24  # three times the 5.0 million distinct n-grams of IMDB; 2**26 scored no better
SMOOTHING = 1.0  # alpha of the paper


@dataclass(frozen=True)
class NgramClassifier:
    """A fitted classifier.

    Attributes:
        max_ngram: longest n-gram in tokens.
        kept: <int64>[features], the buckets that are features.
        weight: <float64>[features], what an n-gram adds to the log-odds.
        intercept: the log-odds of a text without a feature.
    """

    max_ngram: int
    kept: NDArray[np.int64]
    weight: NDArray[np.float64]
    intercept: float

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns <float64>[len(texts)], the log-odds that each text is positive."""
        return self.logits_of(presence(texts, self.max_ngram))

    def logits_of(self, counted: "csr_matrix") -> NDArray[np.float64]:
        """Returns <float64>[texts], the log-odds of texts as `presence` has them."""
        return counted[:, self.kept] @ self.weight + self.intercept

    def contributions(self, text: str) -> dict[str, float]:
        """Returns the n-grams of a text that are features, each with what it adds to the log-odds."""
        found = list(dict.fromkeys(_vectorizer(self.max_ngram).build_analyzer()(text)))
        buckets = _vectorizer(analyzer=lambda ngram: [ngram]).transform(found).indices  # one a row
        place = np.searchsorted(self.kept, buckets).clip(max=len(self.kept) - 1)
        features = self.kept[place] == buckets
        return {
            ngram: float(self.weight[at])
            for ngram, at, is_feature in zip(found, place, features, strict=True)
            if is_feature
        }

    def save(self, path: Path) -> None:
        """Writes the classifier as NumPy arrays (`.npz`); the same one gives the same bytes."""
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "NgramClassifier":
        """Reads what `save` wrote; raises DataError if it is missing or something else."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(int(arrays["max_ngram"]), arrays["kept"], arrays["weight"], float(arrays["intercept"]))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"{path} is no n-gram classifier ({error}); run `dvc repro`") from None


def fit_ngrams(texts: Sequence[str], label: np.ndarray, *, max_ngram: int, regularization: float) -> NgramClassifier:
    """Fits the classifier; the same reviews give the same one.

    Args:
        texts: training reviews.
        label: <int>[len(texts)], 0 or 1, both present.
        max_ngram: longest n-gram in tokens.
        regularization: inverse strength of the L2 penalty, C in scikit-learn.

    Raises:
        ValueError: only one label is present, or no n-gram stands in MIN_REVIEWS reviews.
    """
    return fit_presence(presence(texts, max_ngram), label, max_ngram=max_ngram, regularization=regularization)


def fit_presence(counted: "csr_matrix", label: np.ndarray, *, max_ngram: int, regularization: float) -> NgramClassifier:
    """Fits the classifier to texts as `presence` has them; see `fit_ngrams`."""
    from sklearn.linear_model import LogisticRegression

    kept = np.flatnonzero(np.bincount(counted.indices, minlength=HASH_BUCKETS) >= MIN_REVIEWS)
    features = counted[:, kept]
    ratio = _log_count_ratio(features, np.asarray(label))
    features.data = ratio[features.indices]
    classifier = LogisticRegression(C=regularization, max_iter=200)  # 20 iterations are usual
    classifier.fit(features, label)
    return NgramClassifier(max_ngram, kept, ratio * classifier.coef_[0], float(classifier.intercept_[0]))


def presence(texts: Sequence[str], max_ngram: int) -> "csr_matrix":
    """Returns <float32>[texts, HASH_BUCKETS], whether an n-gram stands in a text, sparse."""
    return _vectorizer(max_ngram).transform(texts)


def _vectorizer(max_ngram: int = 1, **options: Any) -> "HashingVectorizer":
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        **({"token_pattern": TOKEN_PATTERN, "ngram_range": (1, max_ngram)} | options),
        n_features=HASH_BUCKETS,
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )


def _log_count_ratio(counted: "csr_matrix", label: np.ndarray) -> np.ndarray:
    """Returns <float32>[features], r of Wang & Manning 2012, section 2.1: above 0 for an n-gram of positive reviews."""
    positive, negative = (np.asarray(counted[label == side].sum(axis=0)).ravel() + SMOOTHING for side in (1, 0))
    return np.log((positive / positive.sum()) / (negative / negative.sum())).astype(np.float32)
