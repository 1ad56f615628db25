"""Users and passwords in URLs: they leave the URL before anything prints, records, sends or commits it."""

import os
import re
from urllib.parse import unquote, urlsplit

TRACKING_URI = "MLFLOW_TRACKING_URI"
_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")


def without_user_info(text: str) -> str:
    """Returns `text` with every URL in it free of user and password.

    >>> without_user_info("http://ann:secret@host/api and postgresql://ann@host/db")
    'http://host/api and postgresql://host/db'
    """
    return _USER_INFO.sub("", text)


def hide_tracking_password() -> None:
    """Moves user and password of a server's MLFLOW_TRACKING_URI to the variables from which MLflow takes them too, for
    this process and all that it starts; those that are set already count, as they do in MLflow."""
    parts = urlsplit(os.environ.get(TRACKING_URI, ""))
    if parts.scheme in ("http", "https") and parts.username is not None:
        os.environ[TRACKING_URI] = without_user_info(parts.geturl())
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password or ""))
