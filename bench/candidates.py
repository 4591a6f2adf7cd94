"""What is compared: no checkpointer, the floor, the least of a durable saver, LangGraph's savers and Petal's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver

Saver = BaseCheckpointSaver[Any]
Storage = Literal["none", "memory", "sqlite", "postgres"]

POOL = 10
"""Connections that a PostgreSQL saver may have."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to keep state, or none.

    Attributes:
        name: What `--candidates` calls it.
        title: What the report calls it.
        storage: Where the state lies; what is in memory is gone when the saver is closed.
        open: Opens a saver, ready for use, on a file or a database's URL.
    """

    name: str
    title: str
    storage: Storage
    open: Callable[[str], AbstractAsyncContextManager[Saver | None]]

    @property
    def is_durable(self) -> bool:
        """Whether another saver can find what this one kept."""
        return self.storage in ("sqlite", "postgres")


@asynccontextmanager
async def _nothing(place: str) -> AsyncIterator[None]:
    yield None


@asynccontextmanager
async def _floor(place: str) -> AsyncIterator[Saver]:
    from bench.floor import ReferenceSaver

    yield ReferenceSaver()


@asynccontextmanager
async def _least_sqlite(place: str) -> AsyncIterator[Saver]:
    from bench.least import least_on_sqlite

    with least_on_sqlite(place) as saver:
        yield saver


@asynccontextmanager
async def _least_postgres(place: str) -> AsyncIterator[Saver]:
    from bench.least import least_on_postgres

    with least_on_postgres(place) as saver:
        yield saver


@asynccontextmanager
async def _langgraph_memory(place: str) -> AsyncIterator[Saver]:
    from langgraph.checkpoint.memory import InMemorySaver

    yield InMemorySaver()


@asynccontextmanager
async def _langgraph_sqlite(place: str) -> AsyncIterator[Saver]:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(place) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def _langgraph_postgres(place: str) -> AsyncIterator[Saver]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    settings: dict[str, Any] = {
        "autocommit": True,
        "prepare_threshold": 0,
        "row_factory": dict_row,
    }  # as its documentation has it
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(place, min_size=1, max_size=POOL, kwargs=settings, open=False)
    async with pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


@asynccontextmanager
async def _petal_memory(place: str) -> AsyncIterator[Saver]:
    from petal.checkpoints import MemorySaver

    async with MemorySaver() as saver:
        yield saver


@asynccontextmanager
async def _petal_sqlite(place: str) -> AsyncIterator[Saver]:
    from petal.checkpoints import SqliteSaver

    async with SqliteSaver(place) as saver:
        yield saver


@asynccontextmanager
async def _petal_postgres(place: str) -> AsyncIterator[Saver]:
    from petal.checkpoints import PostgresSaver

    async with PostgresSaver(place, max_size=POOL) as saver:
        yield saver


CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate("none", "no checkpointer", "none", _nothing),
        Candidate("floor", "floor", "memory", _floor),
        Candidate("least-sqlite", "least on SQLite", "sqlite", _least_sqlite),
        Candidate("least-postgres", "least on Postgres", "postgres", _least_postgres),
        Candidate("lg-memory", "LangGraph memory", "memory", _langgraph_memory),
        Candidate("lg-sqlite", "LangGraph SQLite", "sqlite", _langgraph_sqlite),
        Candidate("lg-postgres", "LangGraph Postgres", "postgres", _langgraph_postgres),
        Candidate("petal-memory", "Petal memory", "memory", _petal_memory),
        Candidate("petal-sqlite", "Petal SQLite", "sqlite", _petal_sqlite),
        Candidate("petal-postgres", "Petal Postgres", "postgres", _petal_postgres),
    )
}
