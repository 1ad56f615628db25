"""A person's verdicts on labels are obeyed in training, never in test, and a line that is none is told."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.splits import split_reviews
from pipeline.data.verdicts import Verdict, append, corrections, obeyed, read_verdicts, text_digest
from pipeline.project.errors import DataError
from pipeline.project.paths import VERDICTS

WHEN = datetime(2026, 11, 26, 21, 0, tzinfo=UTC)


def verdict(text: str, label: int, what: str, **changed: object) -> Verdict:
    given = {
        "id": "train/7",
        "text_sha256": text_digest(text),
        "label": label,
        "verdict": what,
        "who": "Ann",
        "when": WHEN,
    }
    return Verdict.model_validate(given | changed)


def by_text(*verdicts: Verdict) -> dict[str, Verdict]:
    return {one.text_sha256: one for one in verdicts}


def reviews(*rows: tuple[str, int]) -> pd.DataFrame:
    ids = [f"train/{row}" for row in range(len(rows))]
    return pd.DataFrame({"id": ids, "text": [text for text, _ in rows], "label": [label for _, label in rows]})


def test_labels_are_turned_rows_dropped_and_others_left() -> None:
    table = reviews(("Fine.", 0), ("Bad.", 0), ("Blank?", 1), ("Good.", 1))
    given = by_text(verdict("Fine.", 0, "turn"), verdict("Blank?", 1, "drop"), verdict("Good.", 1, "keep"))
    found, counts = obeyed(table, given)
    assert found[["text", "label"]].values.tolist() == [["Fine.", 1], ["Bad.", 0], ["Good.", 1]]
    assert counts == {"turned": 1, "dropped": 1}
    assert obeyed(table, {})[0].equals(table)


def test_a_copy_that_has_the_right_label_keeps_it() -> None:
    """A verdict says which label is wrong, so that to obey it twice, or on a copy labelled otherwise, turns none."""
    given = by_text(verdict("Fine.", 0, "turn"))
    once, _ = obeyed(reviews(("Fine.", 0), ("FINE!", 1)), given)
    assert once["label"].tolist() == [1, 1]
    twice, counts = obeyed(once, given)
    assert twice.equals(once) and counts["turned"] == 0


def test_test_labels_stay_and_what_would_change_is_listed() -> None:
    train = reviews(*((f"Review {row}.", row % 2) for row in range(40)))
    test = reviews(("Fine.", 0), ("Odd.", 1), ("Ok.", 1)).assign(id=["test/0", "test/1", "test/2"])
    given = by_text(verdict("Fine.", 0, "turn"), verdict("Odd.", 1, "drop"), verdict("Review 3.", 1, "turn"))
    tables, report = split_reviews(
        train, test, train.head(0), validation_fraction=0.1, fresh_rows=0, seed=1, verdicts=given
    )
    assert tables["test"].equals(test)
    assert corrections(test, given).values.tolist() == [["test/0", 1], ["test/1", -1]]
    assert report["verdicts"] == {"texts": 3, "turned": 1, "dropped": 0}
    known = pd.concat([tables["train"], tables["validation"]]).set_index("text")["label"]
    assert known["Review 3."] == 0 and len(known) == 40


def test_without_a_verdict_there_is_no_correction() -> None:
    found = corrections(reviews(("Fine.", 0)), {})
    assert found.empty and list(found.columns) == ["id", "corrected_label"]


def test_the_last_verdict_on_a_text_counts(project: Path) -> None:
    assert read_verdicts() == {}
    append(verdict("Fine.", 0, "turn"))
    append(verdict("fine", 0, "keep", id="train/8"))
    assert [one.verdict for one in read_verdicts().values()] == ["keep"]
    assert len(VERDICTS.read_text().splitlines()) == 3


def test_a_line_that_a_person_added_without_an_end_is_not_joined(project: Path) -> None:
    append(verdict("Fine.", 0, "turn"))
    VERDICTS.write_text(VERDICTS.read_text().rstrip("\n"))
    append(verdict("Bad.", 0, "drop"))
    assert len(read_verdicts()) == 2


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1))
def test_whatever_somebodys_name_is_it_comes_back(tmp_path_factory: pytest.TempPathFactory, who: str) -> None:
    file = tmp_path_factory.mktemp("verdicts") / "verdicts.csv"
    append(verdict("Fine.", 0, "turn", who=who), file)
    assert [one.who for one in read_verdicts(file).values()] == [who]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (",turn,", ",trun,", "line 2: verdict 'trun'"),
        (",0,", ",2,", "line 2: label '2'"),
        (",Ann,", ",,", "line 2: who '': it must be a name"),
        ("2026-11-26T21", "yesterday", "line 2: when 'yesterday"),
        ("train/7,", "train/7,f", "line 2: text_sha256 'f"),
        (",Ann,", ",Ann,Bob,", "line 2 has more fields"),
        ("id,text", "ID,text", "the first line must be id,text_sha256,label,verdict,who,when, found ID,"),
        (",Ann,", ',"Ann,', "cannot be read"),
    ],
)
def test_a_wrong_line_is_told_and_nothing_is_lost(project: Path, before: str, after: str, message: str) -> None:
    append(verdict("Fine.", 0, "turn"))
    text = VERDICTS.read_text()
    assert before in text
    VERDICTS.write_text(text.replace(before, after))
    with pytest.raises(DataError, match=f"{VERDICTS}.*{message}"):
        read_verdicts()
    with pytest.raises(DataError):
        append(verdict("Bad.", 0, "drop"))
    assert VERDICTS.read_text() == text.replace(before, after)
