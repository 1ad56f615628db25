"""What the MLflow store holds of a training is enough to tell runs apart, and to know what became of each."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from tracked_runs import committed, evaluation, history, track_evaluation, track_training

from pipeline.project import provenance
from pipeline.project.errors import PipelineError
from pipeline.project.paths import train_reports
from pipeline.tracking import fitted_runs, restoration, run_colours, runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def note(client: "MlflowClient", run_id: str) -> str:
    return client.get_run(run_id).data.tags["mlflow.note.content"]


def teacher(model: str) -> str:
    return str(committed(train_reports(model) / "training.json")["params"]["learns_from"])


def found_runs(client: "MlflowClient", condition: str = "") -> "list[Run]":
    return list(client.search_runs([runs.experiment_id(client)], condition))


def interrupted_training(client: "MlflowClient") -> "Run":
    with (
        pytest.raises(PipelineError, match="goes on from its last epoch"),
        runs.training_run("single", None, {"model": "single", "dataset": "sample"}, {}),
    ):
        (run,) = found_runs(client)
        assert "in training" in run.data.tags["mlflow.note.content"]
        raise KeyboardInterrupt
    return client.get_run(run.info.run_id)


def test_a_runs_description_tells_what_became_of_it(client: "MlflowClient") -> None:
    run = interrupted_training(client)
    assert run.info.status == "KILLED"
    assert "**single** on **sample**: interrupted" in note(client, run.info.run_id)

    commit = {"mlflow.source.git.commit": "0123456789", "git.dirty": "true"}
    record = track_training("stacked", seed=7, **commit)
    text = note(client, record["run_id"])
    curve = history("stacked")
    assert f"validation accuracy {curve['val_accuracy'].iloc[-1]:.4f}, {len(curve)} epochs" in text
    assert "commit `01234567` with uncommitted changes" in text
    assert "on CPU" in text and "seed 7" in text
    assert "test accuracy" not in text

    track_evaluation(record)
    accuracy, (low, high) = evaluation("stacked")["accuracy"], evaluation("stacked")["intervals"]["accuracy"]
    text = note(client, record["run_id"])
    assert f"test accuracy **{accuracy:.4f}**, 95% interval {low:.4f} to {high:.4f}" in text


def test_a_runs_name_says_model_and_time_or_dvc_experiment(client: "MlflowClient") -> None:
    record = track_training("single")
    begun = datetime.fromisoformat(record["begun"]).astimezone()
    assert client.get_run(record["run_id"]).info.run_name == f"single {begun:%m-%d %H:%M}"
    of_experiment = track_training("single", **{"dvc.experiment": "wider"})
    assert client.get_run(of_experiment["run_id"]).info.run_name == "single wider"


def test_the_runs_of_a_model_have_one_colour_that_no_other_model_has(client: "MlflowClient", project: Path) -> None:
    for experiment in ("narrow", "wide"):
        for model in ("single", "stacked"):
            track_training(model, **{"dvc.experiment": experiment})
    with fitted_runs.fitting("ngrams", "sample", {"seed": 7}):
        pass
    job = client.create_run(runs.experiment_id(client), tags={runs.KIND: "retrain"}).info.run_id
    by_model: dict[str, set[str]] = {}
    for run in runs.trainings(client):
        by_model.setdefault(run.data.tags["model"], set()).add(run.data.tags[run_colours.TAG])
    assert list(by_model) == ["single", "stacked", "ngrams"]
    assert list(by_model.values()) == [{colour} for colour in run_colours.COLOURS[:3]]
    assert run_colours.TAG not in client.get_run(job).data.tags


def test_the_machines_metrics_are_logged_where_the_environment_asks(
    client: "MlflowClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged() -> bool:
        with fitted_runs.fitting("ngrams", "sample", {"seed": 7}) as run:
            monitor = mlflow.tracking.fluent.run_id_to_system_metrics_monitor
            return run.run_id in monitor

    assert not logged()
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    assert logged()


def test_a_run_that_is_no_training_is_none_among_the_trainings(client: "MlflowClient") -> None:
    training = track_training("single")["run_id"]
    job = client.create_run(runs.experiment_id(client), run_name="retrain 11-23", tags={runs.KIND: "retrain"})
    client.set_terminated(job.info.run_id)
    statuses = {run.info.run_id: run.info.status for run in found_runs(client)}
    assert statuses == {job.info.run_id: "FINISHED", training: "FINISHED"}
    assert [run.info.run_id for run in found_runs(client, "tags.kind = 'training'")] == [training]


def test_a_run_whose_process_was_killed_is_closed_and_described_where_it_is_a_training(client: "MlflowClient") -> None:
    with runs.training_run("single", None, {"model": "single", "dataset": "sample"}, {}) as training:
        pass
    job = client.create_run(runs.experiment_id(client), tags={runs.KIND: "retrain"}).info.run_id
    for run_id in (training, job):
        for name, value in provenance.process_tags().items():
            client.set_tag(run_id, name, "0.0" if name == "process.started" else value)  # another one with its number
        client.update_run(run_id, status="RUNNING")
    runs.connect.cache_clear()
    runs.connect_to_read()
    assert {run.info.status for run in found_runs(client)} == {"RUNNING"}  # a read is a read
    runs.connect()
    assert {run.info.status for run in found_runs(client)} == {"KILLED"}
    assert "**single** on **sample**: interrupted" in note(client, training)
    assert "mlflow.note.content" not in client.get_run(job).data.tags


def test_a_training_shows_its_data_sets_curves_and_slices(client: "MlflowClient", project: Path) -> None:
    lock = {"path": str(runs.inputs(teacher("single"))["training"]), "md5": "0123abcd.dir"}
    (project / "dvc.lock").write_text(json.dumps({"stages": {"teach": {"outs": [lock]}}}))
    record = track_training("single")
    track_evaluation(record)
    track_evaluation(record)  # a stage that runs twice leaves one table

    linked = client.get_run(record["run_id"]).inputs.dataset_inputs
    assert {(item.dataset.name, item.dataset.digest) for item in linked} == {
        ("sample-training", "0123abcd.dir"),
        ("sample-validation", "untracked"),
    }
    curve = client.get_metric_history(record["run_id"], "val/accuracy")
    assert [(point.step, point.value) for point in curve] == [
        (epoch["epoch"], epoch["val_accuracy"]) for epoch in history("single").to_dict("records")
    ]
    table: dict[str, Any] = json.loads(
        Path(client.download_artifacts(record["run_id"], "tables/slices.json")).read_text()
    )
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert rows == evaluation("single")["slices"]


def test_a_run_made_anew_from_its_outputs_tells_the_same(client: "MlflowClient") -> None:
    md5 = {f"md5.{path}": f"{context}.dir" for context, path in runs.inputs(teacher("stacked")).items()}
    record = track_training("stacked", **md5)
    track_evaluation(record)
    original = client.get_run(record["run_id"])
    client.delete_run(record["run_id"])

    run_id, _ = restoration.recorded_run("stacked")

    restored = client.get_run(run_id)
    assert restored.data.tags["restored_from"] == record["run_id"]
    assert restored.info.run_name == f"{original.info.run_name} (restored)"
    assert abs(restored.info.start_time - original.info.start_time) < 1000
    assert restored.data.metrics == original.data.metrics
    for curve in ("val/accuracy", "val/loss", "epoch_seconds"):
        restored_curve, original_curve = (
            [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, curve)]
            for run in (restored, original)
        )
        assert restored_curve == original_curve
    assert restored.data.tags[runs.WEIGHTS] == original.data.tags[runs.WEIGHTS] == record["weights_sha256"]
    assert restored.data.params == original.data.params
    assert note(client, run_id) == note(client, record["run_id"])
    assert {item.dataset.digest for item in restored.inputs.dataset_inputs} == {"training.dir", "validation.dir"}


def test_a_run_of_a_fitted_candidate_is_made_anew_from_its_outputs(client: "MlflowClient") -> None:
    params = {"seed": 7, "max_ngram": 3, "regularization": 0.3}
    with fitted_runs.fitting("ngrams", "sample", params) as run:
        run.seconds = 1.5
        measured = {"accuracy": 0.875, "loss": 0.25}
        run.end(weights_sha256="a" * 64, parameters=1234, validation=measured)
    original = client.get_run(run.run_id)
    assert original.data.metrics == {
        "parameters": 1234,
        "val_accuracy": 0.875,
        "val_loss": 0.25,
        "training_seconds": 1.5,
    }
    assert "validation accuracy 0.8750" in note(client, run.run_id) and "epoch" not in note(client, run.run_id)
    client.delete_run(run.run_id)

    run_id, record = restoration.recorded_run("ngrams")

    restored = client.get_run(run_id)
    assert record["run_id"] == restored.data.tags["restored_from"] == run.run_id != run_id
    assert restored.data.metrics == original.data.metrics and restored.data.params == original.data.params
    for name in (runs.WEIGHTS, runs.KIND, "model", "dataset", "device", provenance.CPU):
        assert restored.data.tags[name] == original.data.tags[name]
    assert restored.info.end_time - restored.info.start_time == 1500
    assert note(client, run_id) == note(client, run.run_id)
    assert client.get_metric_history(run_id, "val/accuracy") == []
    for one in (run.run_id, run_id):
        assert [file.path for file in client.list_artifacts(one, "train")] == ["train/training.json"]
    assert restoration.recorded_run("ngrams")[0] == run_id
