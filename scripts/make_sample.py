"""Makes the embedded sample from the full data set: `python scripts/make_sample.py`, with the data set at hand.

A deterministic excerpt, stratified by label and length quartile: within each stratum the reviews whose id has
the smallest SHA-256. Reviews longer than LONGEST characters are left out, so that a first run is short.
"""

import hashlib

import pandas as pd

from pipeline.data.sources import SAMPLE, load_reviews
from pipeline.project.atomic import write_table

ROWS = {"train": 2400, "test": 1200}
STRATA = 8  # two labels by four length quartiles
LONGEST = 2000


def excerpt(reviews: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Returns `rows` of `reviews`, as many from each stratum, in their original order."""
    reviews = reviews[reviews["text"].str.len() <= LONGEST]
    quartile = pd.qcut(reviews["text"].str.len(), 4, labels=False)
    order = reviews["id"].map(lambda name: hashlib.sha256(name.encode()).hexdigest()).sort_values().index
    chosen = reviews.loc[order].groupby([reviews["label"], quartile], sort=True).head(rows // STRATA)
    return chosen.sort_index()


def main() -> None:
    tables, _ = load_reviews("imdb_reviews")
    sample = pd.concat([excerpt(tables[split], rows) for split, rows in ROWS.items()], ignore_index=True)
    write_table(SAMPLE, sample)
    print(f"{SAMPLE}: {len(sample)} reviews, {SAMPLE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
