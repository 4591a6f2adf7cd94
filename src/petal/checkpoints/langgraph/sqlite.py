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
from urllib.parse import quote

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite import SqliteSaver

from petal.checkpoints.langgraph.dialect import Key, Noted, Outlined, Pending, Row, Written
from petal.checkpoints.sqlite_errors import kind, meaning, no_such_file
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
OUTLINED = """
SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, CAST(metadata AS TEXT) FROM checkpoints WHERE thread_id = ?
"""
NOTED = "SELECT checkpoint_ns, checkpoint_id, task_id, type, value FROM writes WHERE thread_id = ? AND channel = ?"
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
HAS_TASK_PATH = "SELECT 1 FROM pragma_table_info('writes') WHERE name = 'task_path'"
"""Files that LangGraph's saver began long ago have none until it opens them again."""
WRITTEN = "SELECT checkpoint_ns, checkpoint_id, task_id, idx, length(value) FROM writes WHERE thread_id = ?"
PENDING = """
SELECT task_id, idx, channel, {task_path}, type, value FROM writes
WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?
"""


class SqliteDialect:
    """State in one SQLite file.

    Args:
        options: The file, and how long to wait for another process that is writing.
        where: The file as a URL.
        read_only: Change nothing, not even the tables; a file that is missing is an error.
    """

    in_memory = False
    workers = 1  # there is one connection, and LangGraph's saver uses it from one thread at a time

    def __init__(self, options: SqliteOptions, where: str, *, read_only: bool = False) -> None:
        self.where = where
        self._options = options
        self._read_only = read_only
        self._lock = RLock()
        self._saver: SqliteSaver | None = None

    @property
    def is_open(self) -> bool:
        return self._saver is not None

    def open(self) -> None:
        patience = self._options.busy_timeout
        connection = self._opened()
        try:
            saver = SqliteSaver(connection)
            if self._read_only:
                saver.is_setup = True
                saver._has_task_path = connection.execute(HAS_TASK_PATH).fetchone() is not None
            else:
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

    def rows(self, thread_id: str) -> list[Row]:
        with self._connected() as saver:
            return SqliteTransaction(saver.conn).rows(thread_id)

    def outlined(self, thread_id: str) -> list[Outlined]:
        with self._connected() as saver:
            found = saver.conn.execute(OUTLINED, (thread_id,)).fetchall()
        return [Outlined(ns, id, parent, json.loads(metadata)) for ns, id, parent, metadata in found]

    def noted(self, thread_id: str, channel: str) -> list[Noted]:
        with self._connected() as saver:
            found = saver.conn.execute(NOTED, (thread_id, channel)).fetchall()
        return [Noted(ns, id, task_id, (type, value)) for ns, id, task_id, type, value in found]

    def written(self, thread_id: str) -> list[Written]:
        with self._connected() as saver:
            return [Written(*row) for row in saver.conn.execute(WRITTEN, (thread_id,))]

    def pending(self, thread_id: str, ns: str, checkpoint_id: str) -> list[Pending]:
        with self._connected() as saver:
            statement = PENDING.format(task_path="task_path" if saver._has_task_path else "''")
            found = saver.conn.execute(statement, (thread_id, ns, checkpoint_id))
            return [
                Pending(task_id, idx, channel, task_path, (type, value))
                for task_id, idx, channel, task_path, type, value in found
            ]

    def translated(self, error: Exception) -> CheckpointerError | None:
        match error:
            case sqlite3.Error() if "malformed JSON" in str(error):
                return CheckpointCorruptionError(self.where, str(error))
            case sqlite3.Error():
                return meaning(self.where, error)
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

    def _opened(self) -> sqlite3.Connection:
        file = self._options.db_file
        if file == MEMORY_FILE:
            return sqlite3.connect(file, check_same_thread=False)
        path = Path(file)
        if self._read_only:
            if not path.is_file():
                raise no_such_file(self.where, path)
            uri = f"file:{quote(str(path.absolute()))}?mode=ro"
            return sqlite3.connect(uri, uri=True, timeout=0, check_same_thread=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        return sqlite3.connect(file, timeout=0, check_same_thread=False)

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
            if kind(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
