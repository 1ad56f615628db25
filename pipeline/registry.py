"""Registered versions and their aliases."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import tracking
from pipeline.artifacts import VOCABULARY, model_file, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"
THRESHOLD = 0.5
_ARTIFACT = "model"
_ROOM = Path(__file__).parent
_REQUIREMENTS = ("keras", "mlflow", "numpy", "pandas", "tensorflow")
_EXAMPLE = ("A film that stays with you for days.", "Two hours that I will never get back.")


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


def register(dataset: str, candidates: Sequence[Candidate], *, max_tokens: int) -> dict[str, Any]:
    """Registers each candidate once as a raw-text model, and gives the aliases to the best on validation.

    The best candidate becomes `challenger`, and `champion` too where there is none yet. A candidate whose weights
    and run have a version already gets no second one. Inside a DVC experiment nothing is registered.

    Returns:
        What was decided and why, JSON-able.
    """
    if experiment := os.environ.get("DVC_EXP_NAME"):
        reason = (
            f"{experiment} is a DVC experiment: tracked, never registered; once applied, "
            "`dvc repro --force --single-item register` registers its models"
        )
        return {"decision": "not registered", "reason": reason}
    client = tracking.connect()
    name = registered_name(dataset)
    _ensure_registered_model(client, name)
    versions = {candidate.model: _ensure_version(client, name, candidate, max_tokens) for candidate in candidates}
    best = max(candidates, key=lambda candidate: (candidate.val_accuracy, -candidate.val_loss))
    chosen = versions[best.model]
    client.set_registered_model_alias(name, CHALLENGER, chosen)
    champion = alias_version(client, name, CHAMPION)
    if champion is None:
        client.set_registered_model_alias(name, CHAMPION, chosen)
        decision, reason = "first", "there was no champion; this is the best candidate on validation"
    elif champion == chosen:
        decision, reason = "unchanged", "the best candidate on validation is the champion already"
    else:
        decision, reason = "kept", "a champion is in place and nothing here replaces one unmeasured"
    return {
        "registered_model": name,
        "decision": decision,
        "reason": reason,
        "champion": alias_version(client, name, CHAMPION),
        "challenger": chosen,
        "versions": {
            candidate.model: {"version": versions[candidate.model], **asdict(candidate)} for candidate in candidates
        },
    }


def alias_version(client: "MlflowClient", name: str, alias: str) -> str | None:
    """Returns the version that `alias` points at, None where it does not exist."""
    version = client.get_registered_model(name).aliases.get(alias)
    return None if version is None else str(version)


def _ensure_registered_model(client: "MlflowClient", name: str) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Sentiment of a movie review from its raw text.")


def _ensure_version(client: "MlflowClient", name: str, candidate: Candidate, max_tokens: int) -> str:
    """Returns the version of `candidate`, registering it if its run and weights have none."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{candidate.run_id}'"):
        if version.tags.get("weights_sha256") == candidate.weights_sha256:
            return str(version.version)
    logged = log_model(candidate, max_tokens=max_tokens)
    version = client.create_model_version(
        name,
        source=logged.model_uri,
        run_id=candidate.run_id,
        model_id=logged.model_id,
        tags={"model": candidate.model, "weights_sha256": candidate.weights_sha256},
        description=f"{candidate.model}: validation accuracy {candidate.val_accuracy:.4f}",
    )
    return str(version.version)


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
            flavor=mlflow.pyfunc,
            run_id=candidate.run_id,
            python_model=str(_ROOM / "serving.py"),
            artifacts={"classifier": str(classifier)},
            signature=signature,
            input_example=pd.DataFrame({"text": _EXAMPLE}),
            pip_requirements=[f"{library}=={metadata.version(library)}" for library in _REQUIREMENTS],
        )
