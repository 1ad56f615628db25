"""A served model is a folder: its code is loaded beside others, leaves nothing, and takes the threads it is given."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Registered

from pipeline.served_model.loading import load_scorer
from pipeline.served_model.scorer import Scorer


@pytest.fixture(scope="module")
def folders(registered: Registered) -> dict[str, Path]:
    return {name: Path(path) / "artifacts/served_model" for name, path in registered.paths.items()}


def test_two_versions_run_the_code_that_each_carries(folders: dict[str, Path], tmp_path: Path) -> None:
    edited = tmp_path / "edited"
    shutil.copytree(folders["mean"], edited)
    scorer = edited / "scorer.py"
    scorer.write_text(scorer.read_text().replace('"negative", "positive"', '"bad", "good"'))
    before = set(sys.modules)
    first, second = load_scorer(folders["mean"]), load_scorer(edited)
    assert set(sys.modules) - before <= {name for name in sys.modules if name.startswith("onnxruntime")}
    texts = ["Wonderful.", "Dull."]
    a, b = first.score(texts), second.score(texts)
    assert [{"negative": "bad", "positive": "good"}[label] for label in a.label] == b.label.tolist()
    assert a.logit.tolist() == b.logit.tolist()
    with pytest.raises(second.UnencodableText, match="row 1: the text is blank"):
        second.score(["fine", " "])
    assert second.UnencodableText is not first.UnencodableText
    assert {file.suffix for file in edited.rglob("*") if file.is_file()} == {".py", ".onnx", ".txt", ".json"}


@pytest.mark.parametrize("missing", ["network.onnx", "vocabulary.txt", "settings.json", "scorer.py", "__init__.py"])
def test_a_folder_that_is_not_whole_does_not_load(folders: dict[str, Path], tmp_path: Path, missing: str) -> None:
    before = set(sys.modules)
    shutil.copytree(folders["last"], tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises((OSError, ImportError)):
        load_scorer(tmp_path / "model")
    assert not [name for name in set(sys.modules) - before if name.startswith("served_model")]


def test_a_vocabulary_of_another_network_does_not_load(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["last"], tmp_path / "model")
    shutil.copy(folders["mean"] / "vocabulary.txt", tmp_path / "model")
    with pytest.raises(Exception, match="indices element out of data bounds"):
        load_scorer(tmp_path / "model")


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_changes_no_score(folders: dict[str, Path], reviews: pd.DataFrame, threads: int) -> None:
    texts = reviews["text"].head(300).tolist()
    found = Scorer(folders["mean"], threads).score(texts)
    alone = Scorer(folders["mean"], 1)
    expected = np.array([alone.score([text]).logit[0] for text in texts])
    assert np.abs(found.logit - expected).max() < 1e-5


THREADS = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import onnxruntime  # starts one, which sleeps
from served_model.scorer import Scorer
def threads(): return len(os.listdir("/proc/self/task"))
before = threads()
scorer = Scorer()
scorer.score(["One review."] * 3)
print(threads() - before, scorer._threads)
"""


@pytest.mark.parametrize(("given", "expected"), [("1", "1"), ("3", "3"), ("2,1", "2"), ("", None), ("none", None)])
def test_a_worker_takes_no_more_threads_than_it_is_given(
    folders: dict[str, Path], tmp_path: Path, given: str, expected: str | None
) -> None:
    """ONNX Runtime by itself starts one a core and lets them spin (its issue 3099)."""
    shutil.copytree(folders["last"], tmp_path / "served_model")
    environment = os.environ | {"OMP_NUM_THREADS": given}
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    started, used = done.stdout.split()
    assert started == "0"
    assert used == (expected or str(len(os.sched_getaffinity(0))))


def test_the_threshold_and_the_length_are_settings(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["mean"], tmp_path / "model")
    scorer = load_scorer(folders["mean"])
    texts = ["A film that stays with you for days.", "Dull."]
    probability = scorer.score(texts).probability
    between = {"max_tokens": 1024, "unsure": None, "threshold": float(probability.mean()), "weights": {"network": 1.0}}
    (tmp_path / "model/settings.json").write_text(json.dumps(between))
    other = load_scorer(tmp_path / "model").score(texts)
    assert sorted(other.label) == ["negative", "positive"]
    assert other.probability.tolist() == probability.tolist()
    (tmp_path / "model/settings.json").write_text(json.dumps(between | {"max_tokens": 1}))
    short = load_scorer(tmp_path / "model")
    assert [len(ids) for ids in short.encode(texts)] == [1, 1]


def test_an_answer_is_sure_outside_the_band_and_never_of_a_text_that_is_none_of_what_was_learnt(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    texts = [
        "A film that stays with you for days.",
        "Dull and far too long.",
        "我喜欢这部电影",
        "\x01\x02\x03",
        ":-)",
        "7 8 9",
    ]
    shutil.copytree(folders["last"], tmp_path / "model")
    settings = tmp_path / "model/settings.json"

    def sure(unsure: list[float] | None) -> list[bool]:
        edited = {"max_tokens": 1024, "threshold": 0.5, "unsure": unsure, "weights": {"network": 1.0}}
        settings.write_text(json.dumps(edited))
        return load_scorer(tmp_path / "model").score(texts).sure.tolist()

    assert sure([0.5, 0.5]) == [True, True, False, False, False, False]
    assert sure(None) == [False] * len(texts)
    probability = load_scorer(tmp_path / "model").score(texts).probability
    low, high = sorted(probability[:2].tolist())
    assert sure([low - 1e-9, high + 1e-9])[:2] == [False, False]
    assert sure([low, high + 1e-9])[:2] == [probability[0] == low, probability[1] == low]
    assert load_scorer(tmp_path / "model").score([]).sure.tolist() == []
