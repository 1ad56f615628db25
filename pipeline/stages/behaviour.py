"""Stage `behaviour`: `python -m pipeline.stages.behaviour <model>` runs the behavioural tests on one trained model."""

from pipeline.evaluation import behaviour, scoring
from pipeline.project.atomic import write_json
from pipeline.project.params import load_params, model_argument
from pipeline.project.paths import behaviour_file, model_file
from pipeline.project.run_command import run_command
from pipeline.text.encoding import load_tokenizer
from pipeline.training import networks


def main() -> None:
    """Runs the tests on the model that the command line names, and writes what they found."""
    params = load_params()
    name = model_argument(params)
    print(f"testing {name} on {networks.prepare_device(seed=params.seed, deterministic=False)}", flush=True)
    logits = networks.scoring(networks.load_model(model_file(name), params.model(name)))
    scored = scoring.probabilities(logits, load_tokenizer(), params.tokenize.max_tokens)
    write_json(behaviour_file(name), behaviour.report(name, scored, params.seed, params.evaluation_sets))


if __name__ == "__main__":
    run_command(main)
