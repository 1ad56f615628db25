"""Makes, in the working folder, a registry with two versions of `imdb-sentiment-sample`, for the tests that score.

Version 1 is a stacked model on the last state with a small vocabulary; version 2, the champion, pools over all steps
and has large embeddings, so that each single token id shows in its logit. Neither is trained. It runs as a process of
its own, since MLflow's store is a setting of the whole process.
"""

import json

import numpy as np
import pandas as pd

from pipeline.data.sources import SAMPLE
from pipeline.evaluation.candidates import served_files
from pipeline.project.params import ModelParams
from pipeline.project.paths import TOKENIZER, VOCABULARY, model_file
from pipeline.registry import versions
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.vocabulary import build_vocabulary
from pipeline.tracking.runs import connect, experiment_id
from pipeline.training.networks import build_model, save_model, weights_sha256
from pipeline.training.onnx_graph import onnx_graph

NAME = "imdb-sentiment-sample"


def params(units: list[int], pooling: str) -> ModelParams:
    return ModelParams.model_validate(
        {
            "cell": "lstm",
            "embedding_dim": 8,
            "recurrent_units": units,
            "pooling": pooling,
            "dense_units": 8,
            "dropout": 0.0,
            "token_dropout": 0.0,
            "learning_rate": 0.01,
            "learns_from": "labels",
            "epochs": 1,
        }
    )


VERSIONS = {
    "last": (params([8, 4], "last"), 1000, 96),
    "mean": (params([8], "mean"), 2000, 1024),
}


def main() -> None:
    client = connect()
    client.create_registered_model(NAME)
    texts = pd.read_parquet(SAMPLE)["text"].tolist()
    paths = {}
    for seed, (name, (model_params, vocabulary_size, max_tokens)) in enumerate(VERSIONS.items()):
        tokenizer = SubwordTokenizer(build_vocabulary(texts[:500], vocabulary_size))
        TOKENIZER.mkdir(parents=True, exist_ok=True)
        tokenizer.save(VOCABULARY)
        model = build_model(model_params, tokenizer.vocabulary_size)
        rng = np.random.default_rng(seed)
        model.set_weights([rng.uniform(-0.7, 0.7, weight.shape) for weight in model.get_weights()])
        save_model(model_file(name), model, model_params)
        run = client.create_run(experiment_id(client), run_name=name)
        served = {**model_params.model_dump(), "max_tokens": max_tokens}
        weights = weights_sha256(model)
        graph = onnx_graph(model_params, model.get_weights())
        files = served_files({"network": graph}, {"network": 1.0}, [0.4, 0.6], max_tokens)
        candidate = versions.Candidate(name, run.info.run_id, weights, served, files)
        logged = versions.log_model(candidate)
        version = client.create_model_version(
            NAME,
            logged.model_uri,
            run.info.run_id,
            model_id=logged.model_id,
            tags={versions.FILES: versions.files_digest(logged.model_uri)},
        )
        client.set_terminated(run.info.run_id)
        paths[name] = logged.artifact_path.removeprefix("file://")
    client.set_registered_model_alias(NAME, versions.CHAMPION, version.version)
    print(json.dumps(paths))


if __name__ == "__main__":
    main()
