"""Every figure is a PNG of its size whose bytes depend on the data alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation import curves, metrics
from pipeline.reporting import plots

GENERATOR = np.random.default_rng(0)
LABEL = GENERATOR.integers(0, 2, 2000)
LOGIT = GENERATOR.normal(2 * LABEL - 1, 1.5)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "accuracy": [0.7, 0.88, 0.93],
        "loss": [0.6, 0.3, 0.2],
        "val_accuracy": [0.8, 0.87, 0.86],
        "val_loss": [0.45, 0.31, 0.36],
    }
)
WIDTHS = {"padded_to_64": 64, "padded_to_1024": 1024}


def study(largest_masked_change: float) -> dict[str, object]:
    def outcome(change: float) -> dict[str, object]:
        return {"sentences": {"positive": 0.9, "negative": 0.1}, "largest_change": change}

    return {
        "reviews": 1000,
        "widths": WIDTHS,
        "tolerance": 1e-5,
        "masked": {"unpadded": outcome(0)} | {name: outcome(largest_masked_change) for name in WIDTHS},
        "unmasked": {"unpadded": outcome(0)} | {name: outcome(0.7) for name in WIDTHS},
    }


FIGURES: dict[str, Callable[[Path], None]] = {
    "roc": lambda path: plots.roc(path, curves.roc(LABEL, LOGIT), area=0.9),
    "precision_recall": lambda path: plots.precision_recall(
        path, curves.precision_recall(LABEL, LOGIT), average_precision=0.9, positive_share=0.5
    ),
    "calibration": lambda path: plots.calibration(path, curves.calibration(LABEL, LOGIT, bins=15), ece=0.02),
    "confusion": lambda path: plots.confusion(path, metrics.confusion(LABEL, LOGIT)),
    "learning_curves": lambda path: plots.learning_curves(path, HISTORY, kept_epoch=2),
    "learning_curves of one epoch": lambda path: plots.learning_curves(path, HISTORY[:1], kept_epoch=1),
    "batching": lambda path: plots.batching(
        path,
        lengths=np.arange(1, 129),
        batch_widths=np.array([64, 128]),
        batch_rows=np.array([64, 64]),
        batch_real_tokens=np.array([2080, 6176]),
    ),
    "padding_study": lambda path: plots.padding_study(path, study(2e-7)),
    "padding_study without any change": lambda path: plots.padding_study(path, study(0.0)),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_a_png_of_full_width_and_the_same_bytes_twice(
    figure: Callable[[Path], None], tmp_path: Path
) -> None:
    figure(tmp_path / "once.png")
    figure(tmp_path / "twice.png")
    with Image.open(tmp_path / "once.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 1200
        assert 500 < image.height < 1400
        assert len(image.convert("RGB").getcolors(maxcolors=2**24) or []) > 10  # something is drawn
        assert not {"Software", "Creation Time"} & set(image.info)
    assert (tmp_path / "once.png").read_bytes() == (tmp_path / "twice.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once.png", "twice.png"]


def test_a_users_own_matplotlib_style_does_not_change_a_figure(tmp_path: Path) -> None:
    import matplotlib

    plots.roc(tmp_path / "plain.png", curves.roc(LABEL, LOGIT), area=0.9)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.bbox": "tight"}):
        plots.roc(tmp_path / "styled.png", curves.roc(LABEL, LOGIT), area=0.9)
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()
