"""The report page: one HTML file that needs no network, made from the reports alone."""

from collections.abc import Mapping

from markupsafe import Markup

from pipeline.project.paths import DATA_DOCS, NGRAMS, REPORT_PAGE
from pipeline.reporting import charts, results, study_charts
from pipeline.reporting.drawing import on_page
from pipeline.reporting.rendering import render
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


def page(found: Results, registry: Report, recurrence: Report, noise: Report | None, dataset: str) -> str:
    """Returns the page as HTML.

    Args:
        found: the reports of data, models and their comparison.
        registry: `challenge.register`'s report.
        recurrence: `gradient_reach.study`'s.
        noise: `results.read_noise`'s.
        dataset: name of the data set.
    """
    return render(
        "report.html",
        dataset=dataset,
        results=found,
        best=found.best,
        rows=results.measured(found.models),
        pairs=[
            (pair, results.verdict(pair), results.paired_sentence(found, pair)) for pair in found.comparison["pairs"]
        ],
        brief=brief(found, registry),
        figures={name: Markup(on_page(svg)) for name, svg in _figures(found, recurrence).items()},
        gates={
            name: Markup(on_page(study_charts.gates(model.gates, name)))
            for name, model in found.models.items()
            if model.gates
        },
        findings=_findings(found.validation),
        data_docs=(DATA_DOCS / "index.html").relative_to(REPORT_PAGE.parent).as_posix(),
        registry=registry,
        flips=_flips(found, registry),
        changes=_changes(registry),
        recurrence=recurrence,
        noise=noise,
        cells=study_charts.CELL_NAMES,
        provenance=provenance({name: model.tags for name, model in found.models.items()}),
        sentences={
            "wrong": results.wrong_sentence(found, found.best),
            "padding": {name: results.padding_sentence(model) for name, model in found.models.items()},
            "batching": results.batching_sentence(found),
            "noise": results.noise_sentences(noise) if noise else None,
        },
    )


def brief(found: Results, registry: Report) -> list[tuple[str, str, str, str]]:
    """Returns the five questions of a newcomer: question, answer in a few words, in a sentence, and the page's part."""
    pair = found.closest
    best = found.best
    study = best.padding
    farthest = max(study["widths"], key=lambda name: study["widths"][name])
    flipped = study["unmasked"][farthest]["flipped"]
    champion = registry.get("champion_made_from")
    return [
        (
            "Which model is better, and is the difference real?",
            results.verdict(pair),
            results.paired_sentence(found, pair),
            "results",
        ),
        (
            "What data and commit made the champion?",
            _champion_title(registry),
            _champion_sentence(champion) if champion else str(registry["reason"]),
            "provenance",
        ),
        (
            f"What does {best.name} get wrong?",
            f"{1 - best.accuracy:.1%} of the test reviews",
            results.wrong_sentence(found, best),
            "mistakes",
        ),
        (
            "Does padding matter?",
            f"Not while it is masked; else {flipped / study['reviews']:.0%} of the labels flip"
            if study["masking_holds"]
            else "It does, though it is masked",
            results.padding_sentence(best),
            "padding",
        ),
        ("What changed since last week?", _last_title(registry), _last_sentence(registry), "changes"),
    ]


def provenance(tags: Mapping[str, Mapping[str, str]]) -> list[tuple[str, dict[str, str]]]:
    """Returns for each thing that a run was made from its name and, by model, what it was."""
    found = {name for model in tags.values() for name in model}
    names = [*_TAGS_SHOWN, *(name for prefix in _PREFIXES_SHOWN for name in sorted(found) if name.startswith(prefix))]
    return [
        (_tag_shown(name), {model: model_tags.get(name, "unknown") for model, model_tags in tags.items()})
        for name in names
    ]


def _tag_shown(name: str) -> str:
    """Returns a run's tag as the page names it."""
    for prefix, shown in _PREFIXES_SHOWN.items():
        if name.startswith(prefix):
            return shown + name.removeprefix(prefix)
    return _TAGS_SHOWN.get(name, name)


def _figures(found: Results, recurrence: Report) -> dict[str, str]:
    measured = {name: model.metrics for name, model in found.models.items()} | {NGRAMS: found.ngrams}
    metrics = {results.named(name): one for name, one in measured.items()}
    kept = {name: int(model.run["best_epoch"]) for name, model in found.models.items()}
    histories = {name: found.history(name) for name in found.models}
    studies = {name: model.padding for name, model in found.models.items()}
    tables = {kind: {results.named(name): found.table(name, kind) for name in measured} for kind in charts.AREAS}
    return {
        "roc": charts.curves(tables["roc"], "roc", metrics),
        "precision_recall": charts.curves(tables["precision_recall"], "precision_recall", metrics),
        "calibration": charts.calibration(tables["calibration"], metrics),
        "accuracies": charts.accuracies(
            [(name, one["accuracy"], one["intervals"]["accuracy"]) for name, one in metrics.items()]
        ),
        "learning_accuracy": charts.learning_curves(histories, "accuracy", kept),
        "learning_loss": charts.learning_curves(histories, "loss", kept),
        "by_length": charts.by_length(found.comparison["lengths"], results.named),
        "padding_flips": study_charts.padding_flips(studies),
        "padding_changes": study_charts.padding_changes(studies),
        "padding_shares": study_charts.padding_shares(found.batching),
        "batching": study_charts.batching(found.batching["train"]),
        "gradients_untrained": study_charts.gradients(recurrence, "untrained"),
        "gradients_trained": study_charts.gradients(recurrence, "trained"),
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


def _findings(validation: Report) -> list[Report]:
    """Returns the advisory expectations on the raw tables that found anything."""
    return [
        one
        for one in validation["expectations"]
        if one["severity"] == "advisory" and one["table"].startswith("raw_") and one["unexpected_count"]
    ]


def _champion_title(registry: Report) -> str:
    made_from = registry.get("champion_made_from")
    if not made_from:
        return "There is no champion" if not registry.get("champion") else f"Version {registry['champion']}"
    commit = made_from["tags"].get("mlflow.source.git.commit")
    return f"Version {made_from['version']} ({made_from['model']})" + (f", commit {commit[:10]}" if commit else "")


def _champion_sentence(made_from: Report) -> str:
    tags = made_from["tags"]
    clean = {"true": "with uncommitted changes", "false": "with nothing uncommitted"}.get(tags.get("git.dirty", ""))
    data = tags.get("md5.data/splits", "unknown")
    accuracy = made_from["test_accuracy"]
    return (
        f"{made_from['model']}, registered on {made_from['registered']}, from {tags.get('dataset', 'unknown')} "
        f"(md5 of data/splits {data[:10]}…) at commit {tags.get('mlflow.source.git.commit', 'unknown')[:10]}"
        f"{f', {clean}' if clean else ''}; seed {tags.get('seed', 'unknown')}, {tags.get('device', 'unknown device')}, "
        f"TensorFlow {tags.get('version.tensorflow', 'unknown')}"
        f"{f'; test accuracy {accuracy:.4f}' if accuracy is not None else ''}."
    )


def _last_title(registry: Report) -> str:
    history = registry.get("history")
    if not history:
        return "Nothing was registered"
    last = history[-1]
    words = {
        "first": f"Version {last['to']} became the first champion",
        "promoted": f"Version {last['to']} was promoted",
        "kept": f"The champion, version {last['to']}, was kept" if last["to"] else "There is still no champion",
        "rolled back": f"The champion was rolled back to version {last['to']}",
    }
    return f"{words[last['decision']]} on {last['when'][:10]}"


def _last_sentence(registry: Report) -> str:
    history = registry.get("history")
    if not history:
        return str(registry["reason"])
    changes = _changes(registry)
    if not changes:
        return str(history[-1]["reason"])
    then, now = registry["against"]["made_from"]["version"], registry["challenger"]
    return f"{history[-1]['reason']} Version {now} differs from version {then} in {len(changes)} things, listed below."


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


_MEASURED = {"test_accuracy": "test accuracy", "val_accuracy": "validation accuracy"}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
