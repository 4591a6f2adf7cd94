"""A store on PostgreSQL, and rows that stand in it for those of a saver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from petal.checkpoints.postgres import PostgresStore
from petal.checkpoints.records import CheckpointRow, Save, ValueRow, WriteRow
from petal.core.config.checkpointer import PostgresOptions

NOW = "2026-01-01T00:00:00+00:00"
SIZE = len(b"headermetadatavaluewrite")
"""What the index of threads counts for one `save`, in bytes."""


@contextmanager
def opened(url: str, **options: Any) -> Iterator[PostgresStore]:
    store = PostgresStore(PostgresOptions(connection_string=url, **options), "postgresql://test")
    store.open()
    try:
        yield store
    finally:
        store.close()


def save(id: str, thread_id: str = "t") -> Save:
    """A checkpoint with a value and a write."""
    return Save(
        CheckpointRow(thread_id, "", id, None, "loop", 1, thread_id, b"header", b"metadata", labels=(b"label...",)),
        [ValueRow(thread_id, "", "messages", id, id, b"value")],
        [WriteRow(thread_id, "", id, "task", 0, "messages", "", b"write")],
        "done",
        NOW,
    )
