"""Listening, and ending in good order."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.project.errors import UsageError
from pipeline.served_model.scorer import _default_threads as default_threads  # versions carry it under this name
from pipeline.serving.server import limits
from pipeline.serving.server.access import is_address
from pipeline.serving.server.app import application
from pipeline.serving.server.batching import Batcher
from pipeline.serving.server.following import Following
from pipeline.serving.server.listening import listen
from pipeline.serving.server.metrics import Metrics
from pipeline.serving.server.service import Service

_FEWEST_TOKEN_CHARACTERS = 16
_LOCALHOST = "localhost"


def serve(
    uri: str | None,
    host: str,
    port: int,
    *,
    pinned: bool,
    token_file: Path | None,
    open_to_all: bool,
    hosts: Collection[str],
    drain_s: float,
    poll_s: float,
    threads: int | None,
) -> None:
    """Serves a model, by default the champion, until the process is stopped; port 0 takes a free one.

    Args:
        uri: any that MLflow takes; None is the champion.
        pinned: stay on the version that is found at the start.
        token_file: holds the token that requests must bear.
        open_to_all: beyond loopback, ask for no token.
        hosts: names under which it may be asked, beside addresses, `localhost`, `host` and this machine's name.
        drain_s: seconds between SIGTERM, at which readiness fails, and the end of listening.
        poll_s: seconds between two looks for another champion.
        threads: batches that are scored at the same time; None: as many as a model takes by itself.

    Raises:
        UsageError, PipelineError: as in `Following`; or the address cannot be listened on; or it is beyond loopback,
            and neither a token nor `open_to_all` is given.
    """
    if not _is_loopback(host) and token_file is None and not open_to_all:
        raise UsageError(f"--host {host} is more than this machine: name a --token-file, or say --no-auth")
    token = None if token_file is None else _token(token_file)
    listening = listen(host, port)
    threads = threads or default_threads()
    os.environ["OMP_NUM_THREADS"] = "1"  # of each batch: a model reads it when it is loaded
    metrics = Metrics()
    following = Following(uri, metrics, pinned=pinned, poll_s=poll_s)
    service = Service(following, metrics, Batcher(metrics, threads))
    shown = f"[{host}]" if ":" in host else host
    announced = f"serving {following.uri} at http://{shown}:{listening.getsockname()[1]}/invocations"
    known = {*hosts, host, _LOCALHOST, socket.gethostname()}
    server(service, application(service, hosts=known, token=token), announced, drain_s).run(sockets=[listening])


def server(service: Service, app: Starlette, announced: str, drain_s: float) -> uvicorn.Server:
    """Returns the HTTP server of `app`; it prints `announced` when it answers, and `service` is told when it ends."""
    config = uvicorn.Config(
        app,
        http=InTime,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(limits.READ_S + limits.ANSWER_S),
    )
    return _Server(config, service, announced, drain_s)


def _is_loopback(host: str) -> bool:
    return host == _LOCALHOST or (is_address(host) and ip_address(host).is_loopback)


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {file} cannot be read: {error}") from None
    if len(token) < _FEWEST_TOKEN_CHARACTERS or not token.isprintable() or " " in token:
        raise UsageError(
            f"--token-file {file} must hold one line of at least {_FEWEST_TOKEN_CHARACTERS} characters without spaces, "
            f"such as {secrets.token_urlsafe(24)}"
        )
    return token


class InTime(H11Protocol):
    """Uvicorn's connection, closed where a request's headers are not there in time; its own timer begins only after
    an answer."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._late:
            self._late.cancel()

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()  # it may begin with a request that is there already
        self._expect(answered)

    def _expect(self, answered: object) -> None:
        if self._late:
            self._late.cancel()
        self._late = self.loop.call_later(limits.READ_S, self._end_without, answered)

    def _end_without(self, answered: object) -> None:
        """Ends the connection where no request came after that which is `answered`, or its answer was not read."""
        if self.cycle is answered:
            self.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, announced: str, drain_s: float) -> None:
        super().__init__(config)
        self._service = service
        self._announced = announced
        self._drain_s = drain_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and says so only now: from here on requests are answered and signals end it in good order."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        print(self._announced, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Fails readiness at once and, at SIGTERM, ends when those who ask for it had time to see that; a second signal
        ends now. That is how it is meant to end, so unlike uvicorn's own this raises no signal again."""
        first, self._service.ready = self._service.ready, False
        if first and sig == signal.SIGTERM and self._drain_s and self._loop:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, self._end)
        elif self.should_exit:
            self.force_exit = True
        else:
            self._end()

    def _end(self) -> None:
        self.should_exit = True
