"""Group commit: what many callers save at once becomes one transaction, written by one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from threading import Condition, Lock, get_ident
from time import sleep
from typing import Any, TypeVar

from petal.checkpoints.records import Save, Store, Transaction
from petal.errors import CheckpointCorruptionError, CheckpointerUnavailableError, PetalError

T = TypeVar("T")

QUEUED_BYTES = 64 * 1024 * 1024
"""Bytes of saves that may wait before a sync caller has to."""
GROUP_BYTES = 8 * 1024 * 1024
GROUP_SAVES = 250
"""What one transaction holds at most. Of more saves each takes longer, and each thread is one of PostgreSQL's locks."""
HANDOVER_SAVES = 24
"""After so many saves an event loop lets the writing thread go on. While the loop computes, that thread gets Python's
lock only at the end of a switch interval, 5 ms: with a hundred agents at once, half of what saving took."""
HANDOVER = 0.0001
"""Seconds for which it does. Twice as long, after 16 saves, took some 8 % of the turns of threads that compute."""
LINGER = 0.001
"""Seconds. Behind what a task wrote mostly comes the checkpoint that holds it, and behind a run's input its first step,
which then shares its transaction."""


@dataclass(slots=True, eq=False)
class _Entry:
    work: Save | Callable[[Transaction], Any] | None
    """A save, a change, or None for what only waits for its turn."""
    answer: Future[Any] | asyncio.Future[Any]
    size: int = 0
    value: Any = None
    error: BaseException | None = None


class Journal:
    """Writes to a store in the order of submission: consecutive saves together, a change alone.

    A save for which an immediate store has nothing to wait is written by its caller's thread, without a detour.

    An answer comes when the work is durable. A save that fails does so alone: its group is rolled back, and
    each is tried by itself. Where the storage itself fails, all that waited for that transaction fail, each with
    an error of its own. Work that was submitted is done, even if nobody waits for it any more.

    The thread is one of the standard library's executor: it starts with the first work, an idle one never keeps
    the process alive, and at the end of the process it finishes what is queued.

    Args:
        store: Where it writes.
        seal: What is done to the saves of one transaction before, all or none, on the journal's thread. Threads that
            encode are not held up by it, and a group is compressed at once.
        limit: Bytes of saves that may wait before a sync caller has to.
        linger: Seconds that saves wait behind which another one mostly comes.

    Attributes:
        commits: Transactions that were written.
        saves: Saves that were written by them.
    """

    def __init__(
        self,
        store: Store,
        seal: Callable[[Sequence[Save]], object] = lambda saves: None,
        *,
        limit: int = QUEUED_BYTES,
        linger: float = LINGER,
    ) -> None:
        self.commits = self.saves = 0
        self._store, self._seal = store, seal
        self._limit, self._linger = limit, linger
        self._state = Condition(Lock())
        self._queue: deque[_Entry] = deque()
        self._waiting = 0  # bytes that are queued or being written
        self._unhanded = 0  # saves of event loops since one let the thread go on
        self._writer: int | None = None
        self._used = self._busy = self._lingers = self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="petal-journal")

    @property
    def is_here(self) -> bool:
        """Whether the caller is the thread that writes."""
        return self._writer == get_ident()

    @property
    def is_used(self) -> bool:
        """Whether anything was ever submitted."""
        return self._used

    def submit(self, save: Save) -> Future[None]:
        """Queue a save; blocks while too many bytes are queued.

        Raises:
            CheckpointerUnavailableError: If the journal is closed.
        """
        return self._promised(save, save.size)

    def asubmit(self, save: Save) -> asyncio.Future[None]:
        """Write a save; it is durable when the answer comes.

        The loop never waits for the storage. All its callers whose saves became durable together are woken together.

        Raises:
            CheckpointerUnavailableError: If the storage cannot be written to, or the journal is closed.
        """
        return self._awaited(save, save.size)

    def change(self, work: Callable[[Transaction], T]) -> Future[T]:
        """Queue a transaction of its own; the answer is what `work` returns.

        Raises:
            CheckpointerUnavailableError: If the journal is closed.
        """
        return self._promised(work)

    def begin(self, work: Save | Callable[[Transaction], Any]) -> Future[Any]:
        """As `submit` or `change`, but it never blocks.

        Raises:
            CheckpointerUnavailableError: If the journal is closed.
        """
        return self._promised(work, waits=False)

    def achange(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """As `change`, for an event loop."""
        return self._awaited(work)

    def flush(self) -> None:
        """Wait until all that was submitted is done."""
        self._promised(None).result()

    def close(self) -> None:
        """Finish what is queued, and take no more. Closing twice is fine."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._thread.shutdown(wait=not self.is_here)  # which cannot wait for its own end

    def _promised(self, work: Any, size: int = 0, *, waits: bool = True) -> Future[Any]:
        answer: Future[Any] = Future()
        answer.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        entry = _Entry(work, answer, size)
        if not self._is_done_at_once(entry):
            with self._state:
                if waits:
                    self._state.wait_for(
                        lambda: self._closed or not self._waiting or self._waiting + size <= self._limit
                    )
                self._enqueue(entry)
        return answer

    def _awaited(self, work: Any, size: int = 0) -> asyncio.Future[Any]:
        # An async caller holds its save until it is durable anyway, so there is nothing to gain by not queueing it.
        answer = asyncio.get_running_loop().create_future()
        entry = _Entry(work, answer, size)
        if self._is_done_at_once(entry):
            return answer
        with self._state:
            self._enqueue(entry)
            self._unhanded += 1
            if hands_over := self._unhanded >= HANDOVER_SAVES:
                self._unhanded = 0
        if hands_over:
            _hand_over()
        return answer

    def _is_done_at_once(self, entry: _Entry) -> bool:
        """Whether it was a save that nothing is queued before, and has been written."""
        if not self._store.is_immediate or not isinstance(entry.work, Save):
            return False
        with self._state:
            if self._busy or self._closed:
                return False
            self._used = True
        self._save([entry])
        _settle(entry)
        return True

    def _enqueue(self, entry: _Entry) -> None:
        if self._closed:
            raise CheckpointerUnavailableError.closed(self._store.where)
        if not self._busy:
            try:
                self._thread.submit(self._work_off)
            except RuntimeError as error:  # the interpreter is ending
                raise CheckpointerUnavailableError.closed(self._store.where) from error
            self._busy = self._used = True
        self._queue.append(entry)
        self._waiting += entry.size
        if self._lingers:
            self._state.notify_all()

    def _work_off(self) -> None:
        self._writer = get_ident()
        while group := self._taken():
            match group[0].work:
                case Save():
                    self._save(group)
                case None:
                    pass
                case work:
                    self._change(group[0], work)
            with self._state:
                self._waiting -= sum(entry.size for entry in group)
                self._state.notify_all()
            _answer(group)
            del group  # or its saves were kept until the next ones come
        self._writer = None

    def _taken(self) -> list[_Entry]:
        """The next work: as many saves as may be written together, or one other entry; none if all is done."""
        with self._state:
            if not self._queue:
                self._busy = False
                return []
            if self._is_followed():
                self._lingers = True
                self._state.wait_for(lambda: self._closed or not self._is_followed(), self._linger)
                self._lingers = False
            group = [self._queue.popleft()]
            if isinstance(group[0].work, Save):
                size = group[0].size
                while self._queue and isinstance(self._queue[0].work, Save) and len(group) < GROUP_SAVES:
                    if (size := size + self._queue[0].size) > GROUP_BYTES:
                        break
                    group.append(self._queue.popleft())
            return group

    def _is_followed(self) -> bool:
        """Whether more mostly comes behind what is queued: what a task wrote, or an input, with or without START's."""
        first, *others = [entry.work for entry in islice(self._queue, 3)]
        if not others:
            return _is_writes(first) or _is_ahead(first)
        return len(others) == 1 and _is_ahead(first) and _is_writes(others[0])

    def _save(self, group: Sequence[_Entry], *, sealed: bool = False) -> None:
        saves = [entry.work for entry in group if isinstance(entry.work, Save)]
        try:
            if not sealed:
                self._seal(saves)
                sealed = True
            self._store.commit(saves)
        except BaseException as error:
            failed = self._failure(error)
            if len(group) == 1 or isinstance(failed, CheckpointerUnavailableError | CheckpointCorruptionError):
                for entry in group:
                    entry.error = self._failure(error)
            else:
                for entry in group:
                    self._save([entry], sealed=sealed)
        else:
            self.commits += 1
            self.saves += len(group)

    def _change(self, entry: _Entry, work: Callable[[Transaction], Any]) -> None:
        try:
            with self._store.transaction() as transaction:
                entry.value = work(transaction)
        except BaseException as error:
            entry.error = self._failure(error)
        else:
            self.commits += 1

    def _failure(self, error: BaseException) -> BaseException:
        """What to tell a caller: the typed error, new each time, since each is raised in a thread of its own."""
        if isinstance(error, PetalError) or not isinstance(error, Exception):
            return error
        if (typed := self._store.translated(error)) is None:
            return error
        typed.__cause__ = error
        return typed


def _hand_over() -> None:
    """Let the threads that wait for Python's lock have it."""
    sleep(HANDOVER)


def _is_writes(work: object) -> bool:
    return isinstance(work, Save) and work.checkpoint is None and work.turn is None


def _is_ahead(work: object) -> bool:
    return isinstance(work, Save) and work.is_ahead


def _answer(group: Sequence[_Entry]) -> None:
    """Wakes all who wait for these entries, those of one event loop by one call into it."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Entry]] = {}
    for entry in group:
        if isinstance(entry.answer, asyncio.Future):
            by_loop.setdefault(entry.answer.get_loop(), []).append(entry)
        else:
            _settle(entry)
    for loop, entries in by_loop.items():
        # A closed loop takes no call. Whoever waited went with it; the work is done all the same.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake, entries)


def _wake(entries: Sequence[_Entry]) -> None:
    for entry in entries:
        if not entry.answer.done():  # a cancelled one is
            _settle(entry)


def _settle(entry: _Entry) -> None:
    if entry.error is None:
        entry.answer.set_result(entry.value)
    else:
        entry.answer.set_exception(entry.error)
        entry.error = None  # else the error, its traceback and the entry hold each other
