"""Reads and changes rows through one connection to an SQLite database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection
from typing import Any

from petal.checkpoints import sqlite_sql as sql
from petal.checkpoints.records import CheckpointQuery, CheckpointRow, Save, Status, ValueRow, WriteRow
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

    def checkpoints(self, query: CheckpointQuery) -> list[CheckpointRow]:
        labels: Sequence[bytes] = query.labels
        values: list[Any] = []
        statement = sql.CHECKPOINTS
        if labels and query.thread_id is None:
            statement, values, labels = sql.LABELLED, [labels[0]], labels[1:]
        # What the page begins with is told of both tables, so that it can be found by either's index.
        key = "l.checkpoint_id" if statement is sql.LABELLED else "c.id"
        conditions = ["TRUE"]
        for condition, value in (
            ("c.thread_id = ?", query.thread_id),
            ("c.ns = ?", query.ns),
            (f"{key} = ?", query.id),
            (f"{key} < ?", query.before),
            ("c.source = ?", query.source),
            ("c.step = ?", query.step),
            ("c.run_id = ?", query.run_id),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        if query.after is not None:
            conditions += [f"{key} <= ?", "(c.id, c.thread_id, c.ns) < (?, ?, ?)"]
            values += [query.after[0], *query.after]
        conditions += [sql.HAS_LABEL] * len(labels)
        values += [*labels, query.limit]
        found = self._connection.execute(statement.format(conditions=" AND ".join(conditions)), values)
        return [CheckpointRow(*row) for row in found]

    def chains(self, thread_id: str, ns: str, chains: Sequence[tuple[str, str]]) -> list[ValueRow]:
        return [
            ValueRow(*row)
            for channel, root in chains
            for row in self._connection.execute(
                sql.CHAIN, {"thread": thread_id, "ns": ns, "channel": channel, "root": root}
            )
        ]

    def roots(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        found = {key: self._connection.execute(sql.ROOT, (thread_id, ns, *key)).fetchone() for key in versions}
        return {key: row[0] for key, row in found.items() if row}

    def writes(self, thread_id: str, ns: str, checkpoint_ids: Sequence[str]) -> list[WriteRow]:
        return [
            WriteRow(*row)
            for id in sorted(set(checkpoint_ids))
            for row in self._connection.execute(sql.WRITES, (thread_id, ns, id))
        ]

    def threads(self, query: ThreadQuery) -> list[ThreadInfo]:
        conditions, values = ["TRUE"], []
        if query.before is not None:
            conditions.append("(updated, thread_id) < (?, ?)")
            values += [_ticks(query.before.updated), query.before.thread_id]
        if query.search is not None:
            conditions.append("instr(thread_id, ?)")
            values.append(query.search)
        if query.status is not None:
            conditions.append("status = ?")
            values.append(query.status)
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
    checkpoints: int = 0
    size: int = 0
    created: int = 0
    updated: int = 0


class SqliteTransaction(SqliteReader):
    """Changes rows; the caller begins and ends the transaction of the connection.

    Attributes:
        freed: Whether rows were deleted, so that there may be space to give back.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.freed = False
        self._cursor = connection.cursor()

    def save(self, save: Save) -> None:
        self.save_all((save,))

    def save_all(self, saves: Iterable[Save]) -> None:
        """Write saves one after the other; each thread's entry in the index is written once."""
        grown: dict[str, _Growth] = {}
        for save in saves:
            now = _ticks(datetime.fromisoformat(save.now) if save.now else datetime.now(UTC))
            if (row := save.checkpoint) is not None:
                growth = self._growth(grown, row.thread_id, now, save.status)
                new, size = self._checkpoint(row)
                growth.checkpoints += new
                growth.size += size
                if row.ns == "":
                    growth.head = max(growth.head, row.id)
            for value in save.values:
                self._growth(grown, value.thread_id, now, save.status).size += self._value(value)
            for write in save.writes:
                self._growth(grown, write.thread_id, now, save.status).size += self._write(write)
        self._connection.executemany(
            sql.INDEX_THREAD,
            [(id, g.head, g.status, g.checkpoints, g.size, g.created, g.updated) for id, g in grown.items()],
        )

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
        self.freed = True
        self._connection.executemany(sql.DELETE_VALUE, [(thread_id, ns, *version) for version in versions])

    def recount(self, thread_id: str) -> None:
        count, head, first, last, size = self._connection.execute(sql.COUNTED, {"thread": thread_id}).fetchone()
        if count:
            times = _ticks(made_at(first)), _ticks(made_at(last))  # of an entry that is there already, they stay
            self._connection.execute(sql.RECOUNT, (thread_id, head, count, int(size), *times))
        else:
            self._connection.execute(sql.FORGET, (thread_id,))

    def _growth(self, grown: dict[str, _Growth], thread_id: str, now: int, status: Status | None) -> _Growth:
        if (growth := grown.get(thread_id)) is None:
            growth = grown[thread_id] = _Growth(created=now)
        growth.updated = max(growth.updated, now)
        growth.status = status or growth.status
        return growth

    # Nearly all rows are new, so that is what is tried first.

    def _write(self, row: WriteRow) -> int:
        """How many bytes it added."""
        key = row.thread_id, row.ns, row.checkpoint_id, row.task_id, row.idx
        values = row.channel, row.task_path, row.data
        if self._added(sql.ADD_WRITE, key, values):
            return len(row.data)
        return self._replaced(sql.SIZE_OF_WRITE, sql.REPLACE_WRITE, key, values) if row.idx < 0 else 0

    def _value(self, row: ValueRow) -> int:
        """How many bytes it added."""
        key = row.thread_id, row.ns, row.channel, row.version
        values = None if row.root == row.version else row.root, row.data
        if self._added(sql.ADD_VALUE, key, values):
            return len(row.data)
        return self._replaced(sql.SIZE_OF_VALUE, sql.REPLACE_VALUE, key, values)

    def _checkpoint(self, row: CheckpointRow) -> tuple[bool, int]:
        """Whether it is new, and how many bytes it added."""
        key = row.thread_id, row.ns, row.id
        values = row.parent_id, row.source, row.step, row.run_id, row.header, row.metadata
        if new := self._added(sql.ADD_CHECKPOINT, key, values):
            size = len(row.header) + len(row.metadata)
        else:
            size = self._replaced(sql.SIZE_OF_CHECKPOINT, sql.REPLACE_CHECKPOINT, key, values)
            self._cursor.execute(sql.DELETE_LABELS, key)
        if row.labels:
            self._cursor.executemany(sql.ADD_LABEL, [(*key, label) for label in row.labels])
        return new, size

    def _added(self, statement: str, key: tuple[Any, ...], values: tuple[Any, ...]) -> bool:
        return self._cursor.execute(statement, key + values).rowcount == 1

    def _replaced(self, measure: str, replace: str, key: tuple[Any, ...], values: tuple[Any, ...]) -> int:
        (before,) = self._cursor.execute(measure, key).fetchone()
        self._cursor.execute(replace, values + key)
        (after,) = self._cursor.execute(measure, key).fetchone()
        return int(after - before)


def _ticks(moment: datetime | None) -> int:
    """Microseconds since 1970; 0 for a time that is not known."""
    return 0 if moment is None else (moment - _EPOCH) // _MICROSECOND


def _moment(ticks: int) -> datetime | None:
    return _EPOCH + timedelta(microseconds=ticks) if ticks else None
