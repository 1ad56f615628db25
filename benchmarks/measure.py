"""Runs all measurements, each pair in alternation, and puts what they found into one report."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks import machine, stages
from benchmarks.server import ratios as server_ratios
from benchmarks.stages import NOT_MEASURED
from benchmarks.workers import Worker, spread
from pipeline.project.atomic import read_json, read_table
from pipeline.project.errors import DataError
from pipeline.project.params import Params, load_params
from pipeline.project.paths import (
    BATCHING_REPORT,
    RAW,
    SPLIT_TABLES,
    SPLITS,
    TOKENS,
    VOCABULARY,
    candidate_folder,
    model_file,
)

MODELS = ("single", "stacked")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        training, validation: share of the split's reviews that both training loops take.
        rounds: turns of each training loop: epochs.
        vocabulary: training texts for the vocabulary and the encoding; None for all.
        encoding_rounds: turns of each encoder, and of the pipeline's vocabulary build (TFDS builds once).
        scored: reviews of a bulk scoring; with `whole` all test reviews are compared with TensorFlow.
        short_rounds: turns of scoring, of starts and of `dvc repro`.
        whole: whether what takes long is measured too: accuracy by epoch, the stages themselves, and the server and a
            cold start in a serving environment, which is installed for it.
    """

    training: float
    validation: float
    rounds: int
    vocabulary: int | None
    encoding_rounds: int
    scored: int
    short_rounds: int
    whole: bool


@dataclass(frozen=True)
class Training:
    """One training that is measured: see `benchmarks.training`; `batch_size` None is that of `params.yaml`."""

    loop: str
    model: str
    share: float
    validation_share: float
    batch_size: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def worker(self, rounds: int, params: Params) -> Worker:
        """Returns the process that trains it for `rounds` epochs."""
        batch_size = self.batch_size or params.batch.batch_size
        drawn = (self.share, self.validation_share, rounds, batch_size)
        return Worker("training", self.loop, self.model, *drawn, environment=self.environment)


LOAD_S = 10.0
"""In which clients ask a server, each way and round."""
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}
DEFAULTS = {"threads": {"TF_NUM_INTRAOP_THREADS": "0"}, "allocator": {"GLIBC_TUNABLES": ""}}
"""What a training sets, and the environment that leaves it to TensorFlow or the C library."""
FULL = Size(0.2, 1.0, 3, None, 3, 3600, 3, whole=True)
QUICK = Size(0.02, 0.1, 3, 1000, 2, 512, 1, whole=False)


def report(size: Size) -> dict[str, Any]:
    """Measures everything in the project that is the working folder.

    Raises:
        DataError: `dvc repro` has not run here; the message says so.
    """
    require_outputs()
    before = machine.load_average()
    found: dict[str, Any] = {"machine": machine.describe(), **machine.code(), "size": asdict(size)}
    found["data"] = {"dataset": load_params().dataset, "max_tokens": load_params().tokenize.max_tokens}
    found["training"] = _training(size)
    found["padding"] = _padding(found["training"])
    found["tokenizer"] = _tokenizer(size)
    found["scoring"] = _scoring(size)
    found["start"] = _if_whole(size, "start", size.short_rounds)
    found["server"] = _if_whole(size, "server", size.scored, LOAD_S, size.short_rounds)
    found["stages"] = {
        "start": stages.start_costs(size.short_rounds),
        "run": stages.run_stages() if size.whole else NOT_MEASURED,
        "dvc_repro_no_op_seconds": stages.no_op(size.short_rounds),
    }
    found["machine"]["device"] = found["training"]["pipeline_single"]["device"]
    found["machine"]["load_average"] = {"before": before, "after": machine.load_average()}
    return {"ratios": _ratios(found), **found}


def require_outputs() -> None:
    """Raises DataError unless what the benchmark measures with is there."""
    splits = [SPLIT_TABLES / f"{split}.parquet" for split in SPLITS]
    tokens = (TOKENS / split for split in ("train", "validation"))
    served = (model_file("single"), candidate_folder("single"))
    for path in (RAW / "train.parquet", *splits, VOCABULARY, *tokens, *served):
        if not path.exists():
            raise DataError(f"{path} does not exist; run `dvc repro`, whose outputs the benchmark measures with")


def _training(size: Size) -> dict[str, Any]:
    contenders = {
        f"{loop}_{model}": Training(loop, model, size.training, size.validation, environment=NO_GPU)
        for model in MODELS
        for loop in ("classic", "pipeline")
    }
    for setting, default in DEFAULTS.items():
        contenders[_without(setting)] = replace(contenders["pipeline_single"], environment=NO_GPU | default)
    turns, profiles = alternate(contenders, size.rounds, profiled=[f"pipeline_{model}" for model in MODELS])
    for model in MODELS:
        require_same_size(model, *(turns[f"{loop}_{model}"][0]["parameters"] for loop in ("classic", "pipeline")))
    whole_split = len(read_table(SPLIT_TABLES / "train.parquet", ("id",)))
    rows = turns["pipeline_single"][0]["rows"]
    return {
        "reviews": rows,
        "share_of_the_training_split": round(rows / whole_split, 4),
        "validation_reviews": turns["pipeline_single"][0]["validation_rows"],
        **{name: epochs(found, whole_split, size.whole) for name, found in turns.items()},
        "profile": {model: profiles[f"pipeline_{model}"] for model in MODELS},
    }


def _without(setting: str) -> str:
    """Returns the name of the contender that trains with the default of `setting`."""
    return f"pipeline_single_default_{setting}"


def alternate(
    contenders: Mapping[str, Training], rounds: int, *, profiled: Sequence[str]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Trains all contenders, each an epoch a round, in processes of their own that take turns.

    Returns:
        The worker's answers of each contender, one a round, and the profiles of those named in `profiled`.
    """
    params = load_params()
    turns: dict[str, list[Any]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(run.worker(rounds, params)) for name, run in contenders.items()}
        for worker in workers.values():  # nobody is measured while another still prepares
            worker.wait_until_ready()
        for number in range(rounds):
            for name in list(workers)[:: 1 if number % 2 == 0 else -1]:  # so that a drift of the machine favours none
                turns[name].append(workers[name].ask("epoch"))
        return turns, {name: workers[name].ask("profile") for name in profiled}


def require_same_size(model: str, classic: int, pipeline: int) -> None:
    """Raises DataError unless both networks of `model` have as many parameters."""
    if classic != pipeline:
        raise DataError(
            f"{model} of params.yaml has {pipeline:,} parameters, the tutorial's {classic:,}: seconds of different "
            "networks are not compared; measure with the sizes of the committed params.yaml"
        )


def epochs(turns: list[dict[str, Any]], whole_split: int, whole: bool) -> dict[str, Any]:
    """Returns what the epochs of one loop say together."""
    last = turns[-1]
    train = [turn["train_seconds"] for turn in turns]
    evaluate = [turn["evaluate_seconds"] for turn in turns]
    return {
        "device": last["device"],
        "epoch_seconds": spread(train),
        "epoch_seconds_scaled_to_the_whole_split": round(spread(train)["median"] * whole_split / last["rows"], 2),
        "real_tokens_per_second": spread([last["real_tokens"] / seconds for seconds in train]),
        "reviews_per_second": spread([last["rows"] / seconds for seconds in train]),
        "evaluation_seconds": spread(evaluate),
        "evaluation_reviews_per_second": spread([last["validation_rows"] / seconds for seconds in evaluate]),
        "padding_share": round(last["padding_share"], 4),
        "real_tokens": last["real_tokens"],
        "padded_tokens": last["padded_tokens"],
        "validation_accuracy_by_epoch": (
            [round(turn["val_accuracy"], 4) for turn in turns] if whole else f"{NOT_MEASURED}: too few reviews"
        ),
        "first_batches_seconds": round(last["first_batches_seconds"], 2),
        "peak_memory_mb": last["peak_memory_mb"],
    }


def _padding(training: dict[str, Any]) -> dict[str, Any]:
    here = {loop: training[f"{loop}_single"]["padding_share"] for loop in ("classic", "pipeline")}
    if not BATCHING_REPORT.exists():
        return {"of_these_reviews": here, "of_the_whole_split": NOT_MEASURED}
    whole = read_json(BATCHING_REPORT, ("train",))["train"]
    return {
        "of_these_reviews": here,
        "of_the_whole_split": {"classic": whole["classic_padding_share"], "pipeline": whole["padding_share"]},
        "source": f"{BATCHING_REPORT}, where classic means the same truncated reviews in shuffled batches of 64",
    }


def _tokenizer(size: Size) -> dict[str, Any]:
    count = size.vocabulary
    turns: dict[str, dict[str, list[Any]]] = {}
    with ExitStack() as stack:
        workers = {which: stack.enter_context(Worker("tokenizer", which, count)) for which in ("pipeline", "tfds")}
        for worker in workers.values():
            worker.wait_until_ready()
        for request in ("build", "encode"):
            turns[request] = {which: [] for which in workers}
            for number in range(size.encoding_rounds):
                for which, worker in workers.items():
                    if number == 0 or request == "encode" or which == "pipeline":
                        turns[request][which].append(worker.ask(request))
    found: dict[str, Any] = {"reviews": turns["build"]["tfds"][0]["reviews"]}
    for request, name in (("build", "vocabulary_build"), ("encode", "encoding")):
        sha256 = {turn["sha256"] for turned in turns[request].values() for turn in turned}
        seconds = {w: spread([turn["seconds"] for turn in turned]) for w, turned in turns[request].items()}
        memory = {w: turned[-1]["peak_memory_mb"] for w, turned in turns[request].items()}
        found[name] = {"seconds": seconds, "peak_memory_mb": memory, "identical": len(sha256) == 1}
    found["subwords"] = turns["build"]["pipeline"][0]["count"]
    return found


def _scoring(size: Size) -> dict[str, Any]:
    found = {}
    for name, one_core in (("all_cores", False), ("one_core", True)):
        compared = 0 if one_core else None if size.whole else size.scored
        with Worker("serving", one_core, size.scored, compared, size.short_rounds) as worker:
            found[name] = worker.ask()
    return {"reviews": size.scored, "unit": "reviews a second", **found}


def _if_whole(size: Size, module: str, *arguments: Any) -> Any:
    if not size.whole:
        return NOT_MEASURED
    with Worker(module, *arguments) as worker:
        return worker.ask()


def _ratios(found: dict[str, Any]) -> dict[str, float]:
    """Returns how many times as fast, as small or as full the pipeline is; 1 is the reference, larger is better."""
    training, tokenizer = found["training"], found["tokenizer"]
    ratios = {}
    for key, measure in (("train", "epoch_seconds"), ("evaluate", "evaluation_seconds")):
        for model in MODELS:
            classic, pipeline = (training[f"{loop}_{model}"][measure]["median"] for loop in ("classic", "pipeline"))
            ratios[f"{key}_{model}"] = classic / pipeline
    for model in MODELS:
        classic, pipeline = (training[f"{loop}_{model}"]["peak_memory_mb"] for loop in ("classic", "pipeline"))
        ratios[f"memory_{model}"] = classic / pipeline
    padding = found["padding"]["of_these_reviews"]
    ratios["real_share_of_the_work"] = (1 - padding["pipeline"]) / (1 - padding["classic"])
    for name in ("vocabulary_build", "encoding"):
        seconds = tokenizer[name]["seconds"]
        ratios[name] = seconds["tfds"]["median"] / seconds["pipeline"]["median"]
    for cores, suffix in (("all_cores", ""), ("one_core", "_on_one_core")):
        bulk = {way: speed["median"] for way, speed in found["scoring"][cores].items() if "median" in speed}
        ratios[f"scoring{suffix}"] = bulk["from_raw_text"] / bulk["tensorflow_from_raw_text"]
    if isinstance(start := found["start"], dict):
        ratios["start"] = start["tensorflow"]["seconds"]["median"] / start["serving"]["seconds"]["median"]
        ratios["start_memory"] = start["tensorflow"]["peak_memory_mb"] / start["serving"]["peak_memory_mb"]
    if isinstance(server := found["server"], dict):
        ratios |= server_ratios(server)
    seconds = training["pipeline_single"]["epoch_seconds"]["median"]
    for setting in DEFAULTS:
        ratios[setting] = training[_without(setting)]["epoch_seconds"]["median"] / seconds
    return {name: round(ratio, 2) for name, ratio in ratios.items()}
