"""The data set of new labelled reviews: batches that are appended and never changed, one Parquet file each.

DVC tracks `data/labelled/reviews/` by the pointer `data/labelled/reviews.dvc`, once there is a first batch. Batches are
numbered in the order in which they came; of two reviews of the same text the one that came first counts.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.project.atomic import read_table, write_table
from pipeline.project.errors import DataError
from pipeline.project.paths import LABELLED_POINTER, LABELLED_REVIEWS, REVIEW_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {"id": "str", "text": "str", "label": "int64"}
ID_PREFIX = "labelled/"
"""What the id of every new labelled review begins with: `labelled/<batch>/<row of its source file>`."""

_FILES = "[0-9]*.parquet"  # not what a killed process left half written, whose name begins with a dot


def batches() -> list[Path]:
    """Returns the files of the data set, in order.

    Raises:
        DataError: DVC's pointer speaks of more files than there are.
    """
    found = sorted(LABELLED_REVIEWS.glob(_FILES))
    if len(found) < (stated := stated_files()):
        raise DataError(
            f"{LABELLED_REVIEWS} holds {len(found)} of the {stated} files that {LABELLED_POINTER} speaks of; "
            f"run `dvc checkout {LABELLED_POINTER}`, after `dvc pull` where the data came with a clone"
        )
    return found


def stated_files(pointer: Path = LABELLED_POINTER) -> int:
    """Returns of how many batches a pointer of DVC speaks; raises DataError if it is no pointer."""
    if not pointer.exists():
        return 0
    try:
        (out,) = YAML(typ="safe", pure=True).load(pointer.read_text(encoding="utf-8"))["outs"]
        return int(out["nfiles"])
    except (YAMLError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{pointer} is not a pointer of DVC ({reason}); put it back with git") from None


def read_labelled() -> "pd.DataFrame":
    """Returns all new labelled reviews (id, text, label), the first that came first; an empty table if there are none.

    Raises:
        DataError: a batch is missing or damaged.
    """
    import pandas as pd

    empty = pd.DataFrame(columns=list(REVIEW_COLUMNS)).astype(DTYPES)
    return pd.concat([empty, *(read_table(file, REVIEW_COLUMNS) for file in batches())], ignore_index=True)


def batch_of(key: str) -> Path | None:
    """Returns the batch that was appended under `key`, None if none was."""
    return next(iter(LABELLED_REVIEWS.glob(f"[0-9]*-{key}.parquet")), None)


def append(key: str, table: "pd.DataFrame") -> Path:
    """Appends `table` as a batch under `key`, once: where that stands already, nothing is added. Returns its file."""
    if there := batch_of(key):
        return there
    for left_behind in LABELLED_REVIEWS.glob(".*"):  # by a run that was killed; DVC's pointer would speak of it
        left_behind.unlink()
    last = max((int(file.name.partition("-")[0]) for file in LABELLED_REVIEWS.glob(_FILES)), default=0)
    file = LABELLED_REVIEWS / f"{last + 1:06d}-{key}.parquet"
    write_table(file, table)
    return file
