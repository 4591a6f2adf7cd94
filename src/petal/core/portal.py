"""The way from sync code to async: an event loop in a thread of its own, so that each act is written once."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, aclosing, suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from petal.core import forks

T = TypeVar("T")


@dataclass(slots=True)
class _Running:
    """A loop that runs in its thread.

    Attributes:
        ended_by: What a step raised that ends a whole loop, as `sys.exit()` does.
        streams: What is iterated over there.
    """

    manager: AbstractContextManager[BlockingPortal]
    portal: BlockingPortal
    thread: threading.Thread
    ended_by: list[BaseException]
    streams: set[_Task[None]]

    @classmethod
    def begin(cls) -> Self:
        """Start one."""
        ended_by: list[BaseException] = []
        loop = {"loop_factory": lambda: _watched(asyncio.new_event_loop(), ended_by)}
        manager = start_blocking_portal(name="petal-portal", backend_options=loop)
        portal = manager.__enter__()
        return cls(manager, portal, portal.call(threading.current_thread), ended_by, set())

    @property
    def is_here(self) -> bool:
        """Whether this is its thread."""
        return threading.current_thread() is self.thread

    def end(self) -> None:
        """End it, once nothing waits there to be asked for its next item, and wait for that."""
        streams, self.streams = self.streams, set()
        for stream in () if self.ended_by else streams:
            stream.cancel()
        self.manager.__exit__(None, None, None)

    def leave(self) -> None:
        """Have done with it in a process that forked, which has no such thread."""
        with suppress(StopIteration, RuntimeError):  # the latter from a loop in debug mode, which is another thread's
            self.portal.stop().send(None)  # it waits for nothing; what is still to end finds that it has stopped
        self.manager.__exit__(None, None, None)

    def result(self, task: _Task[T]) -> T:
        """A task's result, or what ended the loop meanwhile."""
        try:
            return task.result()
        except CancelledError:
            if self.ended_by:
                raise self.ended_by[0] from None
            raise


class Portal:
    """Runs coroutines for callers that cannot await, also for those inside a running event loop.

    The loop starts with the first call. The caller's context variables reach the coroutine. An interrupted
    wait (ctrl-c) cancels what it waited for, and ends when that has ended. What ends the loop, as `sys.exit()` in a
    step does, reaches whoever waits for it, and the next call starts another loop; so does the first one in a process
    that forked.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._finalizer: weakref.finalize[Any, Portal] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the loop has started and not been closed."""
        return self._running is not None

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """What `await function(*args, **kwargs)` gives."""
        running = self._start()
        if running.is_here:
            # A coroutine that runs here and calls back would wait for its own loop: it gets another one.
            with start_blocking_portal() as inner:
                return _Task(inner, function, args, kwargs).result()
        return running.result(_Task(running.portal, function, args, kwargs))

    def iterate(self, make: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
        """The items of an async generator, which goes on only when the next one is asked for.

        Raises:
            RuntimeError: If the portal was closed before the last one.
        """
        running = self._start()
        portal = running.portal
        # The generator lives in one task from its first item to its closing: its context variables and
        # cancel scopes belong to that task.
        ask, asked = anyio.create_memory_object_stream[None](0)
        give, given = anyio.create_memory_object_stream[T](0)

        async def produce() -> None:
            async with asked, give, aclosing(make()) as items:
                await asked.receive()
                async for item in items:
                    await give.send(item)
                    await asked.receive()

        async def step() -> T:
            try:
                await ask.send(None)
            except anyio.BrokenResourceError:
                raise anyio.EndOfStream from None
            return await given.receive()

        def close() -> None:
            ask.close()
            given.close()

        def require_open() -> None:
            if producer not in running.streams:
                raise RuntimeError("The agent was closed, which ended this stream; begin another one.")

        producer = _Task(portal, produce, (), {})
        running.streams.add(producer)
        try:
            producer.start()
            while True:
                require_open()
                try:
                    item = running.result(_Task(portal, step, (), {}))
                except anyio.EndOfStream:
                    break
                yield item
            require_open()
            running.result(producer)
        finally:
            running.streams.discard(producer)
            if producer.has_ended:
                close()
            elif running.is_here:  # the garbage collector ran there: nothing may be waited for
                producer.stop()
                close()
            else:
                producer.cancel()
                portal.call(close)

    def close(self) -> None:
        """End the loop and its thread, and what is iterated over there; the next call starts another."""
        with self._lock:
            running = self._give_up()
        if running is not None:
            running.end()

    def forked(self) -> None:
        """Forget the loop, whose thread is in the process that this one forked from, unless that thread did it."""
        self._lock = threading.Lock()
        running = self._give_up()
        if running is not None and running.is_here:
            self._running = running  # it goes on; its end is nothing to be waited for
        elif running is not None:
            running.leave()

    def _start(self) -> _Running:
        with self._lock:
            if (running := self._running) is not None and running.ended_by:
                self._give_up()
                running.end()
            if self._running is None:
                self._running = _Running.begin()
                self._finalizer = weakref.finalize(self, self._running.end)
                forks.tell(self)
            return self._running

    def _give_up(self) -> _Running | None:
        """The loop, which then is the caller's to end."""
        running, self._running = self._running, None
        if self._finalizer is not None:
            self._finalizer.detach()
        return running


def _watched(loop: asyncio.AbstractEventLoop, ended_by: list[BaseException]) -> asyncio.AbstractEventLoop:
    """A loop that leaves word of what ended it, which the thread it runs in keeps to itself."""
    run_forever = loop.run_forever

    def run() -> None:
        try:
            run_forever()
        except BaseException as error:
            ended_by.append(error)
            raise

    loop.run_forever = run  # type: ignore[method-assign]
    return loop


class _Task(Generic[T]):
    """A coroutine that runs in a portal, and whose end can be waited for even after it was cancelled."""

    def __init__(
        self,
        portal: BlockingPortal,
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._portal = portal
        self._function, self._args, self._kwargs = function, args, kwargs
        self._scope: anyio.CancelScope | None = None
        self._ended = threading.Event()
        self._future: Future[T] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the coroutine ran, and has ended."""
        return self._ended.is_set()

    def start(self) -> Future[T]:
        if self._future is None:
            self._future = self._portal.start_task_soon(self._run)
        return self._future

    def result(self) -> T:
        try:
            return self.start().result()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Stop the coroutine and wait for its end, also when an interrupt came while it was being handed over."""
        if self._ended.is_set():
            return
        # A portal begins its tasks in order: once this call ran there, the coroutine has begun or never will.
        self._portal.call(self.stop)
        if self._scope is not None:
            self._ended.wait()

    def stop(self) -> None:
        """Cancel it, on the portal's own thread."""
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> T:
        try:
            with anyio.CancelScope() as self._scope:
                return await self._function(*self._args, **self._kwargs)
            raise anyio.get_cancelled_exc_class()  # nobody waits for the result any more
        finally:
            self._ended.set()
