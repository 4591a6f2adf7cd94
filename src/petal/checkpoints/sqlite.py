"""The store in one SQLite file: its connections, its format, what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock, RLock, Semaphore
from typing import TypeVar
from urllib.parse import quote

from petal.checkpoints import sqlite_sql as sql
from petal.checkpoints.records import Glimpse, Head, Reader, Save, Transaction, WouldWaitError
from petal.checkpoints.sqlite_errors import kind, meaning, no_such_file, unopened
from petal.checkpoints.sqlite_rows import SqliteReader, SqliteTransaction
from petal.core.config.checkpointer import MEMORY_FILE, SqliteOptions
from petal.errors import CheckpointerError, CheckpointerUnavailableError, PetalError

T = TypeVar("T")

PAGE_BYTES = 4096
STATEMENTS = 256
"""How many a connection keeps prepared: more than there are."""
INCREMENTAL = 2
"""What `PRAGMA auto_vacuum` says where space can be given back bit by bit."""
BEGIN = "BEGIN IMMEDIATE"
GIVE_BACK = "BEGIN IMMEDIATE; PRAGMA incremental_vacuum(512); COMMIT"
"""Of so many free pages at a time, so that no other process waits for long."""
LANGGRAPHS = {"checkpoints", "writes"}
"""The tables of LangGraph's saver."""
WAL_PAGES = 4000
"""How long the write-ahead log grows before its pages go into the file; SQLite's own 1000 cost a quarter more time."""


class SqliteStore:
    """State in one SQLite file, or in memory.

    One connection writes. Up to `readers` others read, each from a moment of its own, and neither waits for the
    other; only `:memory:` has a single connection, which a reader holds until its block ends.

    Args:
        options: The file, how long to wait for another process that is writing, and what a power cut may take.
        where: The file as a URL.
        read_only: Change nothing, not even the format; a file that is missing is an error.
    """

    readers = 4
    is_immediate = False

    def __init__(self, options: SqliteOptions, where: str, *, read_only: bool = False) -> None:
        self.where = where
        self._path = Path(options.db_file)
        self._in_memory = options.db_file == MEMORY_FILE
        self._number = 0
        self._patience = options.busy_timeout
        self._synchronous = options.synchronous
        self._read_only = read_only
        self._writing = RLock()
        self._writer: sqlite3.Connection | None = None
        self._room = Semaphore(self.readers)
        self._pool = Lock()
        self._idle: list[sqlite3.Connection] = []
        self._glancing = Lock()
        self._glance: sqlite3.Connection | None = None

    def open(self) -> None:
        try:
            # Connections that come later are to the same file, wherever the process is then, or a link leads.
            self._path = Path(os.path.realpath(self._path))
            if not self._in_memory and not self._read_only:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing:
                self._writer = self._prepared()
                self._number = self._number_here()
        except sqlite3.Error as error:
            raise unopened(self.where, self._path, error, read_only=self._read_only) from error
        except PetalError:
            raise  # some of which are OSErrors
        except OSError as error:
            hint = "Check that its folder can be made and written to, or name another file"
            raise CheckpointerUnavailableError(self.where, f"{error.strerror}: {error.filename}", hint) from error

    def close(self) -> None:
        with self._writing, self._pool, self._glancing:
            writer, self._writer = self._writer, None
            if self._glance is not None:
                self._glance.close()
            for connection in self._idle:
                connection.close()
            self._idle.clear()
            if writer is not None:
                writer.close()  # the last one, so that it can put the write-ahead log away

    def commit(self, saves: Sequence[Save]) -> None:
        with self._changing() as connection:
            transaction = SqliteTransaction(connection)
            if not transaction.add_all(saves):
                connection.rollback()
                self._patiently(connection, BEGIN)
                transaction.save_all(saves)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._changing() as connection:
            transaction = SqliteTransaction(connection)
            yield transaction
        if transaction.freed:
            self._give_back()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with self._shared() if self._in_memory else self._pooled() as connection:
            yield SqliteReader(connection)

    def read(self, ask: Callable[[Reader], T]) -> T:
        with self.reader() as reader:
            return ask(reader)

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        return self.read(lambda reader: reader.heads(places))

    def glance(self, place: tuple[str, str]) -> Glimpse | None:
        lock = self._writing if self._in_memory else self._glancing
        if not lock.acquire(blocking=False):
            raise WouldWaitError
        try:
            return SqliteReader(self._glanced()).glance(place)
        except sqlite3.Error as error:
            raise WouldWaitError from error
        finally:
            lock.release()

    def translated(self, error: Exception) -> Exception | None:
        if isinstance(error, UnicodeEncodeError):
            return CheckpointerError.no_text(self.where, error)
        return meaning(self.where, error) if isinstance(error, sqlite3.Error) else None

    def _connected(self, mode: str, patience: float) -> sqlite3.Connection:
        if mode == "ro" and not self._path.is_file():
            raise no_such_file(self.where, self._path)
        return sqlite3.connect(
            MEMORY_FILE if self._in_memory else f"file:{quote(str(self._path))}?mode={mode}",
            uri=not self._in_memory,
            timeout=patience,
            isolation_level=None,  # transactions begin where this module says so
            check_same_thread=False,  # whoever holds the lock, or the connection from the pool, uses it alone
            cached_statements=STATEMENTS,
        )

    def _prepared(self) -> sqlite3.Connection:
        """The writing connection, to tables of this version."""
        connection = self._connected("ro" if self._read_only else "rwc", self._patience)
        try:
            if not self._read_only:
                # Both count only where there is nothing yet.
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                # SQLite does not wait for others when it goes over to WAL, so this does.
                self._patiently(connection, "PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                connection.execute("PRAGMA fullfsync = ON")  # macOS: else it stays in the drive's own memory
                connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
                connection.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * PAGE_BYTES}")
            self._upgrade(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        if self._format(connection) == len(sql.MIGRATIONS):
            return  # without the lock, which another process may hold for long
        if self._read_only:
            raise CheckpointerError(
                f"{self.where} has no tables of this version of Petal: nothing was kept in it yet, or by an older one. "
                "A run makes them."
            )
        with self._transaction(connection):
            connection.execute(sql.META)
            done = self._format(connection)
            for number, statements in enumerate(sql.MIGRATIONS[done:], done + 1):
                for statement in statements:
                    connection.execute(statement)
                connection.execute(sql.SET_FORMAT, (number,))

    def _format(self, connection: sqlite3.Connection) -> int:
        """Version of the tables; 0 without any.

        Raises:
            CheckpointerError: If a newer Petal made them.
        """
        if connection.execute(sql.HAS_META).fetchone() is None:
            return 0
        found = connection.execute(sql.FORMAT).fetchone()
        number = int(found[0]) if found else 0
        if number > len(sql.MIGRATIONS):
            raise CheckpointerError(
                f"{self.where} was written by a newer Petal: it has format {number}, and this one knows formats up to "
                f"{len(sql.MIGRATIONS)}. Upgrade petal, or name another file."
            )
        return number

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._shared() as connection:
            if self._number_here() != self._number:
                # Its connections would go on with the one that has no name any more.
                problem = "the file was removed, moved or replaced while it was open"
                raise CheckpointerUnavailableError(self.where, problem, "Put it back, or restart what has it open")
            with self._transaction(connection):
                yield connection

    def _number_here(self) -> int:
        """By which the system knows the file that has the name now; 0 if there is none."""
        try:
            return 0 if self._in_memory else os.stat(self._path).st_ino
        except OSError:
            return 0

    @contextmanager
    def _shared(self) -> Iterator[sqlite3.Connection]:
        """The writing connection, for this thread alone."""
        with self._writing:
            if self._writer is None:
                raise CheckpointerUnavailableError.closed(self.where)
            yield self._writer

    @contextmanager
    def _pooled(self) -> Iterator[sqlite3.Connection]:
        """A reading connection, in a transaction that sees one moment."""
        if not self._room.acquire(timeout=self._patience):
            problem = f"all {self.readers} reading connections have been in use for {self._patience:g} s"
            raise CheckpointerUnavailableError(self.where, problem, "End a read before the next begins")
        try:
            connection = self._taken()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.rollback()
                self._returned(connection)
        finally:
            self._room.release()

    def _taken(self) -> sqlite3.Connection:
        with self._pool:
            if self._writer is None:
                raise CheckpointerUnavailableError.closed(self.where)
            if self._idle:
                return self._idle.pop()
        return self._reading(self._patience)

    def _reading(self, patience: float) -> sqlite3.Connection:
        connection = self._connected("ro" if self._read_only else "rw", patience)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _glanced(self) -> sqlite3.Connection:
        """A connection that reads in one statement, and never waits for a lock."""
        if self._writer is None:
            raise WouldWaitError  # it is closed, which a read says
        if self._in_memory:
            return self._writer
        if self._glance is None:
            self._glance = self._reading(patience=0)
        return self._glance

    def _returned(self, connection: sqlite3.Connection) -> None:
        with self._pool:
            if self._writer is None:
                connection.close()
            else:
                self._idle.append(connection)

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        self._patiently(connection, BEGIN)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def _patiently(self, connection: sqlite3.Connection, statement: str) -> None:
        """Runs it, again and again while another connection is in the way."""
        deadline, pause = time.monotonic() + self._patience, 0.001
        while True:
            try:
                connection.execute(statement)
            except sqlite3.OperationalError as error:
                if kind(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 0.05)
            else:
                return

    def _give_back(self) -> None:
        """Returns the space of deleted rows to the file system, in steps between which other processes get in."""
        # The change is durable. What is not given back now, since the disk is full or another process writes, will be
        # after the next one, and new rows take it until then.
        with self._shared() as connection, suppress(sqlite3.Error):
            if connection.execute("PRAGMA auto_vacuum").fetchone() != (INCREMENTAL,):
                return  # made by another program; it would have to be written anew as a whole
            try:
                while connection.execute("PRAGMA freelist_count").fetchone() != (0,):
                    connection.executescript(GIVE_BACK)  # execute() would take one page and no more
            finally:
                connection.rollback()
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # only then the file becomes smaller


def holds_langgraphs_tables(db_file: str) -> bool:
    """Whether a file holds tables of LangGraph's saver and none of ours; it is only looked at."""
    if db_file == MEMORY_FILE or not Path(db_file).is_file():
        return False
    try:
        tables, _ = found_in(db_file)
    except sqlite3.Error:
        return False  # what is wrong with it is said when it is opened
    return tables >= LANGGRAPHS and "petal_meta" not in tables


def found_in(db_file: str) -> tuple[set[str], int]:
    """The tables of a file, and the format of Petal's, be it a newer one; 0 without them. It is only looked at."""
    with closing(sqlite3.connect(f"file:{quote(str(Path(db_file).absolute()))}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        format = connection.execute(sql.FORMAT).fetchone() if "petal_meta" in tables else None
    return tables, int(format[0]) if format else 0
