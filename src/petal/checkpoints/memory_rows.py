"""Rows in memory: dicts, sorted lists, and an undo log for their changes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from operator import delitem, setitem
from typing import Any, Self, TypeVar

from petal.checkpoints.fence import require_next
from petal.checkpoints.records import (
    Beat,
    CheckpointQuery,
    CheckpointRow,
    Claim,
    Head,
    LeaseRow,
    OrphanedSave,
    Release,
    Save,
    StaleSave,
    Turn,
    ValueRow,
    WriteRow,
)
from petal.checkpoints.threads import ThreadInfo, ThreadQuery, made_at

K = TypeVar("K")
V = TypeVar("V")

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Thread:
    """The rows of one thread."""

    checkpoints: dict[tuple[str, str], CheckpointRow] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    """By namespace, sorted."""
    values: dict[tuple[str, str, str], ValueRow] = field(default_factory=dict)
    chains: dict[tuple[str, str, str], dict[str, ValueRow]] = field(default_factory=dict)
    """The same, by (namespace, channel, root) and version."""
    writes: dict[tuple[str, str], dict[tuple[str, int], WriteRow]] = field(default_factory=dict)
    """By (namespace, checkpoint id), then by (task id, index)."""


@dataclass(slots=True)
class Tables:
    """The rows of all threads."""

    threads: dict[str, _Thread] = field(default_factory=dict)
    newest: list[tuple[str, str, str]] = field(default_factory=list)
    """(id, thread_id, ns) of every checkpoint, sorted."""
    index: dict[str, ThreadInfo] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    """What the status of each entry was told of."""
    order: list[tuple[datetime, str]] = field(default_factory=list)
    """(updated, thread_id) of every entry of the index, sorted."""
    leases: dict[str, dict[str, LeaseRow]] = field(default_factory=dict)
    """By thread, then by owner in the order of arrival."""


class MemoryReader:
    """Reads rows; the store's lock is held."""

    def __init__(self, rows: Tables) -> None:
        self._rows = rows

    def checkpoint(self, thread_id: str, ns: str, id: str | None) -> CheckpointRow | None:
        thread = self._thread(thread_id)
        if id is None:
            ids = thread.ids.get(ns)
            return thread.checkpoints[ns, ids[-1]] if ids else None
        return thread.checkpoints.get((ns, id))

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        rows = {place: self.checkpoint(*place, None) for place in places}
        return {place: (row, self.writes(*place, [row.id])) for place, row in rows.items() if row is not None}

    def checkpoints(self, query: CheckpointQuery) -> list[CheckpointRow]:
        found = (self._rows.threads[thread_id].checkpoints[ns, id] for id, thread_id, ns in self._newest(query))
        return list(islice((row for row in found if _fits(row, query)), query.limit))

    def chains(self, thread_id: str, ns: str, chains: Sequence[tuple[str, str]]) -> list[ValueRow]:
        thread = self._thread(thread_id)
        return [row for chain in chains for row in thread.chains.get((ns, *chain), {}).values()]

    def values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> list[ValueRow]:
        values = self._thread(thread_id).values
        return [values[ns, channel, version] for channel, version in versions if (ns, channel, version) in values]

    def writes(self, thread_id: str, ns: str, checkpoint_ids: Sequence[str]) -> list[WriteRow]:
        thread = self._thread(thread_id)
        found = [row for id in set(checkpoint_ids) for row in thread.writes.get((ns, id), {}).values()]
        return sorted(found, key=_order)

    def notes(self, thread_id: str, channel: str) -> list[WriteRow]:
        rows = (row for written in self._thread(thread_id).writes.values() for row in written.values())
        return sorted((row for row in rows if row.channel == channel), key=_order)

    def strays(self, thread_id: str) -> list[WriteRow]:
        thread = self._thread(thread_id)
        written = (rows.values() for key, rows in thread.writes.items() if key not in thread.checkpoints)
        return sorted((row for rows in written for row in rows), key=lambda row: (row.ns, *_order(row)))

    def threads(self, query: ThreadQuery) -> list[ThreadInfo]:
        order, index = self._rows.order, self._rows.index
        end = len(order) if query.before is None else bisect_left(order, _age(query.before))
        found = (index[order[at][1]] for at in range(end - 1, -1, -1))
        wanted = (
            info
            for info in found
            if (query.search is None or query.search in info.thread_id)
            and query.status in (None, info.status)
            and query.thread_id in (None, info.thread_id)
        )
        return list(islice(wanted, query.limit))

    def leases(self, thread_id: str) -> list[LeaseRow]:
        owners = self._rows.leases.get(thread_id, {})
        return sorted(owners.values(), key=lambda lease: (not lease.holds, not lease.is_urgent))

    def wishes(self, process: str) -> list[LeaseRow]:
        leases = (lease for owners in self._rows.leases.values() for lease in owners.values())
        return [lease for lease in leases if lease.process == process and lease.wish]

    def _thread(self, thread_id: str) -> _Thread:
        return self._rows.threads.get(thread_id) or _Thread()

    def _newest(self, query: CheckpointQuery) -> Iterator[tuple[str, str, str]]:
        """(id, thread_id, ns) of what may fit a query, in its order, from where it begins."""
        if (thread_id := query.thread_id) is None:
            bounds = [query.after, None if query.before is None else (query.before,)]
            yield from _descending(self._rows.newest, [bound for bound in bounds if bound is not None])
            return
        lists = self._thread(thread_id).ids
        namespaces = lists if query.ns is None else {query.ns} & lists.keys()
        below = [] if query.before is None else [query.before]
        if query.after is not None:
            below.append(query.after[0] + "\0")  # what follows that id, which another namespace may have too
        yield from merge(*(_keyed(_descending(lists[ns], below), thread_id, ns) for ns in namespaces), reverse=True)


class MemoryTransaction(MemoryReader):
    """Changes rows, and undoes that if its block raises; the store's lock is held."""

    def __init__(self, rows: Tables) -> None:
        super().__init__(rows)
        self._undo: list[tuple[Any, ...]] = []
        """Functions with their arguments."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if cls is not None:
            while self._undo:
                act, *arguments = self._undo.pop()
                act(*arguments)

    def save(self, save: Save) -> None:
        now = datetime.fromisoformat(save.now) if save.now else datetime.now(UTC)
        grown: dict[str, int] = {}
        row = save.checkpoint
        if save.turn is not None:
            self._take(save.turn)
        self._require(save)
        if save.leans is not None and row is not None:
            parent = None if row.parent_id is None else self.checkpoint(row.thread_id, row.ns, row.parent_id)
            if parent is None or parent.name != save.leans:
                raise OrphanedSave
        for value in save.values:
            grown[value.thread_id] = grown.get(value.thread_id, 0) + self._value(value)
        for write in save.writes:
            grown[write.thread_id] = grown.get(write.thread_id, 0) + self._write(write)
        if row is not None:
            new, size = self._checkpoint(row)
            self._grow(row.thread_id, save, now, size + grown.pop(row.thread_id, 0), new, row)
        for thread_id, size in grown.items():
            self._grow(thread_id, save, now, size)

    def grant(self, lease: LeaseRow) -> None:
        self._amend(lease, holds=True)

    def ask(self, lease: LeaseRow, wish: str) -> None:
        self._amend(lease, wish=wish)

    def revoke(self, lease: LeaseRow) -> None:
        self._take(Release(lease.thread_id, lease.owner))

    def claim(self, task: str) -> bool:
        return True  # there is one writer at a time

    def namespaces(self, thread_id: str) -> list[str]:
        return sorted(ns for ns, ids in self._thread(thread_id).ids.items() if ids)

    def all_values(self, thread_id: str, ns: str) -> list[ValueRow]:
        return [row for row in self._thread(thread_id).values.values() if row.ns == ns]

    def labels(self, thread_id: str, ns: str, id: str) -> tuple[bytes, ...]:
        row = self.checkpoint(thread_id, ns, id)
        return tuple(sorted(set(row.labels))) if row else ()

    def threads_of_runs(self, run_ids: Sequence[str]) -> list[tuple[str, str, str]]:
        return sorted(
            (thread_id, ns, id)
            for thread_id, thread in self._rows.threads.items()
            for (ns, id), row in thread.checkpoints.items()
            if row.run_id is not None and row.run_id in run_ids
        )

    def delete_thread(self, thread_id: str) -> None:
        for ns, ids in self._thread(thread_id).ids.items():
            for id in ids:
                self._unlist(self._rows.newest, (id, thread_id, ns))
        self._drop(self._rows.threads, thread_id)
        self._drop(self._rows.told, thread_id)
        self._forget(thread_id)

    def delete_checkpoints(self, thread_id: str, ns: str, ids: Sequence[str]) -> None:
        thread = self._thread(thread_id)
        for id in ids:
            self._drop(thread.writes, (ns, id))
            if self._drop(thread.checkpoints, (ns, id)):
                self._unlist(thread.ids[ns], id)
                self._unlist(self._rows.newest, (id, thread_id, ns))

    def delete_values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> None:
        thread, size = self._thread(thread_id), 0
        for row in self.values(thread_id, ns, list(dict.fromkeys(versions))):
            self._drop(thread.values, (ns, row.channel, row.version))
            self._unchain(thread, row)
            size += len(row.data)
        if (info := self._rows.index.get(thread_id)) is not None:
            self._grow(thread_id, Save(), info.updated or _NEVER, -size)

    def recount(self, thread_id: str) -> None:
        thread = self._thread(thread_id)
        ids = sorted(id for ids in thread.ids.values() for id in ids)
        if not ids:
            self._drop(self._rows.told, thread_id)
            self._forget(thread_id)
            return
        lost = ThreadInfo(thread_id, 0, made_at(ids[-1]), "", created=made_at(ids[0]))
        info = replace(
            self._rows.index.get(thread_id, lost),
            checkpoints=len(ids),
            checkpoint_id=max(thread.ids.get("", ()), default=""),
            size=sum(_size(row) for row in thread.checkpoints.values())
            + sum(len(row.data) for row in thread.values.values())
            + sum(len(row.data) for rows in thread.writes.values() for row in rows.values()),
        )
        self._forget(thread_id)
        self._enter(info)

    def _require(self, save: Save) -> None:
        """See that its run has the thread, and that its checkpoint is in turn."""
        row = save.checkpoint
        if save.lease is not None:
            thread_id = row.thread_id if row is not None else save.writes[0].thread_id
            lease = self._rows.leases.get(thread_id, {}).get(save.lease)
            if lease is None or not lease.holds:
                raise StaleSave(lost=True)
        require_next(self, save)

    def _take(self, turn: Turn) -> None:
        if isinstance(turn, Beat):
            return  # there is no other process
        if (owners := self._rows.leases.get(turn.thread_id)) is None:
            owners = {}
            self._put(self._rows.leases, turn.thread_id, owners)
        if isinstance(turn, Claim):
            self._put(
                owners,
                turn.owner,
                LeaseRow(turn.thread_id, turn.owner, turn.process, turn.run_id, turn.is_urgent, holds=not owners),
            )
        else:
            self._drop(owners, turn.owner)
            if not owners:
                self._drop(self._rows.leases, turn.thread_id)
            if turn.input_id:
                self._forget_input(turn)

    def _forget_input(self, turn: Release) -> None:
        writes = self._thread(turn.thread_id).writes
        size = sum(len(row.data) for row in writes.get(("", turn.input_id), {}).values())
        if self._drop(writes, ("", turn.input_id)) and (info := self._rows.index.get(turn.thread_id)) is not None:
            self._grow(turn.thread_id, Save(), info.updated or _NEVER, -size)

    def _amend(self, lease: LeaseRow, **changes: Any) -> None:
        owners = self._rows.leases.get(lease.thread_id, {})
        if lease.owner in owners:
            self._put(owners, lease.owner, replace(owners[lease.owner], **changes))

    def _checkpoint(self, row: CheckpointRow) -> tuple[bool, int]:
        """Whether it is new, and how many bytes it added."""
        thread, key = self._made(row.thread_id), (row.ns, row.id)
        old = thread.checkpoints.get(key)
        self._put(thread.checkpoints, key, row)
        if old is not None:
            return False, _size(row) - _size(old)
        self._list(thread.ids.setdefault(row.ns, []), row.id)
        self._list(self._rows.newest, (row.id, row.thread_id, row.ns))
        return True, _size(row)

    def _value(self, row: ValueRow) -> int:
        """How many bytes it added."""
        thread, key = self._made(row.thread_id), (row.ns, row.channel, row.version)
        old = thread.values.get(key)
        if old is not None:
            self._unchain(thread, old)
        self._put(thread.values, key, row)
        self._put(thread.chains.setdefault((row.ns, row.channel, row.root), {}), row.version, row)
        return len(row.data) - (len(old.data) if old else 0)

    def _unchain(self, thread: _Thread, row: ValueRow) -> None:
        key = row.ns, row.channel, row.root
        self._drop(thread.chains[key], row.version)
        if not thread.chains[key]:
            self._drop(thread.chains, key)

    def _write(self, row: WriteRow) -> int:
        """How many bytes it added."""
        writes = self._made(row.thread_id).writes
        if (rows := writes.get((row.ns, row.checkpoint_id))) is None:
            rows = {}
            self._put(writes, (row.ns, row.checkpoint_id), rows)
        old = rows.get((row.task_id, row.idx))
        if old is not None and row.idx >= 0:
            return 0
        self._put(rows, (row.task_id, row.idx), row)
        return len(row.data) - (len(old.data) if old else 0)

    def _made(self, thread_id: str) -> _Thread:
        if (thread := self._rows.threads.get(thread_id)) is None:
            thread = _Thread()
            self._put(self._rows.threads, thread_id, thread)
        return thread

    def _grow(
        self,
        thread_id: str,
        save: Save,
        now: datetime,
        size: int,
        checkpoints: int = 0,
        row: CheckpointRow | None = None,
    ) -> None:
        head = row.id if row is not None and row.ns == "" else ""
        old = self._rows.index.get(thread_id) or ThreadInfo(thread_id, 0, now, "", None, 0, now)
        told = save.status is not None and save.told >= self._rows.told.get(thread_id, "")
        self._forget(thread_id)
        if told:
            self._put(self._rows.told, thread_id, save.told)
        self._enter(
            ThreadInfo(
                thread_id,
                checkpoints=old.checkpoints + checkpoints,
                updated=max(old.updated or now, now),
                checkpoint_id=max(old.checkpoint_id, head),
                status=save.status if told else old.status,
                size=(old.size or 0) + size,
                created=old.created,
            )
        )

    def _enter(self, info: ThreadInfo) -> None:
        self._put(self._rows.index, info.thread_id, info)
        self._list(self._rows.order, _age(info))

    def _forget(self, thread_id: str) -> None:
        if (info := self._rows.index.get(thread_id)) is not None:
            self._drop(self._rows.index, thread_id)
            self._unlist(self._rows.order, _age(info))

    # Four changes that can be undone; all others are made of them.

    def _put(self, rows: dict[K, V], key: K, row: V) -> None:
        if key in rows:
            self._undo.append((setitem, rows, key, rows[key]))
        else:
            self._undo.append((delitem, rows, key))
        rows[key] = row

    def _drop(self, rows: dict[K, V], key: K) -> bool:
        if key not in rows:
            return False
        self._undo.append((setitem, rows, key, rows.pop(key)))
        return True

    def _list(self, items: list[Any], item: Any) -> None:
        insort(items, item)
        self._undo.append((_without, items, item))

    def _unlist(self, items: list[Any], item: Any) -> None:
        _without(items, item)
        self._undo.append((insort, items, item))


def _without(items: list[Any], item: Any) -> None:
    items.pop(bisect_left(items, item))


def _descending(items: list[Any], below: Sequence[Any]) -> Iterator[Any]:
    """Items of a sorted list that are less than each of some bounds, the greatest first."""
    end = min((bisect_left(items, bound) for bound in below), default=len(items))
    return (items[at] for at in range(end - 1, -1, -1))


def _keyed(ids: Iterator[str], thread_id: str, ns: str) -> Iterator[tuple[str, str, str]]:
    return ((id, thread_id, ns) for id in ids)


def _fits(row: CheckpointRow, query: CheckpointQuery) -> bool:
    return (
        query.ns in (None, row.ns)
        and query.id in (None, row.id)
        and query.source in (None, row.source)
        and query.step in (None, row.step)
        and query.run_id in (None, row.run_id)
        and not any(set(group).isdisjoint(row.labels) for group in query.labels)
        and (query.after is None or (row.id, row.thread_id, row.ns) < query.after)
    )


def _size(row: CheckpointRow) -> int:
    return len(row.header) + len(row.metadata)


def _order(row: WriteRow) -> tuple[str, str, str, int]:
    return row.checkpoint_id, row.task_path, row.task_id, row.idx


def _age(info: ThreadInfo) -> tuple[datetime, str]:
    return info.updated or _NEVER, info.thread_id
