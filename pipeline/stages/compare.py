"""Stage `compare`: all candidates side by side, which of them challenges the champion, and a model card of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation import candidates, comparison
from pipeline.evaluation.choice import Contender, choose
from pipeline.evaluation.curves import curves
from pipeline.project.atomic import atomic_write, read_json, read_table, write_json, write_text
from pipeline.project.errors import DataError
from pipeline.project.params import Params, load_params
from pipeline.project.paths import (
    BLEND,
    COMPARISON_REPORT,
    CURVES,
    MODEL_CARD,
    NGRAMS,
    SPLIT_TABLES,
    TRAIN,
    UNLABELLED,
    behaviour_file,
    model_card_file,
    predictions_file,
    train_reports,
)
from pipeline.project.run_command import run_command
from pipeline.registry import behaviour_gate
from pipeline.reporting import results
from pipeline.reporting.model_card import model_card


def main() -> None:
    """Chooses the challenger, compares the candidates' predictions, and writes comparison, curves and model cards."""
    params = load_params()
    test = read_table(SPLIT_TABLES / "test.parquet", ("id", "text"))
    predictions = {name: read_predictions(name, "test", test["id"]) for name in params.candidates}
    choice = choose({name: contender(name, params) for name in params.candidates})
    best = choice["chosen"]
    length = read_table(predictions_file(best), ("length",))["length"].to_numpy()
    samples, seed = params.evaluate.bootstrap_samples, params.seed
    compared = comparison.compare(predictions, best, length, test["text"], samples=samples, seed=seed)

    def paired(first: str, second: str) -> dict[str, Any]:
        found = comparison.paired(predictions[first], predictions[second], samples=samples, seed=seed)
        return {"first": first, "second": second} | found

    taught = [paired(first, second) for first, second in taught_pairs(params)]
    leader, *others = sorted(predictions, key=lambda name: -comparison.right(predictions[name]).sum())
    lead = paired(leader, others[0]) if others else None  # of the best on test over the next best
    write_json(COMPARISON_REPORT, compared | {"choice": choice, "taught": taught, "lead": lead})
    networks = [name for name in params.candidates if name in params.models]
    write_curves(predictions, networks, bins=params.evaluate.calibration_bins)

    found = results.read(params.candidates)
    cards = {name: model_card(found, name, params.dataset) for name in params.candidates}
    for name, card in cards.items():
        write_text(model_card_file(name), card)
    write_text(MODEL_CARD, cards[best])


def taught_pairs(params: Params) -> list[tuple[str, str]]:
    """Returns the pairs of candidates that are the same network, taught with unlabelled texts and on labels alone."""

    def network(name: str) -> tuple[object, ...]:
        model = params.models[name]
        return model.cell, model.embedding_dim, model.recurrent_units, model.pooling, model.dense_units

    networks = [name for name in params.candidates if name in params.models]
    texts = {name: params.teachers[params.models[name].learns_from].texts for name in networks}
    return [
        (taught, alone)
        for taught in networks
        for alone in networks
        if UNLABELLED in texts[taught] and texts[alone] == [TRAIN] and network(taught) == network(alone)
    ]


def contender(name: str, params: Params) -> Contender:
    """Returns a candidate as `choose` takes it: its log loss on validation, its cost, its behaviour's objection."""
    validation = read_table(SPLIT_TABLES / "validation.parquet", ("id",))["id"]
    table = read_predictions(name, "validation", validation)
    loss = np.logaddexp(0, np.where(table["label"] == 1, -table["logit"], table["logit"]))
    report = read_json(behaviour_file(name), ("tests",))
    spans = behaviour_gate.spans(report, params.gate.behaviour.ceilings(params.dataset))
    objections = behaviour_gate.span_objections(spans, params.dataset)
    return Contender(loss, cost(name, params), " ".join(objections) or None)


def cost(name: str, params: Params) -> float:
    """Returns the milliseconds that a candidate takes for a review. A blend takes no less than what it is made of, even
    where a busy machine measured that."""
    measured = (name, params.blend, NGRAMS) if name == BLEND else (name,)
    return max(candidates.read_serving(one)["milliseconds"] for one in measured)


def read_predictions(name: str, split: str, ids: "pd.Series[str]") -> pd.DataFrame:
    """Returns id, label, logit and probability of each review; raises DataError if they are not those of `ids`."""
    file = predictions_file(name, split)
    table = read_table(file, ("id", "label", "logit", "probability"))
    if not table["id"].equals(ids):
        raise DataError(f"{file} does not hold the {split} reviews in their order; run `dvc repro`")
    return table


def write_curves(predictions: Mapping[str, pd.DataFrame], trained: Sequence[str], *, bins: int) -> None:
    """Writes one table a kind of curve, the models one after the other, told apart by the column `model`."""
    by_model = {
        name: curves(table["label"].to_numpy(), table["logit"].to_numpy(), bins=bins)
        for name, table in predictions.items()
    }
    kinds = {
        kind: {name: tables[kind].round(6) for name, tables in by_model.items()}
        for kind in next(iter(by_model.values()))
    }
    if trained:
        kinds["history"] = {name: pd.read_csv(train_reports(name) / "history.csv") for name in trained}
    with atomic_write(CURVES) as folder:
        folder.mkdir()
        for kind, tables in kinds.items():
            pd.concat(tables, names=["model"]).reset_index("model").to_csv(folder / f"{kind}.csv", index=False)


if __name__ == "__main__":
    run_command(main)
