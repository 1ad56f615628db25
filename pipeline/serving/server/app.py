"""The application: its routes, and what every request goes through."""

import asyncio
import contextlib
import sys
import time
import traceback
from collections.abc import AsyncIterator, Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.server import access, health, open_inference
from pipeline.serving.server.invocations import VERSION_HEADER, Invocations
from pipeline.serving.server.refusals import RefusedRequest, answer
from pipeline.serving.server.service import Service


def application(service: Service, *, hosts: Collection[str], token: str | None) -> Starlette:
    """Returns the application.

    Args:
        hosts: names under which it may be asked; `access.ANY_HOST` takes any.
        token: which every request but a probe's must bear; None asks for none.
    """
    model = "/v2/models/{name}"
    routes = [
        Route("/invocations", Invocations(service).answer, methods=["POST"]),
        Route("/ping", health.Ready(service).answer),
        Route("/health", health.Ready(service).answer),
        Route("/version", health.Version(service).answer),
        Route("/metrics", health.MetricsText(service).answer),
        Route("/v2", open_inference.server_metadata),
        Route("/v2/health/live", health.live),
        Route("/v2/health/ready", health.Ready(service).answer),
        *(
            route
            for path in (model, f"{model}/versions/{{version}}")
            for route in (
                Route(path, open_inference.ModelMetadata(service).answer),
                Route(f"{path}/ready", open_inference.ModelReady(service).answer),
                Route(f"{path}/infer", open_inference.Infer(service).answer, methods=["POST"]),
            )
        ),
    ]
    middleware = [
        Middleware(Counted, service=service),
        Middleware(NeverEchoed),
        Middleware(access.KnownHosts, hosts=hosts),
        Middleware(access.BearerToken, token=token),
        Middleware(access.PlainRequests),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.batcher.run())]
        if service.following.follows:
            tasks.append(asyncio.create_task(service.following.follow()))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    app = Starlette(
        routes=routes,
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={RefusedRequest: _refused, ClientDisconnect: _gone, HTTPException: _http},
    )
    app.router.redirect_slashes = False
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequest)
    return answer(request.url.path, error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer(request.url.path, RefusedRequest(error.detail, error.status_code), error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; counted under nginx's number for it


class Counted:
    """Counts requests by route and status, times them, and says in each answer which version is served, and whether
    the connection ends with it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                path = route.path if isinstance(route, Route) else "other"
                self._service.metrics.requests.labels(path, message["status"]).inc()
                if scope["method"] == "POST":
                    self._service.metrics.seconds.labels(path).observe(time.monotonic() - begun)
                headers = list(message["headers"])
                if VERSION_HEADER.encode() not in {name for name, _ in headers}:
                    version = self._service.following.served.version
                    headers.append((VERSION_HEADER.encode(), version.encode("latin-1", "replace")))
                if not self._service.ready:  # so that clients find another server
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, counted)


class _Unsent(Exception):
    """There is nobody to answer."""


class NeverEchoed:
    """Answers 500 to a fault of ours, and logs where it was but not its message, in which there may be a text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            try:
                await send(message)
            except Exception as error:  # uvicorn has closed the connection: the rest of the request was no HTTP
                raise _Unsent from error

        try:
            await self._app(scope, receive, sent)
        except _Unsent:
            return
        except Exception as error:
            if scope["type"] != "http":
                raise
            where = "".join(traceback.format_tb(error.__traceback__))
            print(f"error: a request failed with {type(error).__name__}:\n{where}", file=sys.stderr, flush=True)
            failure = RefusedRequest("the request could not be answered: a fault of the server's", 500)
            await answer(scope["path"], failure)(scope, receive, send)
