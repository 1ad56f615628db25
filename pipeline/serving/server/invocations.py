"""`POST /invocations`, as MLflow's clients know it."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline.serving.server.payloads import RefusedRequest, texts_in
from pipeline.serving.server.service import Service, require_json

VERSION_HEADER = "x-model-version"
_CODES = {413: "REQUEST_LIMIT_EXCEEDED", 503: "TEMPORARILY_UNAVAILABLE", 500: "INTERNAL_ERROR"}


class Invocations:
    """Answers a list of objects under `predictions`, one a text."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        require_json(request)
        served = self._service.following.served
        found = await self._service.score(request, served, texts_in)
        rows = [dict(zip(served.columns, row, strict=True)) for row in zip(*found, strict=True)]
        return JSONResponse({"predictions": rows}, headers={VERSION_HEADER: served.version})


def refused(refusal: RefusedRequest) -> Response:
    """Returns the answer to a request that is refused."""
    headers = {} if refusal.retry_after is None else {"retry-after": str(refusal.retry_after)}
    if refusal.status == 408:
        headers["connection"] = "close"
    code = _CODES.get(refusal.status, "BAD_REQUEST")
    return JSONResponse({"error_code": code, "message": str(refusal)}, refusal.status, headers)
