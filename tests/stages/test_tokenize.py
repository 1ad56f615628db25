import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
from conftest import edit_params

from pipeline.project.atomic import read_json, write_json, write_table
from pipeline.project.params import load_params
from pipeline.project.paths import (
    SPLIT_TABLES,
    SPLITS,
    TAUGHT,
    TOKENIZER_REPORT,
    TOKENS,
    VALIDATION_REPORT,
    VOCABULARY,
)
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.token_arrays import read_tokens
from pipeline.text.vocabulary import build_vocabulary

RunStage = Callable[..., CompletedProcess[str]]


@pytest.fixture
def splits(project: Path, reviews: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A project that stands where `tokenize` begins: a vocabulary, split tables of real reviews, and valid data."""
    tables = {"train": reviews[:80], "validation": reviews[80:100], "test": reviews[-50:], "fresh": reviews[:0]}
    tables |= {"unlabelled": reviews[100:140][["id", "text"]], "sentences": reviews[:0][["id", "text"]]}
    VOCABULARY.parent.mkdir(parents=True)
    SubwordTokenizer(build_vocabulary(reviews["text"][:100], 1000)).save(VOCABULARY)
    for split, table in tables.items():
        write_table(SPLIT_TABLES / f"{split}.parquet", table)
    write_json(VALIDATION_REPORT, {"success": True})
    return tables


def test_the_stage_encodes_every_split_with_the_vocabulary_that_stands(
    splits: dict[str, pd.DataFrame], run_stage: RunStage
) -> None:
    vocabulary = VOCABULARY.read_bytes()

    done = run_stage("tokenize")

    assert done.returncode == 0, done.stderr
    assert VOCABULARY.read_bytes() == vocabulary
    tokenizer = SubwordTokenizer.load(VOCABULARY)
    max_tokens = load_params().tokenize.max_tokens
    assert {folder.name for folder in TOKENS.iterdir()} == set(splits) == {*SPLITS, *TAUGHT}
    for split, table in splits.items():
        tokens = read_tokens(TOKENS / split)
        assert tokens.id.tolist() == table["id"].tolist()
        assert [ids.tolist() for ids in tokens] == [
            tokenizer.encode(text, max_tokens=max_tokens) for text in table["text"]
        ]
        assert tokens.token_ids.dtype == np.uint16, "the vocabulary has a thousand ids"
        if split in SPLITS:
            assert tokens.label is not None and tokens.label.tolist() == table["label"].tolist()
        else:
            assert tokens.label is None


def test_the_report_counts_what_truncation_does(
    splits: dict[str, pd.DataFrame], project: Path, run_stage: RunStage
) -> None:
    edit_params(project, tokenize__max_tokens=200)

    assert run_stage("tokenize").returncode == 0

    report = read_json(TOKENIZER_REPORT)
    tokenizer = SubwordTokenizer.load(VOCABULARY)
    lengths = pd.Series([len(tokenizer.encode(text)) for text in splits["test"]["text"]])
    assert report["vocabulary_size"] == tokenizer.vocabulary_size
    assert report["max_tokens"] == 200
    assert report["splits"]["test"] == {
        "rows": 50,
        "tokens": int(lengths.clip(upper=200).sum()),
        "truncated": int((lengths > 200).sum()),
        "truncated_share": (lengths > 200).mean(),
        "longest": lengths.max(),
        "mean_length": round(lengths.mean(), 1),
        "median_length": lengths.median(),
    }
    assert report["splits"]["test"]["truncated"] > 0


def test_two_runs_write_the_same_bytes(splits: dict[str, pd.DataFrame], run_stage: RunStage) -> None:
    def outputs() -> list[bytes]:
        assert run_stage("tokenize").returncode == 0
        return [path.read_bytes() for path in (TOKENIZER_REPORT, *sorted(TOKENS.glob("*/*")))]

    assert outputs() == outputs()


@pytest.mark.parametrize("content", [{"success": False}, {}, []])
def test_data_that_failed_validation_are_not_tokenized(
    splits: dict[str, pd.DataFrame], run_stage: RunStage, content: object
) -> None:
    VALIDATION_REPORT.write_text(json.dumps(content))

    done = run_stage("tokenize")

    assert done.returncode == 3
    assert str(VALIDATION_REPORT) in done.stderr
    assert not TOKENS.exists() and not TOKENIZER_REPORT.exists()


def test_a_missing_vocabulary_is_named_with_the_remedy(splits: dict[str, pd.DataFrame], run_stage: RunStage) -> None:
    VOCABULARY.unlink()

    done = run_stage("tokenize")

    assert done.returncode == 3
    assert done.stderr == f"error: {VOCABULARY} does not exist; run `dvc repro` to make it\n"
    assert not TOKENS.exists()


@pytest.mark.parametrize("split", ["test", "unlabelled"])
def test_a_text_without_ids_is_named_by_file_and_row(
    splits: dict[str, pd.DataFrame], run_stage: RunStage, split: str
) -> None:
    table = splits[split].assign(text=["good", " \n", *splits[split]["text"][2:]])
    write_table(SPLIT_TABLES / f"{split}.parquet", table)

    done = run_stage("tokenize")

    assert done.returncode == 3
    row = table["id"].iloc[1]
    assert done.stderr == f"error: {SPLIT_TABLES}/{split}.parquet: row {row}: the text is blank\n"
    assert not TOKENS.exists()
