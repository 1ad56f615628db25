"""The labelled reviews whose labels are likely to be wrong, the most doubtful first, with the reasons for doubt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data.labelled import read_labelled
from pipeline.data.verdicts import DROP, KEEP, Verdict, read_verdicts, text_digest
from pipeline.evaluation.doubtful_labels import doubt
from pipeline.evaluation.metrics import probability
from pipeline.ngrams.cross_fitting import FOLDS, CrossFitted, cross_fit
from pipeline.project.atomic import atomic_write, read_table
from pipeline.project.errors import DataError
from pipeline.project.params import Params
from pipeline.project.paths import RAW, RAW_SPLITS, REVIEW_COLUMNS, SPLIT_TABLES
from pipeline.served_model.ngrams import NgramClassifier

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("negative", "positive")
EXPLAINED = 1000
"""So many of the most doubtful rows have their reasons; a person reads no more of them."""
TOP_SHARE = 0.05
"""The most doubtful rows among which `planted` looks for what it turned."""
_SPLITS = ("train", "validation", "fresh")  # never test: nobody looks for what to change there
_NGRAMS_SHOWN = 4


def doubtful(params: Params, rows: int) -> "pd.DataFrame":
    """Ranks the labelled reviews but those of test, and those that somebody has judged already.

    Returns:
        Of the `rows` most doubtful: rank, id, split, label, own_probability (cross-fitted n-grams', of that label),
        likely_wrong (whether confident learning's estimate of how many labels are wrong reaches so far), reasons, text.

    Raises:
        DataError: a split is missing, or has too few reviews of a label.
    """
    reviews = _reviews()
    crossed = _cross_fitted(reviews, reviews["label"].to_numpy(), params)
    found = doubt(reviews["label"].to_numpy(), probability(crossed.logit))
    judged = reviews["text"].map(text_digest).isin(list(read_verdicts())).to_numpy()
    order = found.order[~judged[found.order]][:rows]
    table = reviews.iloc[order].assign(
        own_probability=found.own[order].round(4), likely_wrong=found.wrong[order], rank=range(1, len(order) + 1)
    )
    table["reasons"] = [
        _reasons(text, label, crossed.classifiers[crossed.fold[row]]) if place < EXPLAINED else ""
        for place, (row, text, label) in enumerate(zip(order, table["text"], table["label"], strict=True))
    ]
    table["label"] = [LABELS[label] for label in table["label"]]
    columns = ["rank", "id", "split", "label", "own_probability", "likely_wrong", "reasons", "text"]
    return table[columns].reset_index(drop=True)


@dataclass(frozen=True)
class Planted:
    """How many labels were turned on purpose, and how many of them are among the `looked_at` most doubtful."""

    turned: int
    looked_at: int
    found: int


def planted(params: Params, share: float) -> Planted:
    """Turns a share of the labels, in memory, drawn with the seed, and looks for them among the most doubtful
    TOP_SHARE: how good the ranking is on these reviews."""
    reviews = _reviews()
    label = reviews["label"].to_numpy().copy()
    turned = np.random.default_rng(params.seed).choice(len(label), round(share * len(label)), replace=False)
    label[turned] = 1 - label[turned]
    found = doubt(label, probability(_cross_fitted(reviews, label, params).logit))
    top = found.order[: round(TOP_SHARE * len(label))]
    return Planted(len(turned), len(top), int(np.isin(turned, top).sum()))


def write(table: "pd.DataFrame", file: Path) -> None:
    """Writes what `doubtful` returns as CSV."""
    with atomic_write(file) as aside:
        table.to_csv(aside, index=False)


def review_of(review_id: str) -> tuple[str, int]:
    """Returns text and label of a raw or new labelled review; raises DataError where there is none of this id."""
    tables = [read_table(RAW / f"{split}.parquet", REVIEW_COLUMNS) for split in RAW_SPLITS]
    for table in (*tables, read_labelled()):
        found = table[table["id"] == review_id]
        if len(found):
            return str(found["text"].iloc[0]), int(found["label"].iloc[0])
    raise DataError(
        f"there is no review {review_id!r} in {RAW}/ or among the new labelled ones; ids are such as train/123"
    )


def kept(verdict: Verdict) -> str:
    """Says what a verdict makes of its review."""
    if verdict.verdict == DROP:
        return "is dropped"
    label = verdict.label if verdict.verdict == KEEP else 1 - verdict.label
    return f"counts as {LABELS[label]}"


def _reviews() -> "pd.DataFrame":
    import pandas as pd

    tables = [read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS).assign(split=split) for split in _SPLITS]
    return pd.concat(tables, ignore_index=True)


def _cross_fitted(reviews: "pd.DataFrame", label: NDArray[np.int64], params: Params) -> CrossFitted:
    if min(np.bincount(label, minlength=len(LABELS))) < FOLDS:
        raise DataError(f"{SPLIT_TABLES} holds fewer than {FOLDS} reviews of a label: too few to judge any")
    texts: Sequence[str] = reviews["text"].tolist()
    ngrams = params.ngrams
    return cross_fit(texts, label, max_ngram=ngrams.max_ngram, regularization=ngrams.regularization, seed=params.seed)


def _reasons(text: str, label: int, classifier: NgramClassifier) -> str:
    """Returns the n-grams of a text that speak most for the other label, the strongest first."""
    sign = 1 - 2 * label
    weights = classifier.contributions(text)
    against = sorted((ngram for ngram in weights if sign * weights[ngram] > 0), key=lambda n: -sign * weights[n])
    return ", ".join(f"“{ngram}”" for ngram in against[:_NGRAMS_SHOWN])
