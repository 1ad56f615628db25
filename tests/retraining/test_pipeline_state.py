"""The key by which the job knows that data, params and code are those of an earlier run."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.retraining import pipeline_state

STAGE = "stages: {{make: {{cmd: python make.py, params: [seed], deps: [data.csv, {module}], outs: [made.csv]}}}}\n"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of a project of one stage, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    Path("data.csv").write_text("a,b\n")
    Path("params.yaml").write_text("seed: 1\n")
    Path("one.py").write_text("print(1)\n")
    Path("dvc.yaml").write_text(STAGE.format(module="one.py"))
    return pipeline_state.read_state().key


def test_moved_code_is_the_same_code(key: str) -> None:
    Path("package").mkdir()
    Path("one.py").rename("package/two.py")
    Path("dvc.yaml").write_text(STAGE.format(module="package/two.py"))
    assert pipeline_state.read_state().key == key


@pytest.mark.parametrize(
    ("file", "content"), [("one.py", "print(2)\n"), ("data.csv", "a,c\n"), ("params.yaml", "seed: 2\n")]
)
def test_other_code_data_or_params_have_another_key(key: str, file: str, content: str) -> None:
    Path(file).write_text(content)
    assert pipeline_state.read_state().key != key
