"""Changes of a review that leave its opinion as it is, for the behavioural tests of `behaviour/`.

Each takes the text and a seeded generator, and returns the changed text, or None where there is nothing to change.
"""

import re
from collections.abc import Callable
from random import Random

Perturbation = Callable[[str, Random], str | None]

_NAMES = """
    James John Robert Michael William David Richard Thomas Charles Daniel Paul Mark George Peter Tom Jack Frank Steve
    Mary Linda Barbara Susan Jessica Sarah Karen Nancy Lisa Margaret Sandra Emily Kate Anna Julia Jane Laura Helen
"""
_PLACES = """
    America England London Paris Chicago Boston Texas California Germany France Italy Spain Canada Japan China India
    Russia Mexico Ireland Scotland Australia Berlin Rome Tokyo
"""
_CONTRACTIONS = (
    ("is not", "isn't"),
    ("was not", "wasn't"),
    ("does not", "doesn't"),
    ("did not", "didn't"),
    ("do not", "don't"),
    ("could not", "couldn't"),
    ("would not", "wouldn't"),
    ("have not", "haven't"),
    ("it is", "it's"),
    ("that is", "that's"),
    ("I have", "I've"),
    ("I am", "I'm"),
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Not 10 and below, nor what a rating or a length looks like: those are opinions.
_NUMBER = re.compile(
    r"(?<![\d./])(?<!out of )(?!0)(?:1[1-9]|[2-9]\d|\d{3,4})(?![\d%/]|\.\d| out of| stars?| minutes?| min\b)"
)


def typos(text: str, rng: Random) -> str | None:
    """Swaps two neighbouring letters inside each of two words of five letters and more."""
    words = list(re.finditer(r"[A-Za-z]{5,}", text))
    if len(words) < 2:
        return None
    characters = list(text)
    for word in rng.sample(words, 2):
        place = rng.randrange(word.start() + 1, word.end() - 2)
        characters[place], characters[place + 1] = characters[place + 1], characters[place]
    return "".join(characters)


def lower_case(text: str, rng: Random) -> str | None:
    """Writes the whole text in lower case."""
    return text.lower()


def final_punctuation(text: str, rng: Random) -> str | None:
    """Takes the punctuation from the end, or puts a full stop there."""
    stripped = text.rstrip(" .!?")
    return stripped if stripped != text else f"{text}."


def contractions(text: str, rng: Random) -> str | None:
    """Writes contractions out, or where there are none contracts what is written out."""
    for one, other in ((1, 0), (0, 1)):
        changed = text
        for pair in _CONTRACTIONS:
            changed = re.sub(rf"\b{pair[one]}\b", pair[other], changed)
        if changed != text:
            return changed
    return None


def line_breaks(text: str, rng: Random) -> str | None:
    """Puts HTML's line breaks between two sentences, or takes those there are."""
    if "<br />" in text:
        return re.sub(r"(?:<br />)+", " ", text)
    ends = [found.end() for found in re.finditer(r"[.!?] (?=[A-Z])", text)]
    if not ends:
        return None
    place = rng.choice(ends)
    return f"{text[:place]}<br /><br />{text[place:]}"


def url_and_handle(text: str, rng: Random) -> str | None:
    """Puts a handle before the text and a URL behind it."""
    handle, code = ("".join(rng.choices(_LETTERS, k=8)) for _ in range(2))
    return f"@{handle} {text} https://t.co/{code}"


def numbers(text: str, rng: Random) -> str | None:
    """Replaces a number that is no rating and no length by another of as many digits."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    one = rng.choice(found)
    digits = len(one[0])
    others = [n for n in range(max(11, 10 ** (digits - 1)), min(10**digits, 2030)) if str(n) != one[0]]
    return f"{text[: one.start()]}{rng.choice(others)}{text[one.end() :]}"


def names(text: str, rng: Random) -> str | None:
    """Replaces a first name, wherever it stands, by another."""
    return _replaced(text, _NAMES.split(), rng)


def places(text: str, rng: Random) -> str | None:
    """Replaces the name of a place, wherever it stands, by another."""
    return _replaced(text, _PLACES.split(), rng)


def _replaced(text: str, known: list[str], rng: Random) -> str | None:
    there = [word for word in known if re.search(rf"\b{word}\b", text)]
    if not there:
        return None
    old = rng.choice(there)
    new = rng.choice([word for word in known if word not in there])
    return re.sub(rf"\b{old}\b", new, text)


PERTURBATIONS: dict[str, Perturbation] = {
    "typos": typos,
    "lower case": lower_case,
    "final punctuation": final_punctuation,
    "contractions": contractions,
    "line breaks": line_breaks,
    "URL and handle": url_and_handle,
    "numbers": numbers,
    "names": names,
    "places": places,
}
