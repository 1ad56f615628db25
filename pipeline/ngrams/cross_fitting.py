"""Cross-fitting: of every review the logit of a classifier that has not seen it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ngrams.classifier import fit_presence, presence
from pipeline.served_model.ngrams import NgramClassifier

FOLDS = 5


@dataclass(frozen=True)
class CrossFitted:
    """`logit` <float64>[reviews], each by `classifiers[fold]`, which was fitted on the other folds; `fold`
    <int64>[reviews]."""

    logit: NDArray[np.float64]
    fold: NDArray[np.int64]
    classifiers: Sequence[NgramClassifier]


def cross_fit(
    texts: Sequence[str], label: np.ndarray, *, max_ngram: int, regularization: float, seed: int, folds: int = FOLDS
) -> CrossFitted:
    """Fits as many n-gram classifiers as there are folds, each on all but one, stratified by label.

    Args:
        texts: of reviews of which none is another's copy.
        label: <int>[reviews], 0 or 1, each at least `folds` times.
        max_ngram, regularization: as in `fit_ngrams`.
        seed: of the folds.

    Raises:
        ValueError: a label comes less often than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    if (fewest := int(np.bincount(label, minlength=2).min())) < folds:  # scikit-learn would only warn
        raise ValueError(f"a label comes {fewest} times, and there are {folds} folds")
    present = presence(texts, max_ngram)
    logit, fold = np.empty(len(texts)), np.empty(len(texts), np.int64)
    classifiers = []
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(label, label)
    for number, (rest, held_out) in enumerate(parts):
        classifier = fit_presence(present[rest], label[rest], max_ngram=max_ngram, regularization=regularization)
        unseen = present[held_out]
        logit[held_out], fold[held_out] = classifier.logits_of(unseen.indptr, unseen.indices.view(np.uint32)), number
        classifiers.append(classifier)
    return CrossFitted(logit, fold, classifiers)
