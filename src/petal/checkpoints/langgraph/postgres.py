"""The dialect of LangGraph's PostgreSQL saver: its pool, its tables, what its errors mean."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import TASKS
from psycopg import Connection, Cursor, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, class_row, dict_row, scalar_row
from psycopg_pool import ConnectionPool, PoolTimeout

from petal.checkpoints.langgraph.dialect import Key, Row
from petal.checkpoints.threads import ThreadInfo, made_at
from petal.core.config.checkpointer import PostgresOptions, redacted
from petal.errors import CheckpointerConfigurationError, CheckpointerError, CheckpointerUnavailableError

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

SAFE_TO_QUOTE = ("invalid connection option", "invalid URI query parameter")
LOST = "Check host and port and that the server runs, then go on; what was saved before is safe"
HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("28",), "Check the user and the password in the connection string"),
    (("3D",), "Create the database, or name another one in the connection string"),
    (("53300",), "Close other connections, lower max_size, or raise the server's max_connections"),
    (("53100",), "Free some space on the server and go on; what was saved before is safe"),
    (("25006",), "Connect to a server or a database that may be written to"),
    (("42501", "3F"), "Let the database's owner make the tables once, or grant the rights to this user"),
    (("42P01", "42703"), "LangGraph's tables were changed or dropped while in use; open the checkpointer anew"),
)
"""What to do, by the beginning of the server's SQLSTATE."""
UNSAID = (
    ("password authentication failed", "28"),
    ("no password supplied", "28"),
    ("too many", "53300"),
    ('role "', "28"),
    ("does not exist", "3D"),
    ("remaining connection slots", "53300"),
)
"""The same for refused connections, which carry no SQLSTATE but only the server's words."""


class PostgresDialect:
    """State in a PostgreSQL database."""

    def __init__(self, options: PostgresOptions, where: str) -> None:
        self.where = where
        self.workers = options.max_size
        self._options = options
        self._conninfo = _conninfo(options, where)
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
            self._set_up(connection)
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

    def translated(self, error: Exception) -> CheckpointerError | None:
        match error:
            case PoolTimeout():
                return self._unavailable(self._why(error))
            case psycopg.OperationalError() | psycopg.InternalError() | psycopg.ProgrammingError():
                return self._unavailable(error)
            case TypeError() if "JSON serializable" in str(error):
                return CheckpointerError(f"{self.where}: metadata must be plain data: {error}.")
            case psycopg.Error():
                return CheckpointerError(f"{self.where}: {_words(error)}.")
            case _:
                return None

    def recovered(self, error: Exception, *, repeatable: bool) -> bool:
        match error:
            case PoolTimeout():
                return False
            case errors.SerializationFailure() | errors.DeadlockDetected():
                return True  # the server undid it
            case psycopg.OperationalError() | psycopg.InterfaceError() if repeatable and self.is_open and _lost(error):
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

    def _unavailable(self, error: psycopg.Error) -> CheckpointerUnavailableError:
        problem = _words(error)
        state = error.sqlstate or next((state for words, state in UNSAID if words in problem), "")
        if isinstance(error, PoolTimeout):
            hint = "All connections are in use; raise max_size, or use the checkpointer less at once"
        else:
            hint = next((hint for states, hint in HINTS if state.startswith(states)), LOST)
        return CheckpointerUnavailableError(self.where, problem, hint)


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


def _conninfo(options: PostgresOptions, where: str) -> str:
    given = options.connection_string.get_secret_value()
    try:
        defaults: dict[str, str | int] = {
            "connect_timeout": math.ceil(options.connect_timeout),
            "application_name": "petal",
        }
        return make_conninfo(given, **{k: v for k, v in defaults.items() if k not in conninfo_to_dict(given)})
    except psycopg.ProgrammingError as error:
        # The error, and so any cause, may quote the password; only a setting's name is safe to repeat.
        problem = f" ({str(error).strip()})" if str(error).startswith(SAFE_TO_QUOTE) else ""
        raise CheckpointerConfigurationError(
            f"The connection string of {where} cannot be read{problem}; "
            "write postgresql://user:password@host:port/database, with other characters than letters, digits "
            "and -._~ in the password as %XX."
        ) from None


def _lost(error: psycopg.Error) -> bool:
    """Whether the connection broke: then the server said nothing, or that it is going down."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


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


def _words(error: psycopg.Error) -> str:
    """The problem in the server's words, on one line."""
    text = error.diag.message_primary or str(error)
    return redacted(" ".join(text.split())).rstrip(".")
