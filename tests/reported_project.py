"""A working folder with all reports of two models, made in a second from drawn predictions: what `compare` and `report`
read, written by the functions that the stages call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from conftest import ROOT

from pipeline.evaluation import behaviour, comparison, metrics, selective, significance
from pipeline.evaluation.choice import Contender, choose
from pipeline.project import atomic, paths
from pipeline.project.params import load_params
from pipeline.project.training_record import write_run
from pipeline.reporting import results
from pipeline.stages.batch import distribution
from pipeline.stages.compare import write_curves
from pipeline.studies import gradient_reach
from pipeline.text.batching import bucketed_rows

REVIEWS = 400
HOSTILE = 'I liked it <script>alert("1")</script><img src=x onerror=alert(2)> & "quotes" '
LENGTH = np.arange(9, 9 + REVIEWS)
_GENERATOR = np.random.default_rng(7)
_LABEL = _GENERATOR.integers(0, 2, REVIEWS)
TEXT = pd.Series([f"{HOSTILE}{number} " * 8 for number in range(REVIEWS)])


def predictions(skill: float) -> pd.DataFrame:
    logit = _GENERATOR.normal(skill * (2 * _LABEL - 1), 1.5)
    return pd.DataFrame(
        {
            "id": [f"test/{number}" for number in range(REVIEWS)],
            "label": _LABEL,
            "logit": logit,
            "probability": metrics.probability(logit),
            "length": LENGTH,
        }
    )


def training(model: str, val_accuracy: float) -> dict[str, Any]:
    """A `training.json`."""
    metrics = {"epochs": 2, "parameters": 598_209}
    params = {"cell": "lstm", "embedding_dim": 64, "recurrent_units": [64], "pooling": "last", "dense_units": 64}
    rates = {"dropout": 0.5, "token_dropout": 0.3, "learning_rate": 0.002, "batch_size": 64, "seed": 42}
    taught = {"learns_from": "ngrams", "label_weight": 0.5, "texts": ["train", "unlabelled"], "average_epochs": 0.5}
    return {
        "model": model,
        "weights_sha256": "a" * 64,
        "metrics": metrics | {"val_accuracy": val_accuracy, "val_loss": 0.4},
        "params": params | rates | taught,
    }


def tags(model: str) -> dict[str, str]:
    """What a run is made from and by."""
    identity = {"model": model, "dataset": "imdb_reviews", "seed": "42", "device": "CPU", "python": "3.11.7"}
    made_from = {
        "version.tensorflow": "2.21.0",
        "version.keras": "3.15.0",
        "md5.data/teacher/ngrams": "e" * 32 + ".dir",
    }
    commit = {"mlflow.source.git.commit": "c0ffee" + "0" * 34, "git.dirty": "false"}
    return identity | made_from | commit


def padding_study() -> dict[str, Any]:
    outcome = {"accuracy": 0.8725, "sentences": {"positive": 0.9, "negative": 0.1}, "padded": 100, "mean_change": 0.0}
    masked = outcome | {"largest_change": 1e-7, "flipped": 0}
    unmasked = outcome | {"largest_change": 0.88, "flipped": 21, "accuracy": 0.7512}
    return {
        "reviews": 100,
        "widths": {"padded_to_2048": 2048},
        "tolerance": 1e-5,
        "masking_holds": True,
        "masked": {"unpadded": outcome, "padded_to_2048": masked},
        "unmasked": {"unpadded": outcome, "padded_to_2048": unmasked},
    }


def behavioural() -> dict[str, Any]:
    """What the behavioural tests find of a classifier that knows nothing."""
    suite = behaviour.read_suite(ROOT / "behaviour")
    cases = suite.cases([f"{text} It was made in 1987 in Paris by John." for text in TEXT], seed=42)
    found = behaviour.measure(suite, cases, lambda texts: np.linspace(0, 1, len(texts)))
    on_own = {"reviews": 488, "accuracy": 0.51, "interval": [0.46, 0.55], "unusable_rows": 2, "also_in_train": 240}
    on_own |= {"sure": {"share": 0.4, "accuracy": 0.6, "interval": [0.5, 0.7]}}
    return found | {"evaluation_sets": {"rewritten": on_own | {"pairs": 244, "both_right": 0.367}}}


def gates() -> dict[str, Any]:
    values = np.linspace(0.1, 0.9, 6).reshape(2, 3).tolist()
    names = ("input_gate", "forget_gate", "output_gate", "cell")
    return {
        "text": "A dull film",
        "tokens": ["A ", "dull ", "film"],
        "units": 64,
        "shown": [3, 9],
        **dict.fromkeys(names, values),
        "mean_forget_gate": 0.7312,
        "probability": [0.5, 0.2, 0.1],
        "largest_difference": 2e-7,
    }


def cell(reach: int) -> dict[str, Any]:
    moment = {"gradient": [1.0, 0.1, 0.001], "reach": reach}
    return {"parameters": 264_033, "val_accuracy": 0.75, "untrained": moment, "trained": moment}


def expectation(sentence: str, unexpected: int) -> dict[str, Any]:
    found = {"unexpected_count": unexpected, "rows": 25_000, "success": False, "observed": None}
    return {"table": "raw_train", "sentence": sentence, "severity": "advisory"} | found


TWO = {"single": 0.86, "stacked": 0.865}
"""Validation accuracy of the models that are reported."""


def write(folder: Path, models: Mapping[str, float] = TWO, *, fresh: bool = False) -> None:
    """Writes all reports to `folder`, which must be the working folder; `stacked` is among the models, and chosen."""
    skills = {"single": 1.0, "stacked": 1.4, paths.NGRAMS: 2.0}
    tables = {name: predictions(skills.get(name, 1.2)) for name in (*models, paths.NGRAMS)}
    test = tables["single"][["id", "label"]].assign(text=TEXT)
    for split in ("test", "validation"):
        atomic.write_table(paths.SPLIT_TABLES / f"{split}.parquet", test)
    for name, table in tables.items():
        label, logit = table["label"].to_numpy(), table["logit"].to_numpy()
        found = significance.report(label, logit, bins=15, samples=100, seed=42)
        promised = selective.on_held_out({"validation": table}, 0.8)["validation"]["sure"]
        sure = selective.is_sure(table["probability"].to_numpy(), promised["band"])
        found["sure"] = promised | selective.report(label, table["probability"].to_numpy(), sure, LENGTH)
        atomic.write_table(paths.predictions_file(name), table)
        atomic.write_table(paths.predictions_file(name, "validation"), table)
        atomic.write_json(paths.behaviour_file(name), behavioural())
        found["slices"] = significance.slices(label, logit, LENGTH, samples=100, seed=42)
        part = "ngrams" if name == paths.NGRAMS else "network"
        calibration = {"weights": {part: 0.9}, "uncalibrated": {"loss": 0.3, "ece": 0.05}}
        evaluated = {"validation": found, "calibration": calibration, **({"fresh": found} if fresh else {})}
        atomic.write_json(paths.metrics_file(name), found)
        atomic.write_json(paths.evaluated_file(name), evaluated)
        atomic.write_json(paths.serving_file(name), {"milliseconds": 0.9, "megabytes": 2.5})
        begun = {"run_id": "1" * 32, "begun": "2026-11-22T03:00:00+00:00"}
        if name == paths.NGRAMS:
            fitted = {"parameters": 615_616, "val_accuracy": 0.9, "val_loss": 0.3}
            params = {"max_ngram": 3, "seed": 42}
            learnt = {"model": name, "weights_sha256": "b" * 64, "metrics": fitted, "params": params}
            atomic.write_json(paths.train_reports(name) / "training.json", learnt)
            write_run(name, begun, times={"training_seconds": 17.0}, epoch_seconds=[], tags=tags(name))
            continue
        reports = paths.evaluation_reports(name)
        atomic.write_json(reports / "padding_study.json", padding_study())
        atomic.write_json(reports / "gates.json", gates())
        atomic.write_json(paths.train_reports(name) / "training.json", training(name, models[name]))
        times = {"training_seconds": 61.5, "seconds_per_epoch": 30.8}
        write_run(name, begun, times=times, epoch_seconds=[31.0, 30.5], tags=tags(name))
        epochs = {"epoch": [1, 2], "accuracy": [0.7, 0.8], "loss": [0.6, 0.5]}
        history = pd.DataFrame(epochs | {"val_accuracy": [0.75, 0.74], "val_loss": [0.5, 0.6]})
        history.to_csv(paths.train_reports(name) / "history.csv", index=False)
    compared = comparison.compare(tables, "stacked", LENGTH, TEXT, samples=100, seed=42)
    loss = {
        name: np.logaddexp(0, np.where(_LABEL == 1, -table["logit"], table["logit"])) for name, table in tables.items()
    }
    choice = choose({name: Contender(one, 0.9) for name, one in loss.items()})
    taught = [
        {"first": "stacked", "second": "single"}
        | comparison.paired(tables["stacked"], tables["single"], samples=100, seed=42)
    ]
    leader = paths.NGRAMS  # the most skilled
    lead = {"first": leader, "second": "stacked"}
    lead |= comparison.paired(tables[leader], tables["stacked"], samples=100, seed=42)
    atomic.write_json(paths.COMPARISON_REPORT, compared | {"choice": choice, "taught": taught, "lead": lead})
    write_curves(tables, list(models), bins=15)
    write_data_reports()
    study = {"steps": 3, "units": gradient_reach.UNITS, "epochs": 3, "reach_share": 0.01}
    reviews = {"trained": 4000, "measured": 256, "validated": 1000}
    cells = {name: cell(reach) for reach, name in enumerate(gradient_reach.CELLS, start=1)}
    atomic.write_json(paths.RECURRENCE_REPORT, study | {"reviews": reviews, "cells": cells})
    atomic.write_json(results.NOISE_REPORT, noise())
    atomic.write_json(paths.REGISTRY_REPORT, registry(tables["stacked"], tables["single"]))


def noise() -> dict[str, Any]:
    """What `make sweep` reports."""

    def spread(mean: float, deviation: float) -> dict[str, Any]:
        return {"validation": {"mean": mean, "deviation": deviation, "values": {"42": mean, "43": mean + deviation}}}

    models = {"single": spread(0.86, 0.002), "stacked": spread(0.865, 0.003)}
    differences = {"stacked - single": spread(0.005, 0.0031)}
    rates = {"negation": {"mean": 0.41, "deviation": 0.05}}
    pairs = {"pairs": 4, "passed": 3, "better": 0, "worse": {"negation": 1}, "margins": {"negation": 0.1}}
    behaviour = {"models": dict.fromkeys(models, rates), "pairs": pairs}
    return {
        "params": results.swept(load_params(), models),
        "git_commit": "c0ffee" * 6,
        "models": models,
        "differences": differences,
        "behaviour": behaviour,
    }


def write_data_reports() -> None:
    split = {
        "raw_rows": {"train": 25_000, "test": 25_000},
        "dropped_from_train": {"surplus_copies": 99, "text_also_in_test": 123},
        "surplus_copies_kept_in_test": 201,
        "near_copies": {"first_characters": 120, "text_also_in_test": 7},
        "labelled": {"rows": 0, "kept": 0},
        "verdicts": {"texts": 0, "turned": 0, "dropped": 0},
        "rows": {"train": 22_300, "validation": 2_478, "test": REVIEWS, "fresh": 0},
    }
    expectations = [expectation("at least 30% of the texts hold no HTML line break", 14_665)]
    counts = {"critical": {"evaluated": 70, "broken": 0}, "advisory": {"evaluated": 29, "broken": 1}}
    batching = {"padding_share": 0.0275, "classic_padding_share": 0.6692}
    atomic.write_json(paths.SPLIT_REPORT, split)
    atomic.write_json(paths.VALIDATION_REPORT, counts | {"success": True, "expectations": expectations})
    atomic.write_json(paths.TOKENIZER_REPORT, {"vocabulary_size": 8185, "max_tokens": 1024, "splits": {}})
    rows = bucketed_rows(LENGTH, batch_size=64, pool_batches=2, seed=42)
    train = batching | distribution(LENGTH, [LENGTH[one] for one in rows]) | {"mean_padding_share": 0.0275, "epochs": 5}
    atomic.write_json(paths.BATCHING_REPORT, {"train": train, "test": batching})


def registry(challenger: pd.DataFrame, champion: pd.DataFrame) -> dict[str, Any]:
    """A report of `register` that promoted version 4 over version 2."""

    def made_from(version: str, model: str, accuracy: float) -> dict[str, Any]:
        learnt = training(model, 0.87)["params"]
        params = {name: str(value) for name, value in learnt.items()} | {"learning_rate": f"0.00{version}"}
        accuracies = {"test_accuracy": accuracy, "val_accuracy": 0.87}
        metrics = {"test/loss": 0.3, "behaviour/negation/failure_rate": round(0.5 - 0.02 * int(version), 2)}
        told = {"metrics": metrics, "rows": {"train": 22_300 + int(version)}, "params": params, **accuracies}
        told |= {"serving": {"megabytes": 2.5, "milliseconds": 0.9}}
        return (
            {"version": version, "model": model, "registered": "2026-11-23"}
            | told
            | {"tags": {name: value for name, value in tags(model).items() if name != "model"}}
        )

    lines = [
        {"seq": 1, "when": "2026-11-16T03:00:00+00:00", "decision": "first", "from": None, "to": "2", "reason": "One."},
        {
            "seq": 2,
            "when": "2026-11-23T03:00:00+00:00",
            "decision": "promoted",
            "from": "2",
            "to": "4",
            "reason": "Two.",
        },
    ]
    now = made_from("4", "stacked", 0.8655)
    flipped = comparison.flipped(challenger, champion, TEXT)
    return {
        "registered_model": "imdb-sentiment",
        "decision": "promoted",
        "reason": "Two.",
        "champion": "4",
        "challenger": "4",
        "history": lines,
        "champion_by": lines[-1] | {"choice": "stacked has the least log loss."},
        "champion_made_from": now,
        "challenger_made_from": now,
        "against": {"made_from": made_from("2", "single", 0.8611), "flipped": flipped},
        "week_ago": {"when": "2026-11-17", "made_from": made_from("1", "single", 0.8501)},
    }
