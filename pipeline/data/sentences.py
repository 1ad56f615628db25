"""Single sentences of unlabelled reviews, drawn with the seed."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.data.copies import keyed
from pipeline.data.splits import fraction
from pipeline.served_model.tokenizer import why_unusable

if TYPE_CHECKING:
    import pandas as pd

FEWEST_WORDS = 3
"""Separated by white space: of fewer words are mostly exclamations and what a wrong split leaves, such as `Mr.`"""
_BOUNDARY = re.compile(r"(?<=[.!?])\s+|<br />")


def sentences(text: str) -> list[str]:
    """Returns the sentences of `text` without white space around them; none is blank.

    One ends at a full stop, an exclamation or a question mark with white space behind it, or at an HTML line break.

    >>> sentences("Why? It cost $1.5 million.<br /><br />See it...")
    ['Why?', 'It cost $1.5 million.', 'See it...']
    """
    return [piece for sentence in _BOUNDARY.split(text) if (piece := sentence.strip())]


def learnable(text: str) -> Iterator[tuple[int, str]]:
    """Yields the sentences of `text` that have ids and FEWEST_WORDS words, each with its number in the text, counted
    from 0.

    >>> list(learnable("Mr. Toad drives fast. Why? You will see."))
    [(1, 'Toad drives fast.'), (3, 'You will see.')]
    """
    for number, sentence in enumerate(sentences(text)):
        if len(sentence.split()) >= FEWEST_WORDS and why_unusable(sentence) is None:
            yield number, sentence


def draw_sentences(
    reviews: "pd.DataFrame", *labelled: "pd.DataFrame", per_review: int, seed: int
) -> tuple["pd.DataFrame", dict[str, int]]:
    """Draws up to `per_review` of the `learnable` sentences of each review, without replacement. Of those drawn go, in
    this order, the surplus copies of a text (the first stays) and what is the whole text of a labelled review.

    A hash of the seed and the sentence's id decides, so that a review more or less changes no other's draw.

    Args:
        reviews: a table with the columns id and text.
        labelled: tables with the column text, of which no text may be among the sentences.
        per_review: how many to draw, 0 or more.
        seed: seed of the draw.

    Returns:
        A table with the columns id (`<review id>#<number of the sentence in the review, counted from 0>`), text and
        key, in the order of the reviews, and a report: how many were drawn, are kept, were dropped and why.
    """
    import pandas as pd

    drawn: list[tuple[str, str]] = []
    for review_id, text in zip(reviews["id"], reviews["text"], strict=True):
        usable = [(fraction(f"{seed}\t{review_id}#{number}"), number, sentence) for number, sentence in learnable(text)]
        chosen = sorted((number, sentence) for _, number, sentence in sorted(usable)[:per_review])
        drawn += [(f"{review_id}#{number}", sentence) for number, sentence in chosen]
    table = keyed(pd.DataFrame(drawn, columns=["id", "text"], dtype="str"))
    surplus = table["key"].duplicated()
    is_labelled = ~surplus & table["key"].isin(pd.concat([keyed(one)["key"] for one in labelled]))
    kept = table[~surplus & ~is_labelled].reset_index(drop=True)
    return kept, {
        "drawn": len(table),
        "kept": len(kept),
        "surplus_copies": int(surplus.sum()),
        "text_of_a_labelled_review": int(is_labelled.sum()),
    }
