"""A linear n-gram classifier, the honest yardstick: logistic regression on NB-weighted n-grams.

After Wang & Manning 2012, "Baselines and Bigrams": whether each n-gram stands in a review (not how often), weighted
by its naive Bayes log-count ratio, with logistic regression where they took an SVM.

Its features, and how a fitted one scores, are in `served_model.ngrams`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.served_model import ngrams
from pipeline.served_model.ngrams import HASH_BUCKETS, NgramClassifier

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MIN_REVIEWS = 3  # n-grams in fewer training reviews are left out; better than 2 in cross-validation on these
SMOOTHING = 1.0  # alpha of the paper


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


def fit_presence(present: "csr_matrix", label: np.ndarray, *, max_ngram: int, regularization: float) -> NgramClassifier:
    """Fits the classifier to texts as `presence` has them; see `fit_ngrams`."""
    from sklearn.linear_model import LogisticRegression

    kept = np.flatnonzero(np.bincount(present.indices, minlength=HASH_BUCKETS) >= MIN_REVIEWS)
    features = present[:, kept]
    ratio = _log_count_ratio(features, np.asarray(label))
    features.data = ratio[features.indices]
    classifier = LogisticRegression(C=regularization, max_iter=200)  # 20 iterations are usual
    classifier.fit(features, label)
    weight = (ratio * classifier.coef_[0]).astype(np.float32)
    return NgramClassifier(max_ngram, kept.astype(np.uint32), weight, float(classifier.intercept_[0]))


def presence(texts: Sequence[str], max_ngram: int) -> "csr_matrix":
    """Returns <float32>[texts, HASH_BUCKETS], whether an n-gram stands in a text, sparse."""
    from scipy.sparse import csr_matrix

    starts, buckets = ngrams.presence(texts, max_ngram)
    ones = np.ones(len(buckets), np.float32)
    return csr_matrix((ones, buckets.astype(np.int32), starts), (len(texts), HASH_BUCKETS))


def _log_count_ratio(counted: "csr_matrix", label: np.ndarray) -> np.ndarray:
    """Returns <float32>[features], r of Wang & Manning 2012, section 2.1: above 0 for an n-gram of positive reviews."""
    positive, negative = (np.asarray(counted[label == side].sum(axis=0)).ravel() + SMOOTHING for side in (1, 0))
    return np.log((positive / positive.sum()) / (negative / negative.sum())).astype(np.float32)
