"""Figures of what models reach: for one model, as its MLflow run shows them, or for all, as the page does.

Each function takes what a report holds and returns SVG; see `drawing`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.reporting.drawing import FAINT, HEIGHT, INK, REFERENCE, Mark, Marks, drawing, label_ends, marks

if TYPE_CHECKING:
    import pandas as pd

    Tables = Mapping[str, pd.DataFrame]

AREAS = {"roc": "roc_auc", "precision_recall": "average_precision", "calibration": "ece"}
"""The metric that stands in the legend of each kind of `curves`."""
_LEGEND_LINE = 0.165  # inches


def accuracies(rows: Sequence[tuple[str, float, Sequence[float]]], known: Marks | None = None) -> str:
    """Draws name, accuracy and its interval, a line each, the most accurate first."""
    known, ordered = _marks(known, [name for name, _, _ in rows]), sorted(rows, key=lambda row: -row[1])
    with drawing("Test accuracy of each candidate with its 95% interval", height=0.65 + 0.3 * len(rows)) as (axes, svg):
        for place, (name, accuracy, (low, high)) in enumerate(ordered):
            mark = known[name]
            axes.plot([low, high], [place, place], color=mark.colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot(accuracy, place, mark.marker, color=mark.colour, markersize=6)
            axes.annotate(f"{accuracy:.2%}", (high, place), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(ordered)), [known[name].label for name, _, _ in ordered])
        axes.set(xlabel="test accuracy, 95% interval", ylim=(len(ordered) - 0.5, -0.5))
        axes.margins(x=0.16)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.xaxis.get_major_locator().set_params(nbins=5, steps=[1, 2, 5, 10])
        axes.grid(False, axis="y")
    return svg.getvalue()


def learning_curves(histories: "Tables", metric: str, known: Marks | None = None) -> str:
    """Draws `metric` (accuracy or loss) of what is learnt from and of validation by epoch."""
    known = _marks(known, histories)
    with drawing(f"{metric.capitalize()} by epoch, training and validation, of each model") as (axes, svg):
        for name, history in histories.items():
            for column, style in ((metric, "--"), (f"val_{metric}", "-")):
                _line(axes, history["epoch"], history[column], known[name], style)
        axes.set(title=metric.capitalize(), xlabel="epoch; solid: validation, dashed: training")
        axes.xaxis.get_major_locator().set_params(integer=True)
        last = {name: history.iloc[-1] for name, history in histories.items()}
        label_ends(axes, [(one["epoch"], one[f"val_{metric}"], known[name]) for name, one in last.items()])
    return svg.getvalue()


def _line(axes: Any, x: Any, y: Any, mark: Mark, style: str) -> None:
    """Draws a line with its points; one of a single point is a dash through it."""
    axes.plot(x, y, f"{mark.marker}{style}", color=mark.colour, markersize=3.5, linewidth=1.4)
    if len(x) == 1:
        (left,), (height,) = x, y
        axes.plot([left - 0.25, left + 0.25], [height, height], style, color=mark.colour, linewidth=1.4)


def curves(tables: "Tables", kind: str, metrics: Mapping[str, Mapping[str, Any]], known: Marks | None = None) -> str:
    """Draws the ROC or precision-recall curve of each model, with the area under it and what chance would reach.

    Args:
        tables: by model, as `evaluation.curves` has them.
        kind: roc or precision_recall.
        metrics: by model, what its metrics file holds.
        known: the marks of the models where the figure stands among others.
    """
    x, y, title, measure = {
        "roc": ("false_positive_rate", "true_positive_rate", "ROC", "AUC"),
        "precision_recall": ("recall", "precision", "Precision-recall", "AP"),
    }[kind]
    known = _marks(known, tables)
    with drawing(f"{title} curve of each model", width=3.5, height=_with_legend(3.75, tables)) as (axes, svg):
        if kind == "roc":
            axes.plot([0, 1], [0, 1], **REFERENCE, label="chance: 0.5")
        else:
            cells = next(iter(metrics.values()))["confusion"]
            positives = sum(cell["reviews"] for cell in cells if cell["actual"] == "positive")
            share = positives / sum(cell["reviews"] for cell in cells)
            axes.axhline(share, **REFERENCE, label=f"chance: {share:.2g}")
        for place, (name, table) in enumerate(tables.items()):
            mark, area = known[name], metrics[name][AREAS[kind]]
            axes.plot(
                table[x],
                table[y],
                color=mark.colour,
                marker=mark.marker,
                markersize=3.5,
                markevery=((place + 1) / (10 * len(tables)), 0.1),  # of the diagonal, so that each has its own places
                label=f"{mark.label}: {measure} {area:.4f}",
            )
        axes.set(title=title, xlabel=x.replace("_", " "), ylabel=y.replace("_", " "), aspect="equal")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.figure.legend(loc="outside lower left")
    return svg.getvalue()


def calibration(tables: "Tables", metrics: Mapping[str, Mapping[str, Any]], known: Marks | None = None) -> str:
    """Draws the reliability diagram of each model, and under it how many reviews each of its bins holds; arguments as
    those of `curves`."""
    label = "Calibration curve of each model, and the reviews in each bin"
    heights = {"sharex": True, "gridspec_kw": {"height_ratios": [3.2, 1]}}
    known = _marks(known, tables)
    with drawing(label, 2, 1, width=3.5, height=_with_legend(4.2, tables), **heights) as ((above, below), svg):
        above.plot([0, 1], [0, 1], **REFERENCE, label="perfectly calibrated")
        for name, table in tables.items():
            mark, ece = known[name], metrics[name][AREAS["calibration"]]
            style = {"color": mark.colour, "marker": mark.marker, "markersize": 3.5}
            above.plot(table["predicted"], table["observed"], **style, label=f"{mark.label}: ECE {ece:.4f}")
            below.hlines(table["reviews"], table["lower"], table["upper"], color=mark.colour, linewidth=2)
        above.set(title="Calibration", ylabel="share that is positive", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        above.figure.legend(loc="outside lower left")
        below.set(xlabel="predicted probability of positive", ylabel="reviews")
        below.set_ylim(bottom=0)
        below.yaxis.set_major_formatter("{x:,.0f}")
    return svg.getvalue()


def _with_legend(height: float, lines: "Tables") -> float:
    """Returns the height of a figure that has, under what it shows, a line of its legend for each of `lines` and for
    what they are compared with."""
    return height + _LEGEND_LINE * (len(lines) + 1)


def _marks(known: Marks | None, names: "Mapping[str, Any] | Sequence[str]") -> Marks:
    return known or marks({name: name for name in names})


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


def by_length(groups: Sequence[Mapping[str, Any]], best: str, known: Marks | None = None) -> str:
    """Draws the accuracy of each model by tenth of the reviews, from the shortest to the longest, with the intervals of
    `best`."""
    known, places = _marks(known, groups[0]["accuracy"]), np.arange(len(groups))
    with drawing("Test accuracy of each model by length of the review", height=1.2 * HEIGHT) as (axes, svg):
        for name in groups[0]["accuracy"]:
            if name == best:
                bounds = np.array([group["interval"][name] for group in groups])
                axes.fill_between(places, *bounds.T, color=known[name].colour, alpha=0.18, linewidth=0)
            _line(axes, places, [group["accuracy"][name] for group in groups], known[name], "-")
        axes.set_xticks(places, [f"{group['median']:.0f}" for group in groups])
        axes.set(title="Accuracy by length", xlabel="median tokens of a tenth of the reviews")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.get_major_locator().set_params(steps=[1, 2, 5, 10])
        label_ends(axes, [(places[-1], reached, known[name]) for name, reached in groups[-1]["accuracy"].items()])
    return svg.getvalue()


def labels_pay(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws test accuracy by number of labels, of the network taught and on labels alone and of the n-grams on the same
    labels: a point each seed, the line through their means.

    Args:
        rows: of `results.read_ablations`.
    """
    ways = (
        ("taught", "accuracy", Mark(INK, "o", "taught")),
        ("labels alone", "accuracy", Mark(INK, "s", "labels alone")),
        ("taught", "ngrams", Mark(FAINT, "^", "n-grams, same labels")),
    )
    with drawing("Test accuracy by number of labels, with the other reviews unlabelled") as (axes, svg):
        ends = []
        for what, figure, mark in ways:
            found = [(row["labelled"], list(row[figure].values())) for row in rows if row["what"] == what]
            if not found:
                continue
            labels, means = [count for count, _ in found], [float(np.mean(seeds)) for _, seeds in found]
            axes.plot(labels, means, ":" if what == "labels alone" else "-", color=mark.colour)
            for count, seeds in found:
                axes.plot([count] * len(seeds), seeds, mark.marker, color=mark.colour, markersize=3.5)
            ends.append((labels[-1], means[-1], mark))
        ticks = sorted({row["labelled"] for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set(title="How much labelling pays", xlabel="labelled reviews")
        axes.yaxis.set_major_formatter("{x:.0%}")
        label_ends(axes, ends)
    return svg.getvalue()
