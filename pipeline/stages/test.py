"""Stage `test`: `python -m pipeline.stages.test <model>` measures one trained model on the test split, which no other
stage scores: a look at it is counted and paid for (`registry.gate`)."""

from pipeline.evaluation import selective
from pipeline.evaluation.corrections import corrected
from pipeline.evaluation.predictions import measure, predict
from pipeline.project.atomic import write_json, write_table
from pipeline.project.params import load_params, model_argument
from pipeline.project.paths import metrics_file, model_file, predictions_file
from pipeline.project.run_command import run_command
from pipeline.training import networks


def main() -> None:
    """Scores the test reviews with the model that the command line names, and writes predictions and metrics."""
    params = load_params()
    name = model_argument(params)
    print(f"testing {name} on {networks.prepare_device(seed=params.seed, deterministic=False)}", flush=True)
    classifier = networks.load_model(model_file(name), params.model(name))
    predictions = predict(networks.scoring(classifier), "test")
    write_table(predictions_file(name), predictions)
    label, probability, length = (predictions[column].to_numpy() for column in ("label", "probability", "length"))
    sure = selective.report(label, probability, selective.is_sure(probability, selective.read_band(name)), length)
    measured = measure(predictions, params.evaluate, params.seed) | {"sure": sure}
    write_json(metrics_file(name), measured | corrected(predictions))


if __name__ == "__main__":
    run_command(main)
