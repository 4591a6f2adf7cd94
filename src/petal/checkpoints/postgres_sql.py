"""The statements of the PostgreSQL storage. `{s}` stands for the schema, so that nothing leans on a search path."""

from __future__ import annotations

from hashlib import blake2b

from psycopg import sql

BEGIN_WRITE = b"BEGIN ISOLATION LEVEL READ COMMITTED"
"""Each statement sees what was committed before it: whoever waited for a thread's lock sees what its holder wrote."""
BEGIN_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"

SITUATION = b"SELECT current_schema(), current_setting('transaction_read_only')"

LOCK = "SELECT {s}.petal_lock(%b::bigint[])"
CLAIM = "SELECT pg_try_advisory_xact_lock(%b::bigint)"
SAVE = """
SELECT {s}.petal_save(
    %b::bigint[],
    %b::text[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[],
    %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::text[], %b::bytea[], %b::bytea[],
    %b::text[], %b::text[], %b::boolean[],
    %b::text[], %b::text[], %b::text[], %b::bytea[],
    %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[],
    %b::text[], %b::text[], %b::text[], %b::text[], %b::int[], %b::text[], %b::text[], %b::bytea[],
    %b::text[], %b::text[]
)
"""
TAKE_TURNS = """
SELECT {s}.petal_take_turns(
    %b::bigint[], %b::text[], %b::text[], %b::text[],
    %b::text[], %b::text[], %b::text[], %b::text[], %b::boolean[],
    %b::text[], %b::float8[]
)
"""
GRANT = "UPDATE {s}.petal_leases SET holds = true WHERE thread_id = %b AND owner = %b"
ASK = "UPDATE {s}.petal_leases SET wish = %b WHERE thread_id = %b AND owner = %b"
REVOKE = "DELETE FROM {s}.petal_leases WHERE thread_id = %b AND owner = %b"
LEASES = """
SELECT l.thread_id, l.owner, l.process, l.run_id, l.urgent, l.holds, l.wish,
    coalesce(p.expires > clock_timestamp(), false)
FROM {s}.petal_leases l LEFT JOIN {s}.petal_processes p ON p.process = l.process
WHERE l.thread_id = %b ORDER BY l.holds DESC, l.urgent DESC, l.ticket
"""
WISHES = """
SELECT thread_id, owner, process, run_id, urgent, holds, wish FROM {s}.petal_leases WHERE process = %b AND wish <> ''
"""

CHECKPOINTS = """
SELECT c.thread_id, c.ns, c.id, c.parent_id, c.source, c.step, c.run_id, c.header, c.metadata, c.name
FROM {s}.petal_checkpoints c
"""
HEADS_WITH_WRITES = """
WITH h AS MATERIALIZED (
    SELECT c.* FROM unnest(%b::text[], %b::text[]) n (thread_id, ns), LATERAL (
        SELECT * FROM {s}.petal_checkpoints WHERE thread_id = n.thread_id AND ns = n.ns ORDER BY id DESC LIMIT 1
    ) c
)
SELECT thread_id, ns, id, parent_id, source, step, run_id, header, metadata, name FROM h
UNION ALL
SELECT h.thread_id, h.ns, h.id, w.task_id, w.channel, w.idx, w.task_path, w.data, NULL, NULL
FROM h, LATERAL (
    SELECT * FROM {s}.petal_writes WHERE thread_id = h.thread_id AND ns = h.ns AND checkpoint_id = h.id OFFSET 0
) w
"""
"""The newest checkpoints, then their writes, which have no name. The inner OFFSET has them found one by one."""
LABELLED = """
JOIN {s}.petal_labels {l} ON {l}.thread_id = c.thread_id AND {l}.ns = c.ns AND {l}.checkpoint_id = c.id
    AND {l}.label = %b
"""
NEWEST = "ORDER BY c.id DESC, c.thread_id DESC, c.ns DESC LIMIT %b"
BY_INDEX = b"""
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('enable_bitmapscan', 'off', true)
"""
"""For what is left of a transaction: a page of labels is read from an index in its order, not from all there is, also
before the server knows how much that is."""
NEWEST_OF_ALL = "ORDER BY id DESC, thread_id DESC, ns DESC LIMIT %b"
"""Of several pages as one."""
# IS NOT DISTINCT FROM is = that no index serves: else the primary key might be taken to find a chain, and all rows of
# the channel be read for it. The inner OFFSET keeps it from being joined in any other way than chain by chain.
CHAINS = """
SELECT %(thread)b::text, %(ns)b::text, n.channel, n.root, v.version, v.data
FROM unnest(%(channels)b::text[], %(roots)b::text[]) n (channel, root), LATERAL (
    SELECT version, data FROM {s}.petal_values
    WHERE thread_id = %(thread)b AND ns = %(ns)b AND channel = n.channel AND version = n.root AND root IS NULL
    UNION ALL
    SELECT version, data FROM {s}.petal_values
    WHERE thread_id = %(thread)b AND root = n.root
        AND ns IS NOT DISTINCT FROM %(ns)b AND channel IS NOT DISTINCT FROM n.channel
    OFFSET 0
) v
"""
VALUES = """
SELECT v.thread_id, v.ns, v.channel, coalesce(v.root, v.version), v.version, v.data
FROM unnest(%(channels)b::text[], %(versions)b::text[]) n (channel, version)
JOIN {s}.petal_values v ON v.channel = n.channel AND v.version = n.version
WHERE v.thread_id = %(thread)b AND v.ns = %(ns)b
"""
WRITES = """
SELECT thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data FROM {s}.petal_writes
WHERE thread_id = %b AND ns = %b AND checkpoint_id = ANY(%b)
ORDER BY checkpoint_id, task_path, task_id, idx
"""
NOTES = """
SELECT thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data FROM {s}.petal_writes
WHERE thread_id = %b AND channel = %b AND starts_with(channel, '__petal_')
ORDER BY checkpoint_id, task_path, task_id, idx
"""
STRAYS = """
SELECT thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data FROM {s}.petal_writes w
WHERE thread_id || '' = %b AND NOT EXISTS (
    SELECT 1 FROM {s}.petal_checkpoints c WHERE c.thread_id = w.thread_id AND c.ns = w.ns AND c.id = w.checkpoint_id
)
ORDER BY ns, checkpoint_id, task_path, task_id, idx
"""
THREADS = """
SELECT thread_id, checkpoints, updated, head, status, bytes, created FROM {s}.petal_threads
"""
LATEST = "ORDER BY updated DESC, thread_id DESC LIMIT %b"
NAMESPACES = "SELECT DISTINCT ns FROM {s}.petal_checkpoints WHERE thread_id = %b ORDER BY ns"
ALL_VALUES = """
SELECT thread_id, ns, channel, coalesce(root, version), version, data FROM {s}.petal_values
WHERE thread_id = %b AND ns = %b
"""
LABELS = """
SELECT label FROM {s}.petal_labels WHERE thread_id = %b AND ns = %b AND checkpoint_id = %b ORDER BY label
"""
THREADS_OF_RUNS = """
SELECT thread_id, ns, id FROM {s}.petal_checkpoints WHERE run_id = ANY(%b) ORDER BY thread_id, ns, id
"""

DELETE_THREAD = (
    "DELETE FROM {s}.petal_writes WHERE thread_id || '' = %b",
    *(
        f"DELETE FROM {{s}}.petal_{table} WHERE thread_id = %b"
        for table in ("labels", "values", "checkpoints", "threads")
    ),
)
DELETE_CHECKPOINTS = tuple(
    f"DELETE FROM {{s}}.petal_{table} WHERE thread_id = %b AND ns = %b AND {key} = ANY(%b)"
    for table, key in (("labels", "checkpoint_id"), ("writes", "checkpoint_id"), ("checkpoints", "id"))
)
DELETE_VALUES = """
WITH gone AS (
    DELETE FROM {s}.petal_values WHERE thread_id = %(thread)b AND ns = %(ns)b
        AND (channel, version) IN (SELECT * FROM unnest(%(channels)b::text[], %(versions)b::text[]))
    RETURNING octet_length(data) AS size
)
UPDATE {s}.petal_threads SET bytes = bytes - (SELECT coalesce(sum(size), 0) FROM gone) WHERE thread_id = %(thread)b
"""
COUNTED = """
SELECT count(*), coalesce(max(id) FILTER (WHERE ns = ''), ''), min(id), max(id),
    coalesce(sum(octet_length(header) + octet_length(metadata)), 0)
    + (SELECT coalesce(sum(octet_length(data)), 0) FROM {s}.petal_values WHERE thread_id = %(thread)b)
    + (SELECT coalesce(sum(octet_length(data)), 0) FROM {s}.petal_writes WHERE thread_id || '' = %(thread)b)
FROM {s}.petal_checkpoints WHERE thread_id = %(thread)b
"""
RECOUNT = """
INSERT INTO {s}.petal_threads (thread_id, head, status, checkpoints, bytes, created, updated)
VALUES (%b, %b, NULL, %b, %b, %b, %b)
ON CONFLICT (thread_id) DO UPDATE
SET head = excluded.head, checkpoints = excluded.checkpoints, bytes = excluded.bytes
"""
FORGET = "DELETE FROM {s}.petal_threads WHERE thread_id = %b"


class Statements(dict[str, bytes]):
    """Statements for the tables of one schema, each made once."""

    def __init__(self, schema: str) -> None:
        self.schema = schema

    def __missing__(self, statement: str) -> bytes:
        made = sql.SQL(statement).format(s=sql.Identifier(self.schema)).as_bytes(None)
        self[statement] = made
        return made


def key(schema: str, thread_id: str) -> int:
    """The number under which a thread, or for "" the making of tables, is locked."""
    digest = blake2b(f"{schema}\0{thread_id}".encode("utf-8", "surrogatepass"), digest_size=8, person=b"petal").digest()
    return int.from_bytes(digest, signed=True)
