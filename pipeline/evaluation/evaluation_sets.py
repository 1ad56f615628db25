"""Evaluation sets of one's own: labelled texts on which every candidate is measured, alone or in pairs."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.copies import key
from pipeline.data.tabular import kind_of, open_source
from pipeline.evaluation import selective
from pipeline.evaluation.significance import wilson_interval
from pipeline.project.errors import DataError
from pipeline.project.params import EvaluationSet
from pipeline.project.paths import EVALUATION_SETS, PARAMS_FILE
from pipeline.served_model.tokenizer import why_unusable


@dataclass(frozen=True)
class LabelledTexts:
    """The usable rows of a file; `pair` is what `EvaluationSet.pair` names, "" for all where it names none."""

    text: Sequence[str]
    label: NDArray[np.int8]
    pair: Sequence[str]
    unusable: Mapping[str, int]  # rows by the reason


def read_set(file: Path, entry: EvaluationSet) -> LabelledTexts:
    """Reads the labelled texts of `file` as `entry` says.

    Raises:
        DataError: the file is missing or damaged, lacks a column, or has no usable row; the message names it.
    """
    source = open_source(file, [column for column in (entry.text, entry.label, entry.pair) if column])
    for option, column in (("text", entry.text), ("label", entry.label), ("pair", entry.pair)):
        if column is not None and column not in source.types:
            there = ", ".join(map(repr, source.types))
            raise DataError(f"{file} has no column {column!r}, which is its {option}; there are {there}")
    labels = dict.fromkeys(entry.negative, 0) | dict.fromkeys(entry.positive, 1)
    texts, found, pairs = [], [], []
    unusable: Counter[str] = Counter()
    for row in source.rows():
        label = labels.get(str(row.values.get(entry.label)).strip())
        reason = row.problem or why_unusable(row.values.get(entry.text))
        if label is None and not reason:
            reason = f"the label is none of {', '.join(labels)}: {row.values.get(entry.label)!r}"
        if reason or label is None:
            unusable[kind_of(str(reason))] += 1
            continue
        texts.append(row.values[entry.text])
        found.append(label)
        pairs.append(str(row.values[entry.pair]) if entry.pair else "")
    if not texts:
        why = f" ({unusable.most_common(1)[0][0]})" if unusable else ""
        raise DataError(f"{file} has no usable row{why}")
    return LabelledTexts(texts, np.array(found, np.int8), pairs, unusable)


def read_entry(name: str, entry: EvaluationSet) -> LabelledTexts:
    """Reads the evaluation set `name` of params.yaml; raises as `read_set`, naming the entry too."""
    try:
        return read_set(EVALUATION_SETS / entry.file, entry)
    except DataError as error:
        raise DataError(f"{error}; it is evaluation_sets.{name} of {PARAMS_FILE}") from None


def measure(found: LabelledTexts, probability: NDArray[np.float64], known: Set[str] | None = None) -> dict[str, Any]:
    """Returns `reviews`, `accuracy` with its 95% `interval` (Wilson 1927), `unusable_rows`, `also_in_train`, how many
    of the texts are `known`, None where that is not said, where only some are known the `accuracy` and `interval` on
    the `others`, and where there are pairs how many `pairs` there are and the share `both_right`.

    Args:
        probability: <float64>[rows], of positive.
        known: the keys of the training reviews (`copies.key`).
    """
    right = (probability > 0.5) == found.label
    together: dict[str, list[bool]] = {}
    for pair, is_right in zip(found.pair, right.tolist(), strict=True):
        if pair:
            together.setdefault(pair, []).append(is_right)
    pairs = [all(both) for both in together.values() if len(both) > 1]
    other = np.array([known is not None and key(text) not in known for text in found.text])
    return {
        "reviews": len(right),
        **_share(right),
        "unusable_rows": sum(found.unusable.values()),
        "also_in_train": None if known is None else int((~other).sum()),
        **({"others": _share(right[other])} if 0 < other.sum() < len(other) else {}),
        **({"pairs": len(pairs), "both_right": float(np.mean(pairs))} if pairs else {}),
    }


def _share(right: NDArray[np.bool_]) -> dict[str, Any]:
    return {"accuracy": float(right.mean()), "interval": wilson_interval(int(right.sum()), len(right))}


def report(
    entries: Mapping[str, EvaluationSet],
    scored: Callable[[Sequence[str]], NDArray[np.float64]],
    known: Set[str],
    band: selective.Band,
) -> dict[str, Any]:
    """Returns what `measure` says of each of the evaluation sets in params.yaml, by name, and of the answers outside
    the band under `sure`, as `selective.report` does."""
    measured = {}
    for name, entry in entries.items():
        found = read_entry(name, entry)
        probability = scored(found.text)
        sure = selective.report(found.label, probability, selective.is_sure(probability, band))
        measured[name] = measure(found, probability, known) | {"sure": sure}
    return measured


def sentences(measured: Mapping[str, Any], unusable: Mapping[str, int]) -> str:
    """Says what `measure` found, a sentence a line."""
    low, high = measured["interval"]
    lines = [
        f"accuracy {measured['accuracy']:.4f} on {measured['reviews']:,} texts (95% interval {low:.4f} to {high:.4f})"
    ]
    if "pairs" in measured:
        lines.append(f"both right in {measured['both_right']:.1%} of {measured['pairs']:,} pairs")
    if sure := measured.get("sure"):
        lines.append(f"sure of {sure['share']:.1%} of its answers" + _right(sure))
    if measured["also_in_train"]:
        known = f"{measured['also_in_train']:,} of the texts stand among the training reviews: there it is memory"
        if others := measured.get("others"):
            low, high = others["interval"]
            known += f"; on the others accuracy is {others['accuracy']:.4f} ({low:.4f} to {high:.4f})"
        lines.append(known)
    if unusable:
        most = "; ".join(f"{count:,} × {reason}" for reason, count in Counter(unusable).most_common(5))
        lines.append(f"{measured['unusable_rows']:,} rows cannot be used: {most}")
    return "\n".join(lines)


def _right(sure: Mapping[str, Any]) -> str:
    if "accuracy" not in sure:
        return ""
    low, high = sure["interval"]
    return f", of which {sure['accuracy']:.4f} are right ({low:.4f} to {high:.4f})"
