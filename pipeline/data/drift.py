"""How far new reviews are from what a model was trained on: their tokens, their lengths, and how they are scored."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

COMMON_TOKENS = 500
"""Distributions are compared over the most frequent tokens of the reference, and all others as one: of 200 reviews most
rarer ones do not occur, so that over the whole vocabulary the distance would measure how few the reviews are."""
BYTES = 256
BINS = 10
LEAST_SHARE = 1e-4
"""A bin that nothing fell into counts as this much in a stability index, which knows no zero."""


def profile(token_ids: "Iterable[NDArray[np.int32]]", vocabulary_size: int) -> "pd.DataFrame":
    """Returns what is kept of the reviews that a model was trained on: how often each token id and each length occurs.

    Args:
        token_ids: int32[tokens] of each review.
        vocabulary_size: number of ids, padding included.

    Returns:
        The columns kind (token or length), value and count.
    """
    import pandas as pd

    reviews = list(token_ids)
    tokens = np.bincount(np.concatenate(reviews), minlength=vocabulary_size)
    lengths = np.bincount([len(ids) for ids in reviews])
    kinds = {"token": tokens, "length": lengths}
    return pd.concat(
        [pd.DataFrame({"kind": kind, "value": np.arange(len(n)), "count": n}) for kind, n in kinds.items()],
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
    (tokens, lengths), (new_tokens, new_lengths) = _counts(reference), _counts(current)
    common = np.argsort(-tokens, kind="stable")[:COMMON_TOKENS]
    return {
        "token_distance": jensen_shannon_distance(_grouped(tokens, common), _grouped(new_tokens, common)),
        "length_psi": stability_index(_repeated(lengths), _repeated(new_lengths)),
        "byte_share": float(_byte_share(new_tokens) - _byte_share(tokens)),
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


def _counts(table: "pd.DataFrame") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    by_kind = {kind: rows["count"].to_numpy(np.float64) for kind, rows in table.groupby("kind")}
    return by_kind["token"], by_kind["length"]


def _grouped(counts: NDArray[np.float64], common: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.append(counts[common], counts.sum() - counts[common].sum())


def _repeated(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(np.arange(len(lengths), dtype=np.float64), lengths.astype(int))


def _byte_share(tokens: NDArray[np.float64]) -> float:
    return float(tokens[-BYTES:].sum() / tokens.sum())
