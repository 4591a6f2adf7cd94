"""What a database must offer to be converted, and what a copy of one of its threads promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from petal.checkpoints.records import Transaction
from petal.checkpoints.threads import ThreadInfo

Tick = Callable[[int], None]
"""Told how many checkpoints of the thread are done."""


class Different(Exception):
    """What lies in the target is not what lies in the source.

    Attributes:
        what: The part that differs, with its thread.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Copying(Protocol):
    """One thread on its way into Petal's tables."""

    fingerprint: str
    """Changes with whatever is saved in the thread."""
    head: tuple[str, str]
    """(namespace, id) of the newest checkpoint, in the root namespace if that has one."""

    def copy(self, change: Transaction, mark: bytes, tick: Tick) -> None:
        """Write the thread, and read back all that was written.

        Args:
            change: Of the target, in which the thread does not exist.
            mark: A label to put on the head.
            tick: Called after each checkpoint.

        Raises:
            Different: If something is read back that is not what was written.
            CheckpointerError: If something cannot be read or saved.
        """

    def compare(self, change: Transaction, tick: Tick) -> None:
        """Read the thread in both places, and change nothing.

        Raises:
            Different: If it is not the same.
            CheckpointerError: If something cannot be read.
        """


class Source(Protocol):
    """A database to convert."""

    def threads(self) -> Iterator[ThreadInfo]:
        """All threads, read page by page."""

    def copying(self, thread: ThreadInfo) -> AbstractContextManager[Copying]:
        """A thread, to be copied within the block."""


def moment(ts: str) -> str:
    """When a checkpoint was made, for the index of threads; "" stands for now where it does not tell."""
    try:
        made = datetime.fromisoformat(ts)
    except ValueError:
        return ""
    return "" if made.tzinfo is None else made.isoformat()
