"""`sentiment labels`: which labels are doubtful, and a person's verdicts on them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.data import verdicts
from pipeline.project.locks import author
from pipeline.project.params import load_params
from pipeline.project.tables import table

app = typer.Typer(help="Labels that are likely to be wrong, and verdicts on them.", no_args_is_help=True)
_EXCERPT = 100  # characters


@app.command()
def doubtful(
    rows: Annotated[int, typer.Option("--rows", "-n", help="How many, the most doubtful first.", min=1)] = 20,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="CSV", help="Write them there, with their whole texts.")
    ] = None,
    plant: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=0.4, help="Turn such a share of the labels first, in memory; say how many come out on top."
        ),
    ] = None,
) -> None:
    """Rank the labels of train, validation and new reviews by how likely they are wrong, with the reasons.

    Cross-fitted n-grams judge each review without having seen it; a minute or two for 25,000 reviews. Those that
    somebody judged already (`sentiment labels judge`) are left out.
    """
    from pipeline.labelling import doubtful

    params = load_params()
    if plant is not None:
        found = doubtful.planted(params, plant)
        print(
            f"{found.found:,} of {found.turned:,} turned labels ({found.found / found.turned:.1%}) are among the "
            f"{found.looked_at:,} most doubtful ({doubtful.TOP_SHARE:.0%} of all)"
        )
        return
    ranked = doubtful.doubtful(params, rows)
    if output:
        doubtful.write(ranked, output)
        print(f"{len(ranked):,} reviews: {output}")
        return
    shown = ranked.assign(
        own_probability=ranked["own_probability"].map("{:.3f}".format),
        likely_wrong=ranked["likely_wrong"].map({True: "yes", False: "no"}),
        text=ranked["text"].str.slice(0, _EXCERPT),
    )
    header = ("rank", "id", "split", "label", "probability of it", "likely wrong", "speaks against it", "text")
    print(table([header, *shown.itertuples(index=False)]))


@app.command()
def judge(
    review: Annotated[str, typer.Argument(metavar="ID", help="The id that `doubtful` shows, such as train/123.")],
    verdict: Annotated[
        Literal["keep", "turn", "drop"], typer.Argument(help="keep the label, turn it, or drop the review.")
    ],
    who: Annotated[str | None, typer.Option(help="Who says so.", show_default="user@host")] = None,
) -> None:
    """Add a verdict to data/labelled/verdicts.csv, which `dvc repro` obeys; the last one on a text counts.

    Test labels stay as they are: there, verdicts make a second figure beside the first.
    """
    from pipeline.labelling import doubtful

    text, label = doubtful.review_of(review)
    made = verdicts.Verdict(
        id=review,
        text_sha256=verdicts.text_digest(text),
        label=label,
        verdict=verdict,
        who="".join(filter(str.isprintable, who or "")).strip() or author(),
        when=datetime.now(UTC).replace(microsecond=0),
    )
    verdicts.append(made)
    print(f"{review} {doubtful.kept(made)} from the next `dvc repro` on ({verdicts.VERDICTS}; commit it to git)")
