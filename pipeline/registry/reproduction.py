"""Making a registered version again from what was recorded of it, and comparing the two.

A scratch clone of this repository at the recorded commit, with the recorded `dvc.lock` and `params.yaml`, runs the
pipeline up to the evaluation of the version's model, with a cache and a tracking store of its own: nothing is taken
over from the first time but the code and the raw data set.

The same training ends in the same weights, bit for bit, on the same device and kind of CPU: others add up in another
order, and the difference grows from the first epoch on. There predictions are compared instead.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML

from pipeline.data import labelled
from pipeline.project import checkouts, provenance
from pipeline.project.atomic import read_json, read_table
from pipeline.project.errors import PipelineError
from pipeline.project.params import PARAMS_FILE
from pipeline.project.paths import LABELLED_POINTER, LABELLED_REVIEWS, NGRAMS, SPLIT_TABLES, VOCABULARY
from pipeline.project.provenance import COMMIT, CPU, DIRTY, LOCK_FILE
from pipeline.registry import evidence, versions
from pipeline.registry.verification import missing_run
from pipeline.tracking import runs
from pipeline.tracking.fitted_runs import FITTED

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

OTHER_LABELS = 0.08
"""The share of test reviews that may get another label on another kind of CPU: `single` and `stacked`, two networks
trained on the same reviews, differ in 8.0% of IMDB's 25,000 test reviews, and a repetition has to be closer."""
METRICS = ("accuracy", "loss", "precision", "recall", "f1", "roc_auc", "average_precision")
# Not compared: saved models, whose weights are, and reports, of which some hold durations.
_COMPARED_OUTPUTS = ("data/raw", "data/splits", "data/tokens", "data/batches", "models/tokenizer")


@dataclass(frozen=True)
class Made:
    """What is compared of a version: md5 of data outputs in `dvc.lock`, SHA-256 of vocabulary and weights, metrics on
    the test split, the device and kind of CPU it was trained on ("unknown" where an earlier version does not say), and
    its predictions (id, logit) on the test split, None where there are none."""

    outputs: Mapping[str, str]
    vocabulary_sha256: str
    weights_sha256: str
    metrics: Mapping[str, float]
    device: str
    cpu: str
    predictions: "pd.DataFrame | None" = None


class Comparison(NamedTuple):
    """One thing as recorded and as made again; `verdict` is same, differs, or why it was not held to be the same."""

    what: str
    recorded: str
    made_again: str
    verdict: str


def reproduce(name: str, alias_or_version: str, *, tolerance: float, allow_dirty: bool, keep: bool) -> list[Comparison]:
    """Makes a version of the registered model `name` again, and compares; metrics may differ by `tolerance`.

    Args:
        allow_dirty: go on although the version was made from files that are not in its commit.
        keep: leave the scratch clone, and say where it is.

    Raises:
        UsageError: there is no such version.
        PipelineError: what was recorded does not suffice, the commit is not in this repository, the version was made
            from a dirty tree, or the pipeline failed.
    """
    client = runs.connect_to_read()
    version = versions.resolve(client, name, alias_or_version)
    run = runs.find_run(client, str(version.run_id))
    if run is None:
        problem = missing_run(client, str(version.run_id), lost="`sentiment registry restore FILE` may bring it back")
        assert problem is not None
        raise PipelineError(f"version {version.version} belongs to {problem.what}; {problem.mend}")
    commit = run.data.tags.get(COMMIT)
    if commit is None:
        raise PipelineError(
            f"version {version.version} was not made in a git checkout: there is no commit to go back to"
        )
    model = version.tags["model"]
    with tempfile.TemporaryDirectory() as temporary, _clone(commit, keep=keep) as clone:
        recorded = _recorded(client, version, run.data.tags, Path(temporary))
        for file in (LOCK_FILE, PARAMS_FILE):
            shutil.copy(Path(temporary) / "dvc" / file, clone / file)
        bring_labelled(Path(temporary) / "dvc" / LABELLED_POINTER.name, clone)
        _require_committed(version, run.data.tags.get(DIRTY, "unknown"), clone, allow_dirty)
        _run_pipeline(clone, model)
        made = read_made(clone, model)
        if made.predictions is not None:
            test = read_table(clone / SPLIT_TABLES / "test.parquet", ("id", "text", "label"))
            then = evidence.load_table(client, str(version.run_id), evidence.predictions_name(test, version.tags))
            recorded = replace(recorded, predictions=then)
    # As its run recorded it: an earlier commit's params.yaml need not have the keys of this one's.
    deterministic = model == NGRAMS or run.data.params.get("deterministic") == "True"
    return compare(recorded, made, deterministic=deterministic, tolerance=tolerance)


def compare(recorded: Made, made: Made, *, deterministic: bool, tolerance: float) -> list[Comparison]:
    """Compares two makings: data and vocabulary exactly, metrics within `tolerance`, and the weights exactly where
    training was deterministic and ran on the same device and kind of CPU; elsewhere, where they differ, predictions."""
    unlike = _unlike(recorded, made, deterministic=deterministic)
    digests = [
        (path, recorded.outputs.get(path, "-"), made.outputs.get(path, "-"), "differs")
        for path in sorted({*recorded.outputs, *made.outputs})
    ]
    digests.append(("vocabulary", recorded.vocabulary_sha256, made.vocabulary_sha256, "differs"))
    digests.append(("weights", recorded.weights_sha256, made.weights_sha256, unlike or "differs"))
    rows = [
        Comparison(what, then[:12], now[:12], "same" if then == now else otherwise)
        for what, then, now, otherwise in digests
    ]
    if unlike and recorded.weights_sha256 != made.weights_sha256:
        rows.append(_compare_predictions(recorded.predictions, made.predictions))
    for metric in METRICS:
        first, second = recorded.metrics.get(metric), made.metrics.get(metric)
        if first is None and second is None:
            continue
        near = first is not None and second is not None and abs(first - second) <= tolerance
        verdict = "same" if first == second else f"within {tolerance:g}" if near else "differs"
        then, now = ("-" if value is None else f"{value:.6f}" for value in (first, second))
        rows.append(Comparison(f"test {metric}", then, now, verdict))
    return rows


def _unlike(recorded: Made, made: Made, *, deterministic: bool) -> str:
    """Says why the two need not have the same weights, "" where they do."""
    if not deterministic:
        return "not compared: deterministic is false"
    if recorded.device != made.device:
        return f"not compared: {recorded.device} then, {made.device} now"
    if recorded.cpu == made.cpu:
        return ""
    words = [cpu.split() for cpu in (recorded.cpu, made.cpu)]
    then, now = (
        " ".join(word for word in one if word not in other) or "less" for one, other in (words, reversed(words))
    )
    return f"not compared: another kind of CPU ({then} then, {now} now)"


def _compare_predictions(recorded: "pd.DataFrame | None", made: "pd.DataFrame | None") -> Comparison:
    """Compares which labels the test reviews get; OTHER_LABELS of them may differ."""
    if recorded is None or made is None:
        return Comparison("test labels", "-", "-", "not compared: there are no predictions on these reviews")
    both = recorded[["id", "logit"]].merge(made[["id", "logit"]], on="id", how="outer", suffixes=("", "_again"))
    others = int(((both["logit"] > 0) != (both["logit_again"] > 0)).sum() + both.isna().any(axis=1).sum())
    near = others <= OTHER_LABELS * len(both)
    verdict = f"within {OTHER_LABELS:.0%}" if near else "differs"
    return Comparison("test labels", f"{len(both):,} reviews", f"{others:,} others", verdict)


@contextmanager
def _clone(commit: str, *, keep: bool) -> Iterator[Path]:
    """Yields a clone of this repository at `commit`, and removes it, or with `keep` says where it is."""
    folder = Path(tempfile.mkdtemp(prefix="reproduce-"))
    try:
        checkouts.clone(folder, commit)
        yield folder / checkouts.git("rev-parse", "--show-prefix").strip()
    finally:
        if keep:
            print(f"the scratch clone is {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _recorded(client: "MlflowClient", version: "ModelVersion", tags: Mapping[str, str], folder: Path) -> Made:
    """Downloads to `folder` what the version's run recorded, and returns what is compared of it."""
    from mlflow.exceptions import MlflowException

    run = f"run {version.run_id} of {version.tags['model']}"
    try:
        for path in ("dvc", "train", "evaluate"):
            client.download_artifacts(str(version.run_id), path, str(folder))
        with versions.downloaded_vocabulary(str(version.source)) as file:
            vocabulary = Path(shutil.copy(file, folder))
    except (MlflowException, OSError, PipelineError) as error:
        raise PipelineError(f"{run} did not keep what is needed: {error}") from None
    for name in (LOCK_FILE, PARAMS_FILE):
        if not (folder / "dvc" / name).exists():
            raise PipelineError(f"{run} did not keep its {name}; it was not trained through `dvc repro`")
    return _read(folder / "dvc" / LOCK_FILE, vocabulary, [folder / "train", folder / "evaluate"], tags)


def read_made(clone: Path, model: str) -> Made:
    """Reads what the pipeline made of `model` in a clone, from where the clone's own commit puts it: the outputs of its
    stages by its `dvc.lock`. Raises PipelineError if they do not hold it."""
    stages = _stages(clone / LOCK_FILE)
    trained, tested = (
        [clone / out["path"] for out in stages[stage]["outs"]]
        for stage in (_trained_by(model), f"{_tested_by(stages)}@{model}")
    )
    # Earlier commits do not write down the CPU: it is this machine's.
    tags = _report(trained, "tags")["tags"] | {CPU: provenance.cpu()}
    made = _read(clone / LOCK_FILE, clone / VOCABULARY, [*trained, *tested], tags)
    predictions = [read_table(out, ("id", "logit")) for out in tested if out.suffix == ".parquet"]
    return replace(made, predictions=predictions[0]) if predictions else made


def _trained_by(model: str) -> str:
    """Returns the stage that trains or fits `model`."""
    return model if model in FITTED else f"train@{model}"


def _tested_by(stages: Mapping[str, Any]) -> str:
    """Returns the stage that scores the test split; in earlier commits that was `evaluate`."""
    return "test" if any(stage.partition("@")[0] == "test" for stage in stages) else "evaluate"


def _read(lock: Path, vocabulary: Path, outs: Sequence[Path], tags: Mapping[str, str]) -> Made:
    outputs = [out for stage in _stages(lock).values() for out in stage.get("outs", [])]
    return Made(
        outputs={
            out["path"]: out["md5"] for out in outputs if "md5" in out and out["path"].startswith(_COMPARED_OUTPUTS)
        },
        vocabulary_sha256=hashlib.sha256(vocabulary.read_bytes()).hexdigest(),
        weights_sha256=_report(outs, "weights_sha256")["weights_sha256"],
        metrics=_report(outs, "roc_auc"),
        device=tags.get("device", "unknown"),
        cpu=tags.get(CPU, "unknown"),
    )


def _report(outs: Sequence[Path], key: str) -> dict[str, Any]:
    """Returns the JSON report that has `key`, among files and in folders; raises PipelineError if there is none."""
    for out in outs:
        for file in sorted(out.rglob("*.json")) if out.is_dir() else [out]:
            if file.suffix == ".json" and key in (report := read_json(file)):
                return report
    raise PipelineError(f"no report of {', '.join(map(str, outs))} has {key}")


def _stages(lock: Path) -> dict[str, Any]:
    return (YAML(typ="safe", pure=True).load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})


def _require_committed(version: "ModelVersion", dirty: str, clone: Path, allow_dirty: bool) -> None:
    """Refuses a version made from code that its commit does not hold: the recorded lock knows each module's md5."""
    if dirty == "false":
        return
    stages = _stages(clone / LOCK_FILE)
    made_by = rests_on(stages, _trained_by(version.tags["model"]))
    deps = {dep["path"]: dep["md5"] for one in made_by for dep in stages[one]["deps"] if dep["path"].endswith(".py")}
    differing = sorted(path for path, md5 in deps.items() if _md5(clone / path) != md5)
    about = f"version {version.version} was made from a tree with uncommitted changes"
    found = "no module that its stages read was among them"
    if differing:
        found = f"the commit's {', '.join(differing)} are others than it was made with"
        if not allow_dirty:
            raise PipelineError(
                f"{about}, and {found}: what would come out is another version; --allow-dirty compares all the same"
            )
    print(f"warning: {about}; {found}", file=sys.stderr)


def rests_on(stages: Mapping[str, Any], stage: str) -> set[str]:
    """Returns the stage and those of `stages`, as `dvc.lock` has them, whose outputs it reads, and so on."""
    found, left = set[str](), [stage]
    while left:
        one = left.pop()
        if one in found or one not in stages:
            continue
        found.add(one)
        deps = [Path(dep["path"]) for dep in stages[one].get("deps", [])]
        for other, made in stages.items():
            outs = [Path(out["path"]) for out in made.get("outs", [])]
            if any(dep.is_relative_to(out) or out.is_relative_to(dep) for dep in deps for out in outs):
                left.append(other)
    return found


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() if file.exists() else ""


def bring_labelled(pointer: Path, clone: Path) -> None:
    """Puts the new labelled reviews that the version was trained on into the clone: those that `pointer`, as the run
    kept it, speaks of, from this checkout's cache, or where that has forgotten them, from its data set, which later
    ones were only appended to; none where there is no pointer."""
    if not pointer.exists():
        (clone / LABELLED_POINTER).unlink(missing_ok=True)
        return
    shutil.copy(pointer, clone / LABELLED_POINTER)
    cache = Path(checkouts.dvc("cache", "dir").strip()).resolve()
    checkouts.dvc("remote", "add", "--local", "checkout", str(cache), folder=clone)
    try:
        checkouts.dvc("pull", "--remote", "checkout", str(LABELLED_POINTER), folder=clone)
    except PipelineError as error:
        shutil.rmtree(clone / LABELLED_REVIEWS, ignore_errors=True)
        (clone / LABELLED_REVIEWS).mkdir()
        for batch in labelled.batches()[: labelled.stated_files(pointer)]:
            shutil.copy(batch, clone / LABELLED_REVIEWS)
        checkouts.dvc("add", str(LABELLED_REVIEWS), folder=clone)
        if _md5(clone / LABELLED_POINTER) != _md5(pointer):
            raise PipelineError(
                f"the new labelled reviews that the version was trained on are neither in {cache} ({error}) nor in "
                f"{LABELLED_REVIEWS}; `dvc pull {LABELLED_POINTER}` at their commit first"
            ) from None


def _run_pipeline(clone: Path, model: str) -> None:
    """Runs `dvc repro` in the clone, with this interpreter and its libraries, the clone's modules and its own store."""
    environment = checkouts.clone_environment(clone, without=("MLFLOW_", "DVC_", "SENTIMENT_"))
    target = f"{_tested_by(_stages(clone / 'dvc.yaml'))}@{model}"
    print(f"running `dvc repro {target}` in {clone}", flush=True)
    if code := subprocess.run([*checkouts.DVC, "repro", target], cwd=clone, env=environment).returncode:
        raise PipelineError(f"`dvc repro {target}` failed in the scratch clone with exit code {code}")
