"""The n-gram classifier as a teacher: soft labels of reviews that it was not fitted to, and of single sentences.

After Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network". A labelled review has the logit of a
classifier that has not seen it. Sentences have a classifier of their own, fitted to the sentences of the labelled
reviews, each with its review's label: that of whole reviews leans on short texts, whose few n-grams leave its
intercept standing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sentences import learnable
from pipeline.ngrams.classifier import fit_ngrams, presence
from pipeline.ngrams.cross_fitting import cross_fit
from pipeline.project.errors import DataError
from pipeline.project.params import NgramsParams, TeacherParams
from pipeline.project.paths import SENTENCES, TRAIN


def ngram_logits(
    labelled: Sequence[str],
    label: NDArray[np.integer],
    texts: Mapping[str, Sequence[str]],
    params: NgramsParams,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Returns the logit that n-grams give each of `texts`, <float64>[texts] by what they are.

    Args:
        labelled, label: the training reviews with <int>[reviews] labels, 0 or 1.
        texts: of `TAUGHT`; `train` are the labelled ones.
        params, seed: of the classifiers and of their folds.

    Raises:
        DataError: a label comes less often than there are folds.
    """
    found = {}
    if texts.keys() - {SENTENCES}:
        try:
            fitted = cross_fit(
                labelled, label, max_ngram=params.max_ngram, regularization=params.regularization, seed=seed
            )
        except ValueError as error:
            raise DataError(f"the training reviews cannot be divided into folds: {error}") from None
    for name, some in texts.items():
        if name == TRAIN:
            found[name] = fitted.logit
        elif name == SENTENCES:
            found[name] = _of_sentences(labelled, label, some, params)
        else:
            present = presence(some, params.max_ngram)
            columns = present.indices.view(np.uint32)
            found[name] = np.mean([one.logits_of(present.indptr, columns) for one in fitted.classifiers], axis=0)
    return found


def _of_sentences(
    labelled: Sequence[str], label: NDArray[np.integer], texts: Sequence[str], params: NgramsParams
) -> NDArray[np.float64]:
    learnt = [(sentence, its) for text, its in zip(labelled, label, strict=True) for _, sentence in learnable(text)]
    classifier = fit_ngrams(
        [sentence for sentence, _ in learnt],
        np.array([its for _, its in learnt]),
        max_ngram=params.max_ngram,
        regularization=params.sentence_regularization,
    )
    return classifier.logits(texts)


def targets(
    logit: NDArray[np.float64], label: NDArray[np.integer] | None, teacher: TeacherParams
) -> NDArray[np.float32]:
    """Returns what a network learns, <float32>[texts]: the logistic function of `logit` over the temperature, mixed
    with the labels where there are any."""
    soft = (1 + np.tanh(logit / teacher.temperature / 2)) / 2
    if label is not None:
        soft = teacher.label_weight * label + (1 - teacher.label_weight) * soft
    return soft.astype(np.float32)
