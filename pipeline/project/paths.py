"""Where every file of the pipeline stands, from the project's root."""

from pathlib import Path

NGRAMS = "ngrams"
"""The n-gram classifier among the models of `params.yaml`: in file names, tables and comparisons."""
BLEND = "blend"
"""A network and the n-grams together."""
SPLITS = ("train", "validation", "test", "fresh")
"""`fresh`: the newest labelled reviews, held out from training; it may be empty."""
TRAIN, UNLABELLED, SENTENCES = "train", "unlabelled", "sentences"
TAUGHT = (TRAIN, UNLABELLED, SENTENCES)
"""The texts that a network can learn from: labelled reviews, unlabelled ones, and single sentences of these."""
EVALUATED = ("validation", "fresh")
"""The held-out splits that may be looked at as often as one likes: `test` is not."""
RAW_SPLITS = ("train", "test")
"""The labelled ones of the data set."""

PARAMS_FILE = Path("params.yaml")
RAW = Path("data/raw")
DATASET_INFO = RAW / "dataset_info.json"
SPLIT_TABLES = Path("data/splits")
TOKENS = Path("data/tokens")
BATCHES = Path("data/batches")
TRAINING_PLAN = BATCHES / "train"
VALIDATION_BATCHES = BATCHES / "validation"
PREDICTIONS = Path("data/predictions")
BEHAVIOUR = Path("behaviour")
"""The behavioural tests."""
EVALUATION_SETS = Path("data/evaluation_sets")
LABELLED = Path("data/labelled")
LABELLED_REVIEWS = LABELLED / "reviews"
LABELLED_POINTER = LABELLED / "reviews.dvc"
VERDICTS = LABELLED / "verdicts.csv"
INCOMING = Path("data/incoming")
ACCEPTED = Path("data/accepted")
QUARANTINE = Path("data/quarantine")
TOKENIZER = Path("models/tokenizer")
VOCABULARY = TOKENIZER / "vocabulary.txt"
NGRAMS_FILE = Path("models") / NGRAMS / "classifier.npz"
CHECKPOINTS = Path("checkpoints")
REPORTS = Path("reports")
SPLIT_REPORT = REPORTS / "split.json"
VALIDATION_REPORT = REPORTS / "validation.json"
DATA_DOCS = REPORTS / "data_docs"
TOKENIZER_REPORT = REPORTS / "tokenizer.json"
BATCHING_REPORT = REPORTS / "batching.json"
CURVES = REPORTS / "curves"
"""One table a kind of curve, the models side by side, told apart by the column `model`."""
COMPARISON_REPORT = REPORTS / "comparison.json"
RECURRENCE_REPORT = REPORTS / "recurrence.json"
REGISTRY_REPORT = REPORTS / "registry.json"
RETRAIN_RECORDS = REPORTS / "retrain"
DECISIONS = REPORTS / "decisions"
"""What git has of each registry's history, one file a registry."""
MODEL_CARD = REPORTS / "model_card.md"
REPORT_PAGE = REPORTS / "index.html"

REVIEW_COLUMNS = ("id", "text", "label")
TEXT_COLUMNS = ("id", "text")
"""Of texts that have no label."""


def teacher_folder(teacher: str) -> Path:
    """Returns where the targets of `teacher` stand, a table a kind of text: id, logit (of `by`), target."""
    return Path("data/teacher") / teacher


def model_file(model: str) -> Path:
    """Returns where the trained weights of `model` stand."""
    return Path("models") / model / "weights.npz"


def candidate_folder(candidate: str) -> Path:
    """Returns where a candidate stands as it is served: code, vocabulary, parts, settings."""
    return Path("served") / candidate


def serving_file(candidate: str) -> Path:
    """What it costs to serve a candidate; it differs from machine to machine."""
    return REPORTS / "serving" / f"{candidate}.json"


def train_reports(model: str) -> Path:
    """What training found, the same for the same weights: `training.json`, `history.csv`, `summary.txt`."""
    return REPORTS / "train" / model


def run_file(model: str) -> Path:
    """What is particular to one training: MLflow run, times, device and everything else that its tags say."""
    return REPORTS / "runs" / f"{model}.json"


def evaluated_file(model: str) -> Path:
    """The metrics of `model` on validation and, where there are any, fresh reviews, each under its split's name."""
    return REPORTS / "metrics" / f"{model}.json"


def metrics_file(model: str) -> Path:
    """Returns where the metrics of `model` on the test reviews stand."""
    return REPORTS / "test" / f"{model}.json"


def evaluation_reports(model: str) -> Path:
    """The studies of one model, such as `padding_study.json`."""
    return REPORTS / "evaluate" / model


def behaviour_file(model: str) -> Path:
    """Returns where what the behavioural tests found of `model` stands."""
    return REPORTS / "behaviour" / f"{model}.json"


def tracked_file(model: str) -> Path:
    """Which MLflow run holds the evaluation; it belongs to a store, not to git."""
    return REPORTS / "tracked" / f"{model}.json"


def model_card_file(model: str) -> Path:
    """Returns where the model card of `model` stands."""
    return REPORTS / "model_cards" / f"{model}.md"


def predictions_file(model: str, split: str = "test") -> Path:
    """Returns where the predictions of `model` on the reviews of a held-out split stand."""
    return PREDICTIONS / split / f"{model}.parquet"
