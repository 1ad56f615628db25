"""Scoring together what waits at the same time.

While batches are scored, one a thread, requests gather; the next batch takes a share of each of them, so that a large
request does not make a small one wait. A large one is scored in pieces, several at a time, and no piece is begun for a
client that is gone or a deadline that has passed.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.serving.server.following import Served
from pipeline.serving.server.limits import busy
from pipeline.serving.server.metrics import Metrics
from pipeline.serving.server.refusals import RefusedRequest

BATCH_COST = 2**18
"""Of the texts of a batch, in characters: some hundred and forty IMDB reviews, an eighth of a second on a core."""
_FIXED_COST = 64
_READ_CHARACTERS = 2**13
"""Of a text, that its network reads at most, about; its n-grams are of all of it."""
_NGRAM_COST = 0.4
"""Of a character in n-grams, beside one that a network reads."""
FIRST_RATE = BATCH_COST / 0.5
"""Cost a second of a thread before anything was measured."""
_MEMORY = 0.9
"""Weight of the batches before in the mean rate."""

Columns = list[list[Any]]
"""What a model says of texts, a list a column."""


@dataclass(eq=False)
class _Job:
    """The texts of one request on their way."""

    served: Served
    texts: Sequence[str]
    costs: Sequence[int]
    done: "asyncio.Future[Columns]"
    begun: float
    found: Columns  # as long as `texts`, filled piece by piece
    left: int  # cost of the texts that are not scored
    given: int = 0  # texts before it are scored, or are being scored

    def share(self, cost: float) -> int:
        """Returns how many of the next texts cost no more than `cost`, at least one."""
        count = 1
        cost -= self.costs[self.given]
        while self.given + count < len(self.texts) and (cost := cost - self.costs[self.given + count]) >= 0:
            count += 1
        return count


@dataclass(frozen=True)
class _Piece:
    """Texts of one request in a batch."""

    job: _Job
    start: int
    stop: int

    @property
    def texts(self) -> Sequence[str]:
        return self.job.texts[self.start : self.stop]

    @cached_property
    def cost(self) -> int:
        return sum(self.job.costs[self.start : self.stop])


@dataclass
class Batcher:
    """The queue before the scorer; `run` works it off.

    Attributes:
        threads: how many batches are scored at the same time, each on one thread.
    """

    metrics: Metrics
    threads: int = 1
    _jobs: dict[_Job, None] = field(default_factory=dict)  # that are not answered; whose turn it is comes first
    _rate: float = field(default_factory=lambda: FIRST_RATE)
    _some: asyncio.Event = field(default_factory=asyncio.Event)

    async def score(self, served: Served, texts: Sequence[str], seconds: float) -> Columns:
        """Returns what `served` says of `texts`.

        Raises:
            RefusedRequest: with what waits already it cannot be answered in so many `seconds`, or was not; or the model
                refuses a text.
        """
        now = time.monotonic()
        costs = [_cost(text) for text in texts]
        expected = (sum(job.left for job in self._jobs) + sum(costs)) / (self._rate * self.threads)
        if expected > seconds:
            raise busy(f"with what waits before it, the request would take {expected:.0f} seconds", expected - seconds)
        if not texts:
            return [[] for _ in served.columns]
        done: asyncio.Future[Columns] = asyncio.get_running_loop().create_future()
        job = _Job(served, texts, costs, done, now, [[None] * len(texts) for _ in served.columns], sum(costs))
        self._jobs[job] = None
        self._some.set()
        try:
            async with asyncio.timeout(seconds):
                return await done
        except TimeoutError:
            raise busy("the request was not answered in time", 0) from None
        finally:  # cancelled too: its client is gone
            self._end(job)

    @property
    def waiting(self) -> int:
        """Requests that are not answered yet."""
        return len(self._jobs)

    async def run(self) -> None:
        """Scores batch after batch, until it is cancelled."""
        with ThreadPoolExecutor(self.threads, "scoring") as pool:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.threads):
                    group.create_task(self._work(pool))

    async def _work(self, pool: ThreadPoolExecutor) -> None:
        while True:
            await self._some.wait()
            try:
                if pieces := self._next():
                    await self._score(pool, pieces)
                else:
                    self._some.clear()
            except Exception as error:  # a fault here ends the requests that wait, not those that come
                for job in tuple(self._jobs):
                    self._fail(job, error)

    def _next(self) -> Sequence[_Piece]:
        """Returns a batch, a share of each job of the version of the first; none where nothing waits."""
        waiting = [job for job in self._jobs if job.given < len(job.texts)]
        waiting = [job for job in waiting if job.served is waiting[0].served]
        pieces = []
        left: float = BATCH_COST
        for others, job in zip(range(len(waiting), 0, -1), waiting, strict=True):
            if left <= 0:
                break
            piece = _Piece(job, job.given, job.given + job.share(left / others))
            left -= piece.cost
            pieces.append(piece)
            if not job.given:
                self.metrics.queued.observe(time.monotonic() - job.begun)
            job.given = piece.stop
            self._jobs[job] = self._jobs.pop(job)  # whose turn it was comes last
        return pieces

    async def _score(self, pool: ThreadPoolExecutor, pieces: Sequence[_Piece]) -> None:
        texts = [text for piece in pieces for text in piece.texts]
        self.metrics.batch_rows.observe(len(texts))
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(pool, _scored, pieces[0].job.served, texts)
        except Exception as error:
            if len(pieces) == 1:
                self._fail(pieces[0].job, _refusal(pieces[0].job.served, error))
            else:  # each alone, so that what is wrong with one is told to that one
                for piece in pieces:
                    if piece.job in self._jobs:
                        await self._score(pool, [piece])
            return
        rate = sum(piece.cost for piece in pieces) / (time.monotonic() - begun)
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * rate
        start = 0
        for piece in pieces:
            stop = start + piece.stop - piece.start
            self._put(piece, [column[start:stop] for column in found])
            start = stop

    def _put(self, piece: _Piece, found: Columns) -> None:
        job = piece.job
        if job not in self._jobs:  # its client is gone
            return
        job.left -= piece.cost
        for column, values in zip(job.found, found, strict=True):
            column[piece.start : piece.stop] = values
        if not job.left:  # no text costs nothing
            self._end(job)
            if not job.done.done():
                job.done.set_result(job.found)

    def _fail(self, job: _Job, error: Exception) -> None:
        self._end(job)
        if not job.done.done():
            job.done.set_exception(error)

    def _end(self, job: _Job) -> None:
        self._jobs.pop(job, None)


def _scored(served: Served, texts: Sequence[str]) -> Columns:
    found = [column.tolist() for column in served.model.score(texts)]
    if [len(column) for column in found] != [len(texts)] * len(served.columns):
        raise ValueError("another number of scores than of texts")
    return found


def _refusal(served: Served, error: Exception) -> RefusedRequest:
    if isinstance(error, served.model.UnencodableText):
        return RefusedRequest(f"version {served.version} cannot score one of the texts")
    # What it says of itself may hold a text.
    return RefusedRequest(f"version {served.version} failed: {type(error).__name__}", 500)


def _cost(text: str) -> int:
    return round(_FIXED_COST + min(len(text), _READ_CHARACTERS) + _NGRAM_COST * len(text))
