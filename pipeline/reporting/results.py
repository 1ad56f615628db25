"""All reports of one run of the pipeline, read together: what page, model cards and README show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.project.atomic import read_json
from pipeline.project.errors import DataError
from pipeline.project.params import Params
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
    serving_file,
)
from pipeline.project.training_record import read_record, read_training

if TYPE_CHECKING:
    import pandas as pd

NOISE_REPORT = REPORTS / "noise.json"
"""What `make sweep` measured; no stage writes it."""
ABLATIONS_REPORT = REPORTS / "ablations.json"
"""What `make ablations` measured so far; no stage writes it."""
ABLATED, ABLATED_COURSE = "single", "single-labels"
"""The network of the ablations as it is taught, and as it learns from labels alone, in params.yaml."""

Report = dict[str, Any]


@dataclass(frozen=True)
class CandidateResults:
    """What was reported of one candidate; `training` is the same for the same weights, `metrics` are those of the test
    split, `validation` and `fresh` those of these, the latter None where there are none; `calibration` has the weights
    of its parts, `serving` what it costs; `padding` is None where it is no network, `gates` where that is no LSTM."""

    name: str
    training: Report
    metrics: Report
    fresh: Report | None
    validation: Report
    calibration: Report
    serving: Report
    padding: Report | None
    gates: Report | None

    @cached_property
    def record(self) -> Report:
        """The training with what is particular to its run (`read_record`), read only where it is asked for."""
        return read_record(self.name)


@dataclass(frozen=True)
class Results:
    """The reports of one run of the pipeline; `models` are the candidates in the order of params.yaml, `behaviour` what
    the behavioural tests found of them, by name."""

    models: dict[str, CandidateResults]
    behaviour: dict[str, Report]
    comparison: Report
    split: Report
    validation: Report
    tokenizer: Report
    batching: Report

    @property
    def best(self) -> CandidateResults:
        """The challenger."""
        return self.models[self.comparison["best"]]

    @property
    def networks(self) -> dict[str, CandidateResults]:
        """The candidates that are networks."""
        return {name: one for name, one in self.models.items() if one.padding}

    @property
    def network(self) -> CandidateResults | None:
        """The network of least log loss on validation, None where no candidate is one."""
        return min(self.networks.values(), key=lambda one: float(one.validation["loss"]), default=None)

    @property
    def ngrams(self) -> Report | None:
        """The n-grams' metrics on the test split, None where they are no candidate."""
        return self.models[NGRAMS].metrics if NGRAMS in self.models else None

    @property
    def closest(self) -> Report | None:
        """The comparison of `best` with the strongest of the others on test, None where there is no other."""
        return min(self.comparison["pairs"], key=lambda pair: float(pair["difference"]), default=None)

    def table(self, name: str, kind: str) -> "pd.DataFrame":
        """Returns the curve `kind` of a candidate (see `curves.curves`), or a network's `history`, one row an epoch;
        raises DataError naming a file that is missing or something else."""
        import pandas as pd

        path = CURVES / f"{kind}.csv"
        try:
            table = pd.read_csv(path, keep_default_na=False)  # a model may be named `nan`
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a table ({error}); run `dvc repro`") from None
        return table[table["model"] == name].drop(columns="model").reset_index(drop=True)


def read(candidates: Sequence[str]) -> Results:
    """Reads the reports of `candidates` and of the data; raises DataError naming the one that is missing."""
    return Results(
        {name: _candidate(name) for name in candidates},
        behaviour={
            name: read_json(behaviour_file(name), ("texts", "capabilities", "about", "tests", "evaluation_sets"))
            for name in candidates
        },
        comparison=read_json(
            COMPARISON_REPORT, ("best", "choice", "pairs", "wrong", "lengths", "mistakes", "flipped", "lead")
        ),
        split=read_json(SPLIT_REPORT, ("raw_rows", "dropped_from_train", "rows")),
        validation=read_json(VALIDATION_REPORT, ("critical", "advisory", "expectations")),
        tokenizer=read_json(TOKENIZER_REPORT, ("vocabulary_size", "max_tokens", "splits")),
        batching=read_json(BATCHING_REPORT),
    )


def read_noise(params: Params) -> Report | None:
    """Returns how much accuracy moves with the seed, or None where that was not measured, or not of these params, or of
    other candidates, or of networks that are trained otherwise by now: those of one of its seeds do not stand here."""
    if not NOISE_REPORT.exists():
        return None
    noise = read_json(NOISE_REPORT, ("models", "differences"))
    swept_models = noise["models"]
    if not swept_models.keys() <= set(params.candidates) or noise.get("params") != swept(params, swept_models):
        return None
    stand = all(
        read_training(name)["metrics"]["val_accuracy"] in found["validation"]["values"].values()
        for name, found in swept_models.items()
    )
    return noise if stand else None


def swept(params: Params, candidates: Iterable[str]) -> Report:
    """Returns the params, the seed aside, on which a sweep over these candidates depends, by section."""
    networks = {*candidates, params.blend, *(teacher.by for teacher in params.teachers.values())}
    return {
        "dataset": params.dataset,
        "split": params.split.model_dump(),
        "models": {name: model.model_dump() for name, model in params.models.items() if name in networks},
        "blend": params.blend,
        "teachers": {name: teacher.model_dump() for name, teacher in params.teachers.items()},
        "ngrams": params.ngrams.model_dump(),
        "batch": params.batch.model_dump(),
        "train": params.train.model_dump(),
        "tokenize": params.tokenize.model_dump(),
    }


def ablated(params: Params) -> Report:
    """Returns the params on which the ablations depend, by section."""
    return {
        "dataset": params.dataset,
        "models": {name: params.models[name].model_dump() for name in (ABLATED, ABLATED_COURSE)},
        "ngrams": params.ngrams.model_dump(),
        "batch": params.batch.model_dump(),
        "train": params.train.model_dump(),
        "tokenize": params.tokenize.model_dump(),
    }


def read_ablations(params: Params) -> Report | None:
    """Returns what the ablations measured so far, None where they were not measured with these params: `rows`, one each
    way of learning and number of labels, fewer labels first, and how many settings are `left`.

    A row has `what` is learnt from, `labels` (None: all), `labelled` reviews, and by seed the test accuracies
    `accuracy` of the network and `ngrams` of the classifier on the same labels.
    """
    if not ABLATIONS_REPORT.exists() or not {ABLATED, ABLATED_COURSE} <= params.models.keys():
        return None
    report = read_json(ABLATIONS_REPORT, ("params", "settings", "measured"))
    if report["params"] != ablated(params) or not report["measured"]:
        return None
    rows: dict[tuple[int, str], Report] = {}
    for one in report["measured"]:
        row = rows.setdefault(
            (one["labelled"], one["what"]),
            {name: one[name] for name in ("what", "labels", "labelled")} | {"accuracy": {}, "ngrams": {}},
        )
        for name in ("accuracy", "ngrams"):
            row[name][one["seed"]] = one[name]
    left = report["settings"] - len(report["measured"])
    return {"rows": [rows[place] for place in sorted(rows)], "left": left}


def measured(candidates: Iterable[str]) -> list[tuple[str, Report, Report]]:
    """Returns name, test metrics and figures of the training (parameters, training_seconds, and a network's epochs) of
    each candidate; raises DataError naming a missing file."""
    return [(name, _tested(name), read_record(name)["metrics"]) for name in candidates]


def _tested(name: str) -> Report:
    return read_json(metrics_file(name), ("accuracy", "intervals", "confusion", "slices", "sure"))


def _candidate(name: str) -> CandidateResults:
    folder = evaluation_reports(name)
    padding, gates = folder / "padding_study.json", folder / "gates.json"
    evaluated = read_json(evaluated_file(name), ("validation", "calibration"))
    return CandidateResults(
        name,
        training=read_training(name),
        metrics=_tested(name),
        fresh=evaluated.get("fresh"),
        validation=evaluated["validation"],
        calibration=evaluated["calibration"],
        serving=read_json(serving_file(name), ("milliseconds", "megabytes")),
        padding=read_json(padding, ("masked", "unmasked", "widths", "reviews")) if padding.exists() else None,
        gates=read_json(gates) if gates.exists() else None,
    )
