"""Stage `compare`: all models and the n-grams side by side on the same test reviews, and a model card of each."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.evaluation import comparison
from pipeline.evaluation.curves import curves
from pipeline.project.atomic import atomic_write, read_table, write_json, write_text
from pipeline.project.errors import DataError
from pipeline.project.params import load_params
from pipeline.project.paths import (
    COMPARISON_REPORT,
    CURVES,
    MODEL_CARD,
    NGRAMS,
    SPLIT_TABLES,
    model_card_file,
    predictions_file,
    train_reports,
)
from pipeline.project.run_command import run_command
from pipeline.project.training_record import read_training
from pipeline.reporting import results
from pipeline.reporting.model_card import model_card


def main() -> None:
    """Compares the models' predictions, and writes the comparison, their curves and model cards."""
    params = load_params()
    test = read_table(SPLIT_TABLES / "test.parquet", ("id", "text"))
    predictions = {name: read_predictions(name, test["id"]) for name in (*params.models, NGRAMS)}
    validated = {name: read_training(name)["metrics"] for name in params.models}
    best = comparison.best_on_validation(
        {name: (metrics["best_val_accuracy"], metrics["best_val_loss"]) for name, metrics in validated.items()}
    )
    length = read_table(predictions_file(best), ("length",))["length"].to_numpy()
    samples, seed = params.evaluate.bootstrap_samples, params.seed
    compared = comparison.compare(predictions, best, length, test["text"], samples=samples, seed=seed)
    write_json(COMPARISON_REPORT, compared)
    write_curves(predictions, list(params.models), bins=params.evaluate.calibration_bins)

    found = results.read(list(params.models))
    cards = {name: model_card(found, name, params.dataset) for name in params.models}
    for name, card in cards.items():
        write_text(model_card_file(name), card)
    write_text(MODEL_CARD, cards[best])


def read_predictions(name: str, ids: "pd.Series[str]") -> pd.DataFrame:
    """Returns id, label, logit and probability of each test review; raises DataError if they are not those of `ids`."""
    table = read_table(predictions_file(name), ("id", "label", "logit", "probability"))
    if not table["id"].equals(ids):
        raise DataError(f"{predictions_file(name)} does not hold the test reviews in their order; run `dvc repro`")
    return table


def write_curves(predictions: Mapping[str, pd.DataFrame], trained: Sequence[str], *, bins: int) -> None:
    """Writes one table a kind of curve, the models one after the other, told apart by the column `model`."""
    by_model = {
        name: curves(table["label"].to_numpy(), table["logit"].to_numpy(), bins=bins)
        for name, table in predictions.items()
    }
    kinds = {kind: {name: tables[kind].round(6) for name, tables in by_model.items()} for kind in by_model[NGRAMS]}
    kinds["history"] = {name: pd.read_csv(train_reports(name) / "history.csv") for name in trained}
    with atomic_write(CURVES) as folder:
        folder.mkdir()
        for kind, tables in kinds.items():
            pd.concat(tables, names=["model"]).reset_index("model").to_csv(folder / f"{kind}.csv", index=False)


if __name__ == "__main__":
    run_command(main)
