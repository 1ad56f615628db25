"""The sentences that show limits are scored as they stand, right or wrong."""

import numpy as np

from pipeline.studies import challenge_sentences


def test_every_sentence_is_scored_and_judged_by_the_label_a_reader_gives() -> None:
    asked: list[str] = []

    def scored(texts: object) -> np.ndarray:
        asked.extend(texts)  # type: ignore[arg-type]
        return np.full(len(asked), 0.9)

    sentences = challenge_sentences.limits(scored)["sentences"]
    assert asked == [text for _, text, _ in challenge_sentences.SENTENCES]
    for one in sentences:
        assert one["right"] == {"positive": True, "negative": False, None: None}[one["expected"]]
    assert {"negation", "sarcasm", "another domain", "contrast", "no opinion"} <= {one["kind"] for one in sentences}
