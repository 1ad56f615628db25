"""Copies of a review: texts of the same letters, whatever their case, markup, spacing and punctuation."""

import re
import sys
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SEPARATORS = ("P", "Z", "Cc")  # Unicode's general categories of punctuation, of spaces and of control characters
_INVISIBLE = "Cf"  # such as a soft hyphen or a byte order mark within a word


def key(text: str) -> str:
    """Returns what two copies of a text share.

    The text in Unicode's NFKC and without case (Unicode 15, section 3.13, identifier caseless matching), every run of
    punctuation, space and `<br />` one space; a text of nothing else, such as `:-(`, stays as it is.

    >>> key("Great  film!<br />See it.") == key("great film: SEE IT")
    True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _LINE_BREAK.sub(" ", text)).casefold())
    return " ".join(folded.translate(_separated()).split()) or " ".join(text.split())


def keys(texts: "pd.Series[str]") -> "pd.Series[str]":
    """Returns the key of each text; of a missing one none."""
    return texts.map(key, na_action="ignore").astype("str")


def keyed(reviews: "pd.DataFrame") -> "pd.DataFrame":
    """Returns `reviews` with a column `key`, that of each text; those that have it already as they are."""
    return reviews if "key" in reviews else reviews.assign(key=keys(reviews["text"]))


@cache
def _separated() -> dict[int, str | None]:
    """Returns what becomes of the characters that are no part of a key."""
    categories = ((code, unicodedata.category(chr(code))) for code in range(sys.maxunicode + 1))
    return {
        code: None if category == _INVISIBLE else " "
        for code, category in categories
        if category.startswith(_SEPARATORS) or category == _INVISIBLE
    }
