"""Which labels are likely to be wrong, from probabilities of a model that has not seen them: confident learning.

After Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70, 2021), for two
classes: a review is counted as of another class than its label where the model is at least as sure of that class as it
is, on average, of the reviews that are labelled with it (their equation 1). These counts, scaled to how often each
label comes (equation 3), say how many labels are wrong. Which ones: those with the least probability of their own label
("prune by noise rate", section 3.2).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Doubt:
    """`order` <int64>[reviews], rows from the most doubtful to the least; `own` <float64>[reviews], the probability of
    each review's own label; `wrong` <bool>[reviews], those that the estimate takes for wrong; and `threshold`, by
    class, from which probability of it on a review counts as of it."""

    order: NDArray[np.int64]
    own: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    threshold: tuple[float, float]


def doubt(label: np.ndarray, probability: np.ndarray) -> Doubt:
    """Ranks labels by how doubtful they are.

    Args:
        label: <int>[reviews], 0 or 1, both present.
        probability: <float>[reviews], of class 1, by a model that was not fitted to that review (cross-fitted).

    >>> doubt(np.array([0, 0, 1, 1]), np.array([0.1, 0.9, 0.8, 0.7])).order.tolist()
    [1, 3, 2, 0]
    """
    of_class = np.stack([1 - probability, probability], axis=1)
    rows = np.arange(len(label))
    own, other = of_class[rows, label], of_class[rows, 1 - label]
    threshold = [float(own[label == side].mean()) for side in (0, 1)]
    reaches_own, reaches_other = own >= np.take(threshold, label), other >= np.take(threshold, 1 - label)
    # Where both are reached, the class of the larger probability counts; where neither is, the review does not.
    counts_other = reaches_other & ~(reaches_own & (own >= other))
    counts_own = reaches_own & ~counts_other
    order = np.argsort(own, kind="stable")
    wrong = np.zeros(len(label), bool)
    for side in (0, 1):
        here = label == side
        confident = int((counts_own | counts_other)[here].sum())
        share = counts_other[here].sum() / confident if confident else 0.0
        wrong[order[here[order]][: round(share * here.sum())]] = True
    return Doubt(order, own, wrong, (threshold[0], threshold[1]))
