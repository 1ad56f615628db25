"""Stage `behaviour_ngrams`: the behavioural tests on the n-gram classifier."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import behaviour
from pipeline.evaluation.metrics import probability
from pipeline.ngrams.classifier import load_ngrams
from pipeline.project.atomic import write_json
from pipeline.project.params import load_params
from pipeline.project.paths import NGRAMS, NGRAMS_FILE, behaviour_file
from pipeline.project.run_command import run_command


def main() -> None:
    """Runs the tests on the n-grams, and writes what they found."""
    params, classifier = load_params(), load_ngrams(NGRAMS_FILE)

    def scored(texts: Sequence[str]) -> NDArray[np.float64]:
        return probability(classifier.logits(texts))

    write_json(behaviour_file(NGRAMS), behaviour.report(NGRAMS, scored, params.seed, params.evaluation_sets))


if __name__ == "__main__":
    run_command(main)
