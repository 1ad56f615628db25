"""Registered versions: one for each trained model, what it is made of, and how it is found."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pipeline import evidence, tracking
from pipeline.artifacts import VOCABULARY, model_file, write_json
from pipeline.errors import PipelineError, UsageError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
THRESHOLD = 0.5
WEIGHTS = "weights_sha256"
FILES = "files_sha256"
LATENCY = "latency_ms"
_ARTIFACT = "model"
_ROOM = Path(__file__).parent
_REQUIREMENTS = ("keras", "mlflow", "numpy", "pandas", "tensorflow")
_EXAMPLE = ("A film that stays with you for days.", "Two hours that I will never get back.")
# What loading leaves beside a model's files.
_LEFT_BY_LOADING = ("__pycache__", "registered_model_meta")


@dataclass(frozen=True)
class Candidate:
    """A trained model to register: its name in params.yaml, MLflow run, weights' hash and validation metrics."""

    model: str
    run_id: str
    weights_sha256: str
    val_accuracy: float
    val_loss: float


def registered_name(dataset: str) -> str:
    """Returns the registered model's name; one trained on the sample can never be champion of the real one."""
    return "imdb-sentiment" if dataset == "imdb_reviews" else f"imdb-sentiment-{dataset}"


def ledger_file(name: str) -> Path:
    """Returns where the ledger of the registered model `name` stands.

    That is `registry/<name>.jsonl` beside a SQLite store, in the main checkout otherwise. Where several machines share
    a tracking server they must share the ledger too: `SENTIMENT_LEDGER_DIR` names a folder that all of them mount
    (its file system has to support flock, as NFS 4 does). A machine without the ledger is refused every change.
    """
    if folder := os.environ.get("SENTIMENT_LEDGER_DIR"):
        return Path(folder).resolve() / f"{name}.jsonl"
    return tracking.store_folder() / "registry" / f"{name}.jsonl"


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
    from mlflow.exceptions import MlflowException

    require_registered(client, name)
    model = client.get_registered_model(name)
    version = model.aliases.get(alias_or_version, alias_or_version)
    try:
        return client.get_model_version(name, str(int(version)))
    except (MlflowException, ValueError):
        known = [str(found.version) for found in versions(client, name)]
        raise UsageError(
            f"{name} has no version or alias {alias_or_version!r}; there are versions {', '.join(known) or 'none'} and "
            f"aliases {', '.join(sorted(model.aliases)) or 'none'}"
        ) from None


def versions(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    """Returns all versions, the oldest first."""
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version))


def ensure_version(
    client: "MlflowClient",
    name: str,
    candidate: Candidate,
    *,
    card: str,
    max_tokens: int,
    test: "pd.DataFrame",
    predictions: "pd.DataFrame",
) -> "ModelVersion":
    """Returns the one version of the candidate's run and weights, making it if there is none; `card` describes it.

    What an interrupted command left is completed: a model logged in full is taken, one logged in part is replaced.
    The version comes last, in one transaction with its tags, when the model has scored test reviews as `predictions`
    have them; so every version there is can be served.

    Raises:
        PipelineError: the model does not load or scores otherwise.
    """
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{candidate.run_id}'"):
        if version.tags.get(WEIGHTS) == candidate.weights_sha256:
            if version.description != card:  # it was measured anew
                client.update_model_version(name, str(version.version), card)
            return version
    model_id, model_uri = logged_model(client, candidate, max_tokens)
    latency_ms = evidence.trial(model_uri, test, predictions)
    return client.create_model_version(
        name,
        source=model_uri,
        run_id=candidate.run_id,
        model_id=model_id,
        tags={
            "model": candidate.model,
            WEIGHTS: candidate.weights_sha256,
            FILES: files_digest(model_uri),
            LATENCY: f"{latency_ms:.2f}",
        },
        description=card,
    )


def logged_model(client: "MlflowClient", candidate: Candidate, max_tokens: int) -> tuple[str, str]:
    """Returns id and URI of the run's raw-text model with the candidate's weights, logging it where there is none."""
    for logged in logged_models(client, candidate.run_id):
        if logged.tags.get(WEIGHTS) == candidate.weights_sha256:
            if logged.status == "READY":
                return logged.model_id, f"models:/{logged.model_id}"
            client.delete_logged_model(logged.model_id)
    info = log_model(candidate, max_tokens=max_tokens)
    return info.model_id, info.model_uri


def logged_models(client: "MlflowClient", run_id: str) -> list["LoggedModel"]:
    """Returns the models logged in a run, half-logged ones among them."""
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment], f"source_run_id = '{run_id}'"))


def log_model(candidate: Candidate, *, max_tokens: int) -> Any:
    """Logs the raw-text model of `candidate` in its run: Keras model, vocabulary, settings and the code they need.

    Returns:
        MLflow's ModelInfo.
    """
    import mlflow
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "text")]),
        outputs=Schema([ColSpec("string", "label"), ColSpec("double", "probability"), ColSpec("double", "logit")]),
    )
    mlflow.set_experiment(tracking.EXPERIMENT)  # where the files go; the run alone does not say it
    with tempfile.TemporaryDirectory() as temporary:
        classifier = Path(temporary) / "classifier"
        classifier.mkdir()
        for file in (model_file(candidate.model), VOCABULARY, _ROOM / "subwords.py", _ROOM / "fused_lstm.py"):
            shutil.copy(file, classifier)
        settings: Mapping[str, Any] = {"max_tokens": max_tokens, "threshold": THRESHOLD}
        write_json(classifier / "settings.json", settings)
        return Model.log(
            artifact_path=None,
            name=_ARTIFACT,
            flavor=SimpleNamespace(save_model=_save_model, __name__=mlflow.pyfunc.__name__),
            validate_serving_input=False,
            run_id=candidate.run_id,
            tags={WEIGHTS: candidate.weights_sha256},
            python_model=str(_ROOM / "serving.py"),
            artifacts={"classifier": str(classifier)},
            signature=signature,
            input_example=pd.DataFrame({"text": _EXAMPLE}),
            pip_requirements=[f"{library}=={metadata.version(library)}" for library in _REQUIREMENTS],
        )


def _save_model(*, validate_serving_input: bool, **arguments: Any) -> None:
    # MLflow would try the example in this process, which then keeps the GPU: `evidence.trial` has one of its own.
    import mlflow

    mlflow.pyfunc.save_model(**arguments)


def files_digest(model_uri: str) -> str:
    """Returns the SHA-256 over names and contents of a logged model's files.

    Raises:
        PipelineError: files are missing.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=temporary))
        except (MlflowException, OSError) as error:
            raise PipelineError(
                f"the files of {model_uri} are missing ({' '.join(str(error).split())[:200]})"
            ) from None
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        for file in files:
            name = file.relative_to(folder)
            if not set(name.parts) & set(_LEFT_BY_LOADING):
                digest.update(f"{name.as_posix()}\t{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        if not (folder / "MLmodel").exists():
            raise PipelineError(f"the files of {model_uri} are missing (there is no MLmodel)")
    return digest.hexdigest()


def require_servable(version: "ModelVersion") -> None:
    """Raises PipelineError if files of the version are missing or are not those that were registered."""
    found = files_digest(str(version.source))
    if version.tags.get(FILES, found) != found:
        raise PipelineError(f"the files of version {version.version} ({version.source}) are not those registered")
