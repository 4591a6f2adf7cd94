"""The rows that hold state, and what a storage must do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, NamedTuple, Protocol

from petal.checkpoints.threads import ThreadInfo, ThreadQuery

Status = Literal["done", "unfinished", "waiting", "failed"]
"""What a thread's newest checkpoint says: nothing is left to do, steps are, a question is open, a step raised."""
NOTES = "__petal_"
"""How the names of the channels begin to which Petal itself writes."""

_DATA = attrgetter("data")


@dataclass(slots=True)
class CheckpointRow:
    """One checkpoint without its values."""

    thread_id: str
    ns: str
    id: str
    parent_id: str | None
    source: str
    """`metadata["source"]`, or "" where it has none."""
    step: int | None
    run_id: str | None
    header: bytes
    """Sealed: versions of the channels, where their values begin, what each node has seen."""
    metadata: bytes
    """Sealed."""
    name: str = ""
    """Names this save of the checkpoint, which may be saved again with its values in other rows."""
    labels: tuple[bytes, ...] = ()
    """A keyed hash of each further scalar of the metadata, by which it can be found."""


@dataclass(slots=True)
class ValueRow:
    """One version of one channel's value: a whole, or what changed since another version."""

    thread_id: str
    ns: str
    channel: str
    root: str
    """The row of the whole that the chain of changes begins with; a whole names itself."""
    version: str
    """Names the row among those of its channel. A row is written once: whatever has its name holds the same."""
    data: bytes
    """Sealed."""


@dataclass(slots=True)
class WriteRow:
    """One pending write of a task."""

    thread_id: str
    ns: str
    checkpoint_id: str
    task_id: str
    idx: int
    """Position among the task's writes; below zero for LangGraph's special ones, of which the last counts."""
    channel: str
    task_path: str
    data: bytes
    """Sealed."""


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One run that has a thread, or waits for it."""

    thread_id: str
    owner: str
    """Names the run's claim."""
    process: str
    """Who keeps it alive."""
    run_id: str
    """What the metadata of the run's checkpoints says of it."""
    is_urgent: bool = False
    """Whether it goes before those that only wait."""
    holds: bool = False
    """Whether it has the thread; else it waits."""
    wish: str = ""
    """What another run asks of it."""
    is_alive: bool = True
    """Whether its process was heard of lately, by the database's clock."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run comes in: it has the thread if nobody else is there, else it waits."""

    thread_id: str
    owner: str
    process: str
    run_id: str
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class Release:
    """A run is done with a thread, or waits no longer."""

    thread_id: str
    owner: str
    input_id: str = ""
    """Where its input was kept meanwhile: the id of no checkpoint, whose writes are deleted too."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A process is alive."""

    process: str
    seconds: float
    """For how long it is believed."""


Turn = Claim | Release | Beat


@dataclass(slots=True)
class Save:
    """The rows of one save: all of them are durable, or none."""

    checkpoint: CheckpointRow | None = None
    values: Sequence[ValueRow] = ()
    writes: Sequence[WriteRow] = ()
    status: Status | None = None
    """The thread's status after it; None leaves it."""
    now: str = ""
    """ISO 8601 UTC time of the save."""
    leans: str | None = None
    """The name of that save of the parent which it was made to follow: without it, it must not be written."""
    told: str = ""
    """What the status is told of: of two, the one with the greater text counts, whichever is written first. It is the
    checkpoint's id, and that with a + for what its tasks wrote, which LangGraph may save before the checkpoint."""

    fenced: bool = False
    """Whether its checkpoint must follow on the newest one of its namespace, unless what it follows on was deleted."""
    lease: str | None = None
    """The claim without which it must not be written: that of its run, which must have the thread."""
    turn: Turn | None = None
    """What it changes of who has which thread; such a save has no rows."""
    is_ahead: bool = False
    """Whether it is the input of a run that does not wait for it, but saves its first step behind it at once."""

    @property
    def size(self) -> int:
        """Bytes of the sealed data."""
        size = sum(map(len, map(_DATA, self.values))) + sum(map(len, map(_DATA, self.writes)))
        if (row := self.checkpoint) is not None:
            size += len(row.header) + len(row.metadata)
        return size


Head = tuple[CheckpointRow, list[WriteRow]]
"""The newest checkpoint of a namespace, and its pending writes ordered by (task_path, task_id, idx)."""


class Glimpse(NamedTuple):
    """Which checkpoint is the newest of a namespace, without anything that is sealed."""

    id: str
    name: str
    parent_id: str | None
    run_id: str | None
    has_writes: bool
    """Whether there are pending writes."""


@dataclass(frozen=True, slots=True)
class CheckpointQuery:
    """Which checkpoints to read, newest first; None means any."""

    thread_id: str | None = None
    ns: str | None = None
    id: str | None = None
    before: str | None = None
    """Only ids below this one."""
    source: str | None = None
    step: int | None = None
    run_id: str | None = None
    labels: tuple[tuple[bytes, ...], ...] = ()
    """Only those that have, of each of these groups, at least one label; of an empty group nothing has one."""
    after: tuple[str, str, str] | None = None
    """(id, thread_id, ns) of the last one of the page before."""
    limit: int = 50


def heads_of(rows: Iterable[tuple[Any, ...]]) -> dict[tuple[str, str], Head]:
    """Heads from rows with the columns of checkpoints; the writes of each come after it and have no name."""
    heads: dict[tuple[str, str], Head] = {}
    for row in rows:
        thread_id, ns, id, name = row[0], row[1], row[2], row[9]
        if name is not None:
            heads[thread_id, ns] = CheckpointRow(*row), []
        else:
            task_id, channel, idx, task_path, data = row[3:8]
            write = WriteRow(thread_id, ns, id, task_id, idx, channel, task_path, data)
            heads[thread_id, ns][1].append(write)
    for _, writes in heads.values():
        writes.sort(key=lambda write: (write.task_path, write.task_id, write.idx))
    return heads


class OrphanedSave(Exception):
    """The parent that a save leans on is gone: somebody deleted it after it was looked at."""


class WouldWaitError(Exception):
    """The storage cannot be looked at without waiting."""


class StaleSave(Exception):
    """Another run came between.

    Args:
        lost: Whether the run that saves does not have the thread any more; else another one saved a checkpoint first.
    """

    def __init__(self, *, lost: bool = False) -> None:
        super().__init__(lost)
        self.lost = lost


class Reader(Protocol):
    """Reads rows. Each call sees all that was committed before it."""

    def checkpoint(self, thread_id: str, ns: str, id: str | None) -> CheckpointRow | None:
        """One checkpoint, or the newest of the namespace. `labels` may be left empty."""
        ...

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        """The newest checkpoint of each (thread_id, ns) that has one, with its pending writes; all of one moment."""
        ...

    def checkpoints(self, query: CheckpointQuery) -> list[CheckpointRow]:
        """A page, ordered by (id, thread_id, ns), all descending. `labels` may be left empty."""
        ...

    def chains(self, thread_id: str, ns: str, chains: Sequence[tuple[str, str]]) -> list[ValueRow]:
        """All rows of some (channel, root) chains, in no order."""
        ...

    def values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> list[ValueRow]:
        """The rows of some (channel, version), in no order; those that there are not are left out."""
        ...

    def writes(self, thread_id: str, ns: str, checkpoint_ids: Sequence[str]) -> list[WriteRow]:
        """The pending writes of checkpoints, ordered by (checkpoint_id, task_path, task_id, idx)."""
        ...

    def notes(self, thread_id: str, channel: str) -> list[WriteRow]:
        """All writes of a thread to one of the channels whose names begin as `NOTES` says, ordered as `writes` are."""
        ...

    def strays(self, thread_id: str) -> list[WriteRow]:
        """All writes of a thread to checkpoints that are not there, ordered by (ns, …) as `writes` are."""
        ...

    def threads(self, query: ThreadQuery) -> list[ThreadInfo]:
        """A page of the index of threads."""
        ...

    def leases(self, thread_id: str) -> list[LeaseRow]:
        """Who has a thread, then who waits for it, in the order in which they get it."""
        ...

    def wishes(self, process: str) -> list[LeaseRow]:
        """Of the claims of a process those of which something is asked."""
        ...


class Transaction(Reader, Protocol):
    """Reads and changes rows, all or nothing."""

    def save(self, save: Save) -> None:
        """Write the rows of one save; a checkpoint, value or special write that is there already is replaced,
        an ordinary write is kept as it was first. The thread's index entry follows.

        Raises:
            OrphanedSave: If the save leans on a parent that is not there.
            StaleSave: If it is fenced and its parent is not the newest checkpoint, or its run lost the lease.
        """
        ...

    def grant(self, lease: LeaseRow) -> None:
        """Give a thread to a claim that waits for it."""
        ...

    def ask(self, lease: LeaseRow, wish: str) -> None:
        """Ask something of the run of a claim."""
        ...

    def revoke(self, lease: LeaseRow) -> None:
        """Delete a claim."""
        ...

    def claim(self, task: str) -> bool:
        """Whether this transaction does a task alone until it ends; false if another one is at it, in any process."""
        ...

    def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces in which a thread has checkpoints."""
        ...

    def all_values(self, thread_id: str, ns: str) -> list[ValueRow]:
        """Every value row of a namespace."""
        ...

    def labels(self, thread_id: str, ns: str, id: str) -> tuple[bytes, ...]:
        """The labels of a checkpoint."""
        ...

    def threads_of_runs(self, run_ids: Sequence[str]) -> list[tuple[str, str, str]]:
        """(thread_id, ns, id) of each checkpoint of some runs."""
        ...

    def delete_thread(self, thread_id: str) -> None:
        """Delete all rows of a thread, and its index entry."""
        ...

    def delete_checkpoints(self, thread_id: str, ns: str, ids: Sequence[str]) -> None:
        """Delete checkpoints with their writes and labels, not their values."""
        ...

    def delete_values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> None:
        """Delete the value rows of some (channel, version). The thread's index entry loses their size."""
        ...

    def recount(self, thread_id: str) -> None:
        """Make the thread's index entry anew from its rows; without checkpoints it goes."""
        ...


class Store(Protocol):
    """One storage: SQL and connections, nothing else. Methods block; each may be called from any thread."""

    where: str
    """As a URL, without any password."""
    readers: int
    """How many reads at once are worth while."""
    is_immediate: bool
    """Whether a save is written in no time, since no disk and no network has a part in it."""

    def open(self) -> None:
        """Connect, and bring the tables to this version.

        Raises:
            CheckpointerUnavailableError: If it cannot be reached or used.
            CheckpointCorruptionError: If it is no database, or damaged.
            CheckpointerError: If it was written by a newer Petal.
        """
        ...

    def close(self) -> None:
        """Close all connections. Never raises."""
        ...

    def commit(self, saves: Sequence[Save]) -> None:
        """Write all of these in one durable transaction, or none of them. Only the journal calls this, and from one
        thread alone if the store is not immediate.

        Raises:
            OrphanedSave: If one of them leans on a parent that is not there.
            StaleSave: If one of them is fenced and its parent is not the newest checkpoint, or its run lost the lease.
        """
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """One durable transaction, rolled back if its block raises. Only the journal calls this."""
        ...

    def reader(self) -> AbstractContextManager[Reader]:
        """A consistent view for several reads; no lock is held that a writer waits for."""
        ...

    def read(self, ask: Callable[[Reader], Any]) -> Any:
        """`ask(reader)`, tried once more on another connection if the first one was lost."""
        ...

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        """As a reader's `heads`, tried once more on another connection if the first one was lost."""
        ...

    def glance(self, place: tuple[str, str]) -> Glimpse | None:
        """Which checkpoint of a (thread_id, ns) is the newest, on an event loop: it waits for nobody and no network.

        Raises:
            WouldWaitError: If it would have to.
        """
        ...

    def translated(self, error: Exception) -> Exception | None:
        """The typed error that a driver's error stands for; None if it is not the storage's fault."""
        ...
