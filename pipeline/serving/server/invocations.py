"""`POST /invocations`, as MLflow's clients know it."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline.serving.server.payloads import texts_in
from pipeline.serving.server.service import Service, require_json

VERSION_HEADER = "x-model-version"


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
