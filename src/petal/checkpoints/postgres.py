"""The PostgreSQL storage: Petal's tables in a database of many processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, product
from typing import Any, TypeVar

import psycopg
from psycopg import Connection, errors
from psycopg.rows import TupleRow

from petal.checkpoints import postgres_sql as sql
from petal.checkpoints.postgres_connections import COMMIT, PostgresConnections, committed
from petal.checkpoints.postgres_migrations import LEASE_LOST, ORPHANED, STALE, migrate, require_current
from petal.checkpoints.postgres_rows import UNKNOWN, Batch
from petal.checkpoints.postgres_sql import Statements, key
from petal.checkpoints.records import (
    CheckpointQuery,
    CheckpointRow,
    Glimpse,
    Head,
    LeaseRow,
    OrphanedSave,
    Save,
    StaleSave,
    ValueRow,
    WouldWaitError,
    WriteRow,
    heads_of,
)
from petal.checkpoints.threads import ThreadInfo, ThreadQuery, made_at
from petal.core.config.checkpointer import PostgresOptions
from petal.errors import CheckpointerUnavailableError

T = TypeVar("T")


class PostgresStore:
    """State in a PostgreSQL database.

    Methods block; each may be called from any thread, and reads run side by side on the pool's connections.

    Args:
        options: How to reach the database, and the schema of the tables.
        where: The database as a URL, without any password.
        read_only: Change nothing, not even the format; a role that may only read can do that.

    Raises:
        CheckpointerConfigurationError: If the connection string cannot be read.
    """

    is_immediate = False

    def __init__(self, options: PostgresOptions, where: str, *, read_only: bool = False) -> None:
        self.where = where
        self._read_only = read_only
        self.readers = max(1, options.max_size - 1)  # one connection is left to the journal
        self._schema = options.db_schema
        self._named = "engine" in options.model_fields_set
        self._connections = PostgresConnections(options, where)
        self._statements = Statements(options.db_schema or "")

    def open(self) -> None:
        try:
            with self._connections.beside() as connection:
                self._statements = Statements(self._home(connection))
                if self._read_only:
                    require_current(connection, self._statements, self.where)
                else:
                    migrate(
                        connection,
                        self._statements,
                        self.where,
                        schema=self._schema,
                        beside_langgraphs=self._named,
                    )
            self._connections.open()
        except psycopg.Error as error:
            raise self.translated(error) or error from error

    def close(self) -> None:
        self._connections.close()

    def commit(self, saves: Sequence[Save]) -> None:
        # One round trip: all statements are sent before the first answer is read. It may be made again if the
        # connection is lost, even between COMMIT and its answer: what it writes is named by keys that belong to
        # these saves alone, so rows that are there already are replaced by themselves and not counted again. If the
        # server is still busy with the first one, the second waits for its locks, and then sees its rows.
        batch = Batch.of(saves)
        if not batch.threads and not batch.has_turns:
            return
        self._refuse_changes()
        with _refusals():
            self._connections.tried(lambda connection: self._committed(connection, batch))

    @contextmanager
    def transaction(self) -> Iterator[PostgresTransaction]:
        self._refuse_changes()
        with self._connections.begun(sql.BEGIN_WRITE) as connection:
            yield PostgresTransaction(connection, self._statements)

    @contextmanager
    def reader(self) -> Iterator[PostgresReader]:
        with self._connections.begun(sql.BEGIN_READ) as connection:
            yield PostgresReader(connection, self._statements)

    def read(self, ask: Callable[[PostgresReader], T]) -> T:
        return self._connections.tried(lambda connection: self._asked(connection, ask))

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        # One statement sees one moment, so nothing needs to be begun or ended.
        return self._connections.tried(lambda connection: PostgresReader(connection, self._statements).heads(places))

    def glance(self, place: tuple[str, str]) -> Glimpse | None:
        raise WouldWaitError  # there is a network between

    def translated(self, error: Exception) -> Exception | None:
        return self._connections.translated(error)

    def _home(self, connection: Connection[TupleRow]) -> str:
        """The schema of the tables."""
        schema, read_only = connection.execute(sql.SITUATION).fetchone() or (None, None)
        if read_only == "on" and not self._read_only:
            raise errors.ReadOnlySqlTransaction("the server, the database or the user is set to read only")
        if self._schema is None and schema is None:
            raise errors.InvalidSchemaName("no schema of the search path exists; name one with the option 'schema'")
        return self._schema or schema

    def _refuse_changes(self) -> None:
        if self._read_only:
            raise CheckpointerUnavailableError(
                self.where, "it was opened only to be looked at", "Open it without inspect to change it"
            )

    def _committed(self, connection: Connection[TupleRow], batch: Batch) -> None:
        with connection.pipeline():
            connection.execute(sql.BEGIN_WRITE)
            _write(connection, self._statements, batch)
            commit = connection.execute(COMMIT)
        committed(commit)

    def _asked(self, connection: Connection[TupleRow], ask: Callable[[PostgresReader], T]) -> T:
        reader = PostgresReader(connection, self._statements, begin=sql.BEGIN_READ)
        answer = ask(reader)
        connection.commit()
        return answer


class PostgresReader:
    """Reads rows on one snapshot of the database."""

    def __init__(self, connection: Connection[TupleRow], statements: Statements, begin: bytes | None = None) -> None:
        self._connection, self._statements = connection, statements
        self._before = [begin] if begin else []
        """Sent along with the next statement."""
        self._by_index = False

    def checkpoint(self, thread_id: str, ns: str, id: str | None) -> CheckpointRow | None:
        found = self.checkpoints(CheckpointQuery(thread_id=thread_id, ns=ns, id=id, limit=1))
        return found[0] if found else None

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        threads, namespaces = [thread_id for thread_id, _ in places], [ns for _, ns in places]
        return heads_of(self._rows(sql.HEADS_WITH_WRITES, (threads, namespaces)))

    def checkpoints(self, query: CheckpointQuery) -> list[CheckpointRow]:
        # The planner begins with a label's index or with that of checkpoints, whichever gives the page sooner.
        labelled = "".join(sql.LABELLED.replace("{l}", f"l{number}") for number in range(len(query.labels)))
        after = query.after
        conditions: list[tuple[str, Any]] = [
            ("c.thread_id = %b", query.thread_id),
            ("c.ns = %b", query.ns),
            ("c.id = %b", query.id),
            ("c.id < %b", query.before),
            ("c.source = %b", query.source),
            ("c.step = %b", query.step),
            ("c.run_id = %b", query.run_id),
            ("c.id <= %b", after and after[0]),  # which an index of ids within a thread can begin with
            ("(c.id, c.thread_id, c.ns) < (%b, %b, %b)", after),
        ]
        # A page for each choice of one label a group: of "either label" the planner would read all that there is.
        select = sql.CHECKPOINTS + labelled
        pages = [_page(select, labels, conditions, sql.NEWEST, query.limit) for labels in product(*query.labels)]
        if not pages:
            return []
        if labelled and not self._by_index:
            self._before.append(sql.BY_INDEX)
            self._by_index = True
        statement, parameters = pages[0]
        if len(pages) > 1:
            statement = " UNION ".join(f"({select})" for select, _ in pages) + f" {sql.NEWEST_OF_ALL}"
            parameters = [*chain.from_iterable(parameters for _, parameters in pages), query.limit]
        return [CheckpointRow(*row) for row in self._rows(statement, parameters)]

    def chains(self, thread_id: str, ns: str, chains: Sequence[tuple[str, str]]) -> list[ValueRow]:
        channels, roots = [channel for channel, _ in chains], [root for _, root in chains]
        wanted = {"thread": thread_id, "ns": ns, "channels": channels, "roots": roots}
        return [ValueRow(*row) for row in self._rows(sql.CHAINS, wanted)]

    def values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> list[ValueRow]:
        channels, wanted = [channel for channel, _ in versions], [version for _, version in versions]
        named = {"thread": thread_id, "ns": ns, "channels": channels, "versions": wanted}
        return [ValueRow(*row) for row in self._rows(sql.VALUES, named)]

    def writes(self, thread_id: str, ns: str, checkpoint_ids: Sequence[str]) -> list[WriteRow]:
        return [WriteRow(*row) for row in self._rows(sql.WRITES, (thread_id, ns, list(checkpoint_ids)))]

    def strays(self, thread_id: str) -> list[WriteRow]:
        return [WriteRow(*row) for row in self._rows(sql.STRAYS, (thread_id,))]

    def notes(self, thread_id: str, channel: str) -> list[WriteRow]:
        return [WriteRow(*row) for row in self._rows(sql.NOTES, (thread_id, channel))]

    def leases(self, thread_id: str) -> list[LeaseRow]:
        return [LeaseRow(*row) for row in self._rows(sql.LEASES, (thread_id,))]

    def wishes(self, process: str) -> list[LeaseRow]:
        return [LeaseRow(*row) for row in self._rows(sql.WISHES, (process,))]

    def threads(self, query: ThreadQuery) -> list[ThreadInfo]:
        before = query.before
        conditions: list[tuple[str, Any]] = [
            ("status = %b", query.status),
            ("thread_id = %b", query.thread_id),
            ("strpos(thread_id, %b) > 0", query.search),
            ("(updated, thread_id) < (%b, %b)", before and (before.updated, before.thread_id)),
        ]
        found = self._rows(*_page(sql.THREADS, (), conditions, sql.LATEST, query.limit))
        return [
            ThreadInfo(id, checkpoints, _known(updated), head, status, size, _known(created))
            for id, checkpoints, updated, head, status, size, created in found
        ]

    def _rows(self, statement: str, parameters: Sequence[Any] | dict[str, Any]) -> list[TupleRow]:
        with self._connection.cursor(binary=True) as cursor:
            if not self._before:
                cursor.execute(self._statements[statement], parameters)
            else:
                with self._connection.pipeline():
                    for first in self._before:
                        self._connection.execute(first)
                    cursor.execute(self._statements[statement], parameters)
                self._before.clear()
            return cursor.fetchall()


class PostgresTransaction(PostgresReader):
    """Reads and changes rows. Whatever it looks at or changes of a thread is locked until its end."""

    def __init__(self, connection: Connection[TupleRow], statements: Statements) -> None:
        super().__init__(connection, statements)
        self._locked: set[str] = set()

    def heads(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Head]:
        self._lock(*(thread_id for thread_id, _ in places))
        return super().heads(places)

    def checkpoints(self, query: CheckpointQuery) -> list[CheckpointRow]:
        if query.thread_id is not None:
            self._lock(query.thread_id)
        return super().checkpoints(query)

    def chains(self, thread_id: str, ns: str, chains: Sequence[tuple[str, str]]) -> list[ValueRow]:
        self._lock(thread_id)
        return super().chains(thread_id, ns, chains)

    def writes(self, thread_id: str, ns: str, checkpoint_ids: Sequence[str]) -> list[WriteRow]:
        self._lock(thread_id)
        return super().writes(thread_id, ns, checkpoint_ids)

    def save(self, save: Save) -> None:
        batch = Batch.of([save])
        if batch.threads or batch.has_turns:
            with _refusals():
                _write(self._connection, self._statements, batch)

    def leases(self, thread_id: str) -> list[LeaseRow]:
        self._lock(thread_id)
        return super().leases(thread_id)

    def grant(self, lease: LeaseRow) -> None:
        self._change(lease.thread_id, (sql.GRANT, (lease.thread_id, lease.owner)))

    def ask(self, lease: LeaseRow, wish: str) -> None:
        self._change(lease.thread_id, (sql.ASK, (wish, lease.thread_id, lease.owner)))

    def revoke(self, lease: LeaseRow) -> None:
        self._change(lease.thread_id, (sql.REVOKE, (lease.thread_id, lease.owner)))

    def claim(self, task: str) -> bool:
        # No thread's id begins with a NUL, so no thread's lock is meant.
        ((is_alone,),) = self._rows(sql.CLAIM, (key(self._statements.schema, f"\0{task}"),))
        return bool(is_alone)

    def namespaces(self, thread_id: str) -> list[str]:
        self._lock(thread_id)
        return [ns for (ns,) in self._rows(sql.NAMESPACES, (thread_id,))]

    def all_values(self, thread_id: str, ns: str) -> list[ValueRow]:
        self._lock(thread_id)
        return [ValueRow(*row) for row in self._rows(sql.ALL_VALUES, (thread_id, ns))]

    def labels(self, thread_id: str, ns: str, id: str) -> tuple[bytes, ...]:
        self._lock(thread_id)
        return tuple(label for (label,) in self._rows(sql.LABELS, (thread_id, ns, id)))

    def threads_of_runs(self, run_ids: Sequence[str]) -> list[tuple[str, str, str]]:
        found = self._rows(sql.THREADS_OF_RUNS, (list(run_ids),))
        self._lock(*{thread_id for thread_id, _, _ in found})
        return [(thread_id, ns, id) for thread_id, ns, id in self._rows(sql.THREADS_OF_RUNS, (list(run_ids),))]

    def delete_thread(self, thread_id: str) -> None:
        self._change(thread_id, *((statement, (thread_id,)) for statement in sql.DELETE_THREAD))

    def delete_checkpoints(self, thread_id: str, ns: str, ids: Sequence[str]) -> None:
        self._change(thread_id, *((statement, (thread_id, ns, list(ids))) for statement in sql.DELETE_CHECKPOINTS))

    def delete_values(self, thread_id: str, ns: str, versions: Sequence[tuple[str, str]]) -> None:
        channels, names = [channel for channel, _ in versions], [version for _, version in versions]
        wanted = {"thread": thread_id, "ns": ns, "channels": channels, "versions": names}
        self._change(thread_id, (sql.DELETE_VALUES, wanted))

    def recount(self, thread_id: str) -> None:
        self._lock(thread_id)
        ((count, head, first, last, size),) = self._rows(sql.COUNTED, {"thread": thread_id})
        if count:
            times = made_at(first) or UNKNOWN, made_at(last) or UNKNOWN  # of an entry that is there already, they stay
            self._change(thread_id, (sql.RECOUNT, (thread_id, head, count, int(size), *times)))
        else:
            self._change(thread_id, (sql.FORGET, (thread_id,)))

    def _lock(self, *thread_ids: str) -> None:
        wanted = sorted(set(thread_ids) - self._locked)
        if wanted:
            self._connection.execute(self._statements[sql.LOCK], (_keys(self._statements, wanted),))
            self._locked.update(wanted)

    def _change(self, thread_id: str, *changes: tuple[str, Any]) -> None:
        with self._connection.pipeline():
            self._lock(thread_id)
            for statement, parameters in changes:
                self._connection.execute(self._statements[statement], parameters)


def _write(connection: Connection[TupleRow], statements: Statements, batch: Batch) -> None:
    if batch.has_turns and batch.threads:
        # All at once, since two transactions that lock some threads twice might wait for each other.
        every = sorted({*batch.threads, *batch.turning})
        connection.execute(statements[sql.LOCK], (_keys(statements, every),))
    if batch.threads:
        connection.execute(statements[sql.SAVE], (_keys(statements, batch.threads), *batch.parameters))
    if batch.has_turns:
        connection.execute(statements[sql.TAKE_TURNS], (_keys(statements, batch.turning), *batch.turns))


def _page(
    select: str, first: Sequence[Any], conditions: Sequence[tuple[str, Any]], order: str, limit: int
) -> tuple[str, list[Any]]:
    """A select of the rows for which all conditions hold whose value is not None, and its parameters."""
    wanted = [(text, value) for text, value in conditions if value is not None]
    where = " AND ".join(text for text, _ in wanted) or "true"
    parameters = [*first]
    for _, value in wanted:
        parameters += value if isinstance(value, tuple) else (value,)
    return f"{select} WHERE {where} {order}", [*parameters, limit]


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == ORPHANED:
            raise OrphanedSave from error
        if error.sqlstate in (STALE, LEASE_LOST):
            raise StaleSave(lost=error.sqlstate == LEASE_LOST) from error
        raise


def _keys(statements: Statements, thread_ids: Sequence[str]) -> list[int]:
    return [key(statements.schema, thread_id) for thread_id in thread_ids]


def _known(moment: datetime) -> datetime | None:
    return None if moment == UNKNOWN else moment.astimezone(UTC)
