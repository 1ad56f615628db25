"""How the MLflow UI shows the experiment: a saved view of its trainings, with columns and charts that tell them apart.

MLflow keeps a view in a tag of the experiment, so whoever opens the store finds it, in the menu of saved views or by
its address. The format is that of MLflow 3.17's own "Save view" (an envelope with name and times around the UI's
state); tests/tracking/test_ui_views.py holds it to the real UI.
"""

import json
from typing import TYPE_CHECKING, Any

from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "trainings"
_TAG = f"mlflow.sharedViewState.{VIEW}"
_DESCRIPTION = """\
Recurrent networks that tell the sentiment of movie reviews, trained by this project's DVC pipeline.

The saved view *Trainings* (menu at the top right) has one line for each trained model. Select some and press *Compare*,
or go to the charts: curves over epochs under `train` and `val`, figures of the whole run under `test`.
"""


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


# What is shown, in this order, and how wide (in pixels); the UI always shows the fixed ones.
_FIXED = {_column("attributes", "Run Name"): 190, "runDateAndNestInfo": 130, "duration": 80}
_CHOSEN = {
    _column("tags", "dataset"): 110,
    _column("tags", "model"): 80,
    _column("metrics", "test/accuracy"): 110,
    _column("metrics", "best_val_accuracy"): 140,
    _column("metrics", "test/loss"): 90,
    _column("metrics", "epochs"): 75,
    _column("metrics", "seconds_per_epoch"): 150,
    _column("tags", "device"): 80,
    _column("attributes", "Version"): 85,  # the commit
    _column("tags", "git.dirty"): 85,
    _column("params", "seed"): 70,
    _column("tags", "dvc.experiment"): 130,
    _column("attributes", "Dataset"): 300,
}
# In the order of interest, with the charts in a row; the charts are the UI's own. Sections not named here follow.
_SECTIONS = {"val": 2, "test": 3, "train": 2, "Sweep": 1, "Model metrics": 3}
_SWEPT = ("recurrent_units", "learning_rate", "dropout", "token_dropout", "seed")
"""Axes of the parallel coordinates, beside validation and test accuracy."""


def save(client: "MlflowClient") -> None:
    """Puts the view and a description into the experiment, where they are not there yet as they are here; a
    description that somebody wrote stays."""
    experiment = client.get_experiment(runs.experiment_id(client))
    view = json.dumps(
        {
            "name": VIEW.capitalize(),
            "createdAt": experiment.creation_time,
            "updatedAt": experiment.creation_time,
            "state": json.dumps(_state()),
        }
    )
    if experiment.tags.get(_TAG) != view:
        client.set_experiment_tag(experiment.experiment_id, _TAG, view)
    if runs.NOTE not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, runs.NOTE, _DESCRIPTION)


def addresses(server: str, experiment_id: str) -> list[tuple[str, str]]:
    """Returns where the view's table and charts are on an MLflow server, such as http://127.0.0.1:5000."""
    # Without the workflow type a browser that is new to MLflow is shown its pages for language models.
    runs = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return [("table", f"{runs}?{query}"), ("charts", f"{runs}?{query}&compareRunsMode=CHART")]


def _state() -> dict[str, Any]:
    widths = _FIXED | _CHOSEN
    return {
        "searchFilter": f"tags.{runs.KIND} = '{runs.TRAINING}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": list(_CHOSEN),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": False, "columns": columns}
            for name, columns in _SECTIONS.items()
        ],
        "compareRunCharts": [
            {
                "uuid": "sweep",
                "type": "PARALLEL",
                "metricSectionId": "Sweep",
                "runsCountToCompare": 100,
                "deleted": False,
                "isGenerated": False,
                "selectedParams": list(_SWEPT),
                "selectedMetrics": ["best_val_accuracy", "test/accuracy"],
                "showAllRuns": True,
            }
        ],
    }
