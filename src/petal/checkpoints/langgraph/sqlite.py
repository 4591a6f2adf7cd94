"""The dialect of LangGraph's SQLite saver: its file, its tables, what its errors mean."""

from __future__ import annotations

import copy
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite import SqliteSaver

from petal.checkpoints.langgraph.dialect import Key, Row
from petal.checkpoints.threads import ThreadInfo, made_at
from petal.core.config.checkpointer import MEMORY_FILE, SqliteOptions
from petal.errors import CheckpointCorruptionError, CheckpointerError, CheckpointerUnavailableError

ROWS = """
SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id,
    json_extract(CAST(metadata AS TEXT), '$.parents.""'),
    json_extract(CAST(metadata AS TEXT), '$.run_id'),
    json_extract(CAST(metadata AS TEXT), '$.counters_since_delta_snapshot') IS NOT NULL
FROM checkpoints WHERE thread_id = ?
"""
OCCUPIED = """
SELECT EXISTS (SELECT 1 FROM checkpoints WHERE thread_id = :thread)
    OR EXISTS (SELECT 1 FROM writes WHERE thread_id = :thread)
"""
COPY_CHECKPOINTS = """
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT ?, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints WHERE thread_id = ?
"""
COPY_WRITES = """
INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value)
SELECT ?, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value
FROM writes WHERE thread_id = ?
"""
ONE = " AND checkpoint_ns = ? AND checkpoint_id = ?"
DELETE_CHECKPOINTS = "DELETE FROM checkpoints WHERE thread_id = ?"
DELETE_WRITES = "DELETE FROM writes WHERE thread_id = ?"
CUT = "UPDATE checkpoints SET parent_checkpoint_id = NULL WHERE thread_id = ?" + ONE
THREADS_OF = """
SELECT DISTINCT thread_id FROM checkpoints
WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(?))
"""
HEADS = """
SELECT thread_id, count(*), coalesce(max(checkpoint_id) FILTER (WHERE checkpoint_ns = ''), max(checkpoint_id)) AS head
FROM checkpoints GROUP BY thread_id
HAVING :head IS NULL OR (head, thread_id) < (:head, :thread)
ORDER BY head DESC, thread_id DESC LIMIT :limit
"""

HINTS = {
    sqlite3.SQLITE_CANTOPEN: "Check that its folder exists and may be written to, or name another file",
    sqlite3.SQLITE_READONLY: "Allow this user to write to the file and to its folder, or name another file",
    sqlite3.SQLITE_FULL: "Free some space and go on; what was saved before is safe",
    sqlite3.SQLITE_IOERR: "Check the disk and the space on it and go on; what was saved before is safe",
    sqlite3.SQLITE_BUSY: "Another process is writing; end it, or raise busy_timeout",
    sqlite3.SQLITE_LOCKED: "Another connection is writing; end it, or raise busy_timeout",
    sqlite3.SQLITE_PERM: "Allow this user to use the file, or name another file",
    sqlite3.SQLITE_AUTH: "Allow this user to use the file, or name another file",
}
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
PRIMARY = 0xFF
"""Of an extended result code, the bits that say what kind it is."""


class SqliteDialect:
    """State in one SQLite file."""

    workers = 1  # there is one connection, and LangGraph's saver uses it from one thread at a time

    def __init__(self, options: SqliteOptions, where: str) -> None:
        self.where = where
        self._options = options
        self._lock = RLock()
        self._saver: SqliteSaver | None = None

    @property
    def is_open(self) -> bool:
        return self._saver is not None

    def open(self) -> None:
        file, patience = self._options.db_file, self._options.busy_timeout
        if file != MEMORY_FILE:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(file, timeout=0, check_same_thread=False)
        try:
            saver = SqliteSaver(connection)
            _set_up(saver, time.monotonic() + patience)
            connection.execute(f"PRAGMA busy_timeout = {math.ceil(patience * 1000)}")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        saver.lock = self._lock  # type: ignore[assignment]  # held over a whole operation, and entered again by it
        self._saver = saver

    def close(self) -> None:
        if self._saver is not None:
            self._saver.conn.close()
            self._saver = None

    @contextmanager
    def saver(self, serde: SerializerProtocol) -> Iterator[SqliteSaver]:
        with self._connected() as connected:
            saver = copy.copy(connected)  # the same connection and lock
            saver.serde = serde
            yield saver

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        with self._connected() as saver:
            saver.conn.execute("BEGIN IMMEDIATE")
            yield SqliteTransaction(saver.conn)
            saver.conn.commit()

    def heads(self, limit: int, before: ThreadInfo | None) -> list[ThreadInfo]:
        mark = {"head": before and before.checkpoint_id, "thread": before and before.thread_id}
        with self._connected() as saver:
            found = saver.conn.execute(HEADS, {**mark, "limit": limit}).fetchall()
        return [ThreadInfo(thread, count, made_at(head), head) for thread, count, head in found]

    def translated(self, error: Exception) -> CheckpointerError | None:
        match error:
            case sqlite3.Error():
                code = getattr(error, "sqlite_errorcode", 0) & PRIMARY
                if code in DAMAGE or "malformed JSON" in str(error):
                    return CheckpointCorruptionError(self.where, str(error))
                if code in HINTS:
                    return CheckpointerUnavailableError(self.where, str(error), HINTS[code])
                return CheckpointerError(f"{self.where}: {error}.")
            case json.JSONDecodeError() | UnicodeDecodeError():
                return CheckpointCorruptionError(self.where, f"a checkpoint's metadata cannot be read ({error})")
            case TypeError() if "JSON serializable" in str(error):
                return CheckpointerError(f"{self.where}: metadata must be plain data: {error}.")
            case OSError():
                hint = "Check that its folder can be made and written to, or name another file"
                return CheckpointerUnavailableError(self.where, f"{error.strerror}: {error.filename}", hint)
            case _:
                return None

    def recovered(self, error: Exception, *, repeatable: bool) -> bool:
        return False  # SQLite itself waits for others, up to busy_timeout

    @contextmanager
    def _connected(self) -> Iterator[SqliteSaver]:
        """LangGraph's saver, for this thread alone; what it leaves uncommitted by an error is rolled back."""
        with self._lock:
            assert self._saver is not None
            connection = self._saver.conn
            try:
                yield self._saver
            finally:
                if connection.in_transaction:
                    connection.rollback()


class SqliteTransaction:
    """Changes of LangGraph's two tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, thread_id: str) -> list[Row]:
        return [Row(*row) for row in self._connection.execute(ROWS, (thread_id,))]

    def occupied(self, thread_id: str) -> bool:
        (found,) = self._connection.execute(OCCUPIED, {"thread": thread_id}).fetchone()
        return bool(found)

    def copy(self, source: str, target: str) -> None:
        self._connection.execute(COPY_CHECKPOINTS, (target, source))
        self._connection.execute(COPY_WRITES, (target, source))

    def graft(self, source: str, target: str, checkpoints: Sequence[Key], writes: Sequence[Key]) -> None:
        self._connection.executemany(COPY_CHECKPOINTS + ONE, [(target, source, *key) for key in checkpoints])
        self._connection.executemany(COPY_WRITES + ONE, [(target, source, *key) for key in writes])

    def delete(self, thread_id: str, checkpoints: Sequence[Key], orphans: Sequence[Key]) -> None:
        doomed = [(thread_id, *key) for key in checkpoints]
        self._connection.executemany(DELETE_CHECKPOINTS + ONE, doomed)
        self._connection.executemany(DELETE_WRITES + ONE, doomed)
        self._connection.executemany(CUT, [(thread_id, *key) for key in orphans])

    def clear(self, thread_ids: Sequence[str]) -> None:
        self._connection.executemany(DELETE_CHECKPOINTS, [(id,) for id in thread_ids])
        self._connection.executemany(DELETE_WRITES, [(id,) for id in thread_ids])

    def threads_of(self, run_ids: Sequence[str]) -> list[str]:
        return [id for (id,) in self._connection.execute(THREADS_OF, (json.dumps(run_ids),))]


def _set_up(saver: SqliteSaver, deadline: float) -> None:
    """Makes LangGraph's tables. SQLite does not wait for others when it goes over to WAL, so this does."""
    while True:
        try:
            saver.setup()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
