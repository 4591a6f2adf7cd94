"""The statements of the SQLite storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

PORTIONS = (64, 16, 8, 4, 3, 2, 1)
"""How many rows a statement may have: few numbers, so that all of these statements stay prepared."""

NOTED = "channel >= '__petal_' AND channel < '__petal`'"
"""Of the writes those that are notes, in the words by which SQLite knows the index that holds them."""

# Tables with a rowid, since their rows are appended whatever thread they belong to; clustered by thread, as WITHOUT
# ROWID does it, 2,000 threads at once took twice the time to write, for an eighth less space. `root` is NULL where it
# is the version itself: most values are wholes.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE petal_threads (
            thread_id TEXT NOT NULL PRIMARY KEY,
            head TEXT NOT NULL,
            status TEXT,
            told TEXT NOT NULL DEFAULT '',
            checkpoints INTEGER NOT NULL,
            size INTEGER NOT NULL,
            created INTEGER NOT NULL,
            updated INTEGER NOT NULL
        ) STRICT
        """,
        "CREATE INDEX petal_threads_updated ON petal_threads (updated, thread_id)",
        "CREATE INDEX petal_threads_status ON petal_threads (status, updated, thread_id)",
        """
        CREATE TABLE petal_checkpoints (
            thread_id TEXT NOT NULL,
            ns TEXT NOT NULL,
            id TEXT NOT NULL,
            parent_id TEXT,
            source TEXT NOT NULL,
            step INTEGER,
            run_id TEXT,
            header BLOB NOT NULL,
            metadata BLOB NOT NULL,
            name TEXT NOT NULL,
            PRIMARY KEY (thread_id, ns, id)
        ) STRICT
        """,
        "CREATE INDEX petal_checkpoints_newest ON petal_checkpoints (id, thread_id, ns)",
        "CREATE INDEX petal_checkpoints_run ON petal_checkpoints (run_id) WHERE run_id IS NOT NULL",
        """
        CREATE TABLE petal_values (
            thread_id TEXT NOT NULL,
            ns TEXT NOT NULL,
            channel TEXT NOT NULL,
            version TEXT NOT NULL,
            root TEXT,
            data BLOB NOT NULL,
            PRIMARY KEY (thread_id, ns, channel, version)
        ) STRICT
        """,
        "CREATE INDEX petal_values_chain ON petal_values (thread_id, ns, channel, root) WHERE root IS NOT NULL",
        """
        CREATE TABLE petal_writes (
            thread_id TEXT NOT NULL,
            ns TEXT NOT NULL,
            checkpoint_id TEXT NOT NULL,
            task_id TEXT NOT NULL,
            idx INTEGER NOT NULL,
            channel TEXT NOT NULL,
            task_path TEXT NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (thread_id, ns, checkpoint_id, task_id, idx)
        ) STRICT
        """,
        f"CREATE INDEX petal_writes_notes ON petal_writes (thread_id, channel) WHERE {NOTED}",
        """
        CREATE TABLE petal_labels (
            thread_id TEXT NOT NULL,
            ns TEXT NOT NULL,
            checkpoint_id TEXT NOT NULL,
            label BLOB NOT NULL,
            PRIMARY KEY (thread_id, ns, checkpoint_id, label)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX petal_labels_newest ON petal_labels (label, checkpoint_id, thread_id, ns)",
        """
        CREATE TABLE petal_leases (
            thread_id TEXT NOT NULL,
            owner TEXT NOT NULL,
            process TEXT NOT NULL,
            run_id TEXT NOT NULL,
            urgent INTEGER NOT NULL,
            holds INTEGER NOT NULL,
            wish TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (thread_id, owner)
        ) STRICT
        """,
        """
        CREATE TABLE petal_processes (
            process TEXT NOT NULL PRIMARY KEY,
            expires REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
)
"""Statements that lead from each format to the next. What was published is never changed, only added to."""

META = "CREATE TABLE IF NOT EXISTS petal_meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT"
HAS_META = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'petal_meta'"
FORMAT = "SELECT value FROM petal_meta WHERE key = 'format'"
SET_FORMAT = """
INSERT INTO petal_meta (key, value) VALUES ('format', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""

ADD_CHECKPOINTS = """
INSERT INTO petal_checkpoints (thread_id, ns, id, parent_id, source, step, run_id, header, metadata, name)
VALUES {rows} ON CONFLICT (thread_id, ns, id) DO NOTHING
"""
SIZE_OF_CHECKPOINT = """
SELECT length(header) + length(metadata) FROM petal_checkpoints WHERE thread_id = ? AND ns = ? AND id = ?
"""
REPLACE_CHECKPOINT = """
UPDATE petal_checkpoints SET parent_id = ?, source = ?, step = ?, run_id = ?, header = ?, metadata = ?, name = ?
WHERE thread_id = ? AND ns = ? AND id = ?
"""
ADD_VALUES = """
INSERT INTO petal_values (thread_id, ns, channel, version, root, data)
VALUES {rows} ON CONFLICT (thread_id, ns, channel, version) DO NOTHING
"""
SIZE_OF_VALUE = """
SELECT length(data) FROM petal_values WHERE thread_id = ? AND ns = ? AND channel = ? AND version = ?
"""
REPLACE_VALUE = """
UPDATE petal_values SET root = ?, data = ? WHERE thread_id = ? AND ns = ? AND channel = ? AND version = ?
"""
ADD_WRITES = """
INSERT INTO petal_writes (thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data)
VALUES {rows} ON CONFLICT (thread_id, ns, checkpoint_id, task_id, idx) DO NOTHING
"""
SIZE_OF_WRITE = """
SELECT length(data) FROM petal_writes
WHERE thread_id = ? AND ns = ? AND checkpoint_id = ? AND task_id = ? AND idx = ?
"""
REPLACE_WRITE = """
UPDATE petal_writes SET channel = ?, task_path = ?, data = ?
WHERE thread_id = ? AND ns = ? AND checkpoint_id = ? AND task_id = ? AND idx = ?
"""
ADD_LABELS = """
INSERT INTO petal_labels (thread_id, ns, checkpoint_id, label) VALUES {rows} ON CONFLICT DO NOTHING
"""
PARENTS = """
WITH n (thread_id, ns, id, name) AS (VALUES {rows})
SELECT count(*) FROM n
CROSS JOIN petal_checkpoints c ON c.thread_id = n.thread_id AND c.ns = n.ns AND c.id = n.id AND c.name = n.name
"""
INDEX_THREADS = """
INSERT INTO petal_threads (thread_id, head, status, told, checkpoints, size, created, updated)
VALUES {rows} ON CONFLICT (thread_id) DO UPDATE SET
    head = max(head, excluded.head),
    status = iif(excluded.status IS NOT NULL AND excluded.told >= told, excluded.status, status),
    told = iif(excluded.status IS NOT NULL AND excluded.told >= told, excluded.told, told),
    checkpoints = checkpoints + excluded.checkpoints,
    size = size + excluded.size,
    updated = max(updated, excluded.updated)
"""

HEADS = """
WITH n (thread_id, ns) AS (VALUES {rows})
SELECT n.thread_id, n.ns, (SELECT max(id) FROM petal_checkpoints c WHERE c.thread_id = n.thread_id AND c.ns = n.ns)
FROM n
"""
HELD = """
WITH n (thread_id, owner) AS (VALUES {rows})
SELECT count(*) FROM n
CROSS JOIN petal_leases l ON l.thread_id = n.thread_id AND l.owner = n.owner AND l.holds
"""
CLAIM = """
INSERT INTO petal_leases (thread_id, owner, process, run_id, urgent, holds)
VALUES (:thread, :owner, :process, :run, :urgent, NOT EXISTS (SELECT 1 FROM petal_leases WHERE thread_id = :thread))
"""
RELEASE = "DELETE FROM petal_leases WHERE thread_id = ? AND owner = ?"
BEAT = """
INSERT INTO petal_processes (process, expires) VALUES (?, ?)
ON CONFLICT (process) DO UPDATE SET expires = excluded.expires
"""
BURY = "DELETE FROM petal_processes WHERE expires < ?"
GRANT = "UPDATE petal_leases SET holds = 1 WHERE thread_id = ? AND owner = ?"
ASK = "UPDATE petal_leases SET wish = ? WHERE thread_id = ? AND owner = ?"
LEASES = """
SELECT l.owner, l.process, l.run_id, l.urgent, l.holds, l.wish, coalesce(p.expires > ?, FALSE)
FROM petal_leases l LEFT JOIN petal_processes p ON p.process = l.process
WHERE l.thread_id = ? ORDER BY l.holds DESC, l.urgent DESC, l.rowid
"""
WISHES = """
SELECT thread_id, owner, run_id, urgent, holds, wish FROM petal_leases WHERE process = ? AND wish <> ''
"""

CHECKPOINT = """
SELECT thread_id, ns, id, parent_id, source, step, run_id, header, metadata, name FROM petal_checkpoints
"""
ONE_CHECKPOINT = CHECKPOINT + " WHERE thread_id = ? AND ns = ? AND id = ?"
HEAD = CHECKPOINT + " WHERE thread_id = ? AND ns = ? ORDER BY id DESC LIMIT 1"
HEADS_WITH_WRITES = """
WITH n (thread_id, ns) AS (VALUES {rows}),
h AS MATERIALIZED (
    SELECT c.* FROM n CROSS JOIN petal_checkpoints c ON c.rowid = (
        SELECT rowid FROM petal_checkpoints WHERE thread_id = n.thread_id AND ns = n.ns ORDER BY id DESC LIMIT 1
    )
)
SELECT thread_id, ns, id, parent_id, source, step, run_id, header, metadata, name FROM h
UNION ALL
SELECT w.thread_id, w.ns, w.checkpoint_id, w.task_id, w.channel, w.idx, w.task_path, w.data, NULL, NULL
FROM h CROSS JOIN petal_writes w ON w.thread_id = h.thread_id AND w.ns = h.ns AND w.checkpoint_id = h.id
"""
"""The newest checkpoints, then their writes, which have no name."""
GLANCE = """
SELECT id, name, parent_id, run_id, EXISTS (
    SELECT 1 FROM petal_writes w WHERE w.thread_id = c.thread_id AND w.ns = c.ns AND w.checkpoint_id = c.id
)
FROM petal_checkpoints c WHERE thread_id = ? AND ns = ? ORDER BY id DESC LIMIT 1
"""
"""Which checkpoint is the newest: without what is sealed, which takes half of the time."""
CHECKPOINTS = """
SELECT c.thread_id, c.ns, c.id, c.parent_id, c.source, c.step, c.run_id, c.header, c.metadata, c.name
FROM petal_checkpoints c WHERE {conditions} ORDER BY c.id DESC, c.thread_id DESC, c.ns DESC LIMIT ?
"""
LABELLED = """
SELECT l.thread_id, l.ns, l.checkpoint_id, c.parent_id, c.source, c.step, c.run_id, c.header, c.metadata, c.name
FROM petal_labels l
CROSS JOIN petal_checkpoints c ON c.thread_id = l.thread_id AND c.ns = l.ns AND c.id = l.checkpoint_id
WHERE l.label = ? AND {conditions}
"""
"""The same beginning with a label: CROSS JOIN keeps SQLite from beginning elsewhere."""
MERGED = " UNION ALL "
"""Of selects that each give their rows in the order, of which SQLite then takes the next one where it is."""
LABELLED_ORDER = " ORDER BY 3 DESC, 1 DESC, 2 DESC LIMIT ?"
HAS_LABEL = """
EXISTS (SELECT 1 FROM petal_labels o
    WHERE o.thread_id = c.thread_id AND o.ns = c.ns AND o.checkpoint_id = c.id AND o.label IN ({labels}))
"""
CHAIN = """
SELECT thread_id, ns, channel, version, version, data FROM petal_values
WHERE thread_id = :thread AND ns = :ns AND channel = :channel AND version = :root AND root IS NULL
UNION ALL
SELECT thread_id, ns, channel, root, version, data FROM petal_values
WHERE thread_id = :thread AND ns = :ns AND channel = :channel AND root = :root
"""
ONE_VALUE = """
SELECT thread_id, ns, channel, coalesce(root, version), version, data FROM petal_values
WHERE thread_id = ? AND ns = ? AND channel = ? AND version = ?
"""
WRITES = """
SELECT thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data FROM petal_writes
WHERE thread_id = ? AND ns = ? AND checkpoint_id = ? ORDER BY task_path, task_id, idx
"""
NOTES = f"""
SELECT thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data FROM petal_writes
WHERE thread_id = ? AND channel = ? AND {NOTED} ORDER BY checkpoint_id, task_path, task_id, idx
"""
STRAYS = """
SELECT thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data FROM petal_writes w
WHERE thread_id = ? AND NOT EXISTS (
    SELECT 1 FROM petal_checkpoints c WHERE c.thread_id = w.thread_id AND c.ns = w.ns AND c.id = w.checkpoint_id
)
ORDER BY ns, checkpoint_id, task_path, task_id, idx
"""
THREADS = """
SELECT thread_id, checkpoints, updated, head, status, size, created FROM petal_threads
WHERE {conditions} ORDER BY updated DESC, thread_id DESC LIMIT ?
"""
NAMESPACES = "SELECT DISTINCT ns FROM petal_checkpoints WHERE thread_id = ? ORDER BY ns"
ALL_VALUES = """
SELECT thread_id, ns, channel, coalesce(root, version), version, data FROM petal_values WHERE thread_id = ? AND ns = ?
"""
LABELS = "SELECT label FROM petal_labels WHERE thread_id = ? AND ns = ? AND checkpoint_id = ? ORDER BY label"
OF_RUN = "SELECT thread_id, ns, id FROM petal_checkpoints WHERE run_id = ?"

DELETE_THREAD = tuple(
    f"DELETE FROM petal_{table} WHERE thread_id = ?"
    for table in ("threads", "labels", "writes", "values", "checkpoints")
)
DELETE_LABELS = "DELETE FROM petal_labels WHERE thread_id = ? AND ns = ? AND checkpoint_id = ?"
DELETE_WRITES = "DELETE FROM petal_writes WHERE thread_id = ? AND ns = ? AND checkpoint_id = ?"
SIZE_OF_WRITES = "SELECT total(length(data)) FROM petal_writes WHERE thread_id = ? AND ns = ? AND checkpoint_id = ?"
DELETE_CHECKPOINT = (
    DELETE_LABELS,
    DELETE_WRITES,
    "DELETE FROM petal_checkpoints WHERE thread_id = ? AND ns = ? AND id = ?",
)
DELETE_VALUE = "DELETE FROM petal_values WHERE thread_id = ? AND ns = ? AND channel = ? AND version = ?"
COUNTED = """
SELECT count(*), coalesce(max(id) FILTER (WHERE ns = ''), ''), min(id), max(id),
    total(length(header) + length(metadata))
    + (SELECT total(length(data)) FROM petal_values WHERE thread_id = :thread)
    + (SELECT total(length(data)) FROM petal_writes WHERE thread_id = :thread)
FROM petal_checkpoints WHERE thread_id = :thread
"""
RECOUNT = """
INSERT INTO petal_threads (thread_id, head, status, checkpoints, size, created, updated)
VALUES (?, ?, NULL, ?, ?, ?, ?)
ON CONFLICT (thread_id) DO UPDATE SET head = excluded.head, checkpoints = excluded.checkpoints, size = excluded.size
"""


@cache
def of_rows(statement: str, count: int, width: int) -> str:
    """A statement for so many rows of so many columns."""
    row = "(" + ", ".join("?" * width) + ")"
    return statement.format(rows=", ".join([row] * count))


def portions(statement: str, width: int, columns: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """A statement for many rows as some for as many as `PORTIONS` say, each with its parameters."""
    at, rows = 0, len(columns) // width
    for count in PORTIONS:
        while rows >= count:
            yield of_rows(statement, count, width), columns[at : at + count * width]
            at += count * width
            rows -= count


SHRINK = "UPDATE petal_threads SET size = size - ? WHERE thread_id = ?"
FORGET = "DELETE FROM petal_threads WHERE thread_id = ?"
