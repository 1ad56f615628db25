"""A training in Markdown: the description of its run in the MLflow UI, and of the version that it made."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.project.provenance import COMMIT, DIRTY, EXPERIMENT

if TYPE_CHECKING:
    from mlflow.entities import RunData

_UNFINISHED = {
    "RUNNING": "in training",
    "KILLED": "interrupted; the next `dvc repro` of the same data, params and code goes on from its last epoch",
    "FAILED": "failed",
}
_SETTINGS = ("seed", "learning_rate", "token_dropout", "dropout")
_LIBRARIES = {"TensorFlow": "version.tensorflow", "Keras": "version.keras"}
_TEACHER = "md5.data/teacher/"


def of_training(status: str, data: "RunData", accuracy_interval: Sequence[float] | None = None) -> str:
    """Returns the description of a training's run as far as it has come: how it went, model, training, data, code.
    `status` is MLflow's, such as RUNNING; `accuracy_interval` has the bounds of the test accuracy, once measured."""
    tags, metrics = data.tags, data.metrics
    results = []
    if "test/accuracy" in metrics:
        results.append(f"test accuracy **{metrics['test/accuracy']:.4f}**")
    if accuracy_interval:
        results.append("95% interval {:.4f} to {:.4f}".format(*accuracy_interval))
    if "val_accuracy" in metrics:
        results.append(f"validation accuracy {metrics['val_accuracy']:.4f}")
    if "epochs" in metrics:
        results.append(f"{metrics['epochs']:.0f} epochs")
    if "val_accuracy" not in metrics:
        results.append(_UNFINISHED.get(status, "finished"))
    lines = {
        "model": _model(data),
        "training": _training(data),
        "data": _targets(tags, 8),
        "code": _code(tags),
    }
    about = " on ".join(f"**{tags[name]}**" for name in ("model", "dataset") if name in tags)
    return "\n".join(
        [f"{about}: {', '.join(results)}.", "", *(f"- {name}: {line}" for name, line in lines.items() if line)]
    )


def _model(data: "RunData") -> str:
    parts, params = [], data.params
    if {"cell", "recurrent_units", "pooling"} <= params.keys():
        units = params["recurrent_units"].strip("[]")
        parts.append(f"bidirectional {params['cell']}, {units} units, pooling {params['pooling']}")
    if "parameters" in data.metrics:
        parts.append(f"{data.metrics['parameters']:,.0f} parameters")
    return "; ".join(parts)


def _training(data: "RunData") -> str:
    parts = [f"on {data.tags['device']}"] if "device" in data.tags else []
    if "training_seconds" in data.metrics:
        parts.append(f"{data.metrics['training_seconds']:,.0f} s")
    if "seconds_per_epoch" in data.metrics:
        parts.append(f"{data.metrics['seconds_per_epoch']:,.0f} s an epoch")
    parts += [f"{name.replace('_', ' ')} {data.params[name]}" for name in _SETTINGS if name in data.params]
    return ", ".join(parts)


def _code(tags: Mapping[str, str]) -> str:
    changed = " with uncommitted changes" if tags.get(DIRTY) == "true" else ""
    code = f"commit `{tags[COMMIT][:8]}`{changed}" if COMMIT in tags else "no commit"
    return f"{code}, DVC experiment `{tags[EXPERIMENT]}`" if EXPERIMENT in tags else code


def _targets(tags: Mapping[str, str], digits: int) -> str:
    for name, digest in tags.items():
        if name.startswith(_TEACHER):
            return f"targets of the teacher {name.removeprefix(_TEACHER)}, md5 `{digest[:digits]}` in `dvc.lock`"
    return ""


def made_by(tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """Returns in a sentence by which training, whose run has these tags and metrics, a registered version was made."""
    seconds = f" in {metrics['training_seconds']:,.0f} s" if "training_seconds" in metrics else ""
    parts = [
        f"Trained{seconds} on {tags.get('device', 'an unknown device')}",
        *(f"{name} {tags[tag]}" for name, tag in _LIBRARIES.items() if tag in tags),
        _code(tags),
        *([targets] if (targets := _targets(tags, 12)) else []),
    ]
    return f"{', '.join(parts)}."
