"""Scoring together what waits at the same time.

While one batch is scored, requests gather; the next batch takes a share of each of them, so that a large request does
not make a small one wait. A large one is scored piece by piece, and no piece is begun for a client that is gone or a
deadline that has passed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.serving.server.following import Served
from pipeline.serving.server.limits import busy
from pipeline.serving.server.metrics import Metrics
from pipeline.serving.server.payloads import RefusedRequest

BATCH_COST = 2**17
"""Of the texts of a batch, in characters: some seventy IMDB reviews, a thirtieth of a second on two cores."""
_FIXED_COST = 64
_READ_CHARACTERS = 2**13
"""Of a text, that its network reads at most, about; its n-grams are of all of it."""
_NGRAM_COST = 0.4
"""Of a character in n-grams, beside one that a network reads."""
FIRST_RATE = BATCH_COST / 0.5
"""Cost a second before anything was measured."""
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
    found: Columns
    place: int = 0  # texts before it are scored

    @property
    def left(self) -> int:
        return sum(self.costs[self.place :])

    def share(self, cost: float) -> int:
        """Returns how many of the next texts cost no more than `cost`, at least one."""
        count = 1
        cost -= self.costs[self.place]
        while self.place + count < len(self.texts) and (cost := cost - self.costs[self.place + count]) >= 0:
            count += 1
        return count


@dataclass
class Batcher:
    """The queue before the scorer; `run` works it off."""

    metrics: Metrics
    _jobs: "deque[_Job]" = field(default_factory=deque)
    _cost: int = 0  # of all that waits
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
        expected = (self._cost + sum(costs)) / self._rate
        if expected > seconds:
            raise busy(f"with what waits before it, the request would take {expected:.0f} seconds", expected - seconds)
        if not texts:
            return [[] for _ in served.columns]
        done: asyncio.Future[Columns] = asyncio.get_running_loop().create_future()
        job = _Job(served, texts, costs, done, now, [[] for _ in served.columns])
        self._jobs.append(job)
        self._cost += sum(costs)
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
        with ThreadPoolExecutor(1, "scoring") as thread:
            while True:
                self._some.clear()
                if self._jobs:
                    try:
                        await self._one(thread)
                    except Exception as error:  # a fault here ends the requests that wait, not those that come
                        self._end_all(error)
                else:
                    await self._some.wait()

    async def _one(self, thread: ThreadPoolExecutor) -> None:
        """Scores a share of each job that is of the first one's version."""
        served = self._jobs[0].served
        jobs = [job for job in self._jobs if job.served is served]
        shares: list[tuple[_Job, int]] = []
        left: float = BATCH_COST
        for waiting, job in zip(range(len(jobs), 0, -1), jobs, strict=True):
            if left <= 0:
                break
            count = job.share(left / waiting)
            left -= sum(job.costs[job.place : job.place + count])
            shares.append((job, count))
        texts = [text for job, count in shares for text in job.texts[job.place : job.place + count]]
        cost = BATCH_COST - left
        now = time.monotonic()
        for job, _ in shares:
            if not job.place:
                self.metrics.queued.observe(now - job.begun)
        self.metrics.batch_rows.observe(len(texts))
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(thread, _scored, served, texts)
        except Exception:
            await self._one_by_one(thread, shares)
            return
        self._rate = _MEMORY * self._rate + (1 - _MEMORY) * cost / (time.monotonic() - now)
        start = 0
        for job, count in shares:
            self._add(job, count, [column[start : start + count] for column in found])
            start += count
        for job, _ in shares:  # who was served now comes last
            if job in self._jobs:
                self._jobs.remove(job)
                self._jobs.append(job)

    async def _one_by_one(self, thread: ThreadPoolExecutor, shares: Sequence[tuple[_Job, int]]) -> None:
        """Scores each job's share alone, so that what is wrong with one is told to that one."""
        loop = asyncio.get_running_loop()
        for job, count in shares:
            if job not in self._jobs:  # its client is gone
                continue
            texts = job.texts[job.place : job.place + count]
            try:
                found = await loop.run_in_executor(thread, _scored, job.served, texts)
            except Exception as error:
                if isinstance(error, job.served.model.UnencodableText):
                    refusal = RefusedRequest(f"version {job.served.version} cannot score one of the texts")
                else:  # its message may hold a text
                    refusal = RefusedRequest(f"version {job.served.version} failed: {type(error).__name__}", 500)
                if job in self._jobs and not job.done.done():
                    job.done.set_exception(refusal)
                self._end(job)
            else:
                self._add(job, count, found)

    def _add(self, job: _Job, count: int, found: Columns) -> None:
        if job not in self._jobs:  # its client is gone
            return
        self._cost -= sum(job.costs[job.place : job.place + count])
        job.place += count
        for column, more in zip(job.found, found, strict=True):
            column += more
        if job.place == len(job.texts):
            self._end(job)
            if not job.done.done():
                job.done.set_result(job.found)

    def _end_all(self, error: Exception) -> None:
        for job in tuple(self._jobs):
            self._end(job)
            if not job.done.done():
                job.done.set_exception(error)

    def _end(self, job: _Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            self._cost -= job.left


def _scored(served: Served, texts: Sequence[str]) -> Columns:
    found = [column.tolist() for column in served.model.score(texts)]
    if [len(column) for column in found] != [len(texts)] * len(served.columns):
        raise ValueError("another number of scores than of texts")
    return found


def _cost(text: str) -> int:
    return round(_FIXED_COST + min(len(text), _READ_CHARACTERS) + _NGRAM_COST * len(text))
