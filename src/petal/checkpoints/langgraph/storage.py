"""A dialect in use: opened once, shared by threads and event loops, closed once."""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Condition
from typing import TypeVar

from petal.checkpoints.langgraph.dialect import Dialect
from petal.core import forks
from petal.errors import CheckpointerUnavailableError, PetalError

T = TypeVar("T")


class Storage:
    """Runs operations on a dialect, for sync callers on their thread and for async ones on a worker.

    Worker threads belong to no event loop, so any loop may wait for them and none can block them. They
    are those of the standard library's executor: idle ones never keep the process alive. A process that forked is
    refused what was open already, unless it is in memory.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._opened = self._closed = self._forked = False
        self._equip()

    def run(self, work: Callable[[], T], *, repeatable: bool = True) -> T:
        """Does it here and now, once more if the connection was lost, and says what an error means."""
        try:
            try:
                return self._attempt(work)
            except Exception as error:
                if not self.dialect.recovered(error, repeatable=repeatable):
                    raise
            return self._attempt(work)
        except PetalError:
            raise
        except Exception as error:
            if (typed := self.dialect.translated(error)) is None:
                raise
            raise typed from error

    async def later(self, act: Callable[[], T]) -> T:
        """Does it on a worker, in the caller's context. It is completed even if the caller is cancelled."""
        return await asyncio.wrap_future(self._submitted(act))

    def close(self) -> None:
        """Closes the dialect, once all that was begun is done."""
        self._workers.shutdown()
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: not self._running)
            if self._forgotten.detach() is not None:
                self.dialect.close()

    def forked(self) -> None:
        """Leave the dialect to the process that opened it, which this one forked from."""
        if not self._closed:
            self._forgotten.detach()
            self._equip()
            if not self.dialect.in_memory:
                self._forgotten.detach()
                self._closed = self._forked = True

    def _equip(self) -> None:
        """Have threads, which start when they are needed."""
        self._state, self._running = Condition(), 0
        self._workers = ThreadPoolExecutor(self.dialect.workers, thread_name_prefix="petal-checkpoints")
        self._forgotten = weakref.finalize(self, _forget, self.dialect, self._workers)

    def _attempt(self, work: Callable[[], T]) -> T:
        with self._state:
            if self._closed:
                raise self._refusal()
            if not self._opened:
                self.dialect.open()
                self._opened = True
                forks.tell(self)
            self._running += 1
        try:
            return work()
        finally:
            with self._state:
                self._running -= 1
                self._state.notify_all()

    def _submitted(self, act: Callable[[], T]) -> Future[T]:
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        try:
            self._workers.submit(copy_context().run, _settle, answer, act)
        except RuntimeError as error:
            raise self._refusal() from error
        return answer

    def _refusal(self) -> CheckpointerUnavailableError:
        refusal = CheckpointerUnavailableError.forked if self._forked else CheckpointerUnavailableError.closed
        return refusal(self.dialect.where)


def _settle(answer: Future[T], act: Callable[[], T]) -> None:
    try:
        answer.set_result(act())
    except BaseException as error:
        answer.set_exception(error)
    finally:
        del answer, act  # else an error, its traceback and this frame hold each other


def _forget(dialect: Dialect, workers: ThreadPoolExecutor) -> None:
    workers.shutdown(wait=False)
    if dialect.is_open:
        dialect.close()
        warnings.warn(
            f"unclosed checkpointer {dialect.where}; use it in a with block or call close()",
            ResourceWarning,
            stacklevel=2,
        )
