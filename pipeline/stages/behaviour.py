"""Stage `behaviour`: `python -m pipeline.stages.behaviour <candidate>` runs the behavioural tests on one candidate."""

from pipeline.evaluation import behaviour, candidates
from pipeline.project.atomic import write_json
from pipeline.project.params import candidate_argument, load_params
from pipeline.project.paths import behaviour_file
from pipeline.project.run_command import run_command


def main() -> None:
    """Runs the tests on the candidate that the command line names, and writes what they found."""
    params = load_params()
    name = candidate_argument(params)
    scorer = candidates.load(name)
    found = behaviour.report(name, lambda texts: scorer.score(texts).probability, params.seed, params.evaluation_sets)
    write_json(behaviour_file(name), found)


if __name__ == "__main__":
    run_command(main)
