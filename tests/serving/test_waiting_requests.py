"""What waits at the same time is scored together, and each request gets its own answer or its own refusal."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline.serving.server import batching
from pipeline.serving.server.batching import Batcher
from pipeline.serving.server.following import Served
from pipeline.serving.server.metrics import Metrics
from pipeline.serving.server.refusals import RefusedRequest

WAIT_S = 30


class Said(NamedTuple):
    label: np.ndarray
    probability: np.ndarray


class Model:
    """Says of a text its length; it waits where it is told to, and notes what it is asked together."""

    class UnencodableText(ValueError):
        pass

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may = threading.Event()
        self.may.set()

    def score(self, texts: Sequence[str]) -> Said:
        assert self.may.wait(WAIT_S)
        self.asked.append(list(texts))
        if "unencodable" in texts:
            raise self.UnencodableText
        if "fault" in texts:
            raise ZeroDivisionError
        return Said(np.array(list(texts), object), np.array([len(text) / 1000 for text in texts]))

    @contextmanager
    def held(self) -> Iterator[None]:
        self.may.clear()
        try:
            yield
        finally:
            self.may.set()


@asynccontextmanager
async def running() -> Any:
    model, batcher = Model(), Batcher(Metrics())
    task = asyncio.create_task(batcher.run())
    yield model, batcher, Served("model", "1", model, Said._fields)
    assert not task.done()
    task.cancel()


def run(scene: Callable[[Model, Batcher, Served], Awaitable[None]]) -> None:
    async def played() -> None:
        async with asyncio.timeout(WAIT_S), running() as (model, batcher, served):
            await scene(model, batcher, served)

    asyncio.run(played())


async def waiting(batcher: Batcher, count: int) -> None:
    while batcher.waiting < count:
        await asyncio.sleep(0)


def test_what_waits_is_scored_together_and_each_gets_its_own() -> None:
    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        with model.held():
            first = asyncio.create_task(batcher.score(served, ["first"], WAIT_S))
            await waiting(batcher, 1)
            others = [asyncio.create_task(batcher.score(served, [f"text {n}", "x" * n], WAIT_S)) for n in range(1, 9)]
            await waiting(batcher, 9)
        assert await first == [["first"], [0.005]]
        for n, answer in enumerate(await asyncio.gather(*others), start=1):
            assert answer == [[f"text {n}", "x" * n], [0.006, n / 1000]]
        assert sum(map(len, model.asked)) == 17 and len(model.asked) <= 3

    run(scene)


def test_a_large_request_is_scored_piece_by_piece_and_does_not_hold_up_a_small_one() -> None:
    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        many = [f"{n:04}" + "x" * 1000 for n in range(1000)]
        with model.held():
            large = asyncio.create_task(batcher.score(served, many, WAIT_S))
            await waiting(batcher, 1)
            small = asyncio.create_task(batcher.score(served, ["small"], WAIT_S))
            await waiting(batcher, 2)
        assert await small == [["small"], [0.005]]
        assert not large.done()
        assert (await large)[0] == many
        assert len(model.asked) > 5 and "small" in model.asked[0] + model.asked[1]

    run(scene)


def test_a_client_that_goes_leaves_the_others_their_answers_and_its_rest_unscored() -> None:
    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        with model.held():
            many = [f"{n:04}" + "x" * 1000 for n in range(1000)]
            large = asyncio.create_task(batcher.score(served, many, WAIT_S))
            await waiting(batcher, 1)
            small = asyncio.create_task(batcher.score(served, ["small"], WAIT_S))
            await waiting(batcher, 2)
            large.cancel()
            await waiting(batcher, 1)
        assert await small == [["small"], [0.005]]
        assert await batcher.score(served, ["later"], WAIT_S) == [["later"], [0.005]]
        assert sum(map(len, model.asked)) < 300 and batcher.waiting == 0

    run(scene)


@pytest.mark.parametrize(("text", "status"), [("unencodable", 400), ("fault", 500)])
def test_what_is_wrong_with_one_is_told_to_that_one(text: str, status: int) -> None:
    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        with model.held():
            tasks = [asyncio.create_task(batcher.score(served, [one], WAIT_S)) for one in ("a", text, "bb")]
            await waiting(batcher, 3)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[0] == [["a"], [0.001]] and answers[2] == [["bb"], [0.002]]
        assert isinstance(answers[1], RefusedRequest) and answers[1].status == status
        assert await batcher.score(served, ["later"], WAIT_S) == [["later"], [0.005]]

    run(scene)


def test_a_request_that_cannot_be_answered_in_time_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FIRST_RATE", 10_000.0)

    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        with model.held():
            task = asyncio.create_task(batcher.score(served, ["x" * 5000] * 4, WAIT_S))
            await waiting(batcher, 1)
            with pytest.raises(RefusedRequest, match="would take 3 seconds") as refused:
                await batcher.score(served, ["x"], 1.0)
            assert refused.value.status == 503 and refused.value.retry_after == 2
        await task

    run(scene)


def test_a_request_whose_time_has_passed_is_told_and_not_scored() -> None:
    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        with model.held():
            first = asyncio.create_task(batcher.score(served, ["first"], WAIT_S))
            await waiting(batcher, 1)
            late = asyncio.create_task(batcher.score(served, ["late"], 0.01))
            await waiting(batcher, 2)
            with pytest.raises(RefusedRequest, match="not answered in time") as refused:
                await late
        assert refused.value.status == 503
        await first
        assert model.asked == [["first"]]

    run(scene)


def test_each_text_is_scored_by_the_version_that_was_served_when_it_came() -> None:
    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        newer = Model()
        after = Served("model", "2", newer, Said._fields)
        with model.held():
            tasks = [asyncio.create_task(batcher.score(one, ["text"], WAIT_S)) for one in (served, after, served)]
            await waiting(batcher, 3)
        await asyncio.gather(*tasks)
        assert sum(map(len, model.asked)) == 2 and newer.asked == [["text"]]

    run(scene)


def test_a_fault_of_the_queue_ends_those_that_wait_and_not_those_that_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it did elsewhere: https://github.com/ray-project/ray/issues/66140."""

    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        with monkeypatch.context() as faulty:
            faulty.setattr(batching._Job, "share", lambda *_: 1 / 0)
            tasks = [asyncio.create_task(batcher.score(served, [text], WAIT_S)) for text in "ab"]
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in found] == [ZeroDivisionError] * 2
        assert await batcher.score(served, ["later"], WAIT_S) == [["later"], [0.005]]

    run(scene)


def test_no_texts_are_answered() -> None:
    async def scene(model: Model, batcher: Batcher, served: Served) -> None:
        assert await batcher.score(served, [], WAIT_S) == [[], []]

    run(scene)
