"""Whether the scheduled job trains: what it looks at, and what each of its triggers says."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import drift
from pipeline.project.errors import PipelineError
from pipeline.project.params import Params, RetrainParams
from pipeline.project.paths import VOCABULARY
from pipeline.registry import evidence, versions
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.tracking import runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Trigger:
    """A reason to train: its name, whether it holds, and the figures in a sentence; None where it was not measured."""

    name: str
    fired: bool | None
    sentence: str
    figures: dict[str, float | int | None] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns it as a record keeps it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{ {True: 'yes', False: 'no', None: 'not measured'}[self.fired]:12}  {self.name:19}  {self.sentence}"


@dataclass(frozen=True)
class Champion:
    """The champion, and what champion and challenger know of the training reviews."""

    client: "MlflowClient"
    version: "ModelVersion"
    known_rows: "np.ndarray | None"

    @property
    def run_id(self) -> str:
        """The MLflow run that the version belongs to."""
        return str(self.version.run_id)


def is_registered(dataset: str) -> bool:
    """Whether the store knows the registered model of `dataset`; a store that is not there yet is not made."""
    named = f"name = '{versions.registered_name(dataset)}'"
    return runs.store_exists() and bool(runs.connect().search_registered_models(named))


def find_champion(dataset: str) -> Champion | None:
    """Returns the champion of `dataset`, None where there is none; a store that is not there yet is not made."""
    if not is_registered(dataset):
        return None
    client, name = runs.connect(), versions.registered_name(dataset)
    numbers = {alias: versions.alias_version(client, name, alias) for alias in (versions.CHAMPION, versions.CHALLENGER)}
    if numbers[versions.CHAMPION] is None:
        return None
    aliased = {alias: client.get_model_version(name, number) for alias, number in numbers.items() if number}
    tables = [evidence.kept(client, str(found.run_id), evidence.TRAINING_ROWS) for found in aliased.values()]
    rows = [table["row"].to_numpy() for table in tables if table is not None]
    return Champion(client, aliased[versions.CHAMPION], np.unique(np.concatenate(rows)) if rows else None)


def number(champion: Champion | None) -> str | None:
    """Returns the champion's version, None where there is none."""
    return None if champion is None else str(champion.version.version)


def unseen(champion: Champion | None, labelled: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the rows of `labelled` (text, label) that neither champion nor challenger has trained or validated on."""
    if champion is None or champion.known_rows is None:
        return labelled
    return labelled[~np.isin(evidence.row_hashes(labelled), champion.known_rows)]


def triggers(
    params: Params,
    champion: Champion | None,
    new: "pd.DataFrame",
    test: "pd.DataFrame",
    *,
    unfinished: str | None,
    force: bool,
    scores: bool,
) -> list[Trigger]:
    """Returns what each trigger says, those that cost nothing first.

    Args:
        params: params.yaml.
        champion: None where there is none yet.
        new: what `unseen` returns, with the columns id, text, label.
        test: the test reviews, on which the champion's scores are kept.
        unfinished: the run whose training did not come to its end, if the last one did not.
        force: the caller wants to train.
        scores: let the champion score the new reviews, to measure the drift of its predictions; they are kept in its
            run. It is done only where no cheaper trigger fires.
    """
    limits = params.retrain
    found = [
        Trigger("force", force, "--force is set" if force else "--force is not set"),
        Trigger("no champion", champion is None, "there is none" if champion is None else _named(champion)),
        Trigger(
            "unfinished run",
            unfinished is not None,
            f"{unfinished} did not come to its end" if unfinished else "the last training came to its end",
        ),
        Trigger(
            "new reviews",
            len(new) >= limits.min_new_rows,
            f"{len(new):,} are new to champion and challenger, {limits.min_new_rows:,} are enough",
            {"new_rows": len(new), "min_new_rows": limits.min_new_rows},
        ),
    ]
    if champion is not None:
        found.append(_age(champion, limits))
        found += _drift(params, champion, new, test, scores=scores and not any(trigger.fired for trigger in found))
    return found


def _named(champion: Champion) -> str:
    return f"version {champion.version.version} is champion"


def _age(champion: Champion, limits: RetrainParams) -> Trigger:
    made = datetime.fromtimestamp(champion.version.creation_timestamp / 1000, UTC)
    days = (datetime.now(UTC) - made).total_seconds() / 86400
    sentence = f"it was made {days:.1f} days ago, more than {limits.max_champion_days} are too many"
    if days < 0:
        sentence = f"it was made in the future, on {made:%Y-%m-%d}: a clock went backwards"
    return Trigger(
        "champion's age",
        days > limits.max_champion_days,
        sentence,
        {"days": round(days, 3), "max_champion_days": limits.max_champion_days},
    )


def _drift(
    params: Params, champion: Champion, new: "pd.DataFrame", test: "pd.DataFrame", *, scores: bool
) -> Iterator[Trigger]:
    limits = params.retrain.drift
    if len(new) < limits.min_rows:
        too_few = f"measured from {limits.min_rows:,} new reviews on, there are {len(new):,}"
        yield Trigger("drift of the text", None, too_few)
        yield Trigger("drift of the scores", None, too_few)
        return
    reference = evidence.kept(champion.client, champion.run_id, evidence.TEXT_PROFILE)
    tokenizer = _tokenizer(champion)
    token_ids = tokenizer.encode_batch(new["text"], params.tokenize.max_tokens)
    if reference is None:
        yield Trigger("drift of the text", None, "the champion's run kept no profile of its training reviews")
    else:
        found = drift.text_drift(reference, drift.profile(token_ids, tokenizer.vocabulary_size))
        allowed = limits.model_dump()
        over = [name for name, value in found.items() if value > allowed[name]]
        told = ", ".join(f"{name} {value:.3f} (at most {allowed[name]:g})" for name, value in found.items())
        yield Trigger("drift of the text", bool(over), told, {name: round(value, 5) for name, value in found.items()})
        scores = scores and not over
    if scores:
        yield _score_drift(champion, new, test, [len(ids) for ids in token_ids], limits.prediction_psi)
    else:
        yield Trigger(
            "drift of the scores",
            None,
            "the champion scores new reviews where no other trigger fires, in no dry run",
        )


def _score_drift(
    champion: Champion, new: "pd.DataFrame", test: "pd.DataFrame", lengths: list[int], limit: float
) -> Trigger:
    """Compares how the champion scores the new reviews with how it scored the test reviews, both kept in its run."""
    name = "drift of the scores"
    of_test = evidence.predictions_name(evidence.reviews_digest(test))
    reference = evidence.kept(champion.client, champion.run_id, of_test)
    if reference is None:
        return Trigger(name, None, "the champion's run kept no predictions on this test split")
    uri = f"models:/{champion.version.name}/{champion.version.version}"
    scored = evidence.predictions_on(
        champion.client, champion.run_id, uri, new, new[["id"]].assign(length=np.array(lengths))
    )
    psi = drift.stability_index(reference["probability"].to_numpy(), scored["probability"].to_numpy())
    accuracy = float(((scored["probability"] > versions.THRESHOLD) == scored["label"]).mean())
    return Trigger(
        name,
        psi > limit,
        f"prediction_psi {psi:.3f} (at most {limit:g}); the champion's accuracy on them is {accuracy:.3f}",
        {"prediction_psi": round(psi, 5), "accuracy_on_new": round(accuracy, 5)},
    )


def _tokenizer(champion: Champion) -> SubwordTokenizer:
    """Loads the champion's own vocabulary, without the rest of the model."""
    uri = f"models:/{champion.version.name}/{champion.version.version}"
    with versions.downloaded(uri) as folder:
        for vocabulary in folder.rglob(VOCABULARY.name):
            return SubwordTokenizer.load(vocabulary)
    raise PipelineError(f"the files of {uri} are missing (there is no {VOCABULARY.name})")
