"""The report page: one HTML file that needs no network, made from the reports alone."""

from dataclasses import dataclass

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
_PHRASES, _SHORT = 2, 24
"""Changes of a kind that the brief names, and characters that both of their values may have together."""
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
    changes = _changes(registry)
    return rendering.render(
        "report.html",
        dataset=dataset,
        results=found,
        best=found.best,
        lead=found.comparison["lead"],
        rows=results.measured(found.models),
        promised={name: model.validation["sure"] for name, model in found.models.items()},
        verdict=rendering.verdict,
        leads=rendering.leads,
        settings=_settings(found),
        worsened=rendering.worsened(found),
        figures={name: Markup(on_page(svg)) for name, svg in _figures(found, recurrence, ablations).items()},
        data_docs=(DATA_DOCS / "index.html").relative_to(REPORT_PAGE.parent).as_posix(),
        registry=registry,
        flips=_flips(found, registry),
        changes=changes,
        changed=_changed(changes) if changes else "",
        recurrence=recurrence,
        noise=noise,
        ablations=ablations,
        ablated=results.ABLATED,
        cells=study_charts.CELL_NAMES,
        provenance=_provenance(found),
        sentences={
            "lead": rendering.paired_sentence(found, found.comparison["lead"]) if found.comparison["lead"] else "",
            "unlike": rendering.unlike({name: one.training["params"] for name, one in found.networks.items()}),
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


def _settings(found: Results) -> list[tuple[str, list[str], bool]]:
    """Returns each param of a candidate, what it is of each (– where it has none), and whether those that have it
    differ in it."""
    params = [model.training["params"] for model in found.models.values()]
    names = dict.fromkeys(name for one in params for name in one)
    shown = {name: [_setting(one.get(name)) for one in params] for name in names}
    return [(name.replace("_", " "), values, len({*values} - {"–"}) > 1) for name, values in shown.items()]


def _setting(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


@dataclass(frozen=True)
class Change:
    """What versions differ in: `columns`, of each version what it is and its number, the challenger last, and by kind
    of thing the rows: name and, of each version, what it was."""

    columns: list[str]
    kinds: dict[str, list[tuple[str, list[str]]]]


def _changes(registry: Report) -> Change | None:
    """Returns in what the challenger differs from the champion before it and from that of a week ago; None where there
    is no other version to compare it with."""
    now = registry.get("challenger_made_from")
    if not now:
        return None
    week, before = registry["week_ago"], registry["against"]
    known = [(f"champion on {week['when']}", week["made_from"]), ("champion before it", before and before["made_from"])]
    then: dict[str, tuple[list[str], Report]] = {}
    for what, made_from in known:
        if made_from and made_from["version"] != now["version"]:
            then.setdefault(made_from["version"], ([], made_from))[0].append(what)
    if not then:
        return None
    columns = [f"version {version}, {' and '.join(what)}" for version, (what, _) in then.items()]
    compared = [_told(made_from) for made_from in (*(one for _, one in then.values()), now)]
    kinds = {}
    for kind in compared[0]:
        names = dict.fromkeys(name for one in compared for name in one[kind])
        rows = [(name, [one[kind].get(name, "–") for one in compared]) for name in names]
        kinds[kind] = [(name, values) for name, values in rows if len(set(values)) > 1]
    return Change([*columns, f"version {now['version']}, challenger"], kinds)


def _told(made_from: Report) -> dict[str, dict[str, str]]:
    """Returns by kind what a version is known by, as the page shows it."""
    others = {name: f"{value:.4f}" for name, value in made_from["metrics"].items() if name.startswith("test/")}
    behaviour = {
        name.split("/")[1]: f"{value:.0%}" for name, value in made_from["metrics"].items() if name not in others
    }
    rows = {f"{split} reviews learnt from": f"{count:,}" for split, count in (made_from["rows"] or {}).items()}
    tags = {_tag_shown(name): str(value) for name, value in made_from["tags"].items()}
    data = {name: value for name, value in tags.items() if name.startswith(("md5 of data", "data set"))}
    serving = made_from["serving"] or {}
    return {
        "metrics": {shown: _number(made_from[name]) for name, shown in _MEASURED.items()}
        | {name.replace("/", " "): value for name, value in others.items()}
        | {f"{name} to serve": f"{value:.2f}" for name, value in serving.items()},
        "behaviour, cases that fail": behaviour,
        "params": {"model": str(made_from["model"])}
        | {name: str(value) for name, value in made_from["params"].items()},
        "data": rows | data,
        "code and machine": {name: value for name, value in tags.items() if name not in data},
    }


def _changed(changes: Change) -> str:
    """Says what changed, a phrase a kind, since the oldest version that the challenger is compared with."""
    phrases = []
    for kind, rows in changes.kinds.items():
        differing = [(name, values[0], values[-1]) for name, values in rows if values[0] != values[-1]]
        shown = [f"{name} {then} → {now}" for name, then, now in differing[:_PHRASES] if len(then + now) < _SHORT]
        more = len(differing) - len(shown)
        shown += [rendering.counted(more, "other thing" if shown else "thing")] if more else []
        phrases.append(f"{kind}: {', '.join(shown) or 'the same'}")
    return f"From {changes.columns[0]}, to {changes.columns[-1]}: {'; '.join(phrases)}."


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _tag_shown(name: str) -> str:
    """Returns a run's tag as the page names it."""
    for prefix, shown in _PREFIXES_SHOWN.items():
        if name.startswith(prefix):
            return shown + name.removeprefix(prefix)
    return _TAGS_SHOWN.get(name, name)
