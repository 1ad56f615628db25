"""What evaluation found stands in the MLflow run of the training, in numbers and in pictures."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import reported_project
from conftest import edit_params

from pipeline.project import atomic, paths
from pipeline.project.training_record import read_record
from pipeline.stages import track
from pipeline.tracking import runs


@pytest.fixture
def evaluated(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project that stands where `track stacked` begins, as after a fresh clone: its store has no runs yet."""
    reported_project.write(project, fresh=True)
    edit_params(project, dataset="imdb_reviews")
    monkeypatch.setattr(sys, "argv", ["track.py", "stacked"])
    runs.connect.cache_clear()
    yield project
    runs.connect.cache_clear()


def test_the_stage_logs_metrics_studies_curves_and_pictures_and_notes_the_run(evaluated: Path) -> None:
    track.main()
    track.main()  # a stage that runs twice leaves one run

    client = runs.connect()
    (run,) = client.search_runs([runs.experiment_id(client)])
    assert run.data.tags["restored_from"] == read_record("stacked")["run_id"]
    measured = atomic.read_json(paths.metrics_file("stacked"))
    assert {run.data.metrics[f"{split}/accuracy"] for split in ("validation", "fresh", "test")} == {
        measured["accuracy"]
    }
    assert atomic.read_json(paths.tracked_file("stacked")) == {
        "run_id": run.info.run_id,
        "logged": measured["accuracy"],
    }
    found = atomic.read_json(paths.behaviour_file("stacked"))["capabilities"]["negation"]
    assert run.data.metrics["behaviour/negation/failure_rate"] == found["failure_rate"]
    assert run.data.metrics["test/sure/share"] == measured["sure"]["share"]
    assert run.data.metrics["evaluation_sets/rewritten/sure/accuracy"] == 0.6
    curves = ("roc", "precision_recall", "calibration", "confusion")
    learning = ("learning_accuracy", "learning_loss")
    pictures = (*curves, *learning, "padding_sentences", "padding_flips", "padding_changes")
    studies = ("padding_study", "behaviour", "gates", "metrics")
    expected = [
        *(f"evaluate/{name}.csv" for name in curves),
        *(f"evaluate/{name}.svg" for name in pictures),
        *(f"evaluate/{name}.json" for name in studies),
    ]
    assert sorted(artifact.path for artifact in client.list_artifacts(run.info.run_id, "evaluate")) == sorted(expected)
    logged = Path(client.download_artifacts(run.info.run_id, "evaluate"))
    assert all((logged / f"{name}.svg").read_text().startswith("<svg xmlns=") for name in pictures)
    contexts = ("training", "validation", "test")
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {f"imdb_reviews-{part}" for part in contexts}


def test_of_what_was_fitted_in_one_go_no_learning_and_no_padding_is_shown(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["track.py", "ngrams"])
    track.main()

    client = runs.connect()
    (run,) = client.search_runs([runs.experiment_id(client)])
    assert run.data.tags["restored_from"] == read_record("ngrams")["run_id"]
    assert run.data.metrics["test/accuracy"] == atomic.read_json(paths.metrics_file("ngrams"))["accuracy"]
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"imdb_reviews-test"}
    logged = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "evaluate")}
    curves = ("roc", "precision_recall", "calibration", "confusion")
    pictures = {f"evaluate/{name}.{kind}" for name in curves for kind in ("csv", "svg")}
    assert logged == pictures | {"evaluate/behaviour.json", "evaluate/metrics.json"}
