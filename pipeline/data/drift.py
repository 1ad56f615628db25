"""How far new reviews are from what a model was trained on: their tokens, their lengths, and how they are scored."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.served_model.tokenizer import BYTES

if TYPE_CHECKING:
    import pandas as pd

COMMON_TOKENS = 500
"""Distributions are compared over the most frequent tokens of the reference, and all others as one: of 200 reviews most
rarer ones do not occur, so that over the whole vocabulary the distance would measure how few the reviews are."""
BINS = 10
LEAST_SHARE = 1e-4
"""A bin that nothing fell into counts as this much in a stability index, which knows no zero."""


def profile(token_ids: "Iterable[NDArray[np.int32]]", vocabulary_size: int) -> "pd.DataFrame":
    """Returns how often each token id and each length occurs in reviews: the columns kind (token or length), value
    and count.

    Args:
        token_ids: int32[tokens] of each review.
        vocabulary_size: number of ids, padding included.
    """
    import pandas as pd

    reviews = list(token_ids)
    counts = {
        "token": np.bincount(np.concatenate(reviews), minlength=vocabulary_size),
        "length": np.bincount([len(ids) for ids in reviews]),
    }
    return pd.concat(
        [pd.DataFrame({"kind": kind, "value": np.arange(len(n)), "count": n}) for kind, n in counts.items()],
        ignore_index=True,
    )


def text_drift(reference: "pd.DataFrame", current: "pd.DataFrame") -> dict[str, float]:
    """Compares two profiles of the same vocabulary.

    Returns:
        token_distance: Jensen-Shannon distance, base 2, of the token distributions, in [0, 1] (Endres & Schindelin
            2003).
        length_psi: population stability index of the lengths, in the reference's tenths.
        byte_share: by how much the share of tokens that are single bytes is larger than the reference's.
    """
    tokens, lengths = (
        [table.loc[table["kind"] == kind, "count"].to_numpy(np.float64) for table in (reference, current)]
        for kind in ("token", "length")
    )
    common = np.argsort(-tokens[0], kind="stable")[:COMMON_TOKENS]
    grouped = [np.append(counts[common], counts.sum() - counts[common].sum()) for counts in tokens]
    repeated = [np.repeat(np.arange(len(counts), dtype=np.float64), counts.astype(int)) for counts in lengths]
    byte_share, new_byte_share = (float(counts[-BYTES:].sum() / counts.sum()) for counts in tokens)
    return {
        "token_distance": jensen_shannon_distance(*grouped),
        "length_psi": stability_index(*repeated),
        "byte_share": new_byte_share - byte_share,
    }


def jensen_shannon_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Returns the square root of the Jensen-Shannon divergence, base 2, of two histograms over the same bins."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    divergence = sum((part[part > 0] * np.log2(part[part > 0] / middle[part > 0])).sum() for part in (p, q)) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def stability_index(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Returns the population stability index of `current`, float[n], in bins that hold a tenth of `reference` each.

    It is the sum over the bins of (q - p) ln(q / p), with p and q the shares (Siddiqi 2006, which calls less than 0.1
    insignificant and more than 0.25 a shift).
    """
    edges = np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1])
    p, q = (
        np.maximum(np.bincount(np.searchsorted(edges, values, side="right"), minlength=BINS) / len(values), LEAST_SHARE)
        for values in (reference, current)
    )
    return float(((q - p) * np.log(q / p)).sum())
