"""A project folder whose models are trained: the outputs of `dvc repro` up to `evaluate`, small enough for a test.

`python tests/trained_project.py FOLDER` makes what needs TensorFlow, once; `train` then puts a training's outputs and
its MLflow run in place in milliseconds, so that the registry's tests spend their time on the registry.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # when run as a script

from pipeline.project import atomic, paths  # noqa: E402
from pipeline.project.params import load_params  # noqa: E402
from pipeline.project.training_record import write_run  # noqa: E402
from pipeline.tracking import runs  # noqa: E402

MODELS = ("a", "b", "c")
NAME = "tiny"
TEST_REVIEWS = 48
MAX_TOKENS = 32
TINY = {"cell": "gru", "embedding_dim": 2, "recurrent_units": [2], "dense_units": 2, "dropout": 0.0}
# New training rows open the gate and nothing shuts it: who wins is the tests' choice.
OPEN_GATE = {
    "level": 0.01,
    "bootstrap_samples": 1000,
    "non_inferiority_margin": 0.99,
    "length_slice_margin": 0.99,
    "label_slice_margin": 0.99,
    "fresh_min_rows": 20,
    "min_accuracy": {"imdb_reviews": 0.0, "sample": 0.0},
    "behaviour": {"margins": {}, "margin": 1.0, "lead": 1.0, "max_span": {"imdb_reviews": {}, "sample": {}}},
}
BEHAVIOUR = """
capability: names
tests:
  - {name: another name, kind: invariance, vary: first, templates: ["{first} plays.", "I saw {first}."], cases: 2}
lexicons:
  first: [Mary, Omar]
"""
"""What the behavioural tests are, so that a decision takes no time for them."""


def write_params(folder: Path) -> None:
    """Writes the committed params.yaml, on the sample, with one tiny model and the open gate."""
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["dataset"] = "sample"
    params["tokenize"] = {"vocabulary_size": 600, "max_tokens": MAX_TOKENS}
    params["models"] = {NAME: params["models"]["single"] | TINY}
    params |= {"blend": NAME, "candidates": [NAME]}
    params["gate"] |= OPEN_GATE
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params, file)


def make(folder: Path) -> None:
    """Writes params, vocabulary, splits, models of different weights and their predictions to `folder`."""
    import keras
    import numpy as np

    from pipeline.data.sources import SAMPLE
    from pipeline.evaluation import candidates, metrics
    from pipeline.served_model.tokenizer import SubwordTokenizer
    from pipeline.text.token_arrays import write_tokens
    from pipeline.text.vocabulary import build_vocabulary
    from pipeline.training import networks, onnx_graph

    reviews = pd.read_parquet(SAMPLE)
    test, known = reviews.head(TEST_REVIEWS), reviews.iloc[TEST_REVIEWS : TEST_REVIEWS + 60]
    write_params(folder)
    params = load_params(folder / "params.yaml")
    splits = {"test": test, "train": known.head(40), "validation": known.tail(20), "fresh": known.head(0)}
    for split, table in splits.items():
        atomic.write_table(folder / paths.SPLIT_TABLES / f"{split}.parquet", table)
    tokenizer = SubwordTokenizer(build_vocabulary(known["text"], params.tokenize.vocabulary_size))
    atomic.write_text(folder / paths.BEHAVIOUR / "names.yaml", BEHAVIOUR)
    (folder / paths.TOKENIZER).mkdir(parents=True)
    tokenizer.save(folder / paths.VOCABULARY)
    train, size = known.head(40), tokenizer.vocabulary_size
    train_ids = tokenizer.encode_batch(train["text"], MAX_TOKENS)
    write_tokens(
        folder / paths.TOKENS / "train", train_ids, train["id"].tolist(), train["label"].tolist(), vocabulary_size=size
    )
    token_ids = tokenizer.encode_batch(test["text"], MAX_TOKENS)
    padded = keras.utils.pad_sequences(token_ids, dtype="int32", padding="post")
    rest = reviews.iloc[TEST_REVIEWS + 60 :][["id", "text"]]
    rest_ids = tokenizer.encode_batch(rest["text"], MAX_TOKENS)
    padded_rest = keras.utils.pad_sequences(rest_ids, dtype="int32", padding="post")
    for seed, which in enumerate(MODELS, start=1):
        keras.utils.set_random_seed(seed)
        network = networks.build_model(params.model(NAME), tokenizer.vocabulary_size)
        networks.save_model(folder / f"trained/{which}.npz", network, params.model(NAME))
        graph = onnx_graph.onnx_graph(params.model(NAME), network.get_weights())
        served = candidates.served_files({"network": graph}, {"network": 1.0}, [0.4, 0.6], MAX_TOKENS)
        for name, content in served.items():
            file = folder / "trained" / which / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        logit, logit_of_rest = networks.scoring(network)([padded, padded_rest])
        predictions = test[["id", "label"]].assign(
            logit=logit, probability=metrics.probability(logit), length=np.array([len(ids) for ids in token_ids])
        )
        atomic.write_table(folder / f"trained/{which}.parquet", predictions)
        rest[which] = (logit_of_rest > 0).astype(int)
        (folder / f"trained/{which}.sha256").write_text(networks.weights_sha256(network))
    atomic.write_table(folder / "trained/rest.parquet", rest)


def train(which: str, *, new_reviews: int = 0, fresh_reviews: int = 0) -> str:
    """Puts the outputs of a training that ended in model `which` into the working folder, and its run into the store.
    Args:
        which: one of MODELS.
        new_reviews: training reviews more than before.
        fresh_reviews: how many fresh reviews there are from now on, 0 leaves those there are; it is right on all of
            them, and model `a` on as few as there are such reviews.

    Returns:
        The run's id.
    """
    source = Path("trained")
    if new_reviews:
        file = paths.SPLIT_TABLES / "train.parquet"
        rows = pd.read_parquet(file)
        count = len(rows)
        more = [
            {"id": f"new/{count + i}", "text": f"New review {count + i}.", "label": i % 2} for i in range(new_reviews)
        ]
        atomic.write_table(file, pd.concat([rows, pd.DataFrame(more)], ignore_index=True))
    for out in (paths.model_file(NAME), paths.predictions_file(NAME)):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / f"{which}{out.suffix}", out)
    shutil.copytree(source / which, paths.candidate_folder(NAME), dirs_exist_ok=True)
    choice: dict[str, object] = {"chosen": NAME, "best": NAME, "reason": f"{NAME} is the only one."}
    choice |= {"standings": [{"name": NAME, "milliseconds": 0.5}]}
    atomic.write_json(paths.COMPARISON_REPORT, {"best": NAME, "choice": choice})
    file = paths.SPLIT_TABLES / "fresh.parquet"
    if fresh_reviews:
        rest = pd.read_parquet(source / "rest.parquet")
        told_apart = rest.assign(label=rest[which]).sort_values("a", key=lambda a: a == rest[which], kind="stable")
        atomic.write_table(file, told_apart.head(fresh_reviews)[["id", "text", "label"]])
    tags = {"model": NAME, "dataset": "sample", "seed": "42", "device": "CPU"}
    params = load_params()
    logged = params.tokenize.model_dump() | params.model(NAME).model_dump()
    weights = (source / f"{which}.sha256").read_text()
    with runs.training_run(NAME, None, tags, logged) as run_id:
        metrics = {"val_accuracy": 0.5, "val_loss": 0.7, "epochs": 1}
        training = {"model": NAME, "weights_sha256": weights, "metrics": metrics, "params": logged}
        reports = paths.train_reports(NAME)
        atomic.write_json(reports / "training.json", training)
        epoch = {"epoch": [1], "loss": [0.7], "accuracy": [0.5], "val_loss": [0.7], "val_accuracy": [0.5]}
        pd.DataFrame(epoch).to_csv(reports / "history.csv", index=False)
        times = {"training_seconds": 1.0, "seconds_per_epoch": 1.0}
        write_run(NAME, runs.run_record(run_id), times=times, epoch_seconds=[1.0], tags=tags)
        runs.log_weights(run_id, weights)
        runs.log_artifacts(run_id, reports, "train")
        atomic.write_text(paths.model_card_file(NAME), f"# Model card of {which}\n")
        atomic.write_json(paths.evaluated_file(NAME), {"validation": {"sure": {"band": [0.4, 0.6]}}})
    return run_id


if __name__ == "__main__":
    make(Path(sys.argv[1]))
