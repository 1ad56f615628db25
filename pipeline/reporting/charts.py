"""Figures of what models reach: for one model, as its MLflow run shows them, or for all, as the page does.

Each function takes what a report holds and returns SVG; see `drawing`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.reporting.drawing import INK, REFERENCE, SERIES, drawing

if TYPE_CHECKING:
    import pandas as pd

    Tables = Mapping[str, pd.DataFrame]

AREAS = {"roc": "roc_auc", "precision_recall": "average_precision", "calibration": "ece"}
"""The metric that stands in the legend of each kind of `curves`."""


def accuracies(rows: Sequence[tuple[str, float, Sequence[float]]]) -> str:
    """Draws name, accuracy and its interval, a line each."""
    with drawing("Test accuracy of each model with its 95% interval", height=0.65 + 0.42 * len(rows)) as (axes, svg):
        for place, (colour, (_, accuracy, (low, high))) in enumerate(_coloured(rows)):
            axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(accuracy, place, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set(xlabel="test accuracy, 95% interval", ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_formatter("{x:.1%}")
        axes.xaxis.get_major_locator().set_params(nbins=5)
        axes.grid(False, axis="y")
    return svg.getvalue()


def learning_curves(histories: "Tables", metric: str) -> str:
    """Draws `metric` (accuracy or loss) of what is learnt from and of validation by epoch."""
    with drawing(f"{metric.capitalize()} by epoch, training and validation, of each model") as (axes, svg):
        for colour, (name, history) in _coloured(histories.items()):
            epoch, style = history["epoch"], {"color": colour, "markersize": 2.5}
            axes.plot(epoch, history[metric], "o--", **style, linewidth=1.2, label=f"{name}, training")
            axes.plot(epoch, history[f"val_{metric}"], "o-", **style, label=f"{name}, validation")
        axes.set(title=metric.capitalize(), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return svg.getvalue()


def curves(tables: "Tables", kind: str, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Draws the ROC or precision-recall curve of each model, with the area under it and what chance would reach.

    Args:
        tables: by model, as `evaluation.curves` has them.
        kind: roc or precision_recall.
        metrics: by model, what its metrics file holds.
    """
    x, y, title, measure = {
        "roc": ("false_positive_rate", "true_positive_rate", "ROC", "AUC"),
        "precision_recall": ("recall", "precision", "Precision-recall", "AP"),
    }[kind]
    with drawing(f"{title} curve of each model", width=3.5, height=3.6) as (axes, svg):
        if kind == "roc":
            axes.plot([0, 1], [0, 1], **REFERENCE, label="chance: 0.5")
        else:
            cells = next(iter(metrics.values()))["confusion"]
            positives = sum(cell["reviews"] for cell in cells if cell["actual"] == "positive")
            share = positives / sum(cell["reviews"] for cell in cells)
            axes.axhline(share, **REFERENCE, label=f"chance: {share:.2g}")
        for colour, (name, table) in _coloured(tables.items()):
            area = metrics[name][AREAS[kind]]
            axes.plot(table[x], table[y], color=colour, label=f"{name}: {measure} {area:.4f}")
        axes.set(title=title, xlabel=x.replace("_", " "), ylabel=y.replace("_", " "), aspect="equal")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(loc="lower right" if kind == "roc" else "lower left")
    return svg.getvalue()


def calibration(tables: "Tables", metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Draws the reliability diagram of each model, and under it how many reviews each of its bins holds; arguments as
    those of `curves`."""
    heights = {"height_ratios": [3.2, 1]}
    label = "Calibration curve of each model, and the reviews in each bin"
    with drawing(label, 2, 1, width=3.5, height=4.2, sharex=True, gridspec_kw=heights) as ((above, below), svg):
        above.plot([0, 1], [0, 1], **REFERENCE, label="perfectly calibrated")
        for colour, (name, table) in _coloured(tables.items()):
            shown = f"{name}: ECE {metrics[name][AREAS['calibration']]:.4f}"
            above.plot(table["predicted"], table["observed"], "o-", color=colour, markersize=3, label=shown)
            below.hlines(table["reviews"], table["lower"], table["upper"], color=colour, linewidth=2)
        above.set(title="Calibration", ylabel="share that is positive", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        above.legend(loc="upper left")
        below.set(xlabel="predicted probability of positive", ylabel="reviews")
        below.set_ylim(bottom=0)
        below.yaxis.set_major_formatter("{x:,.0f}")
    return svg.getvalue()


def confusion(table: "pd.DataFrame") -> str:
    """Draws the four counts of one model (`metrics.confusion`), each with its share of the actual label."""
    cells = table.pivot(index="actual", columns="predicted", values="reviews")
    counts = cells.to_numpy(np.int64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with drawing("Confusion matrix", width=3.5, height=3.3) as (axes, svg):
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
        for row, column in np.ndindex(counts.shape):
            fraction = share[row, column]
            colour = "white" if fraction > 0.6 else INK
            text = f"{counts[row, column]:,}\n{fraction:.1%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=13, linespacing=1.5, color=colour)
        axes.set(title="Confusion matrix", xlabel="predicted", ylabel="actual")
        axes.set_xticks(range(len(cells.columns)), cells.columns)
        axes.set_yticks(range(len(cells.index)), cells.index, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return svg.getvalue()


def by_length(groups: Sequence[Mapping[str, Any]], named: Callable[[str], str] = str) -> str:
    """Draws the accuracy of each model by tenth of the reviews, from the shortest to the longest, with intervals;
    `named` gives a model's name as the figure shows it."""
    with drawing("Test accuracy of each model by length of the review") as (axes, svg):
        places = np.arange(len(groups))
        for colour, name in _coloured(groups[0]["accuracy"]):
            bounds = np.array([group["interval"][name] for group in groups])
            axes.fill_between(places, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.15, linewidth=0)
            accuracy = [group["accuracy"][name] for group in groups]
            axes.plot(places, accuracy, "o-", color=colour, markersize=3.5, label=named(name))
        axes.set_xticks(places, [f"{group['median']:.0f}" for group in groups])
        axes.set(title="Accuracy by length", xlabel="median tokens of a tenth of the reviews")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.get_major_locator().set_params(steps=[1, 2, 5, 10])
        axes.legend()
    return svg.getvalue()


def labels_pay(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws test accuracy by number of labels, of the network taught and on labels alone and of the n-grams on the same
    labels: a dot each seed, the line through their means.

    Args:
        rows: of `results.read_ablations`.
    """
    ways = {"taught": "taught", "n-grams on the same labels": "taught", "labels alone": "labels alone"}
    with drawing("Test accuracy by number of labels, with the other reviews unlabelled") as (axes, svg):
        for colour, (name, what) in _coloured(ways.items()):
            found = [row for row in rows if row["what"] == what]
            seeds = [list(row["ngrams" if name.startswith("n-grams") else "accuracy"].values()) for row in found]
            labels = [row["labelled"] for row in found]
            axes.plot(labels, [np.mean(each) for each in seeds], "-", color=colour, label=name)
            for count, each in zip(labels, seeds, strict=True):
                axes.plot([count] * len(each), each, "o", color=colour, markersize=3.5)
        ticks = sorted({row["labelled"] for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set(title="How much labelling pays", xlabel="labelled reviews")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.legend()
    return svg.getvalue()


def _coloured(things: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    return zip(cycle(SERIES), things, strict=False)
