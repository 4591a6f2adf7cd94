"""Durable order: nothing is built on what a task wrote before that is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import get_checkpoint_id

from petal.checkpoints.leases import LEASE
from petal.checkpoints.notes import key_of
from petal.checkpoints.rows import RUNTIME, Namespace

REMEMBERED = 64
"""Failures that are kept until their run asks for them, which one that ended for another reason never does."""


@dataclass(slots=True, eq=False)
class _Write:
    place: Namespace
    checkpoint_id: str | None
    loop: object
    lease: str | None
    saved: Future[None] = field(default_factory=Future)


class Unsettled:
    """What tasks wrote that is not on disk: it is on its way there, or could not be saved.

    LangGraph saves it in the background, and looks only at the end of the run whether that went well.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_thread: dict[str, dict[_Write, None]] = {}
        self._failed: dict[_Write, None] = {}

    @contextmanager
    def saving(self, config: RunnableConfig, task_id: str) -> Iterator[None]:
        """Keeps in mind that a task's writes are being saved, while the block does that."""
        configurable = config.get("configurable", {})
        loop = configurable.get(RUNTIME)
        if loop is None or key_of(task_id) is not None:  # whoever saves this waits for it
            yield
            return
        write = _Write(Namespace.of(config), get_checkpoint_id(config), loop, configurable.get(LEASE))
        with self._lock:
            self._by_thread.setdefault(write.place.thread_id, {})[write] = None
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
            raise
        finally:
            self._ended(write, failed)

    def check(self, config: RunnableConfig) -> None:
        """Raises what went wrong with the writes on the checkpoint that a run's config names, if anything did."""
        self._check(self._on(config))

    def settle(self, config: RunnableConfig) -> None:
        """Waits until the writes on the checkpoint that a run's config names are on disk; else raises as `check`."""
        if writes := self._on(config):
            wait([write.saved for write in writes])
            self._check(writes)

    async def asettle(self, config: RunnableConfig) -> None:
        """As `settle`."""
        if writes := self._on(config):
            await self._asettle(writes)

    async def asettle_all(self, config: RunnableConfig) -> None:
        """As `asettle`, for all writes of the run that has the thread's lease."""
        lease = config["configurable"][LEASE]
        await asyncio.sleep(0)  # the save of what LangGraph gives out is a task, which begins in the loop's next turn
        if writes := self._which(Namespace.of(config), lambda write: write.lease == lease):
            await self._asettle(writes)

    async def _asettle(self, writes: Sequence[_Write]) -> None:
        under_way = [asyncio.wrap_future(write.saved) for write in writes if not write.saved.done()]
        await asyncio.gather(*under_way, return_exceptions=True)
        self._check(writes)

    def _on(self, config: RunnableConfig) -> Sequence[_Write]:
        place, id, loop = Namespace.of(config), get_checkpoint_id(config), config.get("configurable", {}).get(RUNTIME)
        return self._which(
            place, lambda write: write.loop is loop and (write.place, write.checkpoint_id) == (place, id)
        )

    def _which(self, place: Namespace, meant: Callable[[_Write], bool]) -> Sequence[_Write]:
        if place.thread_id not in self._by_thread:
            return ()
        with self._lock:
            return [write for write in self._by_thread.get(place.thread_id, ()) if meant(write)]

    def _ended(self, write: _Write, error: Exception | None) -> None:
        with self._lock:
            if error is None:
                self._forget(write)
            else:
                self._failed[write] = None
                if len(self._failed) > REMEMBERED:
                    self._forget(next(iter(self._failed)))
        if error is None:
            write.saved.set_result(None)
        else:
            write.saved.set_exception(error)

    def _check(self, writes: Sequence[_Write]) -> None:
        failed = [write for write in writes if write.saved.done() and write.saved.exception() is not None]
        with self._lock:
            for write in failed:
                self._forget(write)
        for write in failed:
            write.saved.result()

    def _forget(self, write: _Write) -> None:
        self._failed.pop(write, None)
        writes = self._by_thread.get(write.place.thread_id, {})
        writes.pop(write, None)
        if not writes:
            self._by_thread.pop(write.place.thread_id, None)
