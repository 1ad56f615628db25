"""The short table of results, made from the reports alone."""

import sys
import textwrap
from pathlib import Path
from shlex import quote

from pipeline.project import tables
from pipeline.project.atomic import read_json
from pipeline.project.params import load_params
from pipeline.project.paths import DATA_DOCS, REGISTRY_REPORT, REPORT_PAGE
from pipeline.reporting import results
from pipeline.reporting.rendering import batching_sentence, counted, listed, named, noise_sentence, paired_sentence

HEADER = ("model", "test accuracy", "95% interval", "parameters", "training")
_MARKDOWN_WIDTH = 119


def rows() -> list[tuple[str, ...]]:
    """Returns the cells under HEADER for each candidate of params.yaml.

    Raises:
        DataError: a report is missing; the message says how to make it.
    """
    found: list[tuple[str, ...]] = []
    for name, metrics, run in results.measured(load_params().candidates):
        low, high = metrics["intervals"]["accuracy"]
        epochs = f", {counted(run['epochs'], 'epoch')}" if "epochs" in run else ""
        accuracy = (f"{metrics['accuracy']:.4f}", f"{low:.4f} to {high:.4f}")
        found.append((named(name), *accuracy, f"{run['parameters']:,}", f"{run['training_seconds']:,.0f} s{epochs}"))
    return found


def table() -> str:
    """Returns the results as a text table, and under it where to look next; errors as in `rows`."""
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
        "MLflow UI": f"cd {quote(str(here))} && {quote(str(Path(sys.executable).with_name('sentiment')))} ui",
    }
    return "\n".join([tables.table([HEADER, *rows()]), "", tables.table(list(places.items()), header=False)])


def markdown() -> str:
    """Returns the results as a Markdown table between what it is of and what it means, as README shows them; errors as
    in `rows`."""
    params = load_params()
    found = results.read(params.candidates)
    trained: dict[str, list[str]] = {}
    for name, model in found.models.items():
        tags = model.record["tags"]
        how = f"{model.record['begun'][:10]} on {tags['device']} with seed {tags['seed']}"
        trained.setdefault(how, []).append(name)
    origin = "; ".join(f"{listed([named(name) for name in names])} trained on {how}" for how, names in trained.items())
    table = "\n".join(f"| {' | '.join(line)} |" for line in [HEADER, ("---",) * len(HEADER), *rows()])
    noise = results.read_noise(params)
    said = [
        f"{found.comparison['reviews']:,} test reviews of `{params.dataset}`; {origin}:",
        *([paired_sentence(found, found.closest)] if found.closest else []),
        *([noise_sentence(noise)] if noise else []),
        batching_sentence(found),
    ]
    title, *sentences = (textwrap.fill(paragraph, _MARKDOWN_WIDTH, break_on_hyphens=False) for paragraph in said)
    return "\n\n".join([title, table, *sentences])
