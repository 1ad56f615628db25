"""The registered model scores raw text: anywhere, in any company, and refuses what makes no sense."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Registered
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from pipeline.served_model.scorer import BATCH_ROWS, bucketed

NOTHING = "\u2003 \n\t"


@pytest.fixture(scope="module")
def models(registered: Registered) -> dict[str, PyFuncModel]:
    """Two versions, loaded into this process: another architecture, vocabulary and max_tokens each."""
    return {name: mlflow.pyfunc.load_model(path) for name, path in registered.paths.items()}


def scores(model: PyFuncModel, texts: list[Any]) -> pd.DataFrame:
    return model.predict(pd.DataFrame({"text": pd.Series(texts, dtype=object)}))


def logits(model: PyFuncModel, texts: list[Any]) -> np.ndarray:
    return scores(model, texts)["logit"].to_numpy()


@pytest.fixture(scope="module")
def texts(reviews: pd.DataFrame) -> list[str]:
    """Real reviews from a few words to several thousand tokens."""
    by_length = sorted(reviews["text"], key=len)
    return [*by_length[:20], *by_length[20:-20:40], *by_length[-20:]]


@pytest.fixture(scope="module")
def alone(models: dict[str, PyFuncModel], texts: list[str]) -> dict[str, np.ndarray]:
    """The logit of each of `texts` when it is scored alone."""
    return {name: np.array([logits(model, [text])[0] for text in texts]) for name, model in models.items()}


@pytest.mark.parametrize("version", ["last", "mean"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_score_does_not_depend_on_what_else_is_in_the_batch(
    models: dict[str, PyFuncModel], texts: list[str], alone: dict[str, np.ndarray], version: str, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=80))
    together = logits(models[version], [texts[row] for row in rows])
    assert np.abs(together - alone[version][rows]).max() < 1e-5


def test_results_come_in_the_callers_order_under_the_callers_index(
    models: dict[str, PyFuncModel], texts: list[str], alone: dict[str, np.ndarray]
) -> None:
    order = np.random.default_rng(3).permutation(len(texts))
    table = pd.DataFrame({"stars": order, "text": [texts[row] for row in order]}, index=order + 100)
    found = models["mean"].predict(table)
    assert list(found.columns) == ["label", "probability", "logit", "sure"]
    assert found.index.tolist() == (order + 100).tolist()
    assert np.abs(found["logit"].to_numpy() - alone["mean"][order]).max() < 1e-5
    assert found["probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-found["logit"].to_numpy())))
    assert found["label"].tolist() == ["positive" if logit > 0 else "negative" for logit in found["logit"]]


def test_no_rows_have_no_scores(models: dict[str, PyFuncModel]) -> None:
    assert len(scores(models["mean"], [])) == 0


@given(
    lengths=st.lists(st.integers(1, 2000), max_size=2000),
    batch_tokens=st.sampled_from([16, 1000, 2**13]),
)
@settings(deadline=None)
def test_each_row_is_in_one_batch_of_bounded_size(lengths: list[int], batch_tokens: int) -> None:
    batches = list(bucketed(lengths, batch_tokens))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        widest = max(lengths[row] for row in rows)
        assert 1 <= len(rows) <= BATCH_ROWS
        assert len(rows) == 1 or widest * len(rows) <= batch_tokens


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (None, "the text is missing"),
        (float("nan"), "the text is missing"),
        (pd.NA, "the text is missing"),
        (5, "the text is not a string: 5"),
        (["a"], "the text is not a string: ['a']"),
        (b"fine", "the text is not a string: b'fine'"),
        ("", "the text is blank"),
        (NOTHING, "the text is blank"),
        ("half \ud83d", "the text holds a lone surrogate: U+D83D at position 5"),
    ],
)
def test_what_is_no_text_is_refused_with_its_row(models: dict[str, PyFuncModel], wrong: Any, reason: str) -> None:
    with pytest.raises(MlflowException) as refused:
        scores(models["mean"], ["fine", "also fine", wrong, "fine"])
    assert refused.value.message == f"row 2: {reason}"
    assert refused.value.get_http_status_code() == 400


def test_another_column_is_refused(models: dict[str, PyFuncModel]) -> None:
    with pytest.raises(MlflowException, match="text") as refused:
        models["mean"].predict(pd.DataFrame({"review": ["fine"]}))
    assert refused.value.get_http_status_code() == 400


@pytest.mark.parametrize("text", ["🙂", "a\0b\0", "\0", "¿Qué?", "中" * 3000, "x" * 1_000_000, "wonderful " * 100_000])
def test_any_other_text_has_a_score(models: dict[str, PyFuncModel], text: str) -> None:
    (logit,) = logits(models["mean"], [text])
    assert np.isfinite(logit)


def test_two_versions_in_one_process_keep_to_themselves(
    models: dict[str, PyFuncModel], registered: Registered, texts: list[str], alone: dict[str, np.ndarray]
) -> None:
    """`models` and `alone` were made with both loaded; each scores as in a process of its own."""
    for name, path in registered.paths.items():
        apart = score_elsewhere(registered.folder, path, texts[:10])
        assert np.abs(np.array(apart["logit"]) - alone[name][:10]).max() < 1e-5
    assert np.abs(alone["last"] - alone["mean"]).max() > 0.01


ELSEWHERE = """
import json, sys
import mlflow, pandas as pd, pipeline
assert pipeline.NAME == "the application's own"
path, texts = json.load(sys.stdin)
found = mlflow.pyfunc.load_model(path).predict(pd.DataFrame({"text": texts}))
assert not [name for name in sys.modules if name.startswith("pipeline.")]
print(json.dumps({name: found[name].tolist() for name in found}))
"""


def score_elsewhere(folder: Path, path: str, texts: list[str]) -> dict[str, list[Any]]:
    """Scores in a process that knows this project by no import, but has a package `pipeline` of its own."""
    package = folder / "application" / "pipeline"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text('NAME = "the application\'s own"\n')
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=json.dumps([path, texts]),
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_threads_share_a_model(models: dict[str, PyFuncModel], texts: list[str], alone: dict[str, np.ndarray]) -> None:
    differences: list[float] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(5):
            rows = rng.integers(0, len(texts), 20)
            together = logits(models["mean"], [texts[row] for row in rows])
            differences.append(float(np.abs(together - alone["mean"][rows]).max()))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(differences) == 30 and max(differences) < 1e-5


def test_a_version_holds_code_and_pinned_requirements_and_nothing_pickled(registered: Registered) -> None:
    code = {"__init__.py", "loading.py", "ngrams.py", "scorer.py", "tokenizer.py"}
    for path in registered.paths.values():
        folder = Path(path) / "artifacts/served_model"
        files = code | {"network.onnx", "vocabulary.txt", "settings.json"}
        assert {file.name for file in folder.iterdir()} == files, "loading it left nothing there"
        assert [file.name for file in Path(path).glob("*.py")] == ["pyfunc_model.py"]
        names = [file.name for file in Path(path).rglob("*")]
        assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
        pinned = (Path(path) / "requirements.txt").read_text().split()
        assert {line.partition("==")[0] for line in pinned} == {"mlflow", "numpy", "onnxruntime", "pandas"}
        assert all("==" in line for line in pinned)


def test_importing_the_module_leaves_mlflow_as_it_is() -> None:
    code = (
        "import mlflow.models.model, pipeline.served_model.pyfunc_model\n"
        "assert getattr(mlflow.models.model, '__mlflow_model__', None) is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    assert done.returncode == 0
