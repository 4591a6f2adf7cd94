"""Connections to a PostgreSQL server: a pool, how a lost connection is replaced, what an error means."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import Connection, Cursor, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from petal.core.config.checkpointer import PostgresOptions, redacted
from petal.errors import CheckpointerConfigurationError, CheckpointerError, CheckpointerUnavailableError

T = TypeVar("T")

# No named prepared statements: a pooler such as pgbouncer may run each transaction on another connection.
SETTINGS: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}

COMMIT = b"COMMIT"

_ASKED = re.compile(r" Is the server running [^?]*\?$")
"""What libpq asks at the end, which the hint says too."""

TRIES = 4
"""A server that goes down breaks its connections one by one, so the one that is taken next may be the next to break."""
ASK_AGAIN = 0.5
"""Seconds after which a pool that has no connection is asked again."""

SAFE_TO_QUOTE = ("invalid connection option", "invalid URI query parameter")
LOST = "Check host and port and that the server runs, then go on; what was saved before is safe"
AGAIN = "Two changes were in each other's way and the server undid this one; do it again"
HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("28",), "Check the user and the password in the connection string"),
    (("3D",), "Create the database, or name another one in the connection string"),
    (("53300",), "Close other connections, lower max_size, or raise the server's max_connections"),
    (("53200",), "The server has no memory or locks left; raise its max_locks_per_transaction, or write less at once"),
    (("53100",), "Free some space on the server and go on; what was saved before is safe"),
    (("25006",), "Connect to a server or a database that may be written to"),
    (("42501", "3F"), "Let the database's owner make the tables once, or grant the rights to this user"),
    (("42P01", "42703"), "The tables were changed or dropped while in use; open the checkpointer anew"),
    (("40",), AGAIN),
    (
        ("57014",),
        "The server ends what takes longer than its statement_timeout; raise it for this user, or save less at once",
    ),
    (("55P03",), "Another process has been making the tables for long; look what it waits for, then open again"),
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


class PostgresConnections:
    """A pool of connections to one database. Each runs in autocommit: whoever wants a transaction says BEGIN."""

    def __init__(self, options: PostgresOptions, where: str) -> None:
        self.where = where
        self._conninfo = conninfo(options, where)
        self._patience = options.connect_timeout
        self._pool = ConnectionPool(
            self._conninfo,
            kwargs=SETTINGS,
            connection_class=Connection[TupleRow],
            min_size=options.min_size,
            max_size=options.max_size,
            reconnect_timeout=0,  # see `_taken`
            name="petal-checkpoints",
            open=False,
        )

    def open(self) -> None:
        """Begin to connect. A pool hides why it has no connection: use `beside` once before."""
        self._pool.open()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    @contextmanager
    def beside(self) -> Iterator[Connection[TupleRow]]:
        """A connection that is not of the pool."""
        with Connection[TupleRow].connect(self._conninfo, **SETTINGS) as connection:
            yield connection

    def tried(self, work: Callable[[Connection[TupleRow]], T]) -> T:
        """`work(connection)`; if the connection is lost meanwhile, again on another one.

        For work that may be done twice. A transaction that the server undid is also tried again.
        """

        def act() -> T:
            with self._lent() as connection:
                return work(connection)

        return self._again(act)

    @contextmanager
    def begun(self, begin: bytes) -> Iterator[Connection[TupleRow]]:
        """A connection on which a transaction was begun; since nothing else was done yet, a dead one is replaced.

        The transaction is committed at the end of the block, and rolled back if the block raises.
        """
        connection = self._again(lambda: self._begun(begin))
        try:
            with ended(connection):
                yield connection
        finally:
            self._pool.putconn(connection)

    def translated(self, error: Exception) -> CheckpointerError | None:
        """The typed error that a driver's error stands for; None if it is none of a driver's."""
        match error:
            case PoolClosed():
                return CheckpointerUnavailableError.closed(self.where)
            case PoolTimeout():
                return unavailable(self.where, self._why(error))
            case errors.CharacterNotInRepertoire() if "0x00" in str(error):
                return CheckpointerError(
                    f"{self.where}: PostgreSQL keeps no NUL character (\\0) in a thread id, a namespace or any other "
                    "name; use another id."
                )
            case (
                psycopg.OperationalError()
                | psycopg.InterfaceError()
                | psycopg.InternalError()
                | psycopg.ProgrammingError()
            ):
                return unavailable(self.where, error)
            case psycopg.Error():
                return CheckpointerError(f"{self.where}: {words(error)}.")
            case UnicodeEncodeError():
                return CheckpointerError.no_text(self.where, error)
            case _:
                return None

    def _again(self, act: Callable[[], T]) -> T:
        for _ in range(TRIES - 1):
            try:
                return act()
            except psycopg.Error as error:
                if not self._recovered(error):
                    raise
        return act()

    @contextmanager
    def _lent(self) -> Iterator[Connection[TupleRow]]:
        connection = self._taken()
        try:
            with connection:  # which rolls back after an error, and does not close what belongs to a pool
                yield connection
        finally:
            self._pool.putconn(connection)

    def _begun(self, begin: bytes) -> Connection[TupleRow]:
        connection = self._taken()
        try:
            connection.execute(begin)
        except BaseException:
            self._pool.putconn(connection)
            raise
        return connection

    def _taken(self) -> Connection[TupleRow]:
        """A connection of the pool.

        It is asked for again and again: a pool itself would try a server that was away for a minute less than once
        in a minute, and so would not notice for long that it is back. Asked anew, it tries at once.
        """
        end = time.monotonic() + self._patience
        while (left := end - time.monotonic()) > 0:
            with suppress(PoolTimeout):
                return self._pool.getconn(min(left, ASK_AGAIN))
        raise PoolTimeout(f"no connection was to be had for {self._patience:g} s")

    def _recovered(self, error: psycopg.Error) -> bool:
        """Whether it is worth while to try again, now that dead connections are gone."""
        match error:
            case PoolTimeout() | PoolClosed():
                return False
            case errors.SerializationFailure() | errors.DeadlockDetected():
                return True  # the server undid it
            case psycopg.OperationalError() | psycopg.InterfaceError() if lost(error):
                self._pool.check()  # dead connections are replaced by fresh ones
                return True
            case _:
                return False

    def _why(self, timeout: PoolTimeout) -> psycopg.Error:
        """The reason why the pool had no connection."""
        try:
            with self.beside():
                return timeout
        except psycopg.Error as error:
            return error


@contextmanager
def ended(connection: Connection[TupleRow]) -> Iterator[None]:
    """Commits the transaction that was begun, or rolls it back if the block raises."""
    try:
        yield
        committed(connection.execute(COMMIT))
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise


def committed(cursor: Cursor[TupleRow]) -> None:
    """Look at the answer to COMMIT: after an error that nobody raised, the server rolls back and calls that a success.

    Raises:
        psycopg.InternalError: If it was rolled back.
    """
    if cursor.statusmessage != "COMMIT":
        raise errors.InFailedSqlTransaction("the transaction was rolled back since a statement in it had failed")


def conninfo(options: PostgresOptions, where: str) -> str:
    """What libpq is given.

    Raises:
        CheckpointerConfigurationError: If the connection string cannot be read.
    """
    given = options.connection_string.get_secret_value()
    try:
        defaults: dict[str, str | int] = {
            "connect_timeout": math.ceil(options.connect_timeout),
            "application_name": "petal",
            "client_encoding": "UTF8",  # or an id may not fit what the server's own encoding can say
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


def lost(error: psycopg.Error) -> bool:
    """Whether the connection broke: then the server said nothing, or that it ends the connection."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P", "25P03", "25P04"))


def words(error: psycopg.Error) -> str:
    """The problem in the server's words, on one line, without a password."""
    text = " ".join((error.diag.message_primary or str(error)).split())
    return redacted(_ASKED.sub("", text)).rstrip(".")


def unavailable(where: str, error: psycopg.Error) -> CheckpointerUnavailableError:
    """The error of a database that cannot be used, with what to do about it."""
    problem = words(error)
    state = error.sqlstate or next((state for words, state in UNSAID if words in problem), "")
    if isinstance(error, PoolTimeout):
        hint = "All connections are in use; raise max_size, or use the checkpointer less at once"
    else:
        hint = next((hint for states, hint in HINTS if state.startswith(states)), LOST)
    return CheckpointerUnavailableError(where, problem, hint)
