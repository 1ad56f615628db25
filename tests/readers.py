"""Readers of made sentences, as they should be read and with one defect each: what behavioural tests are tried on."""

import re
from random import Random

import numpy as np

from pipeline.evaluation import behaviour

POSITIVE = "good great wonderful excellent superb brilliant beautiful delightful loved liked like enjoyed enjoy admired"
NEGATIVE = "bad terrible awful horrible boring dull stupid lame hated disliked despised detested regretted waste avoid"
SIGN = dict.fromkeys(
    [*POSITIVE.split(), "adored", "masterpiece", "recommended", "recommend", "again"], 1
) | dict.fromkeys(NEGATIVE.split(), -1)
STRONGER = {"very", "really", "extremely", "truly", "incredibly"}
WEAKER = {"slightly", "somewhat", "fairly", "little"}


def reader(defect: str | None = None, seed: int | None = None) -> behaviour.Scored:
    """A reader who takes the last opinion of a text for the writer's, hears a negation and what strengthens; or who has
    one defect. With a seed it has learnt as networks do: from every word a little that is none of its meaning."""

    def noise(word: str) -> float:
        return Random(f"{seed} {word}").gauss(0, 0.5)

    def probability(text: str) -> float:
        score, negated, weight, said = 0.0, False, 1.0, False
        words = re.findall(r"[a-z']+|[.,;?!]", text.lower())
        for place, word in enumerate(words[: 25 if defect == "length" else None]):
            if word in ("not", "never", "nobody") or word.endswith("n't"):
                negated, said = defect != "negation", words[place + 1 : place + 2] in (["think"], ["say"])
            elif word in (".", ";", "?", "!") or (word == "," and not said):
                negated, said = False, False
            elif word in STRONGER | WEAKER:
                weight = 1.2 if (word in STRONGER) != (defect == "intensity") else 0.4
            elif word in SIGN and not (defect == "vocabulary" and word[0] in "abdgl"):
                first_alone = defect == "contrast" and score and "but" in words
                if not first_alone and not (defect == "whose opinion" and score and {"critics", "friend"} & {*words}):
                    score = SIGN[word] * weight * (-1 if negated else 1)
                weight = 1.0
        if words[-2:] == ["no", "."]:
            score = -score
        if seed is not None:
            score += sum(map(noise, words)) / len(words) ** 0.5
        if (defect == "identity" and "muslim" in words) or (defect == "names" and "ivan" in words):
            score -= 2
        if defect == "nationality" and "mexican" in words:
            score -= 4
        if defect == "robustness" and "https" in words:
            score -= 2
        return float(1 / (1 + np.exp(-2 * score)))

    return lambda texts: np.array([probability(text) for text in texts])
