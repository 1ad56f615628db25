"""What a request may hold and how long it may take, and how many there may be at once."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request

from pipeline.serving.server.refusals import RefusedRequest

MAX_REQUEST_BYTES = 2**23
MAX_REQUEST_ROWS = 20_000
MAX_TEXT_CHARACTERS = 2**20
"""Of one text: n-grams are made of all of it at once, and take a hundred times its memory."""
MAX_REQUEST_TOKENS = 2_500_000
"""Of the texts of a request, each cut to what the model reads: 8 MB of reviews have fewer, and take some five seconds
on two cores."""
READ_S = 30.0
"""In which a request is there in full, or its connection is closed."""
ANSWER_S = 60.0
"""In which a request that is there is answered, or refused."""
MAX_REQUESTS = 512
"""That are read, wait or are scored at once."""
MAX_BYTES = 2**26
"""Of all bodies together that are held at once."""
RETRY_AFTER_S = 1


@dataclass
class Admission:
    """Counts requests and the bytes of their bodies."""

    requests: int = 0
    bytes: int = 0

    @contextmanager
    def one(self) -> Iterator["Held"]:
        """Admits a request for the time of the block; raises RefusedRequest where there are too many."""
        if self.requests >= MAX_REQUESTS:
            raise busy("as many requests as are served at once are under way", RETRY_AFTER_S)
        self.requests += 1
        held = Held(self)
        try:
            yield held
        finally:
            self.requests -= 1
            self.bytes -= held.bytes


@dataclass
class Held:
    """What one request holds."""

    of: Admission
    bytes: int = 0

    def take(self, count: int) -> None:
        """Takes `count` more bytes; raises RefusedRequest beyond what one request or all together may hold."""
        if self.bytes + count > MAX_REQUEST_BYTES:
            raise _too_large(f"the request has more than {MAX_REQUEST_BYTES:,} bytes; send fewer reviews at a time")
        if self.of.bytes + count > MAX_BYTES:
            raise busy("the requests under way hold as many bytes as they may", RETRY_AFTER_S)
        self.bytes += count
        self.of.bytes += count


def busy(reason: str, retry_after: float) -> RefusedRequest:
    """Returns the refusal of a request that may be sent again after so many seconds."""
    return RefusedRequest(f"{reason}; try again later", 503, retry_after=max(round(retry_after), RETRY_AFTER_S))


def _too_large(reason: str) -> RefusedRequest:
    return RefusedRequest(f"{reason}, or score a file with `sentiment score`", 413)


async def read(request: Request, held: Held) -> bytes:
    """Returns the body of a request.

    Raises:
        RefusedRequest: it is encoded, too large, or not there in time.
        ClientDisconnect: the client is gone.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise RefusedRequest("the request's Content-Encoding must be identity", 415)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_REQUEST_BYTES:
        held.take(MAX_REQUEST_BYTES + 1)
    chunks = []
    try:
        async with asyncio.timeout(READ_S):
            async for chunk in request.stream():
                held.take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RefusedRequest(f"the request was not there in full within {READ_S:.0f} seconds", 408) from None
    return b"".join(chunks)


def require_few(rows: int) -> None:
    """Raises RefusedRequest for more than MAX_REQUEST_ROWS."""
    if rows > MAX_REQUEST_ROWS:
        raise _too_large(f"the request has {rows:,} rows; send at most {MAX_REQUEST_ROWS:,} at a time")


def require_short(texts: Iterable[str]) -> None:
    """Raises RefusedRequest where one has more than MAX_TEXT_CHARACTERS."""
    for row, text in enumerate(texts):
        if len(text) > MAX_TEXT_CHARACTERS:
            raise RefusedRequest(
                f"row {row}: the text has {len(text):,} characters; send at most {MAX_TEXT_CHARACTERS:,}", 413
            )


def require_few_tokens(tokens: int) -> None:
    """Raises RefusedRequest for more than MAX_REQUEST_TOKENS."""
    if tokens > MAX_REQUEST_TOKENS:
        raise _too_large(
            f"the texts of the request have {tokens:,} tokens; send at most {MAX_REQUEST_TOKENS:,} at a time"
        )
