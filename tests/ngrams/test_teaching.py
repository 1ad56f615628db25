"""What the n-grams teach: of a review what others say of it, of a sentence what sentences say, mixed with labels."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import edit_params
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.sentences import sentences
from pipeline.ngrams import teaching
from pipeline.ngrams.classifier import fit_ngrams
from pipeline.ngrams.cross_fitting import cross_fit
from pipeline.project.atomic import write_table
from pipeline.project.errors import DataError
from pipeline.project.params import NgramsParams, TeacherParams, load_params
from pipeline.project.paths import SENTENCES, SPLIT_TABLES, TOKENS, TRAIN, UNLABELLED, model_file, teacher_folder
from pipeline.stages import teach

PARAMS = NgramsParams(max_ngram=2, regularization=1.0, sentence_regularization=0.1)
SEED = 3
COUNT = 240
LABELS = TeacherParams(by="ngrams", label_weight=1.0, temperature=1.0, texts=["train"])


@pytest.fixture(scope="module")
def train(reviews: pd.DataFrame) -> pd.DataFrame:
    return reviews.head(COUNT)


@pytest.fixture(scope="module")
def unlabelled(reviews: pd.DataFrame) -> list[str]:
    return reviews["text"].iloc[COUNT : COUNT + 40].tolist()


def asked(labelled: pd.DataFrame, label: np.ndarray, **texts: list[str]) -> dict[str, np.ndarray]:
    return teaching.ngram_logits(labelled["text"].tolist(), label, texts, PARAMS, SEED)


def test_a_labelled_review_has_the_logit_of_a_classifier_that_has_not_seen_it(train: pd.DataFrame) -> None:
    texts, label = train["text"].tolist(), train["label"].to_numpy()
    found = asked(train, label, train=texts)[TRAIN]
    fold = cross_fit(texts, label, max_ngram=2, regularization=1.0, seed=SEED).fold
    held_out = fold == fold[0]
    rest = [text for text, out in zip(texts, held_out, strict=True) if not out]
    without = fit_ngrams(rest, label[~held_out], max_ngram=2, regularization=1.0)
    assert found[held_out] == pytest.approx(without.logits([texts[row] for row in np.flatnonzero(held_out)]))


def test_of_labels_that_mean_nothing_the_teacher_knows_nothing(train: pd.DataFrame) -> None:
    """A classifier that had seen a review would know even a random label of it."""
    texts, label = train["text"].tolist(), np.random.default_rng(0).permutation(np.arange(COUNT) % 2)
    found = asked(train, label, train=texts)[TRAIN]
    seen = fit_ngrams(texts, label, max_ngram=2, regularization=1.0).logits(texts)
    assert ((seen > 0) == label).mean() > 0.95
    assert 0.35 < ((found > 0) == label).mean() < 0.65


def test_an_unlabelled_review_has_the_mean_of_all_folds(train: pd.DataFrame, unlabelled: list[str]) -> None:
    texts, label = train["text"].tolist(), train["label"].to_numpy()
    found = asked(train, label, unlabelled=unlabelled)
    assert list(found) == [UNLABELLED]
    fitted = cross_fit(texts, label, max_ngram=2, regularization=1.0, seed=SEED)
    expected = np.mean([one.logits(unlabelled) for one in fitted.classifiers], axis=0)
    np.testing.assert_allclose(found[UNLABELLED], expected, atol=1e-6)


def test_sentences_have_a_classifier_of_their_own(train: pd.DataFrame) -> None:
    label = train["label"].to_numpy()
    short = ["It was great.", "A waste of time!", "xyzzy frotz plugh"]
    found = asked(train, label, sentences=short)[SENTENCES]
    learnt = [
        (sentence, its)
        for text, its in zip(train["text"], label, strict=True)
        for sentence in sentences(text)
        if len(sentence.split()) >= 3
    ]
    own = fit_ngrams(
        [sentence for sentence, _ in learnt], np.array([its for _, its in learnt]), max_ngram=2, regularization=0.1
    )
    assert found.tolist() == own.logits(short).tolist()
    assert found[0] > found[1]


def test_labels_too_few_for_the_folds_are_told_and_sentences_need_none(train: pd.DataFrame) -> None:
    few = train.groupby("label").head(4)
    label = few["label"].to_numpy()
    with pytest.raises(DataError, match="the training reviews cannot be divided into folds"):
        asked(few, label, train=few["text"].tolist())
    assert len(asked(few, label, sentences=["It was great."])[SENTENCES]) == 1


LOGITS = st.lists(st.tuples(st.floats(-800, 800), st.integers(0, 1)), min_size=1, max_size=20)


@given(LOGITS, st.floats(0.1, 10))
def test_with_a_label_weight_of_1_the_target_is_the_label(rows: list[tuple[float, int]], temperature: float) -> None:
    logit, label = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    teacher = LABELS.model_copy(update={"temperature": temperature})
    found = teaching.targets(logit, label, teacher)
    assert found.dtype == np.float32 and found.tolist() == label.tolist()


@given(LOGITS, st.floats(0, 1), st.floats(0.1, 10))
def test_a_target_is_the_probability_at_a_temperature_mixed_with_the_label(
    rows: list[tuple[float, int]], weight: float, temperature: float
) -> None:
    logit, label = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    teacher = LABELS.model_copy(update={"label_weight": weight, "temperature": temperature})
    soft = 1 / (1 + np.exp(-np.clip(logit / temperature, -700, 700)))
    assert teaching.targets(logit, label, teacher) == pytest.approx(weight * label + (1 - weight) * soft, abs=1e-6)
    unlabelled = teaching.targets(logit, None, teacher)
    assert unlabelled == pytest.approx(soft, abs=1e-6), "there is no label to mix in"
    assert ((unlabelled >= 0) & (unlabelled <= 1)).all()


def test_a_higher_temperature_is_less_sure() -> None:
    cold, warm = (
        teaching.targets(np.array([-2.0, 2.0]), None, LABELS.model_copy(update={"temperature": temperature}))
        for temperature in (1.0, 4.0)
    )
    assert cold[0] < warm[0] < 0.5 < warm[1] < cold[1]


@pytest.fixture
def texts(project: Path, train: pd.DataFrame, unlabelled: list[str]) -> dict[str, pd.DataFrame]:
    """A project that stands where `teach` begins."""
    tables = {
        TRAIN: train,
        UNLABELLED: pd.DataFrame({"id": [f"unlabelled/{row}" for row in range(40)], "text": unlabelled}),
        SENTENCES: pd.DataFrame({"id": ["s/0", "s/1"], "text": ["It was great.", "A waste of time!"]}),
    }
    for name, table in tables.items():
        write_table(SPLIT_TABLES / f"{name}.parquet", table)
    return tables


def taught(monkeypatch: pytest.MonkeyPatch, teacher: str) -> dict[str, pd.DataFrame]:
    """What stage `teach` writes."""
    monkeypatch.setattr(sys, "argv", ["teach.py", teacher])
    teach.main()
    found = {file.stem: pd.read_parquet(file) for file in teacher_folder(teacher).iterdir()}
    for table in found.values():
        assert table.columns.tolist() == ["id", "logit", "target"] and table["target"].dtype == np.float32
    return found


def test_who_learns_from_labels_alone_learns_the_labels(
    texts: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = taught(monkeypatch, "labels")
    assert list(found) == [TRAIN]
    assert found[TRAIN]["id"].tolist() == texts[TRAIN]["id"].tolist()
    assert found[TRAIN]["target"].tolist() == texts[TRAIN]["label"].tolist()


def test_who_learns_from_the_n_grams_learns_what_they_say_of_all_texts(
    texts: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params()
    found = taught(monkeypatch, "ngrams")
    lists = {name: table["text"].tolist() for name, table in texts.items()}
    label = texts[TRAIN]["label"].to_numpy()
    expected = teaching.ngram_logits(lists[TRAIN], label, lists, params.ngrams, params.seed)
    assert set(found) == set(params.teachers["ngrams"].texts) == set(texts)
    for name, table in texts.items():
        assert found[name]["id"].tolist() == table["id"].tolist()
        assert found[name]["logit"].tolist() == expected[name].tolist()
        soft = 1 / (1 + np.exp(-expected[name]))
        target = (label + soft) / 2 if name == TRAIN else soft
        assert found[name]["target"].tolist() == pytest.approx(target, abs=1e-6)


def test_a_second_generation_learns_the_mean_of_n_grams_and_network_on_texts_without_a_label(
    texts: dict[str, pd.DataFrame], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.text.token_arrays import write_tokens
    from pipeline.training import networks

    first = taught(monkeypatch, "ngrams")
    params = load_params()
    small = params.models["single"].model_copy(update={"embedding_dim": 4, "recurrent_units": [3], "dense_units": 4})
    network = networks.build_model(small, 300)
    networks.save_model(model_file("single"), network, small)
    score = networks.scoring(network)
    rng = np.random.default_rng(0)
    expected = {}
    for name in (UNLABELLED, SENTENCES):
        rows = [rng.integers(1, 300, rng.integers(1, 50)).astype(np.int32) for _ in range(len(texts[name]))]
        write_tokens(TOKENS / name, rows, texts[name]["id"].tolist(), None, vocabulary_size=300)
        expected[name] = (first[name]["logit"] + np.concatenate(score([row[None] for row in rows]))) / 2
    edit_params(project, teachers__ngrams__by="single")

    second = taught(monkeypatch, "ngrams")

    assert second[TRAIN].equals(first[TRAIN]), "the network has learnt its labels"
    for name, logit in expected.items():
        assert second[name]["logit"].tolist() == pytest.approx(logit, abs=1e-5)
        assert second[name]["target"].tolist() == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
        assert np.abs(second[name]["logit"] - first[name]["logit"]).max() > 1e-3
