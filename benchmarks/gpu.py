"""What a GPU brings: both networks at several batch sizes, beside the classic loop on the same GPU and the pipeline on
the CPU of the same machine."""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import machine
from benchmarks.measure import MODELS, NO_GPU, Training, alternate, epochs, require_outputs
from pipeline.project.atomic import read_json, read_table
from pipeline.project.errors import DataError
from pipeline.project.params import load_params
from pipeline.project.paths import REPORTS, SPLIT_TABLES

REPORT = REPORTS / "benchmark_gpu.json"
BATCH_SIZES = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Size:
    """How much is measured: shares of the training split's reviews for each contender, of validation's, and epochs."""

    gpu: float
    reference: float
    validation: float
    rounds: int


FULL = Size(gpu=1.0, reference=0.1, validation=1.0, rounds=3)
QUICK = Size(gpu=0.1, reference=0.05, validation=0.2, rounds=2)


def report(size: Size) -> dict[str, Any]:
    """Measures in the project that is the working folder.

    Returns:
        For each model and batch size: learning rate (scaled with the square root of the batch size: Malladi et al.
        2022), seconds an epoch, real tokens a second, validation accuracy by epoch, the share of the GPU's time that
        cuDNN's ops launched, and how many times as fast the epoch is as that of the classic loop on the same GPU and
        that of the pipeline on the CPU, both at batch size 64.

    Raises:
        DataError: `dvc repro` has not run here, or TensorFlow sees no GPU.
    """
    require_outputs()
    contenders: dict[str, Training] = {}
    for model in MODELS:
        contenders |= {
            f"{model}_{rows}": Training("pipeline", model, size.gpu, size.validation, rows) for rows in BATCH_SIZES
        }
        contenders[f"{model}_classic"] = Training("classic", model, size.reference, size.validation)
        contenders[f"{model}_cpu"] = Training("pipeline", model, size.reference, size.validation, environment=NO_GPU)
    on_gpu = [f"{model}_{rows}" for model in MODELS for rows in BATCH_SIZES]
    turns, profiles = alternate(contenders, size.rounds, profiled=on_gpu)
    device = turns[on_gpu[0]][0]["device"]
    if device == "CPU":
        raise DataError("TensorFlow sees no GPU here; README, GPU, says what to install")
    whole_split = len(read_table(SPLIT_TABLES / "train.parquet", ("id",)))
    found = {name: epochs(answers, whole_split, True) for name, answers in turns.items()}
    models: dict[str, Any] = {}
    for model in MODELS:
        classic, cpu = (_whole_epoch(found[f"{model}_{name}"]) for name in ("classic", "cpu"))
        models[model] = {"classic": found[f"{model}_classic"], "cpu": found[f"{model}_cpu"], "batch_sizes": {}}
        for rows in BATCH_SIZES:
            here = found[f"{model}_{rows}"]
            models[model]["batch_sizes"][rows] = {
                "learning_rate": turns[f"{model}_{rows}"][0]["learning_rate"],
                **here,
                **profiles[f"{model}_{rows}"],
                "times_the_classic_loop": round(classic / _whole_epoch(here), 2),
                "times_the_cpu": round(cpu / _whole_epoch(here), 2),
            }
    return {
        "machine": {**machine.describe(), "device": device},
        **machine.code(),
        "size": asdict(size),
        "data": {"dataset": load_params().dataset, "max_tokens": load_params().tokenize.max_tokens},
        "models": models,
    }


def _whole_epoch(loop: dict[str, Any]) -> float:
    return float(loop["epoch_seconds_scaled_to_the_whole_split"])


def markdown() -> str:
    """Returns the report's main figures as a Markdown table; raises DataError without a report."""
    found = read_json(REPORT, ("machine", "models"))
    lines = [
        (
            "model",
            "batch size",
            "s an epoch",
            "real tokens a second",
            "times the classic loop",
            "times the CPU",
            "cuDNN",
        ),
        ("---", "---:", "---:", "---:", "---:", "---:", "---:"),
    ]
    for model, measured in found["models"].items():
        for rows, here in measured["batch_sizes"].items():
            tokens = here["real_tokens_per_second"]["median"]
            lines.append(
                (
                    model,
                    rows,
                    f"{_whole_epoch(here):.1f}",
                    f"{tokens:,.0f}",
                    f"{here['times_the_classic_loop']:.1f}",
                    f"{here['times_the_cpu']:.1f}",
                    f"{here['cudnn_share']:.0%}",
                )
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
