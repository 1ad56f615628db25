"""What docstrings show as an example is what the code does."""

import doctest
import importlib
from pathlib import Path

import pytest
from conftest import ROOT

WITH_EXAMPLES = sorted(file for file in (ROOT / "pipeline").rglob("*.py") if ">>> " in file.read_text())


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_of_a_module_hold(file: Path) -> None:
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed
