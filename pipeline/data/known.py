"""The reviews that the project has already, against which new ones are held."""

from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.data.labelled import read_labelled
from pipeline.data.splits import new_reviews
from pipeline.project.atomic import read_table
from pipeline.project.paths import RAW, REVIEW_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


class Known:
    """The reviews that there are before a file is taken in: raw train and test where they are, and labelled ones."""

    def __init__(self) -> None:
        self.labelled = read_labelled()

    @cached_property
    def train(self) -> "pd.DataFrame":
        """The raw training reviews, none where they are not there."""
        return self._raw("train")

    @cached_property
    def test(self) -> "pd.DataFrame":
        """The raw test reviews, none where they are not there."""
        return self._raw("test")

    def _raw(self, split: str) -> "pd.DataFrame":
        file = RAW / f"{split}.parquet"
        return read_table(file, REVIEW_COLUMNS) if file.exists() else self.labelled.head(0)

    def kept(self) -> "pd.DataFrame":
        """Returns the labelled reviews that the stage `split` keeps."""
        return new_reviews(self.train, self.test, self.labelled)[0] if len(self.labelled) else self.labelled

    def add(self, labelled: "pd.DataFrame") -> None:
        """Counts new labelled reviews as known from now on."""
        import pandas as pd

        self.labelled = pd.concat([self.labelled, labelled[list(REVIEW_COLUMNS)]], ignore_index=True)
