"""A registered model, loaded from wherever a URI says it is."""

import tempfile
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.project.errors import PipelineError, UsageError, one_line
from pipeline.project.params import load_params
from pipeline.project.quiet_import import import_tensorflow
from pipeline.registry import champion, versions
from pipeline.served_model.loading import load_scorer
from pipeline.serving import pulled
from pipeline.serving.lookup import NoAnswer, Version
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

SCORES = ("label", "probability", "logit")
"""What every version says of a text; newer ones have more columns, such as `sure`."""
SCORE_TYPES = {"label": "string", "probability": "double", "logit": "double", "sure": "bool"}
_IN_THE_STORE = ("models:/", "runs:/", "mlflow-artifacts:/")
_MADE_WITH = "requirements.txt"
_HAS_MLFLOW = find_spec("mlflow") is not None


class Model(Protocol):
    """What scores texts: `served_model.scorer.Scorer`, of whichever version."""

    UnencodableText: type[Exception]

    def score(self, texts: Sequence[str]) -> Any:
        """Returns a named tuple of arrays, `columns`; raises UnencodableText."""


class LightModel(Model, Protocol):
    """One that needs neither MLflow nor TensorFlow."""

    def encode(self, texts: Sequence[str]) -> Sequence[Any]:
        """Returns the token ids of each text; raises UnencodableText."""


def columns(model: Model) -> tuple[str, ...]:
    """Returns the names of what a model says of a text: SCORES, and `sure` of versions that have a promise."""
    return SCORES if isinstance(model, _PyFunc) else tuple(model.score([])._fields)


def champion_uri() -> str:
    """Returns the URI of the champion on the data set that params.yaml names."""
    return f"models:/{versions.registered_name(load_params().dataset)}@{versions.CHAMPION}"


def load(uri: str | None) -> Model:
    """Loads a registered model; `uri` is any that MLflow takes, None the champion.

    Raises:
        UsageError: there is no such model, or it does not score reviews.
        PipelineError: there is no champion yet, the store cannot be used, or the model needs what is not installed.
    """
    chosen, folder = uri or champion_uri(), _folder(uri)
    served = pulled.served_model(folder)
    return _PyFunc(chosen, folder) if served is None else _scorer(chosen, served)


def _folder(uri: str | None) -> Path:
    try:
        return pulled.model(uri or champion_uri())
    except NoAnswer:
        raise
    except PipelineError as error:
        if uri is None:
            raise PipelineError(_without_champion(str(error))) from error
        raise UsageError(f"--model {uri} cannot be loaded: {error}") from error


def _scorer(uri: str, folder: Path) -> LightModel:
    try:
        return load_scorer(folder)
    except Exception as error:  # the code of the version raises whatever it likes
        raise PipelineError(f"{uri} cannot be loaded: {one_line(error)}") from error


def load_light(uri: str | None, version: Version | None = None) -> LightModel:
    """Loads a registered model as `load` does, but only one whose folder needs neither MLflow nor TensorFlow; raises
    PipelineError for another.

    Args:
        version: what `uri` was found to name.
    """
    chosen = uri or champion_uri()
    folder = pulled.served_model(_folder(uri) if version is None else pulled.of_version(version, chosen))
    if folder is None:
        raise PipelineError(
            f"{chosen} was registered before versions were folders that score by themselves, or is no model of this "
            "project's"
        )
    return _scorer(chosen, folder)


class _PyFunc:
    """A model that only MLflow loads: one that was registered before versions were folders, or another project's."""

    UnencodableText: type[Exception] = ValueError

    def __init__(self, uri: str, folder: Path) -> None:
        if not _HAS_MLFLOW:
            raise PipelineError(
                f"{uri} was registered before versions were folders that need NumPy and ONNX Runtime alone, or is no "
                "model of this project's: it needs MLflow and what it was made with; install requirements.lock"
            )
        made_with = folder / _MADE_WITH
        if made_with.exists() and "tensorflow" in made_with.read_text(encoding="utf-8"):
            import_tensorflow()
        try:
            self._model = load_pyfunc(str(folder))
        except UsageError as error:
            raise PipelineError(str(error).replace(f"--model {folder}", uri)) from error

    def score(self, texts: Sequence[str]) -> list[Any]:
        import pandas as pd
        from mlflow.exceptions import MlflowException

        try:
            scores = self._model.predict(pd.DataFrame({"text": pd.Series(texts, dtype=object)}))
        except MlflowException as error:
            raise ValueError(error.message) from None
        assert isinstance(scores, pd.DataFrame)  # the signature that `load_pyfunc` asked for
        return [scores[name].to_numpy() for name in SCORES]


def load_pyfunc(uri: str | None) -> "PyFuncModel":
    """Loads a copy of a registered model as MLflow has it; `uri` and errors as in `load`."""
    chosen = uri or champion_uri()
    if chosen.startswith(_IN_THE_STORE):
        runs.connect_to_read()
    import mlflow

    try:
        with ExitStack() as copies:  # in the store's own folder MLflow would leave a file, and Python compiled code
            copy = copies.enter_context(tempfile.TemporaryDirectory())
            model = mlflow.pyfunc.load_model(chosen, dst_path=copy)
            weakref.finalize(model, copies.pop_all().close)
    except Exception as error:  # MLflow, Keras and the model's own code raise whatever they like
        if uri is None:
            raise PipelineError(_without_champion(one_line(error))) from error
        raise UsageError(f"--model {uri} cannot be loaded: {one_line(error)}") from error
    outputs = model.metadata.get_output_schema()
    if outputs is None or not set(SCORES) <= set(outputs.input_names()):
        raise UsageError(f"--model {chosen} does not score reviews: its output is not {', '.join(SCORES)}")
    return model


def _without_champion(reason: str) -> str:
    """Says why there is no champion to load, and how to get one."""
    remedy = "`dvc repro` trains and registers one"
    if _HAS_MLFLOW:
        client, name = runs.connect_to_read(), versions.registered_name(load_params().dataset)
        if lost := champion.lost_champion(client, name):
            return lost
        if client.search_registered_models(f"name = '{name}'"):
            remedy = "`sentiment registry verify` says how to mend it"
    return f"{champion_uri()} cannot be loaded ({reason}); {remedy}"


def score_texts(model: Model, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the `columns` of each of `texts`.

    Raises:
        PipelineError: the model refuses one of them.
    """
    try:
        scores = model.score(texts)
    except model.UnencodableText as error:
        raise PipelineError(f"the model refused what it was given: {error}") from None
    names, arrays = columns(model), (array.tolist() for array in scores)
    return [dict(zip(names, row, strict=True)) for row in zip(*arrays, strict=True)]
