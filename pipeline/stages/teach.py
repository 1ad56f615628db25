"""Stage `teach`: `python -m pipeline.stages.teach <teacher>` writes what networks that learn from a teacher learn."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.scoring import logits_of
from pipeline.ngrams import teaching
from pipeline.project.atomic import atomic_write, read_table, write_table
from pipeline.project.params import load_params, teacher_argument
from pipeline.project.paths import (
    NGRAMS,
    REVIEW_COLUMNS,
    SPLIT_TABLES,
    TEXT_COLUMNS,
    TOKENS,
    TRAIN,
    model_file,
    teacher_folder,
)
from pipeline.project.run_command import run_command
from pipeline.text.token_arrays import read_tokens


def main() -> None:
    """Gives the texts of the teacher that the command line names their targets."""
    params = load_params()
    name = teacher_argument(params)
    teacher = params.teachers[name]
    train = read_table(SPLIT_TABLES / f"{TRAIN}.parquet", REVIEW_COLUMNS)
    label = train["label"].to_numpy()
    tables = {
        texts: train if texts == TRAIN else read_table(SPLIT_TABLES / f"{texts}.parquet", TEXT_COLUMNS)
        for texts in teacher.texts
    }
    asked: dict[str, list[str]] = {
        texts: table["text"].tolist()
        for texts, table in tables.items()
        if texts != TRAIN or teacher.label_weight < 1  # labels alone need no teacher
    }
    logits = teaching.ngram_logits(train["text"].tolist(), label, asked, params.ngrams, params.seed)
    if teacher.by != NGRAMS:  # a second generation
        for texts, found in student_logits(teacher.by, [one for one in asked if one != TRAIN], params.seed).items():
            logits[texts] = (logits[texts] + found) / 2
    with atomic_write(teacher_folder(name)) as folder:
        folder.mkdir()
        for texts, table in tables.items():
            logit = logits.get(texts, np.zeros(len(table)))
            target = teaching.targets(logit, label if texts == TRAIN else None, teacher)
            write_table(
                folder / f"{texts}.parquet", pd.DataFrame({"id": table["id"], "logit": logit, "target": target})
            )


def student_logits(model: str, texts: Sequence[str], seed: int) -> dict[str, NDArray[np.float32]]:
    """Returns the logits of a trained network, <float32>[texts] by what the texts are."""
    from pipeline.training import networks

    print(f"asking {model} on {networks.prepare_device(seed=seed, deterministic=False)}", flush=True)
    params, _, _ = networks.read_model(model_file(model))
    scored = networks.scoring(networks.load_model(model_file(model), params))
    return {one: logits_of(scored, read_tokens(TOKENS / one)) for one in texts}


if __name__ == "__main__":
    run_command(main)
