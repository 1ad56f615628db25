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
Recurrent networks that classify the sentiment of movie reviews, trained by this project's DVC pipeline.

The saved view *Trainings* (menu at the top right) has one line for each trained model. Select some and press *Compare*,
or go to the charts: curves over epochs under `train` and `val`, figures of the whole run under `test`.
"""

# What is shown, in this order, and how wide (in pixels); the UI always shows the fixed ones.
_FIXED = {"attributes.`Run Name`": 190, "runDateAndNestInfo": 130, "duration": 80}
_CHOSEN = {
    "tags.`dataset`": 110,
    "tags.`model`": 80,
    "metrics.`test/accuracy`": 110,
    "metrics.`val_accuracy`": 140,
    "metrics.`test/loss`": 90,
    "metrics.`epochs`": 75,
    "metrics.`seconds_per_epoch`": 150,
    "tags.`device`": 80,
    "attributes.`Version`": 85,  # the commit
    "tags.`git.dirty`": 85,
    "params.`seed`": 70,
    "tags.`dvc.experiment`": 130,
    "attributes.`Dataset`": 300,
}
# In the order of interest, with the charts in a row; the charts are the UI's own. Sections not named here follow.
_SECTIONS = {"val": 2, "test": 3, "train": 2, "Sweep": 1, "Model metrics": 3}


def save(client: "MlflowClient") -> None:
    """Writes the view into the experiment, and a description where there is none."""
    experiment = client.get_experiment(runs.experiment_id(client))
    made = experiment.creation_time
    view = json.dumps({"name": VIEW.capitalize(), "createdAt": made, "updatedAt": made, "state": json.dumps(_state())})
    if experiment.tags.get(_TAG) != view:
        client.set_experiment_tag(experiment.experiment_id, _TAG, view)
    if runs.NOTE not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, runs.NOTE, _DESCRIPTION)


def addresses(server: str, experiment_id: str) -> list[tuple[str, str]]:
    """Returns where the view's table and charts are on an MLflow server, such as http://127.0.0.1:5000."""
    # Without the workflow type a browser that is new to MLflow is shown its pages for language models.
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return [("table", f"{page}?{query}"), ("charts", f"{page}?{query}&compareRunsMode=CHART")]


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
                "selectedParams": ["recurrent_units", "learning_rate", "dropout", "token_dropout", "seed"],
                "selectedMetrics": ["val_accuracy", "test/accuracy"],
                "showAllRuns": True,
            }
        ],
    }
