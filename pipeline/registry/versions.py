"""Registered versions: one for each trained model, what it is made of, and how it is found."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import served_model
from pipeline.project import provenance
from pipeline.project.errors import PipelineError, UsageError, one_line
from pipeline.project.paths import VOCABULARY
from pipeline.registry import evidence, model_files
from pipeline.tracking import run_description, runs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

CHAMPION = "champion"
CHALLENGER = "challenger"
WEIGHTS = runs.WEIGHTS
TOKENIZER = "tokenizer_sha256"
PARAMS = "params_sha256"
SERVED_PARAMS = (
    "cell",
    "embedding_dim",
    "recurrent_units",
    "pooling",
    "dense_units",
    "max_tokens",
    "max_ngram",
    "blend",
)
FILES = model_files.TAG
SERVED = evidence.SERVED
LATENCY = "latency_ms"
MACHINE = ("device", provenance.CPU)
_ARTIFACT = "model"
FOLDER = "served_model"
"""The served model among the artifacts of a version."""
_SERVED_MODEL = Path(served_model.__file__).parent
_PYFUNC = "pyfunc_model.py"
_REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas")
_SAME = 1e-5
"""Probability by which a logged model may differ from the stage `test`, which may have run on another machine."""
_EXAMPLE = ("A film that stays with you for days.", "Two hours that I will never get back.")


@dataclass(frozen=True)
class Candidate:
    """What is to be registered; `params` are those that it is served with, `files` the served model, by name."""

    model: str
    run_id: str
    weights_sha256: str
    params: Mapping[str, Any]
    files: Mapping[str, bytes]

    def identity(self) -> dict[str, str]:
        """Returns the tags by which its version is known, whichever run made it: weights, vocabulary, params, and the
        files that serve them."""
        served = {**self.files, _PYFUNC: _code(_PYFUNC)}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in served.items()}
        return {
            WEIGHTS: self.weights_sha256,
            TOKENIZER: digests["vocabulary.txt"],
            PARAMS: params_digest(self.params),
            SERVED: hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
        }


def _code(name: str) -> bytes:
    return (_SERVED_MODEL / name).read_bytes()


def params_digest(params: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the params that decide what a model answers; values count as MLflow has them, as text."""
    served = {name: str(params[name]) for name in SERVED_PARAMS if name in params}
    return hashlib.sha256(json.dumps(served, sort_keys=True).encode()).hexdigest()


def registered_name(dataset: str) -> str:
    """Returns the registered model's name; one trained on the sample can never be champion of the real one."""
    return "imdb-sentiment" if dataset == "imdb_reviews" else f"imdb-sentiment-{dataset}"


def alias_version(client: "MlflowClient", name: str, alias: str) -> str | None:
    """Returns the version that `alias` points at, None where it does not exist."""
    version = client.get_registered_model(name).aliases.get(alias)
    return None if version is None else str(version)


def require_registered(client: "MlflowClient", name: str) -> None:
    """Raises UsageError if there is no registered model `name`."""
    if not client.search_registered_models(f"name = '{name}'"):
        raise UsageError(f"there is no registered model {name} yet; `dvc repro` registers one")


def resolve(client: "MlflowClient", name: str, alias_or_version: str) -> "ModelVersion":
    """Returns the version that a number or an alias names; raises UsageError with what there is."""
    require_registered(client, name)
    aliases, known = client.get_registered_model(name).aliases, all_versions(client, name)
    number = str(aliases.get(alias_or_version, alias_or_version))
    if number not in known:
        raise UsageError(
            f"{name} has no version or alias {alias_or_version!r}; there are versions {', '.join(known) or 'none'} and "
            f"aliases {', '.join(sorted(aliases)) or 'none'}"
        )
    return known[number]


def all_versions(client: "MlflowClient", name: str) -> dict[str, "ModelVersion"]:
    """Returns all versions by number, the oldest first."""
    found: list[ModelVersion] = []
    token = None
    while token is None or token:
        page = client.search_model_versions(f"name = '{name}'", 10_000, ["version_number ASC"], token)
        found += page
        token = page.token or ""
    return {str(version.version): version for version in found}


def ensure_version(
    client: "MlflowClient",
    name: str,
    candidate: Candidate,
    *,
    card: str,
    test: "pd.DataFrame",
    predictions: "pd.DataFrame",
    others: "Sequence[pd.DataFrame]" = (),
) -> "ModelVersion":
    """Returns the one version of the candidate's weights, vocabulary, params and code, making it if there is none;
    `card` and the run that made it describe it.

    What an interrupted command left is completed: a model logged in full is taken, one logged in part is replaced.
    The version comes last, in one transaction with its tags, when the model has scored the test reviews, and the tables
    `others` (id, text, and label where they have one), as it will be served, and these scores are the run's evidence;
    so every version there is can be served, and what is served is what is measured. Of two that were made at once the
    older one is taken.

    Raises:
        PipelineError: the model does not load, or it scores otherwise than `predictions`, those of the stage `test`.
    """
    if version := find_version(client, name, candidate):
        description = _description(client, str(version.run_id), card)
        if version.description != description:  # it was measured anew
            client.update_model_version(name, str(version.version), description)
        return version
    model_id, model_uri = logged_model(client, candidate)
    scores, latency_ms = _as_served(model_uri, test, predictions, others)
    identity = candidate.identity()
    for reviews, scored in zip((test, *others), scores, strict=True):
        evidence.log_table(client, candidate.run_id, evidence.predictions_name(reviews, identity), scored)
    made = client.create_model_version(
        name,
        source=model_uri,
        run_id=candidate.run_id,
        model_id=model_id,
        tags=identity
        | _machine(client, candidate.run_id)
        | {"model": candidate.model, FILES: files_digest(model_uri), LATENCY: f"{latency_ms:.2f}"},
        description=_description(client, candidate.run_id, card),
    )
    oldest = find_version(client, name, candidate) or made
    if oldest.version != made.version:
        client.delete_model_version(name, str(made.version))
    return oldest


def _as_served(
    model_uri: str, test: "pd.DataFrame", predictions: "pd.DataFrame", others: "Sequence[pd.DataFrame]"
) -> tuple[list["pd.DataFrame"], float]:
    """Returns `evidence.PREDICTION_COLUMNS` of the test reviews and of each of `others`, by the logged model as an
    application has it, and the median latency of one review in milliseconds; raises PipelineError where it scores
    otherwise than `predictions` by more than _SAME."""
    import pandas as pd

    tables = [test, *others]
    everything = pd.concat([table[["id", "text"]] for table in tables], ignore_index=True)
    scores, latency_ms = evidence.score(model_uri, everything)
    ends = np.cumsum([len(table) for table in tables])[:-1]
    parts = [scores.iloc[rows] for rows in np.split(np.arange(len(scores)), ends)]
    tested = test[["id"]].merge(predictions, on="id", how="left")["probability"].to_numpy()
    difference = float(np.abs(parts[0]["probability"].to_numpy() - tested).max())
    if not difference <= _SAME:  # NaN where a review was not scored
        raise PipelineError(
            f"{model_uri} gives probabilities that differ by {difference:.3g} from those of the stage `test`; run "
            "`dvc repro` so that model and predictions belong together"
        )
    return [evidence.with_labels(part, table) for part, table in zip(parts, tables, strict=True)], latency_ms


def find_version(client: "MlflowClient", name: str, candidate: Candidate) -> "ModelVersion | None":
    """Returns the version that is what the candidate is, by whichever run, None where there is none yet that can be
    served. A version of its weights that is older than the tags of `Candidate.identity` gets them, but for SERVED: it
    carries other code."""
    wanted = candidate.identity()
    for number, version in all_versions(client, name).items():
        if version.tags.get(WEIGHTS) != wanted[WEIGHTS]:
            continue
        missing = _missing_identity(client, version)
        for tag, value in missing.items():
            client.set_model_version_tag(name, number, tag, value)
        with suppress(PipelineError):  # files that somebody removed or changed: a version of its own replaces it
            if wanted.items() <= (version.tags | missing).items():
                require_servable(version)
                return version
    return None


def _missing_identity(client: "MlflowClient", version: "ModelVersion") -> dict[str, str]:
    """Returns the tags of `Candidate.identity` that a version lacks, as far as its files and its run have them."""
    found = {}
    if TOKENIZER not in version.tags:
        with suppress(PipelineError), downloaded_vocabulary(str(version.source)) as vocabulary:
            found[TOKENIZER] = hashlib.sha256(vocabulary.read_bytes()).hexdigest()
    if PARAMS not in version.tags and (run := runs.find_run(client, str(version.run_id))):
        found[PARAMS] = params_digest(run.data.params)
    return found


def _machine(client: "MlflowClient", run_id: str) -> dict[str, str]:
    """Returns the tags of a training that say on what it ran: the same inputs end in other weights on another kind."""
    tags = client.get_run(run_id).data.tags
    return {name: tags[name] for name in MACHINE if name in tags}


def _description(client: "MlflowClient", run_id: str, card: str) -> str:
    run = runs.find_run(client, run_id)
    card = without_head(card)
    return f"{card}\n{run_description.made_by(run.data.tags, run.data.metrics)}\n" if run else card


def without_head(card: str) -> str:
    """Returns a model card without the YAML that model hubs read, which MLflow would show as text."""
    return card.partition("\n---\n")[2] if card.startswith("---\n") else card


def logged_model(client: "MlflowClient", candidate: Candidate) -> tuple[str, str]:
    """Returns id and URI of the run's raw-text model with the candidate's weights, logging it where there is none."""
    wanted = candidate.identity()
    for logged in logged_models(client, candidate.run_id):
        if wanted.items() <= logged.tags.items():
            if logged.status == "READY":
                return logged.model_id, f"models:/{logged.model_id}"
            client.delete_logged_model(logged.model_id)
    info = log_model(candidate)
    return info.model_id, info.model_uri


def logged_models(client: "MlflowClient", run_id: str) -> list["LoggedModel"]:
    """Returns the models logged in a run, half-logged ones among them."""
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment], f"source_run_id = '{run_id}'"))


def log_model(candidate: Candidate) -> "ModelInfo":
    """Logs the raw-text model of `candidate` in its run: the folder `served_model` and MLflow's wrapper around it."""
    import mlflow
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    def save_model(*, validate_serving_input: bool, **arguments: Any) -> None:
        # MLflow would try the example in this process, which then keeps the GPU: `evidence.score` has one of its own.
        mlflow.pyfunc.save_model(**arguments)

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "text")]),
        outputs=Schema(
            [
                ColSpec("string", "label"),
                ColSpec("double", "probability"),
                ColSpec("double", "logit"),
                ColSpec("boolean", "sure"),
            ]
        ),
    )
    mlflow.set_experiment(runs.EXPERIMENT)  # where the files go; the run alone does not say it
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / FOLDER
        folder.mkdir()
        for file_name, content in candidate.files.items():
            (folder / file_name).write_bytes(content)
        return Model.log(
            artifact_path=None,
            name=_ARTIFACT,
            flavor=SimpleNamespace(save_model=save_model, __name__=mlflow.pyfunc.__name__),
            validate_serving_input=False,
            run_id=candidate.run_id,
            tags=candidate.identity(),
            python_model=str(_SERVED_MODEL / _PYFUNC),
            artifacts={FOLDER: str(folder)},
            signature=signature,
            input_example=pd.DataFrame({"text": _EXAMPLE}),
            pip_requirements=[f"{library}=={metadata.version(library)}" for library in _REQUIREMENTS],
        )


@contextmanager
def downloaded(model_uri: str) -> Iterator[Path]:
    """Yields a folder with the files of a logged or registered model; raises PipelineError if they are missing."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=temporary))
        except (MlflowException, OSError) as error:
            reason = one_line(error)
            raise PipelineError(f"the files of {model_uri} are missing ({reason})") from None
        yield folder


@contextmanager
def downloaded_vocabulary(model_uri: str) -> Iterator[Path]:
    """Yields the file with the vocabulary of a logged or registered model; raises PipelineError if it is missing."""
    with downloaded(model_uri) as folder:
        file = next(folder.rglob(VOCABULARY.name), None)
        if file is None:
            raise PipelineError(f"the files of {model_uri} are missing (there is no {VOCABULARY.name})")
        yield file


def files_digest(model_uri: str) -> str:
    """Returns the SHA-256 over names and contents of a model's files; raises PipelineError if they are missing."""
    with downloaded(model_uri) as folder:
        if not (folder / "MLmodel").exists():
            raise PipelineError(f"the files of {model_uri} are missing (there is no MLmodel)")
        return model_files.digest(folder)


def require_servable(version: "ModelVersion") -> None:
    """Raises PipelineError if files of the version are missing or are not those that were registered."""
    found = files_digest(str(version.source))
    if version.tags.get(FILES, found) != found:
        raise PipelineError(f"the files of version {version.version} ({version.source}) are not those registered")
