"""Stage `behaviour_ngrams`: the behavioural tests on the n-gram classifier."""

from pipeline.evaluation.behaviour import report
from pipeline.evaluation.metrics import probability
from pipeline.ngrams.classifier import NgramClassifier
from pipeline.project.atomic import write_json
from pipeline.project.params import load_params
from pipeline.project.paths import NGRAMS, NGRAMS_FILE, behaviour_file
from pipeline.project.run_command import run_command


def main() -> None:
    """Runs the tests on the n-grams, and writes what they found."""
    classifier = NgramClassifier.load(NGRAMS_FILE)
    write_json(behaviour_file(NGRAMS), report(lambda texts: probability(classifier.logits(texts)), load_params().seed))


if __name__ == "__main__":
    run_command(main)
