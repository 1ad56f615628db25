"""IMDB review sentiment: download, check, tokenize, batch, train, compare and register, by machine."""

import getpass
import os

from pipeline.project.credentials import hide_tracking_password
from pipeline.project.locks import exit_with_job

# Nothing reports home, libraries print only what went wrong, and a server that is away is told within half a minute
# (a try, a pause of at most 3 s and another try), unless the user's environment says otherwise.
# (DVC's own switch stands in .dvc/config.)
for _name, _value in {
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}.items():
    os.environ.setdefault(_name, _value)
try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without a name: DVC and MLflow ask for it too
    os.environ["LOGNAME"] = str(os.getuid())
hide_tracking_password()
exit_with_job()
