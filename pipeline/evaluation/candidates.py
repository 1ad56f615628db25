"""Candidates: whatever serves raw text, a folder each, with the parts that it is made of, calibrated on validation.

The folder is the served model that the candidate becomes where it is registered; what is measured of a candidate is
measured by its scorer.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import served_model
from pipeline.evaluation import calibration, selective
from pipeline.evaluation.metrics import binary_metrics, probability
from pipeline.evaluation.significance import report, slices
from pipeline.project.atomic import atomic_write, read_json, read_table, write_json, write_table
from pipeline.project.errors import DataError
from pipeline.project.params import EvaluateParams, Params
from pipeline.project.paths import (
    EVALUATED,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    VOCABULARY,
    candidate_folder,
    evaluated_file,
    predictions_file,
    serving_file,
)
from pipeline.served_model.scorer import PARTS, Scorer
from pipeline.served_model.tokenizer import SubwordTokenizer

if TYPE_CHECKING:
    import pandas as pd

THRESHOLD = 0.5
SETTINGS = "settings.json"
CODE = ("__init__.py", "loading.py", "ngrams.py", "scorer.py", "tokenizer.py")
_SERVED_MODEL = Path(served_model.__file__).parent
_TIMED_REVIEWS = 100


def conclude(name: str, parts: Mapping[str, bytes], params: Params) -> dict[str, Any]:
    """Makes a candidate of its parts: fits their weights and the band of sure answers on validation, writes its folder,
    and what it predicts, and how good that is, on the held-out splits that may be looked at.

    On validation it is measured with weights that were fitted on other reviews.

    Args:
        name: the candidate.
        parts: by the names of `scorer.PARTS` what their files hold.
        params: of which those of the tokenizer, the evaluation, the promise and the seed count.

    Returns:
        The metrics by split.
    """
    tables = {split: read_table(SPLIT_TABLES / f"{split}.parquet", REVIEW_COLUMNS) for split in EVALUATED}
    max_tokens, seed = params.tokenize.max_tokens, params.seed
    with TemporaryDirectory() as temporary:
        raw = Path(temporary)
        _write_folder(raw, served_files(parts, dict.fromkeys(parts, 1.0), None, max_tokens))
        scorer = Scorer(raw)
        logits = {split: np.column_stack(list(_parts(scorer, table).values())) for split, table in tables.items()}
    label = tables["validation"]["label"].to_numpy()
    weights = calibration.fit(label, logits["validation"])
    found = {split: logits[split] @ weights for split in tables}
    found["validation"] = calibration.cross_fitted(label, logits["validation"], seed)
    predictions = {split: predicted(table, found[split], VOCABULARY) for split, table in tables.items()}
    measured: dict[str, Any] = {
        split: measure(table, params.evaluate, seed) for split, table in predictions.items() if len(table)
    }
    for split, sure in selective.on_held_out(predictions, params.serve.promise).items():
        measured[split] |= sure
    weight = {part: round(float(one), 6) for part, one in zip(parts, weights, strict=True)}
    bins = params.evaluate.calibration_bins
    uncalibrated = binary_metrics(label, logits["validation"].mean(axis=1), bins=bins)
    measured["calibration"] = {
        "weights": weight,
        "uncalibrated": {one: uncalibrated[one] for one in ("loss", "ece")},
    }
    for split, table in predictions.items():
        write_table(predictions_file(name, split), table)
    write_json(evaluated_file(name), measured)
    with atomic_write(candidate_folder(name)) as folder:
        folder.mkdir()
        files = served_files(parts, weight, measured["validation"]["sure"]["band"], max_tokens)
        _write_folder(folder, files)
    texts = tables["validation"]["text"].tolist()[:_TIMED_REVIEWS]
    megabytes = sum(map(len, files.values())) / 1e6
    milliseconds = _milliseconds(Scorer(candidate_folder(name)), texts)
    write_json(serving_file(name), {"milliseconds": round(milliseconds, 3), "megabytes": round(megabytes, 2)})
    return measured


def served_files(
    parts: Mapping[str, bytes], weights: Mapping[str, float], band: selective.Band, max_tokens: int
) -> dict[str, bytes]:
    """Returns the files of a served model, by name: code, vocabulary, parts, settings."""
    settings = {"max_tokens": max_tokens, "threshold": THRESHOLD, "unsure": band, "weights": dict(weights)}
    return {
        **{name: (_SERVED_MODEL / name).read_bytes() for name in CODE},
        VOCABULARY.name: VOCABULARY.read_bytes(),
        **{PARTS[part]: content for part, content in parts.items()},
        SETTINGS: json.dumps(settings, sort_keys=True, indent=2).encode(),
    }


def read_part(name: str, part: str) -> bytes:
    """Returns the file of a candidate's part; raises DataError where it is missing."""
    file = candidate_folder(name) / PARTS[part]
    if not file.exists():
        raise DataError(f"{file} does not exist; run `dvc repro` to make it")
    return file.read_bytes()


def load(name: str) -> Scorer:
    """Returns the scorer of a candidate; raises DataError where its folder is missing or damaged."""
    try:
        return Scorer(candidate_folder(name))
    except Exception as error:  # ONNX Runtime, JSON and zip raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{candidate_folder(name)} holds no candidate ({reason}); run `dvc repro`") from None


def predicted(reviews: "pd.DataFrame", logit: np.ndarray, vocabulary: Path) -> "pd.DataFrame":
    """Returns id, label, logit, probability and length of each review (id, label, text). The length is in tokens, those
    that `max_tokens` cuts off included: by it reviews are grouped, and all that are cut would be of one length."""
    table = reviews[["id", "label"]].reset_index(drop=True)
    length = [len(ids) for ids in SubwordTokenizer.load(vocabulary).encode_batch(reviews["text"])]
    return table.assign(logit=logit, probability=probability(logit), length=np.asarray(length, np.int32))


def measure(predictions: "pd.DataFrame", how: EvaluateParams, seed: int) -> dict[str, Any]:
    """Returns the metrics of the predictions with their intervals, over all and on each slice."""
    label, logit, length = (predictions[column].to_numpy() for column in ("label", "logit", "length"))
    samples = how.bootstrap_samples
    metrics = report(label, logit, bins=how.calibration_bins, samples=samples, seed=seed)
    return metrics | {"slices": slices(label, logit, length, samples=samples, seed=seed)}


def read_serving(name: str) -> dict[str, Any]:
    """Returns what serving a candidate costs: `milliseconds` a review, one at a time, and `megabytes` of its folder."""
    return read_json(serving_file(name), ("milliseconds", "megabytes"))


def _parts(scorer: Scorer, table: "pd.DataFrame") -> dict[str, np.ndarray]:
    return scorer.parts(table["text"].tolist())


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _milliseconds(scorer: Scorer, texts: Sequence[str]) -> float:
    scorer.score(texts[:1])
    found = []
    for text in texts:
        started = time.perf_counter()
        scorer.score([text])
        found.append(1000 * (time.perf_counter() - started))
    return statistics.median(found)
