"""LangGraph's own tables behind the three storages, for `engine="langgraph"`."""

from __future__ import annotations

from os import PathLike
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.core.config.checkpointer import CheckpointerConfig, PostgresOptions, SqliteOptions
from petal.errors import CheckpointerConfigurationError


class MemorySaver(LangGraphSaver):
    """Keeps state in this process, and only as long as it lives.

    Args:
        serde: How values become bytes. Default: LangGraph's serializer.
        options: The fields of `MemoryOptions`.

    Raises:
        CheckpointerConfigurationError: If an option is unknown or has a wrong value.
    """

    def __init__(self, *, serde: SerializerProtocol | None = None, **options: Any) -> None:
        from petal.checkpoints.langgraph.memory import MemoryDialect

        config = CheckpointerConfig(type="memory", config={"engine": "langgraph", **options})
        super().__init__(MemoryDialect(serde), durability=config.options.durability, serde=serde)


class SqliteSaver(LangGraphSaver):
    """Keeps state in one SQLite file, which several processes may share.

    Args:
        db_file: The file, or `:memory:`. It and its folders are made at first use.
        serde: How values become bytes. Default: LangGraph's serializer.
        read_only: Change nothing, not even the tables; a file that is missing is an error.
        options: The fields of `SqliteOptions`.

    Raises:
        CheckpointerConfigurationError: If an option is unknown or has a wrong value.
    """

    def __init__(
        self,
        db_file: str | PathLike[str],
        *,
        serde: SerializerProtocol | None = None,
        read_only: bool = False,
        **options: Any,
    ) -> None:
        from petal.checkpoints.langgraph.sqlite import SqliteDialect

        config = CheckpointerConfig(type="sqlite", config={"engine": "langgraph", "db_file": db_file, **options})
        known = config.options
        assert isinstance(known, SqliteOptions)
        dialect = SqliteDialect(known, config.where, read_only=read_only)
        super().__init__(dialect, durability=known.durability, serde=serde)


class PostgresSaver(LangGraphSaver):
    """Keeps state in a PostgreSQL database, over a pool of connections.

    Args:
        connection_string: `postgresql://user:password@host:port/database`, or libpq's `key=value` form.
        serde: How values become bytes. Default: LangGraph's serializer.
        read_only: Change nothing, not even the tables.
        options: The fields of `PostgresOptions`.

    Raises:
        CheckpointerConfigurationError: If the connection string cannot be read, an option is unknown or has
            a wrong value, or the driver is not installed.
    """

    def __init__(
        self,
        connection_string: str,
        *,
        serde: SerializerProtocol | None = None,
        read_only: bool = False,
        **options: Any,
    ) -> None:
        try:
            from petal.checkpoints.langgraph.postgres import PostgresDialect
        except ImportError as error:
            raise driver_missing(error) from error

        config = CheckpointerConfig(
            type="postgres", config={"engine": "langgraph", "connection_string": connection_string, **options}
        )
        known = config.options
        assert isinstance(known, PostgresOptions)
        dialect = PostgresDialect(known, config.where, read_only=read_only)
        super().__init__(dialect, durability=known.durability, serde=serde)


def driver_missing(error: ImportError) -> CheckpointerConfigurationError:
    """The error of asking for PostgreSQL without its driver."""
    return CheckpointerConfigurationError(
        f"The postgres checkpointer needs the PostgreSQL driver ({error}): pip install 'petal[postgres]'"
    )
