"""Makes the embedded sample from the full data set: `python scripts/make_sample.py`, with the data set at hand.

A deterministic excerpt, stratified by length quartile and, where there is one, by label: within each stratum the
reviews whose id has the smallest SHA-256. Reviews longer than LONGEST characters are left out, so that a first run is
short.
"""

import hashlib

import pandas as pd

from pipeline.data.sources import SAMPLE, UNLABELLED_SAMPLE, load_reviews
from pipeline.project.atomic import write_table
from pipeline.project.paths import UNLABELLED

ROWS = {"train": 2400, "test": 1200}
UNLABELLED_ROWS = 3000
QUARTILES = 4
LONGEST = 2000


def excerpt(reviews: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Returns `rows` of `reviews`, as many from each stratum, in their original order."""
    reviews = reviews[reviews["text"].str.len() <= LONGEST]
    strata = [pd.qcut(reviews["text"].str.len(), QUARTILES, labels=False)]
    if "label" in reviews:
        strata.append(reviews["label"])
    order = reviews["id"].map(lambda name: hashlib.sha256(name.encode()).hexdigest()).sort_values().index
    by_stratum = reviews.loc[order].groupby(strata)
    return by_stratum.head(rows // by_stratum.ngroups).sort_index()


def main() -> None:
    tables, _ = load_reviews("imdb_reviews")
    labelled = pd.concat([excerpt(tables[split], rows) for split, rows in ROWS.items()], ignore_index=True)
    unlabelled = excerpt(tables[UNLABELLED], UNLABELLED_ROWS).reset_index(drop=True)
    for file, sample in {SAMPLE: labelled, UNLABELLED_SAMPLE: unlabelled}.items():
        write_table(file, sample)
        print(f"{file}: {len(sample)} reviews, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
