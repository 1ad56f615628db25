"""Notifying somebody how a run ended, and a dead-man's switch that there was one, as the environment says.

`SENTIMENT_WEBHOOK_URL`, or a file that `SENTIMENT_WEBHOOK_URL_FILE` names, holds a URL that takes Slack's JSON; it is a
secret, and stands in no message, record or error. `SENTIMENT_NOTIFY_COMMAND` is run by the shell with the message on
its standard input and `SENTIMENT_OUTCOME` set. `SENTIMENT_PING_URL` is the address of a dead-man's switch, which raises
the alarm when it hears nothing: it is asked for with `/start` when a run begins, with `/fail` when one has failed, and
as it stands when one has ended well, an idle one too (healthchecks.io's convention). None of them ever fails the job.
"""

import http.client
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

URL, URL_FILE, COMMAND = "SENTIMENT_WEBHOOK_URL", "SENTIMENT_WEBHOOK_URL_FILE", "SENTIMENT_NOTIFY_COMMAND"
OUTCOME = "SENTIMENT_OUTCOME"
PING_URL = "SENTIMENT_PING_URL"
TIMEOUT_S = 10
WAITS_S = (1.0, 4.0)
"""Between a failed attempt and the next; a webhook is tried once more than there are waits."""


def notify(outcome: str, message: str, *, wait: Callable[[float], object] = time.sleep) -> list[str]:
    """Sends `message` wherever the environment says; returns what went wrong, one sentence each.

    Args:
        outcome: PROMOTED, REJECTED or FAILED.
        message: a few lines of text.
        wait: how to wait for some seconds between attempts.
    """
    failures = []
    try:
        file = os.environ.get(URL_FILE)
        if url := Path(file).read_text(encoding="utf-8").strip() if file else os.environ.get(URL):
            body, kind = json.dumps({"text": message}).encode(), {"Content-Type": "application/json"}
            _send(urllib.request.Request(url, data=body, headers=kind, method="POST"), wait)
    except (OSError, ValueError, http.client.HTTPException) as error:
        failures.append(f"the webhook was not notified: {_without_url(error)}")
    if command := os.environ.get(COMMAND):
        env = {**os.environ, OUTCOME: outcome}
        try:
            done = subprocess.run(
                command, shell=True, input=message.encode(), timeout=TIMEOUT_S, env=env, stdout=subprocess.DEVNULL
            )
            if done.returncode:
                failures.append(f"the command of {COMMAND} ended with {done.returncode}")
        except subprocess.TimeoutExpired:
            failures.append(f"the command of {COMMAND} did not end within {TIMEOUT_S} s")
    return failures


def ping(state: str = "", *, wait: Callable[[float], object] = time.sleep) -> list[str]:
    """Asks for PING_URL, its path ending in `state`: `/start`, `/fail` or nothing; returns as `notify` does."""
    url = os.environ.get(PING_URL)
    if not url:
        return []
    try:
        parts = urllib.parse.urlsplit(url)
        _send(urllib.request.Request(parts._replace(path=parts.path.rstrip("/") + state).geturl()), wait)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return [f"the dead-man's switch was not reached: {_without_url(error)}"]
    return []


def _send(request: urllib.request.Request, wait: Callable[[float], object]) -> None:
    for pause in (*WAITS_S, None):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                answer.read()
            return
        except OSError as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if pause is None or refused:  # what a server refuses once it refuses again
                raise
            wait(pause)


def _without_url(error: Exception) -> str:
    """Returns what an error says without the URL, which some of urllib's errors repeat."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason.strerror or reason.__class__.__name__) if isinstance(reason, OSError) else "it is no usable URL"
