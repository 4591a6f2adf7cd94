"""The three savers, and the one function that picks among them."""

from __future__ import annotations

from os import PathLike
from typing import Any, assert_never

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

        config = CheckpointerConfig(type="memory", config=options)
        super().__init__(MemoryDialect(serde), durability=config.options.durability, serde=serde)


class SqliteSaver(LangGraphSaver):
    """Keeps state in one SQLite file, which several processes may share.

    Args:
        db_file: The file, or `:memory:`. It and its folders are made at first use.
        serde: How values become bytes. Default: LangGraph's serializer.
        options: The fields of `SqliteOptions`.

    Raises:
        CheckpointerConfigurationError: If an option is unknown or has a wrong value.
    """

    def __init__(
        self, db_file: str | PathLike[str], *, serde: SerializerProtocol | None = None, **options: Any
    ) -> None:
        from petal.checkpoints.langgraph.sqlite import SqliteDialect

        config = CheckpointerConfig(type="sqlite", config={"db_file": db_file, **options})
        known = config.options
        assert isinstance(known, SqliteOptions)
        super().__init__(SqliteDialect(known, config.where), durability=known.durability, serde=serde)


class PostgresSaver(LangGraphSaver):
    """Keeps state in a PostgreSQL database, over a pool of connections.

    Args:
        connection_string: `postgresql://user:password@host:port/database`, or libpq's `key=value` form.
        serde: How values become bytes. Default: LangGraph's serializer.
        options: The fields of `PostgresOptions`.

    Raises:
        CheckpointerConfigurationError: If the connection string cannot be read, an option is unknown or has
            a wrong value, or the driver is not installed.
    """

    def __init__(self, connection_string: str, *, serde: SerializerProtocol | None = None, **options: Any) -> None:
        try:
            from petal.checkpoints.langgraph.postgres import PostgresDialect
        except ImportError as error:
            raise CheckpointerConfigurationError(
                f"The postgres checkpointer needs the PostgreSQL driver ({error}): pip install 'petal[postgres]'"
            ) from error

        config = CheckpointerConfig(type="postgres", config={"connection_string": connection_string, **options})
        known = config.options
        assert isinstance(known, PostgresOptions)
        super().__init__(PostgresDialect(known, config.where), durability=known.durability, serde=serde)


def open_checkpointer(
    config: CheckpointerConfig | str, *, serde: SerializerProtocol | None = None, **options: Any
) -> LangGraphSaver:
    """A ready checkpoint saver for any LangGraph program; it touches no database until it is first used.

    ```python
    with open_checkpointer("sqlite:///app.db") as saver:
        graph = builder.compile(checkpointer=saver)
    ```

    Args:
        config: `"sqlite:///petal.db"`, `"postgresql://…"`, `"memory://"` or a `CheckpointerConfig`.
        serde: How values become bytes. Default: LangGraph's serializer.
        options: Further options of the storage; they win over those of the config.

    Returns:
        A saver for sync and async callers, which is also a context manager of both kinds.

    Raises:
        CheckpointerConfigurationError: If the URL or an option is wrong, a required one is missing, the
            config is disabled, or the storage's driver is not installed.
    """
    if isinstance(config, str):
        config = CheckpointerConfig.from_url(config, **options)
    elif options:
        config = CheckpointerConfig(
            type=config.type, config={**(config.config or {}), **options}, enabled=config.enabled
        )
    if not config.enabled:
        raise CheckpointerConfigurationError(
            f"The {config.type} checkpointer is disabled (enabled=False), so there is nothing to open; "
            "enable it, or build the graph without a checkpointer."
        )
    config.options  # noqa: B018  a missing option is asked for here, by its name
    match config.type:
        case "memory":
            return MemorySaver(serde=serde, **(config.config or {}))
        case "sqlite":
            return SqliteSaver(serde=serde, **(config.config or {}))
        case "postgres":
            return PostgresSaver(serde=serde, **(config.config or {}))
        case _:
            assert_never(config.type)
