"""Figures of what the data's batches look like and of what the studies found: padding, gradients, gates.

Each function takes what a report holds and returns SVG; see `drawing`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipeline.reporting.drawing import (
    BAR,
    FAINT,
    INK,
    REFERENCE,
    WIDTH,
    Drawing,
    Mark,
    Marks,
    drawing,
    label_ends,
    marks,
)

Report = Mapping[str, Any]
_MODES = ("masked", "unmasked")


def padding_sentences(study: Report) -> str:
    """Draws one model's probability for both sample sentences by padding, masked and not."""
    names = {"unpadded": "none"} | {name: f"to {width:,}" for name, width in study["widths"].items()}
    with drawing("Probability of two sample sentences by padding") as (axes, svg):
        for mode, colour in zip(_MODES, (INK, BAR), strict=True):
            for sentence, marker in zip(study[mode]["unpadded"]["sentences"], "^v", strict=True):
                values = [study[mode][name]["sentences"][sentence] for name in names]
                axes.plot(list(names.values()), values, f"{marker}-", color=colour, label=f"{sentence}, {mode}")
        axes.axhline(0.5, **REFERENCE)
        axes.set(title="The two sample sentences", xlabel="padding", ylabel="probability of positive")
        axes.set_ylim(-0.04, 1.04)
        axes.figure.legend(loc="outside lower center", ncols=2)
    return svg.getvalue()


def padding_flips(studies: Mapping[str, Report], known: Marks | None = None) -> str:
    """Draws, by model and padding, the share of reviews whose predicted label padding changed."""
    title = "Labels that flip"
    dots = _padding_dots(studies, known, title, lambda each, study: each["flipped"] / study["reviews"], "{:.1%}")
    with dots as (both, svg):
        for axes in both:
            axes.set_xlim(-0.01, 1.35 * max(0.01, both[0].dataLim.x1, both[1].dataLim.x1))
            axes.xaxis.set_major_formatter("{x:.0%}")
            axes.xaxis.get_major_locator().set_params(nbins=4)
    return svg.getvalue()


def padding_changes(studies: Mapping[str, Report], known: Marks | None = None) -> str:
    """Draws, by model and padding, the largest change in probability of any review, on a logarithmic scale."""
    least = 1e-9  # a change of 0 has no place on a logarithmic scale
    study = next(iter(studies.values()))
    title = "Largest change in probability"
    with _padding_dots(studies, known, title, lambda each, _: each["largest_change"], "{:.2g}", least) as (both, svg):
        for axes in both:
            axes.axvline(study["tolerance"], **REFERENCE)
            axes.set(xscale="log", xlim=(least, 300))
            axes.set_xticks([1e-8, 1e-4, 1])
            axes.minorticks_off()
        both[0].figure.supxlabel(
            f"{study['reviews']:,} reviews; dashed: tolerance, {study['tolerance']:.0e}", fontsize=9
        )
    return svg.getvalue()


@contextmanager
def _padding_dots(
    studies: Mapping[str, Report],
    known: Marks | None,
    title: str,
    value: Callable[[Report, Report], float],
    shown: str,
    least: float = 0.0,
) -> Iterator[Drawing]:
    """Yields a drawing of `value`, of a padding's outcome and its study, by model and padding, a dot each, labelled as
    `shown` and no lower than `least`: masked on the left, with the mask left out on the right."""
    known = known or marks({name: name for name in studies})
    rows = [(model, name, width) for model, study in studies.items() for name, width in study["widths"].items()]
    label = f"{title} by model and padding, with the padding masked and not"
    with drawing(label, 1, 2, height=0.95 + 0.24 * len(rows), sharey=True) as (both, svg):
        for axes, mode in zip(both, _MODES, strict=True):
            for place, (model, name, _) in enumerate(rows):
                found = value(studies[model][mode][name], studies[model])
                dot = max(found, least), place
                axes.plot(*dot, known[model].marker, color=known[model].colour, markersize=5)
                axes.annotate(shown.format(found), dot, (6, 0), textcoords="offset points", va="center", fontsize=8)
            axes.set(title=mode, ylim=(len(rows) - 0.4, -0.6))
        both[0].set_yticks(range(len(rows)), [f"{known[model].label}, to {width:,}" for model, _, width in rows])
        both[0].figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        yield both, svg


def padding_shares(report: Mapping[str, Report]) -> str:
    """Draws how much of each split's batches is padding, beside shuffled batches of the classic kind."""
    with drawing("Share of padding by split, with and without bucketing", height=2.6) as (axes, svg):
        for place, split in enumerate(report.values()):
            for offset, name, colour in ((-0.2, "classic_padding_share", FAINT), (0.2, "padding_share", INK)):
                share = split[name]
                axes.barh(place + offset, share, height=0.36, color=colour)
                axes.annotate(f"{share:.1%}", (share, place + offset), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(report)), list(report))
        axes.set(title="Share of the work that is padding", xlim=(0, 0.9), ylim=(len(report) - 0.5, -0.5))
        axes.set(xlabel="above: shuffled batches of 64; below: batches of like length")
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.grid(False, axis="y")
    return svg.getvalue()


def batching(split: Report) -> str:
    """Draws how long a split's reviews are, how wide each of its batches is and how full (stage `batch`'s report)."""
    lengths, widths, fills = (split[name] for name in ("lengths", "batch_widths", "batch_fills"))
    full = 1 - split["padding_share"]
    label = "How long the reviews are, how wide each batch is padded, and how full it is"
    with drawing(label, 3, 1, height=6.2) as ((reviews, wide, filled), svg):
        reviews.stairs(lengths["reviews"], lengths["edges"], fill=True, color=BAR)
        reviews.axvline(lengths["median"], color=INK)
        reviews.text(
            lengths["median"], 0.93, f"  median: {lengths['median']:.0f}", transform=reviews.get_xaxis_transform()
        )
        reviews.set(title="How long the reviews are", xlabel="tokens", ylabel="reviews")
        reviews.yaxis.set_major_formatter("{x:,.0f}")
        wide.fill_between(range(len(widths)), widths, step="mid", color=BAR, linewidth=0)
        wide.set(title="How wide each batch is padded", xlabel="batches, narrowest first", ylabel="tokens per row")
        wide.set_ylim(bottom=0)
        filled.plot(widths, fills, "o", markersize=3, color=BAR, markeredgewidth=0)
        filled.axhline(full, color=INK)
        filled.text(1, 0.1, f"all batches: {full:.1%}", ha="right", transform=filled.transAxes)
        filled.set(title="How full each batch is", xlabel="tokens per row", ylabel="share not padding", ylim=(0, 1.04))
        filled.yaxis.set_major_formatter("{x:.0%}")
        for axes in (reviews, wide):
            axes.margins(x=0.01)
    return svg.getvalue()


CELL_NAMES = {
    "simple_rnn_random": "simple RNN, random U",
    "simple_rnn": "simple RNN, orthogonal U",
    "lstm": "LSTM",
}


def gradients(study: Report, moment: str) -> str:
    """Draws the gradient by distance from the last step, relative to the last one's, of each cell.

    Args:
        study: `gradient_reach.study`'s result.
        moment: untrained or trained.
    """
    least = 1e-12
    epochs = "1 epoch" if study["epochs"] == 1 else f"{study['epochs']} epochs"
    titles = {"untrained": "Before training", "trained": f"After {epochs}"}
    with drawing(f"{titles[moment]}: gradient by distance from the last step") as (axes, svg):
        ends = []
        for (colour, style), cell in zip(((FAINT, "-"), (BAR, ":"), (INK, "-")), CELL_NAMES, strict=True):
            gradient = np.array(study["cells"][cell][moment]["gradient"])
            drawn = np.flatnonzero(gradient >= least)
            axes.plot(drawn, gradient[drawn], style, color=colour)
            ends.append((float(drawn[-1]), float(gradient[drawn[-1]]), Mark(colour, "", CELL_NAMES[cell])))
        axes.axhline(study["reach_share"], **REFERENCE)
        axes.set(title=titles[moment], yscale="log", ylim=(least, 30), xlabel="steps back from the last token")
        axes.set(ylabel="gradient, last step = 1")
        axes.set_yticks([1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
        axes.minorticks_off()
        label_ends(axes, ends)
    return svg.getvalue()


def gates(followed: Report, model: str) -> str:
    """Draws gates and cell state of some units along a review (`lstm_trace.along`'s result), and under them what the
    model would say had the review ended there."""
    tokens = [token.strip() or "␣" for token in followed["tokens"]]
    width = max(WIDTH, 0.9 + 0.2 * len(tokens))
    label = f"Gates and cell state of {model} along one review"
    heights = {"height_ratios": [1, 1, 1, 1, 1.4]}
    with drawing(label, 5, 1, width=width, height=7.2, sharex=True, gridspec_kw=heights) as (every, svg):
        for axes, name in zip(every, GATE_NAMES, strict=False):
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
        last = every[-1]
        last.axhline(0.5, **REFERENCE)
        last.plot(range(len(tokens)), followed["probability"], "o-", color=INK, markersize=3)
        last.set_title("probability of positive, had the review ended here")
        last.set(ylim=(-0.05, 1.05))
        last.set_xticks(range(len(tokens)), tokens, rotation=90)
    return svg.getvalue()


GATE_NAMES = {
    "input_gate": "input gate: what is written",
    "forget_gate": "forget gate: what is kept",
    "output_gate": "output gate: what is shown",
    "cell": "cell state: brown below zero, blue above",
}


def _tinted(values: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Returns <float>[rows, columns, 4] RGBA: blue above 0, brown below, which no candidate is drawn in; the page shows
    through, light or dark."""
    blue, brown = (0.05, 0.57, 0.82), (0.64, 0.34, 0.10)
    colours = np.where(values[..., None] >= 0, blue, brown)
    return np.concatenate([colours, opacity[..., None]], axis=-1)
