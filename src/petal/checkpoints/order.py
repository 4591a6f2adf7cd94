"""Durable order: no step begins before all that it is built on is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock

from langchain_core.runnables import RunnableConfig

from petal.checkpoints.leases import LEASE, Conflicts
from petal.checkpoints.notes import key_of
from petal.checkpoints.rows import RUNTIME, Namespace, checkpoint_id_of

TASK = "__pregel_task_id"
"""In `configurable` wherever a task runs, be it a graph within a graph."""
REMEMBERED = 64
"""Failures that are kept until their run asks for them, which one that ended for another reason never does."""


@dataclass(slots=True, eq=False)
class _Write:
    """What is saved in the background: what a task wrote, while the block does that, or the input of a run."""

    of: Unsettled
    place: Namespace
    checkpoint_id: str | None
    loop: object
    lease: str | None
    is_checkpoint: bool = False
    is_over: bool = False
    error: BaseException | None = None
    over: Future[None] | None = None
    """For those that wait for it."""

    def ended(self) -> Future[None]:
        """What is answered when it is over."""
        if self.over is None:
            self.over = Future()
            self.over.set_running_or_notify_cancel()  # from here on one who waits cannot cancel it for the others
        return self.over

    def __enter__(self) -> None:
        self.of._begun(self)

    def __exit__(self, cls: object, error: BaseException | None, traceback: object) -> None:
        self.of._ended(self, error if isinstance(error, Exception) else None)


def goes_ahead(config: RunnableConfig) -> bool:
    """Whether this is LangGraph's loop around a whole graph, which does not wait for the save of its input.

    Within a task, a node may change the state of a thread, and waits for that.
    """
    configurable = config["configurable"]
    return RUNTIME in configurable and TASK not in configurable


class Unsettled:
    """What tasks wrote, and inputs, that are not on disk: on their way there, or they could not be saved.

    LangGraph saves what tasks wrote in the background, and looks only at the end of the run whether that went well. The
    checkpoint of an input it does not wait for either before the step behind it, START, which runs no node.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_thread: dict[str, dict[_Write, None]] = {}
        self._failed: dict[_Write, None] = {}

    def saving(self, place: Namespace, config: RunnableConfig, task_id: str) -> AbstractContextManager[None]:
        """Keeps in mind that a task's writes are being saved, while the block does that."""
        configurable = config["configurable"]
        loop = configurable.get(RUNTIME)
        if loop is None or key_of(task_id) is not None:  # whoever saves this waits for it
            return nullcontext()
        return _Write(self, place, checkpoint_id_of(config), loop, configurable.get(LEASE))

    def ahead(
        self, place: Namespace, config: RunnableConfig, id: str, saving: Future[None], then: Callable[[], None]
    ) -> None:
        """Keeps in mind that a run's checkpoint is being saved which nobody waits for before the next one is saved.

        Args:
            place: Where it goes.
            config: What LangGraph's loop saves it with.
            id: The checkpoint's.
            saving: Answered when it is on disk, or could not be saved.
            then: What to do when it is on disk.
        """
        configurable = config["configurable"]
        write = _Write(self, place, id, configurable[RUNTIME], configurable.get(LEASE), is_checkpoint=True)
        self._begun(write)

        def over(saving: Future[None]) -> None:
            try:
                with Conflicts(place.thread_id):
                    saving.result()
                then()
            except BaseException as error:  # whatever it is, the run hears of it
                self._ended(write, error)
            else:
                self._ended(write, None)

        saving.add_done_callback(over)

    def check(self, place: Namespace, config: RunnableConfig) -> None:
        """Raises what went wrong with what a run saved on the checkpoint that its config names, if anything did."""
        if writes := self._on(place, config):
            self._check(writes)

    def settle(self, place: Namespace, config: RunnableConfig) -> None:
        """Waits until that checkpoint, and what was written on it, is on disk; else raises as `check`."""
        if writes := self._on(place, config):
            wait(self._under_way(writes))
            self._check(writes)

    async def asettle(self, place: Namespace, config: RunnableConfig) -> None:
        """As `settle`."""
        if writes := self._on(place, config):
            await self._asettle(writes)

    def has(self, place: Namespace, id: str) -> bool:
        """Whether a checkpoint that a run went ahead of is on disk by now; raises what kept it from that."""
        for write in self._of(place):
            if write.is_checkpoint and (write.place, write.checkpoint_id) == (place, id):
                if write.error is not None:
                    raise write.error
                return False
        return True

    async def asettle_all(self, config: RunnableConfig) -> None:
        """As `asettle`, for all writes of the run that has the thread's lease."""
        lease = config["configurable"][LEASE]
        await asyncio.sleep(0)  # the save of what LangGraph gives out is a task, which begins in the loop's next turn
        if writes := [write for write in self._of(Namespace.of(config)) if write.lease == lease]:
            await self._asettle(writes)

    async def _asettle(self, writes: Sequence[_Write]) -> None:
        await asyncio.gather(*map(asyncio.wrap_future, self._under_way(writes)))
        self._check(writes)

    def _on(self, place: Namespace, config: RunnableConfig) -> Sequence[_Write]:
        if not (writes := self._of(place)):
            return ()
        here, loop = (place, checkpoint_id_of(config)), config["configurable"].get(RUNTIME)
        return [write for write in writes if write.loop is loop and (write.place, write.checkpoint_id) == here]

    def _of(self, place: Namespace) -> Sequence[_Write]:
        if place.thread_id not in self._by_thread:
            return ()
        with self._lock:
            return tuple(self._by_thread.get(place.thread_id, ()))

    def _under_way(self, writes: Sequence[_Write]) -> list[Future[None]]:
        with self._lock:
            return [write.ended() for write in writes if not write.is_over]

    def _begun(self, write: _Write) -> None:
        with self._lock:
            self._by_thread.setdefault(write.place.thread_id, {})[write] = None

    def _ended(self, write: _Write, error: BaseException | None) -> None:
        with self._lock:
            write.is_over, write.error = True, error
            if error is None:
                self._forget(write)
            else:
                self._failed[write] = None
                if len(self._failed) > REMEMBERED:
                    self._forget(next(iter(self._failed)))
        if write.over is not None:
            write.over.set_result(None)

    def _check(self, writes: Sequence[_Write]) -> None:
        failed = [(write, write.error) for write in writes if write.error is not None]
        with self._lock:
            for write, _ in failed:
                self._forget(write)
        for _, error in failed:
            raise error

    def _forget(self, write: _Write) -> None:
        self._failed.pop(write, None)
        writes = self._by_thread.get(write.place.thread_id, {})
        writes.pop(write, None)
        if not writes:
            self._by_thread.pop(write.place.thread_id, None)
