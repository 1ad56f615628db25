"""DVC shows the models that params.yaml has, whichever they are: their figures on a page that needs no network, their
metrics in a table, and of two revisions which is which."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from conftest import ROOT, write_sample_params
from dvc_render.vega_templates import TEMPLATES
from ruamel.yaml import YAML

from pipeline.project.paths import CURVES, NGRAMS, behaviour_file, evaluated_file, train_reports
from pipeline.stages.compare import write_curves
from scripts import plots

DEFINITION = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
PLOTS: dict[str, dict[str, Any]] = {name: plot for entry in DEFINITION["plots"] for name, plot in entry.items()}
DVCS_OWN = {template.DEFAULT_NAME for template in TEMPLATES}
BEFORE, AFTER = ["single", "stacked"], ["single", "another", "stacked"]
"""The models in params.yaml of a first commit and of a second one, which has one in the middle that is new."""


@dataclass(frozen=True)
class Shown:
    """A project of two commits, and the pages of `dvc plots show` and of `dvc plots diff` between the two."""

    folder: Path
    show: str
    diff: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("plots")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots", ignore=shutil.ignore_patterns("*.html"))
    for name in ("dvc.yaml", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("/dvc_plots/\n")
    write_sample_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        run("git", "init", "--quiet")
        for models in (BEFORE, AFTER):
            set_models(models)
            measure(models, seed=len(models))
            run("git", "add", "--all")
            run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "models")
        plots.prepare(folder)
        yield Shown(folder, page_of("show"), page_of("diff", "HEAD~1", "HEAD"))


def set_models(models: list[str]) -> None:
    """Makes `models` the trained models of params.yaml: that, and nothing else, is edited."""
    yaml, file = YAML(), Path("params.yaml")
    content = yaml.load(file.read_text())
    content["models"] = dict.fromkeys(models, content["models"]["single"])
    with file.open("w") as stream:
        yaml.dump(content, stream)


def measure(models: list[str], seed: int) -> None:
    """Writes what training and evaluation of `models` and the n-grams would, and what stage `compare` makes of it."""
    random = np.random.default_rng(seed)
    label = np.arange(60) % 2
    predictions = {}
    for name in (*models, NGRAMS):
        predictions[name] = pd.DataFrame({"label": label, "logit": random.normal(label - 0.5)})
        evaluated_file(name).parent.mkdir(parents=True, exist_ok=True)
        evaluated_file(name).write_text(json.dumps({"accuracy": random.uniform(), "reviews": len(label)}))
        found = {"capabilities": {"negation": {"failure_rate": random.uniform()}}, "tests": [{"test": "one"}]}
        behaviour_file(name).parent.mkdir(parents=True, exist_ok=True)
        behaviour_file(name).write_text(json.dumps(found))
    for name in models:
        columns = ("accuracy", "loss", "val_accuracy", "val_loss")
        history = pd.DataFrame(random.uniform(size=(3, 4)), columns=columns, index=pd.Index([1, 2, 3], name="epoch"))
        train_reports(name).mkdir(parents=True, exist_ok=True)
        history.to_csv(train_reports(name) / "history.csv")
    write_curves(predictions, models, bins=5)


def run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def dvc(*arguments: str) -> str:
    return run(sys.executable, "-m", "dvc", *arguments)


def page_of(*arguments: str) -> str:
    dvc("plots", *arguments)
    return Path("dvc_plots/index.html").read_text()


def figures(page: str) -> dict[str, dict[str, Any]]:
    """The page's Vega-Lite specifications by title."""
    found = [json.loads(text) for text in re.findall(r"var spec = (\{.*\});\n", page)]
    return {spec["title"]["text"]: spec for spec in found}


def rows(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The figure's data; a layer's own are a line to compare with."""
    return next(part["data"]["values"] for part in (spec, *reversed(spec.get("layer", []))) if "data" in part)


def drawn(spec: dict[str, Any]) -> tuple[str, set[str]]:
    """The figure as SVG, drawn by the Vega that the page carries, and the texts in it."""
    svg = vl_convert.vegalite_to_svg(spec, vl_version=plots.VEGA_LITE)
    return svg, set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def models_in(spec: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows(spec)))


def fields(part: Any) -> set[str]:
    """The columns of DVC's data that a template names itself."""
    if isinstance(part, list):
        return set().union(*map(fields, part))
    if not isinstance(part, dict) or isinstance(part.get("data", {}).get("values"), list):
        return set()
    named = {part["field"]} if isinstance(part.get("field"), str) else set()
    return named.union(*map(fields, part.values()))


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_names_a_template_that_exists_and_columns_that_are_written(name: str, shown: Shown) -> None:
    plot = PLOTS[name]
    (source, y), *others = plot["y"].items()
    assert not others
    columns = set(pd.read_csv(shown.folder / source).columns)
    assert {plot["x"], y, "model"} <= columns
    template = ROOT / f".dvc/plots/{plot['template']}.json"
    assert template.is_file() or plot["template"] in DVCS_OWN
    if template.is_file():
        content = json.loads(template.read_text())
        computed = {step["as"] for step in content.get("transform", []) if "as" in step}
        named = {field for field in fields(content) if not field.startswith("<DVC_METRIC_")}
        assert {"model", "rev"} <= named <= columns | computed | {"rev"}


def test_every_curve_is_shown_and_every_template_used(shown: Shown) -> None:
    written = {f"{CURVES}/{file.name}" for file in (shown.folder / CURVES).iterdir()}
    assert {source for plot in PLOTS.values() for source in plot["y"]} == written
    templates = {file.stem for file in (ROOT / ".dvc/plots").glob("*.json")}
    assert templates == {plot["template"] for plot in PLOTS.values()} - DVCS_OWN


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_shows_every_model_of_params_yaml(name: str, shown: Shown) -> None:
    spec = figures(shown.show)[name]
    trained = "history" in next(iter(PLOTS[name]["y"]))
    assert models_in(spec) == (AFTER if trained else [*AFTER, NGRAMS])
    _, texts = drawn(spec)
    assert {name, *models_in(spec)} <= texts
    assert {PLOTS[name].get("x_label", PLOTS[name]["x"]), PLOTS[name].get("y_label", "predicted")} <= texts


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_tells_two_revisions_apart(name: str, shown: Shown) -> None:
    spec = figures(shown.diff)[name]
    assert {row["rev"] for row in rows(spec)} == {"HEAD~1", "HEAD"}
    svg, texts = drawn(spec)
    assert {"HEAD~1", "HEAD", *models_in(spec)} <= texts
    assert "facet" in spec or "stroke-dasharray" in svg


def test_a_confusion_matrix_keeps_to_its_column_where_a_revision_lacks_a_model() -> None:
    """Vega-Lite lays cells out one after the other; it leaves room for one that is missing only in its own order."""
    facet = json.loads((ROOT / ".dvc/plots/confusion_counts.json").read_text())["facet"]
    assert [facet[way]["field"] for way in ("row", "column")] == ["rev", "model"]
    assert all("sort" not in facet[way] for way in facet)


def test_the_pages_load_nothing_and_carry_what_draws_them(shown: Shown) -> None:
    loaded: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            loaded.extend(value or "" for name, value in attributes if name in ("src", "href"))

    for page in (shown.show, shown.diff):
        Reader().feed(page)
        assert loaded == []
        assert page.index("window.vegaEmbed=") < page.index("vegaEmbed('#")
        assert len(figures(page)) == len(PLOTS)


def test_the_page_comes_with_the_environment_and_stays_out_of_git() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("$(READY):")[2].partition("\n\n")[0]
    assert "scripts.plots" in recipe
    ignored = subprocess.run(["git", "check-ignore", "--quiet", f".dvc/{plots.PAGE}"], cwd=ROOT)
    assert ignored.returncode == 0


def test_the_metrics_are_those_of_every_model(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shown.folder)
    (found,) = json.loads(dvc("metrics", "show", "--json")).values()
    assert set(found["data"]) == {
        str(file(name)) for file in (evaluated_file, behaviour_file) for name in (*AFTER, NGRAMS)
    }
    assert list(found["data"][str(behaviour_file(NGRAMS))]["data"]) == ["capabilities"]
    changed = json.loads(dvc("metrics", "diff", "--json", "HEAD~1", "HEAD"))
    assert changed[str(evaluated_file("another"))]["accuracy"]["new"] is not None


def test_readmes_table_of_a_sweep_shows_which_experiment_failed_and_all_that_was_varied(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shown.folder)
    dvc("exp", "run", "evaluate", "--queue", "--name", "bad", "--set-param", "split.fresh_rows=7")
    dvc("exp", "run", "--run-all")  # it fails: the folder has none of the code that stages read
    (command,) = re.findall(r"dvc (exp show .*)", (ROOT / "README.md").read_text())
    monkeypatch.setenv("COLUMNS", "200")
    table = dvc(*shlex.split(command), "--no-pager")
    (header,) = [line for line in table.splitlines() if "Experiment" in line]
    assert header.split()[:3] == ["Experiment", "State", "split.fresh_rows"]
    assert re.search(r"\[bad\] +Failed +7\b", table)
