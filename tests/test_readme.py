"""What README and the committed reports say is the same."""

import re
from pathlib import Path

import pytest

from pipeline import summary

ROOT = Path(__file__).parent.parent


def test_the_results_table_is_that_of_the_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"<!-- results: .*?-->\n(.*?)\n<!-- end of results -->", readme, re.DOTALL)
    assert shown
    assert shown[1] == summary.markdown()


def test_every_file_that_readme_links_to_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    local = [target for target in re.findall(r"\]\(([^)]+)\)", readme) if not target.startswith("http")]
    assert local
    for target in local:
        assert (ROOT / target).exists(), target
