"""The short table of results, made from the reports alone."""

import sys
import textwrap
from pathlib import Path

from pipeline.project import tables
from pipeline.project.atomic import read_json
from pipeline.project.params import load_params
from pipeline.project.paths import (
    DATA_DOCS,
    REGISTRY_REPORT,
    REPORT_PAGE,
)
from pipeline.reporting import results

HEADER = ("model", "test accuracy", "95% interval", "parameters", "training")
_MARKDOWN_WIDTH = 119


def rows() -> list[tuple[str, ...]]:
    """Returns the cells under HEADER for each model of params.yaml and for the n-grams.

    Raises:
        DataError: a report is missing; the message says how to make it.
    """
    found: list[tuple[str, ...]] = []
    for name, metrics, run in results.measured(load_params().models):
        low, high = metrics["intervals"]["accuracy"]
        epochs = f", {run['epochs']} epochs" if "epochs" in run else ""
        accuracy = (f"{metrics['accuracy']:.4f}", f"{low:.4f} to {high:.4f}")
        training = (f"{run['parameters']:,}", f"{run['training_seconds']:,.0f} s{epochs}")
        found.append((results.named(name), *accuracy, *training))
    return found


def table() -> str:
    """Returns the results as a text table, and under it where to look next."""
    return "\n".join([tables.table([HEADER, *rows()]), "", _where_next()])


def markdown() -> str:
    """Returns the results as a Markdown table between what it is of and what it means, as README shows them."""
    params = load_params()
    found = results.read(list(params.models))
    reviews = found.comparison["reviews"]
    trained: dict[str, list[str]] = {}
    for name, model in found.models.items():
        how = f"{model.record['begun'][:10]} on {model.tags['device']} with seed {model.tags['seed']}"
        trained.setdefault(how, []).append(name)
    origin = "; ".join(f"{' and '.join(names)} trained on {how}" for how, names in trained.items())
    table = "\n".join(f"| {' | '.join(line)} |" for line in [HEADER, ("---",) * len(HEADER), *rows()])
    said = [results.paired_sentence(found, found.closest), results.batching_sentence(found)]
    if noise := results.read_noise(params.dataset):
        said.insert(1, results.noise_sentences(noise))
    return "\n\n".join(
        [_filled(f"{reviews:,} test reviews of `{params.dataset}`; {origin}:"), table, *map(_filled, said)]
    )


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, _MARKDOWN_WIDTH, break_on_hyphens=False)


def _where_next() -> str:
    here = Path.cwd()
    registered = "not in this checkout's store yet; `dvc repro` registers the models"
    if REGISTRY_REPORT.exists():
        report = read_json(REGISTRY_REPORT, ("decision", "reason"))
        registered = f"{report['decision']}: {report['reason']}"
    places = {
        "data set": load_params().dataset,
        "registry": registered,
        "report": here / REPORT_PAGE,
        "data docs": here / DATA_DOCS / "index.html",
        "MLflow UI": f"cd {here} && {Path(sys.executable).with_name('sentiment')} ui",
    }
    return tables.table(list(places.items()), header=False)
