"""The ablations measure what a number of labels is worth, and within it use no other label."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import edit_params

from pipeline.data.sources import SAMPLE
from pipeline.project import atomic
from pipeline.project.params import Params, load_params
from pipeline.project.paths import CHECKPOINTS, SENTENCES, SPLIT_TABLES, TOKENS, VALIDATION_BATCHES, VOCABULARY
from pipeline.reporting import results
from pipeline.reporting.charts import labels_pay
from pipeline.reporting.results import ABLATED, ABLATED_COURSE, ABLATIONS_REPORT
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.batching import make_batches, write_batches
from pipeline.text.token_arrays import read_tokens, write_tokens
from pipeline.text.vocabulary import build_vocabulary
from scripts import ablations

BUDGETS = (40, None)
ROWS = {"train": slice(0, 120), "validation": slice(120, 140), "unlabelled": slice(140, 180), "test": slice(180, 240)}
MAX_TOKENS = 24


@pytest.fixture
def split(project: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project whose reviews are split and have token ids, and whose networks are tiny; its params."""
    tiny = {"embedding_dim": 2, "recurrent_units": [2], "dense_units": 2, "epochs": 2}
    models = {name: load_params().models[name].model_dump() | tiny for name in (ABLATED, ABLATED_COURSE)}
    edit_params(project, models=models, blend=ABLATED, candidates=list(models), batch__batch_size=16)
    monkeypatch.setattr(ablations, "BUDGETS", BUDGETS)
    monkeypatch.setattr(ablations, "SEEDS", (1, 2))
    monkeypatch.setattr(ablations, "FEWEST_STEPS", 6)
    reviews = pd.read_parquet(SAMPLE).sample(240, random_state=1)
    tokenizer = SubwordTokenizer(build_vocabulary(reviews["text"], 600))
    VOCABULARY.parent.mkdir(parents=True)
    tokenizer.save(VOCABULARY)
    tables = {name: reviews.iloc[rows].reset_index(drop=True) for name, rows in ROWS.items()}
    tables[SENTENCES] = tables["unlabelled"].assign(text=[text[:60] for text in tables["unlabelled"]["text"]])
    for name, table in tables.items():
        labelled = name not in ("unlabelled", SENTENCES)
        atomic.write_table(SPLIT_TABLES / f"{name}.parquet", table if labelled else table[["id", "text"]])
        ids = tokenizer.encode_batch(table["text"], MAX_TOKENS)
        label = table["label"].tolist() if labelled else None
        write_tokens(TOKENS / name, ids, table["id"].tolist(), label, vocabulary_size=tokenizer.vocabulary_size)
    held_out = read_tokens(TOKENS / "validation")
    assert held_out.label is not None
    batched = make_batches(held_out, held_out.label, held_out.id.tolist(), batch_size=16, pool_batches=None, seed=1)
    write_batches(VALIDATION_BATCHES, batched)
    return load_params()


def test_a_budget_has_equally_many_of_both_labels_and_a_smaller_one_lies_within_it() -> None:
    label = np.random.default_rng(0).integers(0, 2, 1000).astype(np.int8)
    small, large = (ablations.drawn(label, labels, seed=3) for labels in (100, 400))
    assert [label[small].sum(), label[~small].size] == [50, 900] and label[large].mean() == 0.5
    assert not (small & ~large).any()
    assert ablations.drawn(label, None, seed=3).all()
    assert (ablations.drawn(label, 100, seed=4) != small).any()


def test_labels_outside_the_budget_teach_nothing(split: Params) -> None:
    setting = ablations.Setting("taught", 40, 1, ("train", "unlabelled", SENTENCES), 0.5)
    data = ablations.Data()
    known = ablations.drawn(data.label("train"), 40, 1)
    labelled = [data.texts["train"][row] for row in np.flatnonzero(known)]

    def taught() -> ablations.Examples:
        return ablations.learnt(setting, data, known, labelled, data.label("train")[known], split)

    before = taught()
    assert len(before.target) == len(before.token_ids) == 120 + 40 + 40
    data.label("train")[~known] ^= 1
    assert np.array_equal(taught().target, before.target)
    data.label("train")[known] ^= 1
    assert not np.array_equal(taught().target, before.target)


def test_what_was_measured_is_measured_once_and_goes_on_where_it_was(
    split: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure, asked = ablations.measure, []

    def counted(setting: ablations.Setting, *others: object) -> dict:
        asked.append(setting)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(setting, *others)

    monkeypatch.setattr(ablations, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        ablations.main()
    report = json.loads(ABLATIONS_REPORT.read_text())
    assert [one["what"] for one in report["measured"]] == ["labels alone", "taught"]
    found = results.read_ablations(split)
    assert found and found["left"] == len(list(ablations.settings())) - 2 == 8
    ablations.main()
    assert len(asked) == 3 + 8 and asked[3] == asked[2] and len(set(asked)) == 10
    assert not list((CHECKPOINTS / "ablations").iterdir())
    found = results.read_ablations(split)
    assert found and found["left"] == 0
    rows = {(row["labels"], row["what"]): row for row in found["rows"]}
    assert rows[(40, "taught")]["labelled"] == 40 and rows[(None, "taught")]["labelled"] == 120
    assert rows[(40, "taught")]["accuracy"].keys() == {1, 2} and rows[(None, "unlabelled alone")][
        "accuracy"
    ].keys() == {1}
    assert [row["labelled"] for row in found["rows"]] == [40, 40, 120, 120, 120, 120]
    assert "unlabelled alone" in capsys.readouterr().out
    assert "How much labelling pays" in labels_pay(found["rows"])


def test_figures_of_other_params_are_not_shown_and_measured_anew(split: Params, project: Path) -> None:
    atomic.write_json(ABLATIONS_REPORT, {"params": results.ablated(split), "settings": 9, "measured": []})
    assert results.read_ablations(split) is None, "nothing is measured yet"
    one = {"what": "taught", "labels": 40, "labelled": 40, "seed": 1, "accuracy": 0.7, "ngrams": 0.6}
    atomic.write_json(ABLATIONS_REPORT, {"params": results.ablated(split), "settings": 9, "measured": [one]})
    assert results.read_ablations(split)
    edit_params(project, ngrams__regularization=0.5)
    assert results.read_ablations(load_params()) is None
