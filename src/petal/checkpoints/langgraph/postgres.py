"""The dialect of LangGraph's PostgreSQL saver: its pool, its tables, what its errors mean."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import TASKS
from psycopg import Connection, Cursor, errors, sql
from psycopg.rows import DictRow, class_row, dict_row, scalar_row, tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from petal.checkpoints.langgraph.dialect import Key, Noted, Outlined, Pending, Row, Written
from petal.checkpoints.postgres_connections import conninfo, lost, unavailable, words
from petal.checkpoints.threads import ThreadInfo, made_at
from petal.core.config.checkpointer import PostgresOptions
from petal.errors import CheckpointerError

_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": None, "row_factory": dict_row}

SETUP_LOCK = 0x706574616C  # "petal"
SETUP_PATIENCE = 60.0
"""Seconds to wait for another process that is making the tables."""

VERSION = "SELECT max(v) FROM checkpoint_migrations"
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
ROWS = """
SELECT checkpoint_ns AS ns, checkpoint_id AS id, parent_checkpoint_id AS parent,
    metadata -> 'parents' ->> '' AS root, metadata ->> 'run_id' AS run_id,
    metadata ?| '{counters_since_delta_snapshot,delta_writes_versioned}' AS delta,
    (checkpoint ->> 'v')::int < 4 AND EXISTS (
        SELECT 1 FROM checkpoint_writes w
        WHERE w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns
            AND w.checkpoint_id = c.parent_checkpoint_id AND w.channel = %(tasks)s
    ) AS sends
FROM checkpoints c WHERE thread_id = %(thread)s
"""
OUTLINED = "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata FROM checkpoints WHERE thread_id = %s"
NOTED = """
SELECT checkpoint_ns, checkpoint_id, task_id, type, blob FROM checkpoint_writes WHERE thread_id = %s AND channel = %s
"""
OCCUPIED = """
SELECT EXISTS (SELECT 1 FROM checkpoints WHERE thread_id = %(thread)s)
    OR EXISTS (SELECT 1 FROM checkpoint_writes WHERE thread_id = %(thread)s)
"""
COPY_CHECKPOINTS = """
INSERT INTO checkpoints
    (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints WHERE thread_id = %(source)s
"""
COPY_WRITES = """
INSERT INTO checkpoint_writes
    (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
FROM checkpoint_writes WHERE thread_id = %(source)s
"""
COPY_BLOBS = """
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT %(target)s, checkpoint_ns, channel, version, type, blob
FROM checkpoint_blobs WHERE thread_id = %(source)s AND (checkpoint_ns, channel, version) IN (
    SELECT c.checkpoint_ns, v.key, v.value
    FROM checkpoints c CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') v
    WHERE c.thread_id = %(target)s
)
"""
SOME = """
AND (checkpoint_ns, checkpoint_id) IN (SELECT * FROM unnest(%(namespaces)s::text[], %(ids)s::text[]))
"""
DELETE_CHECKPOINTS = "DELETE FROM checkpoints WHERE thread_id = %(thread)s"
DELETE_WRITES = "DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s"
DELETE_BLOBS = """
WITH used AS (
    SELECT checkpoint_ns, v.key AS channel, v.value AS version
    FROM checkpoints CROSS JOIN LATERAL jsonb_each_text(checkpoint -> 'channel_versions') v
    WHERE thread_id = %(thread)s
    GROUP BY 1, 2, 3
    HAVING bool_and((checkpoint_ns, checkpoint_id) IN (SELECT * FROM unnest(%(namespaces)s::text[], %(ids)s::text[])))
)
DELETE FROM checkpoint_blobs b USING used u
WHERE b.thread_id = %(thread)s
    AND b.checkpoint_ns = u.checkpoint_ns AND b.channel = u.channel AND b.version = u.version
"""
CUT = "UPDATE checkpoints SET parent_checkpoint_id = NULL WHERE thread_id = %(thread)s" + SOME
CLEAR = (
    "DELETE FROM checkpoints WHERE thread_id = ANY(%s)",
    "DELETE FROM checkpoint_blobs WHERE thread_id = ANY(%s)",
    "DELETE FROM checkpoint_writes WHERE thread_id = ANY(%s)",
)
THREADS_OF = "SELECT DISTINCT thread_id FROM checkpoints WHERE metadata ->> 'run_id' = ANY(%s) ORDER BY 1"
HEADS = """
SELECT * FROM (
    SELECT thread_id COLLATE "C" AS thread, count(*) AS checkpoints, coalesce(
        max(checkpoint_id COLLATE "C") FILTER (WHERE checkpoint_ns = ''), max(checkpoint_id COLLATE "C")
    ) AS head
    FROM checkpoints GROUP BY 1
) t
WHERE %(head)s::text IS NULL OR (head, thread) < (%(head)s, %(thread)s)
ORDER BY head DESC, thread DESC LIMIT %(limit)s
"""
WRITTEN = """
SELECT checkpoint_ns, checkpoint_id, task_id, idx, octet_length(blob) FROM checkpoint_writes WHERE thread_id = %s
"""
PENDING = """
SELECT task_id, idx, channel, task_path, type, blob FROM checkpoint_writes
WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s
"""


class PostgresDialect:
    """State in a PostgreSQL database.

    Args:
        options: How to reach the database, and the schema of the tables.
        where: The database as a URL, without any password.
        read_only: Change nothing, not even the tables.
    """

    in_memory = False

    def __init__(self, options: PostgresOptions, where: str, *, read_only: bool = False) -> None:
        self.where = where
        self._read_only = read_only
        self.workers = options.max_size
        self._options = options
        self._conninfo = conninfo(options, where)
        self._pool = ConnectionPool(
            self._conninfo,
            kwargs=_CONNECTION,
            connection_class=Connection[DictRow],
            min_size=options.min_size,
            max_size=options.max_size,
            timeout=options.connect_timeout,
            configure=self._configure,
            name="petal-checkpoints",
            open=False,
        )

    @property
    def is_open(self) -> bool:
        return not self._pool.closed

    def open(self) -> None:
        with self._connected() as connection:  # directly, since a pool hides why it has no connection
            if not self._read_only:
                self._set_up(connection)
            elif not _is_set_up(connection):
                raise CheckpointerError(
                    f"{self.where} has no tables of this version of LangGraph's saver. If an older one made them, its "
                    "setup() brings them up to date; it was not called, since the database is only read."
                )
        self._pool.open()

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def saver(self, serde: SerializerProtocol) -> Iterator[PostgresSaver]:
        # A saver of its own for each operation: its lock would let one connection of the pool work at a time.
        yield PostgresSaver(self._pool, serde=serde)

    @contextmanager
    def transaction(self) -> Iterator[PostgresTransaction]:
        self._pool.check()  # a change that must not be done twice starts on a connection that lives
        with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute(SNAPSHOT)
            yield PostgresTransaction(cursor)

    def heads(self, limit: int, before: ThreadInfo | None) -> list[ThreadInfo]:
        mark = {"head": before and before.checkpoint_id, "thread": before and before.thread_id}
        with self._pool.connection() as connection:
            found = connection.execute(HEADS, {**mark, "limit": limit}).fetchall()
        return [ThreadInfo(row["thread"], row["checkpoints"], made_at(row["head"]), row["head"]) for row in found]

    def rows(self, thread_id: str) -> list[Row]:
        with self._pool.connection() as connection, connection.cursor() as cursor:
            return PostgresTransaction(cursor).rows(thread_id)

    def outlined(self, thread_id: str) -> list[Outlined]:
        with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            return [Outlined(*row) for row in cursor.execute(OUTLINED, (thread_id,))]

    def noted(self, thread_id: str, channel: str) -> list[Noted]:
        with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            found = cursor.execute(NOTED, (thread_id, channel))
            return [Noted(ns, id, task_id, (type, value)) for ns, id, task_id, type, value in found]

    def written(self, thread_id: str) -> list[Written]:
        with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            return [Written(*row) for row in cursor.execute(WRITTEN, (thread_id,))]

    def pending(self, thread_id: str, ns: str, checkpoint_id: str) -> list[Pending]:
        with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            found = cursor.execute(PENDING, (thread_id, ns, checkpoint_id))
            return [
                Pending(task_id, idx, channel, task_path, (type, value))
                for task_id, idx, channel, task_path, type, value in found
            ]

    def translated(self, error: Exception) -> CheckpointerError | None:
        match error:
            case PoolTimeout():
                return unavailable(self.where, self._why(error))
            case psycopg.OperationalError() | psycopg.InternalError() | psycopg.ProgrammingError():
                return unavailable(self.where, error)
            case TypeError() if "JSON serializable" in str(error):
                return CheckpointerError(f"{self.where}: metadata must be plain data: {error}.")
            case psycopg.Error():
                return CheckpointerError(f"{self.where}: {words(error)}.")
            case _:
                return None

    def recovered(self, error: Exception, *, repeatable: bool) -> bool:
        match error:
            case PoolTimeout():
                return False
            case errors.SerializationFailure() | errors.DeadlockDetected():
                return True  # the server undid it
            case psycopg.OperationalError() | psycopg.InterfaceError() if repeatable and self.is_open and lost(error):
                self._pool.check()  # dead connections are replaced by fresh ones
                return True
            case _:
                return False

    @contextmanager
    def _connected(self) -> Iterator[Connection[DictRow]]:
        """A connection beside the pool."""
        with Connection[DictRow].connect(self._conninfo, **_CONNECTION) as connection:
            self._configure(connection)
            yield connection

    def _configure(self, connection: Connection[Any]) -> None:
        if self._read_only:
            connection.execute("SET default_transaction_read_only = on")
        if self._options.db_schema is not None:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self._options.db_schema)))

    def _set_up(self, connection: Connection[DictRow]) -> None:
        """Makes schema and tables, one process at a time.

        Waiting inside the server for the lock would hold a snapshot open, and LangGraph's CREATE INDEX
        CONCURRENTLY waits for all snapshots to end: so the lock is tried again and again.
        """
        if _is_set_up(connection):
            return
        deadline = time.monotonic() + SETUP_PATIENCE
        while not _locked(connection):
            if time.monotonic() > deadline:
                raise psycopg.OperationalError(f"another process has been making the tables for {SETUP_PATIENCE:.0f} s")
            time.sleep(0.05)
        # Closing the connection gives the lock back.
        if self._options.db_schema is not None:
            name = sql.Identifier(self._options.db_schema)
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        if not _is_set_up(connection):
            PostgresSaver(connection).setup()

    def _why(self, timeout: PoolTimeout) -> psycopg.Error:
        """The reason why the pool had no connection."""
        try:
            with self._connected():
                return timeout
        except psycopg.Error as error:
            return error


class PostgresTransaction:
    """Changes of LangGraph's three tables, on one snapshot of them."""

    def __init__(self, cursor: Cursor[DictRow]) -> None:
        self._cursor = cursor

    def rows(self, thread_id: str) -> list[Row]:
        with self._cursor.connection.cursor(row_factory=class_row(Row)) as cursor:
            return cursor.execute(ROWS, {"thread": thread_id, "tasks": TASKS}).fetchall()

    def occupied(self, thread_id: str) -> bool:
        with self._cursor.connection.cursor(row_factory=scalar_row) as cursor:
            return bool(cursor.execute(OCCUPIED, {"thread": thread_id}).fetchone())

    def copy(self, source: str, target: str) -> None:
        names = {"source": source, "target": target}
        for statement in (COPY_CHECKPOINTS, COPY_WRITES, COPY_BLOBS):
            self._cursor.execute(statement, names)

    def graft(self, source: str, target: str, checkpoints: Sequence[Key], writes: Sequence[Key]) -> None:
        names = {"source": source, "target": target}
        self._cursor.execute(COPY_CHECKPOINTS + SOME, names | _keys(checkpoints))
        self._cursor.execute(COPY_WRITES + SOME, names | _keys(writes))
        self._cursor.execute(COPY_BLOBS, names)

    def delete(self, thread_id: str, checkpoints: Sequence[Key], orphans: Sequence[Key]) -> None:
        doomed = {"thread": thread_id, **_keys(checkpoints)}
        for statement in (DELETE_BLOBS, DELETE_WRITES + SOME, DELETE_CHECKPOINTS + SOME):
            self._cursor.execute(statement, doomed)
        self._cursor.execute(CUT, {"thread": thread_id, **_keys(orphans)})

    def clear(self, thread_ids: Sequence[str]) -> None:
        for statement in CLEAR:
            self._cursor.execute(statement, (list(thread_ids),))

    def threads_of(self, run_ids: Sequence[str]) -> list[str]:
        return [row["thread_id"] for row in self._cursor.execute(THREADS_OF, (list(run_ids),))]


def _is_set_up(connection: Connection[DictRow]) -> bool:
    try:
        row = connection.execute(VERSION).fetchone()
    except errors.UndefinedTable:
        return False
    return row is not None and row["max"] == len(PostgresSaver.MIGRATIONS) - 1


def _locked(connection: Connection[DictRow]) -> bool:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute("SELECT pg_try_advisory_lock(%s)", (SETUP_LOCK,)).fetchone())


def _keys(keys: Sequence[Key]) -> dict[str, list[str]]:
    return {"namespaces": [ns for ns, _ in keys], "ids": [id for _, id in keys]}
