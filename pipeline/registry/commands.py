"""`sentiment registry`: versions, the decisions about them, and who is champion."""

import json as json_format
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.project.errors import PipelineError
from pipeline.project.tables import table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.registry.decisions import Entry

REJECTED = 4
TOLERANCE = 0.01
"""Two trainings that differ in rounding alone end within a point: the accuracy of models that are equally good has a
standard error of 0.23 points on IMDB's 25,000 test reviews."""
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

    lines = _decisions(client, chosen)
    rows: list[tuple[str, ...]] = [("version", "model", "registered", "validation", "test", "aliases", "last decision")]
    for number, version in reversed(versions.all_versions(client, chosen).items()):
        metrics, _ = _metrics_and_tags(client, version)
        about = [line for line in lines if number in (line["to"], line["evidence"].get("challenger"))]
        registered = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
        rows.append(
            (
                number,
                version.tags.get("model", "-"),
                f"{registered:%Y-%m-%d %H:%M}",
                *(f"{metrics[of]:.4f}" if of in metrics else "-" for of in ("val_accuracy", "test/accuracy")),
                _aliases(client, chosen, number),
                f"{about[-1]['decision']} {about[-1]['when'][:10]}" if about else "-",
            )
        )
    print(table(rows))


@app.command()
def show(version: Version, name: Name = None) -> None:
    """Show one version: what it was made from, its metrics, and every decision about it."""
    client, chosen = _connected(name)
    from pipeline.registry import versions

    found = versions.resolve(client, chosen, version)
    number = str(found.version)
    metrics, tags = _metrics_and_tags(client, found)
    facts = {
        "version": f"{chosen} {number}",
        "aliases": _aliases(client, chosen, number),
        "run": f"{found.run_id}" + ("" if tags else " (gone)"),
        "git commit": tags.get("mlflow.source.git.commit", "-"),
        "git dirty": tags.get("git.dirty", "-"),
        "dataset": tags.get("dataset", "-"),
        **{tag: found.tags.get(tag, tags.get(tag, "-")) for tag in versions.MACHINE},
        **{tag: found.tags.get(tag, "-") for tag in ("model", "weights_sha256", "files_sha256", "latency_ms")},
        **{of: f"{value:.4f}" for of, value in sorted(metrics.items()) if of.startswith(("best_", "test/"))},
    }
    print(table(list(facts.items()), header=False))
    about = [line for line in _decisions(client, chosen) if number in (line["from"], line["to"])]
    print(f"\n{_history(about)}")


@app.command()
def history(
    name: Name = None,
    json: Annotated[bool, typer.Option("--json", help="Print the decisions, evidence and all.")] = False,
) -> None:
    """Print every decision about the champion, the oldest first."""
    lines = _decisions(*_connected(name))
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
    """Make a version champion without asking the gate."""
    from pipeline.registry import champion

    line = champion.promote(_registered_model(name), version, reason, accept_damage=accept_damage)
    print("it is champion already; nothing was changed" if line is None else _sentence(line))


@app.command()
def rollback(reason: Reason, name: Name = None) -> None:
    """Make the version champion that was promoted last before the present one."""
    from pipeline.registry import champion

    print(_sentence(champion.rollback(_registered_model(name), reason)))


@app.command()
def verify(name: Name = None) -> None:
    """Check decisions, aliases, versions, runs and outputs against each other; ends with 1 where something is wrong."""
    from pipeline.project.params import load_params
    from pipeline.registry import verification
    from pipeline.tracking.fitted_runs import FITTED

    problems = verification.verify(_registered_model(name), (*load_params().models, *FITTED))
    for problem in problems:
        print(f"problem  {problem.what}\nmend     {problem.mend}\n")
    if problems:
        raise PipelineError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found")
    print("decisions, aliases, versions, runs and outputs agree")


@app.command()
def relocate() -> None:
    """Enter where the local store's files are, after the project was moved or copied; the other place stays as it is.

    Every command that writes does so, unless a run is RUNNING.
    """
    from pipeline.tracking import runs

    entered = runs.relocate()
    print(f"{entered} places were entered anew" if entered else "the store's files are where it has them")


@app.command()
def restore(
    file: Annotated[Path | None, typer.Argument(help="The backup.", show_default="the newest beside the store")] = None,
) -> None:
    """Put a backup in the place of the local store, and append the decisions again that it lacks and git has."""
    from pipeline.registry import recovery

    print(recovery.restore(file))


@app.command()
def reproduce(
    version: Version,
    name: Name = None,
    tolerance: Annotated[float, typer.Option(help="By how much a metric may differ.", min=0)] = TOLERANCE,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Also a version made from uncommitted code.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the scratch clone.")] = False,
) -> None:
    """Make a version again in a scratch clone of its commit, and compare; ends with 1 where something differs."""
    from pipeline.registry import reproduction as again

    _, chosen = _connected(name)
    rows = again.reproduce(chosen, version, tolerance=tolerance, allow_dirty=allow_dirty, keep=keep)
    print(table([("what", "recorded", "made again", "verdict"), *rows]))
    if differing := [row.what for row in rows if row.verdict == "differs"]:
        raise PipelineError(f"version {version} was not reproduced: {', '.join(differing)} differ")
    print("reproduced")


def _registered_model(name: str | None) -> str:
    from pipeline.project.params import load_params
    from pipeline.registry.versions import registered_name

    return name or registered_name(load_params().dataset)


def _connected(name: str | None) -> "tuple[MlflowClient, str]":
    """Returns a client and the registered model's name; raises UsageError where there is none yet."""
    from pipeline.registry import versions
    from pipeline.tracking import runs

    chosen, client = _registered_model(name), runs.connect_to_read()
    versions.require_registered(client, chosen)
    return client, chosen


def _decisions(client: "MlflowClient", name: str) -> "list[Entry]":
    """Returns the decisions about a registered model, warning of damage."""
    from pipeline.registry import decisions

    history = decisions.read(client, name)
    if history.problems:
        typer.echo(f"warning: {history.problems[0]}; `sentiment registry verify` says how to mend it", err=True)
    return history.lines


def _aliases(client: "MlflowClient", name: str, version: str) -> str:
    aliases = client.get_registered_model(name).aliases
    return ", ".join(sorted(alias for alias, number in aliases.items() if str(number) == version)) or "-"


def _metrics_and_tags(client: "MlflowClient", version: "ModelVersion") -> tuple[dict[str, float], dict[str, str]]:
    """Returns those of a version's run, empty where it is gone."""
    from pipeline.tracking import runs

    run = runs.find_run(client, str(version.run_id))
    return (run.data.metrics, run.data.tags) if run else ({}, {})


def _sentence(line: "Entry") -> str:
    return f"{line['decision']}: version {line['from'] or 'none'} → {line['to'] or 'none'} ({line['reason']})"


def _history(lines: "list[Entry]") -> str:
    rows = [("line", "when", "who", "decision", "from", "to", "commit", "reason")]
    for line in lines:
        commit, old, new = (line["git_commit"] or "-")[:8], line["from"] or "-", line["to"] or "-"
        rows.append((str(line["seq"]), line["when"], line["who"], line["decision"], old, new, commit, line["reason"]))
    return table(rows) if lines else "no decision yet"
