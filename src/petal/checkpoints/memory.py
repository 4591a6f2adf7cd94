"""The store in this process's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TypeVar

from petal.checkpoints.memory_rows import MemoryReader, MemoryTransaction, Tables
from petal.checkpoints.records import Glimpse, Head, Reader, Save, Transaction, WouldWaitError
from petal.errors import CheckpointerUnavailableError

T = TypeVar("T")


class MemoryStore:
    """State in this process, gone when all that opened it have closed it.

    There is one lock. A reader holds it until its block ends, so what writes in the meantime waits.
    """

    where = "memory://"
    readers = 1
    is_immediate = True

    def __init__(self) -> None:
        self._lock = RLock()
        self._rows: Tables | None = None
        self._users = 0

    def open(self) -> None:
        with self._lock:
            self._users += 1
            self._rows = self._rows or Tables()

    def close(self) -> None:
        with self._lock:
            self._users = max(0, self._users - 1)
            if not self._users:
                self._rows = None

    def commit(self, saves: Sequence[Save]) -> None:
        with self._lock, MemoryTransaction(self._tables()) as transaction:
            for save in saves:
                transaction.save(save)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._lock, MemoryTransaction(self._tables()) as transaction:
            yield transaction

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with self._lock:
            yield MemoryReader(self._tables())

    def read(self, ask: Callable[[Reader], T]) -> T:
        with self._lock:
            return ask(MemoryReader(self._tables()))

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        return self.read(lambda reader: reader.heads(places))

    def glance(self, place: tuple[str, str]) -> Glimpse | None:
        if not self._lock.acquire(blocking=False):
            raise WouldWaitError
        try:
            found = self.heads([place]).get(place)
            if found is None:
                return None
            row, writes = found
            return Glimpse(row.id, row.name, row.parent_id, row.run_id, has_writes=bool(writes))
        finally:
            self._lock.release()

    def translated(self, error: Exception) -> Exception | None:
        return None

    def _tables(self) -> Tables:
        if self._rows is None:
            raise CheckpointerUnavailableError.closed(self.where)
        return self._rows
