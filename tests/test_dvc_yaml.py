"""dvc.yaml tells the truth: a stage depends on the files whose code decides what its output says, and on the params
that it reads; and it runs again for nothing else."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from scripts import demo

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
PLUMBING = ("pipeline/project/", "pipeline/tracking/")
"""Decides where and how something is written, locked, logged or told, never what an output says."""
BESIDE_THE_IMPORTS = {
    "compare": {"pipeline/reporting/templates/model_card.md"},
    "report": {"pipeline/reporting/templates/report.css", "pipeline/reporting/templates/report.html"},
    "download": {"pipeline/data/sample"},
    "register": {"pipeline/served_model/pyfunc_model.py", "pipeline/served_model/loading.py"},  # a version carries them
    **{
        key: {f"pipeline/served_model/{name}.py" for name in ("__init__", "loading")}
        for key in ("blend", "evaluate", "ngrams")
    },
}
READ_ELSEWHERE = {
    "register": [f"pipeline/registry/{name}.py" for name in ("challenge", "contest", "yardsticks")],
    **{key: ["pipeline/evaluation/candidates.py"] for key in ("blend", "evaluate", "ngrams")},
    "report": ["pipeline/reporting/results.py"],
}
"""Where a stage hands all params on: the modules that read them."""
PARAMS_OF_ONE = {("teach", "teachers"): "teachers.${key}", ("train", "teachers"): "teachers.${item.learns_from}"}
"""Where a stage reads one entry of a section."""


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def imports(file: Path) -> set[Path]:
    """The project's own modules that `file` imports, anywhere in it but for type checkers."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            beside = file.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join((*beside, node.module))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    modules = {ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("pipeline")}
    return {module for module in modules if module.exists()}


def code_of(stage: str) -> set[str]:
    """The files that a stage's module imports, directly or not, plumbing and what that imports aside."""
    found: set[str] = set()
    waiting = [ROOT / f"pipeline/stages/{stage}.py"]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(ROOT).as_posix()
        if name not in found and not name.startswith(PLUMBING):
            found.add(name)
            waiting += imports(file)
    return found


def covered(file: str, declared: set[str]) -> bool:
    return any(file == dep or file.startswith(f"{dep}/") for dep in declared)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_files_that_decide_its_output(stage: str) -> None:
    declared = {dep for dep in definition(stage)["deps"] if dep.startswith("pipeline/")}
    needed = code_of(stage) | BESIDE_THE_IMPORTS.get(stage, set())
    assert [file for file in needed if not covered(file, declared)] == []
    assert [dep for dep in declared if not covered(dep, needed) and not any(covered(n, {dep}) for n in needed)] == []
    for folder in declared - BESIDE_THE_IMPORTS.get(stage, set()):
        assert (ROOT / folder).is_file(), f"{folder}: a folder only where every file in it decides"


def test_a_package_itself_decides_nothing() -> None:
    """Its `__init__` is listed nowhere, so that it may hold no more than a docstring."""
    for file in (ROOT / "pipeline").glob("*/__init__.py"):
        (only,) = ast.parse(file.read_text()).body
        assert isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant), file


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_params_that_it_reads(stage: str) -> None:
    read = set()
    for module in (f"pipeline/stages/{stage}.py", *READ_ELSEWHERE.get(stage, ())):
        for node in ast.walk(ast.parse((ROOT / module).read_text())):
            holder = ast.unparse(node.value) if isinstance(node, ast.Attribute) else ""
            if holder in ("params", "load_params()"):
                read.add(PARAMS_OF_ONE.get((stage, node.attr)) or {"model": "models.${key}"}.get(node.attr, node.attr))
    declared = {
        param.split(".")[0] if param.startswith(("tokenize.", "evaluate.")) else param
        for param in definition(stage)["params"]
    }
    assert declared == read


def test_every_stage_module_is_a_stage() -> None:
    modules = {file.stem for file in (ROOT / "pipeline/stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's stages whose lock says that all of them ran: what is changed in it is what is stale.

    Data and reports are stand-ins: whether a stage is stale depends on their md5 alone.
    """
    folder = tmp_path_factory.mktemp("recorded")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "behaviour", folder / "behaviour")
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    run(folder, "init", "--no-scm", "--quiet")
    run(folder, "config", "core.analytics", "false")
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for stage in STAGES:
        for key in params[STAGES[stage]["foreach"][2:-1]] if "foreach" in STAGES[stage] else [""]:
            for out in definition(stage)["outs"]:
                path = folder / (out if isinstance(out, str) else next(iter(out))).replace("${key}", key).replace(
                    "${item}", key
                )
                if path.suffix:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text("{}")
                else:
                    path.mkdir(parents=True, exist_ok=True)
                    for texts in ("train", "validation", "unlabelled", "sentences") if path.name == "tokens" else ():
                        (path / texts).mkdir()
                        (path / texts / "token_ids.npy").write_text(texts)
                    (path / "train.parquet").write_text(f"{stage} {key}")
                    for split in ("test", "validation", "fresh", "corrections", "unlabelled", "sentences"):
                        (path / f"{split}.parquet").write_text(split)
    for missing in ("data/labelled/README.md", "data/evaluation_sets/README.md", *demo.MEASURED):
        (folder / missing).parent.mkdir(parents=True, exist_ok=True)
        (folder / missing).write_text("{}")
    run(folder, "commit", "--force", "--quiet")
    assert stale(folder) == set()
    return folder


def run(folder: Path, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, env=kept, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def stale(folder: Path) -> set[str]:
    return set(json.loads(run(folder, "status", "--json")))


@pytest.fixture
def edited(recorded: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """`recorded`, with a comment added to the file that the test's parameter names."""
    file = recorded / request.param
    before = file.read_text()
    file.write_text(before + "\n# edited\n")
    yield recorded
    file.write_text(before)


@pytest.mark.parametrize(
    "edited",
    [
        "pipeline/tracking/run_description.py",
        "pipeline/tracking/runs.py",
        "pipeline/project/locks.py",
        "pipeline/ngrams/classifier.py",
        "pipeline/served_model/pyfunc_model.py",
        "pipeline/reporting/templates/report.html",
        "pipeline/reporting/charts.py",
        "pipeline/evaluation/comparison.py",
        "pipeline/text/vocabulary.py",
    ],
    indirect=True,
)
def test_an_edit_of_what_decides_no_weights_trains_nothing(edited: Path) -> None:
    assert not any(stage.startswith("train") for stage in stale(edited))


@pytest.mark.parametrize("edited", ["pipeline/project/locks.py", "pipeline/tracking/run_description.py"], indirect=True)
def test_an_edit_of_plumbing_runs_nothing_again(edited: Path) -> None:
    assert stale(edited) == set()


@pytest.mark.parametrize("edited", ["pipeline/training/fitting.py"], indirect=True)
def test_an_edit_of_how_a_network_is_fitted_trains_again_but_builds_no_vocabulary(edited: Path) -> None:
    models = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["models"]
    assert stale(edited) == {f"train@{model}" for model in models}
    dag = run(edited, "dag", "--dot").replace('"', "").splitlines()
    arrows = [line.strip(" ;").split(" -> ") for line in dag if "->" in line]
    follows = {"train@single"}
    for _ in STAGES:
        follows |= {after for before, after in arrows if before in follows}
    measured = {f"{stage}@single" for stage in ("evaluate", "test", "behaviour", "track")}
    assert measured | {"compare", "register", "report"} <= follows
    assert not follows & {"vocabulary", "tokenize", "batch", "ngrams", "test@ngrams", "recurrence", "train@stacked"}
