"""Accuracy on the test reviews with a person's corrections of their labels: a second figure, beside the first."""

from typing import TYPE_CHECKING, Any

from pipeline.evaluation.significance import wilson_interval
from pipeline.project.atomic import read_table
from pipeline.project.paths import SPLIT_TABLES

if TYPE_CHECKING:
    import pandas as pd


def corrected(predictions: "pd.DataFrame") -> dict[str, Any]:
    """Returns `corrected` for predictions (id, label, logit) of the test split: how many labels people would have
    `turned` and how many reviews `dropped` (`data.verdicts.corrections`), `reviews` that remain, and on these, with
    those labels, the `accuracy` and its 95% `interval` (Wilson 1927); nothing where there are no corrections."""
    file = SPLIT_TABLES / "corrections.parquet"
    found = read_table(file, ("id", "corrected_label"))
    if found.empty:
        return {}
    merged = predictions.merge(found, on="id", how="left")
    label = merged["corrected_label"].fillna(merged["label"])
    kept = label >= 0
    right = int(((merged["logit"] > 0) == label)[kept].sum())
    return {
        "corrected": {
            "turned": int((found["corrected_label"] >= 0).sum()),
            "dropped": int((~kept).sum()),
            "reviews": int(kept.sum()),
            "accuracy": right / int(kept.sum()),
            "interval": wilson_interval(right, int(kept.sum())),
        }
    }
