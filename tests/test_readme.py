"""What README and the committed reports say is the same."""

import re
from pathlib import Path

import pytest

from pipeline.project import atomic, paths
from pipeline.project.errors import DataError
from pipeline.project.params import load_params
from pipeline.reporting import results
from pipeline.reporting.model_card import model_card
from pipeline.reporting.page import page
from scripts import readme

ROOT = Path(__file__).parent.parent


def test_its_figures_are_those_of_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = readme.README.read_text()
    assert readme.renewed(text) == text


def test_a_part_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(DataError, match="<!-- speed -->"):
        readme.renewed(readme.README.read_text().replace("<!-- speed -->", ""))


def test_the_committed_card_and_page_are_those_of_the_committed_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load_params()
    found = results.read(params.candidates)
    for name in params.candidates:
        assert paths.model_card_file(name).read_text() == model_card(found, name, params.dataset)
    assert paths.MODEL_CARD.read_text() == paths.model_card_file(found.best.name).read_text()
    no_registry = {"decision": "not registered", "reason": "its report is not in git"}
    recurrence = atomic.read_json(paths.RECURRENCE_REPORT)
    noise = results.read_noise(params)
    again = sections(page(found, no_registry, recurrence, noise, results.read_ablations(params), params.dataset))
    committed = sections(paths.REPORT_PAGE.read_text())
    assert again.keys() == committed.keys()
    for name in again.keys() - {"brief", "flipped", "changes"}:  # which tell of the registry
        assert again[name] == committed[name], name


def test_the_gates_margins_of_behaviour_are_the_measured_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load_params()
    noise = atomic.read_json(results.NOISE_REPORT)
    by_model = noise["behaviour"]["models"].values()
    deviation = {name: max(model[name]["deviation"] for model in by_model) for name in next(iter(by_model))}
    known = params.gate.behaviour
    assert known.margins == {name: round(2 * 2**0.5 * value, 2) for name, value in deviation.items()}
    assert known.margin == max(known.margins.values())
    assert f"{len(noise['models']['single']['validation']['values'])} seeds" in (ROOT / "params.yaml").read_text()
    pairs = noise["behaviour"]["pairs"]
    assert pairs["margins"] == known.margins and pairs["passed"] >= 0.9 * pairs["pairs"]


def sections(html: str) -> dict[str, str]:
    """The page's parts by id."""
    return dict(re.findall(r'<section id="(\w+)"[^>]*>(.*?)</section>', html, re.DOTALL))


def test_every_file_that_readme_links_to_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    local = [target for target in re.findall(r"\]\(([^)]+)\)", readme) if not target.startswith("http")]
    assert local
    for target in local:
        assert (ROOT / target).exists(), target
