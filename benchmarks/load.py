"""Clients that ask a server over HTTP, each one request after the other on a connection of its own."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np


def measure(address: str, texts: Sequence[str], *, clients: int, reviews: int, seconds: float) -> dict[str, Any]:
    """Returns reviews a second, and the median and 99th percentile of a request's milliseconds.

    Args:
        address: host and port of a server whose `/invocations` answers `inputs`.
        reviews: of `texts`, in turn, in each request.
    """
    groups = [texts[start : start + reviews] for start in range(0, len(texts) - reviews + 1, reviews)]
    taken = asyncio.run(_all([_request(address, group) for group in groups], address, clients, seconds))
    return {
        "reviews_per_second": round(len(taken) * reviews / seconds, 1),
        "median_ms": round(statistics.median(taken) * 1000, 2),
        "p99_ms": round(float(np.percentile(taken, 99)) * 1000, 2),
    }


def _request(address: str, texts: Sequence[str]) -> bytes:
    body = json.dumps({"inputs": list(texts)}).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _all(requests: Sequence[bytes], address: str, clients: int, seconds: float) -> list[float]:
    turn = cycle(requests)
    until = time.perf_counter() + seconds
    each = await asyncio.gather(*(_one(turn, address, until) for _ in range(clients)))
    return [taken for one in each for taken in one]


async def _one(turn: "cycle[bytes]", address: str, until: float) -> list[float]:
    """Returns the seconds of each request that was answered until then."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    taken: list[float] = []
    while True:
        begun = time.perf_counter()
        writer.write(next(turn))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"the server answered {head.splitlines()[0]!r}")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0].partition(b":")[2]))
        now = time.perf_counter()
        if now > until:
            writer.close()
            return taken
        taken.append(now - begun)
