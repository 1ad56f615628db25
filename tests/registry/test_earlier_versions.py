"""A version that was registered before the packages (commit 3bf26bf) still loads, scores, and is known for what it is.

`version_of_3bf26bf.tar.gz` is the model folder that `tests/log_models.py` of that commit logged as `last`, its absolute
paths taken out; SCORES is what it gave there.
"""

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.project import paths
from pipeline.registry import versions
from pipeline.serving import models
from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "imdb-sentiment-sample"
WEIGHTS = "3d68cf92d326ca9abecf6c353fcafe830676f2e92fce3f73e8af16ee37b32669"
PARAMS = {"cell": "lstm", "embedding_dim": 8, "recurrent_units": [8, 4], "pooling": "last", "dense_units": 8}
SERVED = PARAMS | {"max_tokens": 96}
SCORES = {
    "A film that stays with you for days.": 0.33951738476753235,
    "Two hours that I will never get back.": 0.3290553689002991,
    "Dull.": 0.34999871253967285,
}


@pytest.fixture
def client(project: Path) -> "MlflowClient":
    """A store in which that version is champion, with the tags that versions had then."""
    with tarfile.open(Path(__file__).parent / "version_of_3bf26bf.tar.gz") as archive:
        archive.extractall(project)  # Python 3.11.2, of Debian 12, knows no filter
    runs.connect.cache_clear()
    client = runs.connect()
    run = client.create_run(runs.experiment_id(client), tags={runs.KIND: runs.TRAINING})
    for name, value in SERVED.items():
        client.log_param(run.info.run_id, name, value)
    client.create_registered_model(NAME)
    source = (project / "old_version").as_uri()
    tags = {"model": "last", versions.WEIGHTS: WEIGHTS, versions.FILES: versions.files_digest(source)}
    client.create_model_version(NAME, source, run.info.run_id, tags=tags)
    client.set_registered_model_alias(NAME, versions.CHAMPION, "1")
    paths.TOKENIZER.mkdir(parents=True)
    vocabulary = project / "old_version/artifacts/classifier/vocabulary.txt"
    paths.VOCABULARY.write_bytes(vocabulary.read_bytes())
    return client


def candidate(**others: object) -> versions.Candidate:
    """What says of itself that it has the version's weights, vocabulary and params."""
    files = {"vocabulary.txt": paths.VOCABULARY.read_bytes(), "scorer.py": b"# of today"}
    return versions.Candidate("last", "0" * 32, WEIGHTS, SERVED | others, files)


def test_it_scores_what_it_scored_then(client: "MlflowClient") -> None:
    _, _, logit = models.load(None).score(list(SCORES))
    assert logit.tolist() == pytest.approx(list(SCORES.values()), abs=1e-5)
    versions.require_servable(versions.resolve(client, NAME, "champion"))


def test_it_gets_the_tags_that_versions_have_today_but_that_of_the_code(client: "MlflowClient") -> None:
    assert versions.find_version(client, NAME, candidate()) is None, "today's code is other code"
    tags = versions.resolve(client, NAME, "1").tags
    known = {name: value for name, value in candidate().identity().items() if name != versions.SERVED}
    assert tags.items() >= known.items() and versions.SERVED not in tags


def test_other_params_or_another_vocabulary_are_another_version(client: "MlflowClient") -> None:
    assert versions.find_version(client, NAME, candidate(max_tokens=97)) is None
    with paths.VOCABULARY.open("a") as file:
        file.write("more\n")
    assert versions.find_version(client, NAME, candidate()) is None
