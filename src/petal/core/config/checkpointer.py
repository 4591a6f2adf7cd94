"""Where an agent keeps its state: frozen data that can be built and compared without a database."""

from __future__ import annotations

import builtins
import os
import re
from typing import Annotated, Any, Literal, Self, assert_never
from urllib.parse import quote, unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from petal.core.config.retention import Retention
from petal.errors import CheckpointerConfigurationError, known_names

Durability = Literal["sync", "async", "exit"]
"""When a superstep counts as done: once it is saved, while it is being saved, or all saved at the end of the run."""
OnConflict = Literal["wait", "reject", "interrupt", "rollback"]
"""What a run does while another one has its thread."""

MEMORY_FILE = ":memory:"


def _path(value: Any) -> Any:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str) and (not path or "\0" in path):
        raise ValueError("the name of a file cannot be empty or hold a NUL character")
    if isinstance(path, str) and "://" in path:
        raise ValueError("this is a URL, not the name of a file; for sqlite:///runs.db write runs.db")
    return path


class MemoryOptions(BaseModel):
    """Options of every storage; the memory storage has no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    engine: Literal["petal", "langgraph"] = "petal"
    """Whose tables hold the state: Petal's, or those of LangGraph's own savers. An SQLite file that holds
    LangGraph's is opened with them unless an engine is named."""
    durability: Durability = "sync"
    """Used by every run that does not name another one."""
    on_conflict: OnConflict = "wait"
    """What a run of an agent does while another one has its thread, here or in another process: `wait` for its turn;
    `reject`: fail at once; `interrupt`: stop the other one before its next step, and go on with what it left;
    `rollback`: also remove what it saved."""
    conflict_timeout: float = Field(default=300.0, gt=0)
    """Seconds that a run waits for its thread at most."""
    encryption_key_env: str | None = None
    """The environment variable with the keys (`id:base64`, the first one encrypts) for encryption at rest."""
    allow_plaintext: bool = False
    """Whether rows that were saved before there was a key may be read."""
    metadata_keys: tuple[str, ...] = ()
    """Keys of a run's `configurable` that go into the metadata of its checkpoints; no others do."""
    cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """What encoded values may take in memory."""
    retention: Retention | None = None
    """Which checkpoints the saver deletes by itself, a thread now and then after saves; see `Retention`."""

    @model_validator(mode="after")
    def _engine_has_it(self) -> Self:
        if self.engine == "langgraph":
            for name in (
                "encryption_key_env",
                "allow_plaintext",
                "metadata_keys",
                "cache_bytes",
                "retention",
                "synchronous",
            ):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} is an option of Petal's own engine, not of langgraph")
        return self


class SqliteOptions(MemoryOptions):
    """Options of the SQLite storage."""

    db_file: Annotated[str, BeforeValidator(_path)]
    """The database file, or `:memory:`. Missing parent folders are made."""
    busy_timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for another process that is writing."""
    synchronous: Literal["full", "normal"] = "full"
    """What a power cut or a crash of the system leaves: all that was saved (`full`), or perhaps not the last saves
    (`normal`). A killed process loses none either way, and the file stays whole."""


class PostgresOptions(MemoryOptions):
    """Options of the PostgreSQL storage."""

    connection_string: SecretStr
    """`postgresql://user:password@host:port/database`, or libpq's `key=value` form."""
    db_schema: str | None = Field(default=None, alias="schema", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    """The schema that holds the tables; it is made if it is missing. Default: the server's search path."""
    min_size: int = Field(default=1, ge=1)
    """Connections kept open."""
    max_size: int = Field(default=10, ge=1)
    """Connections at most."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds to wait for a connection."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size ({self.min_size}) is greater than max_size ({self.max_size})")
        return self


Options = MemoryOptions | SqliteOptions | PostgresOptions


class CheckpointerConfig(BaseModel):
    """Which storage to use and how to reach it.

    Raises:
        CheckpointerConfigurationError: If a type or an option is unknown, or an option has a wrong value.
            Options that are missing are only asked for when the storage is built.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["memory", "sqlite", "postgres"] = "memory"
    """Type of checkpointer to use."""
    config: dict[str, Any] | None = None
    """Options of the chosen storage, e.g. `{"db_file": "runs.db"}`: the fields of `MemoryOptions`,
    `SqliteOptions` and `PostgresOptions`."""
    enabled: bool = True
    """Whether checkpointing is enabled."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise CheckpointerConfigurationError(_explained(error, CheckpointerConfig, "checkpointer")) from None

    @model_validator(mode="after")
    def _options_are_known(self) -> Self:
        try:
            self._options_model().model_validate(self.config or {})
        except ValidationError as error:
            mistakes = [e for e in error.errors() if not (e["type"] == "missing" and len(e["loc"]) == 1)]
            if mistakes:
                raise ValueError(_explained(error, self._options_model(), f"{self.type} checkpointer config")) from None
        return self

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """The configuration that a URL stands for.

        Args:
            url: `memory://`, `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://…`.
            options: Further options of the storage.

        Raises:
            CheckpointerConfigurationError: If the scheme is unknown or an option does not fit.
        """
        scheme, _, rest = url.partition("://") if "://" in url else ("", "", "")
        match scheme.lower():
            case "memory":
                if rest:
                    raise CheckpointerConfigurationError(f"{url!r} names a place; write memory:// and no more.")
                return cls(type="memory", config=options or None)
            case "sqlite":
                host, _, path = rest.partition("/")
                if host:
                    raise CheckpointerConfigurationError(
                        f"{url!r} names a host; write sqlite:///{rest} for a file here, "
                        "and a fourth slash for an absolute path."
                    )
                if "?" in path:
                    raise CheckpointerConfigurationError(
                        f"{url!r} has options after '?', which would be ignored; pass them by name, "
                        "or write %3F for a question mark in the file's name."
                    )
                return cls(type="sqlite", config={"db_file": unquote(path) or MEMORY_FILE, **options})
            case "postgresql" | "postgres":
                return cls(type="postgres", config={"connection_string": url, **options})
            case _:
                raise CheckpointerConfigurationError(
                    f"{redacted(url)!r} is no database URL; "
                    "write sqlite:///petal.db, postgresql://user@host/database or memory://."
                )

    @classmethod
    def of(cls, given: CheckpointerConfig | str) -> CheckpointerConfig:
        """The configuration that is given, or that a URL stands for.

        Raises:
            CheckpointerConfigurationError: If it is neither.
        """
        if isinstance(given, str):
            return cls.from_url(given)
        if not isinstance(given, CheckpointerConfig):
            raise CheckpointerConfigurationError(
                "A database is named by a URL such as 'sqlite:///petal.db' or by a CheckpointerConfig, not by "
                f"{type(given).__name__}."
            )
        return given

    @property
    def options(self) -> Options:
        """The options, typed and complete.

        Raises:
            CheckpointerConfigurationError: If a required option is missing.
        """
        try:
            return self._options_model().model_validate(self.config or {})
        except ValidationError as error:
            missing = ", ".join(str(e["loc"][0]) for e in error.errors())
            name = {"memory": "Memory", "sqlite": "SQLite", "postgres": "Postgres"}[self.type]
            raise CheckpointerConfigurationError(f"{name} checkpointer requires configuration ({missing})") from None

    @property
    def where(self) -> str:
        """The storage as a URL, without any password."""
        match self.type:
            case "memory":
                return "memory://"
            case "sqlite":
                return f"sqlite:///{(self.config or {}).get('db_file', '')}"
            case "postgres":
                return _address(_revealed((self.config or {}).get("connection_string", "postgresql://")))
            case _:
                assert_never(self.type)

    def _options_model(self) -> builtins.type[Options]:
        match self.type:
            case "memory":
                return MemoryOptions
            case "sqlite":
                return SqliteOptions
            case "postgres":
                return PostgresOptions
            case _:
                assert_never(self.type)

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            if name == "config" and value is not None and "connection_string" in value:
                value = {**value, "connection_string": self.where}
            yield name, value

    __str__ = BaseModel.__repr__


_SETTING = r"\b(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&']+)"
"""One `key=value` of libpq's form, or of a URL's query."""


def redacted(connection: str) -> str:
    """A connection string without its password, in URL or `key=value` form, also within a sentence."""
    # A password may hold an unescaped '@', so all up to the last one before the query is taken for it.
    without = re.sub(r"(?<=://)([^/@\s:]*):((?!\?\w+=)\S)*@", r"\1:***@", connection)
    return re.sub(_SETTING, lambda found: f"{found[1]}=***" if "password" in found[1].lower() else found[0], without)


def _address(connection: str) -> str:
    """A connection string as a URL without its password."""
    if re.match(r"postgres(ql)?://", connection):
        return redacted(connection)
    settings = {key: re.sub(r"\\(.)", r"\1", value.strip("'")) for key, value in re.findall(_SETTING, connection)}
    user, host, name = (quote(settings.get(key, ""), safe="") for key in ("user", "host", "dbname"))
    port = f":{settings['port']}" if "port" in settings else ""
    return f"postgresql://{user}{'@' if user else ''}{host}{port}/{name}"


def _revealed(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _explained(error: ValidationError, model: type[BaseModel], what: str) -> str:
    """A validation error in one line a mistake: what was found, what is allowed, the nearest name."""
    known = [field.alias or name for name, field in model.model_fields.items()]
    lines = []
    for mistake in error.errors(include_url=False, include_input=False, include_context=False):
        at = ".".join(str(part) for part in mistake["loc"])
        if mistake["type"] == "missing":
            continue
        if mistake["type"] == "extra_forbidden":
            lines.append(f"{what} has no option {at!r}. {known_names(at, known)}")
        elif not at:
            lines.append(mistake["msg"].removeprefix("Value error, "))
        else:
            lines.append(f"{what}: {at}: {mistake['msg'].removeprefix('Value error, ').rstrip('.')}.")
    return " ".join(lines)
