"""The report page: one HTML file that needs no network, made from the reports alone."""

from markupsafe import Markup

from pipeline.project.paths import DATA_DOCS, REPORT_PAGE
from pipeline.reporting import charts, rendering, results, study_charts
from pipeline.reporting.drawing import marks, on_page
from pipeline.reporting.results import Report, Results

_TAGS_SHOWN = {
    "mlflow.source.git.commit": "git commit",
    "git.dirty": "uncommitted changes",
    "dataset": "data set",
    "seed": "seed",
    "device": "device",
    "python": "Python",
}
_PREFIXES_SHOWN = {"md5.": "md5 of ", "version.": ""}
_MEASURED = {"test_accuracy": "test accuracy", "val_accuracy": "validation accuracy"}


def page(
    found: Results,
    registry: Report,
    recurrence: Report,
    noise: Report | None,
    ablations: Report | None,
    dataset: str,
) -> str:
    """Returns the page as HTML.

    Args:
        found: the reports of data, models and their comparison.
        registry: `challenge.register`'s report.
        recurrence: `gradient_reach.study`'s.
        noise: `results.read_noise`'s.
        ablations: `results.read_ablations`'s.
        dataset: name of the data set.
    """
    return rendering.render(
        "report.html",
        dataset=dataset,
        results=found,
        best=found.best,
        closest=found.closest,
        rows=results.measured(found.models),
        promised={name: model.validation["sure"] for name, model in found.models.items()},
        verdict=rendering.verdict,
        worsened=rendering.worsened(found),
        figures={name: Markup(on_page(svg)) for name, svg in _figures(found, recurrence, ablations).items()},
        data_docs=(DATA_DOCS / "index.html").relative_to(REPORT_PAGE.parent).as_posix(),
        registry=registry,
        flips=_flips(found, registry),
        changes=_changes(registry),
        recurrence=recurrence,
        noise=noise,
        ablations=ablations,
        ablated=results.ABLATED,
        cells=study_charts.CELL_NAMES,
        provenance=_provenance(found),
        sentences={
            "paired": {pair["second"]: rendering.paired_sentence(found, pair) for pair in found.comparison["pairs"]},
            "batching": rendering.batching_sentence(found),
            "noise": rendering.noise_sentence(noise) if noise else "",
            "behaviour_noise": rendering.behaviour_noise_sentence(noise) if noise and "behaviour" in noise else "",
        },
    )


def _figures(found: Results, recurrence: Report, ablations: Report | None) -> dict[str, str]:
    known = marks({name: rendering.named(name) for name in found.models})
    metrics = {name: model.metrics for name, model in found.models.items()}
    histories = {name: found.table(name, "history") for name in found.networks}
    studies = {name: model.padding for name, model in found.models.items() if model.padding}
    tables = {kind: {name: found.table(name, kind) for name in found.models} for kind in charts.AREAS}
    gates = {name: model.gates for name, model in found.models.items() if model.gates}
    networks = {
        "learning_accuracy": lambda: charts.learning_curves(histories, "accuracy", known),
        "learning_loss": lambda: charts.learning_curves(histories, "loss", known),
        "padding_flips": lambda: study_charts.padding_flips(studies, known),
        "padding_changes": lambda: study_charts.padding_changes(studies, known),
    }
    return {
        "roc": charts.curves(tables["roc"], "roc", metrics, known),
        "precision_recall": charts.curves(tables["precision_recall"], "precision_recall", metrics, known),
        "calibration": charts.calibration(tables["calibration"], metrics, known),
        "accuracies": charts.accuracies(
            [(name, one["accuracy"], one["intervals"]["accuracy"]) for name, one in metrics.items()], known
        ),
        "by_length": charts.by_length(found.comparison["lengths"], found.best.name, known),
        "padding_shares": study_charts.padding_shares(found.batching),
        "batching": study_charts.batching(found.batching["train"]),
        "gradients_untrained": study_charts.gradients(recurrence, "untrained"),
        "gradients_trained": study_charts.gradients(recurrence, "trained"),
        **{name: draw() for name, draw in networks.items() if histories},
        **({"labels_pay": charts.labels_pay(ablations["rows"])} if ablations else {}),
        **{f"gates of {name}": study_charts.gates(followed, name) for name, followed in gates.items()},
    }


def _flips(found: Results, registry: Report) -> list[tuple[str, str, str, Report]]:
    """Returns the disagreements to show: title, both models' names, and `comparison.flipped`'s result. First the
    challenger and the champion before it, where there is one, then the models of this run."""
    flips = []
    against = registry.get("against")
    if against and against["flipped"]:
        first, second = f"version {registry['challenger']}", f"version {against['made_from']['version']}"
        flips.append((f"Challenger ({first}) and the champion before it ({second})", first, second, against["flipped"]))
    best = found.comparison["best"]
    return flips + [(f"{best} and {name}", best, name, both) for name, both in found.comparison["flipped"].items()]


def _provenance(found: Results) -> list[tuple[str, list[str]]]:
    """Returns for each thing that a run was made from its name and, in the order of the models, what it was."""
    tags = [model.record["tags"] for model in found.models.values()]
    known = sorted(set().union(*tags))
    names = [*_TAGS_SHOWN, *(name for prefix in _PREFIXES_SHOWN for name in known if name.startswith(prefix))]
    return [(_tag_shown(name), [one.get(name, "unknown") for one in tags]) for name in names]


def _changes(registry: Report) -> list[tuple[str, str, str]]:
    """Returns what differs between the version that was champion before the decision and the challenger: name, then
    and now; params, then what both were made from."""
    against, now = registry.get("against"), registry.get("challenger_made_from")
    if not against or not now or against["made_from"]["version"] == now["version"]:
        return []
    then = against["made_from"]
    measured = [(shown, _number(then[name]), _number(now[name])) for name, shown in _MEASURED.items()]
    listed = [
        (_tag_shown(name), str(then[kind].get(name, "–")), str(now[kind].get(name, "–")))
        for kind in ("params", "tags")
        for name in sorted(then[kind].keys() | now[kind].keys())
    ]
    return [row for row in [("model", then["model"], now["model"]), *measured, *listed] if row[1] != row[2]]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _tag_shown(name: str) -> str:
    """Returns a run's tag as the page names it."""
    for prefix, shown in _PREFIXES_SHOWN.items():
        if name.startswith(prefix):
            return shown + name.removeprefix(prefix)
    return _TAGS_SHOWN.get(name, name)
