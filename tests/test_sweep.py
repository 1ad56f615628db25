"""The sweep over seeds reports what its experiments found, as DVC and MLflow both have it."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from tracked_runs import evaluation, track_evaluation, track_training

from pipeline import tracking
from pipeline.errors import DataError, UsageError

sys.path.insert(0, str(ROOT / "scripts"))
import sweep

SEEDS = (42, 43)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def accuracy(model: str, seed: int) -> float:
    return evaluation(model)["accuracy"] + 0.001 * (seed - SEEDS[0])


@pytest.fixture
def swept(project: Path) -> Iterator[Path]:
    """A repository whose two experiments are there, with the outputs and the runs of their trainings."""
    tracking.connect.cache_clear()
    git("init", "--quiet")
    git("add", "params.yaml")
    git("commit", "--quiet", "-m", "params")
    head = git("rev-parse", "HEAD")
    for seed in SEEDS:
        for model in ("single", "stacked"):
            record = track_training(model, seed=seed, **{"dvc.experiment": sweep.name(seed)})
            track_evaluation(record, accuracy=accuracy(model, seed))
        git("add", "reports")
        git("commit", "--quiet", "-m", sweep.name(seed))
        git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{sweep.name(seed)}", "HEAD")
        git("reset", "--quiet", "--hard", head)
    yield project
    tracking.connect.cache_clear()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
    sweep.main()


def test_the_noise_is_mean_and_deviation_over_the_seeds(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--seeds", "2")
    report = json.loads((swept / "reports/noise.json").read_text())
    for model, found in report["models"].items():
        values = [accuracy(model, seed) for seed in SEEDS]
        assert found["test"]["values"] == {str(seed): accuracy(model, seed) for seed in SEEDS}
        assert found["test"]["mean"] == pytest.approx(statistics.mean(values))
        assert found["test"]["deviation"] == pytest.approx(0.001 / 2**0.5)
        low, high = found["test"]["deviation_interval"]
        assert low < found["test"]["deviation"] < high
    difference = evaluation("stacked")["accuracy"] - evaluation("single")["accuracy"]
    assert report["differences"]["stacked - single"]["test"]["mean"] == pytest.approx(difference)
    assert not (swept / ".sweep").exists()  # nothing was missing, nothing was run
    assert f"{accuracy('single', 43):.4f}" in capsys.readouterr().out


def test_figures_on_which_dvc_and_mlflow_disagree_are_refused(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tracking.connect()
    (changed, *_) = client.search_runs(["1"], "tags.dvc.experiment = 'seed-43' and tags.model = 'single'")
    tracking.log_metrics(changed.info.run_id, {"test/accuracy": 0.99})
    with pytest.raises(DataError, match=changed.info.run_id):
        run(monkeypatch, "--seeds", "2")
    assert not (swept / "reports/noise.json").exists()


def test_a_deviation_of_one_seed_is_wrong_usage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least 2"):
        run(monkeypatch, "--seeds", "1")
