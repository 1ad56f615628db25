"""One colour for the trainings of one model, in the MLflow UI's tables and charts."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
"""Those of Okabe & Ito (2008), which the colour-blind tell apart, without yellow and black; then two more."""
TAG = "mlflow.runColor"
"""The UI's own tag; without it a run's colour comes from its id."""


def paint(client: "MlflowClient", trainings: Iterable["Run"]) -> None:
    """Gives each of `trainings`, all there are, the oldest first, its model's colour: COLOURS in the order in which the
    models were first trained, again from the first one where there are more models."""
    colours: dict[str, str] = {}
    for run in trainings:
        colour = colours.setdefault(run.data.tags.get("model", ""), COLOURS[len(colours) % len(COLOURS)])
        if run.data.tags.get(TAG) != colour:
            client.set_tag(run.info.run_id, TAG, colour)
