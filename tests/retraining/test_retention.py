"""What scheduled runs leave behind goes when its time is over, and nothing else does."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import FAILING_GIT

from pipeline.project import atomic, checkouts, paths
from pipeline.project.errors import PipelineError
from pipeline.project.params import RetentionParams, load_params
from pipeline.registry import champion, versions
from pipeline.registry.verification import history_problems
from pipeline.retraining import conclusion, retention
from pipeline.retraining.records import PARENT
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARAMS = RetentionParams(records=10, days=180, commits=20)


@pytest.fixture
def client(project: Path) -> "Iterator[MlflowClient]":
    runs.connect.cache_clear()
    yield runs.connect()
    runs.connect.cache_clear()


def trained(client: "MlflowClient", dataset: str = "sample", **tags: str) -> tuple[str, Path]:
    """Makes the run of a training with a logged model; returns its id and the model's folder."""
    with runs.training_run("tiny", None, {"dataset": dataset, **tags}, {}) as run_id:
        client.log_text(run_id, "curve", "train/history.csv")
    model = client.create_logged_model(runs.experiment_id(client), source_run_id=run_id)
    folder = Path(model.artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "model.keras").write_bytes(b"weights")
    return run_id, folder


def test_only_old_runs_of_the_job_on_this_data_set_go_and_their_files_with_them(
    client: "MlflowClient", project: Path
) -> None:
    scheduled = {PARENT: "0" * 32}
    (old, old_model), (shown, shown_model) = trained(client, **scheduled), trained(client, **scheduled)
    (other, other_model), (manual, _) = trained(client, "imdb_reviews", **scheduled), trained(client)
    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute("update runs set start_time = start_time - 200 * 86400000")
    young, _ = trained(client, **scheduled)
    report = paths.run_file("tiny")
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"run_id": shown}))
    somebodys = client.create_experiment("somebody's")
    client.delete_experiment(somebodys)
    (trash,) = versions.logged_models(client, manual)
    client.delete_logged_model(trash.model_id)

    found = retention.plan(PARAMS, "sample", [])
    assert found.runs == (old,)
    retention.apply(found, "sample")

    assert runs.find_run(client, old) is None and not old_model.exists()
    assert not [file for file in (project / "mlartifacts" / old).rglob("*") if file.is_file()]
    assert client.get_run(old).info.lifecycle_stage == "deleted"  # in the trash: `mlflow gc` purges it
    for run_id in (shown, other, manual, young):
        assert runs.find_run(client, run_id) is not None
    assert shown_model.exists() and other_model.exists()
    assert client.get_experiment(somebodys).lifecycle_stage == "deleted"  # in the trash, not gone
    with sqlite3.connect(project / "mlflow.db") as database:
        left = database.execute("select count(*) from logged_models where model_id = ?", (trash.model_id,)).fetchone()
    assert left == (1,)
    assert not retention.plan(PARAMS, "sample", [])


def test_the_runs_of_what_is_fitted_in_one_go_are_a_trainings_too(client: "MlflowClient", project: Path) -> None:
    for number, model in enumerate(("single", "ngrams", "blend", "somebody's")):
        atomic.write_json(paths.run_file(model), {"run_id": str(number) * 32})
    before = conclusion.before_training(load_params())["models_before"]
    assert before == {"single": "0" * 32, "ngrams": "1" * 32, "blend": "2" * 32}


def test_versions_go_that_were_never_promoted_and_only_where_decisions_and_aliases_verify(
    client: "MlflowClient", project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = versions.registered_name("sample")
    client.create_registered_model(name)
    for _ in range(3):
        run_id, _ = trained(client, **{PARENT: "0" * 32})
        client.create_model_version(name, f"runs:/{run_id}/train", run_id)
    reported, _ = trained(client, **{PARENT: "0" * 32})
    client.create_model_version(name, f"runs:/{reported}/train", reported, tags={versions.WEIGHTS: "a" * 64})
    training = paths.train_reports("tiny") / "training.json"
    training.parent.mkdir(parents=True)
    training.write_text(json.dumps({"weights_sha256": "a" * 64}))
    with champion.opened(name) as registry:
        for number in "12":
            registry.decide(lambda number=number: champion.Choice("promoted", number, "because"))
    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute("update runs set start_time = start_time - 200 * 86400000")

    client.set_registered_model_alias(name, "champion", "1")
    assert not retention.plan(PARAMS, "sample", []) and "points at version 1" in capsys.readouterr().out
    client.set_registered_model_alias(name, "champion", "2")
    tag = client.get_model_version(f"{name}-decisions", "1").tags["entry.0000"]
    client.set_model_version_tag(f"{name}-decisions", "1", "entry.0000", tag.replace("because", "for"))
    assert not retention.plan(PARAMS, "sample", []) and "decision 1 was edited" in capsys.readouterr().out
    client.set_model_version_tag(f"{name}-decisions", "1", "entry.0000", tag)

    found = retention.plan(PARAMS, "sample", [])
    assert found.versions == ("3",) and len(found.runs) == 1
    retention.apply(found, "sample")
    assert list(versions.all_versions(client, name)) == ["1", "2", "4"]
    assert len(versions.all_versions(client, f"{name}-decisions")) == 2
    assert not list(history_problems(client, name))


@pytest.fixture
def two_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project, the sub-folder of a larger repository, whose two commits track other data, and a cached object
    that no commit uses."""
    folder = tmp_path / "repository" / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    (folder / "params.yaml").touch()
    checkouts.git("-C", "..", "init", "--quiet")
    checkouts.dvc("init", "--quiet", "--subdir")
    for content in ("unused", "first", "second"):
        (folder / "data.txt").write_text(content)
        checkouts.dvc("add", "--quiet", "data.txt")
        if content != "unused":
            checkouts.git("add", ".")
            checkouts.git("commit", "--quiet", "--message", content)
    return folder


def test_of_the_cache_only_what_no_commit_uses_goes(two_commits: Path) -> None:
    assert retention.collect_cache(PARAMS, dry=True) == 1
    assert retention.collect_cache(PARAMS) == 1
    checkouts.git("checkout", "--quiet", "HEAD~1")
    checkouts.dvc("checkout", "--quiet")
    assert (two_commits / "data.txt").read_text() == "first"


@pytest.mark.parametrize(("variable", "value", "reason"), FAILING_GIT)
def test_where_git_fails_nothing_is_dropped_from_the_cache(
    two_commits: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    cached = sorted(two_commits.glob(".dvc/cache/files/*/*/*"))
    assert len(cached) == 3
    monkeypatch.setenv(variable, value)
    with pytest.raises(PipelineError, match=reason):
        retention.collect_cache(PARAMS)
    assert sorted(two_commits.glob(".dvc/cache/files/*/*/*")) == cached
