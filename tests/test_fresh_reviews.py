"""What new reviews that differ from the old ones do, from `sentiment retrain` alone, on the sample: taken in, held out
as fresh, trained on, and judged by the gate. Their language is new: words that no model has seen say what they mean."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, edit_params
from ruamel.yaml import YAML

from pipeline.project.params import load_params
from scripts import demo

pytestmark = pytest.mark.e2e

ROWS = 2000
WORDS = (("blorp", "drasp", "quarn", "vemmy"), ("zonk", "fimp", "gluvy", "thock"))
"""What is said of a bad film, and of a good one."""
SMALL = {
    "split__fresh_rows": 300,
    "tokenize__vocabulary_size": 1024,
    "tokenize__max_tokens": 96,
    "blend": "single",
    "candidates": ["single"],
    "models__single__learns_from": "labels",
    "models__single__epochs": 20,
    "models__single__token_dropout": 0.5,
    "models__single__embedding_dim": 8,
    "models__single__recurrent_units": [8],
    "models__single__learning_rate": 0.01,
    "evaluate__bootstrap_samples": 100,
    "evaluate__padding_study_reviews": 100,
    # Of 1,200 test reviews, on a third of which two such small models disagree, an interval is 7 points wide: with the
    # committed margin nothing could be shown not to be worse.
    "gate__non_inferiority_margin": 0.1,
    "gate__length_slice_margin": 0.5,
    "gate__label_slice_margin": 0.5,
    "gate__min_accuracy__sample": 0.0,
    "gate__behaviour__margins": {},
    "gate__behaviour__margin": 1.0,
    "retrain__intake__settle_seconds": 0.0,
    "retrain__min_free_gb": 0.0,
}


def retrain(folder: Path) -> tuple[int, dict[str, Any]]:
    """Runs the job; returns its exit code and record."""
    done = subprocess.run(
        ["sentiment", "retrain"],
        cwd=folder,
        env=demo.environment(folder),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    records = sorted((folder / "reports/retrain").glob("*.json"))
    assert records, done.stdout[-3000:] + done.stderr[-3000:]
    return done.returncode, json.loads(records[-1].read_text())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose first run made a champion."""
    folder = tmp_path_factory.mktemp("first")
    demo.copy_checkout(folder)
    yaml, file = YAML(), folder / "params.yaml"
    params = yaml.load(file.read_text())
    params["models"] = {"single": params["models"]["single"]}
    with file.open("w") as stream:
        yaml.dump(params, stream)
    edit_params(folder, **SMALL)
    code, record = retrain(folder)
    assert (code, record["champion_after"]) == (0, "1"), record
    return folder


@pytest.fixture
def project(first: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", f"{first}/.", str(tmp_path)], check=True)
    return tmp_path


def in_a_new_language(sample: pd.DataFrame, *, meant: bool) -> pd.DataFrame:
    """New reviews: a few words of an old one, which say little, and then a new word; its label is what the word says,
    or where it is not `meant`, any."""
    rng = np.random.default_rng(1)
    some = sample.sample(ROWS, random_state=1)
    label = some["label"].to_numpy() if meant else rng.integers(0, 2, ROWS)
    said = np.array(WORDS)[label if meant else rng.integers(0, 2, ROWS), rng.integers(0, 4, ROWS)]
    words = some["text"].str.split().str[:12].str.join(" ")
    return pd.DataFrame({"text": words + " " + said + ", " + said + "!", "label": label})


def drop(project: Path, table: pd.DataFrame) -> None:
    (project / "data/incoming").mkdir()
    table.to_csv(project / "data/incoming/monday.csv", index=False)


def test_reviews_in_a_new_language_are_learnt_and_the_champion_goes(project: Path, reviews: pd.DataFrame) -> None:
    drop(project, in_a_new_language(reviews, meant=True))
    code, record = retrain(project)
    assert (code, record["outcome"], record["champion_after"]) == (0, "PROMOTED", "2"), record["reason"]
    assert "On fresh reviews it is significantly better" in record["reason"]
    assert "not significantly better than the champion at" in record["reason"], "on the test split, that is"
    assert len(pd.read_parquet(project / "data/splits/fresh.parquet")) == 300
    card = (project / "reports/model_card.md").read_text()
    assert "On the 300 newest labelled reviews, which no model has trained on: accuracy " in card
    code, record = retrain(project)
    assert (code, record["outcome"], record["decision"]) == (0, "SKIPPED", "skip")


def test_reviews_that_teach_nothing_change_no_champion(project: Path, reviews: pd.DataFrame) -> None:
    committed = load_params(ROOT / "params.yaml").gate.non_inferiority_margin
    edit_params(project, gate__non_inferiority_margin=committed)
    drop(project, in_a_new_language(reviews, meant=False))
    code, record = retrain(project)
    assert (code, record["outcome"], record["champion_after"]) == (4, "REJECTED", "1"), record["reason"]
    assert "On fresh reviews it is not significantly better" in record["reason"]
    assert "may be worse than the champion by more than 0.75 points" in record["reason"]
