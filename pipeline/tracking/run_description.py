"""What became of a training, told in Markdown: the description that the MLflow UI shows of its run."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.project.provenance import COMMIT, DIRTY, EXPERIMENT

_UNFINISHED = {
    "RUNNING": "in training",
    "KILLED": "interrupted; the next `dvc repro` goes on from its last epoch",
    "FAILED": "failed",
}


def tell(
    status: str,
    tags: Mapping[str, str],
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    accuracy_interval: Sequence[float] | None = None,
) -> str:
    """Returns a training run's story as far as it has come: how it went, model, training, data, code.

    Args:
        status: MLflow's, such as RUNNING.
        tags, params, metrics: the run's.
        accuracy_interval: lower and upper bound of the test accuracy, where it is measured.
    """
    test = metrics.get("test/accuracy")
    low, high = accuracy_interval or (None, None)
    results = [
        *([f"test accuracy **{test:.4f}**"] if test is not None else []),
        *([f"95% interval {low:.4f} to {high:.4f}"] if low is not None else []),
        *([_validation(metrics)] if "best_epoch" in metrics else [_UNFINISHED.get(status, "finished")]),
    ]
    lines = {
        "model": _model(params, metrics),
        "training": _training(tags, params, metrics),
        "data": _data(tags),
        "code": _code(tags),
    }
    about = " on ".join(f"**{tags[name]}**" for name in ("model", "dataset") if name in tags)
    headline = f"{about}: {', '.join(results)}."
    return "\n".join([headline, "", *(f"- {name}: {line}" for name, line in lines.items() if line)])


def _validation(metrics: Mapping[str, float]) -> str:
    kept = f"kept of epoch {metrics['best_epoch']:.0f} of {metrics['epochs']:.0f}"
    return f"validation accuracy {metrics['best_val_accuracy']:.4f}, {kept}"


def _model(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    said: list[str] = []
    if {"cell", "recurrent_units", "pooling"} <= params.keys():
        units = params["recurrent_units"].strip("[]")
        said.append(f"bidirectional {params['cell']}, {units} units, pooling {params['pooling']}")
    if "parameters" in metrics:
        said.append(f"{metrics['parameters']:,.0f} parameters")
    return "; ".join(said)


def _training(tags: Mapping[str, str], params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    said = [f"on {tags['device']}"] if "device" in tags else []
    if "training_seconds" in metrics:
        each = f", {metrics['seconds_per_epoch']:,.0f} s an epoch" if "seconds_per_epoch" in metrics else ""
        said.append(f"{metrics['training_seconds']:,.0f} s{each}")
    named = {"seed": "seed", "learning_rate": "learning rate", "token_dropout": "token dropout", "dropout": "dropout"}
    said += [f"{words} {params[name]}" for name, words in named.items() if name in params]
    return ", ".join(said)


def _data(tags: Mapping[str, str]) -> str:
    digest = tags.get("md5.data/batches/train")
    return f"batches of md5 `{digest[:8]}`, as `dvc.lock` has them" if digest else ""


def _code(tags: Mapping[str, Any]) -> str:
    commit, dirty = tags.get(COMMIT), tags.get(DIRTY)
    said = [f"commit `{commit[:8]}`{' with uncommitted changes' if dirty == 'true' else ''}" if commit else "no commit"]
    if EXPERIMENT in tags:
        said.append(f"DVC experiment `{tags[EXPERIMENT]}`")
    return ", ".join(said)


def made_by(tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """Returns in a sentence by which training a registered version was made: time, device, libraries, commit, data.

    Args:
        tags, metrics: the run's.
    """
    seconds = metrics.get("training_seconds")
    digest = tags.get("md5.data/batches/train")
    said = [
        f"Trained{f' in {seconds:,.0f} s' if seconds is not None else ''} on {tags.get('device', 'an unknown device')}",
        *(f"{name} {tags[tag]}" for name, tag in _LIBRARIES.items() if tag in tags),
        _code(tags),
        *([f"training batches of md5 `{digest[:12]}`"] if digest else []),
    ]
    return f"{', '.join(said)}."


_LIBRARIES = {"TensorFlow": "version.tensorflow", "Keras": "version.keras"}
