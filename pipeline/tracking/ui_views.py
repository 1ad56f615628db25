"""How the MLflow UI shows the experiment: a saved view of its trainings, with columns and charts that tell them apart.

MLflow keeps a view in a tag of the experiment, so whoever opens the store finds it, in the menu of saved views or by
its address. The format is that of MLflow 3.17's own "Save view" (an envelope with name and times around the UI's
state); tests/tracking/test_ui_views.py holds it to the real UI.
"""

import json
from typing import TYPE_CHECKING, Any

from pipeline.tracking import run_colours, runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "trainings"
_TAG = f"mlflow.sharedViewState.{VIEW}"
_DESCRIPTION = """\
Models that classify the sentiment of movie reviews, trained by this project's DVC pipeline.

The saved view *Trainings* (menu at the top right) has one line for each trained model. Select some and press *Compare*,
or go to the charts: accuracy, params that differ, curves over epochs under `train` and `val`, figures of the whole run
under `test`.
"""

# What is shown, in this order, and how wide (in pixels); the UI always shows the fixed ones.
_FIXED = {"attributes.`Run Name`": 190, "runDateAndNestInfo": 130, "duration": 80}
_CHOSEN = {
    "metrics.`val_accuracy`": 110,
    "metrics.`test/accuracy`": 110,
    f"tags.`{runs.REGISTERED}`": 150,
    "tags.`model`": 100,
    "tags.`dataset`": 110,
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
# In the order of interest, with the charts in a row. Sections not named here, and charts not named below, are the UI's.
_SECTIONS = {"Accuracy": 3, "Sweep": 1, "Params that differ": 1, "val": 2, "test": 3, "train": 2, "Model metrics": 3}


def save(client: "MlflowClient") -> None:
    """Writes the view into the experiment, a description where there is none, and the colours of the trainings."""
    experiment = client.get_experiment(runs.experiment_id(client))
    made = experiment.creation_time
    view = json.dumps({"name": VIEW.capitalize(), "createdAt": made, "updatedAt": made, "state": json.dumps(_state())})
    if experiment.tags.get(_TAG) != view:
        client.set_experiment_tag(experiment.experiment_id, _TAG, view)
    if runs.NOTE not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, runs.NOTE, _DESCRIPTION)
    run_colours.paint(client, runs.trainings(client))


def addresses(server: str, experiment_id: str) -> list[tuple[str, str]]:
    """Returns where the view's table and charts are on an MLflow server, such as http://127.0.0.1:5000."""
    # Without the workflow type a browser that is new to MLflow is shown its pages for language models.
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return [("table", f"{page}?{query}"), ("charts", f"{page}?{query}&compareRunsMode=CHART")]


def _state() -> dict[str, Any]:
    widths = _FIXED | _CHOSEN
    return {
        "searchFilter": runs.IS_TRAINING,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": list(_CHOSEN),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "runsHiddenMode": "SHOW_ALL",  # else charts show ten runs
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": False, "columns": columns}
            for name, columns in _SECTIONS.items()
        ],
        "compareRunCharts": [
            _chart("Accuracy", "BAR", metricKey="val_accuracy"),
            _chart("Accuracy", "BAR", metricKey="test/accuracy"),
            _chart("Accuracy", "SCATTER", xaxis=_metric("val_accuracy"), yaxis=_metric("test/accuracy")),
            _chart(
                "Sweep",
                "PARALLEL",
                selectedParams=["recurrent_units", "learning_rate", "dropout", "token_dropout", "seed"],
                selectedMetrics=["val_accuracy"],  # runs that lack one are not drawn: experiments see no test split
                showAllRuns=True,
            ),
            _chart(
                "Params that differ",
                "DIFFERENCE",
                chartName="Params that differ",
                compareGroups=["Parameters"],
                showDifferencesOnly=True,
                showChangeFromBaseline=False,
                baselineColumnUuid="",
            ),
        ],
    }


def _chart(section: str, kind: str, **settings: Any) -> dict[str, Any]:
    shown = {"runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    name = settings.get("metricKey", "")
    return {"uuid": f"{section} {kind} {name}", "type": kind, "metricSectionId": section, **shown, **settings}


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}
