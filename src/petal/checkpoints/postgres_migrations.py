"""The tables of the PostgreSQL storage, and how they come to this version's format."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow

from petal.checkpoints.postgres_connections import ended
from petal.checkpoints.postgres_sql import BEGIN_WRITE, Statements, key
from petal.errors import CheckpointCorruptionError, CheckpointerConfigurationError, CheckpointerError

PATIENCE = "60s"
"""How long to wait for another process that is making the tables."""

META = """CREATE TABLE {s}.petal_meta (key text COLLATE "C" PRIMARY KEY, value text NOT NULL)"""
# Not by to_regclass, which after waiting for the lock still says what it said before.
HAS_META = """
SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'petal_meta'
"""
FORMAT = "SELECT value FROM {s}.petal_meta WHERE key = 'format'"
# Where no schema is named, LangGraph's saver finds its tables in whichever schema of the search path they are.
LANGGRAPHS = """
SELECT count(DISTINCT c.relname) = 3 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE coalesce(n.nspname = %s, pg_table_is_visible(c.oid))
    AND c.relname IN ('checkpoints', 'checkpoint_blobs', 'checkpoint_writes')
"""
SET_FORMAT = """
INSERT INTO {s}.petal_meta (key, value) VALUES ('format', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""
# Locks go with their transaction, as a pooler in transaction mode wants it. One for each thread: two processes never
# change one thread at once, so counts need no more than what is read, and a prune sees every save or none of it.
# A row to lock would not do: a thread that is not there yet has none. All are taken in the order of the threads' ids,
# so that two transactions never wait for each other. A save that was acknowledged survives a power cut even where the
# server or the role would rather not wait for its disk.
LOCK = """
CREATE FUNCTION {s}.petal_lock(keys bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM pg_advisory_xact_lock(key) FROM unnest(keys) key;
END
$$
"""

ORPHANED = "PT001"
"""The SQLSTATE of a save that leans on a parent which is not there."""
STALE, LEASE_LOST = "PT002", "PT003"
"""The SQLSTATEs of a save before which another run saved, and of one whose run does not have the thread."""

# Apart from the saves: nearly all groups of them have no turns, or nothing else.
TAKE_TURNS = """
CREATE FUNCTION {s}.petal_take_turns(
    keys bigint[], r_thread text[], r_owner text[], r_input text[],
    k_thread text[], k_owner text[], k_process text[], k_run text[], k_urgent boolean[],
    b_process text[], b_seconds float8[]
) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM {s}.petal_lock(keys);

    DELETE FROM {s}.petal_leases l USING unnest(r_thread, r_owner) n (thread_id, owner)
    WHERE l.thread_id = n.thread_id AND l.owner = n.owner;

    WITH gone AS (
        DELETE FROM {s}.petal_writes w USING unnest(r_thread, r_input) n (thread_id, input)
        WHERE w.thread_id = n.thread_id AND w.ns = '' AND w.checkpoint_id = n.input AND n.input <> ''
        RETURNING w.thread_id, octet_length(w.data) AS size
    )
    UPDATE {s}.petal_threads t SET bytes = bytes - g.size
    FROM (SELECT thread_id, sum(size) AS size FROM gone GROUP BY thread_id) g WHERE t.thread_id = g.thread_id;

    -- One after the other: each sees those before it. One that is made again, since its answer was lost, stands.
    FOR i IN 1 .. cardinality(k_thread) LOOP
        INSERT INTO {s}.petal_leases (thread_id, owner, process, run_id, urgent, holds)
        VALUES (k_thread[i], k_owner[i], k_process[i], k_run[i], k_urgent[i],
            NOT EXISTS (SELECT FROM {s}.petal_leases l WHERE l.thread_id = k_thread[i]))
        ON CONFLICT (thread_id, owner) DO NOTHING;
    END LOOP;

    INSERT INTO {s}.petal_processes (process, expires)
    SELECT process, max(clock_timestamp() + seconds * interval '1 second')
    FROM unnest(b_process, b_seconds) n (process, seconds) GROUP BY process
    ON CONFLICT (process) DO UPDATE SET expires = excluded.expires;
    IF cardinality(b_process) > 0 THEN
        DELETE FROM {s}.petal_processes WHERE expires < clock_timestamp() - interval '1 hour';
    END IF;
END
$$
"""

# A function, since the server keeps the plans of its statements: for one save, planning takes longer than all the rest.
# Plans that are kept must not be those for tables that were empty then, hence the settings: every row by an index.
#
# Milliseconds a transaction, for groups of saves of three rows each, on two cores with fsync:
#
#                                                    1 save   10 saves   100 saves
#   this function                                       1.5        2.1         8.3
#   an INSERT a table from arrays, counting nothing     1.1        1.5         5.5
#   an INSERT a table with all rows in VALUES           0.8        1.7        13.1
#   executemany in a pipeline                           0.8        3.1        22.9
#
# All are one round trip. One statement with a CTE a table, which counts as this does, took 1.9, 1.4 and 1.7 times as
# long as the arrays; this takes 1.4 to 1.5 times as long. Not compressing again saves a quarter of 50 rows of 6 KB.
#
# `was` is the size of the row that is there already: so a save that is made again, since its answer was lost, is
# counted once.
SAVE = """
CREATE FUNCTION {s}.petal_save(
    keys bigint[],
    t_thread text[], t_head text[], t_status text[], t_told text[], t_created timestamptz[], t_updated timestamptz[],
    c_thread text[], c_ns text[], c_id text[], c_parent text[], c_source text[], c_step bigint[], c_run text[],
    c_header bytea[], c_metadata bytea[], c_name text[], c_leans text[], c_fenced boolean[],
    l_thread text[], l_ns text[], l_checkpoint text[], l_label bytea[],
    v_thread text[], v_ns text[], v_channel text[], v_version text[], v_root text[], v_data bytea[],
    w_thread text[], w_ns text[], w_checkpoint text[], w_task text[], w_idx int[], w_channel text[], w_path text[],
    w_data bytea[],
    h_thread text[], h_owner text[]
) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM {s}.petal_lock(keys);

    IF cardinality(h_thread) > 0 AND EXISTS (
        SELECT FROM unnest(h_thread, h_owner) n (thread_id, owner)
        WHERE NOT EXISTS (
            SELECT FROM {s}.petal_leases l WHERE l.thread_id = n.thread_id AND l.owner = n.owner AND l.holds
        )
    ) THEN
        RAISE EXCEPTION 'the run does not have the thread' USING ERRCODE = 'PT003';
    END IF;

    -- Each must follow on the newest one that is there, or on the one before it among these. One that is made again,
    -- since its answer was lost, is there already; and where what it follows on was deleted, there is no race to lose.
    IF true = ANY (c_fenced) AND EXISTS (
        SELECT FROM (
            SELECT *, greatest(
                lag(id) OVER (PARTITION BY thread_id, ns ORDER BY at),
                (
                    SELECT o.id FROM {s}.petal_checkpoints o WHERE o.thread_id = f.thread_id AND o.ns = f.ns
                    ORDER BY o.id DESC LIMIT 1
                )
            ) AS head
            FROM unnest(c_thread, c_ns, c_id, c_parent, c_fenced) WITH ORDINALITY
                f (thread_id, ns, id, parent, fenced, at)
        ) n
        WHERE fenced AND head IS NOT NULL AND parent IS DISTINCT FROM head
            AND NOT EXISTS (
                SELECT FROM {s}.petal_checkpoints o
                WHERE o.thread_id = n.thread_id AND o.ns = n.ns AND o.id = n.id
            )
            AND (
                parent IS NULL OR parent = ANY (c_id) OR EXISTS (
                    SELECT FROM {s}.petal_checkpoints o
                    WHERE o.thread_id = n.thread_id AND o.ns = n.ns AND o.id = n.parent
                )
            )
    ) THEN
        RAISE EXCEPTION 'another run saved a checkpoint first' USING ERRCODE = 'PT002';
    END IF;

    INSERT INTO {s}.petal_threads AS t (thread_id, head, status, told, checkpoints, bytes, created, updated)
    SELECT n.thread_id, n.head, n.status, n.told, coalesce(g.checkpoints, 0), coalesce(g.bytes, 0), n.created, n.updated
    FROM unnest(t_thread, t_head, t_status, t_told, t_created, t_updated)
        n (thread_id, head, status, told, created, updated)
    LEFT JOIN (
        SELECT thread_id, sum(added) AS checkpoints, sum(size - coalesce(was, 0)) AS bytes
        FROM (
            SELECT thread_id, (was IS NULL)::int AS added, size, was
            FROM (
                SELECT n.thread_id, octet_length(n.header) + octet_length(n.metadata) AS size, (
                    SELECT octet_length(o.header) + octet_length(o.metadata) FROM {s}.petal_checkpoints o
                    WHERE o.thread_id = n.thread_id AND o.ns = n.ns AND o.id = n.id
                ) AS was
                FROM unnest(c_thread, c_ns, c_id, c_header, c_metadata) n (thread_id, ns, id, header, metadata)
            ) c
            UNION ALL
            SELECT n.thread_id, 0, octet_length(n.data), (
                SELECT octet_length(o.data) FROM {s}.petal_values o
                WHERE o.thread_id = n.thread_id AND o.ns = n.ns AND o.channel = n.channel AND o.version = n.version
            )
            FROM unnest(v_thread, v_ns, v_channel, v_version, v_data) n (thread_id, ns, channel, version, data)
            UNION ALL
            SELECT thread_id, 0, size, was
            FROM (
                SELECT n.thread_id, n.idx, octet_length(n.data) AS size, (
                    SELECT octet_length(o.data) FROM {s}.petal_writes o
                    WHERE o.thread_id = n.thread_id AND o.ns = n.ns AND o.checkpoint_id = n.checkpoint_id
                        AND o.task_id = n.task_id AND o.idx = n.idx
                ) AS was
                FROM unnest(w_thread, w_ns, w_checkpoint, w_task, w_idx, w_data)
                    n (thread_id, ns, checkpoint_id, task_id, idx, data)
            ) w
            WHERE was IS NULL OR idx < 0
        ) rows
        GROUP BY thread_id
    ) g USING (thread_id)
    ON CONFLICT (thread_id) DO UPDATE SET head = greatest(t.head, excluded.head),
        status = CASE WHEN excluded.status IS NOT NULL AND excluded.told >= t.told
            THEN excluded.status ELSE t.status END,
        told = CASE WHEN excluded.status IS NOT NULL AND excluded.told >= t.told THEN excluded.told ELSE t.told END,
        checkpoints = t.checkpoints + excluded.checkpoints,
        bytes = t.bytes + excluded.bytes, updated = greatest(t.updated, excluded.updated);

    IF cardinality(c_thread) > 0 THEN
        DELETE FROM {s}.petal_labels o USING unnest(c_thread, c_ns, c_id) n (thread_id, ns, id)
        WHERE o.thread_id = n.thread_id AND o.ns = n.ns AND o.checkpoint_id = n.id;

        INSERT INTO {s}.petal_checkpoints (thread_id, ns, id, parent_id, source, step, run_id, header, metadata, name)
        SELECT * FROM unnest(c_thread, c_ns, c_id, c_parent, c_source, c_step, c_run, c_header, c_metadata, c_name)
        ON CONFLICT (thread_id, ns, id) DO UPDATE SET parent_id = excluded.parent_id, source = excluded.source,
            step = excluded.step, run_id = excluded.run_id, header = excluded.header, metadata = excluded.metadata,
            name = excluded.name;

        IF EXISTS (
            SELECT FROM unnest(c_thread, c_ns, c_parent, c_leans) n (thread_id, ns, parent, leans)
            WHERE leans IS NOT NULL AND NOT EXISTS (
                SELECT FROM {s}.petal_checkpoints o
                WHERE o.thread_id = n.thread_id AND o.ns = n.ns AND o.id = n.parent AND o.name = n.leans
            )
        ) THEN
            RAISE EXCEPTION 'the parent of a checkpoint is gone' USING ERRCODE = 'PT001';
        END IF;
    END IF;

    IF cardinality(l_thread) > 0 THEN
        INSERT INTO {s}.petal_labels (thread_id, ns, checkpoint_id, label)
        SELECT * FROM unnest(l_thread, l_ns, l_checkpoint, l_label);
    END IF;

    IF cardinality(v_thread) > 0 THEN
        INSERT INTO {s}.petal_values (thread_id, ns, channel, version, root, data)
        SELECT * FROM unnest(v_thread, v_ns, v_channel, v_version, v_root, v_data)
        ON CONFLICT (thread_id, ns, channel, version) DO UPDATE SET root = excluded.root, data = excluded.data;
    END IF;

    IF cardinality(w_thread) > 0 THEN
        INSERT INTO {s}.petal_writes (thread_id, ns, checkpoint_id, task_id, idx, channel, task_path, data)
        SELECT * FROM unnest(w_thread, w_ns, w_checkpoint, w_task, w_idx, w_channel, w_path, w_data)
        ON CONFLICT (checkpoint_id, thread_id, ns, task_id, idx) DO UPDATE SET channel = excluded.channel,
            task_path = excluded.task_path, data = excluded.data
        WHERE excluded.idx < 0;
    END IF;
END
$$
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE {s}.petal_threads (
            thread_id text COLLATE "C" PRIMARY KEY,
            head text COLLATE "C" NOT NULL,
            status text,
            told text COLLATE "C" NOT NULL DEFAULT '',
            checkpoints bigint NOT NULL,
            bytes bigint NOT NULL,
            created timestamptz NOT NULL,
            updated timestamptz NOT NULL
        )
        """,
        "CREATE INDEX petal_threads_updated ON {s}.petal_threads (updated, thread_id)",
        "CREATE INDEX petal_threads_status ON {s}.petal_threads (status, updated, thread_id)",
        """
        CREATE TABLE {s}.petal_checkpoints (
            thread_id text COLLATE "C",
            ns text COLLATE "C",
            id text COLLATE "C",
            parent_id text COLLATE "C",
            source text NOT NULL,
            step bigint,
            run_id text COLLATE "C",
            header bytea NOT NULL,
            metadata bytea NOT NULL,
            name text COLLATE "C" NOT NULL,
            PRIMARY KEY (thread_id, ns, id)
        )
        """,
        "CREATE INDEX petal_checkpoints_newest ON {s}.petal_checkpoints (id, thread_id, ns)",
        "CREATE INDEX petal_checkpoints_run ON {s}.petal_checkpoints (run_id) WHERE run_id IS NOT NULL",
        """
        CREATE TABLE {s}.petal_values (
            thread_id text COLLATE "C",
            ns text COLLATE "C",
            channel text COLLATE "C",
            version text COLLATE "C",
            root text COLLATE "C",
            data bytea NOT NULL,
            PRIMARY KEY (thread_id, ns, channel, version)
        )
        """,
        # All rows of a chain have the same key, which PostgreSQL then stores once.
        "CREATE INDEX petal_values_chain ON {s}.petal_values (thread_id, root) WHERE root IS NOT NULL",
        # A checkpoint's id tells its time, so rows are added at the end of the key's index, whatever thread they belong
        # to; in one that began with the thread they went into the middle, and its pages stayed half empty.
        """
        CREATE TABLE {s}.petal_writes (
            thread_id text COLLATE "C",
            ns text COLLATE "C",
            checkpoint_id text COLLATE "C",
            task_id text COLLATE "C",
            idx integer,
            channel text NOT NULL,
            task_path text COLLATE "C" NOT NULL,
            data bytea NOT NULL,
            PRIMARY KEY (checkpoint_id, thread_id, ns, task_id, idx)
        )
        """,
        # An expression, so that only what asks for a whole thread is planned with it. It holds each thread's id once.
        "CREATE INDEX petal_writes_thread ON {s}.petal_writes ((thread_id || ''))",
        """
        CREATE INDEX petal_writes_notes ON {s}.petal_writes (thread_id, channel)
        WHERE starts_with(channel, '__petal_')
        """,
        """
        CREATE TABLE {s}.petal_labels (
            thread_id text COLLATE "C",
            ns text COLLATE "C",
            checkpoint_id text COLLATE "C",
            label bytea,
            PRIMARY KEY (thread_id, ns, checkpoint_id, label)
        )
        """,
        "CREATE INDEX petal_labels_newest ON {s}.petal_labels (label, checkpoint_id, thread_id, ns)",
        """
        CREATE TABLE {s}.petal_leases (
            thread_id text COLLATE "C",
            ticket bigint GENERATED ALWAYS AS IDENTITY,
            owner text COLLATE "C" NOT NULL,
            process text COLLATE "C" NOT NULL,
            run_id text NOT NULL,
            urgent boolean NOT NULL,
            holds boolean NOT NULL,
            wish text NOT NULL DEFAULT '',
            PRIMARY KEY (thread_id, ticket),
            UNIQUE (thread_id, owner)
        )
        """,
        "CREATE INDEX petal_leases_process ON {s}.petal_leases (process)",
        """
        CREATE TABLE {s}.petal_processes (
            process text COLLATE "C" PRIMARY KEY,
            expires timestamptz NOT NULL
        )
        """,
        # What is worth compressing is compressed already.
        "ALTER TABLE {s}.petal_checkpoints ALTER header SET STORAGE EXTERNAL, ALTER metadata SET STORAGE EXTERNAL",
        "ALTER TABLE {s}.petal_values ALTER data SET STORAGE EXTERNAL",
        "ALTER TABLE {s}.petal_writes ALTER data SET STORAGE EXTERNAL",
        # Bundles take the place of rows all the time; that space is to be had again before the table has grown by it.
        "ALTER TABLE {s}.petal_values SET (autovacuum_vacuum_scale_factor = 0.02)",
        LOCK,
        SAVE,
        TAKE_TURNS,
    ),
)
"""Statements that lead from each format to the next. What was published is never changed, only added to."""


def migrate(
    connection: Connection[TupleRow],
    statements: Statements,
    where: str,
    *,
    schema: str | None = None,
    beside_langgraphs: bool = True,
) -> None:
    """Bring the tables to this version's format. Tables that are current need no lock and no right to make tables.

    Each step is one transaction with the number of its format: a process that is killed in it leaves nothing of it,
    and the next one does it again. One process at a time works; the others wait and find it done.

    Args:
        connection: Of a role that may make the tables, if they are missing.
        statements: Of their schema.
        where: The database as a URL.
        schema: That schema if it was named, in which alone LangGraph's tables count then; else they do in each of the
            search path.
        beside_langgraphs: Whether tables may be begun where there are LangGraph's.

    Raises:
        CheckpointerError: If they have a format that this version does not know.
        CheckpointerConfigurationError: If there are LangGraph's tables and none of Petal's.
        CheckpointCorruptionError: If their format is none.
        psycopg.Error: If the server refuses.
    """
    while _format(connection, statements, where) < len(MIGRATIONS):
        connection.execute(BEGIN_WRITE)
        with ended(connection):
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (PATIENCE,))
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (key(statements.schema, ""),))
            at = _format(connection, statements, where)
            if at == len(MIGRATIONS):
                return
            if at == 0:
                if not beside_langgraphs and holds_langgraphs_tables(connection, schema):
                    raise CheckpointerConfigurationError(
                        f"{where} holds the tables of LangGraph's own saver and none of Petal's. Go on with them as "
                        "they are with engine='langgraph', or copy them into Petal's with `petal convert`; "
                        "engine='petal' begins an empty state beside them."
                    )
                _make_schema(connection, statements)
                connection.execute(statements[META])
            for statement in MIGRATIONS[at]:
                connection.execute(statements[statement])
            connection.execute(statements[SET_FORMAT], (str(at + 1),))


def require_current(connection: Connection[TupleRow], statements: Statements, where: str) -> None:
    """Look whether the tables have this version's format, and change nothing.

    Raises:
        CheckpointerError: If they have another one, or there are none.
        CheckpointCorruptionError: If their format is none.
        psycopg.Error: If the server refuses.
    """
    if _format(connection, statements, where) < len(MIGRATIONS):
        raise CheckpointerError(
            f"{where} has no tables of this version of Petal: nothing was kept in it yet, or by an older one. "
            "A run makes them."
        )


def holds_langgraphs_tables(connection: Connection[TupleRow], schema: str | None) -> bool:
    """Whether a schema, or without one the search path, holds the tables of LangGraph's saver."""
    return bool(_one(connection, LANGGRAPHS, schema))


def format_of(connection: Connection[TupleRow], statements: Statements, where: str) -> int:
    """Number of the tables' format, be it a newer one; 0 where there are none.

    Raises:
        CheckpointCorruptionError: If their format is none.
    """
    if _one(connection, HAS_META, statements.schema) is None:
        return 0
    found = _one(connection, statements[FORMAT])
    if not (isinstance(found, str) and found.isdecimal() and int(found)):
        raise CheckpointCorruptionError(where, f"its table petal_meta names no format but {found!r}")
    return int(found)


def _format(connection: Connection[TupleRow], statements: Statements, where: str) -> int:
    """Number of the tables' format, which this version knows; 0 where there are none."""
    found = format_of(connection, statements, where)
    if found > len(MIGRATIONS):
        raise CheckpointerError(
            f"{where} was written by a newer Petal: its tables have format {found}, and this version knows formats up "
            f"to {len(MIGRATIONS)}. Upgrade petal to open it; nothing was changed."
        )
    return found


def _make_schema(connection: Connection[TupleRow], statements: Statements) -> None:
    # IF NOT EXISTS would ask for the right to make schemas even where the schema is there.
    if _one(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", statements.schema) is None:
        connection.execute(statements["CREATE SCHEMA {s}"])


def _one(connection: Connection[TupleRow], query: str | bytes, *parameters: str | None) -> Any:
    row = connection.execute(query, parameters or None).fetchone()
    return row and row[0]
