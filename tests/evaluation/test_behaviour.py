"""Behavioural tests find what they claim to find, are the same for the same seed, and a wrong file is told."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from readers import reader

from pipeline.evaluation import behaviour
from pipeline.evaluation.behaviour import Suite, measure, read_suite
from pipeline.evaluation.perturbations import PERTURBATIONS
from pipeline.evaluation.significance import wilson_interval
from pipeline.project.errors import DataError

MOST_TEXTS = 5000


@pytest.mark.parametrize(
    "capability",
    ["vocabulary", "negation", "contrast", "intensity", "robustness", "names", "identity", "whose opinion", "length"],
)
def test_a_planted_defect_shows_in_its_capability_and_a_reader_without_it_passes(
    suite: Suite, cases: list[behaviour.Case], capability: str
) -> None:
    sound, planted = (measure(suite, cases, reader(defect))["capabilities"] for defect in (None, capability))
    before, after = sound[capability], planted[capability]
    assert before["failure_rate"] < 0.05 and before.get("mean_span", 0) < 0.05
    assert max(after[what] - before[what] for what in before) > 0.05


def test_the_suite_is_as_large_as_it_says(suite: Suite, cases: list[behaviour.Case]) -> None:
    assert len({text for case in cases for text in case.texts}) <= MOST_TEXTS
    counts = np.bincount([case.test for case in cases])
    assert len(counts) == len(suite.tests) >= 40
    assert counts.min() >= 35 and counts.max() <= 300
    assert not [case for case in cases if len(case.texts) > 1 and len(set(case.texts)) == 1]


def test_the_same_seed_gives_the_same_cases(suite: Suite, cases: list[behaviour.Case], reviews: pd.DataFrame) -> None:
    texts = reviews["text"].tolist()
    assert suite.cases(texts, seed=42) == cases
    assert suite.cases(texts, seed=43) != cases


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation_changes_what_it_says_and_little_else(reviews: pd.DataFrame, name: str) -> None:
    changed = [
        (text, found)
        for text in reviews["text"].head(300)
        if (found := PERTURBATIONS[name](text, Random(1))) is not None and found != text
    ]
    assert len(changed) >= 15
    for before, after in changed:
        if name in ("names", "places", "numbers", "typos"):
            assert len(before.split()) == len(after.split())
        assert abs(len(after) - len(before)) <= max(60, 0.2 * len(before))
        assert PERTURBATIONS[name](before, Random(1)) == after


@pytest.mark.parametrize(
    "text", ["I give it 15/20, 90% of it is fine.", "90 minutes of 16 out of 20.", "8 of 10, 12.5 stars"]
)
def test_a_rating_or_a_length_is_no_number_to_change(text: str) -> None:
    assert PERTURBATIONS["numbers"](text, Random(1)) is None


def test_an_invariance_counts_changed_labels_and_spans(tmp_path: Path) -> None:
    suite = written(tmp_path, '- {name: a, kind: invariance, vary: who, templates: ["{who} came."]}')
    cases = suite.cases([], seed=1)
    assert [case.texts for case in cases] == [("Ann came.", "Bob came.")]
    (test,) = measure(suite, cases, lambda texts: np.array([0.4, 0.9]))["tests"]
    assert (test["failures"], test["failure_rate"], test["mean_span"]) == (1, 1.0, pytest.approx(0.5))
    (test,) = measure(suite, cases, lambda texts: np.array([0.6, 0.9]))["tests"]
    assert (test["failures"], test["mean_span"]) == (0, pytest.approx(0.3))


@pytest.mark.parametrize(
    ("expect", "moved", "fails"),
    [
        ("not lower", -0.2, True),
        ("not lower", -0.05, False),
        ("not lower", 0.5, False),
        ("not higher", 0.2, True),
        ("not higher", -0.5, False),
        ("lower", -0.2, False),
        ("lower", -0.05, True),
        ("higher", 0.2, False),
        ("higher", 0.0, True),
    ],
)
def test_a_direction_is_missed_or_taken_by_the_tolerance(
    tmp_path: Path, expect: str, moved: float, fails: bool
) -> None:
    templates = '[["It is {who}.", "So is {who}."]]'
    suite = written(tmp_path, f"- {{name: a, kind: directional expectation, expect: {expect}, templates: {templates}}}")

    def scored(texts: Sequence[str]) -> np.ndarray:
        return np.array([0.5 + moved * text.startswith("So") for text in texts])

    (test,) = measure(suite, suite.cases([], seed=1), scored)["tests"]
    assert test["failures"] == (2 if fails else 0)


def written(folder: Path, tests: str) -> Suite:
    (folder / "ours.yaml").write_text(f"capability: ours\ntests:\n{tests}\nlexicons: {{who: [Ann, Bob]}}\n")
    return read_suite(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{name: a, kind: invariance, vary: who, templates: ["{whom} came."]}', r"test 'a': the slot \{whom\} has no"),
        ('{name: a, kind: invariance, vary: who, templates: ["I came."]}', r"test 'a': 'I came\.' has no slot \{who\}"),
        ('{name: a, kind: invariance, vary: who, templates: ["{who} came.}"]}', "has a brace that belongs to no slot"),
        ('{name: a, kind: magic, templates: ["x"]}', r"tests\.0\.kind: Input should be"),
        ('{name: a, kind: minimum functionality, templates: ["x"]}', r"is positive or negative, found None.*'a'"),
        ("{name: a, kind: invariance, perturbation: typo}", r"no perturbation 'typo'; there are typos"),
        ("{name: a, kind: invariance, perturbation: typos, casses: 3}", r"casses: Extra inputs"),
        ('{name: a, kind: invariance, templates: ["x"]}', "each template must be a pair of texts"),
        ("{name: a, kind: invariance}", "either templates or a perturbation"),
        ("{name: a, kind: invariance, perturbation: typos, cases: 301}", r"cases: Input should be less than"),
        ("{name: a", "cannot be read"),
    ],
)
def test_a_wrong_file_is_told_with_file_test_and_slot(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=f"ours\\.yaml.*{message}"):
        written(tmp_path, f"- {line}")


def test_two_tests_of_a_name_and_tests_without_a_capability_are_told(tmp_path: Path) -> None:
    line = "- {name: a, kind: invariance, perturbation: typos}"
    with pytest.raises(DataError, match="two tests 'a' of ours"):
        written(tmp_path, f"{line}\n{line}")
    (tmp_path / "ours.yaml").write_text(f"tests:\n{line}\n")
    with pytest.raises(DataError, match="tests need a capability"):
        read_suite(tmp_path)
    with pytest.raises(DataError, match="nowhere/ holds no behavioural tests"):
        read_suite(tmp_path / "nowhere")


def test_a_teams_file_is_one_more_capability(tmp_path: Path, suite: Suite) -> None:
    for file in (ROOT / "behaviour").glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    templates = '["{who} finds it {positive_adjective}."]'
    more = written(tmp_path, f"- {{name: a, kind: minimum functionality, expect: positive, templates: {templates}}}")
    assert set(more.capabilities) - set(suite.capabilities) == {"ours"}
    found = measure(more, more.cases(["A review that is long enough, in 1987, by John."] * 3, 1), reader())
    assert found["capabilities"]["ours"]["failure_rate"] == 0


def test_the_interval_is_wilsons() -> None:
    """Newcombe 1998, table I: 81 of 263 and 15 of 148."""
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=5e-4)
    assert wilson_interval(15, 148) == pytest.approx([0.0624, 0.1605], abs=5e-4)
    assert wilson_interval(0, 20)[0] == 0.0
