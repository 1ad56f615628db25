"""Stage `blend`: makes a candidate of a network and the n-grams together, weighted on validation."""

import hashlib
import time

from pipeline.evaluation import candidates
from pipeline.project.params import load_params
from pipeline.project.paths import BLEND, NGRAMS
from pipeline.project.run_command import run_command
from pipeline.project.training_record import read_training
from pipeline.served_model.scorer import PARTS
from pipeline.tracking import fitted_runs


def main() -> None:
    """Fits the weights, and writes the candidate, its metrics on held-out reviews, and the file of its run."""
    params = load_params()
    of = (params.blend, NGRAMS)
    trained = [read_training(name) for name in of]
    served = {key: value for one in reversed(trained) for key, value in one["params"].items()}
    with fitted_runs.fitting(BLEND, params.dataset, served | {"blend": params.blend}) as run:
        started = time.perf_counter()
        parts = {part: candidates.read_part(name, part) for name, part in zip(of, PARTS, strict=True)}
        measured = candidates.conclude(BLEND, parts, params)
        run.seconds = time.perf_counter() - started
        weights = "\n".join(one["weights_sha256"] for one in trained)
        run.end(
            weights_sha256=hashlib.sha256(weights.encode()).hexdigest(),
            parameters=sum(one["metrics"]["parameters"] for one in trained),
            validation=measured["validation"],
        )


if __name__ == "__main__":
    run_command(main)
