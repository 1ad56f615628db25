"""How much each part of a candidate counts: fitted on validation, so that its probabilities are calibrated.

One part alone is temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks"), the weight being
1 / T; several are a blend, a logistic regression on their logits. There is no intercept: the threshold stays 0.5.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.project.errors import PipelineError

FOLDS = 5
_BOUNDS = (0.01, 10.0)
"""Of a weight: where the parts are never wrong, it would grow without end."""


def fit(label: NDArray[np.integer], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the weights, <float64>[parts], of least log loss of `logits @ weights`.

    Args:
        label: <int>[rows], 0 or 1.
        logits: <float64>[rows, parts], of reviews that no part was fitted to.

    Raises:
        PipelineError: a logit is not finite.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    sign = np.where(label == 1, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (logits @ weights)
        slope = -sign * expit(-margin) / len(label)
        return float(np.logaddexp(0, -margin).mean()), slope @ logits

    begun = np.full(logits.shape[1], 1 / logits.shape[1])
    if not np.isfinite(logits).all():
        raise PipelineError("a part gives logits that are not finite, so there are no weights to fit")
    return np.asarray(minimize(loss, begun, jac=True, method="L-BFGS-B", bounds=[_BOUNDS] * len(begun)).x)


def cross_fitted(label: NDArray[np.integer], logits: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Returns the logit of each row, <float64>[rows], with weights that were fitted on the other folds: what the
    candidate says of reviews that its weights have not seen. Arguments as in `fit`, and the seed of the folds."""
    fold = np.random.default_rng(seed).permutation(len(label)) % FOLDS
    found = np.empty(len(label))
    for held_out in (fold == number for number in range(FOLDS)):
        found[held_out] = logits[held_out] @ fit(label[~held_out], logits[~held_out])
    return found
