"""Questions that are asked together: who is answered, and what happens if nobody can be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from petal.checkpoints.gathering import MOST, AskAloneError, Gathering


class Doubling:
    """Knows the double of each number but 13, of which it knows nothing, and chokes on those below zero."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, numbers: Sequence[int]) -> Mapping[int, int]:
        self.groups.append(list(numbers))
        self.begun.set()
        assert self.go.wait(30)
        if min(numbers) < 0:
            raise ValueError("below zero")
        return {number: 2 * number for number in numbers if number != 13}


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


async def test_what_gathers_meanwhile_is_asked_together(doubling: Doubling, workers: ThreadPoolExecutor) -> None:
    gathering = Gathering(doubling, workers)
    doubling.go.clear()
    first = asyncio.create_task(gathering.answer(1))
    await asyncio.to_thread(doubling.begun.wait, 30)
    rest = [asyncio.create_task(gathering.answer(number)) for number in (2, 13, 2, *range(100, 100 + MOST))]
    await asyncio.sleep(0)
    doubling.go.set()
    assert await first == 2
    assert (await asyncio.gather(*rest))[:3] == [4, None, 4]
    assert [len(group) for group in doubling.groups] == [1, MOST - 1, 3]  # of two that are equal one is asked
    assert await gathering.answer(5) == 10


async def test_none_of_a_group_is_answered_by_the_failure_of_another(
    doubling: Doubling, workers: ThreadPoolExecutor
) -> None:
    gathering = Gathering(doubling, workers)
    doubling.go.clear()
    first = asyncio.create_task(gathering.answer(1))
    await asyncio.to_thread(doubling.begun.wait, 30)
    rest = [asyncio.create_task(gathering.answer(number)) for number in (2, -1)]
    await asyncio.sleep(0)
    doubling.go.set()
    assert await first == 2
    for asked in rest:
        with pytest.raises(AskAloneError):
            await asked
    assert await gathering.answer(3) == 6


async def test_one_that_waits_no_longer_holds_up_nobody(doubling: Doubling, workers: ThreadPoolExecutor) -> None:
    gathering = Gathering(doubling, workers)
    doubling.go.clear()
    first, second = (asyncio.create_task(gathering.answer(number)) for number in (1, 2))
    await asyncio.to_thread(doubling.begun.wait, 30)
    first.cancel()
    await asyncio.sleep(0)
    doubling.go.set()
    assert await second == 4
    assert first.cancelled()


async def test_a_loop_that_ended_holds_up_nobody(doubling: Doubling, workers: ThreadPoolExecutor) -> None:
    gathering = Gathering(doubling, workers)
    doubling.go.clear()

    async def leave() -> None:
        asked = asyncio.create_task(gathering.answer(1))
        await asyncio.to_thread(doubling.begun.wait, 30)
        asked.cancel()

    await asyncio.to_thread(asyncio.run, leave())
    mine = asyncio.create_task(gathering.answer(2))
    await asyncio.sleep(0)
    doubling.go.set()
    assert await mine == 4


async def test_workers_that_take_no_more_are_told(doubling: Doubling, workers: ThreadPoolExecutor) -> None:
    gathering = Gathering(doubling, workers)
    workers.shutdown()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shutdown"):
            await gathering.answer(1)
