"""What the gate measures with, logged in the runs: a model's predictions on a test set and the rows it learnt from.

Each piece is an artifact of its run and a tag with the artifact's SHA-256, written in this order: a piece whose tag is
missing or does not fit, because a write was cut short, counts as not there and is made again.

A registered model is scored in a process of its own, `python -m pipeline.registry.evidence <URI> <reviews> <out>`, so
that neither its code nor its hold on a GPU reaches the process that decides.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pipeline
from pipeline.data.copies import keys
from pipeline.project.atomic import read_json, read_table, write_json, write_table
from pipeline.project.errors import PipelineError
from pipeline.project.paths import UNLABELLED
from pipeline.project.run_command import run_command
from pipeline.tracking import runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PREDICTION_COLUMNS = ("id", "label", "logit", "probability")
SERVED = "served_sha256"
"""The tag of a version that says by which code and settings it is served."""
TRAINING_ROWS = "training_rows"
TEXT_PROFILE = "text_profile"
_FOLDER = "evidence"
_TIMED_REVIEWS = 20
_SCORING_TIMEOUT_S = 3600


def reviews_digest(reviews: "pd.DataFrame") -> str:
    """Returns the SHA-256 of the reviews' ids, labels (where they have any) and texts, in order of id: the test set's
    identity."""
    digest = hashlib.sha256()
    ordered = reviews.sort_values("id", kind="stable")
    labels = ordered["label"] if "label" in ordered else [""] * len(ordered)
    for review, label, text in zip(ordered["id"], labels, ordered["text"], strict=True):
        digest.update(f"{review}\t{label}\t{len(text)}\t{text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def training_rows(
    train: "pd.DataFrame", validation: "pd.DataFrame", unlabelled: "pd.DataFrame | None" = None
) -> "pd.DataFrame":
    """Returns what a training knew, in order of `row`: split (train, validation, unlabelled), row as `row_hashes` has
    it, and key, by which a review is known: the first 64 bits of the SHA-256 of its text's key (`copies.key`). An
    unlabelled review has its key for a row."""
    import pandas as pd

    tables = [
        pd.DataFrame({"split": split, "row": row_hashes(reviews), "key": _key_hashes(reviews)})
        for split, reviews in {"train": train, "validation": validation}.items()
    ]
    if unlabelled is not None:
        known = _key_hashes(unlabelled)
        tables.append(pd.DataFrame({"split": UNLABELLED, "row": known, "key": known}))
    return pd.concat([table.sort_values("row", ignore_index=True) for table in tables])


def labelled(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Returns those of `training_rows` whose label the training knew."""
    return rows[rows["split"] != UNLABELLED]


def row_hashes(reviews: "pd.DataFrame") -> NDArray[np.uint64]:
    """Returns uint64[rows], of each review (text, label) the first 64 bits of the SHA-256 of label and text, so that a
    row is the same whatever its id and wherever it stands."""
    return _hashes(f"{label}\t{text}" for label, text in zip(reviews["label"], reviews["text"], strict=True))


def _key_hashes(reviews: "pd.DataFrame") -> NDArray[np.uint64]:
    return _hashes(keys(reviews["text"]))


def _hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)


def rows_digest(rows: "pd.DataFrame") -> str:
    """Returns the SHA-256 of the rows trained on, validation aside."""
    return hashlib.sha256(np.unique(rows.loc[rows["split"] == "train", "row"]).astype("<u8").tobytes()).hexdigest()


def new_rows(challenger: "pd.DataFrame", champion: "pd.DataFrame | None") -> int | None:
    """Counts the rows that the challenger has trained on and whose label the champion never saw, neither in training
    nor in validation: another seed's split of the same reviews brings none. None where its rows are not known."""
    if champion is None:
        return None
    known_by = _known_by(champion)
    return np.setdiff1d(challenger.loc[challenger["split"] == "train", known_by], labelled(champion)[known_by]).size


def unknown(reviews: "pd.DataFrame", rows: Iterable["pd.DataFrame"]) -> NDArray[np.bool_]:
    """Returns <bool>[reviews], which of the reviews (text, label) stand in none of these tables of `training_rows`."""
    found = np.ones(len(reviews), bool)
    by = {"key": _key_hashes(reviews), "row": row_hashes(reviews)}
    for table in rows:
        known_by = _known_by(table)
        found &= ~np.isin(by[known_by], table[known_by].to_numpy())
    return found


def _known_by(rows: "pd.DataFrame") -> str:
    return "key" if "key" in rows else "row"  # of versions from before reviews were known by their keys


def predictions_name(reviews: "pd.DataFrame", tags: Mapping[str, str]) -> str:
    """Returns the name of the predictions on these reviews, by a version with these tags, among its
    run's evidence. Two versions of one run, of the same weights but other code, have predictions of their own; those of
    versions from before the code was part of what they are have none in their name."""
    served = tags.get(SERVED)
    return f"predictions.{reviews_digest(reviews)[:16]}" + (f".{served[:16]}" if served else "")


def log_table(client: "MlflowClient", run_id: str, name: str, table: "pd.DataFrame") -> None:
    """Logs `table` as evidence `name` of a run; one that is there already stays."""
    if load_table(client, run_id, name) is not None:
        return
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / f"{name}.parquet"
        write_table(file, table)
        client.log_artifact(run_id, str(file), _FOLDER)
        client.set_tag(run_id, f"{_FOLDER}.{name}", hashlib.sha256(file.read_bytes()).hexdigest())


def load_table(client: "MlflowClient", run_id: str, name: str) -> "pd.DataFrame | None":
    """Returns the evidence `name` of a run, None where it is missing, cut short or not what its tag says."""
    import pandas as pd
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as temporary:
        try:
            expected = client.get_run(run_id).data.tags.get(f"{_FOLDER}.{name}")
            if expected is None:
                return None
            file = Path(client.download_artifacts(run_id, f"{_FOLDER}/{name}.parquet", temporary))
        except (MlflowException, OSError):
            return None
        return pd.read_parquet(file) if hashlib.sha256(file.read_bytes()).hexdigest() == expected else None


def score(model_uri: str, reviews: "pd.DataFrame") -> tuple["pd.DataFrame", float]:
    """Scores reviews (id, text) with a logged or registered model, in a process of its own.

    Returns:
        id, label (0 or 1), probability and logit in the reviews' order; and the median latency of one, warm, in ms.

    Raises:
        PipelineError: the model cannot be loaded or does not score; the message ends in the process's last line.
    """
    with tempfile.TemporaryDirectory() as temporary:
        texts, out = Path(temporary) / "reviews.parquet", Path(temporary) / "scores.parquet"
        write_table(texts, reviews[["id", "text"]])
        command = [sys.executable, "-m", __name__, model_uri, str(texts), str(out)]
        path = [str(Path(pipeline.__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=_SCORING_TIMEOUT_S, errors="replace"
            )
        except subprocess.TimeoutExpired:
            raise PipelineError(f"{model_uri} did not score {len(reviews)} reviews in {_SCORING_TIMEOUT_S} s") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PipelineError(f"{model_uri} could not be scored: {last[:300]}")
        scores = read_table(out, ("id", "label", "probability", "logit"))
        return scores, float(read_json(out.with_suffix(".json"))["latency_ms"])


def predictions_on(client: "MlflowClient", version: "ModelVersion", reviews: "pd.DataFrame") -> "pd.DataFrame":
    """Returns a version's predictions on `reviews` (id, text, and label where they have one): those in its run's
    evidence, if they were made of these very reviews, else made now, and logged where the run is still there."""
    from mlflow.exceptions import MlflowException

    name, run_id = predictions_name(reviews, version.tags), str(version.run_id)
    stored = load_table(client, run_id, name)
    if stored is not None:
        return stored
    model_uri = f"models:/{version.name}/{version.version}"
    print(f"scoring {model_uri} on {len(reviews):,} reviews", flush=True)
    table = with_labels(score(model_uri, reviews)[0], reviews)
    with suppress(MlflowException):  # the run may be deleted
        log_table(client, run_id, name, table)
    return table


def with_labels(scores: "pd.DataFrame", reviews: "pd.DataFrame") -> "pd.DataFrame":
    """Returns PREDICTION_COLUMNS of `scores`, as `score` has them, with the reviews' own labels where they have any."""
    own = reviews[["id", "label"] if "label" in reviews else ["id"]]
    found = scores.drop(columns="label").merge(own, on="id")
    return found[[column for column in PREDICTION_COLUMNS if column in found]]


def main() -> None:
    """Scores reviews with a model, in the process that `score` starts."""
    model_uri, reviews_file, out = sys.argv[1:4]
    reviews = read_table(Path(reviews_file), ("id", "text"))
    runs.connect_to_read()
    import mlflow

    model, texts = mlflow.pyfunc.load_model(model_uri), reviews[["text"]]
    scores: Any = model.predict(texts)
    scores["label"] = (scores["label"] == "positive").astype(np.int8)
    scores.insert(0, "id", reviews["id"].to_numpy())
    timings = []
    for row in range(min(_TIMED_REVIEWS, len(texts))):
        started = time.perf_counter()
        model.predict(texts.iloc[row : row + 1])
        timings.append(1000 * (time.perf_counter() - started))
    write_table(Path(out), scores)
    write_json(Path(out).with_suffix(".json"), {"latency_ms": statistics.median(timings)})


if __name__ == "__main__":
    run_command(main)
