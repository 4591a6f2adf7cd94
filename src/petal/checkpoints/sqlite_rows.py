"""Reads and changes rows through one connection to an SQLite database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection
from typing import Any

from petal.checkpoints import sqlite_sql as sql
from petal.checkpoints import sqlite_turns as turns
from petal.checkpoints.records import (
    CheckpointQuery,
    CheckpointRow,
    Glimpse,
    Head,
    LeaseRow,
    OrphanedSave,
    Save,
    Status,
    ValueRow,
    WriteRow,
    heads_of,
)
from petal.checkpoints.threads import ThreadInfo, ThreadQuery, made_at

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteReader:
    """Reads rows; all that it reads within a transaction of the connection is of one moment."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def checkpoint(self, thread_id: str, ns: str, id: str | None) -> CheckpointRow | None:
        if id is None:
            found = self._connection.execute(sql.HEAD, (thread_id, ns)).fetchone()
        else:
            found = self._connection.execute(sql.ONE_CHECKPOINT, (thread_id, ns, id)).fetchone()
        return CheckpointRow(*found) if found else None

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        wanted = [part for place in places for part in place]
        return heads_of(
            row
            for part in sql.portions(sql.HEADS_WITH_WRITES, 2, wanted)
            for row in self._connection.execute(*part).fetchall()
        )

    def glance(self, place: tuple[str, str]) -> Glimpse | None:
        """Which checkpoint is the newest of a (thread_id, ns)."""
        found = self._connection.execute(sql.GLANCE, place).fetchone()
        return Glimpse(*found) if found else None

    def checkpoints(self, query: CheckpointQuery) -> list[CheckpointRow]:
        groups = sorted(query.labels, key=len)
        if not all(groups):
            return []
        if groups and query.thread_id is None:
            # One select for each label of the group with the fewest, which leaves out what those before it give.
            first, groups = groups[0], groups[1:]
            selects, values = [], []
            for number, label in enumerate(first):
                conditions, wanted = _conditions(query, "l.checkpoint_id", groups, first[:number])
                selects.append(sql.LABELLED.format(conditions=conditions))
                values += [label, *wanted]
            statement = sql.MERGED.join(selects) + sql.LABELLED_ORDER
        else:
            conditions, values = _conditions(query, "c.id", groups)
            statement = sql.CHECKPOINTS.format(conditions=conditions)
        return [CheckpointRow(*row) for row in self._connection.execute(statement, (*values, query.limit))]

    def chains(self, thread_id: str, ns: str, chains: Sequence[tuple[str, str]]) -> list[ValueRow]:
        return [
            ValueRow(*row)
            for channel, root in chains
            for row in self._connection.execute(
                sql.CHAIN, {"thread": thread_id, "ns": ns, "channel": channel, "root": root}
            )
        ]

    def values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> list[ValueRow]:
        found = (self._connection.execute(sql.ONE_VALUE, (thread_id, ns, *key)).fetchone() for key in versions)
        return [ValueRow(*row) for row in found if row]

    def writes(self, thread_id: str, ns: str, checkpoint_ids: Sequence[str]) -> list[WriteRow]:
        return [
            WriteRow(*row)
            for id in sorted(set(checkpoint_ids))
            for row in self._connection.execute(sql.WRITES, (thread_id, ns, id))
        ]

    def notes(self, thread_id: str, channel: str) -> list[WriteRow]:
        return [WriteRow(*row) for row in self._connection.execute(sql.NOTES, (thread_id, channel))]

    def strays(self, thread_id: str) -> list[WriteRow]:
        return [WriteRow(*row) for row in self._connection.execute(sql.STRAYS, (thread_id,))]

    def leases(self, thread_id: str) -> list[LeaseRow]:
        return turns.leases(self._connection, thread_id)

    def wishes(self, process: str) -> list[LeaseRow]:
        return turns.wishes(self._connection, process)

    def threads(self, query: ThreadQuery) -> list[ThreadInfo]:
        conditions, values = ["TRUE"], []
        if query.before is not None:
            conditions.append("(updated, thread_id) < (?, ?)")
            values += [_ticks(query.before.updated), query.before.thread_id]
        if query.search is not None:
            conditions.append("instr(thread_id, ?)")
            values.append(query.search)
        for column, wanted in ("status", query.status), ("thread_id", query.thread_id):
            if wanted is not None:
                conditions.append(f"{column} = ?")
                values.append(wanted)
        statement = sql.THREADS.format(conditions=" AND ".join(conditions))
        return [
            ThreadInfo(thread_id, count, _moment(updated), head, status, size, _moment(created))
            for thread_id, count, updated, head, status, size, created in self._connection.execute(
                statement, (*values, query.limit)
            )
        ]


@dataclass(slots=True)
class _Growth:
    """What saves add to a thread's entry in the index."""

    head: str = ""
    status: Status | None = None
    told: str = ""
    checkpoints: int = 0
    size: int = 0
    created: int = 0
    updated: int = 0


class _Growths(dict[str, _Growth]):
    """What a group of saves adds to the index, by thread."""

    def now(self, save: Save) -> int:
        """The time of a save."""
        return _ticks(datetime.fromisoformat(save.now) if save.now else datetime.now(UTC))

    def of(self, thread_id: str, now: int, save: Save) -> _Growth:
        """What a row adds to that of its thread."""
        if (growth := self.get(thread_id)) is None:
            growth = self[thread_id] = _Growth(created=now)
        growth.updated = max(growth.updated, now)
        if save.status is not None and save.told >= growth.told:
            growth.status, growth.told = save.status, save.told
        return growth


class SqliteTransaction(SqliteReader):
    """Changes rows; the caller begins and ends the transaction of the connection.

    Attributes:
        freed: Whether there may be space to give back. That of values alone is soon needed by others.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.freed = False
        self._cursor = connection.cursor()

    def save(self, save: Save) -> None:
        self.save_all((save,))

    def save_all(self, saves: Iterable[Save]) -> None:
        """Write saves one after the other, whatever is there already."""
        grown = _Growths()
        for save in saves:
            now = grown.now(save)
            if save.turn is not None:
                turns.take(self._cursor, save.turn)
            turns.require(self._cursor, self, save)
            if (row := save.checkpoint) is not None:
                if save.leans is not None:
                    parent = self.checkpoint(row.thread_id, row.ns, row.parent_id)
                    if parent is None or parent.name != save.leans:
                        raise OrphanedSave
                growth = grown.of(row.thread_id, now, save)
                new, size = self._checkpoint(row)
                growth.checkpoints += new
                growth.size += size
                if row.ns == "":
                    growth.head = max(growth.head, row.id)
            for value in save.values:
                grown.of(value.thread_id, now, save).size += self._value(value)
            for write in save.writes:
                grown.of(write.thread_id, now, save).size += self._write(write)
        self._index(grown)

    def add_all(self, saves: Sequence[Save]) -> bool:
        """Write saves of which nothing is there yet, as nearly all are: many rows a statement.

        Each statement gives Python's lock away and waits for it again, which takes longer than to write the rows.

        Returns:
            False if something was there; the transaction must then be rolled back.
        """
        grown = _Growths()
        checkpoints: list[Any] = []
        labels: list[Any] = []
        values: list[Any] = []
        writes: list[Any] = []
        parents: dict[tuple[str, str, str | None, str], None] = {}
        if not turns.in_turn(self._cursor, saves):
            return False
        for save in saves:
            now = grown.now(save)
            if (row := save.checkpoint) is not None:
                key = row.thread_id, row.ns, row.id
                checkpoints += *key, row.parent_id, row.source, row.step, row.run_id, row.header, row.metadata, row.name
                for label in set(row.labels):
                    labels += *key, label
                if save.leans is not None:
                    parents[row.thread_id, row.ns, row.parent_id, save.leans] = None
                growth = grown.of(row.thread_id, now, save)
                growth.checkpoints += 1
                growth.size += len(row.header) + len(row.metadata)
                if row.ns == "":
                    growth.head = max(growth.head, row.id)
            for value in save.values:
                root = None if value.root == value.version else value.root
                values += value.thread_id, value.ns, value.channel, value.version, root, value.data
                grown.of(value.thread_id, now, save).size += len(value.data)
            for write in save.writes:
                writes += write.thread_id, write.ns, write.checkpoint_id, write.task_id, write.idx
                writes += write.channel, write.task_path, write.data
                grown.of(write.thread_id, now, save).size += len(write.data)
        if not (
            self._added(sql.ADD_CHECKPOINTS, 10, checkpoints)
            and self._added(sql.ADD_VALUES, 6, values)
            and self._added(sql.ADD_WRITES, 8, writes)
            and self._added(sql.ADD_LABELS, 4, labels)
        ):
            return False
        wanted = [part for parent in parents for part in parent]
        found = sum(self._cursor.execute(*part).fetchone()[0] for part in sql.portions(sql.PARENTS, 4, wanted))
        if found != len(parents):
            raise OrphanedSave
        self._index(grown)
        return True

    def grant(self, lease: LeaseRow) -> None:
        self._cursor.execute(sql.GRANT, (lease.thread_id, lease.owner))

    def ask(self, lease: LeaseRow, wish: str) -> None:
        self._cursor.execute(sql.ASK, (wish, lease.thread_id, lease.owner))

    def revoke(self, lease: LeaseRow) -> None:
        self._cursor.execute(sql.RELEASE, (lease.thread_id, lease.owner))

    def claim(self, task: str) -> bool:
        return True  # there is one writer at a time

    def namespaces(self, thread_id: str) -> list[str]:
        return [ns for (ns,) in self._connection.execute(sql.NAMESPACES, (thread_id,))]

    def all_values(self, thread_id: str, ns: str) -> list[ValueRow]:
        return [ValueRow(*row) for row in self._connection.execute(sql.ALL_VALUES, (thread_id, ns))]

    def labels(self, thread_id: str, ns: str, id: str) -> tuple[bytes, ...]:
        return tuple(label for (label,) in self._connection.execute(sql.LABELS, (thread_id, ns, id)))

    def threads_of_runs(self, run_ids: Sequence[str]) -> list[tuple[str, str, str]]:
        return sorted(row for id in set(run_ids) for row in self._connection.execute(sql.OF_RUN, (id,)))

    def delete_thread(self, thread_id: str) -> None:
        self.freed = True
        for statement in sql.DELETE_THREAD:
            self._connection.execute(statement, (thread_id,))

    def delete_checkpoints(self, thread_id: str, ns: str, ids: Sequence[str]) -> None:
        self.freed = True
        for statement in sql.DELETE_CHECKPOINT:
            self._connection.executemany(statement, [(thread_id, ns, id) for id in ids])

    def delete_values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> None:
        size = 0
        for version in versions:
            for (gone,) in self._cursor.execute(sql.SIZE_OF_VALUE, (thread_id, ns, *version)).fetchall():
                self._cursor.execute(sql.DELETE_VALUE, (thread_id, ns, *version))
                size += gone
        self._connection.execute(sql.SHRINK, (size, thread_id))

    def recount(self, thread_id: str) -> None:
        count, head, first, last, size = self._connection.execute(sql.COUNTED, {"thread": thread_id}).fetchone()
        if count:
            times = _ticks(made_at(first)), _ticks(made_at(last))  # of an entry that is there already, they stay
            self._connection.execute(sql.RECOUNT, (thread_id, head, count, int(size), *times))
        else:
            self._connection.execute(sql.FORGET, (thread_id,))

    def _index(self, grown: _Growths) -> None:
        """Each thread's entry in the index is written once."""
        entries = [
            column
            for id, g in grown.items()
            for column in (id, g.head, g.status, g.told, g.checkpoints, g.size, g.created, g.updated)
        ]
        for statement, columns in sql.portions(sql.INDEX_THREADS, 8, entries):
            self._cursor.execute(statement, columns)

    # Nearly all rows are new, so that is what is tried first.

    def _write(self, row: WriteRow) -> int:
        """How many bytes it added."""
        key = row.thread_id, row.ns, row.checkpoint_id, row.task_id, row.idx
        values = row.channel, row.task_path, row.data
        if self._added(sql.ADD_WRITES, 8, key + values):
            return len(row.data)
        return self._replaced(sql.SIZE_OF_WRITE, sql.REPLACE_WRITE, key, values) if row.idx < 0 else 0

    def _value(self, row: ValueRow) -> int:
        """How many bytes it added."""
        key = row.thread_id, row.ns, row.channel, row.version
        values = None if row.root == row.version else row.root, row.data
        if self._added(sql.ADD_VALUES, 6, key + values):
            return len(row.data)
        return self._replaced(sql.SIZE_OF_VALUE, sql.REPLACE_VALUE, key, values)

    def _checkpoint(self, row: CheckpointRow) -> tuple[bool, int]:
        """Whether it is new, and how many bytes it added."""
        key = row.thread_id, row.ns, row.id
        values = row.parent_id, row.source, row.step, row.run_id, row.header, row.metadata, row.name
        if new := self._added(sql.ADD_CHECKPOINTS, 10, key + values):
            size = len(row.header) + len(row.metadata)
        else:
            size = self._replaced(sql.SIZE_OF_CHECKPOINT, sql.REPLACE_CHECKPOINT, key, values)
            self._cursor.execute(sql.DELETE_LABELS, key)
        self._added(sql.ADD_LABELS, 4, [part for label in row.labels for part in (*key, label)])
        return new, size

    def _added(self, statement: str, width: int, columns: Sequence[Any]) -> bool:
        """Whether all of these rows were new; those that were not stay as they are."""
        return len(columns) == width * sum(
            self._cursor.execute(*portion).rowcount for portion in sql.portions(statement, width, columns)
        )

    def _replaced(self, measure: str, replace: str, key: tuple[Any, ...], values: tuple[Any, ...]) -> int:
        (before,) = self._cursor.execute(measure, key).fetchone()
        self._cursor.execute(replace, values + key)
        (after,) = self._cursor.execute(measure, key).fetchone()
        return int(after - before)


def _conditions(
    query: CheckpointQuery, id: str, groups: Sequence[Sequence[bytes]], without: Sequence[bytes] = ()
) -> tuple[str, list[Any]]:
    """What rows must fulfil, and its parameters.

    Args:
        query: The query; its labels are left to `groups`.
        id: The column in whose index the page begins.
        groups: Labels, of each group of which a row must have one.
        without: Labels that it must not have.
    """
    conditions: list[str] = ["TRUE"]
    values: list[Any] = []
    for condition, value in (
        ("c.thread_id = ?", query.thread_id),
        ("c.ns = ?", query.ns),
        (f"{id} = ?", query.id),
        (f"{id} < ?", query.before),
        ("c.source = ?", query.source),
        ("c.step = ?", query.step),
        ("c.run_id = ?", query.run_id),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if query.after is not None:
        conditions += [f"{id} <= ?", "(c.id, c.thread_id, c.ns) < (?, ?, ?)"]
        values += [query.after[0], *query.after]
    for group in groups:
        conditions.append(_has_one_of(group))
        values += group
    if without:
        conditions.append("NOT " + _has_one_of(without))
        values += without
    return " AND ".join(conditions), values


def _has_one_of(labels: Sequence[bytes]) -> str:
    return sql.HAS_LABEL.format(labels=", ".join("?" * len(labels)))


def _ticks(moment: datetime | None) -> int:
    """Microseconds since 1970; 0 for a time that is not known."""
    return 0 if moment is None else (moment - _EPOCH) // _MICROSECOND


def _moment(ticks: int) -> datetime | None:
    return _EPOCH + timedelta(microseconds=ticks) if ticks else None
