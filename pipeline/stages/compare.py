"""Stage `compare`: all models and the baseline side by side on the same test reviews."""

from pipeline import comparison
from pipeline.artifacts import (
    COMPARISON_REPORT,
    SPLIT_TABLES,
    predictions_file,
    read_json,
    read_table,
    train_reports,
    write_json,
)
from pipeline.errors import DataError, run_command
from pipeline.params import load_params

BASELINE = "baseline"


def main() -> None:
    params = load_params()
    test = read_table(SPLIT_TABLES / "test.parquet", ("id", "text"))
    predictions = {
        name: read_table(predictions_file(name), ("id", "label", "logit", "probability"))
        for name in (*params.models, BASELINE)
    }
    for name, table in predictions.items():
        if not table["id"].equals(test["id"]):
            raise DataError(f"{predictions_file(name)} does not hold the test reviews in their order; run `dvc repro`")
    results = {}
    for name in params.models:
        metrics = read_json(train_reports(name) / "run.json", ("metrics",))["metrics"]
        results[name] = (metrics["best_val_accuracy"], metrics["best_val_loss"])
    best = comparison.best_on_validation(results)
    length = read_table(predictions_file(best), ("length",))["length"].to_numpy()
    report = comparison.compare(
        predictions,
        [BASELINE],
        best,
        length,
        test["text"],
        samples=params.evaluate.bootstrap_samples,
        seed=params.seed,
    )
    write_json(COMPARISON_REPORT, report)


if __name__ == "__main__":
    run_command(main)
