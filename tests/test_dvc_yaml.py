"""dvc.yaml tells the truth: what a stage depends on is what it imports and the params that it reads."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
BESIDE_THE_IMPORTS = {
    "card": {"pipeline/templates/model_card.md"},
    "report": {"pipeline/templates/report.css", "pipeline/templates/report.html"},
    "download": {"pipeline/sample"},
    # The registered model carries these as files.
    "register": {"pipeline/serving.py", "pipeline/subwords.py", "pipeline/fused_lstm.py"},
}


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def imports(file: Path) -> set[Path]:
    """The project's own modules that `file` imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    modules = {ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("pipeline")}
    return {module for module in modules if module.exists()}


def modules_of(stage: str) -> set[str]:
    found: set[Path] = {ROOT / "pipeline/__init__.py"}
    waiting = [ROOT / f"pipeline/stages/{stage}.py"]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += imports(file)
    return {str(file.relative_to(ROOT)) for file in found}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_modules_that_it_imports(stage: str) -> None:
    declared = {dep for dep in definition(stage)["deps"] if dep.startswith("pipeline/")}
    assert declared == modules_of(stage) | BESIDE_THE_IMPORTS.get(stage, set())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_params_that_it_reads(stage: str) -> None:
    read = set()
    for node in ast.walk(ast.parse((ROOT / f"pipeline/stages/{stage}.py").read_text())):
        if isinstance(node, ast.Attribute):
            holder = ast.unparse(node.value)
            if holder in ("params", "load_params()"):
                read.add("models.${key}" if node.attr == "model" else node.attr)
    assert set(definition(stage)["params"]) == read


def test_every_stage_module_is_a_stage() -> None:
    modules = {file.stem for file in (ROOT / "pipeline/stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


HOUSE = [
    ("cli", "registry_cli", "summary"),
    ("retrain",),
    ("server", "scoring", "retention", "records", "orchestration"),
    ("stages",),
    ("report", "model_card"),
    ("figures", "rendering"),
    ("results",),
    ("registration", "lineage", "verification", "reproduce", "triggers"),
    ("promotion",),
    ("registry",),
    ("serving", "evidence"),
    ("restoration", "views"),
    ("tracking", "ledger"),
    ("story",),
    ("evaluation", "gate", "padding", "plots", "baseline", "training", "intake", "drift", "comparison", "recurrence"),
    ("model",),
    (
        "batching",
        "splits",
        "subwords",
        "expectations",
        "reviews",
        "fused_lstm",
        "vocabulary",
        "rows",
        "labelled",
        "limits",
        "lstm_steps",
    ),
    ("validation",),
    ("params", "artifacts", "provenance"),
    ("errors", "locks", "notify"),
]


def test_imports_point_down_the_house() -> None:
    """DESIGN.md's order of rooms: a room imports from rooms below it, or beside it on its own floor, never above."""
    floor = {room: number for number, rooms in enumerate(HOUSE) for room in rooms}
    for file in (ROOT / "pipeline").rglob("*.py"):
        room = "stages" if file.parent.name == "stages" else file.stem
        if room == "__init__":
            continue
        for imported in imports(file):
            below = "stages" if imported.parent.name == "stages" else imported.stem
            if below not in ("__init__", room):
                assert floor[below] >= floor[room], f"{room} imports {below}"
