"""`params.yaml` as typed, frozen objects; an unknown, missing or ill-typed key is an error that names it."""

import difflib
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.project.errors import UsageError
from pipeline.project.paths import BLEND, NGRAMS, PARAMS_FILE

PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SplitParams(_Section):
    """How the training reviews are divided: `validation_fraction` of them, stratified by label, become validation; the
    newest `fresh_rows` labelled reviews, and at most half of each batch, are held out from training for now. Of each
    unlabelled review up to `sentences_per_review` sentences are drawn."""

    validation_fraction: float = Field(gt=0, lt=0.5)
    fresh_rows: int = Field(ge=0)
    sentences_per_review: int = Field(ge=0)


class TokenizeParams(_Section):
    """`vocabulary_size`: target number of ids of the vocabulary's search. `max_tokens`: ids kept of a review."""

    vocabulary_size: int = Field(ge=512)
    max_tokens: int = Field(ge=16)


class BatchParams(_Section):
    """`batch_size`: rows a batch. `pool_batches`: batches whose rows are sorted by length together."""

    batch_size: PositiveInt
    pool_batches: PositiveInt


class NgramsParams(_Section):
    """`max_ngram`: longest n-gram in words. `regularization`: C of scikit-learn's logistic regression, and
    `sentence_regularization` that of the classifier of single sentences, which teaches."""

    max_ngram: int = Field(ge=1, le=5)
    regularization: float = Field(gt=0)
    sentence_regularization: float = Field(gt=0)


class TeacherParams(_Section):
    """What a network learns: of which `texts` (`TAUGHT` in paths.py), and towards which targets.

    A target is the logistic function of a logit over `temperature`; that of a labelled review is mixed with its label,
    which weighs `label_weight`: 1 is the label alone. The logit is the n-gram classifier's or, where `by` names a
    network, on texts without a label the mean of both.
    """

    by: str
    label_weight: float = Field(ge=0, le=1)
    temperature: float = Field(gt=0)
    texts: Annotated[list[Literal["train", "unlabelled", "sentences"]], Field(min_length=1)]


class TrainParams(_Section):
    """What all models share in training.

    `clip_norm` bounds the gradient's global norm; `average_epochs`: about how many epochs of training steps the weights
    are averaged over; `deterministic` makes two runs end in bit-identical weights.
    """

    clip_norm: float = Field(gt=0)
    average_epochs: float = Field(gt=0)
    deterministic: bool


class ModelParams(_Section):
    """One recurrent classifier: embedding → bidirectional recurrent layers → pooling over time → dense → logit.

    `dropout` acts before the logit; `token_dropout` is the share of token ids hidden from the model in training, which
    takes `epochs` of the texts of the teacher that it `learns_from`.
    """

    learns_from: str
    epochs: PositiveInt
    cell: Literal["lstm", "gru", "simple_rnn"]
    embedding_dim: PositiveInt
    recurrent_units: Annotated[list[PositiveInt], Field(min_length=1)]
    pooling: Literal["last", "max", "mean"]
    dense_units: PositiveInt
    dropout: float = Field(ge=0, lt=1)
    token_dropout: float = Field(ge=0, lt=1)
    learning_rate: float = Field(gt=0, le=1)


class EvaluateParams(_Section):
    """`bootstrap_samples` resamples behind each interval, `calibration_bins` of equal width in the calibration
    curve and its error, `padding_study_reviews` validation reviews in the padding study."""

    bootstrap_samples: int = Field(ge=100)
    calibration_bins: int = Field(ge=2)
    padding_study_reviews: PositiveInt


TAKEN_NAMES = ("tokenizer", NGRAMS, BLEND)
"""`models/tokenizer` and the candidates beside the networks are not a model's."""


def _not_taken(name: str) -> str:
    if name in TAKEN_NAMES:
        raise PydanticCustomError("name_taken", "a model cannot have this name, its folder is in use")
    return name


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
ModelName = Annotated[Name, AfterValidator(_not_taken)]


class AccuracyFloor(_Section):
    """The least test accuracy with which a model may be champion, by data set."""

    imdb_reviews: float = Field(ge=0, le=1)
    sample: float = Field(ge=0, le=1)


Share = Annotated[float, Field(ge=0, le=1)]


class SpanCeilings(_Section):
    """By data set and capability, the largest mean span of the probability in each invariance test of it."""

    imdb_reviews: dict[str, Share]
    sample: dict[str, Share]


class BehaviourGateParams(_Section):
    """What the gate makes of behavioural tests; all are shares of cases, but `max_span`.

    The failure rate of a capability may rise by its entry in `margins`, one without by `margin`; the mean failure rate
    of all capabilities lower by more than `lead` can be a reason for promotion.
    """

    margins: dict[str, Share]
    margin: Share
    lead: Share
    max_span: SpanCeilings

    def ceilings(self, dataset: str) -> dict[str, float]:
        """Returns the ceilings of `dataset` by capability; raises UsageError with the data sets there are."""
        ceilings: dict[str, dict[str, float]] = self.max_span.model_dump()
        if dataset not in ceilings:
            raise UsageError(f"{PARAMS_FILE}: gate.behaviour.max_span names {', '.join(ceilings)}, not {dataset!r}")
        return ceilings[dataset]


class GateParams(_Section):
    """When a challenger may replace the champion; pipeline/registry/gate.py holds the rule.

    `test` and `level` say what is significant: the chance of one false "better" over all looks at held-out reviews, and
    intervals of 1 - `level`. The margins are differences of accuracy (0.01 is one point): `non_inferiority_margin` is
    what "not worse" allows, the other two what a length quartile and a label may lose. `bootstrap_samples` resamples
    behind each paired interval. From `fresh_min_rows` fresh reviews on they are part of the decision.
    """

    test: Literal["mcnemar", "bootstrap"]
    level: float = Field(gt=0, lt=0.5)
    bootstrap_samples: int = Field(ge=1000)
    non_inferiority_margin: float = Field(ge=0, lt=1)
    length_slice_margin: float = Field(ge=0, lt=1)
    label_slice_margin: float = Field(ge=0, lt=1)
    fresh_min_rows: PositiveInt
    min_accuracy: AccuracyFloor
    behaviour: BehaviourGateParams

    def floor(self, dataset: str) -> float:
        """Returns the floor of `dataset`; raises UsageError with the data sets there are."""
        floors = self.min_accuracy.model_dump()
        if dataset not in floors:
            raise UsageError(f"{PARAMS_FILE}: gate.min_accuracy names {', '.join(floors)}, not {dataset!r}")
        return floors[dataset]


class IntakeParams(_Section):
    """What a file of new labelled reviews must meet to be taken in.

    `settle_seconds`: a file changed less than so long ago is left for the next time. In a file of at least
    `shares_from_rows` reviews the share of positive ones lies within `min_positive` and `max_positive`, and at most
    `max_contradictory` of them say the opposite of a label that their text has already, there or in what is known.
    """

    settle_seconds: float = Field(ge=0)
    shares_from_rows: PositiveInt
    min_positive: float = Field(ge=0, lt=0.5)
    max_positive: float = Field(gt=0.5, le=1)
    max_contradictory: float = Field(ge=0, le=1)


class DriftParams(_Section):
    """From which figures on new reviews count as drifted from what the champion was trained on.

    Measured from `min_rows` new reviews on. `token_distance`: Jensen-Shannon distance of the token distributions, in
    [0, 1]. `length_psi` and `prediction_psi`: population stability index of the lengths and of the champion's
    probabilities. `byte_share`: how much larger the share of tokens that are single bytes, the vocabulary's way of
    spelling what it does not have, may be.
    """

    min_rows: PositiveInt
    token_distance: float = Field(gt=0, le=1)
    length_psi: float = Field(gt=0)
    prediction_psi: float = Field(gt=0)
    byte_share: float = Field(gt=0, le=1)


class RetentionParams(_Section):
    """What the end of a retraining leaves: `records` of its runs; runs and versions of the last `days`, versions that
    were ever promoted for good; DVC's cache of the last `commits`."""

    records: PositiveInt
    days: PositiveInt
    commits: PositiveInt


class RetrainParams(_Section):
    """When the scheduled job trains, and what it may use; pipeline/retraining/job.py holds the job.

    It trains once `min_new_rows` reviews are new to champion and challenger, or `max_champion_days` have passed since
    the champion was made and anything changed, or new reviews drifted. It starts with `min_free_gb` of disk (10^9
    bytes) at least, and ends after `max_minutes`.
    """

    min_new_rows: PositiveInt
    max_champion_days: PositiveInt
    max_minutes: PositiveInt
    min_free_gb: float = Field(ge=0)
    intake: IntakeParams
    drift: DriftParams
    retention: RetentionParams


class EvaluationSet(_Section):
    """Labelled texts of one's own, on which every candidate is measured.

    `file` stands in data/evaluation_sets/ (.csv, .tsv, .jsonl, .parquet); `text`, `label` and, where rows belong
    together, `pair` are its columns; `positive` and `negative` are the values of its labels. With a `guard` a
    challenger that loses more accuracy on it than that, and significantly, is not promoted.
    """

    file: Annotated[str, Field(pattern=r"^[^/]+\.(csv|tsv|jsonl|parquet)$")]
    text: str = "text"
    label: str = "label"
    positive: list[str] = ["1", "positive"]
    negative: list[str] = ["0", "negative"]
    pair: str | None = None
    guard: float | None = Field(None, ge=0, lt=1)


class ServeParams(_Section):
    """`promise`: the share of the answers that a version calls sure that is right, on reviews like the validation
    split's."""

    promise: float = Field(gt=0.5, lt=1)


class Params(_Section):
    """The whole of `params.yaml`. `blend` is the network that the blend of a network and the n-grams has; `candidates`
    are those of the models, the n-grams and the blend that are tested, and of which one challenges the champion."""

    dataset: Literal["imdb_reviews", "sample"]
    seed: int = Field(ge=0, lt=2**31)
    split: SplitParams
    tokenize: TokenizeParams
    batch: BatchParams
    ngrams: NgramsParams
    train: TrainParams
    teachers: dict[Name, TeacherParams]
    models: Annotated[dict[ModelName, ModelParams], Field(min_length=1)]
    blend: str
    candidates: Annotated[list[str], Field(min_length=1)]
    evaluate: EvaluateParams
    evaluation_sets: dict[ModelName, EvaluationSet]
    serve: ServeParams
    gate: GateParams
    retrain: RetrainParams

    @model_validator(mode="after")
    def _names_are_there(self) -> "Params":
        for name, model in self.models.items():
            if model.learns_from not in self.teachers:
                raise _unknown(f"models.{name}.learns_from", model.learns_from, self.teachers)
        for name, teacher in self.teachers.items():
            if teacher.by not in (known := (NGRAMS, *self.models)):
                raise _unknown(f"teachers.{name}.by", teacher.by, known)
        if self.blend not in self.models:
            raise _unknown("blend", self.blend, self.models)
        for name in self.candidates:
            if name not in (known := (*self.models, NGRAMS, BLEND)):
                raise _unknown("candidates", name, known)
        return self

    def model(self, name: str) -> ModelParams:
        """Returns the params of model `name`; raises UsageError with the names there are."""
        if name not in self.models:
            raise UsageError(f"{PARAMS_FILE}: no model named {name!r} under models; there are {', '.join(self.models)}")
        return self.models[name]


def _unknown(key: str, name: str, known: Iterable[str]) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_name",
        "{key} names {name}, which is not there; there are {known}",
        {"key": key, "name": name, "known": ", ".join(known)},
    )


_NAMED_SECTIONS: dict[str, type[BaseModel]] = {
    "models": ModelParams,
    "teachers": TeacherParams,
    "evaluation_sets": EvaluationSet,
}
"""Sections whose keys are names that the user gives."""


def model_argument(params: Params) -> str:
    """Returns the model that the command line of a stage names; raises UsageError if it names none of `params`."""
    if len(sys.argv) != 2:
        raise UsageError(f"name one model of {PARAMS_FILE}: {', '.join(params.models)}")
    params.model(sys.argv[1])
    return sys.argv[1]


def candidate_argument(params: Params) -> str:
    """Returns the candidate that the command line of a stage names; raises UsageError if it names none of `params`."""
    return _argument("candidate", params.candidates)


def teacher_argument(params: Params) -> str:
    """Returns the teacher that the command line of a stage names; raises UsageError if it names none of `params`."""
    return _argument("teacher", params.teachers)


def _argument(what: str, names: Collection[str]) -> str:
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise UsageError(f"name one {what} of {PARAMS_FILE}: {', '.join(names)}")
    return sys.argv[1]


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Reads and validates `path`.

    Raises:
        UsageError: the file is missing or not YAML, or a key is unknown, missing, ill-typed or out of range;
            the message names the file and every such key.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} is not in {Path.cwd()}; run the command from the project's root") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: " + "; ".join(_sentences(error))) from None


def _sentences(error: ValidationError) -> list[str]:
    sentences = []
    for problem in error.errors():
        location = problem["loc"]
        key = ".".join(str(part) for part in location) or "the file"
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(location[-1]), _keys_at(location[:-1]), n=1)
            sentences.append(f"{key} is not a known key" + (f" (did you mean {close[0]}?)" if close else ""))
        elif problem["type"] == "missing":
            sentences.append(f"{key} is missing")
        else:
            sentences.append(f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]} (found {problem['input']!r})")
    return sentences


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Params
    for part in location:
        if location[0] in _NAMED_SECTIONS:
            section = _NAMED_SECTIONS[str(location[0])]
            break
        found = section.model_fields[str(part)].annotation
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return []
        section = found
    return list(section.model_fields)
