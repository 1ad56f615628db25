import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest
from conftest import edit_params

from pipeline.data.sources import load_reviews
from pipeline.project.atomic import write_table
from pipeline.project.paths import RAW, SPLIT_REPORT, SPLIT_TABLES

RunStage = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize(("per_review", "sentences"), [(2, 200), (0, 0)])
def test_unlabelled_reviews_and_sentences_of_them_are_written_without_a_label(
    project: Path, run_stage: RunStage, per_review: int, sentences: int
) -> None:
    raw, _ = load_reviews("sample")
    leaked = raw["test"].head(1).assign(id="unlabelled/leaked")[["id", "text"]]
    raw["unlabelled"] = pd.concat([leaked, raw["unlabelled"].head(100)])
    for split, table in raw.items():
        write_table(RAW / f"{split}.parquet", table)
    edit_params(project, split__sentences_per_review=per_review)

    done = run_stage("split")

    assert done.returncode == 0, done.stderr
    report = json.loads(SPLIT_REPORT.read_text())
    assert report["raw_rows"] == {"train": 2400, "test": 1200, "unlabelled": 101}
    assert (report["unlabelled"]["kept"], report["unlabelled"]["text_also_in_test"]) == (100, 1)
    assert 0.95 * sentences <= report["sentences"]["kept"] <= sentences
    for name in ("unlabelled", "sentences"):
        table = pd.read_parquet(SPLIT_TABLES / f"{name}.parquet")
        assert table.dtypes.astype(str).to_dict() == {"id": "str", "text": "str"}
        assert len(table) == report["rows"][name] == report[name]["kept"]
