"""A cache that is bounded in bytes: what was not used for long goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=tuple[Hashable, ...])
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Values by key, together no larger than a limit.

    Args:
        limit: Bytes at most.
        weigh: How many bytes a value takes, its key not counted; it is asked again when that goes.
    """

    def __init__(self, limit: int, weigh: Callable[[V], int]) -> None:
        self._limit = limit
        self._weigh = weigh
        self._size = 0
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def get(self, key: K) -> V | None:
        """The value, if it is here."""
        with self._lock:
            if (found := self._entries.get(key)) is None:
                return None
            self._entries.move_to_end(key)
            return found

    def put(self, key: K, value: V) -> None:
        """Keep a value in the place of the key's last one."""
        weight = self._weigh(value) + _OVERHEAD
        with self._lock:
            self._drop(key)
            self._entries[key] = value
            self._size += weight
            while self._size > self._limit and self._entries:
                self._drop(next(iter(self._entries)))

    def forget(self, first: Hashable) -> None:
        """Drop all whose key begins with this."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == first]:
                self._drop(key)

    def _drop(self, key: K) -> None:
        if (gone := self._entries.pop(key, None)) is not None:
            self._size -= self._weigh(gone) + _OVERHEAD


_OVERHEAD = 600
"""Bytes that Python needs for an entry and its key."""
