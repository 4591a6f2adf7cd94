"""Sync code reaches async code from anywhere: from any thread, inside a running loop, and from inside itself."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal

from petal.core.portal import Portal

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


def test_a_coroutine_is_run(portal: Portal) -> None:
    assert portal.call(double, 21) == 42


async def test_a_coroutine_is_run_inside_a_running_loop(portal: Portal) -> None:
    assert portal.call(double, n=21) == 42


def test_errors_come_back(portal: Portal) -> None:
    async def fail() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        portal.call(fail)


def test_a_call_from_its_own_loop_does_not_wait_for_itself(portal: Portal) -> None:
    async def nested() -> int:
        return portal.call(double, 4)

    assert portal.call(nested) == 8


def test_context_variables_reach_the_coroutine(portal: Portal) -> None:
    async def read() -> str:
        return colour.get()

    token = colour.set("green")
    try:
        assert portal.call(read) == "green"
    finally:
        colour.reset(token)


def test_many_threads_share_it(portal: Portal) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(portal.call(double, n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [2 * n for n in range(20)]


def test_a_generator_goes_on_only_when_asked_and_is_closed_when_left(portal: Portal) -> None:
    made: list[int | str] = []

    async def count() -> AsyncGenerator[int, None]:
        try:
            for n in range(10):
                made.append(n)
                yield n
        finally:
            made.append("closed")

    items = portal.iterate(count)
    assert [next(items), next(items)] == [0, 1]
    assert made == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert made == [0, 1, "closed"]


def test_a_generators_error_comes_after_its_items(portal: Portal) -> None:
    async def fail_after_one() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("then this")

    items = portal.iterate(fail_after_one)
    assert next(items) == 1
    with pytest.raises(ValueError, match="then this"):
        next(items)


def test_an_interrupted_wait_cancels_and_waits_for_the_end(portal: Portal) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def press_ctrl_c() -> None:
        begun.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    hand = threading.Thread(target=press_ctrl_c)
    hand.start()
    with pytest.raises(KeyboardInterrupt):
        portal.call(slow)
    assert ended.wait(20)
    hand.join()


@pytest.mark.parametrize("handed_over", [True, False])
def test_an_interrupt_during_the_hand_over_leaves_nothing_running(
    portal: Portal, handed_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    hand_over = BlockingPortal.start_task_soon

    def interrupted(self: BlockingPortal, *args: Any) -> Any:
        monkeypatch.setattr(BlockingPortal, "start_task_soon", hand_over)
        if handed_over:
            hand_over(self, *args)
        raise KeyboardInterrupt

    portal.call(double, 1)
    monkeypatch.setattr(BlockingPortal, "start_task_soon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.call(slow)
    assert begun.is_set() == ended.is_set() == handed_over
    assert portal.call(double, 2) == 4


def test_a_generator_left_on_the_portals_own_thread_is_closed_without_waiting(portal: Portal) -> None:
    closed = threading.Event()

    async def count() -> AsyncGenerator[int, None]:
        try:
            for n in range(10):
                yield n
        finally:
            closed.set()

    items = portal.iterate(count)
    assert next(items) == 0

    async def leave() -> None:
        items.close()  # type: ignore[attr-defined]

    portal.call(leave)
    assert closed.wait(20)


def test_a_portal_can_be_closed_while_a_generator_is_left_at_an_item(portal: Portal) -> None:
    ended: list[str] = []

    async def count() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("closed")

    items = portal.iterate(count)
    assert next(items) == 1
    portal.close()
    assert ended == ["closed"]
    with pytest.raises(RuntimeError, match="The agent was closed, which ended this stream; begin another one"):
        next(items)
    left = portal.iterate(count)
    assert next(left) == 1
    portal.close()
    del left
    assert list(portal.iterate(count)) == [1, 2]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_the_loop_reaches_the_caller_and_the_next_call_has_another(
    portal: Portal, error: BaseException
) -> None:
    """As `sys.exit()` in a step does, which LangGraph runs in a task of its own."""

    async def step() -> None:
        raise error

    async def run() -> None:
        await asyncio.create_task(step())

    async def items() -> AsyncGenerator[int, None]:
        yield 1
        await run()

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first = portal.call(loop)
    with pytest.raises(type(error)) as caught:
        portal.call(run)
    assert caught.value is error
    assert (second := portal.call(loop)) is not first
    with pytest.raises(type(error)):
        list(portal.iterate(items))
    assert portal.call(loop) not in (first, second)


def test_a_closed_portal_starts_again(portal: Portal) -> None:
    portal.call(double, 1)
    portal.close()
    portal.close()
    assert portal.call(double, 2) == 4


def test_a_forgotten_portal_ends_its_thread() -> None:
    portal = Portal()
    portal.call(double, 1)
    before = threading.active_count()
    del portal
    assert threading.active_count() == before - 1
