"""Behavioural tests: texts that are made to find out one thing each about a classifier.

The terms are those of Ribeiro et al., "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList" (ACL 2020): a
*minimum functionality* test has an expected label; under *invariance* a change must not change the label; a
*directional expectation* says to which side a change may move the probability. docs/behaviour.md says how to write one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from math import prod
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.data.copies import key
from pipeline.evaluation import evaluation_sets
from pipeline.evaluation.perturbations import PERTURBATIONS
from pipeline.evaluation.selective import read_band
from pipeline.evaluation.significance import wilson_interval
from pipeline.project.atomic import read_table
from pipeline.project.errors import DataError, one_line
from pipeline.project.params import EvaluationSet
from pipeline.project.paths import BEHAVIOUR, SPLIT_TABLES

MINIMUM_FUNCTIONALITY, INVARIANCE, DIRECTIONAL = "minimum functionality", "invariance", "directional expectation"
ADDED_SENTENCE = "added sentence"
LONGEST_WORDS = 300
"""Words of the longest review that is perturbed: a short one shows as much, in less time."""
DIRECTIONS = ("lower", "higher", "not lower", "not higher")
TOLERANCE = 0.1
"""How far a probability may move to the wrong side (CheckList's own tests allow as much), and must to the right one."""
_SHOWN = 3
_DRAWN = 8
"""So many fillings are drawn for each that is wanted; some have the same word twice."""
_SLOT = re.compile(r"\{(a:)?([a-z_]+)(\d?)\}")
_BRACES = re.compile(r"[{}]")
Scored = Callable[[Sequence[str]], NDArray[np.float64]]
"""Gives texts their probability of positive, <float64>[texts]."""
_Templates = Annotated[list[str | tuple[str, str]], Field(min_length=1)]


class Test(BaseModel):
    """One behavioural test, as it stands in a file. It has `templates`, or a `perturbation` of validation reviews."""

    __test__ = False  # for pytest
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["minimum functionality", "invariance", "directional expectation"]
    expect: Literal["positive", "negative", "lower", "higher", "not lower", "not higher"] | None = None
    templates: _Templates | None = None
    vary: str | None = None
    perturbation: str | None = None
    sentences: list[str] | None = None
    cases: int = Field(50, ge=1, le=300)

    @model_validator(mode="after")
    def _fits_together(self) -> "Test":
        expected = {MINIMUM_FUNCTIONALITY: ("positive", "negative"), DIRECTIONAL: DIRECTIONS}
        if self.expect not in expected.get(self.kind, (None,)):
            one_of = " or ".join(expected.get(self.kind, ("none",)))
            raise ValueError(f"expect of a test of {self.kind} is {one_of}, found {self.expect}")
        if (self.templates is None) == (self.perturbation is None):
            raise ValueError("it must have either templates or a perturbation")
        if self.perturbation is not None and self.perturbation not in {*PERTURBATIONS, ADDED_SENTENCE}:
            known = ", ".join((*PERTURBATIONS, ADDED_SENTENCE))
            raise ValueError(f"there is no perturbation {self.perturbation!r}; there are {known}")
        if self.perturbation is not None and self.kind == MINIMUM_FUNCTIONALITY:
            raise ValueError("a perturbation is for invariance or a directional expectation")
        if (self.perturbation == ADDED_SENTENCE) != (self.sentences is not None):
            raise ValueError(f"sentences belong to the perturbation {ADDED_SENTENCE!r}, and it needs them")
        pairs = [isinstance(template, tuple) for template in self.templates or ()]
        if self.vary is not None and (self.kind != INVARIANCE or any(pairs)):
            raise ValueError("vary is for invariance, in templates of one text")
        if self.templates and self.kind != MINIMUM_FUNCTIONALITY and self.vary is None and not all(pairs):
            raise ValueError("each template must be a pair of texts, before and after the change")
        if self.kind == MINIMUM_FUNCTIONALITY and any(pairs):
            raise ValueError("a template of a minimum functionality test is one text")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    capability: str | None = None
    about: str = ""
    tests: list[Test] = []
    lexicons: dict[str, Annotated[list[str], Field(min_length=2)]] = {}


@dataclass(frozen=True)
class Case:
    """The texts that one answer is looked at of: one text, the two of a change, or all fillings of what varies."""

    test: int  # its place among the suite's tests
    template: int  # cases of one template are alike
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """All tests of a folder: capability, what it is about, and its tests, in the order of the files' names."""

    capabilities: Mapping[str, str]
    tests: Sequence[tuple[str, Test]]  # capability, test
    lexicons: Mapping[str, Mapping[str, Sequence[str]]]  # by capability

    def cases(self, reviews: Sequence[str], seed: int) -> list[Case]:
        """Makes the cases of all tests, the same for the same seed, files and reviews.

        Args:
            reviews: validation reviews, some of which are perturbed.
        """
        short = [text for text in reviews if len(text.split()) <= LONGEST_WORDS]
        return [
            case
            for number, (capability, test) in enumerate(self.tests)
            for case in _cases(
                number, test, self.lexicons[capability], short, Random(f"{seed} {capability} {test.name}")
            )
        ]


def report(model: str, scored: Scored, seed: int, sets: Mapping[str, EvaluationSet]) -> dict[str, Any]:
    """Runs the project's behavioural tests, made with this seed, on a candidate, and measures it on evaluation sets;
    see `measure`, and `evaluation_sets.report` for what stands under that name.

    Raises:
        DataError: a file of tests is none, an evaluation set cannot be read, or there are no reviews.
    """
    suite = read_suite(BEHAVIOUR)
    found = measure(suite, suite.cases(_texts("validation"), seed), scored)
    known = {key(text) for text in _texts("train")} if sets else set()
    return found | {"evaluation_sets": evaluation_sets.report(sets, scored, known, read_band(model))}


def _texts(split: str) -> list[str]:
    return read_table(SPLIT_TABLES / f"{split}.parquet", ("text",))["text"].tolist()


def read_suite(folder: Path) -> Suite:
    """Reads the tests in the YAML files of `folder`.

    Raises:
        DataError: a file is none of tests, the message names file, test and slot; or there is no test.
    """
    files = {file: _read(file) for file in sorted(folder.glob("*.yaml"))}
    shared = {
        name: words for found in files.values() if found.capability is None for name, words in found.lexicons.items()
    }
    capabilities: dict[str, str] = {}
    tests: list[tuple[str, Test]] = []
    lexicons: dict[str, dict[str, list[str]]] = {}
    for file, found in files.items():
        if found.capability is None:
            continue
        capabilities.setdefault(found.capability, found.about)
        lexicons.setdefault(found.capability, dict(shared)).update(found.lexicons)
        for test in found.tests:
            if (found.capability, test.name) in [(capability, other.name) for capability, other in tests]:
                raise DataError(f"{file}: there are two tests {test.name!r} of {found.capability}")
            _require_slots(file, test, lexicons[found.capability])
            tests.append((found.capability, test))
    if not tests:
        raise DataError(f"{folder}/ holds no behavioural tests; put its files back with git")
    return Suite(capabilities, tests, lexicons)


def _read(file: Path) -> _File:
    try:
        found = _File.model_validate(YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise DataError(f"{file} cannot be read: {one_line(error)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{file}: {where}: {first['msg'].removeprefix('Value error, ')}{_name(first)}") from None
    if found.tests and found.capability is None:
        raise DataError(f"{file}: tests need a capability; only a file of lexicons has none")
    return found


def _name(error: Mapping[str, Any]) -> str:
    given = error.get("input")
    return f" (in the test {given['name']!r})" if isinstance(given, dict) and "name" in given else ""


def _require_slots(file: Path, test: Test, lexicons: Mapping[str, Sequence[str]]) -> None:
    for template in test.templates or ():
        texts = (template,) if isinstance(template, str) else template
        slots = {found[2] for text in texts for found in _SLOT.finditer(text)}
        for slot in slots:
            if slot not in lexicons:
                raise DataError(f"{file}: test {test.name!r}: the slot {{{slot}}} has no lexicon")
        if any(_BRACES.search(_SLOT.sub("", text)) for text in texts):
            raise DataError(f"{file}: test {test.name!r}: {texts[0]!r} has a brace that belongs to no slot")
        if test.vary is not None and test.vary not in slots:
            raise DataError(f"{file}: test {test.name!r}: {texts[0]!r} has no slot {{{test.vary}}}, which varies")


def _cases(
    number: int, test: Test, lexicons: Mapping[str, Sequence[str]], reviews: Sequence[str], rng: Random
) -> Iterator[Case]:
    if test.templates is None:
        yield from _perturbed(number, test, reviews, rng)
        return
    remaining = test.cases
    for place, template in enumerate(test.templates):
        texts = (template,) if isinstance(template, str) else template
        slots = sorted({found[2] + found[3] for text in texts for found in _SLOT.finditer(text)} - {test.vary})
        choices = [lexicons[slot.rstrip("0123456789")] for slot in slots]
        share = -(-remaining // (len(test.templates) - place))
        count = prod(map(len, choices))
        fillings = (_filling(index, slots, choices) for index in rng.sample(range(count), min(_DRAWN * share, count)))
        # Two slots of one lexicon are two words.
        for filling in islice((one for one in fillings if len(set(one.values())) == len(one)), share):
            varied = [filling | {test.vary: word} for word in lexicons[test.vary]] if test.vary else [filling]
            yield Case(number, place, tuple(_filled(text, filled) for filled in varied for text in texts))
            remaining -= 1


def _filling(index: int, slots: Sequence[str], choices: Sequence[Sequence[str]]) -> dict[str, str]:
    """Returns filling number `index` of all that there are."""
    filling = {}
    for slot, words in zip(slots, choices, strict=True):
        index, word = divmod(index, len(words))
        filling[slot] = words[word]
    return filling


def _filled(template: str, filling: Mapping[str, str]) -> str:
    def word(slot: re.Match[str]) -> str:
        chosen = filling[slot[2] + slot[3]]
        article = ("an " if chosen[0].lower() in "aeiou" else "a ") if slot[1] else ""
        return article + chosen

    text = _SLOT.sub(word, template)
    return text[0].upper() + text[1:]


def _perturbed(number: int, test: Test, reviews: Sequence[str], rng: Random) -> Iterator[Case]:
    made = 0
    for place in rng.sample(range(len(reviews)), len(reviews)):
        if made == test.cases:
            return
        text = reviews[place]
        if test.sentences:
            changed: str | None = f"{text} {rng.choice(test.sentences)}"
        else:
            changed = PERTURBATIONS[str(test.perturbation)](text, rng)
        if changed is not None and changed != text:
            made += 1
            yield Case(number, place, (text, changed))


def measure(
    suite: Suite, cases: Sequence[Case], scored: Callable[[Sequence[str]], NDArray[np.float64]]
) -> dict[str, Any]:
    """Returns what a classifier makes of the cases; `scored` gives the probability of positive of each of some texts.

    Returns:
        `tests`, each with its capability, name, kind, what is expected, `cases`, `failures`, `failure_rate` with its
        95% `interval` (Wilson 1927), under invariance the `mean_span` of the probabilities of a case, `by_template`
        ([cases, failures] each), and `examples` of failures, the worst first; and `capabilities`, by name the mean
        `failure_rate` of its tests and the mean `mean_span` of those that have one; and `about`, what each is about.
    """
    texts = texts_of(cases)
    probability = dict(zip(texts, scored(texts).tolist(), strict=True))
    tests = []
    for number, of_test in groupby(cases, key=lambda case: case.test):
        capability, test = suite.tests[number]
        judged = [_Judged(test, case, [probability[text] for text in case.texts]) for case in of_test]
        tests.append({"capability": capability, **_summary(test, judged)})
    capabilities = {}
    for capability in suite.capabilities:
        of_capability = [test for test in tests if test["capability"] == capability]
        spans = [test["mean_span"] for test in of_capability if "mean_span" in test]
        capabilities[capability] = {
            "failure_rate": float(np.mean([test["failure_rate"] for test in of_capability])),
            **({"mean_span": float(np.mean(spans))} if spans else {}),
        }
    about = [list(one) for one in suite.capabilities.items()]
    return {"texts": len(texts), "capabilities": capabilities, "about": about, "tests": tests}


def texts_of(cases: Sequence[Case]) -> list[str]:
    """Returns the texts of the cases, each once."""
    return list(dict.fromkeys(text for case in cases for text in case.texts))


@dataclass(frozen=True)
class _Judged:
    """A case, the probability of each of its texts, and how bad a failure it is."""

    test: Test
    case: Case
    probability: Sequence[float]

    @property
    def span(self) -> float:
        return max(self.probability) - min(self.probability)

    @cached_property
    def badness(self) -> float:
        """Above 0 for a failure: how far the answer is from one that would pass, or how far apart the answers are."""
        first, last = self.probability[0], self.probability[-1]
        if self.test.kind == INVARIANCE:
            return self.span if len({probability > 0.5 for probability in self.probability}) > 1 else 0.0
        if self.test.kind == MINIMUM_FUNCTIONALITY:
            return 0.0 if (first > 0.5) == (self.test.expect == "positive") else abs(first - 0.5) + 1e-9
        risen = last - first
        short = {"lower": risen + TOLERANCE, "higher": TOLERANCE - risen}.get(str(self.test.expect))
        if short is None:
            short = (risen if self.test.expect == "not higher" else -risen) - TOLERANCE
        return max(short, 0.0)


def _summary(test: Test, judged: Sequence[_Judged]) -> dict[str, Any]:
    failed = sorted((one for one in judged if one.badness > 0), key=lambda one: -one.badness)
    by_template: dict[int, list[int]] = {}
    for one in judged:
        counts = by_template.setdefault(one.case.template, [0, 0])
        counts[0] += 1
        counts[1] += one.badness > 0
    return {
        "test": test.name,
        "kind": test.kind,
        "expect": test.expect,
        "cases": len(judged),
        "failures": len(failed),
        "failure_rate": len(failed) / len(judged),
        "interval": wilson_interval(len(failed), len(judged)),
        **({"mean_span": float(np.mean([one.span for one in judged]))} if test.kind == INVARIANCE else {}),
        "by_template": list(by_template.values()),
        "examples": [
            {"texts": list(one.case.texts), "probability": [round(value, 4) for value in one.probability]}
            for one in failed[:_SHOWN]
        ],
    }
