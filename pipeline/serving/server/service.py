"""What the routes share: reading a request within its limits, and scoring its texts with the version served."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request

from pipeline.serving.server import limits
from pipeline.serving.server.batching import Batcher, Columns
from pipeline.serving.server.following import Following, Served
from pipeline.serving.server.metrics import Metrics
from pipeline.serving.server.payloads import usable
from pipeline.serving.server.refusals import RefusedRequest

_LARGE_BYTES = 2**16
"""From which a body is read in a thread, so that others do not wait for it."""
_JSON = re.compile(r"\s*application/json\s*(;(?!\s*charset)[^;]*|;\s*charset\s*=\s*\"?utf-?8\"?\s*)*", re.IGNORECASE)
Reading = Callable[[bytes], Sequence[Any]]
"""Returns the texts in a body, whatever they are."""


@dataclass
class Service:
    """One server's parts; `ready` says whether it wants requests."""

    following: Following
    metrics: Metrics
    batcher: Batcher
    admission: limits.Admission = field(default_factory=limits.Admission)
    ready: bool = True
    # One thread: what JSON takes in memory may be twenty times its bytes.
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "reading"))

    async def score(self, request: Request, served: Served, texts_in: Reading) -> Columns:
        """Returns what `served` says of the texts in a request, a list a column.

        Raises:
            RefusedRequest: the request is refused.
            ClientDisconnect: the client is gone.
        """
        with self.admission.one() as held:
            body = await limits.read(request, held)
            return await _while_there(request, self._scored(served, body, texts_in))

    async def _scored(self, served: Served, body: bytes, texts_in: Reading) -> Columns:
        until = time.monotonic() + limits.ANSWER_S
        if len(body) < _LARGE_BYTES:
            texts = _texts(served, body, texts_in)
        else:
            texts = await asyncio.get_running_loop().run_in_executor(self._reader, _texts, served, body, texts_in)
        found = await self.batcher.score(served, texts, until - time.monotonic())
        self.metrics.scored(served.version, texts, found[served.columns.index("probability")])
        return found


def require_json(request: Request) -> None:
    """Raises RefusedRequest where a request does not say that it is JSON."""
    if not _JSON.fullmatch(request.headers.get("content-type", "")):
        raise RefusedRequest("the request's Content-Type must be application/json, in UTF-8", 415)


def _texts(served: Served, body: bytes, texts_in: Reading) -> list[str]:
    found = texts_in(body)
    limits.require_few(len(found))
    texts = usable(found)
    limits.require_short(texts)
    if len(body) > limits.MAX_REQUEST_TOKENS:  # a token has a byte at least
        limits.require_few_tokens(sum(map(len, served.model.encode(texts))))
    return texts


async def _while_there(request: Request, work: Coroutine[Any, Any, Columns]) -> Columns:
    """Awaits `work`, and cancels it where the client goes."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
