"""Where reviews come from: TFDS's IMDB data set, or the excerpt of it that ships in the repository.

A table of reviews has the columns `id` (`<split>/<row in TFDS order>`), `text` and `label` (0 negative, 1 positive);
that of the unlabelled ones has no `label`.
"""

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.project.atomic import read_table
from pipeline.project.errors import DataError, PipelineError
from pipeline.project.paths import RAW_SPLITS, REVIEW_COLUMNS, TEXT_COLUMNS, UNLABELLED
from pipeline.project.quiet_import import import_tensorflow

if TYPE_CHECKING:
    import pandas as pd

DATA_DIR = "TFDS_DATA_DIR"
TFDS_NAME = "imdb_reviews/plain_text"
TFDS_UNLABELLED = "unsupervised"  # its name of that split, whose labels are all -1
ARCHIVE_URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"  # as in TFDS's builder
ARCHIVE_NAME = "aclImdb_v1.tar.gz"
PROBE_TIMEOUT_S = 5
SAMPLE = Path(__file__).parent / "sample" / "reviews.parquet"
UNLABELLED_SAMPLE = SAMPLE.with_name("unlabelled.parquet")
CREDIT = "Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011 (Large Movie Review Dataset v1.0)"


def load_reviews(dataset: str) -> tuple[dict[str, "pd.DataFrame"], dict[str, Any]]:
    """Returns the tables train, test and unlabelled of `dataset`, and what is known of them: name, version, origin,
    counts.

    Raises:
        PipelineError: the data set cannot be had here; the message says what was tried and gives the remedies.
        DataError: what was found is not the data set.
    """
    tables, origin = _sample() if dataset == "sample" else _imdb_reviews()
    for split, table in tables.items():
        if table.empty or table.drop(columns="id").isna().any(axis=None):
            raise DataError(f"{origin['source']}: the {split} reviews are empty or incomplete")
    splits = {split: {"rows": len(table)} for split, table in tables.items()}
    for split in RAW_SPLITS:
        splits[split]["positive"] = int(tables[split]["label"].sum())
    return tables, {"dataset": dataset, **origin, "credit": CREDIT, "splits": splits}


def _sample() -> tuple[dict[str, "pd.DataFrame"], dict[str, str]]:
    reviews = read_table(SAMPLE, REVIEW_COLUMNS)
    origin = reviews["id"].str.partition("/")[0]
    tables = {split: reviews[origin == split].reset_index(drop=True) for split in RAW_SPLITS}
    tables[UNLABELLED] = read_table(UNLABELLED_SAMPLE, TEXT_COLUMNS)
    return tables, {"version": "1.0.0", "source": f"{SAMPLE.parent.name}/{SAMPLE.name}"}


def _imdb_reviews() -> tuple[dict[str, "pd.DataFrame"], dict[str, str]]:
    if not os.environ.get(DATA_DIR):  # an undefined variable of a CI is an empty one; TFDS takes it for this folder
        os.environ.pop(DATA_DIR, None)
    import tensorflow_datasets as tfds

    builder = tfds.builder(TFDS_NAME)
    if not builder.is_prepared():
        _prepare(builder)
    import_tensorflow()  # TFDS reads with it
    tables = {split: _read_split(builder, split, split) for split in RAW_SPLITS}
    tables[UNLABELLED] = _read_split(builder, TFDS_UNLABELLED, UNLABELLED)[list(TEXT_COLUMNS)]
    # Only the data set's own name and version: where this machine keeps it is nobody else's business.
    return tables, {"version": str(builder.version), "source": f"tfds {builder.info.full_name}"}


def _prepare(builder: Any) -> None:
    """Lets TFDS prepare the data set, but not where it cannot get the archive: it would retry for minutes."""
    downloads = Path(builder.data_path).parents[2] / "downloads"  # <data_dir>/<name>/<config>/<version>
    manual = downloads / "manual"
    has_archive = (manual / ARCHIVE_NAME).exists() or any(downloads.glob("*aclImdb_v1*.tar.gz"))
    cause: Exception | None = None
    if not has_archive and (unreachable := _unreachable(ARCHIVE_URL)):
        reason = f"{ARCHIVE_URL} cannot be reached ({unreachable})"
    else:
        try:
            import_tensorflow()
            builder.download_and_prepare()
            return
        except Exception as error:  # TFDS raises many kinds: checksum, connection, archive, disk
            cause, reason = error, f"TFDS could not prepare it: {' '.join(str(error).split())[:300]}"
    origin = DATA_DIR if DATA_DIR in os.environ else f"TFDS's default, {DATA_DIR} is not set"
    message = f"""the IMDB reviews cannot be had here.
Tried: a prepared copy at {builder.data_path} ({origin}): not there;
       an archive at {manual / ARCHIVE_NAME}: {"there" if has_archive else "not there"};
       the network: {reason}.
Remedies:
  1. point TFDS at a prepared copy:       TFDS_DATA_DIR=/path/to/tensorflow_datasets dvc repro
  2. bring the archive from a machine with a network:
                                          mkdir -p {manual} && cp {ARCHIVE_NAME} {manual}/ && dvc repro
  3. use the sample that ships here:      sed -i 's/^dataset: .*/dataset: sample/' params.yaml && dvc repro"""
    raise PipelineError(message) from cause


def _read_split(builder: Any, split: str, name: str) -> "pd.DataFrame":
    """Returns the reviews of TFDS's `split`, their ids with `name`."""
    import pandas as pd
    import tensorflow_datasets as tfds

    # One file at a time, so that the rows come in the order in which TFDS wrote them.
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        examples = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=in_order)))
        text = [example["text"].decode("utf-8") for example in examples]
    except Exception as error:  # a truncated record file raises TensorFlow's DataLossError, among others
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{builder.data_path}: the prepared {split} split cannot be read ({reason}); "
            "remove that folder and run `dvc repro` again"
        ) from error
    ids = [f"{name}/{row}" for row in range(len(examples))]
    return pd.DataFrame({"id": ids, "text": text, "label": [int(example["label"]) for example in examples]})


def _unreachable(url: str) -> str | None:
    """Returns why no server answers for `url` within PROBE_TIMEOUT_S, None if one does.

    The request runs in a thread of its own, since looking a name up knows no timeout.
    """
    outcome = [f"no answer within {PROBE_TIMEOUT_S} s"]

    def probe() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_TIMEOUT_S):
                outcome[0] = ""
        except urllib.error.HTTPError:
            outcome[0] = ""  # an answer, if not a welcome one: TFDS shall try and say
        except OSError as error:
            outcome[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT_S)
    return outcome[0] or None
