"""What a PostgreSQL database holds, looked at without making or changing anything."""

from __future__ import annotations

import psycopg

from petal.checkpoints.postgres_connections import PostgresConnections
from petal.checkpoints.postgres_migrations import format_of, holds_langgraphs_tables
from petal.checkpoints.postgres_sql import Statements
from petal.core.config.checkpointer import PostgresOptions

HOME = "SELECT current_schema()"
SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND (n.nspname = %s AND starts_with(c.relname, 'petal_') OR
    coalesce(n.nspname = %s, pg_table_is_visible(c.oid)) AND c.relname IN (
        'checkpoints', 'checkpoint_blobs', 'checkpoint_writes', 'checkpoint_migrations'
    )
)
"""


def looked_at(options: PostgresOptions, where: str) -> tuple[int, bool, int]:
    """What lies in the schema of the tables; where none is named, LangGraph's may be in any of the search path.

    Returns:
        The format of Petal's tables, be it a newer one, or 0 without any; whether LangGraph's are there; bytes on disk.

    Raises:
        CheckpointerUnavailableError: If the database cannot be reached.
        CheckpointCorruptionError: If the format of Petal's tables is none.
    """
    connections = PostgresConnections(options, where)
    try:
        with connections.beside() as connection:
            (home,) = connection.execute(HOME).fetchone() or (None,)
            schema = options.db_schema or home or ""
            (size,) = connection.execute(SIZE, (schema, options.db_schema)).fetchone() or (0,)
            format = format_of(connection, Statements(schema), where)
            return format, holds_langgraphs_tables(connection, options.db_schema), int(size)
    except psycopg.Error as error:
        raise connections.translated(error) or error from error
