"""What the gate measures challenger and champion on beside test and fresh reviews: behavioural tests, and evaluation
sets with a guard."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.evaluation import behaviour, evaluation_sets
from pipeline.evaluation.behaviour import Case, Suite
from pipeline.project.params import Params
from pipeline.project.paths import BEHAVIOUR
from pipeline.registry import evidence

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Yardsticks:
    """The behavioural tests with their cases and texts (id, text), and by name the evaluation sets with a guard (id,
    text, label) and what each guard allows."""

    suite: Suite
    cases: Sequence[Case]
    texts: "pd.DataFrame"
    guarded: "Mapping[str, tuple[pd.DataFrame, float]]"

    @property
    def tables(self) -> "list[pd.DataFrame]":
        """All tables that a version is scored on."""
        return [self.texts, *(table for table, _ in self.guarded.values())]

    def identity(self) -> dict[str, Any]:
        """Returns the SHA-256 of the tests with their texts, and of each guarded set."""
        tests = [[capability, test.model_dump()] for capability, test in self.suite.tests]
        cases = [[case.test, case.template, case.texts] for case in self.cases]
        content = json.dumps([tests, cases]).encode("utf-8", "surrogatepass")
        return {
            "behaviour_sha256": hashlib.sha256(content).hexdigest(),
            "guards_sha256": {name: evidence.reviews_digest(table) for name, (table, _) in self.guarded.items()},
        }

    def behaviour_of(self, scores: "pd.DataFrame") -> dict[str, Any]:
        """Returns what `behaviour.measure` says of a model that gave `texts` these probabilities (id, probability)."""
        probability = self.texts.merge(scores, on="id").set_index("text")["probability"]
        return behaviour.measure(self.suite, self.cases, lambda texts: probability[list(texts)].to_numpy())


def read(params: Params, validation: Sequence[str]) -> Yardsticks:
    """Reads the behavioural tests, made with the seed and from texts of the validation split, and the guarded sets.

    Raises:
        DataError: a file of tests is none, or an evaluation set cannot be read.
    """
    import pandas as pd

    suite = behaviour.read_suite(BEHAVIOUR)
    cases = suite.cases(validation, params.seed)
    texts = behaviour.texts_of(cases)
    guarded = {}
    for name, entry in params.evaluation_sets.items():
        if entry.guard is not None:
            found = evaluation_sets.read_entry(name, entry)
            ids = [f"{name}/{row}" for row in range(len(found.text))]
            guarded[name] = (pd.DataFrame({"id": ids, "text": found.text, "label": found.label}), entry.guard)
    table = pd.DataFrame({"id": [f"behaviour/{row}" for row in range(len(texts))], "text": texts})
    return Yardsticks(suite, cases, table, guarded)
