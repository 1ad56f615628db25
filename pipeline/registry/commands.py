"""`sentiment registry`: versions, the decisions about them, and who is champion."""

import json as json_format
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.project.errors import PipelineError
from pipeline.project.tables import table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.registry.decisions import Entry

REJECTED = 4
app = typer.Typer(help="Registered versions, who is champion, and why.", no_args_is_help=True)

Name = Annotated[
    str | None, typer.Option("--name", help="The registered model.", show_default="that of params.yaml's dataset")
]
Reason = Annotated[str, typer.Option(help="Why; it stands in the history.")]
Version = Annotated[str, typer.Argument(metavar="ALIAS|VERSION", help="champion, challenger, or a number.")]


@app.command("list")
def list_versions(name: Name = None) -> None:
    """List the versions with their accuracy, aliases and last decision."""
    client, chosen = _connected(name)
    from pipeline.registry import versions

    lines = _lines(client, chosen)
    rows = [("version", "model", "registered", "validation", "test", "aliases", "last decision")]
    for version in reversed(versions.all_versions(client, chosen)):
        number = str(version.version)
        metrics = _metrics(client, version)
        told = [line for line in lines if number in (line["to"], line["evidence"].get("challenger"))]
        last = f"{told[-1]['decision']} {told[-1]['when'][:10]}" if told else "-"
        rows.append(
            (
                number,
                version.tags.get("model", "-"),
                f"{datetime.fromtimestamp(version.creation_timestamp / 1000, UTC):%Y-%m-%d %H:%M}",
                _share(metrics.get("best_val_accuracy")),
                _share(metrics.get("test/accuracy")),
                ", ".join(_aliases(client, chosen, number)) or "-",
                last,
            )
        )
    print(table(rows))


@app.command()
def show(version: Version, name: Name = None) -> None:
    """Show one version: what it was made from, its metrics, and every decision about it."""
    client, chosen = _connected(name)
    from pipeline.registry import versions
    from pipeline.tracking import runs

    found = versions.resolve(client, chosen, version)
    number = str(found.version)
    run = runs.find_run(client, str(found.run_id))
    tags = run.data.tags if run else {}
    facts = {
        "version": f"{chosen} {number}",
        "aliases": ", ".join(_aliases(client, chosen, number)) or "-",
        "run": f"{found.run_id}" + ("" if run else " (gone)"),
        "git commit": tags.get("mlflow.source.git.commit", "-"),
        "git dirty": tags.get("git.dirty", "-"),
        "dataset": tags.get("dataset", "-"),
        "device": tags.get("device", "-"),
        **{name_: found.tags.get(name_, "-") for name_ in ("model", "weights_sha256", "files_sha256", "latency_ms")},
    }
    metrics = sorted(_metrics(client, found).items())
    facts |= {metric: f"{value:.4f}" for metric, value in metrics if metric.startswith(("best_", "test/"))}
    print(table(list(facts.items()), header=False))
    about = [line for line in _lines(client, chosen) if number in (line["from"], line["to"])]
    print(f"\n{_history(about)}")


@app.command()
def history(
    name: Name = None,
    json: Annotated[bool, typer.Option("--json", help="Print the decisions, evidence and all.")] = False,
) -> None:
    """Print every decision about the champion, the oldest first."""
    lines = _lines(*_connected(name))
    print("\n".join(json_format.dumps(line, ensure_ascii=False) for line in lines) if json else _history(lines))


@app.command()
def gate() -> None:
    """Run the gate on the trained models, as the `register` stage does; ends with 4 where it rejects the challenger."""
    from pipeline.project.params import load_params
    from pipeline.registry.challenge import register_trained

    if register_trained(load_params())["decision"] == "kept":
        raise typer.Exit(REJECTED)


@app.command()
def promote(
    version: Version,
    reason: Reason,
    name: Name = None,
    accept_damage: Annotated[
        bool, typer.Option("--accept-damage", help="Also where the history is damaged; the decision names the damage.")
    ] = False,
) -> None:
    """Make a version champion by hand."""
    from pipeline.registry import champion
    from pipeline.registry.versions import registered_name

    chosen = name or registered_name(_dataset())
    line = champion.promote(chosen, version, reason, accept_damage=accept_damage)
    print("it is champion already; nothing was changed" if line is None else _sentence(line))


@app.command()
def rollback(reason: Reason, name: Name = None) -> None:
    """Make the version champion that was promoted last before the present one."""
    from pipeline.registry import champion
    from pipeline.registry.versions import registered_name

    print(_sentence(champion.rollback(name or registered_name(_dataset()), reason)))


@app.command()
def verify(name: Name = None) -> None:
    """Check decisions, aliases, versions, runs and outputs against each other; ends with 1 where something is wrong."""
    from pipeline.project.params import load_params
    from pipeline.registry import verification
    from pipeline.registry.versions import registered_name

    params = load_params()
    problems = verification.verify(name or registered_name(params.dataset), params.models)
    for problem in problems:
        print(f"problem  {problem.what}\nmend     {problem.mend}\n")
    if problems:
        raise PipelineError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found")
    print("decisions, aliases, versions, runs and outputs agree")


@app.command()
def reproduce(
    version: Version,
    name: Name = None,
    tolerance: Annotated[float, typer.Option(help="By how much a metric may differ.", min=0)] = 0.01,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Also a version made from uncommitted code.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the scratch clone.")] = False,
) -> None:
    """Make a version again in a scratch clone of its commit, and compare; ends with 1 where something differs."""
    from pipeline.registry import reproduction as again

    _, chosen = _connected(name)
    rows = again.reproduce(chosen, version, tolerance=tolerance, allow_dirty=allow_dirty, keep=keep)
    cells = [(row.what, row.recorded, row.made_again, row.verdict) for row in rows]
    print(table([("what", "recorded", "made again", "verdict"), *cells]))
    if differing := [row.what for row in rows if row.differs]:
        raise PipelineError(f"version {version} was not reproduced: {', '.join(differing)} differ")
    print("reproduced")


def _dataset() -> str:
    from pipeline.project.params import load_params

    return load_params().dataset


def _connected(name: str | None) -> "tuple[MlflowClient, str]":
    """Returns a client and the registered model's name; raises UsageError where there is none yet."""
    from pipeline.registry import versions
    from pipeline.tracking import runs

    chosen = name or versions.registered_name(_dataset())
    client = runs.connect()
    versions.require_registered(client, chosen)
    return client, chosen


def _lines(client: "MlflowClient", name: str) -> "list[Entry]":
    """Returns the decisions about a registered model, warning of damage."""
    from pipeline.registry import decisions

    history = decisions.read(client, name)
    if history.problems:
        typer.echo(f"warning: {history.problems[0]}; `sentiment registry verify` says how to mend it", err=True)
    return history.lines


def _aliases(client: "MlflowClient", name: str, version: str) -> list[str]:
    aliases = client.get_registered_model(name).aliases
    return sorted(alias for alias, number in aliases.items() if str(number) == version)


def _metrics(client: "MlflowClient", version: "ModelVersion") -> dict[str, float]:
    from pipeline.tracking import runs

    run = runs.find_run(client, str(version.run_id))
    return dict(run.data.metrics) if run else {}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _sentence(line: "Entry") -> str:
    return f"{line['decision']}: version {line['from'] or 'none'} → {line['to'] or 'none'} ({line['reason']})"


def _history(lines: "Sequence[Entry]") -> str:
    if not lines:
        return "no decision yet"
    rows = [("line", "when", "who", "decision", "from", "to", "commit", "reason")]
    for line in lines:
        commit = (line["git_commit"] or "-")[:8]
        moved = (line["from"] or "-", line["to"] or "-")
        rows.append((str(line["seq"]), line["when"], line["who"], line["decision"], *moved, commit, line["reason"]))
    return table(rows)
