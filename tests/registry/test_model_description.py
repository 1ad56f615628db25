"""A registered model's page says who is champion, how good, why, and shows the model card, within what MLflow keeps."""

from pathlib import Path

import pytest
from conftest import ROOT
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from pipeline.project import paths
from pipeline.registry.model_description import MOST_CHARACTERS, of_model
from pipeline.registry.versions import without_head

ABOUT = "Sentiment of a movie review from its raw text."
CARDS = sorted((ROOT / paths.model_card_file("any")).parent.glob("*.md"))
METRICS = {"test/accuracy": 0.92584, "val_accuracy": 0.92211}


def version(number: int, card: str) -> ModelVersion:
    return ModelVersion("imdb-sentiment", str(number), 0, description=card, tags=[ModelVersionTag("model", "blend")])


def line(decision: str, to: str, reason: str, challenger: str) -> dict[str, object]:
    evidence = {"challenger": challenger}
    return {"decision": decision, "to": to, "reason": reason, "when": "2026-11-27T03:00:00Z", "evidence": evidence}


FIRST = line("first", "1", "There is no champion yet.", "1")
PROMOTED = line("promoted", "2", "It is better by 0.40 points\n(p = 0.0002).", "2")


def test_it_tells_the_champion_why_it_is_and_what_was_decided_last() -> None:
    kept = line("kept", "2", "It is not better.", "3")
    told = of_model(ABOUT, [FIRST, PROMOTED, kept], version(2, "# Model card: blend\n\n## Use\n\nTo learn.\n"), METRICS)
    assert told == (
        f"{ABOUT}\n\n"
        "**Champion: version 2, blend**, test accuracy 0.9258, validation accuracy 0.9221.\n\n"
        "*promoted* on 2026-11-27: It is better by 0.40 points (p = 0.0002).\n\n"
        "The last decision: *kept* on 2026-11-27, version 3 challenged: It is not better.\n\n"
        "# Model card: blend\n\n## Use\n\nTo learn."
    )
    assert of_model(ABOUT, [FIRST, PROMOTED], version(2, ""), {}).endswith("(p = 0.0002).")
    assert of_model(ABOUT, [], None, {}) == f"{ABOUT}\n\nThere is no champion."


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_is_shown_in_whole_sections_as_far_as_it_fits(card: Path) -> None:
    text = without_head(card.read_text(encoding="utf-8")).strip()
    sections = text.split("\n\n## ")
    for words in (1, 5_000):
        promoted = line("promoted", "2", "better " * words, "2")
        told = of_model(ABOUT, [FIRST, promoted], version(2, text), METRICS)
        assert len(told) <= MOST_CHARACTERS
        shown = told[told.index("# Model card") :]
        if shown != text:
            *whole, rest = shown.split("\n\n")
            assert rest == "The description of version 2 has the rest of this card."
            assert "\n\n".join(whole) in ["\n\n## ".join(sections[:count]) for count in range(3, len(sections))]
