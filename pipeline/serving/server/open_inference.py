"""The Open Inference Protocol, version 2, as clients of KServe, Triton and MLServer speak it
(https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md).

Texts come as JSON or, as Triton's clients send them by default, in its binary extension
(https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md); answers are JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline.serving.server.following import Served
from pipeline.serving.server.invocations import VERSION_HEADER
from pipeline.serving.server.payloads import COLUMN, read_json
from pipeline.serving.server.refusals import RefusedRequest
from pipeline.serving.server.service import Service, require_json

PLATFORM = "sentiment_scorer"
_DATATYPES = {"label": "BYTES", "sure": "BOOL"}
_REQUEST_KEYS = {"id", "inputs", "outputs", "parameters"}
_REQUEST_PARAMETERS = {"binary_data_output", "content_type"}
"""Clients send these unasked: answers are JSON, which they take, too."""
_INPUT_KEYS = {"name", "shape", "datatype", "data", "parameters"}
_INPUT_PARAMETERS = {"binary_data_size", "content_type"}
_OUTPUT_PARAMETERS = {"binary_data", "content_type"}
_JSON_LENGTH = "inference-header-content-length"
_LENGTH_BYTES = 4


class ModelMetadata:
    """Says what the model takes and gives."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        served = named(self._service, request)
        outputs = [{"name": name, "datatype": _datatype(name), "shape": [-1]} for name in served.columns]
        return JSONResponse(
            {
                "name": served.name,
                "versions": [served.version],
                "platform": PLATFORM,
                "inputs": [{"name": COLUMN, "datatype": "BYTES", "shape": [-1]}],
                "outputs": outputs,
            }
        )


class ModelReady:
    """Says whether the model is ready."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        served = named(self._service, request)
        return JSONResponse({"name": served.name, "ready": self._service.ready}, 200 if self._service.ready else 503)


class Infer:
    """Scores one tensor of texts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        served = named(self._service, request)
        if _JSON_LENGTH not in request.headers and "content-type" in request.headers:  # Triton's client sends none
            require_json(request)
        asked = _Asked(request.headers.get(_JSON_LENGTH), served)
        found = dict(zip(served.columns, await self._service.score(request, served, asked.texts_in), strict=True))
        outputs = [
            {"name": name, "shape": [len(found[name])], "datatype": _datatype(name), "data": found[name]}
            for name in asked.outputs
        ]
        answer = {"model_name": served.name, "model_version": served.version, **asked.id, "outputs": outputs}
        return JSONResponse(answer, headers={VERSION_HEADER: served.version})


async def server_metadata(_: Request) -> Response:
    """Says what answers here."""
    return JSONResponse({"name": "sentiment", "version": version("sentiment-pipeline"), "extensions": []})


def named(service: Service, request: Request) -> Served:
    """Returns the version that is served; raises RefusedRequest where the path names another model or version."""
    served = service.following.served
    if request.path_params["name"] != served.name:
        raise RefusedRequest(f"the model served here is {served.name}", 404)
    if request.path_params.get("version", served.version) != served.version:
        raise RefusedRequest(f"the version served here is {served.version}", 404)
    return served


class _Asked:
    """What an inference request asks for.

    Attributes:
        id: the request's, to be sent back; empty where it has none.
        outputs: names of the columns that are wanted.
    """

    def __init__(self, json_length: str | None, served: Served) -> None:
        self._json_length = json_length
        self._served = served
        self.id: dict[str, str] = {}
        self.outputs: Sequence[str] = served.columns

    def texts_in(self, body: bytes) -> Sequence[Any]:
        """Returns the texts in a body; raises RefusedRequest."""
        head, binary = self._parts(body)
        payload = read_json(head)
        if not isinstance(payload, dict) or payload.keys() - _REQUEST_KEYS or "inputs" not in payload:
            raise RefusedRequest(
                'the request must be a JSON object with "inputs" and at most "id", "outputs", "parameters"'
            )
        _require_known(payload, _REQUEST_PARAMETERS, "the request")
        if "id" in payload:
            if not isinstance(payload["id"], str):
                raise RefusedRequest("id must be a string")
            self.id = {"id": payload["id"]}
        if payload.get("outputs"):
            self.outputs = self._wanted(payload["outputs"])
        inputs = payload["inputs"]
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Mapping):
            raise RefusedRequest(f"inputs must be a list of one tensor, {COLUMN!r}")
        return _texts_of(inputs[0], binary)

    def _parts(self, body: bytes) -> tuple[bytes, bytes | None]:
        """Returns the JSON, and what follows it where the request says how long the JSON is."""
        if self._json_length is None:
            return body, None
        if not self._json_length.isdecimal() or not self._json_length.isascii() or len(self._json_length) > 9:
            raise RefusedRequest("Inference-Header-Content-Length must be a number of bytes")
        length = int(self._json_length)
        return body[:length], body[length:]

    def _wanted(self, outputs: Any) -> Sequence[str]:
        if not isinstance(outputs, list) or not all(isinstance(one, Mapping) and "name" in one for one in outputs):
            raise RefusedRequest("outputs must be a list of objects with a name")
        for one in outputs:
            _require_known(one, _OUTPUT_PARAMETERS, "an output")
        names = [one["name"] for one in outputs]
        if any(name not in self._served.columns for name in names) or len(set(names)) < len(names):
            raise RefusedRequest(f"outputs may name {', '.join(self._served.columns)}, each once")
        return names


def _texts_of(tensor: Mapping[str, Any], binary: bytes | None) -> Sequence[Any]:
    if tensor.keys() - _INPUT_KEYS or tensor.get("name") != COLUMN or tensor.get("datatype") != "BYTES":
        raise RefusedRequest(f'the tensor must have the name {COLUMN!r}, the datatype "BYTES", a shape and data')
    _require_known(tensor, _INPUT_PARAMETERS, "the tensor")
    size = (tensor.get("parameters") or {}).get("binary_data_size")
    if size is None:
        data = tensor.get("data")
    elif type(size) is not int or binary is None or size != len(binary) or "data" in tensor:
        raise RefusedRequest("the tensor's binary_data_size must be that of the data after the JSON")
    else:
        data = list(_strings(binary))
    if not isinstance(data, list):
        raise RefusedRequest("the tensor's data must be a list of texts")
    if any(isinstance(row, list) for row in data):
        if not all(isinstance(row, list) and len(row) == 1 for row in data):
            raise RefusedRequest("the tensor's data must be a list of texts, or of lists of one text")
        data = [row[0] for row in data]
    shape = tensor.get("shape")
    if shape not in ([len(data)], [len(data), 1]) or any(type(length) is not int for length in shape):
        raise RefusedRequest(f"the tensor's shape must be [{len(data)}] or [{len(data)}, 1], as many as its data")
    return data


def _strings(binary: bytes) -> Iterator[str]:
    """Yields the texts of Triton's binary data: each four bytes of its length, little-endian, and its bytes."""
    start = row = 0
    while start < len(binary):
        first = start + _LENGTH_BYTES
        end = first + int.from_bytes(binary[start:first], "little")
        if end > len(binary) or first > len(binary):
            raise RefusedRequest(f"row {row}: the text is longer than the data")
        try:
            yield binary[first:end].decode("utf-8")
        except UnicodeDecodeError:
            raise RefusedRequest(f"row {row}: the text is not in UTF-8") from None
        start, row = end, row + 1


def _require_known(holder: Mapping[str, Any], known: set[str], what: str) -> None:
    parameters = holder.get("parameters") or {}
    if not isinstance(parameters, Mapping) or parameters.keys() - known:
        raise RefusedRequest(f"the parameters of {what} may be {', '.join(sorted(known))}")


def _datatype(name: str) -> str:
    return _DATATYPES.get(name, "FP64")
