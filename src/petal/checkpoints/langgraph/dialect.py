"""What a storage must offer to the adapter: the shape of a dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from petal.checkpoints.threads import ThreadInfo
from petal.errors import CheckpointerError

Key = tuple[str, str]
"""A checkpoint within its thread: (namespace, checkpoint id)."""


class Row(NamedTuple):
    """A checkpoint without its values: what decides which ones to keep."""

    ns: str
    id: str
    parent: str | None
    root: str | None
    """For a subgraph's checkpoint, the root graph's checkpoint that its call started from."""
    run_id: str | None
    delta: bool
    """Whether its delta channels are rebuilt from older checkpoints."""
    sends: bool = False
    """Whether it reads pending sends from its parent, as formats before the fourth do."""

    @property
    def key(self) -> Key:
        return self.ns, self.id


class Outlined(NamedTuple):
    """A checkpoint as a listing tells of it, without its values."""

    ns: str
    id: str
    parent: str | None
    metadata: Mapping[str, Any]


class Written(NamedTuple):
    """That a task wrote something: enough to see whether anything was written since."""

    ns: str
    checkpoint_id: str
    """Of the checkpoint that the write waits at, which may not be there."""
    task_id: str
    idx: int
    size: int
    """Bytes of the value."""


class Pending(NamedTuple):
    """One pending write as it is stored."""

    task_id: str
    idx: int
    channel: str
    task_path: str
    value: tuple[str, bytes]
    """For the serializer: how it was written, and the bytes."""


class Noted(NamedTuple):
    """One pending write to a certain channel, with the checkpoint that it waits at."""

    ns: str
    checkpoint_id: str
    task_id: str
    value: tuple[str, bytes]


class Transaction(Protocol):
    """Changes that happen all together or not at all."""

    def rows(self, thread_id: str) -> list[Row]:
        """Every checkpoint of a thread, in no order."""

    def occupied(self, thread_id: str) -> bool:
        """Whether the thread holds any checkpoint or write."""

    def copy(self, source: str, target: str) -> None:
        """Copies all that a thread holds."""

    def graft(self, source: str, target: str, checkpoints: Sequence[Key], writes: Sequence[Key]) -> None:
        """Copies some checkpoints, and the pending writes of some."""

    def delete(self, thread_id: str, checkpoints: Sequence[Key], orphans: Sequence[Key]) -> None:
        """Deletes checkpoints with all that only they use; `orphans` stay, without a parent."""

    def clear(self, thread_ids: Sequence[str]) -> None:
        """Deletes all that the threads hold."""

    def threads_of(self, run_ids: Sequence[str]) -> list[str]:
        """The threads in which any of the runs saved a checkpoint."""


class Dialect(Protocol):
    """One kind of storage: how to open it, what to ask it, and what its errors mean."""

    where: str
    """The storage as a URL, without any password."""
    in_memory: bool
    """Whether it lies in this process, so that a process that forks from it has one of its own."""
    workers: int
    """How many operations can make progress at once."""

    @property
    def is_open(self) -> bool:
        """Whether it holds connections that must be closed."""

    def open(self) -> None:
        """Connects and makes the tables; called once, and again only if it failed."""

    def close(self) -> None:
        """Closes all connections; no operation is running, and none will follow."""

    def saver(self, serde: SerializerProtocol) -> AbstractContextManager[BaseCheckpointSaver[str]]:
        """LangGraph's saver for the length of one operation."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Committed at the end of the block, rolled back if it raises."""

    def heads(self, limit: int, before: ThreadInfo | None) -> list[ThreadInfo]:
        """Threads by their newest root checkpoint, newest first, those older than `before`."""

    def rows(self, thread_id: str) -> list[Row]:
        """Every checkpoint of a thread, in no order."""

    def outlined(self, thread_id: str) -> list[Outlined]:
        """Every checkpoint of a thread with its metadata, in no order; no value is read."""

    def noted(self, thread_id: str, channel: str) -> list[Noted]:
        """Every pending write of a thread to a channel, in no order."""

    def written(self, thread_id: str) -> list[Written]:
        """Every pending write of a thread, in no order."""

    def pending(self, thread_id: str, ns: str, checkpoint_id: str) -> list[Pending]:
        """The pending writes of a checkpoint, in no order."""

    def translated(self, error: Exception) -> CheckpointerError | None:
        """What an error of the driver means, or None if it is not one of the driver's."""

    def recovered(self, error: Exception, *, repeatable: bool) -> bool:
        """Whether the operation that failed should be tried once more.

        Args:
            error: What it raised.
            repeatable: Whether doing it twice is the same as doing it once.
        """
