"""`sentiment`: what people type. Heavy libraries load only in the command that needs them."""

import os
import sys
from typing import Annotated

import typer

from pipeline.errors import UsageError, run_command

app = typer.Typer(
    help="Sentiment of IMDB reviews: look at results, compare runs.", no_args_is_help=True, add_completion=False
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


def main() -> None:
    run_command(app)


if __name__ == "__main__":
    main()
