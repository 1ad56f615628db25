"""The sweep over seeds reports what its experiments found, as DVC and MLflow both have it."""

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, edit_params

from pipeline.data.sources import SAMPLE
from pipeline.evaluation import candidates
from pipeline.evaluation.metrics import probability
from pipeline.project import atomic
from pipeline.project.errors import DataError, UsageError
from pipeline.project.params import load_params
from pipeline.project.paths import BEHAVIOUR, SPLIT_TABLES, VOCABULARY, candidate_folder, run_file, train_reports
from pipeline.reporting import results
from pipeline.served_model.scorer import NETWORK, Scorer
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.batching import pad
from pipeline.text.vocabulary import build_vocabulary
from pipeline.tracking import runs
from pipeline.training import networks
from pipeline.training.onnx_graph import onnx_graph
from scripts import sweep

SEEDS = (42, 43)
ACCURACY = {"single": 0.871, "stacked": 0.874}
MODELS = tuple(ACCURACY)
WEIGHT = 3.0
"""Of the network in its candidate."""
TEMPLATES = ("{first} plays.", "I saw {first}.")
TESTS = f"""
capability: names
tests:
  - {{name: another name, kind: invariance, vary: first, templates: {list(TEMPLATES)}, cases: 2}}
lexicons:
  first: [Mary, Omar]
"""


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def accuracy(model: str, seed: int) -> float:
    return ACCURACY[model] + 0.001 * (seed - SEEDS[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vocabulary, validation reviews, behavioural tests, and of both seeds networks, `trained/<model>-<seed>.npz`, and
    their candidates, `trained/<model>-<seed>/`."""
    folder = tmp_path_factory.mktemp("trained")
    reviews, params = pd.read_parquet(SAMPLE).head(60), load_params(ROOT / "params.yaml")
    atomic.write_table(folder / SPLIT_TABLES / "validation.parquet", reviews)
    atomic.write_text(folder / BEHAVIOUR / "names.yaml", TESTS)
    tokenizer = SubwordTokenizer(build_vocabulary(reviews["text"], 600))
    (folder / VOCABULARY).parent.mkdir(parents=True)
    tokenizer.save(folder / VOCABULARY)
    for model in MODELS:
        for seed in SEEDS:
            keras.utils.set_random_seed(seed)
            network = networks.build_model(params.model(model), tokenizer.vocabulary_size)
            networks.save_model(folder / f"trained/{model}-{seed}.npz", network, params.model(model))
            graph = onnx_graph(params.model(model), network.get_weights())
            with chdir(folder):  # where the vocabulary is
                files = candidates.served_files({NETWORK: graph}, {NETWORK: WEIGHT}, None, 1024)
            (folder / f"trained/{model}-{seed}").mkdir()
            for name, content in files.items():
                (folder / f"trained/{model}-{seed}" / name).write_bytes(content)
    return folder


def put_candidate(model: str, seed: int) -> None:
    """Puts the candidate of a seed where `evaluate` leaves it."""
    shutil.copytree(f"trained/{model}-{seed}", candidate_folder(model), dirs_exist_ok=True)


def track(model: str, seed: int) -> None:
    """Tracks a training of a seed, and writes of its two files what a sweep reads."""
    metrics = {"val_accuracy": accuracy(model, seed)}
    with runs.training_run(model, None, {"model": model, "dvc.experiment": sweep.name(seed)}, {"seed": seed}) as run_id:
        runs.log_metrics(run_id, metrics)
    atomic.write_json(train_reports(model) / "training.json", {"params": {"seed": seed}, "metrics": metrics})
    atomic.write_json(run_file(model), {"run_id": run_id})


def begin(project: Path, trained: Path, dvc_yaml: str) -> None:
    """Makes the project a repository of Git and DVC with what `trained` holds."""
    runs.connect.cache_clear()
    shutil.copytree(trained, project, dirs_exist_ok=True)
    edit_params(project, gate__behaviour__margins={}, gate__behaviour__max_span__sample={"names": 0.2})
    models = {model: load_params().model(model).model_dump() for model in MODELS}
    edit_params(project, models=models, blend=MODELS[0], candidates=list(MODELS))
    (project / "dvc.yaml").write_text(dvc_yaml)
    (project / ".gitignore").write_text("/.sweep/\n/mlflow.db*\n/mlartifacts/\n")
    git("init", "--quiet")
    dvc("init", "--quiet")


def dvc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def swept(project: Path, trained: Path) -> Iterator[Path]:
    """A repository whose two experiments are there, with the outputs and the runs of their trainings."""
    begin(project, trained, "stages:" + "".join(f"\n  {m}: {{cmd: 'true', outs: [served/{m}]}}" for m in MODELS))
    git("add", "--all")
    git("commit", "--quiet", "-m", "params")
    head = git("rev-parse", "HEAD")
    for seed in SEEDS:
        for model in MODELS:
            put_candidate(model, seed)
        dvc("commit", "--force", "--quiet")
        git("add", "dvc.lock")
        for model in MODELS:
            track(model, seed)
        git("add", "reports")
        git("commit", "--quiet", "-m", sweep.name(seed))
        git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{sweep.name(seed)}", "HEAD")
        git("reset", "--quiet", "--hard", head)
    yield project
    runs.connect.cache_clear()


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
        assert found["validation"]["values"] == {str(seed): accuracy(model, seed) for seed in SEEDS}
        assert found["validation"]["mean"] == pytest.approx(statistics.mean(values))
        assert found["validation"]["deviation"] == pytest.approx(0.001 / 2**0.5)
        low, high = found["validation"]["deviation_interval"]
        assert low < found["validation"]["deviation"] < high
    difference = accuracy("stacked", 42) - accuracy("single", 42)
    assert report["differences"]["stacked - single"]["validation"]["mean"] == pytest.approx(difference)
    assert report["params"] == json.loads(json.dumps(results.swept(load_params(), MODELS)))
    assert not (swept / ".sweep").exists()  # nothing was missing, nothing was run
    assert f"{accuracy('single', 43):.4f}" in capsys.readouterr().out


def test_the_models_of_all_seeds_are_held_against_each_other_in_behaviour(
    swept: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, "--seeds", "2")
    found = json.loads((swept / "reports/noise.json").read_text())["behaviour"]
    texts = {template: [template.format(first=name) for name in ("Mary", "Omar")] for template in TEMPLATES}
    tokenizer, params = SubwordTokenizer.load(VOCABULARY), load_params()
    spans = []
    for model in MODELS:
        failed = {}
        for seed in SEEDS:
            network = networks.load_model(trained / f"trained/{model}-{seed}.npz", params.model(model))
            logits = {
                template: WEIGHT * networks.scoring(network)([pad(tokenizer.encode_batch(both, 1024))])[0]
                for template, both in texts.items()
            }
            failed[str(seed)] = np.mean([len(set(logit > 0)) > 1 for logit in logits.values()])
            spans.append(np.mean([np.ptp(probability(logit)) for logit in logits.values()]))
        assert found["models"][model]["names"]["values"] == failed
    assert found["largest_span"]["names"] == pytest.approx(max(spans), abs=1e-5)
    assert found["pairs"]["pairs"] == 4  # of each model both as challenger of the other
    assert found["pairs"]["margins"] == {"names": params.gate.behaviour.margin}


def test_the_test_reviews_are_scored_where_it_is_asked_for(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = pd.read_parquet(SAMPLE).tail(40)
    atomic.write_table(swept / SPLIT_TABLES / "test.parquet", test)
    run(monkeypatch, "--seeds", "2", "--test")
    report = json.loads((swept / "reports/noise.json").read_text())
    for model in MODELS:
        scorers = {seed: Scorer(swept / f"trained/{model}-{seed}") for seed in SEEDS}
        right = {seed: (one.score(test["text"]).probability > 0.5) == test["label"] for seed, one in scorers.items()}
        assert report["models"][model]["test"]["values"] == {str(seed): one.mean() for seed, one in right.items()}
        assert report["models"][model].keys() == {"validation", "test"}


def test_figures_on_which_dvc_and_mlflow_disagree_are_refused(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = runs.connect()
    (changed, *_) = client.search_runs(["1"], "tags.dvc.experiment = 'seed-43' and tags.model = 'single'")
    runs.log_metrics(changed.info.run_id, {"val_accuracy": 0.99})
    with pytest.raises(DataError, match=changed.info.run_id):
        run(monkeypatch, "--seeds", "2")
    assert not (swept / "reports/noise.json").exists()


def test_a_deviation_of_one_seed_is_wrong_usage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least 2"):
        run(monkeypatch, "--seeds", "1")


DVC_YAML = """
stages:
  evaluate:
    foreach: [single, stacked]
    do:
      cmd: python evaluate.py ${item}
      params: [seed]
      deps: [evaluate.py]
      outs:
        - reports/train/${item}: {cache: false}
        - reports/runs/${item}.json: {cache: false}
        - served/${item}
"""
EVALUATE = f"""
import subprocess, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, {str(ROOT / "tests/scripts")!r}]
from test_sweep import put_candidate, track
from pipeline.project.params import load_params

model, seed = sys.argv[1], load_params().seed
put_candidate(model, seed)
track(model, seed)
person = ["-c", "user.name=A test", "-c", "user.email=test@localhost"]
subprocess.run(["git", "-C", "..", *person, "commit", "--quiet", "--allow-empty", "-m", "meanwhile"], check=True)
"""


@pytest.mark.e2e
def test_seeds_that_are_missing_run_in_a_clone_while_the_checkout_moves_on(
    project: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(project, trained, DVC_YAML)
    (project / "evaluate.py").write_text(EVALUATE)
    git("add", "--all")
    git("commit", "--quiet", "-m", "project")
    head = git("rev-parse", "HEAD")
    run(monkeypatch, "--seeds", "2")
    report = json.loads((project / "reports/noise.json").read_text())
    assert report["git_commit"] == head != git("rev-parse", "HEAD")
    assert sorted(sweep.experiments(head)) == [sweep.name(seed) for seed in SEEDS]
    for model, found in report["models"].items():
        assert found["validation"]["values"] == {str(seed): accuracy(model, seed) for seed in SEEDS}
    runs.connect.cache_clear()


def test_an_experiment_of_another_seed_is_refused(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (sweep.experiments(git("rev-parse", "HEAD"))[sweep.name(seed)] for seed in SEEDS)
    git("update-ref", f"{sweep.refs(git('rev-parse', 'HEAD'))}{sweep.name(SEEDS[1])}", first, second)
    with pytest.raises(DataError, match=f"with seed {SEEDS[0]}, not with {SEEDS[1]}"):
        run(monkeypatch, "--seeds", "2")


def test_params_that_no_commit_holds_are_wrong_usage(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_params(swept, seed=7)
    with pytest.raises(UsageError, match="differs from the commit"):
        run(monkeypatch, "--seeds", "2")
