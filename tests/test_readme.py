"""What README and the committed reports say is the same."""

import re
from pathlib import Path

import pytest

from benchmarks import report as benchmark
from pipeline import artifacts, results, summary
from pipeline.model_card import model_card
from pipeline.params import load_params
from pipeline.report import page

ROOT = Path(__file__).parent.parent


def test_the_results_table_is_that_of_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"<!-- results: .*?-->\n(.*?)\n<!-- end of results -->", readme, re.DOTALL)
    assert shown
    assert shown[1] == summary.markdown()


def test_the_speed_table_is_that_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if not benchmark.REPORT.exists():
        pytest.skip("no full run of `make bench` is committed yet")
    shown = re.search(r"<!-- speed: .*?-->\n(.*?)\n?<!-- end of speed -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown
    assert shown[1] == benchmark.markdown()


def test_the_figures_in_its_sentences_are_those_of_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = results.read(list(load_params().models))
    said = " ".join((ROOT / "README.md").read_text().split())
    assert results.batching_sentence(found).rstrip(".")[1:] in said
    assert f"Test split, {found.comparison['reviews']:,} reviews" in said
    assert f"seed {found.best.tags['seed']}" in said


def test_the_committed_card_and_page_are_those_of_the_committed_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load_params()
    found = results.read(list(params.models))
    for name in params.models:
        assert artifacts.model_card_file(name).read_text() == model_card(found, name, params.dataset)
    assert artifacts.MODEL_CARD.read_text() == artifacts.model_card_file(found.best.name).read_text()
    no_registry = {"decision": "not registered", "reason": "its report is not in git"}
    recurrence = artifacts.read_json(artifacts.RECURRENCE_REPORT)
    again = sections(page(found, no_registry, recurrence, params.dataset))
    committed = sections(artifacts.REPORT_PAGE.read_text())
    assert again.keys() == committed.keys()
    for name in again.keys() - {"brief", "flipped", "changes"}:  # which tell of the registry
        assert again[name] == committed[name], name


def sections(html: str) -> dict[str, str]:
    """The page's parts by id."""
    return dict(re.findall(r'<section id="(\w+)"[^>]*>(.*?)</section>', html, re.DOTALL))


def test_every_file_that_readme_links_to_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    local = [target for target in re.findall(r"\]\(([^)]+)\)", readme) if not target.startswith("http")]
    assert local
    for target in local:
        assert (ROOT / target).exists(), target
