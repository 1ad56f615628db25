"""The short table of results that ends a first run, made from the reports alone."""

from pathlib import Path

from pipeline.artifacts import BASELINE_REPORT, REGISTRY_REPORT, REPORTS, evaluation_reports, read_json, train_reports
from pipeline.params import load_params


def table() -> str:
    """Returns a text table of test accuracy with its interval, parameters and training time of each model of
    params.yaml and of the baseline, and where to look next.

    Raises:
        DataError: a report is missing; the message says how to make it.
    """
    params = load_params()
    rows = [("model", "test accuracy", "95% interval", "parameters", "training")]
    for name in params.models:
        metrics = read_json(evaluation_reports(name) / "metrics.json")
        run = read_json(train_reports(name) / "run.json")["metrics"]
        duration = f"{run['training_seconds']:,.0f} s, {run['epochs']} epochs"
        rows.append((name, *_accuracy(metrics), f"{run['parameters']:,}", duration))
    baseline = read_json(BASELINE_REPORT)
    rows.append(("baseline", *_accuracy(baseline), f"{baseline['features']:,}", f"{baseline['seconds']:,.0f} s"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_where_next()])


def _accuracy(metrics: dict) -> tuple[str, str]:
    low, high = metrics["intervals"]["accuracy"]
    return f"{metrics['accuracy']:.4f}", f"{low:.4f} to {high:.4f}"


def _where_next() -> list[str]:
    registry = read_json(REGISTRY_REPORT)
    here = Path.cwd()
    return [
        f"data set:    {load_params().dataset}",
        f"registry:    {registry['decision']}: {registry['reason']}",
        f"reports:     {here / REPORTS}",
        f"data docs:   {here / REPORTS / 'data_docs' / 'index.html'}",
        f"MLflow UI:   cd {here} && {_command()} ui",
    ]


def _command() -> str:
    import sys

    return str(Path(sys.executable).with_name("sentiment"))
