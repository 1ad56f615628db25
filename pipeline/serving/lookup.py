"""Which version of a registered model a URI names, and where its files are: asked of the MLflow store without MLflow,
whose client takes seconds to load.

A SQLite store is read by a query, a server by MLflow's public REST calls
(https://mlflow.org/docs/latest/api_reference/rest-api.html); any other store is asked by MLflow, in a process of its
own. tests/serving/test_lookup.py holds the first two to what `MlflowClient` says.
"""

import base64
import json
import os
import re
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from pipeline.project.errors import PipelineError, UsageError
from pipeline.project.run_command import run_command
from pipeline.registry.model_files import TAG
from pipeline.tracking import relocation, runs

NAMED = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/]+))")
"""A URI of a version by its number or by an alias; MLflow has others, which name no version of ours."""
_API = "api/2.0/mlflow"
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""MLflow's error codes for a model, a version and an alias that is not there."""
_LOCK_WAIT_S = 10
_VERSION = """
    select version, coalesce(storage_location, source) from model_versions where name = :name and version = coalesce(
        :version, (select version from registered_model_aliases where name = :name and alias = :alias)
    )
"""
_TAG = "select value from model_version_tags where name = ? and version = ? and key = ?"


class NoAnswer(PipelineError):
    """The store is not there, or does not answer: what it said before may still be true."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: str
    location: str  # of its files: a path, or a URI as MLflow's `file:`, `mlflow-artifacts:` or `s3:`
    sha256: str | None  # of its files, as `model_files.digest`; versions of other projects have none


def find(uri: str) -> Version:
    """Returns the version that `uri`, of the form NAMED, names in the project's store.

    Raises:
        UsageError: there is no such model, version or alias.
        NoAnswer: the store is not there or does not answer.
    """
    named = NAMED.fullmatch(uri)
    assert named
    store = runs.tracking_uri()
    if file := runs.sqlite_file():
        return _of_file(file, uri, named)
    if store.startswith(("http://", "https://")):
        return _of_server(store, uri, named)
    return Version(**json.loads(_by_mlflow("find", uri)))


def _of_file(file: Path, uri: str, named: re.Match[str]) -> Version:
    if not file.exists():
        raise NoAnswer(runs.no_store())
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_LOCK_WAIT_S)) as store:
            found = store.execute(_VERSION, named.groupdict()).fetchone()
            if found is None:
                raise _absent(uri)
            number, location = found
            digest = store.execute(_TAG, (named["name"], number, TAG)).fetchone()
    except sqlite3.Error as error:
        raise NoAnswer(f"{file} cannot be read ({error}); where it is damaged, `sentiment registry restore`") from None
    place = relocation.place(location, file)
    return Version(named["name"], str(number), str(place or location), digest[0] if digest else None)


def _of_server(server: str, uri: str, named: re.Match[str]) -> Version:
    name = named["name"]

    def ask(call: str, **parameters: str) -> Any:
        try:
            with opened(server, f"{_API}/{call}", name=name, **parameters) as answer:
                return json.load(answer)
        except HTTPError as error:
            try:
                refusal = json.load(error)
            except ValueError:
                refusal = {}
            if isinstance(refusal, dict) and refusal.get("error_code") in _ABSENT:
                raise _absent(uri) from None
            raise NoAnswer(runs.unusable(server, f"it answers {error.code} {error.reason}")) from None

    with told(server):
        if named["alias"]:
            version = ask("registered-models/alias", alias=named["alias"])["model_version"]
        else:
            version = ask("model-versions/get", version=named["version"])["model_version"]
        number = str(version["version"])
        location = ask("model-versions/get-download-uri", version=number)["artifact_uri"]
    digests = [tag["value"] for tag in version.get("tags", ()) if tag["key"] == TAG]
    return Version(name, number, location, digests[0] if digests else None)


def _absent(uri: str) -> UsageError:
    return UsageError(f"there is no {uri} in the registry")


@contextmanager
def told(server: str) -> Iterator[None]:
    """Turns what a request raises in the block into NoAnswer."""
    try:
        yield
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:  # no connection, or another answer
        raise NoAnswer(runs.unusable(server, error)) from None


@contextmanager
def opened(server: str, endpoint: str, **parameters: str) -> Iterator[IO[bytes]]:
    """Yields the body of the answer to a GET, with the credentials that MLflow would send: the variables
    MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD; and _INSECURE_TLS, _SERVER_CERT_PATH, _CLIENT_CERT_PATH.

    Raises:
        OSError: there is no connection; HTTPError, which is one, for an answer of 400 and above.
    """
    query = f"?{urlencode(parameters)}" if parameters else ""
    request = Request(f"{server.rstrip('/')}/{quote(endpoint)}{query}")
    setting = {name: os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD", "TOKEN")}
    if setting["USERNAME"]:
        login = base64.b64encode(f"{setting['USERNAME']}:{setting['PASSWORD']}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {login}")
    elif setting["TOKEN"]:
        request.add_unredirected_header("Authorization", f"Bearer {setting['TOKEN']}")
    timeout = float(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])  # `pipeline` sets it where the user does not
    with urlopen(request, timeout=timeout, context=_tls(os.environ)) as answer:
        yield answer


def _tls(environment: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None)
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate := environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        context.load_cert_chain(certificate)
    return context


def download(location: str, folder: Path) -> Path:
    """Lets MLflow download what is at any `location` that it knows into the existing `folder`; returns where it lies.

    Raises:
        UsageError: there is nothing.
        NoAnswer: the store does not answer, or MLflow is not installed.
    """
    return Path(_by_mlflow("download", location, str(folder)))


def _by_mlflow(*arguments: str) -> str:
    """Runs `main` in a process of its own, and returns the last line that it prints."""
    if find_spec("mlflow") is None:
        raise NoAnswer(
            "MLflow is needed here, and is not installed; a SQLite store and a server (http, https) with its own "
            "artifacts do without it"
        )
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].removeprefix("error: ")
        raise (UsageError if done.returncode == UsageError.exit_code else NoAnswer)(last)
    return done.stdout.splitlines()[-1]


def main() -> None:
    """Does with MLflow what the command line names: `find URI` prints the version as JSON; `download LOCATION FOLDER`
    prints where the files are."""
    request, uri = sys.argv[1:3]
    client = runs.connect_to_read()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        if request == "download":
            print(mlflow.artifacts.download_artifacts(uri, dst_path=sys.argv[3]))
            return
        named = NAMED.fullmatch(uri)
        assert named
        name = named["name"]
        number = str(named["version"] or client.get_model_version_by_alias(name, named["alias"]).version)
        tags = client.get_model_version(name, number).tags
        location = client.get_model_version_download_uri(name, number)
    except MlflowException as error:
        if error.error_code in _ABSENT:
            raise UsageError(f"there is no {uri} ({error.message})") from None
        raise
    print(json.dumps(asdict(Version(name, number, location, tags.get(TAG)))))


if __name__ == "__main__":
    run_command(main)
