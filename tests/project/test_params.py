"""params.yaml is read as typed settings; whatever is wrong with it is named."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.project.errors import UsageError
from pipeline.project.params import Params, candidate_argument, load_params, model_argument, teacher_argument

COMMITTED = (ROOT / "params.yaml").read_text()


def test_the_committed_params_are_valid_and_name_the_real_data_set() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.dataset == "imdb_reviews"
    assert params.models["single"].recurrent_units == [64]
    assert params.models["stacked"].recurrent_units == [64, 32]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size: 64", "batch_sise: 64", "batch.batch_sise is not a known key (did you mean batch_size?)"),
        ("batch_size: 64", "", "batch.batch_size is missing"),
        ("batch_size: 64", "batch_size: 0", "batch.batch_size: input should be greater than or equal to 1"),
        ("batch_size: 64", "batch_size: many", "batch.batch_size: input should be a valid integer"),
        ("batch_size: 64", "batch_size: '64'", "batch.batch_size: input should be a valid integer (found '64')"),
        ("dataset: imdb_reviews", "dataset: yelp", "dataset: input should be 'imdb_reviews' or 'sample'"),
        ("seed: 42", "sead: 42", "sead is not a known key (did you mean seed?)"),
        ("cell: lstm", "cell: transformer", "models.single.cell: input should be 'lstm', 'gru' or 'simple_rnn'"),
        ("  single:", "  Single Model:", "models.Single Model"),
        ("  single:", "  ngrams:", "models.ngrams.[key]: a model cannot have this name"),
        (
            "epochs: 8",
            "epochs: 99999999999999999999",
            "models.single-labels.epochs: input should be less than 2147483648",
        ),
        ("clip_norm: 1.0", "clip_norm: .inf", "train.clip_norm: input should be a finite number"),
        ("test: mcnemar", "test: anova", "gate.test: input should be 'mcnemar' or 'bootstrap' (found 'anova')"),
        ("level: 0.05", "level: 95", "gate.level: input should be less than 0.5 (found 95)"),
        ("    sample: 0.6", "    sampel: 0.6", "gate.min_accuracy.sampel is not a known key (did you mean sample?)"),
        ("    sample: 0.6", "", "gate.min_accuracy.sample is missing"),
        ("split:", "split: [", "is not YAML"),
    ],
)
def test_a_wrong_key_is_named_with_what_would_be_right(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in COMMITTED
    file = tmp_path / "params.yaml"
    file.write_text(COMMITTED.replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        load_params(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "learns_from: labels",
            "learns_from: label",
            "models.single-labels.learns_from names label, which is not there; there are labels, ngrams",
        ),
        (
            "ngrams: {by: ngrams",
            "ngrams: {by: singel",
            "teachers.ngrams.by names singel, which is not there; there are ngrams, single, single-labels, stacked, "
            "pooled",
        ),
        (
            "blend: pooled",
            "blend: ngrams",
            "blend names ngrams, which is not there; there are single, single-labels, stacked, pooled",
        ),
        (
            "ngrams, blend]",
            "ngrams, blent]",
            "candidates names blent, which is not there; there are single, single-labels, stacked, pooled, ngrams, "
            "blend",
        ),
        ("candidates: [", "candidates: [] # [", "candidates: list should have at least 1 item"),
        ("texts: [train]", "texts: [test]", "teachers.labels.texts.0: input should be 'train', 'unlabelled'"),
        ("texts: [train]", "texts: []", "teachers.labels.texts: list should have at least 1 item"),
        ("label_weight: 0.5", "label_weight: 1.5", "teachers.ngrams.label_weight: input should be less than or equal"),
        ("temperature: 1.0", "temperature: 0", "teachers.labels.temperature: input should be greater than 0"),
        ("temperature: 1.0", "temprature: 1.0", "teachers.labels.temprature is not a known key (did you mean temp"),
        ("    learns_from: labels\n", "", "models.single-labels.learns_from is missing"),
    ],
)
def test_what_a_network_learns_and_who_competes_is_named_where_it_is_not_there(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in COMMITTED
    file = tmp_path / "params.yaml"
    file.write_text(COMMITTED.replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        load_params(file)
    told = str(error.value)
    assert message in told and "\n" not in told
    assert told.startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("argument", "known"),
    [
        (model_argument, "one model of params.yaml: single, single-labels"),
        (candidate_argument, "one candidate of params.yaml: single-labels, single, stacked, pooled, ngrams, blend"),
        (teacher_argument, "one teacher of params.yaml: labels, ngrams"),
    ],
)
def test_a_stage_that_is_told_no_name_says_which_there_are(
    monkeypatch: pytest.MonkeyPatch, argument: Callable[[Params], str], known: str
) -> None:
    params = load_params(ROOT / "params.yaml")
    for command_line in (["stage.py"], ["stage.py", "single", "ngrams"]):
        monkeypatch.setattr(sys, "argv", command_line)
        with pytest.raises(UsageError, match=known):
            argument(params)
    monkeypatch.setattr(sys, "argv", ["stage.py", "labels" if argument is teacher_argument else "single"])
    assert argument(params) == sys.argv[1]


@pytest.mark.parametrize("argument", [candidate_argument, teacher_argument])
def test_a_stage_refuses_what_is_neither_candidate_nor_teacher(
    monkeypatch: pytest.MonkeyPatch, argument: Callable[[Params], str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stage.py", "tokenizer"])
    with pytest.raises(UsageError, match="name one"):
        argument(load_params(ROOT / "params.yaml"))


def test_a_missing_file_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="run the command from the project's root"):
        load_params()


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(COMMITTED)
    with pytest.raises(
        UsageError, match="no model named 'double' under models; there are single, single-labels, stacked"
    ):
        load_params(file).model("double")
