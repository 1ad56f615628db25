"""IMDB review sentiment: download, check, tokenize, batch, train, compare and register, by machine."""

import os

from pipeline.project.credentials import hide_tracking_password
from pipeline.project.locks import exit_with_job

# Nothing reports home, and libraries print only what went wrong, unless the user's environment says otherwise.
# (DVC's own switch stands in .dvc/config.)
for _name, _value in {
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}.items():
    os.environ.setdefault(_name, _value)
hide_tracking_password()
exit_with_job()
