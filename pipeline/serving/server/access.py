"""Who may ask: host names, a bearer token, and paths that are what they seem."""

import hmac
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.serving.server.refusals import RefusedRequest, answer

OPEN = ("/ping", "/health", "/v2/health/live", "/v2/health/ready")
"""Answered without a token: probes have none."""
ANY_HOST = "*"
_LENGTHS = {b"content-length", b"transfer-encoding"}


class KnownHosts:
    """Refuses a request for a host name that is none of ours: a page elsewhere may let its own name lead here (DNS
    rebinding). An address is no name, and whoever asks for one has come here."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ANY_HOST not in self._hosts:
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not (is_address(name := name_of(hosts[0])) or name in self._hosts):
                refusal = RefusedRequest("the Host is none that is served; --allow-host names more", 421)
                await answer(scope["path"], refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def name_of(host: str) -> str:
    """Returns the name in a Host header, without a port.

    >>> name_of("[::1]:5001"), name_of("LocalHost:5001"), name_of("127.0.0.1")
    ('::1', 'localhost', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_address(name: str) -> bool:
    """Whether a name is an address of IP, version 4 or 6."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class PlainRequests:
    """Answers 404 where a path holds a control character, which the router's patterns would overlook at its end, and
    400 where a body has two lengths, of which a proxy may have taken the other (request smuggling)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].isprintable():
            await answer(scope["path"], RefusedRequest("Not Found", 404))(scope, receive, send)
            return
        if scope["type"] == "http" and {name for name, _ in scope["headers"]} >= _LENGTHS:
            refusal = RefusedRequest("the request has both a Content-Length and a Transfer-Encoding")
            await answer(scope["path"], refusal, {"connection": "close"})(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BearerToken:
    """Answers 401 to a request without the token, unless it is a probe's."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._token is not None and scope["path"] not in OPEN:
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            known = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
            if scheme.lower() != "bearer" or not known:
                refusal = RefusedRequest("the request needs this server's token, as Authorization: Bearer", 401)
                await answer(scope["path"], refusal, {"www-authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)
