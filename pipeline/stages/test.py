"""Stage `test`: `python -m pipeline.stages.test <candidate>` measures one candidate on the test split, which no other
stage scores: a look at it is counted and paid for (`registry.gate`)."""

from pipeline.evaluation import candidates, selective
from pipeline.evaluation.corrections import corrected
from pipeline.project.atomic import read_table, write_json, write_table
from pipeline.project.params import candidate_argument, load_params
from pipeline.project.paths import (
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    VOCABULARY,
    candidate_folder,
    metrics_file,
    predictions_file,
)
from pipeline.project.run_command import run_command


def main() -> None:
    """Scores the test reviews with the candidate that the command line names, and writes predictions and metrics."""
    params = load_params()
    name = candidate_argument(params)
    test = read_table(SPLIT_TABLES / "test.parquet", REVIEW_COLUMNS)
    scorer = candidates.load(name)
    scores = scorer.score(test["text"])
    predictions = candidates.predicted(test, scores.logit, candidate_folder(name) / VOCABULARY.name)
    write_table(predictions_file(name), predictions)
    sure = selective.report(
        predictions["label"].to_numpy(), scores.probability, scores.sure, predictions["length"].to_numpy()
    )
    measured = candidates.measure(predictions, params.evaluate, params.seed) | {"sure": sure}
    write_json(metrics_file(name), measured | corrected(predictions))


if __name__ == "__main__":
    run_command(main)
