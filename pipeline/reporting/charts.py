"""The report page's figures: each function takes what a report holds and returns one SVG to stand inside the page.

Colours are the page's CSS variables, so a figure follows its light and dark style, and text is text, in the page's
font. They are drawn small (one column of a phone) so that they need no zooming. The same data give the same SVG.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.reporting.results import named

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# matplotlib wants colours; each of these becomes `var(--name)`.
_PALETTE = {
    "series-1": "#0000a1",
    "series-2": "#0000a2",
    "series-3": "#0000a3",
    "series-4": "#0000a4",
    "ink": "#0000a5",
    "faint": "#0000a6",
    "grid": "#0000a7",
}
_SERIES = [_PALETTE[f"series-{number}"] for number in (1, 2, 3, 4)]
_INK, _FAINT = _PALETTE["ink"], _PALETTE["faint"]
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _PALETTE["grid"],
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
}
_WIDTH, _HEIGHT = 4.4, 3.3  # inches
_IDLE_IDS = re.compile(
    r' id="(?:figure|axes|patch|line2d|text|legend|matplotlib\.axis|xtick|ytick|Line|Path|Fill|image)[^"]*"'
)


class _Drawing:
    """A figure being drawn: its `axes`, and once it is done its `svg`."""

    def __init__(self, axes: Any) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def _drawing(
    label: str, rows: int = 1, columns: int = 1, *, width: float = _WIDTH, height: float = _HEIGHT, **subplots: Any
) -> Iterator[_Drawing]:
    """Yields a drawing; `label` says what it shows to those who cannot see it, and names its clip paths."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.style import context

    matplotlib.use("Agg")
    with context(["default", _STYLE | {"svg.hashsalt": label}]):
        figure = Figure(figsize=(width, height))
        figure.patch.set_visible(False)
        drawing = _Drawing(figure.subplots(rows, columns, **subplots))
        yield drawing
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing.svg = _for_page(buffer.getvalue(), label)


def _for_page(svg: str, label: str) -> str:
    from html import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = _IDLE_IDS.sub("", body)
    view_box = re.search(r'viewBox="[^"]+"', body)
    assert view_box
    opening = f'<svg {view_box[0]} role="img" aria-label="{escape(label)}">'
    body = re.sub(r"<svg[^>]*>", lambda _: opening, body, count=1, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for name, colour in _PALETTE.items():
        body = body.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", body).strip()


def accuracies(rows: Sequence[tuple[str, float, Sequence[float]]]) -> str:
    """Draws name, accuracy and its interval, a line each."""
    with _drawing("Test accuracy of each model with its 95% interval", height=0.65 + 0.42 * len(rows)) as drawing:
        axes = drawing.axes
        for place, (_, accuracy, (low, high)) in enumerate(rows):
            colour = _SERIES[place % len(_SERIES)]
            axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(accuracy, place, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set(xlabel="test accuracy, 95% interval", ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_formatter("{x:.1%}")
        axes.xaxis.get_major_locator().set_params(nbins=5)
        axes.grid(False, axis="y")
    return drawing.svg


def learning_curves(histories: "Mapping[str, pd.DataFrame]", metric: str, kept: Mapping[str, int]) -> str:
    """Draws `metric` (accuracy or loss) of both splits by epoch, and marks the epoch whose weights were kept."""
    with _drawing(f"{metric.capitalize()} by epoch, training and validation, of each model") as drawing:
        axes = drawing.axes
        for colour, (name, history) in zip(cycle(_SERIES), histories.items(), strict=False):
            axes.plot(history["epoch"], history[metric], "--", color=colour, linewidth=1.2, label=f"{name}, training")
            axes.plot(history["epoch"], history[f"val_{metric}"], color=colour, label=f"{name}, validation")
            chosen = history[history["epoch"] == kept[name]]
            axes.plot(chosen["epoch"], chosen[f"val_{metric}"], "o", color=colour, markersize=6)
        axes.set(title=metric.capitalize(), xlabel="epoch (dot: weights kept)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return drawing.svg


def curves(tables: "Mapping[str, pd.DataFrame]", kind: str, areas: Mapping[str, float]) -> str:
    """Draws the curves of a `kind` of all models, with the area (or error) of each in the legend.

    Args:
        tables: by model, as `evaluation` has them.
        kind: roc, precision_recall or calibration.
    """
    x, y, title, measure = {
        "roc": ("false_positive_rate", "true_positive_rate", "ROC", "AUC"),
        "precision_recall": ("recall", "precision", "Precision-recall", "AP"),
        "calibration": ("predicted", "observed", "Calibration", "ECE"),
    }[kind]
    with _drawing(f"{title} curve of each model", width=3.5, height=3.6) as drawing:
        axes = drawing.axes
        if kind != "precision_recall":
            axes.plot([0, 1], [0, 1], ":", color=_FAINT, linewidth=1.2)
        for colour, (name, table) in zip(cycle(_SERIES), tables.items(), strict=False):
            style = "o-" if kind == "calibration" else "-"
            label = f"{name}: {measure} {areas[name]:.4f}"
            axes.plot(table[x], table[y], style, color=colour, markersize=3, label=label)
        axes.set(title=title, xlabel=x.replace("_", " "), ylabel=y.replace("_", " "), aspect="equal")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        if kind == "calibration":
            axes.set(xlabel="predicted probability of positive", ylabel="share that is positive")
        axes.legend(loc={"roc": "lower right", "precision_recall": "lower left", "calibration": "upper left"}[kind])
    return drawing.svg


def by_length(groups: Sequence[Mapping[str, Any]]) -> str:
    """Draws the accuracy of each model by tenth of the reviews, from the shortest to the longest, with intervals."""
    with _drawing("Test accuracy of each model by length of the review") as drawing:
        axes = drawing.axes
        places = np.arange(len(groups))
        for colour, name in zip(cycle(_SERIES), groups[0]["accuracy"], strict=False):
            bounds = np.array([group["interval"][name] for group in groups])
            axes.fill_between(places, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.15, linewidth=0)
            accuracy = [group["accuracy"][name] for group in groups]
            axes.plot(places, accuracy, "o-", color=colour, markersize=3.5, label=named(name))
        axes.set_xticks(places, [f"{group['median']:.0f}" for group in groups])
        axes.set(title="Accuracy by length", xlabel="median tokens of a tenth of the reviews")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.get_major_locator().set_params(steps=[1, 2, 5, 10])
        axes.legend()
    return drawing.svg


def padding_flips(studies: Mapping[str, Mapping[str, Any]]) -> str:
    """Draws, by model and padding, the share of reviews whose predicted label padding changed."""
    return _padding_bars(
        studies,
        "flipped",
        "Labels that flip",
        lambda value, study: value / study["reviews"],
        "{x:.0%}",
    )


def padding_changes(studies: Mapping[str, Mapping[str, Any]]) -> str:
    """Draws, by model and padding, the largest change in probability of any review, on a logarithmic scale."""
    return _padding_bars(studies, "largest_change", "Largest change in probability", lambda value, _: value, None)


def _padding_bars(
    studies: Mapping[str, Mapping[str, Any]], figure: str, title: str, scaled: Any, percent: str | None
) -> str:
    least = 1e-9  # a change of 0 has no place on a logarithmic scale
    bars: list[tuple[str, float, str]] = []
    for model, study in studies.items():
        for name, width in study["widths"].items():
            for mode, colour in (("masked", _SERIES[0]), ("unmasked", _SERIES[1])):
                value = float(scaled(study[mode][name][figure], study))
                bars.append((f"{model}, to {width:,}, {mode}", value, colour))
    with _drawing(f"{title} by model and padding", height=0.75 + 0.3 * len(bars)) as drawing:
        axes = drawing.axes
        floor = least if percent is None else 0.0
        for place, (_, value, colour) in enumerate(bars):
            axes.barh(place, max(value, floor) - floor, left=floor, color=colour, height=0.7)
            shown = f"{value:.1g}" if percent is None else f"{value:.1%}"
            axes.annotate(shown, (max(value, floor), place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
        axes.set(title=title, ylim=(len(bars) - 0.4, -0.6))
        if percent is None:
            axes.set(xscale="log", xlim=(least, 30))
            axes.set_xticks([1e-8, 1e-6, 1e-4, 1e-2, 1])
            axes.minorticks_off()
            _tolerance(axes, next(iter(studies.values()))["tolerance"])
        else:
            axes.set(xlim=(0, 1.25 * max(0.01, *(value for _, value, _ in bars))))
            axes.xaxis.set_major_formatter(percent)
        axes.grid(False, axis="y")
    return drawing.svg


def _tolerance(axes: "Axes", tolerance: float) -> None:
    axes.axvline(tolerance, color=_FAINT, linestyle="--", linewidth=1.2)
    axes.set(xlabel=f"dashed: tolerance, {tolerance:.0e}")


def batching(report: Mapping[str, Mapping[str, Any]]) -> str:
    """Draws how much of each split's batches is padding, beside shuffled batches of the classic kind."""
    with _drawing("Share of padding by split, with and without bucketing", height=2.6) as drawing:
        axes = drawing.axes
        for place, split in enumerate(report.values()):
            for offset, share, colour in (
                (-0.2, split["classic_padding_share"], _SERIES[1]),
                (0.2, split["padding_share"], _SERIES[0]),
            ):
                axes.barh(place + offset, share, height=0.36, color=colour)
                axes.annotate(f"{share:.1%}", (share, place + offset), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(report)), list(report))
        axes.set(title="Share of the work that is padding", xlim=(0, 0.9), ylim=(len(report) - 0.5, -0.5))
        axes.set(xlabel="above: shuffled batches of 64; below: batches of like length")
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.grid(False, axis="y")
    return drawing.svg


CELL_NAMES = {
    "simple_rnn_random": "simple RNN, random U",
    "simple_rnn": "simple RNN, orthogonal U",
    "lstm": "LSTM",
}


def gradients(study: Mapping[str, Any], moment: str) -> str:
    """Draws the gradient by distance from the last step, relative to the last one's, of each cell.

    Args:
        study: `gradient_reach.study`'s result.
        moment: untrained or trained.
    """
    least = 1e-12
    titles = {"untrained": "Before training", "trained": f"After {study['epochs']} epochs"}
    with _drawing(f"{titles[moment]}: gradient by distance from the last step") as drawing:
        axes = drawing.axes
        for colour, cell in zip((_SERIES[2], _SERIES[1], _SERIES[0]), CELL_NAMES, strict=True):
            gradient = np.array(study["cells"][cell][moment]["gradient"])
            axes.plot(np.where(gradient < least, np.nan, gradient), color=colour, label=CELL_NAMES[cell])
        axes.axhline(study["reach_share"], color=_FAINT, linestyle="--", linewidth=1.2)
        axes.set(title=titles[moment], yscale="log", ylim=(least, 30), xlabel="steps back from the last token")
        axes.set(ylabel="gradient, last step = 1")
        axes.set_yticks([1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
        axes.minorticks_off()
        axes.legend(loc="lower right")
    return drawing.svg


def gates(followed: Mapping[str, Any], model: str) -> str:
    """Draws gates and cell state of some units along a review (`lstm_trace.along`'s result), and under them what the
    model would say had the review ended there."""
    tokens = [token.strip() or "␣" for token in followed["tokens"]]
    width = max(_WIDTH, 0.9 + 0.2 * len(tokens))
    label = f"Gates and cell state of {model} along one review"
    heights = {"height_ratios": [1, 1, 1, 1, 1.4]}
    with _drawing(label, 5, 1, width=width, height=7.2, sharex=True, gridspec_kw=heights) as drawing:
        for axes, name in zip(drawing.axes, GATE_NAMES, strict=False):
            values = np.array(followed[name])
            least, most = values.min(), values.max()
            opacity = (values - least) / max(most - least, 1e-9)
            if name == "cell":
                opacity = np.abs(values) / max(np.abs(values).max(), 1e-9)
            axes.imshow(_tinted(values, opacity), aspect="auto", interpolation="none")
            axes.set_title(f"{GATE_NAMES[name]} ({least:.2f} to {most:.2f})".replace("-", "−"))
            axes.set_yticks(range(len(values)), [str(unit) for unit in followed["shown"]], fontsize=6)
            axes.tick_params(length=0)
            axes.grid(False)
        last = drawing.axes[-1]
        last.axhline(0.5, color=_FAINT, linestyle="--", linewidth=1.2)
        last.plot(range(len(tokens)), followed["probability"], "o-", color=_SERIES[0], markersize=3)
        last.set_title("probability of positive, had the review ended here")
        last.set(ylim=(-0.05, 1.05))
        last.set_xticks(range(len(tokens)), tokens, rotation=90)
    return drawing.svg


GATE_NAMES = {
    "input_gate": "input gate: what is written",
    "forget_gate": "forget gate: what is kept",
    "output_gate": "output gate: what is shown",
    "cell": "cell state: orange below zero, blue above",
}


def _tinted(values: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Returns <float>[rows, columns, 4] RGBA: blue above 0, orange below; the page shows through, light or dark."""
    blue, orange = (0.21, 0.49, 0.71), (0.85, 0.42, 0.18)
    colours = np.where(values[..., None] >= 0, blue, orange)
    return np.concatenate([colours, opacity[..., None]], axis=-1)
