"""What labels, soft labels and unlabelled reviews are each worth to the network `single`, and how much labelling pays:
`make ablations`.

Of a budget of labels, drawn with several seeds, the network learns alone and taught, and the n-grams learn from them
too. Within a budget no other label is used for anything but the final score, on the test split: epochs are fixed
beforehand and n-grams are cross-fitted inside the budget, whose other training reviews count as unlabelled. Nothing is
chosen by these figures.

What was measured stands in `reports/ablations.json` and is not measured again, unless params that decide it changed: a
run that was stopped goes on with the next epoch.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.scoring import logits_of
from pipeline.ngrams import teaching
from pipeline.ngrams.classifier import fit_ngrams
from pipeline.project import tables
from pipeline.project.atomic import read_json, read_table, write_json
from pipeline.project.params import ModelParams, Params, TeacherParams, load_params
from pipeline.project.paths import (
    CHECKPOINTS,
    SENTENCES,
    SPLIT_TABLES,
    TOKENS,
    TRAIN,
    UNLABELLED,
    VALIDATION_BATCHES,
)
from pipeline.project.run_command import run_command
from pipeline.reporting import results
from pipeline.reporting.results import ABLATED, ABLATED_COURSE, ABLATIONS_REPORT
from pipeline.text.batching import Plan, read_batches
from pipeline.text.encoding import load_tokenizer
from pipeline.text.token_arrays import TokenArray, read_tokens
from pipeline.training import fitting, networks
from pipeline.training.examples import Examples

BUDGETS = (1000, 500, 2500, 5000, None)
"""Labels, None is all: the one that most is asked of first."""
SEEDS = (1, 2, 3)
"""Of the draw of the labels and of the training."""
FEWEST_STEPS = 700
"""Of a training without other texts: two epochs of all training reviews, so that few are seen often enough."""


@dataclass(frozen=True)
class Setting:
    """What a network learns from: `labels` of the training reviews (None: all), drawn with `seed`, and, where it is
    taught, which `texts`; a label counts `label_weight` of a labelled review's target."""

    what: str
    labels: int | None
    seed: int
    texts: tuple[str, ...]
    label_weight: float


def settings() -> Iterator[Setting]:
    """Yields all settings, in the order in which they are measured."""
    everything = (TRAIN, UNLABELLED, SENTENCES)
    for seed in SEEDS:
        for labels in BUDGETS:
            yield Setting("labels alone", labels, seed, (TRAIN,), 1.0)
            yield Setting("taught", labels, seed, everything, 0.5)
    yield Setting("soft labels alone", None, SEEDS[0], (TRAIN,), 0.0)
    yield Setting("unlabelled alone", None, SEEDS[0], everything[1:], 0.0)


class Data:
    """The texts with their token ids, by what they are."""

    def __init__(self) -> None:
        names = (TRAIN, UNLABELLED, SENTENCES, "test")
        self.texts = {name: read_table(SPLIT_TABLES / f"{name}.parquet", ("text",))["text"].tolist() for name in names}
        self.tokens: dict[str, TokenArray] = {name: read_tokens(TOKENS / name) for name in names}

    def label(self, name: str) -> NDArray[np.int8]:
        """Returns <int8>[reviews]."""
        label = self.tokens[name].label
        assert label is not None
        return label


def main() -> None:
    """Measures what is not measured yet, and prints the table."""
    params = load_params()
    print(f"training on {networks.prepare_device(seed=0, deterministic=params.train.deterministic)}", flush=True)
    depends = results.ablated(params)
    report = read_json(ABLATIONS_REPORT, ("measured",)) if ABLATIONS_REPORT.exists() else {}
    if report.get("params") != depends:
        report = {"params": depends, "settings": len(list(settings())), "measured": []}
        write_json(ABLATIONS_REPORT, report)
    known = [{name: one[name] for name in asdict(next(settings()))} for one in report["measured"]]
    data = Data()
    for setting in settings():
        described = json.loads(json.dumps(asdict(setting)))
        if described in known:
            continue
        print(f"{setting.what}, {setting.labels or 'all'} labels, seed {setting.seed}", flush=True)
        report["measured"].append(described | measure(setting, data, params))
        write_json(ABLATIONS_REPORT, report)
    print(table(report["measured"]))


def drawn(label: NDArray[np.int8], labels: int | None, seed: int) -> NDArray[np.bool_]:
    """Returns which reviews are labelled, <bool>[reviews]: equally many of both labels, or all."""
    found = np.full(len(label), labels is None)
    if labels is not None:
        rng = np.random.default_rng(seed)
        for side in (0, 1):
            found[rng.permutation(np.flatnonzero(label == side))[: labels // 2]] = True
    return found


def measure(setting: Setting, data: Data, params: Params) -> dict[str, Any]:
    """Returns the test accuracy of a network trained as `setting` says, and that of the n-grams on the same labels."""
    started = time.perf_counter()
    known = drawn(data.label(TRAIN), setting.labels, setting.seed)
    labelled = [data.texts[TRAIN][row] for row in np.flatnonzero(known)]
    label, test_label = data.label(TRAIN)[known], data.label("test")
    ngrams = fit_ngrams(labelled, label, max_ngram=params.ngrams.max_ngram, regularization=params.ngrams.regularization)
    by_ngrams = (ngrams.logits(data.texts["test"]) > 0) == test_label
    examples = learnt(setting, data, known, labelled, label, params)
    own = params.models[ABLATED if UNLABELLED in setting.texts else ABLATED_COURSE]
    if UNLABELLED not in setting.texts:
        own = own.model_copy(update={"epochs": max(own.epochs, ceil(FEWEST_STEPS / examples.plan.steps))})
    by_network = (trained(own, examples, data.tokens["test"], params, setting) > 0) == test_label
    return {
        "accuracy": float(by_network.mean()),
        "ngrams": float(by_ngrams.mean()),
        "labelled": len(labelled),
        "examples": len(examples.target),
        "epochs": own.epochs,
        "seconds": round(time.perf_counter() - started, 1),
    }


def learnt(
    setting: Setting,
    data: Data,
    known: NDArray[np.bool_],
    labelled: Sequence[str],
    label: NDArray[np.int8],
    params: Params,
) -> Examples:
    """Returns the examples of a setting: the labelled reviews, and as unlabelled ones the other training reviews and
    those of the data set, with the targets that n-grams of the budget's labels give."""
    rows, others = np.flatnonzero(known).tolist(), np.flatnonzero(~known).tolist()
    texts: Mapping[str, list[str]] = {
        TRAIN: list(labelled),
        UNLABELLED: [data.texts[TRAIN][row] for row in others] + data.texts[UNLABELLED],
        SENTENCES: data.texts[SENTENCES],
    }
    tokens = {
        TRAIN: [data.tokens[TRAIN][row] for row in rows],
        UNLABELLED: [data.tokens[TRAIN][row] for row in others] + list(data.tokens[UNLABELLED]),
        SENTENCES: list(data.tokens[SENTENCES]),
    }
    asked = {name: texts[name] for name in setting.texts}
    logits = {TRAIN: np.zeros(len(label))}
    if setting.label_weight < 1:
        logits = teaching.ngram_logits(labelled, label, asked, params.ngrams, setting.seed)
    teacher = TeacherParams.model_validate(
        {"by": "ngrams", "label_weight": setting.label_weight, "temperature": 1.0, "texts": list(setting.texts)}
    )
    target = [teaching.targets(logits[name], label if name == TRAIN else None, teacher) for name in asked]
    token_ids = [ids for name in asked for ids in tokens[name]]
    lengths = np.array([len(ids) for ids in token_ids])
    plan = Plan(lengths, params.batch.batch_size, params.batch.pool_batches, setting.seed)
    return Examples(token_ids, np.concatenate(target), plan)


def trained(
    own: ModelParams, examples: Examples, test: TokenArray, params: Params, setting: Setting
) -> NDArray[np.float32]:
    """Returns the logits of the test reviews, <float32>[reviews], by a network that learnt the examples."""
    import keras

    keras.utils.set_random_seed(setting.seed)
    network = networks.accelerate(networks.build_model(own, load_tokenizer().vocabulary_size))
    fitting.compile_model(network, own, params.train, epoch_steps=examples.plan.steps)
    name = hashlib.sha256(json.dumps(asdict(setting)).encode()).hexdigest()[:16]
    state = CHECKPOINTS / "ablations" / f"{name}.npz"
    watched = read_batches(VALIDATION_BATCHES)  # decides nothing
    fitting.fit(network, examples, watched, params=own, seed=setting.seed, state=state, on_epoch=lambda _: None)
    found = logits_of(networks.scoring(network), test)
    state.unlink()
    return found


def table(measured: Sequence[Mapping[str, Any]]) -> str:
    """Returns, a line for each budget and way of learning, mean and spread over the seeds, as text."""
    lines = [("labels", "learns from", "seeds", "accuracy", "lowest to highest", "n-grams on the same labels")]
    for labels, what in dict.fromkeys((one["labels"], one["what"]) for one in measured):
        found = [one for one in measured if (one["labels"], one["what"]) == (labels, what)]
        accuracy = [one["accuracy"] for one in found]
        spread = f"{min(accuracy):.4f} to {max(accuracy):.4f}"
        ngrams = f"{np.mean([one['ngrams'] for one in found]):.4f}"
        lines.append((f"{labels or 'all'}", what, str(len(found)), f"{np.mean(accuracy):.4f}", spread, ngrams))
    return tables.table(lines)


if __name__ == "__main__":
    run_command(main)
