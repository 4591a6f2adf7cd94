"""A store in use: opened once, read by many, written by its journal, closed once."""

from __future__ import annotations

import asyncio
import logging
import warnings
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from threading import Event, Lock, Thread
from typing import TypeVar

from petal.checkpoints.gathering import AskAloneError, Gathering
from petal.checkpoints.journal import Journal
from petal.checkpoints.records import Glimpse, Head, Reader, Save, Store, Transaction, WouldWaitError
from petal.core import forks
from petal.errors import CheckpointerUnavailableError, PetalError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Engine:
    """Runs reads on the caller's thread or a worker, and saves through the journal.

    Nothing is opened before the first use. A forgotten engine closes its store, with a ResourceWarning, and
    keeps no process alive. An open one stays with its process: one that forks is refused it, unless it is in memory.

    Args:
        store: Where it is kept.
        seal: What is done to saves before they are.
    """

    def __init__(self, store: Store, seal: Callable[[Sequence[Save]], object]) -> None:
        self.store = store
        self._seal = seal
        self._state = "new"
        self._equip()

    @property
    def is_open(self) -> bool:
        """Whether the store can be used without being opened first."""
        return self._state == "open"

    def read(self, ask: Callable[[Reader], T]) -> T:
        """What `ask` reads, from one consistent view."""
        self._open()
        try:
            found: T = self.store.read(ask)
        except PetalError:
            raise
        except Exception as error:
            if (typed := self.store.translated(error)) is None:
                raise
            raise typed from error
        return found

    async def aread(self, ask: Callable[[Reader], T]) -> T:
        """As `read`, on a worker thread."""
        return await self.later(lambda: self.read(ask))

    def glance(self, place: tuple[str, str]) -> Glimpse | None:
        """Which checkpoint of a (thread_id, ns) is the newest, on an event loop.

        Raises:
            WouldWaitError: If the loop would wait for it.
        """
        if self._state != "open":
            raise WouldWaitError
        return self.store.glance(place)

    async def head(self, place: tuple[str, str]) -> Head | None:
        """The newest checkpoint of a (thread_id, ns), by less than a worker thread of its own.

        Raises:
            WouldWaitError: If it cannot be had in this way. A read then says why, if something is wrong.
        """
        if self._state != "open":
            raise WouldWaitError
        try:
            return await self._heads.answer(place)
        except (AskAloneError, RuntimeError) as error:
            raise WouldWaitError from error

    async def later(self, act: Callable[[], T]) -> T:
        """Do it on a worker thread, in the caller's context."""
        try:
            answer = asyncio.get_running_loop().run_in_executor(self._workers, copy_context().run, act)
        except RuntimeError as error:  # they take no more once it is being closed, or the interpreter is ending
            raise CheckpointerUnavailableError.closed(self.store.where) from error
        return await answer

    def save(self, save: Save) -> None:
        """Write rows; they are durable when this returns."""
        self._open()
        self.journal.submit(save).result()

    def begin_save(self, save: Save) -> Future[None]:
        """As `save`; they are durable when the answer comes."""
        self._open()
        return self.journal.begin(save)

    def asave(self, save: Save) -> Awaitable[None]:
        """As `save`. It is completed even if the caller is cancelled."""
        return self.journal.asubmit(save) if self._state == "open" else self.later(lambda: self.save(save))

    def change(self, work: Callable[[Transaction], T]) -> T:
        """What `work` returns after its transaction is durable."""
        self._open()
        return self.journal.change(work).result()

    def begin(self, work: Callable[[Transaction], object]) -> None:
        """Have a transaction done for which nobody waits. Where it fails, that is logged, and the next one mends it."""
        with suppress(CheckpointerUnavailableError):  # it was closed in between
            self.journal.begin(work).add_done_callback(self._told)

    def post(self, save: Save, then: Callable[[BaseException | None], object]) -> None:
        """Have a save written for which nobody waits.

        Args:
            save: The save.
            then: Called with what went wrong, or None, on another thread or at once.
        """
        try:
            self.journal.begin(save).add_done_callback(lambda done: then(done.exception()))
        except CheckpointerUnavailableError:  # it was closed in between
            then(None)

    def _told(self, done: Future[object]) -> None:
        if (error := done.exception()) is not None:
            _log.warning("%s: putting rows together failed, and will be tried again: %s", self.store.where, error)

    def forked(self) -> None:
        """Leave the store to the process that opened it, which this one forked from."""
        if self._state == "open":
            self._forgotten.detach()
            self._equip()
            if self.store.is_immediate:
                self._opened.set()
            else:
                self._state = "forked"
                self.journal.close()

    def close(self) -> None:
        """Finish what was begun, then close the store. Closing twice is fine."""
        self._workers.shutdown()
        with self._lock:
            if self._state in ("closed", "forked"):
                return
            opened, self._state = self._state == "open", "closed"
            self._forgotten.detach()
            self.journal.close()
            if opened:
                self.store.close()

    def _open(self) -> None:
        if self._state == "open":
            return
        with self._lock:
            if self._state == "closed":
                raise CheckpointerUnavailableError.closed(self.store.where)
            if self._state == "forked":
                raise CheckpointerUnavailableError.forked(self.store.where)
            if self._state == "new":
                self.store.open()
                self._opened.set()
                self._state = "open"
                forks.tell(self)

    def _equip(self) -> None:
        """Have threads, which start when they are needed."""
        self._lock = Lock()
        self._opened = Event()
        self.journal = Journal(self.store, self._seal)
        self._workers = ThreadPoolExecutor(self.store.readers, thread_name_prefix="petal-read")
        self._heads = Gathering(self.store.heads, self._workers)
        self._forgotten = weakref.finalize(self, _forget, self.store, self.journal, self._workers, self._opened)


def _forget(store: Store, journal: Journal, workers: ThreadPoolExecutor, opened: Event) -> None:
    workers.shutdown(wait=False)
    if opened.is_set():
        if journal.is_here:  # amid whatever it was at when the collector ran, which must end first
            Thread(target=_close, args=(store, journal), name="petal-close").start()
        else:
            _close(store, journal)
        warnings.warn(
            f"unclosed checkpointer {store.where}; use it in a with block or call close()",
            ResourceWarning,
            stacklevel=2,
        )


def _close(store: Store, journal: Journal) -> None:
    journal.close()
    store.close()
