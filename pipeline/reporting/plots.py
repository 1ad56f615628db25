"""Figures: each function takes a path and data and writes one PNG, 1,200 pixels wide, readable at 800.

The same data give the same bytes: only matplotlib's own fonts and style are used, and no date or version is stored.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.project.atomic import atomic_write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY, INK = "#2b6a99", "#d1662b", "#9aa3ad", "#2e3440"
_WIDTH = 8.0  # inches
_DPI = 150
_STYLE = {
    "font.size": 11,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e8eb",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.12,  # inches
    "figure.constrained_layout.w_pad": 0.12,
}


@contextmanager
def figure(path: Path, rows: int, columns: int, height: float, **subplots: Any) -> Iterator[Any]:
    """Yields the axes of a new figure, as `Figure.subplots` returns them; the figure becomes `path` at the end."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.style import context

    matplotlib.use("Agg")
    with context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
        yield figure.subplots(rows, columns, **subplots)
        with atomic_write(path) as aside:
            figure.savefig(aside, metadata={"Software": None})


def _unit_axes(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")


def roc(path: Path, curve: "pd.DataFrame", *, area: float) -> None:
    """Draws `curves.roc`'s curve; `area` is the ROC AUC."""
    with figure(path, 1, 1, 6.4) as axes:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="chance: 0.5")
        axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], color=BLUE, label=f"model: {area:.4f}")
        _unit_axes(axes, "ROC curve", "false positive rate", "true positive rate")
        axes.legend(loc="lower right", title="area under the curve")


def precision_recall(path: Path, curve: "pd.DataFrame", *, average_precision: float, positive_share: float) -> None:
    """Draws `curves.precision_recall`'s curve; `positive_share` of the reviews is what chance would reach."""
    with figure(path, 1, 1, 6.4) as axes:
        chance = f"chance: {positive_share:.2g}"
        axes.axhline(positive_share, color=GREY, linestyle="--", linewidth=1.2, label=chance)
        axes.plot(curve["recall"], curve["precision"], color=BLUE, label=f"model: {average_precision:.4f}")
        _unit_axes(axes, "Precision-recall curve", "recall", "precision")
        axes.legend(loc="lower left", title="average precision")


def calibration(path: Path, curve: "pd.DataFrame", *, ece: float) -> None:
    """Draws `curves.calibration`'s reliability diagram, and under it how many reviews each bin holds."""
    with figure(path, 2, 1, 7.6, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]}) as (above, below):
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfectly calibrated")
        above.plot(curve["predicted"], curve["observed"], "o-", color=BLUE, markersize=5, label=f"model: ECE {ece:.4f}")
        above.set(title="Calibration", ylabel="share that is positive", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        above.legend(loc="upper left")
        width = curve["upper"] - curve["lower"]
        below.bar(curve["lower"], curve["reviews"], width=width, align="edge", color=BLUE, edgecolor="white")
        below.set(xlabel="predicted probability of positive", ylabel="reviews")
        _thousands(below.yaxis)


def confusion(path: Path, table: "pd.DataFrame") -> None:
    """Draws `curves.confusion`'s four counts, each with its share of the actual label."""
    cells = table.pivot(index="actual", columns="predicted", values="reviews")
    counts = cells.to_numpy(np.int64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with figure(path, 1, 1, 6.0) as axes:
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
        for row, column in np.ndindex(counts.shape):
            fraction = share[row, column]
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}\n{fraction:.1%}",
                ha="center",
                va="center",
                fontsize=17,
                linespacing=1.5,
                color="white" if fraction > 0.6 else INK,
            )
        axes.set(title="Confusion matrix", xlabel="predicted", ylabel="actual")
        axes.set_xticks(range(len(cells.columns)), cells.columns)
        axes.set_yticks(range(len(cells.index)), cells.index, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)


def learning_curves(path: Path, history: "pd.DataFrame", *, kept_epoch: int) -> None:
    """Draws accuracy and loss of both splits by epoch, with a line at the epoch whose weights were kept.

    Args:
        path: the PNG.
        history: columns epoch, accuracy, loss, val_accuracy, val_loss; one row an epoch.
    """
    with figure(path, 1, 2, 4.2) as panels:
        for axes, metric in zip(panels, ("accuracy", "loss"), strict=True):
            axes.axvline(kept_epoch, color=GREY, linestyle="--", linewidth=1.2, label="weights kept")
            axes.plot(history["epoch"], history[metric], "o-", markersize=4, color=BLUE, label="training")
            axes.plot(history["epoch"], history[f"val_{metric}"], "o-", markersize=4, color=ORANGE, label="validation")
            axes.set(title=metric.capitalize(), xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
        handles, labels = panels[0].get_legend_handles_labels()
        panels[0].figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3)


def batching(
    path: Path,
    *,
    lengths: np.ndarray,
    batch_widths: np.ndarray,
    batch_rows: np.ndarray,
    batch_real_tokens: np.ndarray,
) -> None:
    """Draws how long reviews are, how wide each batch is and how full.

    Args:
        path: the PNG.
        lengths: <int>[reviews], tokens of each review.
        batch_widths, batch_rows, batch_real_tokens: <int>[batches], columns, rows and tokens that are no padding.
    """
    fill = batch_real_tokens / (batch_widths * batch_rows)
    overall = batch_real_tokens.sum() / (batch_widths * batch_rows).sum()
    order = np.argsort(batch_widths, kind="stable")
    with figure(path, 3, 1, 9.0) as (reviews, widths, fills):
        reviews.hist(lengths, bins=64, color=BLUE, edgecolor="white", linewidth=0.4)
        median = float(np.median(lengths))
        reviews.axvline(median, color=ORANGE, linewidth=1.5)
        reviews.text(median, 0.93, f"  median: {median:.0f}", transform=reviews.get_xaxis_transform())
        reviews.set(title="How long the reviews are", xlabel="tokens", ylabel="reviews")
        _thousands(reviews.yaxis)
        widths.fill_between(range(len(order)), batch_widths[order], step="mid", color=BLUE, alpha=0.85, linewidth=0)
        widths.set(title="How wide each batch is padded", xlabel="batches, narrowest first", ylabel="tokens a row")
        widths.set_ylim(bottom=0)
        fills.axhline(overall, color=ORANGE, linewidth=1.5, label=f"all batches: {overall:.1%}")
        fills.plot(batch_widths, fill, "o", markersize=4, color=BLUE, alpha=0.45, markeredgewidth=0)
        fills.set(title="How full each batch is", xlabel="tokens a row", ylabel="share not padding", ylim=(0, 1.04))
        fills.yaxis.set_major_formatter("{x:.0%}")
        fills.legend(loc="lower right")
        for axes in (reviews, widths):
            axes.margins(x=0.01)


def padding_study(path: Path, study: dict[str, Any]) -> None:
    """Draws the result of `padding_study`: both sentences' probability, and the largest change of any review."""
    names = {"unpadded": "none"} | {name: f"to {width:,}" for name, width in study["widths"].items()}
    modes = (("masked", BLUE), ("unmasked", ORANGE))
    with figure(path, 1, 2, 4.8) as (sentences, changes):
        for mode, colour in modes:
            for sentence, marker in zip(study[mode]["unpadded"]["sentences"], "^v", strict=True):
                values = [study[mode][name]["sentences"][sentence] for name in names]
                label = f"{sentence}, {mode}"
                sentences.plot(list(names.values()), values, f"{marker}-", color=colour, markersize=8, label=label)
        sentences.axhline(0.5, color=GREY, linestyle="--", linewidth=1.2)
        sentences.set(title="The two sample sentences", ylabel="probability of positive", ylim=(-0.04, 1.04))
        sentences.set_xlabel("padding")
        sentences.margins(x=0.12)
        _largest_changes(changes, study, modes)
        sentences.figure.legend(loc="outside lower center", ncols=4, fontsize=10, columnspacing=1.5)


def _largest_changes(axes: "Axes", study: dict[str, Any], modes: Sequence[tuple[str, str]]) -> None:
    """Draws, on a logarithmic scale, the largest change in probability of any review by padding and mode."""
    least = 1e-8  # a change of 0 has no place on a logarithmic scale
    for offset, (mode, colour) in zip((-0.2, 0.2), modes, strict=True):
        for place, name in enumerate(study["widths"]):
            change = study[mode][name]["largest_change"]
            axes.bar(place + offset, max(change, least), width=0.36, color=colour)
            axes.text(place + offset, max(change, least) * 1.3, f"{change:.1g}", ha="center", fontsize=10)
    tolerance = study["tolerance"]
    axes.axhline(tolerance, color=GREY, linestyle="--", linewidth=1.2)
    axes.text(-0.2, tolerance * 1.3, f"tolerance\n{tolerance:.0e}", ha="center", fontsize=9)
    axes.set(title=f"Largest change in {study['reviews']:,} reviews", ylabel="change in probability", yscale="log")
    axes.set(ylim=(least, 5), xlabel="padding")
    axes.set_xticks(range(len(study["widths"])), [f"to {width:,}" for width in study["widths"].values()])
    axes.grid(False, axis="x")


def _thousands(axis: Any) -> None:
    axis.set_major_formatter("{x:,.0f}")
