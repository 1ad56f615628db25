"""How much accuracy moves when nothing but the seed changes: `make sweep`, or `python -m scripts.sweep --seeds 5`.

Each seed is a DVC experiment `seed-<n>` of the checked out commit; its trainings are MLflow runs of that name in this
checkout's store. That of params.yaml's own seed trains nothing: its runs are those that stand. They run in `.sweep/`, a
clone that shares this checkout's DVC cache, so the checkout stays as it is and may move on meanwhile.
The seed of params.yaml decides the validation split, the drawn sentences, what the teacher says, the first weights, the
batches and the hidden tokens; so each seed has validation reviews of its own. A sweep that was interrupted goes on when
it is called again: with the next seed, the next stage, and a training with its next epoch; after another commit it
begins anew.

The result is `reports/noise.json`: mean and standard deviation over the seeds of each candidate's accuracy on
validation, and of the candidates' difference at the same seed. MLflow has to hold the same figures as DVC, or the sweep
fails. Beside them stands what the candidates of all seeds make of one and the same behavioural tests, those of this
checkout, and what the gate says in behaviour of each pair of seeds of one candidate: they are equally well trained, so
its margins should let nearly all of them pass.
A sweep does not look at the test split, unless it is told to with `--test`, once everything is chosen.
"""

import argparse
import json
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scipy.stats import chi2

from pipeline.evaluation import behaviour
from pipeline.evaluation.candidates import THRESHOLD
from pipeline.project import checkouts, tables
from pipeline.project.atomic import read_table, write_json
from pipeline.project.checkouts import dvc, git
from pipeline.project.errors import DataError, PipelineError, UsageError
from pipeline.project.params import PARAMS_FILE, Params, load_params
from pipeline.project.paths import (
    BEHAVIOUR,
    LABELLED_POINTER,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    candidate_folder,
    run_file,
    train_reports,
)
from pipeline.project.run_command import run_command
from pipeline.registry import behaviour_gate
from pipeline.registry.behaviour_gate import Report
from pipeline.registry.gate import spent_level
from pipeline.reporting.results import NOISE_REPORT, swept
from pipeline.retraining.retention import SWEEP_CLONE as CLONE
from pipeline.served_model.loading import load_scorer
from pipeline.tracking import runs
from pipeline.tracking.fitted_runs import FITTED

LEVEL = 0.05
Measured = dict[str, dict[int, dict[str, float]]]
"""Candidate → seed → accuracy by split, `validation` and, where it was asked for, `test`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="from that of params.yaml on (default 3)")
    parser.add_argument("--test", action="store_true", help="score the test reviews too: a look at them")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        raise UsageError("--seeds: a deviation takes at least 2")
    if git("status", "--porcelain", "--", str(PARAMS_FILE)):
        raise UsageError(
            f"{PARAMS_FILE} differs from the commit, which is what the seeds are run of; commit or undo it"
        )
    params, head = load_params(), git("rev-parse", "HEAD").strip()
    seeds = range(params.seed, params.seed + arguments.seeds)
    for seed in seeds:
        if name(seed) not in experiments(head):
            run(clone(head), head, seed, params.candidates)
    known = experiments(head)
    found = {seed: known[name(seed)] for seed in seeds}
    measured = {one: {seed: figures(found[seed], one, seed) for seed in seeds} for one in params.candidates}
    test = read_table(SPLIT_TABLES / "test.parquet", REVIEW_COLUMNS) if arguments.test else None
    suite = behaviour.read_suite(BEHAVIOUR)
    cases = suite.cases(read_table(SPLIT_TABLES / "validation.parquet", ("text",))["text"].tolist(), params.seed)
    tested: dict[str, dict[int, Report]] = {one: {} for one in params.candidates}
    for one, seed, scored in loaded(found, params.candidates):
        tested[one][seed] = behaviour.measure(suite, cases, scored)
        if test is not None:
            right = (scored(test["text"].tolist()) > THRESHOLD) == test["label"]
            measured[one][seed]["test"] = float(right.mean())
    write_json(NOISE_REPORT, noise(params, head, measured) | {"behaviour": behaviour_noise(tested, params)})
    print(table(measured))


def name(seed: int) -> str:
    return f"seed-{seed}"


def experiments(head: str) -> dict[str, str]:
    """Returns name → commit of the DVC experiments of the commit `head`."""
    listed = git("for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", refs(head))
    return dict(line.split() for line in listed.splitlines())


def refs(head: str) -> str:
    """Returns where DVC keeps the experiments of the commit `head`."""
    return f"refs/exps/{head[:2]}/{head[2:]}/"


def clone(head: str) -> Path:
    """Returns the clone, at the commit `head`; one that is there already keeps what was begun in it."""
    if not (CLONE / "dvc.yaml").exists() or git("-C", str(CLONE), "rev-parse", "HEAD").strip() != head:
        checkouts.clone(CLONE, head)
    cache = Path(dvc("cache", "dir").strip()).resolve()
    (CLONE / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
    if (CLONE / LABELLED_POINTER).exists():
        dvc("checkout", "--quiet", str(LABELLED_POINTER), folder=CLONE)
    return CLONE


def run(folder: Path, head: str, seed: int, candidates: Sequence[str]) -> None:
    """Runs the experiment of `seed` up to each of the candidates, and brings it here when it has succeeded."""
    environment = checkouts.clone_environment(folder) | {"MLFLOW_TRACKING_URI": runs.tracking_uri()}
    command = [*checkouts.DVC, "exp", "run", "--name", name(seed), "--set-param", f"seed={seed}"]
    stages = [one if one in FITTED else f"evaluate@{one}" for one in candidates]
    done = subprocess.run([*command, *stages], cwd=folder, env=environment)
    if done.returncode:
        raise PipelineError(f"the experiment {name(seed)} failed; `make sweep` goes on with it")
    git("fetch", "--quiet", str(folder), f"+{refs(head)}*:{refs(head)}*")


def figures(commit: str, model: str, seed: int) -> dict[str, float]:
    """Returns the accuracies that an experiment found for `model`, as DVC has them; raises if it trained with another
    seed, or if MLflow differs."""
    record = read(commit, train_reports(model) / "training.json")
    run_id = read(commit, run_file(model))["run_id"]
    if record["params"]["seed"] != seed:
        raise DataError(f"{commit[:8]} trained {model} with seed {record['params']['seed']}, not with {seed}")
    found = {"validation": record["metrics"]["val_accuracy"]}
    run = runs.find_run(runs.connect(), run_id)
    if run is None:
        raise DataError(f"the MLflow store has no run {run_id}, which trained {model} in {commit[:8]}")
    tracked = {"validation": run.data.metrics["val_accuracy"]}
    if tracked != found:
        raise DataError(f"DVC has {found} for {model} in {commit[:8]}, MLflow's run {run_id} has {tracked}")
    return found


def read(commit: str, file: Path) -> dict[str, Any]:
    return json.loads(git("show", f"{commit}:{file.as_posix()}"))


def noise(params: Params, commit: str, measured: Measured) -> dict[str, Any]:
    """Returns the report: of which params it is, and what was measured, with mean and deviation of each model and of
    each pair's difference."""
    pairs = {f"{second} - {first}": (first, second) for first, second in combinations(measured, 2)}
    return {
        "params": swept(params, measured),
        "git_commit": commit,
        "varied": "seed: validation split, sentences, teacher, first weights, batches, hidden tokens",
        "models": {
            model: {
                split: spread({seed: found[split] for seed, found in by_seed.items()}) for split in splits(measured)
            }
            for model, by_seed in measured.items()
        },
        "differences": {
            pair: {
                split: spread(
                    {seed: found[split] - measured[first][seed][split] for seed, found in measured[second].items()}
                )
                for split in splits(measured)
            }
            for pair, (first, second) in pairs.items()
        },
    }


def loaded(commits: Mapping[int, str], names: Sequence[str]) -> Iterator[tuple[str, int, behaviour.Scored]]:
    """Yields each candidate of each experiment with its seed and what scores with it.

    Args:
        commits: by seed, those of the experiments, whose candidates are in DVC's cache.
    """
    for one in names:
        for seed, commit in commits.items():
            with TemporaryDirectory() as temporary:
                folder = Path(temporary) / one
                dvc("get", ".", str(candidate_folder(one)), "--rev", commit, "--out", str(folder))
                scored = _scored(folder)
            yield one, seed, scored


def _scored(folder: Path) -> behaviour.Scored:
    scorer = load_scorer(folder)
    return lambda texts: scorer.score(texts).probability


def behaviour_noise(tested: Mapping[str, Mapping[int, Report]], params: Params) -> dict[str, Any]:
    """Returns the failure rates by model and capability, with their deviation; the largest mean span of a test of each
    capability; and of all pairs of seeds of one model, one as challenger of the other, how many the gate lets pass, how
    many it takes for better in behaviour, and how often each capability was worse."""
    compared = [
        behaviour_gate.compare(
            {"challenger": by_seed[first], "champion": by_seed[second]},
            params.gate,
            dataset=params.dataset,
            reason_level=spent_level(params.gate.level, 1) / 2,
            seed=params.seed,
        )
        for by_seed in tested.values()
        for first, second in permutations(by_seed, 2)
    ]
    names = [one["capability"] for one in compared[0]["capabilities"]]
    worse = {name: sum(one["capabilities"][place]["worse"] for one in compared) for place, name in enumerate(names)}
    passed = [not behaviour_gate.objections(one, params.dataset) for one in compared]
    return {
        "models": {
            model: {
                name: spread({seed: found["capabilities"][name]["failure_rate"] for seed, found in by_seed.items()})
                for name in names
            }
            for model, by_seed in tested.items()
        },
        "largest_span": {
            name: max(found.values())
            for name in names
            if (found := _spans([report for by_seed in tested.values() for report in by_seed.values()], name))
        },
        "pairs": {
            "pairs": len(compared),
            "passed": sum(passed),
            "better": sum(one["overall"]["better"] for one in compared),
            "worse": worse,
            "margins": {one["capability"]: one["margin"] for one in compared[0]["capabilities"]},
        },
    }


def _spans(reports: Sequence[Report], capability: str) -> dict[str, float]:
    """Returns by test of the capability the largest mean span that a report has."""
    spans: dict[str, float] = {}
    for report in reports:
        for test in report["tests"]:
            if test["capability"] == capability and "mean_span" in test:
                spans[test["test"]] = max(test["mean_span"], spans.get(test["test"], 0.0))
    return spans


def splits(measured: Measured) -> Iterator[str]:
    return iter(next(iter(next(iter(measured.values())).values())))


def spread(values: dict[int, float]) -> dict[str, Any]:
    """Returns mean and standard deviation (n - 1) of values by seed, and the deviation's 95% interval.

    The interval is that of a normal distribution's, from chi-squared with n - 1 degrees of freedom: of few seeds the
    deviation is known to a factor, not to a digit.
    """
    freedom = len(values) - 1
    deviation = statistics.stdev(values.values())
    bounds = [deviation * (freedom / chi2.ppf(share, freedom)) ** 0.5 for share in (1 - LEVEL / 2, LEVEL / 2)]
    return {
        "mean": statistics.mean(values.values()),
        "deviation": deviation,
        "deviation_interval": bounds,
        "values": {str(seed): value for seed, value in values.items()},
    }


def table(measured: Measured) -> str:
    """Returns each seed's accuracies, and mean and standard deviation under them, as text."""
    columns = [(model, split) for model in measured for split in splits(measured)]
    seeds = list(next(iter(measured.values())))
    values = [[measured[model][seed][split] for seed in seeds] for model, split in columns]
    lines = [["seed", *(f"{model} {split}" for model, split in columns)]]
    lines += [[str(seed), *(f"{column[row]:.4f}" for column in values)] for row, seed in enumerate(seeds)]
    lines += [
        [statistic.__name__, *(f"{statistic(column):.4f}" for column in values)]
        for statistic in (statistics.mean, statistics.stdev)
    ]
    return tables.table(lines)


if __name__ == "__main__":
    run_command(main)
