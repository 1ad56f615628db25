"""The vocabulary is that of the raw training texts, the same at every run."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest
from conftest import edit_params

from pipeline.project.atomic import write_table
from pipeline.project.paths import RAW, TOKENIZER, VOCABULARY
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.vocabulary import build_vocabulary

RunStage = Callable[..., CompletedProcess[str]]
SIZE = 1000


@pytest.fixture
def raw(project: Path, reviews: pd.DataFrame) -> pd.DataFrame:
    """A project that stands where `vocabulary` begins: with real reviews as its raw training table."""
    edit_params(project, tokenize__vocabulary_size=SIZE)
    table = reviews[:100]
    write_table(RAW / "train.parquet", table)
    return table


def test_the_stage_writes_the_vocabulary_of_the_raw_texts_and_nothing_else(
    raw: pd.DataFrame, run_stage: RunStage
) -> None:
    done = run_stage("vocabulary")

    assert done.returncode == 0, done.stderr
    tokenizer = SubwordTokenizer.load(VOCABULARY)
    assert list(tokenizer.subwords) == build_vocabulary(raw["text"], SIZE)
    assert done.stdout == f"vocabulary: {tokenizer.vocabulary_size:,} token ids\n"
    assert list(TOKENIZER.iterdir()) == [VOCABULARY]


def test_two_runs_write_the_same_bytes(raw: pd.DataFrame, run_stage: RunStage) -> None:
    def vocabulary() -> bytes:
        assert run_stage("vocabulary").returncode == 0
        return VOCABULARY.read_bytes()

    assert vocabulary() == vocabulary()


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_text_without_ids_is_named_by_file_and_row(raw: pd.DataFrame, run_stage: RunStage, text: str) -> None:
    write_table(RAW / "train.parquet", raw.assign(text=["good", text, *raw["text"][2:]]))

    done = run_stage("vocabulary")

    assert done.returncode == 3
    assert done.stderr == f"error: {RAW}/train.parquet: row {raw['id'].iloc[1]}: the text is blank\n"
    assert not TOKENIZER.exists()
