"""All reports of one run of the pipeline, read together: what page, model cards and README show."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.project.atomic import read_json
from pipeline.project.errors import DataError
from pipeline.project.paths import (
    BATCHING_REPORT,
    COMPARISON_REPORT,
    CURVES,
    NGRAMS,
    REPORTS,
    SPLIT_REPORT,
    TOKENIZER_REPORT,
    VALIDATION_REPORT,
    behaviour_file,
    evaluated_file,
    evaluation_reports,
    metrics_file,
    run_file,
)
from pipeline.project.training_record import read_record, read_training

if TYPE_CHECKING:
    import pandas as pd

NOISE_REPORT = REPORTS / "noise.json"
"""What `make sweep` measured; no stage writes it."""

Report = dict[str, Any]


@dataclass(frozen=True)
class ModelResults:
    """What was reported of one model; `training` is the same for the same weights, `metrics` are those of the test
    split, `validation` and `fresh` those of these, the latter None where there are none, and `gates` None where its
    cell is no LSTM."""

    name: str
    training: Report
    metrics: Report
    fresh: Report | None
    validation: Report
    padding: Report
    gates: Report | None

    @cached_property
    def record(self) -> Report:
        """The training with what is particular to its run (`read_record`), read only where it is asked for."""
        return read_record(self.name)


@dataclass(frozen=True)
class Results:
    """The reports of one run of the pipeline; `models` in the order of params.yaml, `behaviour` what the behavioural
    tests found of them and of the n-grams, by name."""

    models: dict[str, ModelResults]
    ngrams: Report
    behaviour: dict[str, Report]
    comparison: Report
    split: Report
    validation: Report
    tokenizer: Report
    batching: Report

    @property
    def best(self) -> ModelResults:
        """The best model on validation, which is the challenger."""
        return self.models[self.comparison["best"]]

    @property
    def closest(self) -> Report:
        """The comparison of `best` with the strongest of the other models on test; with the n-grams where there is
        no other."""
        pairs = self.comparison["pairs"]
        return min([pair for pair in pairs if pair["second"] != NGRAMS] or pairs, key=lambda pair: pair["difference"])

    def table(self, name: str, kind: str) -> "pd.DataFrame":
        """Returns the curve `kind` of a model or of the n-grams (see `curves.curves`), or a model's `history`, one row
        an epoch; raises DataError naming a file that is missing or something else."""
        import pandas as pd

        path = CURVES / f"{kind}.csv"
        try:
            table = pd.read_csv(path, keep_default_na=False)  # a model may be named `nan`
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a table ({error}); run `dvc repro`") from None
        return table[table["model"] == name].drop(columns="model").reset_index(drop=True)


def read(models: "list[str]") -> Results:
    """Reads the reports of `models` and of the data; raises DataError naming the one that is missing."""
    return Results(
        {name: _model(name) for name in models},
        ngrams=_ngrams(),
        behaviour={
            name: read_json(behaviour_file(name), ("capabilities", "about", "tests")) for name in (*models, NGRAMS)
        },
        comparison=read_json(COMPARISON_REPORT, ("best", "pairs", "wrong", "lengths", "mistakes", "flipped")),
        split=read_json(SPLIT_REPORT, ("raw_rows", "dropped_from_train", "rows")),
        validation=read_json(VALIDATION_REPORT, ("critical", "advisory", "expectations")),
        tokenizer=read_json(TOKENIZER_REPORT, ("vocabulary_size", "max_tokens", "splits")),
        batching=read_json(BATCHING_REPORT),
    )


def read_noise(dataset: str) -> Report | None:
    """Returns how much accuracy moves with the seed, or None where that was not measured on `dataset`."""
    if not NOISE_REPORT.exists():
        return None
    noise = read_json(NOISE_REPORT, ("dataset", "git_commit", "models", "differences"))
    return noise if noise["dataset"] == dataset else None


def measured(models: Iterable[str]) -> list[tuple[str, Report, Report]]:
    """Returns name, test metrics and figures of the training (parameters, training_seconds, and a network's epochs) of
    each of `models` and of the n-grams; raises DataError naming a missing file."""
    networks = [(name, _tested(name), read_record(name)["metrics"]) for name in models]
    ngrams = _ngrams()
    run = read_json(run_file(NGRAMS), ("metrics",))["metrics"]
    return [*networks, (NGRAMS, ngrams, run | {"parameters": ngrams["features"]})]


def _tested(name: str) -> Report:
    return read_json(metrics_file(name), ("accuracy", "intervals", "confusion", "slices", "sure"))


def _ngrams() -> Report:
    tested = read_json(metrics_file(NGRAMS), ("accuracy", "intervals", "confusion", "sure"))
    evaluated = read_json(evaluated_file(NGRAMS), ("features", "validation"))
    return tested | {"features": evaluated["features"], "validation": evaluated["validation"]}


def _behaviour(name: str) -> Report:
    return read_json(behaviour_file(name), ("texts", "capabilities", "about", "tests", "evaluation_sets"))


def _model(name: str) -> ModelResults:
    folder = evaluation_reports(name)
    gates, evaluated = folder / "gates.json", read_json(evaluated_file(name), ("validation",))
    return ModelResults(
        name,
        training=read_training(name),
        metrics=_tested(name),
        fresh=evaluated.get("fresh"),
        validation=evaluated["validation"],
        padding=read_json(folder / "padding_study.json", ("masked", "unmasked", "widths", "reviews")),
        gates=read_json(gates) if gates.exists() else None,
    )
