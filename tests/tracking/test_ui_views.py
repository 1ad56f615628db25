"""The MLflow UI, as a user sees it in a browser: both models in one table, their curves and figures side by side."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, track_in, write_sample_params
from tracked_runs import evaluation, history, track_evaluation, track_pictures, track_training

from pipeline.tracking import run_colours, runs

pytest.importorskip("selenium", reason="needs selenium, of the dev extra")
sys.path.insert(0, str(ROOT / "scripts"))
from screenshots import CHROMEDRIVER, CHROMIUM, served_ui, show, until
from screenshots import browser as opened_browser

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs Chromium and chromedriver on the PATH"),
]


@dataclass(frozen=True)
class Ui:
    """A served UI: where its view of the trainings is as a table and as charts, and the run of each model."""

    table: str
    charts: str
    runs: dict[str, str]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """`sentiment ui` on a store with a run of each model, and one that is no training."""
    folder = tmp_path_factory.mktemp("ui")
    write_sample_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        track_in(folder, patch)
        runs.connect.cache_clear()
        records = {model: track_training(model) for model in ("single", "stacked")}
        for record in records.values():
            track_evaluation(record)
            track_pictures(record)
        client = runs.connect()
        client.create_run(runs.experiment_id(client), run_name="of the job", tags={runs.KIND: "retrain"})
        client.set_tag(records["stacked"]["run_id"], runs.REGISTERED, "imdb-sentiment-sample/1")
        runs.connect.cache_clear()
        run_ids = {model: record["run_id"] for model, record in records.items()}
        with served_ui(folder) as addresses:
            yield Ui(addresses["table"], addresses["charts"], run_ids)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with opened_browser(tmp_path / "chromium", (2400, 1400)) as driver:
        yield driver


def elements(browser: Any, css: str) -> list[Any]:
    return browser.find_elements("css selector", css)


def text(browser: Any) -> str:
    return browser.find_element("tag name", "body").text


def row_of(browser: Any, model: str) -> str:
    """The number of the table's row that shows the run of `model`, once it is there."""
    pattern = rf"{model} \d\d-\d\d"
    name = until(lambda: [e for e in elements(browser, ".ag-row a") if re.match(pattern, e.text)])
    return name[0].find_element("xpath", "ancestor::*[@row-index][1]").get_attribute("row-index")


def cell(browser: Any, row: str, column: str) -> str:
    css = f".ag-row[row-index='{row}'] [col-id='{column}']"
    return until(lambda: next((e.text for e in elements(browser, css) if e.text), None))


def test_the_table_shows_the_trainings_with_what_tells_them_apart(ui: Ui, browser: Any) -> None:
    show(browser, ui.table)
    for model in ui.runs:
        row, measured = row_of(browser, model), evaluation(model)
        assert float(cell(browser, row, "metrics.`test/accuracy`")) == measured["accuracy"]
        assert float(cell(browser, row, "metrics.`test/loss`")) == pytest.approx(measured["loss"])
        assert float(cell(browser, row, "metrics.`val_accuracy`")) == history(model)["val_accuracy"].iloc[-1]
        assert int(cell(browser, row, "metrics.`epochs`")) == len(history(model))
        assert float(cell(browser, row, "metrics.`seconds_per_epoch`")) > 0
        shown = {name: cell(browser, row, f"tags.`{name}`") for name in ("model", "dataset", "device")}
        assert shown == {"model": model, "dataset": "sample", "device": "CPU"}
    assert cell(browser, row_of(browser, "stacked"), "tags.`registered`") == "imdb-sentiment-sample/1"
    assert "of the job" not in text(browser)


def test_both_runs_selected_and_compared_differ_in_params_and_test_accuracy(ui: Ui, browser: Any) -> None:
    show(browser, ui.table)
    for model in ui.runs:
        checkbox = f".ag-row[row-index='{row_of(browser, model)}'] .ag-checkbox-input-wrapper"
        until(lambda css=checkbox: elements(browser, css))[0].click()
    until(lambda: [e for e in elements(browser, "button") if e.text == "Compare"])[0].click()
    until(lambda: "Comparing 2 Runs" in text(browser))
    until(lambda: "val/accuracy" in [e.text for e in elements(browser, ".js-plotly-plot .axis-title")])
    seen: list[str] = []

    def scrolled() -> bool:
        for share in range(11):  # the lists of params and metrics hold the rows that show, and no others
            browser.execute_script(SCROLL, share / 10)
            seen.append(text(browser))
        return "test/accuracy" in "".join(seen)

    until(scrolled)
    for model in ui.runs:
        assert f"{evaluation(model)['accuracy']:.3f}" in "".join(seen)
    for param in ("recurrent_units", "learning_rate"):
        assert param in "".join(seen)


SCROLL = """
for (const one of document.querySelectorAll('*'))
    if (one.scrollHeight > one.clientHeight + 50) one.scrollTop = arguments[0] * one.scrollHeight
"""
PLOTTED = """
return Object.fromEntries([...document.querySelectorAll('[data-testid="experiment-view-compare-runs-card"]')].map(
    card => [card.innerText.split('\\n')[0], card.querySelector('.js-plotly-plot')?.data ?? []]
).map(([name, traces]) => [name, traces.map(trace => [trace.type, trace.x?.map(Number), trace.y])]))
"""


TITLES = """
return [...document.querySelectorAll('[data-testid="experiment-view-compare-runs-card"]')].map(
    card => card.innerText.split('\\n')[0])
"""
BARS = """
return [...document.querySelectorAll('.js-plotly-plot')].flatMap(
    plot => plot.data.filter(trace => trace.type == 'bar').map(trace => trace.marker.color))[0]
"""


def test_charts_lay_the_curves_of_both_runs_over_each_other(ui: Ui, browser: Any) -> None:
    show(browser, ui.charts)
    bars = until(lambda: browser.execute_script(PLOTTED).get("test/accuracy"))
    browser.find_element("css selector", "input[placeholder='Search metric charts']").send_keys("val/accuracy")
    lines = until(lambda: browser.execute_script(PLOTTED).get("val/accuracy"))
    curves = [y for kind, _, y in lines if kind == "scatter"]
    for model in ui.runs:
        assert history(model)["val_accuracy"].tolist() in curves
    ((kind, accuracies, _),) = bars
    assert kind == "bar" and sorted(accuracies) == sorted(evaluation(model)["accuracy"] for model in ui.runs)


def test_charts_open_on_validation_accuracy_with_test_accuracy_beside_it_and_the_params_that_differ(
    ui: Ui, browser: Any
) -> None:
    show(browser, ui.charts)
    titles = until(lambda: browser.execute_script(TITLES))
    assert titles[:3] == ["val_accuracy", "test/accuracy", "val_accuracy vs. test/accuracy"]
    until(lambda: "recurrent_units" in [e.text for e in elements(browser, "[role=cell]")])


def test_a_run_has_its_models_colour(ui: Ui, browser: Any) -> None:
    show(browser, ui.charts)
    plotted = until(lambda: browser.execute_script(BARS))
    assert sorted(plotted) == sorted(run_colours.COLOURS[:2])


def test_a_runs_page_tells_its_story_and_shows_pictures_and_tables(ui: Ui, browser: Any) -> None:
    page = f"{ui.table.partition('?')[0]}/{ui.runs['stacked']}"
    show(browser, page)
    accuracy = f"{evaluation('stacked')['accuracy']:.4f}"
    until(lambda: accuracy in [e.text for e in elements(browser, "strong")])  # Markdown, not asterisks
    assert "sample-training" in text(browser)
    show(browser, f"{page}/artifacts/evaluate/learning_accuracy.svg")
    until(lambda: browser.execute_script("return [...document.images].some(image => image.naturalWidth > 300)"))
    show(browser, f"{page}/artifacts/tables/slices.json")
    until(lambda: "length_quartile_1" in [e.text for e in elements(browser, "[role=cell]")])
