"""Whether the server lives, is ready, what it serves, and its metrics."""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pipeline.serving.server.service import Service


async def live(_: Request) -> Response:
    """Answers as long as the process can."""
    return JSONResponse({"live": True})


class Ready:
    """Answers 503 as soon as the server is about to end."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, _: Request) -> Response:
        return JSONResponse({"ready": self._service.ready}, 200 if self._service.ready else 503)


class Version:
    """Says which version of which model is served."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, _: Request) -> Response:
        served = self._service.following.served
        return JSONResponse(
            {"model": served.name, "version": served.version, "follows": self._service.following.follows}
        )


class MetricsText:
    """Prometheus's text format."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, _: Request) -> Response:
        return PlainTextResponse(self._service.metrics.text(), media_type="text/plain; version=0.0.4")
