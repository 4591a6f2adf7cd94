"""A cache that is bounded in bytes: what was not used for long goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=tuple[Hashable, ...])
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Values by key, together no larger than a limit.

    Args:
        limit: Bytes at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
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
            return found[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep a value in the place of the key's last one.

        Args:
            key: The key.
            value: The value; one that is larger than the limit is not kept, and then nothing else goes for it.
            weight: How many bytes it takes, its key not counted.
        """
        weight += OVERHEAD
        with self._lock:
            if (gone := self._entries.pop(key, None)) is not None:
                self._size -= gone[1]
            if weight > self.limit:
                return
            self._entries[key] = value, weight
            self._size += weight
            while self._size > self.limit:
                self._size -= self._entries.popitem(last=False)[1][1]

    def forget(self, first: Hashable) -> None:
        """Drop all whose key begins with this."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == first]:
                self._size -= self._entries.pop(key)[1]


OVERHEAD = 600
"""Bytes that Python needs for an entry and its key."""
