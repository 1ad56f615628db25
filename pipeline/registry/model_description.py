"""A registered model in Markdown, as its page in the MLflow UI shows it: who is champion, why, and its model card."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.registry.decisions import made_champion

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MOST_CHARACTERS = 5_000
"""What MLflow's store keeps of a registered model's description."""
_MOST_OF_A_REASON = 1_000


def of_model(
    about: str, lines: Sequence[Mapping[str, Any]], champion: "ModelVersion | None", metrics: Mapping[str, float]
) -> str:
    """Returns the description of a registered model, of at most MOST_CHARACTERS.

    Args:
        about: what the registered model is for, with which the description begins.
        lines: the decisions, the oldest first; told are the one that made the champion, and the last one.
        champion: the version, whose own description is its model card; None where there is no champion.
        metrics: those of the champion's training.
    """
    made = made_champion(lines, str(champion.version) if champion else None)
    parts = [about, _champion(champion, metrics) if champion else "There is no champion."]
    if made:
        parts.append(_told(made))
    if lines and lines[-1] is not made:
        parts.append(f"The last decision: {_told(lines[-1])}")
    if champion:
        parts += _that_fit(champion, MOST_CHARACTERS - len("\n\n".join(parts)))
    return "\n\n".join(parts)


def _champion(version: "ModelVersion", metrics: Mapping[str, float]) -> str:
    named = {"test accuracy": "test/accuracy", "validation accuracy": "val_accuracy"}
    figures = "".join(f", {name} {metrics[metric]:.4f}" for name, metric in named.items() if metric in metrics)
    return f"**Champion: version {version.version}, {version.tags.get('model', 'of an unknown model')}**{figures}."


def _told(line: Mapping[str, Any]) -> str:
    kept = line["reason"].encode("utf-8", errors="backslashreplace").decode("utf-8")  # a store holds no lone surrogate
    reason, challenger = " ".join(kept.split()), line["evidence"].get("challenger")
    if len(reason) > _MOST_OF_A_REASON:
        reason = f"{reason[: _MOST_OF_A_REASON - 1]}…"
    of = f", version {challenger} challenged" if challenger not in (None, line["to"]) else ""
    return f"*{line['decision']}* on {line['when'][:10]}{of}: {reason}"


def _that_fit(version: "ModelVersion", characters: int) -> list[str]:
    """Returns the sections of a version's model card as far as they fit, and where they do not all, says so last."""
    sections = (version.description or "").strip().replace("\n## ", "\0## ").split("\0")
    rest = f"The description of version {version.version} has the rest of this card."
    kept: list[str] = []
    for section in filter(None, map(str.strip, sections)):
        if len("\n\n".join(["", *kept, section, rest])) + len("\n\n") > characters:
            return [*kept, rest]
        kept.append(section)
    return kept
