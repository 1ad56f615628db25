"""A served model's logit is the weighted sum of its parts': a network, n-grams, or both."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Registered

from pipeline.ngrams.classifier import NgramClassifier, fit_ngrams
from pipeline.served_model.loading import load_scorer
from pipeline.served_model.scorer import Scorer

BLEND = {"network": 0.6, "ngrams": 0.45}
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def classifier(reviews: pd.DataFrame) -> NgramClassifier:
    train = reviews.head(600)
    return fit_ngrams(train["text"].tolist(), train["label"].to_numpy(), max_ngram=3, regularization=1.0)


@pytest.fixture(scope="module")
def texts(reviews: pd.DataFrame) -> list[str]:
    """Enough for several batches of the network and several blocks of the n-grams."""
    return reviews["text"].tail(400).tolist()


@pytest.fixture(scope="module")
def folder(registered: Registered, classifier: NgramClassifier, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Makes a served model of these weights, without the files that no weight is for."""

    def make(weights: Any) -> Path:
        made = tmp_path_factory.mktemp("parts") / "model"
        shutil.copytree(Path(registered.paths["mean"]) / "artifacts/served_model", made)
        settings = json.loads((made / "settings.json").read_text())
        (made / "settings.json").write_text(json.dumps(settings | {"weights": weights}))
        if "ngrams" in (weights or ()):
            classifier.save(made / "ngrams.npz")
        if "network" not in (weights or ()):
            (made / "network.onnx").unlink()
        return made

    return make


def test_a_registered_network_has_the_weight_of_one(registered: Registered, texts: list[str]) -> None:
    for path in registered.paths.values():
        scorer = load_scorer(Path(path) / "artifacts/served_model")
        parts = scorer.parts(texts[:20])
        assert list(parts) == ["network"]
        assert scorer.score(texts[:20]).logit.tolist() == parts["network"].tolist()


def test_a_blend_is_the_weighted_sum_of_what_its_parts_say_alone(
    folder: Folder, classifier: NgramClassifier, texts: list[str]
) -> None:
    network, ngrams = (load_scorer(folder({part: 1.0})).score(texts).logit for part in BLEND)
    assert ngrams.tolist() == classifier.logits(texts).tolist()
    blend = load_scorer(folder(BLEND))
    parts = blend.parts(texts)
    assert {name: logit.tolist() for name, logit in parts.items()} == {
        "network": network.tolist(),
        "ngrams": ngrams.tolist(),
    }
    found = blend.score(texts)
    assert found.logit.tolist() == (0.6 * network + 0.45 * ngrams).tolist()
    assert found.probability == pytest.approx(1 / (1 + np.exp(-found.logit)))
    assert (found.label == "positive").tolist() == (found.logit > 0).tolist()


@pytest.mark.parametrize("part", BLEND)
def test_a_weight_alone_is_a_temperature(folder: Folder, texts: list[str], part: str) -> None:
    plain, scaled = (load_scorer(folder({part: weight})) for weight in (1, 0.8))
    assert scaled.score(texts).logit.tolist() == (0.8 * plain.score(texts).logit).tolist()
    assert scaled.parts(texts)[part].tolist() == plain.parts(texts)[part].tolist()


@pytest.mark.parametrize("weights", [BLEND, {"ngrams": 1.1}], ids=["blend", "ngrams"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_company_and_threads_change_no_score(
    folder: Folder, texts: list[str], weights: dict[str, float], threads: int
) -> None:
    scorer, alone = Scorer(folder(weights), threads), Scorer(folder(weights), 1)
    order = np.random.default_rng(0).permutation(len(texts))
    found = scorer.parts([texts[row] for row in order])
    expected = [alone.parts([text]) for text in texts]
    assert found["ngrams"].tolist() == [expected[row]["ngrams"][0] for row in order]
    for part in found:
        assert np.abs(found[part] - [expected[row][part][0] for row in order]).max() < 1e-5
    assert scorer.score(iter(texts)).logit == pytest.approx([alone.score([text]).logit[0] for text in texts], abs=1e-5)


def test_no_texts_have_no_scores(folder: Folder) -> None:
    for weights in (BLEND, {"ngrams": 1.0}):
        scorer = load_scorer(folder(weights))
        assert [len(each) for each in scorer.score([])] == [0] * 4
        assert {name: logit.tolist() for name, logit in scorer.parts([]).items()} == {name: [] for name in weights}


@pytest.mark.parametrize("wrong", [None, float("nan"), 5, b"fine", "", " \n", "half \ud83d"])
def test_n_grams_alone_refuse_what_a_network_refuses(folder: Folder, wrong: Any) -> None:
    scorer = load_scorer(folder({"ngrams": 1.0}))
    for ask in (scorer.score, scorer.parts):
        with pytest.raises(scorer.UnencodableText, match="row 1: the text"):
            ask(["fine", wrong])


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (None, "weights must be those of network, ngrams or both, found None"),
        ({}, "found {}"),
        ([0.5, 0.5], "weights must be"),
        ({"network": 1.0, "trees": 0.1}, "found .*trees"),
        ({"network": -0.5}, "the weight of network must be a number above 0, found -0.5"),
        ({"network": 1.0, "ngrams": 0}, "the weight of ngrams must be"),
        ({"ngrams": "1"}, "found '1'"),
        ({"ngrams": True}, "found True"),
        ({"ngrams": float("nan")}, "found nan"),
        ({"ngrams": float("inf")}, "found inf"),
    ],
)
def test_weights_that_mean_nothing_do_not_load(folder: Folder, weights: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        load_scorer(folder(weights))


@pytest.mark.parametrize("missing", ["network.onnx", "ngrams.npz", "vocabulary.txt"])
def test_a_part_that_has_a_weight_must_be_there(folder: Folder, missing: str) -> None:
    made = folder(BLEND)
    (made / missing).unlink()
    with pytest.raises(FileNotFoundError):
        load_scorer(made)


BARE = """
import json, sys
from pathlib import Path
for name in ("onnxruntime", "sklearn", "scipy", "pandas", "mlflow", "pipeline"):
    sys.modules[name] = None  # importing it fails
sys.path.insert(0, sys.argv[1])
from model.scorer import Scorer
print(json.dumps(Scorer().score(json.load(sys.stdin)).logit.tolist()))
"""


def test_n_grams_alone_are_scored_where_there_is_only_numpy(folder: Folder, texts: list[str]) -> None:
    made = folder({"ngrams": 1.1})
    command = [sys.executable, "-I", "-c", BARE, str(made.parent)]
    done = subprocess.run(command, input=json.dumps(texts[:50]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == load_scorer(made).score(texts[:50]).logit.tolist()
