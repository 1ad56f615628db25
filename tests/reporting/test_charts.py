"""Every figure is SVG whose bytes depend on the data alone; alone it is light on white, on the page it takes the page's
colours."""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from pipeline.evaluation import curves, metrics
from pipeline.reporting import charts, study_charts
from pipeline.reporting.drawing import PALETTE, marks, on_page
from pipeline.stages.batch import distribution
from pipeline.text.batching import bucketed_rows

SVG = "{http://www.w3.org/2000/svg}"
GENERATOR = np.random.default_rng(0)
LABEL = GENERATOR.integers(0, 2, 2000)
LOGIT = GENERATOR.normal(2 * LABEL - 1, 1.5)
CONFUSION = pd.DataFrame(metrics.confusion(LABEL, LOGIT))
MEASURED = {"roc_auc": 0.9, "average_precision": 0.91, "ece": 0.02, "confusion": CONFUSION.to_dict("records")}
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "accuracy": [0.7, 0.88, 0.93],
        "loss": [0.6, 0.3, 0.2],
        "val_accuracy": [0.8, 0.87, 0.86],
        "val_loss": [0.45, 0.31, 0.36],
    }
)
LENGTHS = np.arange(1, 129)
BATCHES = [LENGTHS[rows] for rows in bucketed_rows(LENGTHS, batch_size=64, pool_batches=1, seed=1)]
WIDTHS = {"padded_to_64": 64, "padded_to_1024": 1024}


def study(largest_masked_change: float) -> dict[str, Any]:
    def outcome(change: float) -> dict[str, object]:
        return {"sentences": {"positive": 0.9, "negative": 0.1}, "largest_change": change, "flipped": 7}

    return {
        "reviews": 1000,
        "widths": WIDTHS,
        "tolerance": 1e-5,
        "masked": {"unpadded": outcome(0)} | {name: outcome(largest_masked_change) for name in WIDTHS},
        "unmasked": {"unpadded": outcome(0)} | {name: outcome(0.7) for name in WIDTHS},
    }


def roc() -> str:
    return charts.curves({"mine": curves.roc(LABEL, LOGIT)}, "roc", {"mine": MEASURED})


FIGURES: dict[str, tuple[Callable[[], str], list[str]]] = {
    "roc": (roc, ["mine: AUC 0.9000", "chance: 0.5"]),
    "precision_recall": (
        lambda: charts.curves({"mine": curves.precision_recall(LABEL, LOGIT)}, "precision_recall", {"mine": MEASURED}),
        ["mine: AP 0.9100", f"chance: {LABEL.mean():.2g}"],
    ),
    "calibration": (
        lambda: charts.calibration({"mine": curves.calibration(LABEL, LOGIT, bins=15)}, {"mine": MEASURED}),
        ["mine: ECE 0.0200", "perfectly calibrated", "reviews"],
    ),
    "confusion": (lambda: charts.confusion(CONFUSION), [f"{CONFUSION['reviews'].iloc[0]:,}", "negative", "positive"]),
    "learning_accuracy": (
        lambda: charts.learning_curves({"mine": HISTORY}, "accuracy"),
        ["mine", "epoch; solid: validation, dashed: training"],
    ),
    "learning_loss of one epoch": (
        lambda: charts.learning_curves({"mine": HISTORY[:1]}, "loss"),
        ["mine"],
    ),
    "batching": (
        lambda: study_charts.batching(distribution(LENGTHS, BATCHES) | {"padding_share": 0.03}),
        ["median: 64", "all batches: 97.0%"],
    ),
    "padding_sentences": (
        lambda: study_charts.padding_sentences(study(2e-7)),
        ["positive, masked", "negative, unmasked", "to 1,024"],
    ),
    "padding_flips": (
        lambda: study_charts.padding_flips({"mine": study(0)}),
        ["mine, to 64", "masked", "unmasked", "0.7%"],
    ),
    "padding_changes": (lambda: study_charts.padding_changes({"mine": study(2e-7)}), ["2e-07", "0.7"]),
    "padding_changes without any": (lambda: study_charts.padding_changes({"mine": study(0.0)}), ["0", "0.7"]),
}


@pytest.mark.parametrize(("figure", "said"), FIGURES.values(), ids=FIGURES)
def test_a_figure_is_a_picture_of_its_own_and_the_same_bytes_twice(figure: Callable[[], str], said: list[str]) -> None:
    svg = figure()
    assert svg == figure()
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and int(root.attrib["width"]) > 300
    assert root.attrib["aria-label"] and "background: #fff" in root.attrib["style"]
    assert set(said) <= set(texts(svg))
    assert "var(" not in svg and "<metadata" not in svg


@pytest.mark.parametrize("figure", [roc])
def test_a_users_own_matplotlib_style_does_not_change_a_figure(figure: Callable[[], str]) -> None:
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.bbox": "tight"}):
        styled = figure()
    assert styled == figure()


def test_on_the_page_a_figure_takes_the_pages_colours() -> None:
    inside = on_page(roc())
    assert inside.startswith('<svg viewBox="') and 'aria-label="ROC' in inside
    assert "var(--series-1)" in inside and "var(--ink)" in inside
    assert not any(colour in inside for colour in PALETTE.values())


def test_the_palette_is_that_of_the_pages_light_style() -> None:
    css = (ROOT / "pipeline/reporting/templates/report.css").read_text()
    light = dict(re.findall(r"--([\w-]+): (#\w+)", css.partition("@media")[0]))
    assert {name: light[name] for name in PALETTE} == PALETTE


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def by_length(names: list[str]) -> str:
    group = {"median": 90.0, "accuracy": dict.fromkeys(names, 0.8), "interval": {name: [0.7, 0.9] for name in names}}
    return charts.by_length([group, group], names[0])


def test_a_figure_shows_every_model_however_many_there_are() -> None:
    names = [f"model-{number}" for number in range(9)]
    assert set(names) <= set(texts(by_length(names)))


def test_no_two_candidates_look_alike() -> None:
    drawn = marks({f"model-{number}": f"model-{number}" for number in range(20)}).values()
    assert len({(mark.colour, mark.marker) for mark in drawn}) == 20
    assert len({mark.colour for mark in list(drawn)[:6]}) == 6


def test_colours_differ_in_grey_too() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2

    shades = [lightness(mark.colour) for mark in marks({name: name for name in "abcdef"}).values()]
    assert all(max(pair) / min(pair) > 1.5 for pair in pairwise(shades))  # neighbours in params.yaml


def test_a_candidate_keeps_its_mark_whatever_else_a_figure_shows() -> None:
    known = marks({"one": "one", "two": "two"})
    drawn = on_page(charts.learning_curves({"two": HISTORY}, "loss", known))
    assert "var(--series-2)" in drawn and "var(--series-1)" not in drawn


@pytest.mark.parametrize("length", [36, 68])
def test_a_long_name_neither_shrinks_a_figure_nor_is_cut_off_by_its_edge(length: int) -> None:
    names = ["x" * (length - 1) + end for end in "ab"]
    for drawn in (by_length(names), charts.accuracies([(name, 0.8, (0.7, 0.9)) for name in names])):
        shown = [text for text in texts(drawn) if "x" in text and "accuracy" not in text]
        assert len(set(shown)) == 2 and all(len(text) <= 20 and "…" in text for text in shown)


def test_names_that_are_cut_alike_are_told_apart() -> None:
    middles = [f"{'a' * 20}{middle}{'z' * 20}" for middle in "12"]
    first, second = (mark.label for mark in marks({name: name for name in middles}).values())
    assert first != second and first.startswith("1.") and second.startswith("2.")


def test_labels_at_lines_do_not_cover_each_other() -> None:
    names = [f"model-{number}" for number in range(6)]
    drawn = ElementTree.fromstring(by_length(names))
    placed = [text for text in drawn.iter(f"{SVG}text") if "model-" in "".join(text.itertext())]
    heights = sorted(float(text.attrib["y"]) for text in placed)
    assert len(heights) == 6 and all(below - above > 8.5 for above, below in pairwise(heights))


def test_the_line_of_one_epoch_is_drawn() -> None:
    for epochs in (1, 3):
        drawn = charts.learning_curves({"mine": HISTORY[:epochs]}, "loss")
        lines = re.findall(
            r'<path d="M ([\d.]+) [\d.]+\s+L ([\d.]+)[^>]*stroke: #16325c; stroke-width: 1.4', drawn, re.DOTALL
        )
        assert len([line for line in lines if line[0] != line[1]]) >= 2, epochs
