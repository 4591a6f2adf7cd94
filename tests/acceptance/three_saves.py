"""A process that opens a PostgreSQL store and writes three saves in one transaction: `three_saves.py URL`."""

import os
import sys

from petal.checkpoints.postgres import PostgresStore
from petal.checkpoints.records import CheckpointRow, Save, ValueRow, WriteRow
from petal.core.config.checkpointer import PostgresOptions

store = PostgresStore(PostgresOptions(connection_string=sys.argv[1]), "postgresql://child")
store.open()
store.commit(
    [
        Save(
            CheckpointRow("t", "", id, None, "loop", 1, "t", b"header", b"metadata", labels=(b"label...",)),
            [ValueRow("t", "", "messages", id, id, b"value")],
            [WriteRow("t", "", id, "task", 0, "messages", "", b"write")],
            "done",
            "2026-01-01T00:00:00+00:00",
        )
        for id in ("1", "2", "3")
    ]
)
os._exit(0)
