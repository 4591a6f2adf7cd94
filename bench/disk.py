"""How much a candidate's state takes on disk."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import psycopg

from bench.candidates import Candidate
from bench.measures import file_bytes

CLEARED_AFTER = 3.0
"""Seconds in which the benchmark's server, which begins a round of clearing each second, has ended one."""
_TABLES = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
"""


def settled_bytes(candidate: Candidate, place: str) -> int | None:
    """Bytes of the state: an SQLite file with its log, put away first; a database's tables with their indexes, when the
    server has had time to clear away dead rows once more.

    None where nothing is kept on disk.
    """
    match candidate.storage:
        case "sqlite":
            with closing(sqlite3.connect(place, timeout=30, isolation_level=None)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return file_bytes(place)
        case "postgres":
            time.sleep(CLEARED_AFTER)
            with psycopg.connect(place, autocommit=True) as connection:
                found = connection.execute(_TABLES).fetchone()
            return int(found[0]) if found else 0
        case _:
            return None


def growing_bytes(candidate: Candidate, place: str) -> int | None:
    """As `settled_bytes`, quickly, and as it is at the moment; None also for a database server."""
    return file_bytes(place) if candidate.storage == "sqlite" else None
