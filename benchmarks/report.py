"""The benchmark's report: where it stands, its picture, and its table for README."""

import textwrap
from typing import Any

from pipeline.project.atomic import read_json
from pipeline.project.errors import DataError
from pipeline.project.paths import BLEND, NGRAMS, REPORTS
from pipeline.project.training_record import read_record
from pipeline.reporting.drawing import BAR, INK, REFERENCE, drawing

REPORT = REPORTS / "benchmark.json"
PICTURE = REPORTS / "benchmark.svg"
TARGETS = {"train_single": 4.0, "train_stacked": 5.0, "vocabulary_build": 10.0, "encoding": 4.0}
_NAMES = {
    "train_single": "training, single",
    "train_stacked": "training, stacked",
    "evaluate_single": "evaluation, single",
    "evaluate_stacked": "evaluation, stacked",
    "vocabulary_build": "vocabulary build",
    "encoding": "encoding",
    "scoring": "scoring, all cores",
    "scoring_on_one_core": "scoring, one core",
    "start": "one review from a cold start",
    "server_one_client": "server, one client",
    "server_many_clients": "server, 64 clients",
    "server_of_bulk": "server, of bulk scoring",
}
"""Ratios of speed that are drawn; not every report has all of them."""
_CANDIDATES = {NGRAMS: "n-grams", BLEND: "a network and the n-grams blended"}


def picture(found: dict[str, Any]) -> str:
    """Draws how many times as fast as its reference each part is, and validation accuracy over training time where
    that was measured."""
    learnt = isinstance(found["training"]["pipeline_single"]["validation_accuracy_by_epoch"], list)
    label = "How many times as fast as its reference each part is"
    names = [name for name in _NAMES if name in found["ratios"]]
    inches = [1.2 + 0.27 * len(names), *([3.0] if learnt else [])]
    grid: dict[str, Any] = {"squeeze": False, "gridspec_kw": {"height_ratios": inches}}
    with drawing(label, len(inches), 1, width=6, height=sum(inches), **grid) as (axes, svg):
        above = axes[0, 0]
        for place, name in enumerate(names):
            ratio = found["ratios"][name]
            above.plot([1, ratio], [place, place], color=BAR, linewidth=1.5)
            above.plot(ratio, place, "o", color=INK)
            side = (7, "left") if ratio >= 1 else (-7, "right")
            above.annotate(
                f"{ratio:,.1f}×", (ratio, place), (side[0], 0), textcoords="offset points", va="center", ha=side[1]
            )
            if name in TARGETS:
                above.plot([TARGETS[name]] * 2, [place - 0.3, place + 0.3], color=BAR, linewidth=2)
        above.plot([], [], color=BAR, marker="|", linestyle="", label="aimed at")
        above.axvline(1, **REFERENCE, label="the reference, what it replaces")
        shown = [found["ratios"][name] for name in names]
        above.set(title="Times as fast as the reference; left of 1×: slower", xscale="log")
        above.set(xlim=(min(0.5, min(shown) / 2), max(shown) * 2), ylim=(len(names) - 0.5, -0.5))
        above.set_yticks(range(len(names)), [_NAMES[name] for name in names])
        above.xaxis.set_major_formatter("{x:g}×")
        above.grid(False, axis="y")
        above.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
        if learnt:
            _learning(axes[1, 0], found["training"])
    return svg.getvalue()


def _learning(axes: Any, training: dict[str, Any]) -> None:
    for loop, colour in (("pipeline", INK), ("classic", BAR)):
        for model, style in (("single", "o-"), ("stacked", "^--")):
            measured = training[f"{loop}_{model}"]
            accuracy = measured["validation_accuracy_by_epoch"]
            minutes = [measured["epoch_seconds"]["median"] * (epoch + 1) / 60 for epoch in range(len(accuracy))]
            axes.plot(minutes, accuracy, style, color=colour, markersize=6, label=f"{loop}, {model}")
    axes.set(
        title="Validation accuracy by training time",
        xlabel=f"minutes of training; a mark is an epoch of {training['reviews']:,} reviews",
        ylabel="validation accuracy",
    )
    axes.set_xlim(left=0)
    axes.legend(loc="best")


def markdown() -> str:
    """Returns the report's main figures as a Markdown table, and under it what the whole pipeline takes, as README
    shows them; raises DataError without a report."""
    keys = ("ratios", "training", "tokenizer", "scoring", "start", "stages")
    found = read_json(REPORT, keys, made_by="make bench")
    return f"{table(found)}\n\n{textwrap.fill(full_run(found), 119)}"


def table(found: dict[str, Any]) -> str:
    """Returns the report's main figures beside those of the references, as a Markdown table."""
    training, tokenizer, ratios = found["training"], found["tokenizer"], found["ratios"]
    lines: list[tuple[str, ...]] = [("", "reference", "here", "times as fast"), ("---", "---:", "---:", "---:")]
    for model in ("single", "stacked"):
        reference, here = (
            f"{training[f'{loop}_{model}']['epoch_seconds_scaled_to_the_whole_split']:,.0f} s"
            for loop in ("classic", "pipeline")
        )
        lines.append((f"training epoch, {model}", reference, here, f"{ratios[f'train_{model}']:.1f}"))
    for model in ("single", "stacked"):
        reference, here = (
            f"{training[f'{loop}_{model}']['evaluation_reviews_per_second']['median']:,.0f} reviews/s"
            for loop in ("classic", "pipeline")
        )
        lines.append((f"evaluation, {model}", reference, here, f"{ratios[f'evaluate_{model}']:.1f}"))
    for name, shown in (
        ("vocabulary_build", f"vocabulary of {tokenizer['reviews']:,} reviews"),
        ("encoding", f"encoding {tokenizer['reviews']:,} reviews"),
    ):
        reference, here = (f"{tokenizer[name]['seconds'][w]['median']:,.1f} s" for w in ("tfds", "pipeline"))
        lines.append((shown, reference, here, f"{ratios[name]:.1f}"))
    bulk = found["scoring"]["all_cores"]
    lines.append(
        (
            "raw text to label, `single`; reference: TensorFlow's fused kernel",
            f"{bulk['tensorflow_from_raw_text']['median']:,.0f} reviews/s",
            f"{bulk['from_raw_text']['median']:,.0f} reviews/s",
            f"{ratios['scoring']:.1f}",
        )
    )
    for name, shown in _CANDIDATES.items():
        if speed := bulk.get(f"{name}_from_raw_text"):  # not in reports of before there were candidates
            lines.append((f"raw text to label, {shown}", "–", f"{speed['median']:,.0f} reviews/s", "–"))
    if isinstance(start := found["start"], dict):
        reference, here = (
            f"{start[way]['seconds']['median']:.1f} s, {start[way]['peak_memory_mb']:,.0f} MB"
            for way in ("tensorflow", "serving")
        )
        lines.append(("one review from a cold start; reference: TensorFlow", reference, here, f"{ratios['start']:.1f}"))
    if isinstance(server := found.get("server"), dict):  # not in reports of before it was ours
        lines += _server_lines(server, ratios)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _server_lines(server: dict[str, Any], ratios: dict[str, float]) -> list[tuple[str, ...]]:
    def speed(load: str) -> str:
        return f"{server[load]['reviews_per_second']['median']:,.0f} reviews/s"

    lines: list[tuple[str, ...]] = []
    one = (f"{server[f'one_client_{way}']['median_ms']['median']:.1f} ms" for way in ("mlflow", "ours"))
    lines.append(("server, one client; reference: MLflow's", *one, f"{ratios['server_one_client']:.1f}"))
    many = (speed(f"many_clients_{way}") for way in ("mlflow", "ours"))
    lines.append(("server, 64 clients; reference: MLflow's", *many, f"{ratios['server_many_clients']:.1f}"))
    bulk = f"{server['bulk_reviews_per_second']['median']:,.0f} reviews/s"
    eight = speed("many_clients_of_eight_ours")
    lines.append(("… of eight reviews each; reference: in bulk", bulk, eight, f"{ratios['server_of_bulk']:.1f}"))
    start, memory = server["start_seconds"], server["memory_mb"]
    started = (f"{start[way]:.1f} s, {memory[way]:,.0f} MB" for way in ("mlflow", "ours"))
    lines.append(
        ("server, to its first answer; reference: MLflow's", *started, f"{start['mlflow'] / start['ours']:.1f}")
    )
    return lines


def full_run(found: dict[str, Any]) -> str:
    """Says what `dvc repro` takes from nothing and when there is nothing to do.

    Raises:
        DataError: the report is of a quick run, or the benchmark could not run one of the stages, or there is no record
            of a training, which the benchmark does not repeat.
    """
    if found["mode"] != "full":
        raise DataError(f"{REPORT} is of a {found['mode']} run; README shows a full one: `make bench`")
    stages = found["stages"]["run"]
    for name, stage in stages.items():
        if "seconds" not in stage:
            raise DataError(f"{REPORT}: stage {name}: {stage['reason']}; run `dvc repro` and `make bench`")
    no_op = found["stages"]["dvc_repro_no_op_seconds"]
    if not isinstance(no_op, dict):
        raise DataError(f"{REPORT}: a `dvc repro` with nothing to do was {no_op}")
    trainings = sum(
        read_record(name.removeprefix("train@"))["metrics"]["training_seconds"]
        for name in stages
        if name.startswith("train@")
    )
    others = sum(stage["seconds"] for name, stage in stages.items() if not name.startswith("train@"))
    loops = (loop for name, loop in found["training"].items() if name.startswith("pipeline_"))
    memory = max(measured["peak_memory_mb"] for measured in (*stages.values(), *loops) if "peak_memory_mb" in measured)
    return (
        f"From nothing, the stages of `dvc repro` take {(trainings + others) / 60:.0f} minutes, "
        f"{trainings / 60:.0f} of them training, and at most {memory / 1000:.1f} GB; where nothing changed, it takes "
        f"{no_op['median']:.1f} s."
    )
