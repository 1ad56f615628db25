"""All reports of a run read together, and what they say in sentences: one source for page, model card and README."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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
    evaluation_reports,
    metrics_file,
    run_file,
    train_reports,
)
from pipeline.project.training_record import read_record, read_training

if TYPE_CHECKING:
    import pandas as pd

NOISE_REPORT = REPORTS / "noise.json"
"""What `make sweep` measured; no stage writes it."""
LEVEL = 0.05
"""p below which a difference is called real, as in the gate's usual level."""

Report = dict[str, Any]


@dataclass(frozen=True)
class ModelResults:
    """What was reported of one model; `training` is the same for the same weights, and `gates` None where its cell is
    no LSTM."""

    name: str
    training: Report
    metrics: Report
    padding: Report
    limits: Report
    gates: Report | None

    @property
    def accuracy(self) -> float:
        """Test accuracy."""
        return float(self.metrics["accuracy"])

    @cached_property
    def record(self) -> Report:
        """The training with what is particular to its run, which is read only where it is asked for."""
        return read_record(self.name)

    @property
    def run(self) -> Report:
        """The figures of the training: epochs, best_epoch, best_val_accuracy, training_seconds, parameters."""
        return self.record["metrics"]

    @property
    def params(self) -> Report:
        """The params that it was trained with."""
        return self.training["params"]

    @property
    def tags(self) -> Report:
        """What its run was made from and by: commit, device, versions, md5 of its inputs."""
        return self.record["tags"]


@dataclass(frozen=True)
class Results:
    """The reports of one run of the pipeline; `models` in the order of params.yaml."""

    models: dict[str, ModelResults]
    ngrams: Report
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
        """Returns the curve `kind` of a model or of the n-grams; see `curves.curves`."""
        table = _csv(CURVES / f"{kind}.csv")
        return table[table["model"] == name].drop(columns="model").reset_index(drop=True)

    def history(self, name: str) -> "pd.DataFrame":
        """Returns a model's history, one row an epoch."""
        return _csv(train_reports(name) / "history.csv")


def read(models: "list[str]") -> Results:
    """Reads the reports of `models` and of the data; raises DataError naming the one that is missing."""
    return Results(
        {name: _model(name) for name in models},
        ngrams=_ngrams(),
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
    networks = [(name, _metrics(name), read_record(name)["metrics"]) for name in models]
    ngrams = _ngrams()
    run = read_json(run_file(NGRAMS), ("metrics",))["metrics"]
    return [*networks, (NGRAMS, ngrams, run | {"parameters": ngrams["features"]})]


def _metrics(name: str) -> Report:
    return read_json(metrics_file(name), ("accuracy", "intervals", "confusion", "slices"))


def _ngrams() -> Report:
    return read_json(metrics_file(NGRAMS), ("accuracy", "intervals", "confusion", "features"))


def _model(name: str) -> ModelResults:
    folder = evaluation_reports(name)
    gates = folder / "gates.json"
    return ModelResults(
        name,
        training=read_training(name),
        metrics=_metrics(name),
        padding=read_json(folder / "padding_study.json", ("masked", "unmasked", "widths", "reviews")),
        limits=read_json(folder / "limits.json", ("sentences",)),
        gates=read_json(gates) if gates.exists() else None,
    )


def _csv(path: Path) -> "pd.DataFrame":
    """Reads a CSV report; raises DataError naming it if it is missing or something else."""
    import pandas as pd

    try:
        return pd.read_csv(path, keep_default_na=False)  # a model may be named `nan`
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); run `dvc repro`") from None


def points(value: float) -> str:
    """Returns a difference of accuracies in percentage points with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def tiny(value: float) -> str:
    """Returns a small number as one digit and a power of ten, such as 1 × 10⁻⁷."""
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit}\u00a0×\u00a010{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def p_value(p: float) -> str:
    """Returns a p-value as it is printed after "p": "= 0.17", or "< 0.0001" where it is less."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.2g}"


def is_real(pair: Report) -> bool:
    """Whether the exact McNemar test tells the two models of a comparison apart."""
    return float(pair["mcnemar_p"]) < LEVEL


def named(name: str) -> str:
    """Returns a model's name as people read it."""
    return "n-grams" if name == NGRAMS else name


def verdict(pair: Report) -> str:
    """Says in a few words which of two models is better."""
    if not is_real(pair):
        return f"{named(pair['first'])} and {named(pair['second'])} cannot be told apart"
    winner = pair["first"] if pair["difference"] > 0 else pair["second"]
    return f"{named(winner)} is better, and the difference is real"


def paired_sentence(results: Results, pair: Report) -> str:
    """Says how far apart two models are on the same test reviews, and whether that is more than chance."""
    first, second, reviews = named(pair["first"]), named(pair["second"]), results.comparison["reviews"]
    low, high = pair["interval"]
    side = "above" if pair["difference"] >= 0 else "below"
    chance = "more than chance would do" if is_real(pair) else "no more than chance would do"
    return (
        f"On the same {reviews:,} test reviews the accuracy of {first} lies {100 * abs(pair['difference']):.2f} points "
        f"{side} that of {second} (95% interval of the difference {points(low)} to {points(high)}), {chance} (exact "
        f"McNemar p {p_value(pair['mcnemar_p'])}): {pair['only_first_right']:,} reviews that only {first} gets right, "
        f"{pair['only_second_right']:,} that only {second} does."
    )


def noise_sentences(noise: Report) -> str:
    """Says how much test accuracy moves when a model is trained again with another seed, and what that does to the
    models' differences."""
    models = {name: measured["test"] for name, measured in noise["models"].items()}
    seeds = len(next(iter(models.values()))["values"])
    by_model = ", ".join(
        f"{name} reaches {found['mean']:.4f} ± {found['deviation']:.4f}" for name, found in models.items()
    )
    apart = ", ".join(
        f"{pair.replace('-', '−')} is {points(found['test']['mean'])} ± {100 * found['test']['deviation']:.2f} points"
        for pair, found in noise["differences"].items()
    )
    return (
        f"Trained with {seeds} seeds, {by_model} (mean and standard deviation of test accuracy)"
        f"{f'; {apart}' if apart else ''}."
    )


def padding_sentence(model: ModelResults) -> str:
    """Says what padding does to a model's scores, masked and not."""
    study = model.padding
    farthest = max(study["widths"], key=lambda name: study["widths"][name])
    masked, unmasked = study["masked"][farthest], study["unmasked"][farthest]
    flips = f"{masked['flipped']:,}" if masked["flipped"] else "none"
    return (
        f"Padded to {study['widths'][farthest]:,} tokens with the padding masked, as it is trained and served, {flips} "
        f"of {study['reviews']:,} reviews changes its label, and the probability that moves most moves by "
        f"{tiny(masked['largest_change'])}. With the mask left out, {unmasked['flipped']:,} change their label and "
        f"accuracy goes from {study['unmasked']['unpadded']['accuracy']:.1%} to {unmasked['accuracy']:.1%}."
    )


def wrong_sentence(results: Results, model: ModelResults) -> str:
    """Says how much the model gets wrong, which way, and on which reviews more than on others."""
    cells = {(cell["actual"], cell["predicted"]): cell["reviews"] for cell in model.metrics["confusion"]}
    wrong = results.comparison["wrong"]["by_model"][model.name]
    shortest, longest = results.comparison["lengths"][0], results.comparison["lengths"][-1]
    return (
        f"{model.name} gets {wrong:,} of {results.comparison['reviews']:,} test reviews wrong "
        f"({1 - model.accuracy:.1%}; the n-grams {1 - results.ngrams['accuracy']:.1%}): "
        f"{cells['negative', 'positive']:,} negative ones taken for positive and "
        f"{cells['positive', 'negative']:,} positive ones taken for negative. Of the tenth with the shortest reviews "
        f"it gets {1 - shortest['accuracy'][model.name]:.1%} wrong, of the tenth with the longest "
        f"{1 - longest['accuracy'][model.name]:.1%}."
    )


def batching_sentence(results: Results) -> str:
    """Says what bucketing by length saves."""
    train = results.batching["train"]
    return (
        f"Of each batch of training work {train['padding_share']:.1%} is padding, where shuffled batches of 64 have "
        f"{train['classic_padding_share']:.0%}."
    )
