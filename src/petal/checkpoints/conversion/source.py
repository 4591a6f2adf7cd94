"""What a database must offer to be converted, and what a copy of one of its threads promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from petal.checkpoints.langgraph.dialect import Key
from petal.checkpoints.records import Transaction
from petal.checkpoints.threads import ThreadInfo
from petal.errors import CheckpointerError

Tick = Callable[[int], object]
"""Told after each checkpoint how many of these are done."""


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
    order: Sequence[Key]
    """All checkpoints, each after those that it is saved as a change of."""
    head: Key
    """The newest of them, in the root namespace if that has one."""

    def copy(self, change: Transaction, keys: Sequence[Key], tick: Tick) -> None:
        """Write some checkpoints, in their order, and read back all that was written.

        Raises:
            Different: If something is read back that is not what was written.
            CheckpointerError: If something cannot be read or saved.
        """

    def compare(self, change: Transaction, keys: Sequence[Key], tick: Tick) -> None:
        """Read some checkpoints in both places, and change nothing.

        Raises:
            Different: If one is not the same.
            CheckpointerError: If something cannot be read.
        """

    def end(self, change: Transaction, *, copies: bool) -> None:
        """What belongs to no checkpoint is copied, or only compared; and it is seen that the source is as it was.

        Raises:
            Different: If something is not the same.
            CheckpointerError: If the thread was changed meanwhile.
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


def newest(keys: Sequence[Key]) -> Key:
    """The newest of some checkpoints, in the root namespace if that has one."""
    return max([key for key in keys if key[0] == ""] or keys, key=lambda key: key[1], default=("", ""))


def changed(thread_id: str) -> CheckpointerError:
    """What to say of a thread that was used while it was read."""
    return CheckpointerError(
        f"Thread {thread_id!r} was changed while it was converted. Let no agent use the source meanwhile, "
        "and do it again; the thread was not converted whole."
    )
