"""What may be a reason to train: the caller, an earlier run, new reviews, the champion's age, and drift."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.data import drift
from pipeline.data.intake import Known
from pipeline.evaluation.candidates import THRESHOLD
from pipeline.project.params import Params
from pipeline.registry import evidence, versions
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.tracking import runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

FIRES = {True: "yes", False: "no", None: "not measured"}
_TEXT, _SCORES = "drift of the text", "drift of the scores"


@dataclass(frozen=True)
class Trigger:
    """A reason to train: its name, whether it holds, and the figures in a sentence; None where it was not measured."""

    name: str
    fired: bool | None
    sentence: str
    figures: dict[str, float | int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{FIRES[self.fired]:12}  {self.name:19}  {self.sentence}"


def is_registered(dataset: str) -> bool:
    """Whether the store knows the registered model of `dataset`; a store that is not there yet is not made."""
    named = f"name = '{versions.registered_name(dataset)}'"
    return runs.store_exists() and bool(runs.connect_to_read().search_registered_models(named))


def aliased(dataset: str) -> "dict[str, ModelVersion]":
    """Returns champion and challenger of `dataset` by alias, those there are; a store that is not there is not made."""
    if not is_registered(dataset):
        return {}
    client, name = runs.connect_to_read(), versions.registered_name(dataset)
    numbers = client.get_registered_model(name).aliases
    aliases = [alias for alias in (versions.CHAMPION, versions.CHALLENGER) if alias in numbers]
    return {alias: client.get_model_version(name, str(numbers[alias])) for alias in aliases}


def triggers(params: Params, known: Known, *, unfinished: int | None, force: bool, may_score: bool) -> list[Trigger]:
    """Returns what each trigger says, those that cost nothing first.

    Args:
        known: the reviews there are, those taken in by this run among them.
        unfinished: the last run that began to train, if it did not come to its end.
        force: the caller wants to train.
        may_score: the champion may score the new reviews, where no cheaper trigger fires; its run keeps the scores.
    """
    limits, new, found_versions = params.retrain, known.trained_on(), aliased(params.dataset)
    champion = found_versions.get(versions.CHAMPION)
    if champion:  # what neither it nor the challenger has trained or validated on
        tables = [_evidence(version, evidence.TRAINING_ROWS) for version in found_versions.values()]
        new = new[evidence.unknown(new, [evidence.labelled(table) for table in tables if table is not None])]
    who = f"version {champion.version} is champion" if champion else "there is none"
    last = f"run {unfinished} did not come to its end" if unfinished else "the last training came to its end"
    count, enough = len(new), limits.min_new_rows
    counted = f"{count:,} are new to champion and challenger, {enough:,} are enough"
    found = [
        Trigger("force", force, f"--force is {'set' if force else 'not set'}"),
        Trigger("no champion", champion is None, who),
        Trigger("unfinished run", unfinished is not None, last),
        Trigger("new reviews", count >= enough, counted, {"new_rows": count, "min_new_rows": enough}),
    ]
    if champion:
        found.append(_age(champion, limits.max_champion_days))
        found += _drift(params, champion, new, known.test, may_score and not any(trigger.fired for trigger in found))
    return found


def _evidence(version: "ModelVersion", name: str) -> "pd.DataFrame | None":
    return evidence.load_table(runs.connect_to_read(), str(version.run_id), name)


def _age(champion: "ModelVersion", limit: int) -> Trigger:
    made = datetime.fromtimestamp(champion.creation_timestamp / 1000, UTC)
    days = (datetime.now(UTC) - made).total_seconds() / 86400
    sentence = f"it was made {days:.1f} days ago, more than {limit} are too many"
    if days < 0:
        sentence = f"it was made in the future, on {made:%Y-%m-%d}: a clock went backwards"
    return Trigger("champion's age", days > limit, sentence, {"days": round(days, 3), "max_champion_days": limit})


def _drift(
    params: Params, champion: "ModelVersion", new: "pd.DataFrame", test: "pd.DataFrame", may_score: bool
) -> Iterator[Trigger]:
    limits = params.retrain.drift
    if len(new) < limits.min_rows:
        too_few = f"measured from {limits.min_rows:,} new reviews on, there are {len(new):,}"
        yield Trigger(_TEXT, None, too_few)
        yield Trigger(_SCORES, None, too_few)
        return
    with versions.downloaded_vocabulary(f"models:/{champion.name}/{champion.version}") as vocabulary:
        tokenizer = SubwordTokenizer.load(vocabulary)
    token_ids = tokenizer.encode_batch(new["text"], params.tokenize.max_tokens)
    reference = _evidence(champion, evidence.TEXT_PROFILE)
    if reference is None:
        yield Trigger(_TEXT, None, "the champion's run has no profile of its training reviews")
    else:
        found = drift.text_drift(reference, drift.profile(token_ids, tokenizer.vocabulary_size))
        limit = limits.model_dump()
        over = any(value > limit[name] for name, value in found.items())
        sentence = ", ".join(f"{name} {value:.3f} (at most {limit[name]:g})" for name, value in found.items())
        yield Trigger(_TEXT, over, sentence, {name: round(value, 5) for name, value in found.items()})
        may_score = may_score and not over
    if may_score:
        yield _score_drift(champion, new, test, limits.prediction_psi)
    else:
        yield Trigger(_SCORES, None, "the champion scores new reviews where no other trigger fires, in no dry run")


def _score_drift(champion: "ModelVersion", new: "pd.DataFrame", test: "pd.DataFrame", limit: float) -> Trigger:
    """Compares how the champion scores the new reviews with how it scored the test reviews."""
    reference = _evidence(champion, evidence.predictions_name(test, champion.tags))
    if reference is None:
        return Trigger(_SCORES, None, "the champion's run has no predictions on this test split")
    scored = evidence.predictions_on(runs.connect(), champion, new)
    psi = drift.stability_index(reference["probability"].to_numpy(), scored["probability"].to_numpy())
    accuracy = float(((scored["probability"] > THRESHOLD) == scored["label"]).mean())
    return Trigger(
        _SCORES,
        psi > limit,
        f"prediction_psi {psi:.3f} (at most {limit:g}); the champion's accuracy on them is {accuracy:.3f}",
        {"prediction_psi": round(psi, 5), "accuracy_on_new": round(accuracy, 5)},
    )
