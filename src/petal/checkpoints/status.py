"""What a database holds, told without changing anything in it; and how its tables come to this version's format."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from petal.checkpoints.envelope import Envelope
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.langgraph.savers import driver_missing
from petal.checkpoints.records import CheckpointQuery
from petal.checkpoints.rows import header_place
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.savers import open_checkpointer
from petal.checkpoints.threads import ThreadInfo
from petal.core.config.checkpointer import CheckpointerConfig, PostgresOptions, SqliteOptions
from petal.errors import CheckpointerConfigurationError, CheckpointerError

_PAGE = 10_000

Engine = Literal["petal", "langgraph"]
State = Literal["current", "older", "newer", "langgraph", "empty"]


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What a database holds."""

    where: str
    """The database as a URL, without any password."""
    engine: Engine | None
    """Whose tables are there; Petal's if there are both, None if there are none."""
    format: int | None
    """Format of Petal's tables."""
    known_format: int
    """The format that this version of Petal writes."""
    size: int | None
    """Bytes that the tables, or the file, take on disk."""
    threads: int | None = None
    """How many threads; None where the format is not that of this version."""
    checkpoints: int | None = None
    bytes: int | None = None
    """Bytes that are kept for the threads; None for LangGraph's tables, which count none."""
    encrypted: bool | None = None
    """Whether the newest checkpoint is encrypted; None without any, and for LangGraph's tables."""
    has_langgraphs: bool = False
    """Whether LangGraph's tables are there, be it beside Petal's."""

    @property
    def state(self) -> State:
        """What is to be said of the tables: of this version, of another one, LangGraph's, or none."""
        if self.engine is None:
            return "empty"
        if self.format is None:
            return "langgraph"
        if self.format == self.known_format:
            return "current"
        return "older" if self.format < self.known_format else "newer"


def database_status(config: CheckpointerConfig | str) -> DatabaseStatus:
    """What a database holds; nothing is made, upgraded or otherwise changed.

    Args:
        config: A URL or a config of an SQLite file or a PostgreSQL database. An engine that it names is asked for
            alone.

    Raises:
        CheckpointerUnavailableError: If it does not exist, or cannot be used.
        CheckpointCorruptionError: If it is no database.
        CheckpointerConfigurationError: If it is in memory, where nothing is kept.
    """
    config = CheckpointerConfig.of(config)
    status = _looked_at(config)
    if status.state not in ("current", "langgraph"):
        return status
    with open_checkpointer(config, engine=status.engine, inspect=True) as saver:
        for thread in _threads(saver):
            status = replace(
                status,
                threads=(status.threads or 0) + 1,
                checkpoints=(status.checkpoints or 0) + thread.checkpoints,
                bytes=None if thread.size is None else (status.bytes or 0) + thread.size,
            )
        if status.threads is None:
            status = replace(status, threads=0, checkpoints=0, bytes=0 if isinstance(saver, PetalSaver) else None)
        return replace(status, encrypted=_encrypted(saver)) if isinstance(saver, PetalSaver) else status


def upgrade_database(config: CheckpointerConfig | str) -> tuple[int, int]:
    """Bring Petal's tables in a database to this version's format, as the next run would.

    Returns:
        The format before and after.

    Raises:
        CheckpointerError: If there are no tables of Petal's, or those of a newer one; nothing is changed then.
        CheckpointerUnavailableError: If the database does not exist, or cannot be used.
    """
    config = CheckpointerConfig.of(config)
    before = _looked_at(config)
    if before.format is None:
        raise CheckpointerError(
            f"{before.where} holds no tables of Petal's, so there is nothing to upgrade; a run or `petal convert` "
            "makes them."
        )
    with open_checkpointer(config, engine="petal") as saver:
        saver.threads(1)
    return before.format, before.known_format


def _looked_at(config: CheckpointerConfig) -> DatabaseStatus:
    """Whose tables are there, and their format."""
    options = config.options
    match options:
        case SqliteOptions():
            status = _of_sqlite(options, config.where)
        case PostgresOptions():
            status = _of_postgres(options, config.where)
        case _:
            raise CheckpointerConfigurationError(
                "memory:// is gone when its process ends, so there is nothing to look at; name a file or a "
                "postgresql:// URL."
            )
    if (config.config or {}).get("engine") == "langgraph":
        return replace(status, engine="langgraph" if status.has_langgraphs else None, format=None)
    return status


def _of_sqlite(options: SqliteOptions, where: str) -> DatabaseStatus:
    from petal.checkpoints import sqlite_sql
    from petal.checkpoints.sqlite import LANGGRAPHS, found_in
    from petal.checkpoints.sqlite_errors import no_such_file, unopened

    path = Path(options.db_file)
    if not path.is_file():
        raise no_such_file(where, path)
    try:
        tables, format = found_in(options.db_file)
    except sqlite3.Error as error:
        raise unopened(where, path, error, read_only=True) from error
    langgraphs = tables >= LANGGRAPHS
    engine: Engine | None = "petal" if format else "langgraph" if langgraphs else None
    size = sum(
        os.path.getsize(options.db_file + suffix) for suffix in ("", "-wal") if os.path.exists(options.db_file + suffix)
    )
    return DatabaseStatus(where, engine, format or None, len(sqlite_sql.MIGRATIONS), size, has_langgraphs=langgraphs)


def _of_postgres(options: PostgresOptions, where: str) -> DatabaseStatus:
    try:
        from petal.checkpoints.postgres_migrations import MIGRATIONS
        from petal.checkpoints.postgres_probe import looked_at
    except ImportError as error:
        raise driver_missing(error) from error
    format, langgraphs, size = looked_at(options, where)
    engine: Engine | None = "petal" if format else "langgraph" if langgraphs else None
    return DatabaseStatus(where, engine, format or None, len(MIGRATIONS), size, has_langgraphs=langgraphs)


def _threads(saver: PetalSaver | LangGraphSaver) -> Iterator[ThreadInfo]:
    before = None
    while page := saver.threads(_PAGE, before):
        yield from page
        before = page[-1]


def _encrypted(saver: PetalSaver) -> bool | None:
    newest = saver.read_rows(lambda reader: reader.checkpoints(CheckpointQuery(limit=1)))
    for row in newest:
        try:
            Envelope().open(row.header, header_place(row))
        except CheckpointerConfigurationError:
            return True
        except CheckpointerError:
            return None  # damaged, which is for `verify` to tell
        return False
    return None
