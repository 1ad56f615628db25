"""params.yaml is read as typed settings; whatever is wrong with it is named."""

from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.project.errors import UsageError
from pipeline.project.params import load_params

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
        ("epochs: 8", "epochs: 99999999999999999999", "train.epochs: input should be less than 2147483648"),
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


def test_a_missing_file_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="run the command from the project's root"):
        load_params()


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(COMMITTED)
    with pytest.raises(UsageError, match="no model named 'double' under models; there are single, stacked"):
        load_params(file).model("double")
