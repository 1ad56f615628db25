"""MLflow's scoring server on a registered model, behind a front door that brings every request into one shape.

MLflow's own reading of JSON suits numbers: under `inputs` it makes fixed-width NumPy strings, so that a null is scored
as the word "None", a NUL at the end is lost, and one long text multiplies the memory of all others; a nesting too deep
or a request without a content type is a 500. The front door reads JSON itself (and JSON alone: a file is scored by
`sentiment score`), answers what cannot be scored with a 4xx that names the row, and hands on a `dataframe_split` of
strings; everything else is MLflow's.
"""

import contextlib
import json
import reprlib
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.project.errors import PipelineError
from pipeline.served_model.tokenizer import why_unusable
from pipeline.serving.models import champion_uri, load_pyfunc

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COLUMN = "text"
FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")
MAX_REQUEST_BYTES = 2**23
MAX_REQUEST_ROWS = 20_000
"""Within both a request is answered in MLflow's 60 seconds (MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT): `single` took 27
for 8 MB of one-byte tokens on two busy cores."""


class RefusedRequest(Exception):
    """A request that is answered with `status`; the message says what is wrong with it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def serve(uri: str | None, host: str, port: int) -> None:
    """Serves a model, by default the champion, until the process is stopped; port 0 takes a free one.

    Raises:
        UsageError, PipelineError: as in `models.load`, or the address cannot be listened on.
    """
    listening = listen(host, port)
    model = load_pyfunc(uri)
    import uvicorn
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(model)
    app.add_middleware(FrontDoor)
    address = f"[{host}]" if ":" in host else host

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Starts, and says so only now: from here on requests are answered and signals end it in good order."""
            await super().startup(sockets)
            port = listening.getsockname()[1]
            print(f"serving {uri or champion_uri()} at http://{address}:{port}/invocations", flush=True)

    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it is meant to end
        Announced(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Takes a port at once, before anything is loaded, so that early connections wait.

    Raises:
        PipelineError: it cannot be taken; most often it is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends an answer at once only on a socket whose protocol is named; on others it takes 40 ms more.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        reason = f"--host {host} --port {port} cannot be listened on: {error.strerror}"
        raise PipelineError(f"{reason}; name another --port, or 0 for a free one") from None
    return listening


class FrontDoor:
    """ASGI middleware before MLflow's `/invocations`."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", "/invocations"):
            await self._app(scope, receive, send)
            return
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse

        try:
            content_type = Request(scope).headers.get("content-type", "")
            if content_type.partition(";")[0].strip().lower() != "application/json":
                found = repr(content_type) if content_type else "none"
                raise RefusedRequest(f"the request's Content-Type must be application/json, found {found}", 415)
            body = await run_in_threadpool(rewritten, await _read(Request(scope, receive)))
        except ClientDisconnect:
            return
        except RefusedRequest as refused:
            code = "REQUEST_LIMIT_EXCEEDED" if refused.status == 413 else "BAD_REQUEST"
            answer = JSONResponse({"error_code": code, "message": str(refused)}, refused.status)
            await answer(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        await self._app(scope, _replay(body, receive), send)


async def _read(request: Any) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_REQUEST_BYTES:
            raise RefusedRequest(
                f"the request has more than {MAX_REQUEST_BYTES:,} bytes; send fewer reviews at a time, "
                "or score a file with `sentiment score`",
                413,
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _replay(body: bytes, receive: "Receive") -> "Receive":
    """Returns a receive that gives the whole of `body` first."""
    waiting = [body]

    async def replay() -> "Message":
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def rewritten(body: bytes) -> bytes:
    """Returns the JSON `body` with its texts as a `dataframe_split`.

    Raises:
        RefusedRequest: it is not JSON, has not one of FORMATS, or a row has no text that can be scored.
    """
    try:
        payload = json.loads(body)
    except RecursionError:
        raise RefusedRequest("the request is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:
        raise RefusedRequest(f"the request is not JSON: {error}") from None
    texts = texts_of(payload)
    if len(texts) > MAX_REQUEST_ROWS:
        raise RefusedRequest(
            f"the request has {len(texts):,} rows; send at most {MAX_REQUEST_ROWS:,} at a time, "
            "or score a file with `sentiment score`",
            413,
        )
    for row, text in enumerate(texts):
        if reason := why_unusable(text):
            raise RefusedRequest(f"row {row}: {reason}")
    return json.dumps({"dataframe_split": {"columns": [COLUMN], "data": [[text] for text in texts]}}).encode()


def texts_of(payload: Any) -> Sequence[Any]:
    """Returns the value of the column `text` in each row of a request, whatever it is.

    `dataframe_split` has columns and data; `dataframe_records` is a list of objects; `inputs` and `instances` are a
    list of texts, a list of objects, or an object of one list a column.

    Raises:
        RefusedRequest: the request has another shape, or no column `text`.
    """
    if not isinstance(payload, dict) or len(given := [name for name in FORMATS if name in payload]) != 1:
        raise RefusedRequest(f"the request must be a JSON object with exactly one of {', '.join(FORMATS)}")
    name, content = given[0], payload[given[0]]
    if name == "dataframe_split":
        columns, data = (content.get(key) if isinstance(content, dict) else None for key in ("columns", "data"))
        if not isinstance(columns, list) or not isinstance(data, list):
            raise RefusedRequest('dataframe_split must have a list "columns" and a list "data" of rows')
        if columns.count(COLUMN) != 1:
            raise RefusedRequest(f"dataframe_split must have one column {COLUMN!r}; it has {_listed(columns)}")
        for number, row in enumerate(data):
            if not isinstance(row, list) or len(row) != len(columns):
                raise RefusedRequest(f"row {number}: it is not a list of {len(columns)} values, one a column")
        return [row[columns.index(COLUMN)] for row in data]
    if isinstance(content, dict) and name != "dataframe_records":
        column = _value(content, f"{name} has")
        return column if isinstance(column, list) else [column]
    if not isinstance(content, list):
        raise RefusedRequest(f"{name} must be a list with one entry a review")
    if name == "dataframe_records" or any(isinstance(row, dict) for row in content):
        return [_value(row, f"row {number}: it has") for number, row in enumerate(content)]
    return content


def _value(holder: Any, which: str) -> Any:
    if not isinstance(holder, Mapping):
        raise RefusedRequest(f"{which} no {COLUMN!r}: it is not an object")
    if COLUMN not in holder:
        raise RefusedRequest(f"{which} no {COLUMN!r} but {_listed(list(holder))}")
    return holder[COLUMN]


def _listed(names: Sequence[Any]) -> str:
    return reprlib.repr(names) if names else "nothing"
