"""The three savers, and the one function that picks among them."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any, Literal, assert_never, get_args

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec
from petal.checkpoints.crypto import KeyRing
from petal.checkpoints.envelope import Envelope
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.langgraph.savers import driver_missing
from petal.checkpoints.records import Store
from petal.checkpoints.rows import Rows
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig, MemoryOptions, PostgresOptions, SqliteOptions
from petal.errors import CheckpointerConfigurationError

OnDecodeError = Literal["raise", "raw"]


class _Configured(PetalSaver):
    """A saver that is put together from options."""

    def __init__(
        self, store: Store, options: MemoryOptions, allow: Iterable[type], on_decode_error: OnDecodeError
    ) -> None:
        if options.engine != "petal":
            raise CheckpointerConfigurationError(
                f"{type(self).__name__} is Petal's own engine; use open_checkpointer(..., engine='langgraph')."
            )
        if on_decode_error not in get_args(OnDecodeError):
            raise CheckpointerConfigurationError(f"on_decode_error is 'raise' or 'raw', not {on_decode_error!r}.")
        keys = None if options.encryption_key_env is None else KeyRing.from_env(options.encryption_key_env)
        codec = Codec(Allowlist().adding(*allow), on_decode_error=on_decode_error)
        envelope = Envelope(keys, allow_plaintext=options.allow_plaintext, compresses=not store.is_immediate)
        super().__init__(
            store,
            Rows(codec, envelope, frozenset(options.metadata_keys)),
            durability=options.durability,
            cache_bytes=options.cache_bytes,
            retention=options.retention,
        )


class MemorySaver(_Configured):
    """Keeps state in this process, and only as long as the saver is open.

    Args:
        allow: Types that state may hold beside plain data, messages and the standard library's.
        on_decode_error: What becomes of a saved value whose type is not allowed, is gone or has changed: an
            error (`raise`), or a `RawValue` to look at (`raw`).
        options: The fields of `MemoryOptions`.

    Raises:
        CheckpointerConfigurationError: If an option is unknown or has a wrong value.
    """

    def __init__(self, *, allow: Iterable[type] = (), on_decode_error: OnDecodeError = "raise", **options: Any) -> None:
        from petal.checkpoints.memory import MemoryStore

        config = CheckpointerConfig(type="memory", config=options)
        super().__init__(MemoryStore(), config.options, allow, on_decode_error)


class SqliteSaver(_Configured):
    """Keeps state in one SQLite file, which several processes may share.

    Args:
        db_file: The file, or `:memory:`. It and its folders are made at first use.
        allow: As in `MemorySaver`.
        on_decode_error: As in `MemorySaver`.
        read_only: Change nothing; a file that is missing is an error.
        options: The fields of `SqliteOptions`.

    Raises:
        CheckpointerConfigurationError: If an option is unknown or has a wrong value.
    """

    def __init__(
        self,
        db_file: str | PathLike[str],
        *,
        allow: Iterable[type] = (),
        on_decode_error: OnDecodeError = "raise",
        read_only: bool = False,
        **options: Any,
    ) -> None:
        from petal.checkpoints.sqlite import SqliteStore

        config = CheckpointerConfig(type="sqlite", config={"db_file": db_file, **options})
        known = config.options
        assert isinstance(known, SqliteOptions)
        super().__init__(SqliteStore(known, config.where, read_only=read_only), known, allow, on_decode_error)


class PostgresSaver(_Configured):
    """Keeps state in a PostgreSQL database, over a pool of connections.

    Args:
        connection_string: `postgresql://user:password@host:port/database`, or libpq's `key=value` form.
        allow: As in `MemorySaver`.
        on_decode_error: As in `MemorySaver`.
        read_only: Change nothing; tables that are missing are an error. A role that may only read can do that.
        options: The fields of `PostgresOptions`.

    Raises:
        CheckpointerConfigurationError: If the connection string cannot be read, an option is unknown or has
            a wrong value, or the driver is not installed.
    """

    def __init__(
        self,
        connection_string: str,
        *,
        allow: Iterable[type] = (),
        on_decode_error: OnDecodeError = "raise",
        read_only: bool = False,
        **options: Any,
    ) -> None:
        try:
            from petal.checkpoints.postgres import PostgresStore
        except ImportError as error:
            raise driver_missing(error) from error

        config = CheckpointerConfig(type="postgres", config={"connection_string": connection_string, **options})
        known = config.options
        assert isinstance(known, PostgresOptions)
        super().__init__(PostgresStore(known, config.where, read_only=read_only), known, allow, on_decode_error)


def open_checkpointer(
    config: CheckpointerConfig | str,
    *,
    allow: Iterable[type] = (),
    inspect: bool = False,
    read_only: bool = False,
    serde: SerializerProtocol | None = None,
    **options: Any,
) -> PetalSaver | LangGraphSaver:
    """A ready checkpoint saver for any LangGraph program; it touches no database until it is first used.

    ```python
    with open_checkpointer("sqlite:///app.db", allow=[Order]) as saver:
        graph = builder.compile(checkpointer=saver)
    ```

    Args:
        config: `"sqlite:///petal.db"`, `"postgresql://…"`, `"memory://"` or a `CheckpointerConfig`.
        allow: Types that state may hold beside plain data, messages and the standard library's. Agents built
            with Petal allow those of their state's annotations.
        inspect: Only look: `read_only`, and values of types that are not allowed come as what was saved of them.
        read_only: Change nothing in the database, not even to make or upgrade its tables.
        serde: How values become bytes, for `engine="langgraph"`. Default: LangGraph's serializer.
        options: Further options of the storage; they win over those of the config.

    Returns:
        A saver for sync and async callers, which is also a context manager of both kinds.

    Raises:
        CheckpointerConfigurationError: If the URL or an option is wrong, a required one is missing, the
            config is disabled, or the storage's driver is not installed.
    """
    config = CheckpointerConfig.of(config)
    if options:
        config = CheckpointerConfig(
            type=config.type, config={**(config.config or {}), **options}, enabled=config.enabled
        )
    if not config.enabled:
        raise CheckpointerConfigurationError(
            f"The {config.type} checkpointer is disabled (enabled=False), so there is nothing to open; "
            "enable it, or build the graph without a checkpointer."
        )
    read_only = read_only or inspect
    known = config.options  # a missing option is asked for here, by its name
    if known.engine == "langgraph" or _holds_langgraphs_tables(config, known):
        if inspect:
            serde = serde or JsonPlusSerializer(allowed_msgpack_modules=None)
        return _langgraph_saver(config, serde, read_only=read_only)
    if serde is not None:
        raise CheckpointerConfigurationError("serde is for engine='langgraph'; Petal's own engine takes allow=[types].")
    on_decode_error: OnDecodeError = "raw" if inspect else "raise"
    given = config.config or {}
    match config.type:
        case "memory":
            return MemorySaver(allow=allow, on_decode_error=on_decode_error, **given)
        case "sqlite":
            return SqliteSaver(allow=allow, on_decode_error=on_decode_error, read_only=read_only, **given)
        case "postgres":
            return PostgresSaver(allow=allow, on_decode_error=on_decode_error, read_only=read_only, **given)
        case _:
            assert_never(config.type)


def _langgraph_saver(
    config: CheckpointerConfig, serde: SerializerProtocol | None, *, read_only: bool
) -> LangGraphSaver:
    from petal.checkpoints.langgraph import savers

    given = {key: value for key, value in (config.config or {}).items() if key != "engine"}
    match config.type:
        case "memory":
            return savers.MemorySaver(serde=serde, **given)
        case "sqlite":
            return savers.SqliteSaver(serde=serde, read_only=read_only, **given)
        case "postgres":
            return savers.PostgresSaver(serde=serde, read_only=read_only, **given)
        case _:
            assert_never(config.type)


def _holds_langgraphs_tables(config: CheckpointerConfig, options: MemoryOptions) -> bool:
    """Whether an SQLite file was begun by LangGraph's saver, and no engine is named."""
    if not isinstance(options, SqliteOptions) or "engine" in (config.config or {}):
        return False
    from petal.checkpoints.sqlite import holds_langgraphs_tables

    return holds_langgraphs_tables(options.db_file)
