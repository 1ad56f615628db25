"""Short sentences that show what a model of movie reviews can and cannot read: examples for the model card, no
measurement. They were written before any model was scored, and stand whatever a model makes of them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SENTENCES: tuple[tuple[str, str, str | None], ...] = (
    ("plain", "I laughed, I cried, and I would gladly watch it again tomorrow.", "positive"),
    ("plain", "A dull, lifeless film that wastes two hours of your time.", "negative"),
    ("negation", "This is not a bad film at all.", "positive"),
    ("negation", "I did not enjoy a single minute of it.", "negative"),
    ("contrast", "It starts slowly and looks cheap, but in the end it won me over completely.", "positive"),
    ("contrast", "The actors are wonderful, the music is lovely, and still the film is a bore.", "negative"),
    ("sarcasm", "Oh great, another sequel that nobody asked for. Just what the world needed.", "negative"),
    ("sarcasm", "What a masterpiece. I have rarely slept so well in a cinema.", "negative"),
    ("another domain", "The battery lasts two days and the screen is bright and sharp.", "positive"),
    ("another domain", "The soup was cold, the waiter was rude, and we will not come back.", "negative"),
    ("no opinion", "The film runs for ninety minutes and was shot in Norway.", None),
)
"""What a sentence tries, the sentence, and the label that a reader would give it; None where there is none to give."""


def limits(scored: Callable[[Sequence[str]], np.ndarray]) -> dict[str, Any]:
    """Returns `sentences`, for each what it tries (`kind`), `text`, `expected`, the `probability` of positive that
    `scored` gives it, and `right`, None where no label is expected."""
    probabilities = scored([text for _, text, _ in SENTENCES])
    sentences = [
        {
            "kind": kind,
            "text": text,
            "expected": expected,
            "probability": float(probability),
            "right": None if expected is None else bool((probability > 0.5) == (expected == "positive")),
        }
        for (kind, text, expected), probability in zip(SENTENCES, probabilities, strict=True)
    ]
    return {"sentences": sentences}
