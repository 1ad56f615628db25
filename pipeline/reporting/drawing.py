"""How every figure is drawn: one style, one palette, and SVG that stands alone or, `on_page`, inside the page.

A colour means a candidate and nothing else, the same one in every figure of a page, and its marker says so without
colour (`marks`); whatever is no candidate is drawn in ink and greys. Alone a figure is light on white, as MLflow shows
it. On the page its colours are the page's CSS variables, so it follows the page's light and dark style. Text is text,
in the reader's font. Figures are drawn small (one column of a phone) so that they need no zooming. The same data give
the same SVG.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

# The light colours of templates/report.css under their names there; `on_page` puts `var(--name)` in their place.
PALETTE = {
    "series-1": "#16325c",
    "series-2": "#d9662a",
    "series-3": "#0f7a6c",
    "series-4": "#5b2a86",
    "series-5": "#b52a5f",
    "series-6": "#8a8f1a",
    "bar": "#7a838e",
    "ink": "#22262c",
    "faint": "#8b95a1",
    "grid": "#e4e7ea",
}
_SERIES = [colour for name, colour in PALETTE.items() if name.startswith("series-")]
_MARKERS = "o^sDvPX"  # not as many as colours, so that a colour that repeats has another marker
BAR, INK, FAINT = PALETTE["bar"], PALETTE["ink"], PALETTE["faint"]
REFERENCE = {"color": FAINT, "linestyle": "--", "linewidth": 1.2}
"""The style of a line to compare with: chance, a tolerance."""
WIDTH = 4.4  # inches
HEIGHT = 3.3
_LONGEST_LABEL = 20  # characters, that a figure has room for beside its data
_LABEL_POINTS = 11  # from one label to the next
_PIXELS_A_POINT = 1.6  # of a figure that stands alone
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALETTE["grid"],
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
}
_IDLE = re.compile(
    r"<metadata>.*?</metadata>"
    r'| id="(?:figure|axes|patch|line2d|text|legend|matplotlib\.axis|xtick|ytick|Line|Path|Fill|image)[^"]*"'
    r'|font-family: [^;"]*;? ?',
    re.DOTALL,
)

Drawing = tuple[Any, io.StringIO]
"""Axes, as `Figure.subplots` returns them, and what holds their SVG once it is drawn."""


@dataclass(frozen=True)
class Mark:
    """How a candidate is drawn, and its name where that is long."""

    colour: str
    marker: str
    label: str


Marks = Mapping[str, Mark]


def marks(shown: Mapping[str, str]) -> dict[str, Mark]:
    """Returns the mark of each candidate, by name; no two are alike.

    Args:
        shown: by name, as it is called; a longer one than a figure has room for is cut in its middle.
    """
    cut = {name: _cut(called) for name, called in shown.items()}
    alike = {label for label in cut.values() if list(cut.values()).count(label) > 1}
    return {
        name: Mark(
            _SERIES[place % len(_SERIES)],
            _MARKERS[place % len(_MARKERS)],
            _cut(f"{place + 1}. {shown[name]}") if label in alike else label,
        )
        for place, (name, label) in enumerate(cut.items())
    }


def _cut(name: str) -> str:
    if len(name) <= _LONGEST_LABEL:
        return name
    kept = _LONGEST_LABEL - 1
    return f"{name[: kept - kept // 2]}…{name[-(kept // 2) :]}"


def label_ends(axes: Any, ends: Sequence[tuple[float, float, Mark]]) -> None:
    """Names lines at their right ends, (x, y) each, one label under the other; call it once all else is drawn."""
    axes.figure.get_layout_engine().execute(axes.figure)  # only then is it known how high the axes are
    gap = _LABEL_POINTS / (axes.bbox.height * 72 / axes.figure.dpi)
    inside = [axes.transAxes.inverted().transform(axes.transData.transform(end[:2]))[1] for end in ends]
    order = sorted(range(len(ends)), key=inside.__getitem__)
    places: list[float] = []
    for one in order:
        places.append(max(inside[one], places[-1] + gap) if places else inside[one])
    above = 1.0
    for step in reversed(range(len(places))):
        places[step] = min(places[step], above)
        above = places[step] - gap
    for one, place in zip(order, places, strict=True):
        x, y, mark = ends[one]
        line = {"arrowstyle": "-", "color": mark.colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(
            mark.label, (x, y), (1.06, place), textcoords="axes fraction", va="center", fontsize=8.5, arrowprops=line
        )


@contextmanager
def drawing(
    label: str, rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = HEIGHT, **subplots: Any
) -> Iterator[Drawing]:
    """Yields a drawing; `label` says what it shows to those who cannot see it, and names its clip paths."""
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context(["default", _STYLE | {"svg.hashsalt": label}]):
        figure = Figure(figsize=(width, height))
        figure.patch.set_visible(False)
        svg = io.StringIO()
        yield figure.subplots(rows, columns, **subplots), svg
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    across, down = (round(_PIXELS_A_POINT * 72 * inches) for inches in (width, height))
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{across}" '
        f'height="{down}" style="background: #fff; font-family: sans-serif" '
        f'viewBox="0 0 {72 * width:g} {72 * height:g}" role="img" aria-label="{escape(label)}">'
    )
    _, _, body = _IDLE.sub("", buffer.getvalue()).partition("<svg")
    svg.write(re.sub(r"\n\s*", "\n", opening + body.partition(">")[2]).strip() + "\n")


def on_page(svg: str) -> str:
    """Returns a drawing's SVG to stand inside the page."""
    svg = re.sub(r"^<svg .*?(?= viewBox=)", "<svg", svg).strip()
    for name, colour in PALETTE.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
