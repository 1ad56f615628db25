"""A candidate is a folder that scores by itself, calibrated; what is measured of it is what it says."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import edit_params

from pipeline.evaluation import calibration, candidates, metrics
from pipeline.ngrams.classifier import NgramClassifier, fit_ngrams
from pipeline.project.atomic import read_json, write_table
from pipeline.project.errors import DataError
from pipeline.project.params import load_params
from pipeline.project.paths import (
    NGRAMS,
    SPLIT_TABLES,
    VOCABULARY,
    candidate_folder,
    evaluated_file,
    predictions_file,
)
from pipeline.served_model.loading import load_scorer
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.vocabulary import build_vocabulary


@pytest.fixture(scope="module")
def classifier(reviews: pd.DataFrame) -> NgramClassifier:
    train = reviews.head(400)
    return fit_ngrams(train["text"].tolist(), train["label"].to_numpy(), max_ngram=2, regularization=1.0)


@pytest.fixture(scope="module")
def vocabulary(reviews: pd.DataFrame) -> SubwordTokenizer:
    return SubwordTokenizer(build_vocabulary(reviews["text"].head(100), 600))


@pytest.fixture
def part(project: Path, reviews: pd.DataFrame, classifier: NgramClassifier, vocabulary: SubwordTokenizer) -> bytes:
    """The n-grams' file, in a project that stands where a candidate is made of it."""
    edit_params(project, evaluate__bootstrap_samples=100)
    held_out = {"validation": reviews[400:700], "fresh": reviews[700:800].reset_index(drop=True)}
    for split, table in held_out.items():
        write_table(SPLIT_TABLES / f"{split}.parquet", table)
    VOCABULARY.parent.mkdir(parents=True)
    vocabulary.save(VOCABULARY)
    classifier.save(project / "part.npz")
    return (project / "part.npz").read_bytes()


def test_what_is_measured_of_a_candidate_is_what_its_folder_says_by_itself(
    part: bytes, classifier: NgramClassifier, tmp_path_factory: pytest.TempPathFactory
) -> None:
    params = load_params()
    candidates.conclude(NGRAMS, {NGRAMS: part}, params)

    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model"
    shutil.copytree(candidate_folder(NGRAMS), elsewhere)
    scorer, fresh = load_scorer(elsewhere), pd.read_parquet(SPLIT_TABLES / "fresh.parquet")
    said, predictions = scorer.score(fresh["text"]), pd.read_parquet(predictions_file(NGRAMS, "fresh"))
    assert predictions.columns.tolist() == ["id", "label", "logit", "probability", "length"]
    assert predictions[["id", "label"]].equals(fresh[["id", "label"]])
    assert predictions["logit"].tolist() == pytest.approx(said.logit, abs=1e-5)
    assert predictions["probability"].tolist() == pytest.approx(said.probability, abs=1e-5)
    assert predictions["length"].tolist() == [len(ids) for ids in scorer.encode(fresh["text"])]

    measured, settings = read_json(evaluated_file(NGRAMS)), read_json(candidate_folder(NGRAMS) / "settings.json")
    expected = metrics.binary_metrics(
        fresh["label"].to_numpy(), predictions["logit"].to_numpy(), bins=params.evaluate.calibration_bins
    )
    assert {name: measured["fresh"][name] for name in metrics.METRICS} == expected
    assert settings == {
        "max_tokens": params.tokenize.max_tokens,
        "threshold": 0.5,
        "unsure": measured["validation"]["sure"]["band"],
        "weights": measured["calibration"]["weights"],
    }
    serving = candidates.read_serving(NGRAMS)
    assert serving["milliseconds"] > 0
    assert serving["megabytes"] == round(sum(file.stat().st_size for file in elsewhere.glob("*.*")) / 1e6, 2)
    assert candidates.load(NGRAMS).score(["Fine."]).logit.tolist() == scorer.score(["Fine."]).logit.tolist()
    assert candidates.read_part(NGRAMS, NGRAMS) == part


def test_reviews_that_are_cut_keep_their_length(project: Path, part: bytes, vocabulary: SubwordTokenizer) -> None:
    edit_params(project, tokenize__max_tokens=32)
    measured = candidates.conclude(NGRAMS, {NGRAMS: part}, load_params())
    validation = pd.read_parquet(SPLIT_TABLES / "validation.parquet")
    lengths = pd.read_parquet(predictions_file(NGRAMS, "validation"))["length"]
    assert lengths.tolist() == [len(ids) for ids in vocabulary.encode_batch(validation["text"])]
    sizes = [one["reviews"] for one in measured["validation"]["slices"] if one["slice"].startswith("length")]
    assert len(sizes) == 4 and max(sizes) < 80  # of 300


def test_on_validation_it_is_measured_with_weights_that_have_not_seen_the_review(
    part: bytes, classifier: NgramClassifier
) -> None:
    params = load_params()
    candidates.conclude(NGRAMS, {NGRAMS: part}, params)

    validation = pd.read_parquet(SPLIT_TABLES / "validation.parquet")
    label, raw = validation["label"].to_numpy(), classifier.logits(validation["text"].tolist())
    found = pd.read_parquet(predictions_file(NGRAMS, "validation"))["logit"].to_numpy()
    assert found == pytest.approx(calibration.cross_fitted(label, raw[:, None], params.seed))
    measured = read_json(evaluated_file(NGRAMS))
    assert measured["calibration"]["weights"][NGRAMS] == pytest.approx(
        calibration.fit(label, raw[:, None])[0], abs=1e-6
    )
    bins = params.evaluate.calibration_bins
    uncalibrated = metrics.binary_metrics(label, raw, bins=bins)
    assert measured["calibration"]["uncalibrated"] == {"loss": uncalibrated["loss"], "ece": uncalibrated["ece"]}
    assert measured["validation"]["loss"] == metrics.binary_metrics(label, found, bins=bins)["loss"]


def test_without_fresh_reviews_there_is_a_candidate_all_the_same(part: bytes) -> None:
    fresh = SPLIT_TABLES / "fresh.parquet"
    write_table(fresh, pd.read_parquet(fresh).head(0))
    candidates.conclude(NGRAMS, {NGRAMS: part}, load_params())
    assert "fresh" not in read_json(evaluated_file(NGRAMS))
    assert len(pd.read_parquet(predictions_file(NGRAMS, "fresh"))) == 0


def test_the_same_parts_make_the_same_folder(part: bytes) -> None:
    def files() -> dict[str, bytes]:
        candidates.conclude(NGRAMS, {NGRAMS: part}, load_params())
        return {file.name: file.read_bytes() for file in candidate_folder(NGRAMS).iterdir() if file.is_file()}

    assert files() == files()
    assert set(files()) == {*candidates.CODE, "vocabulary.txt", "ngrams.npz", "settings.json"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("settings.json", None),
        ("settings.json", b"{"),
        ("settings.json", b"[]"),
        ("settings.json", b'{"max_tokens": 5}'),
        ("vocabulary.txt", b"something else"),
        ("ngrams.npz", None),
        ("ngrams.npz", b"PK"),
        ("network.onnx", b"no graph"),
    ],
)
def test_a_damaged_folder_is_told_in_one_sentence(project: Path, part: bytes, file: str, content: bytes | None) -> None:
    folder = candidate_folder(NGRAMS)
    folder.mkdir(parents=True)
    kind = "network" if file == "network.onnx" else NGRAMS
    for name, whole in candidates.served_files({kind: part}, {kind: 1.0}, None, 64).items():
        (folder / name).write_bytes(whole)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(DataError) as told:
        candidates.load(NGRAMS)
    assert str(told.value).startswith("served/ngrams holds no candidate (")
    assert str(told.value).endswith("); run `dvc repro`") and "\n" not in str(told.value)


def test_a_candidate_or_part_that_is_not_there_is_told(project: Path) -> None:
    with pytest.raises(DataError, match=r"served/pooled holds no candidate \(.*\); run `dvc repro`"):
        candidates.load("pooled")
    with pytest.raises(DataError, match=r"served/pooled/network\.onnx does not exist; run `dvc repro`"):
        candidates.read_part("pooled", "network")
