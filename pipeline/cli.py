"""`sentiment`: what people type. Heavy libraries load only in the command that needs them."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import registry_cli
from pipeline.errors import UsageError, run_command

app = typer.Typer(
    help="Sentiment of IMDB reviews: look at results, compare runs, score.", no_args_is_help=True, add_completion=False
)


@app.command()
def summary(markdown: Annotated[bool, typer.Option(help="Print the table as Markdown.")] = False) -> None:
    """Print each model's results on the test split, from reports/."""
    from pipeline import summary as results

    print(results.markdown() if markdown else results.table())


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the MLflow UI on the project's tracking store."""
    from pipeline.params import load_params
    from pipeline.tracking import tracking_uri

    load_params()  # outside the project's root this would make a new, empty store
    uri = tracking_uri()
    if uri.startswith("http"):
        raise UsageError(f"the tracking store is a server already: open {uri}")
    arguments = ["ui", "--backend-store-uri", uri, "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])


ModelUri = Annotated[
    str | None,
    typer.Option("--model", help="Any MLflow model URI: models:/…, runs:/…, a path.", show_default="the champion"),
]


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Reviews; without any, one a line from stdin.")] = None,
    model: ModelUri = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Score reviews: label, probability of positive, and logit."""
    from pipeline import scoring

    reviews = scoring.checked(texts) if texts else scoring.read_lines(sys.stdin.buffer)
    scores = scoring.score_texts(scoring.load(model), reviews)
    print(scoring.json_lines(reviews, scores) if json else scoring.table(reviews, scores))


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A .csv, .jsonl or .parquet file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The same three; replaced if there.")],
    model: ModelUri = None,
    text_column: Annotated[str, typer.Option(help="The column that holds the reviews.")] = "text",
) -> None:
    """Score a file row by row, keeping its columns. Rows without a usable text go to OUT's .quarantine.jsonl."""
    from pipeline import scoring

    with typer.progressbar(length=1, label=source.name, file=sys.stderr) as bar:

        def begin(size: int) -> None:
            bar.length = max(size, 1)

        report = scoring.score_file(model, source, output, text_column=text_column, begin=begin, advance=bar.update)
    print(report)


@app.command()
def serve(
    model: ModelUri = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)] = 5001,
) -> None:
    """Serve a model over HTTP with MLflow's scoring server: POST reviews to /invocations."""
    from pipeline import server

    server.serve(model, host, port)


app.add_typer(registry_cli.app, name="registry")


def main() -> None:
    run_command(app)


if __name__ == "__main__":
    main()
