"""How every figure is drawn: one style, one palette, and SVG that stands alone or, `on_page`, inside the page.

Alone it is light on white, as MLflow shows it. On the page its colours are the page's CSS variables, so it
follows the page's light and dark style. Text is text, in the reader's font. Figures are drawn small (one column of a
phone) so that they need no zooming. The same data give the same SVG.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

# The light colours of templates/report.css under their names there; `on_page` puts `var(--name)` in their place.
PALETTE = {
    "series-1": "#2b6a99",
    "series-2": "#cf6227",
    "series-3": "#6b7785",
    "series-4": "#7a4f9c",
    "ink": "#22262c",
    "faint": "#8b95a1",
    "grid": "#e4e7ea",
}
SERIES = [PALETTE[f"series-{number}"] for number in (1, 2, 3, 4)]
INK, FAINT = PALETTE["ink"], PALETTE["faint"]
REFERENCE = {"color": FAINT, "linestyle": "--", "linewidth": 1.2}
"""The style of a line to compare with: chance, a tolerance."""
WIDTH = 4.4  # inches
_HEIGHT = 3.3
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


@contextmanager
def drawing(
    label: str, rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = _HEIGHT, **subplots: Any
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
