"""The least that waiting for a disk costs: the floor, and one row of fixed bytes on disk before each save returns."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata

from bench.floor import ReferenceSaver
from petal.checkpoints.journal import HANDOVER, HANDOVER_SAVES

Row = tuple[str, str]
"""Thread, and what is saved of it."""
Write = Callable[[Sequence[Row]], object]
"""Puts rows on disk, all in one transaction."""

ROW = b"\0" * 400
"""As many bytes as Petal's rows of a chat have in the median."""


class LeastSaver(ReferenceSaver):
    """No saver to use: nothing is encoded, and nothing is ever read from the disk.

    What it does do is what any saver must whose asynchronous saves are on disk when they return: hand a row to a
    thread that writes those of all callers in one transaction, let that have Python's lock in time, and be woken. As
    Petal does, it waits for an input with the first step. So what it costs beyond the floor is the cost of the promise,
    whoever keeps it in Python.

    Args:
        write: Puts rows on disk; called by one thread.
    """

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._is_busy = False
        self._saves = 0

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        saved = self.put(config, checkpoint, metadata, new_versions)
        written = self._on_disk(config, checkpoint["id"])
        if metadata.get("source") != "input":
            await written
        return saved

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.put_writes(config, writes, task_id, task_path)
        await self._on_disk(config, task_id)

    def _on_disk(self, config: RunnableConfig, what: str) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append(((str(config["configurable"]["thread_id"]), what), done))
        if not self._is_busy:
            self._begin(loop)
        self._saves += 1
        if self._saves % HANDOVER_SAVES == 0:
            time.sleep(HANDOVER)
        return done

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        group, self._waiting = self._waiting, []
        self._is_busy = bool(group)
        if group:
            self._thread.submit(self._written, loop, group)

    def _written(self, loop: asyncio.AbstractEventLoop, group: list[tuple[Row, asyncio.Future[None]]]) -> None:
        failure = None
        try:
            self._write([row for row, _ in group])
        except Exception as error:
            failure = error
        loop.call_soon_threadsafe(self._wake, loop, group, failure)

    def _wake(
        self, loop: asyncio.AbstractEventLoop, group: list[tuple[Row, asyncio.Future[None]]], failure: Exception | None
    ) -> None:
        for _, done in group:
            if failure is not None:
                done.set_exception(failure)
            else:
                done.set_result(None)
        self._begin(loop)


@contextmanager
def least_on_sqlite(path: str) -> Any:
    """One on an SQLite file, forced to the disk with each transaction."""
    settings: Any = {"isolation_level": None, "check_same_thread": False, "cached_statements": 512}
    with closing(sqlite3.connect(path, **settings)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (thread, what, body, PRIMARY KEY (thread, what)) WITHOUT ROWID")

        def write(rows: Sequence[Row]) -> None:
            # One statement is a transaction by itself, and gives Python's lock away no oftener than that needs.
            places = ", ".join(["(?, ?, ?)"] * len(rows))
            connection.execute(f"REPLACE INTO rows VALUES {places}", [part for row in rows for part in (*row, ROW)])

        yield LeastSaver(write)


@contextmanager
def least_on_postgres(url: str) -> Any:
    """One on a PostgreSQL database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE rows (thread text, what text, body bytea)")

        def write(rows: Sequence[Row]) -> None:
            threads, whats = zip(*rows, strict=True)
            connection.execute(
                "INSERT INTO rows SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[])",
                (list(threads), list(whats), [ROW] * len(rows)),
            )

        yield LeastSaver(write)
