"""`sentiment`: what people type. Heavy libraries load only in the command that needs them."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from pipeline.labelling import commands as label_commands
from pipeline.project.run_command import run_command
from pipeline.project.tables import table
from pipeline.registry import commands
from pipeline.registry.commands import REJECTED

app = typer.Typer(
    help="Sentiment of IMDB reviews: look at results, compare runs, score.", no_args_is_help=True, add_completion=False
)


@app.command()
def summary(markdown: Annotated[bool, typer.Option(help="Print the table as Markdown.")] = False) -> None:
    """Print each model's results on the test split, from reports/."""
    from pipeline.reporting import summary as results

    print(results.markdown() if markdown else results.table())


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the MLflow UI on the project's tracking store, and print where its view of the trainings is."""
    from pipeline.project.params import load_params

    load_params()  # outside the project's root this would make a new, empty store
    from pipeline.tracking import runs, ui_views

    uri = runs.tracking_uri()
    served = uri.startswith("http")  # by somebody else
    if not served:
        from pipeline.serving.server.listening import listen

        listen(host, port).close()  # the addresses below are of this server, not of one that has the port already
    client = runs.connect()
    ui_views.save(client)
    for name, address in ui_views.addresses(uri if served else f"http://{host}:{port}", runs.experiment_id(client)):
        print(f"{name:8}{address}", flush=True)
    if served:
        return
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # eight processes for language models' traces
    arguments = ["ui", "--backend-store-uri", uri, "--host", host, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])


ModelUri = Annotated[
    str | None,
    typer.Option("--model", help="Any MLflow model URI: models:/…, runs:/…, a path.", show_default="the champion"),
]


_OPTION = re.compile(r"--?([a-z][\w-]*(=.*)?)?", re.IGNORECASE | re.DOTALL)
_REVIEW = "\0"
"""Begins a review that would be read as an option: no argument of a command line holds the character."""


class _Reviews(TyperCommand):
    """A command whose arguments are reviews: one that begins with a dash and has not the form of an option is none."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        return super().parse_args(
            ctx, [_REVIEW + one if one.startswith("-") and not _OPTION.fullmatch(one) else one for one in args]
        )


@app.command(cls=_Reviews)
def predict(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Reviews; without any, one a line from stdin. `--` goes before one that looks like an option."
        ),
    ] = None,
    model: ModelUri = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Score reviews: label, probability of positive, logit, and whether the answer is sure."""
    from pipeline.serving import files, models

    given = [text.removeprefix(_REVIEW) for text in texts or ()]
    reviews = files.checked(given) if given else files.read_lines(sys.stdin.buffer)
    scores = models.score_texts(models.load(model), reviews)
    if json:
        typer.echo(files.json_lines(reviews, scores).encode())  # JSON is UTF-8, whatever else stdout takes
    else:
        print(files.table(reviews, scores))


@app.command()
def pull(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The new folder; replaced if pulled.")],
    model: Annotated[
        str | None, typer.Argument(help="Any MLflow model URI: models:/…, a path.", show_default="the champion")
    ] = None,
) -> None:
    """Write a model to a folder that scores with NumPy and ONNX Runtime alone: no registry, no repository."""
    from pipeline.serving import models, pulled

    pulled.pull(model or models.champion_uri(), output)
    print(f"{output}: pip install -r {output}/requirements.txt; python {output}/score.py REVIEW…")


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A .csv, .tsv, .jsonl or .parquet file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The same four; replaced if there.")],
    model: ModelUri = None,
    text_column: Annotated[str, typer.Option(help="The column that holds the reviews.")] = "text",
) -> None:
    """Score a file row by row, keeping its columns. Rows without a usable text go to OUT's .quarantine.jsonl."""
    from pipeline.serving import files

    with typer.progressbar(length=1, label=source.name, file=sys.stderr) as bar:

        def progress(position: int, size: int) -> None:
            bar.length = size
            bar.update(position - bar.pos)

        report = files.score_file(model, source, output, text_column=text_column, progress=progress)
    print(report)


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled texts: .csv, .tsv, .jsonl or .parquet.")],
    model: ModelUri = None,
    name: Annotated[str | None, typer.Option(help="Read it as this entry of evaluation_sets in params.yaml.")] = None,
    text_column: Annotated[str, typer.Option(help="The column that holds the texts.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column that holds the labels.")] = "label",
    pair_column: Annotated[str | None, typer.Option(help="The column that says which rows belong together.")] = None,
    positive: Annotated[list[str], typer.Option(help="A label that means positive.")] = ["1", "positive"],  # noqa: B006
    negative: Annotated[list[str], typer.Option(help="A label that means negative.")] = ["0", "negative"],  # noqa: B006
) -> None:
    """Measure a model on labelled texts of your own: accuracy, and of pairs how often both are right."""
    from pipeline.serving import files

    print(
        files.evaluate(
            model,
            source,
            name,
            text=text_column,
            label=label_column,
            pair=pair_column,
            positive=positive,
            negative=negative,
        )
    )


@app.command()
def serve(
    model: ModelUri = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)] = 5001,
    pin: Annotated[
        bool, typer.Option("--pin", help="Stay on the version found now; else follow the champion.")
    ] = False,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token that requests must have.")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Beyond this machine, ask for no token.")] = False,
    allow_host: Annotated[list[str], typer.Option(help="Another name that requests may ask for.")] = [],  # noqa: B006
    drain: Annotated[float, typer.Option(help="Seconds to go on after SIGTERM, not ready any more.", min=0)] = 5,
    poll: Annotated[float, typer.Option(help="Seconds between two looks for another champion.", min=0.1)] = 10,
    threads: Annotated[
        int | None, typer.Option(help="Batches scored at a time, by default OMP_NUM_THREADS or one a core.", min=1)
    ] = None,
) -> None:
    """Serve a model over HTTP, by default the champion: POST reviews to /invocations, or as /v2 of Open Inference."""
    from pipeline.serving.server import run

    run.serve(
        model,
        host,
        port,
        pinned=pin,
        token_file=token_file,
        open_to_all=no_auth,
        hosts=allow_host,
        drain_s=drain,
        poll_s=poll,
        threads=threads,
    )


@app.command()
def retrain(
    force: Annotated[bool, typer.Option("--force", help="Train although no trigger fires.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--explain", help="Show the decision and its figures; change nothing.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="List the runs there were, and stop.")] = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit dvc.lock, the data set's pointer and reports to git.")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(help="End after so long.", min=0, show_default="retrain.max_minutes of params.yaml")
    ] = None,
) -> None:
    """Take in new reviews, train if there is a reason to, and let the gate decide: what a scheduler calls.

    Ends with 0 (promoted, or nothing to do), 1 (failed), 2 (wrong usage), 3 (data rejected), 4 (challenger rejected) or
    75 (another retraining is under way).
    """
    from pipeline.retraining import records

    if history:
        print(table(records.history(records.read_all())))
        return
    from pipeline.retraining import job

    outcome = job.retrain(force=force, dry_run=dry_run, commit=commit, max_minutes=max_minutes)
    if outcome == records.REJECTED:
        raise typer.Exit(REJECTED)


app.add_typer(commands.app, name="registry")
app.add_typer(label_commands.app, name="labels")


def main() -> None:
    """Runs the command that the command line names."""
    run_command(app)


if __name__ == "__main__":
    main()
