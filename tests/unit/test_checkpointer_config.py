"""`CheckpointerConfig` is frozen data that touches nothing, checks itself and keeps passwords to itself."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from petal.core.config.checkpointer import (
    CheckpointerConfig,
    MemoryOptions,
    PostgresOptions,
    SqliteOptions,
    redacted,
)
from petal.errors import CheckpointerConfigurationError

ALL_STORAGES = (
    "engine, durability, on_conflict, conflict_timeout, encryption_key_env, allow_plaintext, metadata_keys, "
    "cache_bytes, retention"
)


def refusal(**data: Any) -> str:
    """Why a configuration is refused."""
    with pytest.raises(CheckpointerConfigurationError) as caught:
        CheckpointerConfig(**data)
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return str(caught.value)


def test_the_default_is_memory() -> None:
    """Nothing need be said, and equal configurations are equal."""
    config = CheckpointerConfig()
    assert (config.type, config.config, config.enabled) == ("memory", None, True)
    assert config == CheckpointerConfig(type="memory")
    assert config.options == MemoryOptions(engine="petal", durability="sync")


def test_it_is_frozen() -> None:
    """A field cannot be set."""
    with pytest.raises(ValidationError, match="frozen"):
        CheckpointerConfig().enabled = False


def test_options_are_typed() -> None:
    """Each storage has its own, with defaults."""
    sqlite = CheckpointerConfig(type="sqlite", config={"db_file": Path("a") / "b.db"}).options
    assert sqlite == SqliteOptions(db_file="a/b.db", busy_timeout=30)
    url = "postgresql://u:p@h/d"
    postgres = CheckpointerConfig(type="postgres", config={"connection_string": url, "schema": "tenant"}).options
    assert postgres == PostgresOptions(connection_string=SecretStr(url), schema="tenant")


@pytest.mark.parametrize(
    ("type", "message"),
    [
        ("sqlite", "SQLite checkpointer requires configuration (db_file)"),
        ("postgres", "Postgres checkpointer requires configuration (connection_string)"),
    ],
)
def test_a_missing_option_is_asked_for_when_it_is_needed(type: Any, message: str) -> None:
    """The configuration can be made without it; its options cannot be had."""
    config = CheckpointerConfig(type=type)
    with pytest.raises(CheckpointerConfigurationError) as caught:
        config.options  # noqa: B018
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"type": "mysql"}, "checkpointer: type: Input should be 'memory', 'sqlite' or 'postgres'."),
        ({"typ": "sqlite"}, "checkpointer has no option 'typ'. Did you mean 'type'? Known: type, config, enabled."),
        (
            {"type": "sqlite", "config": {"dbfile": "a"}},
            "sqlite checkpointer config has no option 'dbfile'. Did you mean 'db_file'? "
            f"Known: {ALL_STORAGES}, db_file, busy_timeout, synchronous.",
        ),
        (
            {"config": {"zzz": 1}},
            f"memory checkpointer config has no option 'zzz'. Known: {ALL_STORAGES}.",
        ),
        (
            {"type": "sqlite", "config": {"db_file": "a", "busy_timeout": 0}},
            "sqlite checkpointer config: busy_timeout: Input should be greater than 0.",
        ),
        (
            {"type": "sqlite", "config": {"db_file": "a", "synchronous": "off"}},
            "sqlite checkpointer config: synchronous: Input should be 'full' or 'normal'.",
        ),
        (
            {"type": "sqlite", "config": {"db_file": "a", "engine": "langgraph", "synchronous": "normal"}},
            "synchronous is an option of Petal's own engine, not of langgraph",
        ),
        (
            {"type": "sqlite", "config": {"db_file": ""}},
            "sqlite checkpointer config: db_file: the name of a file cannot be empty or hold a NUL character.",
        ),
        (
            {"type": "sqlite", "config": {"db_file": "a\0b"}},
            "sqlite checkpointer config: db_file: the name of a file cannot be empty or hold a NUL character.",
        ),
        (
            {"type": "sqlite", "config": {"db_file": "sqlite:///a.db"}},
            "sqlite checkpointer config: db_file: this is a URL, not the name of a file; for sqlite:///runs.db write "
            "runs.db.",
        ),
        (
            {"type": "postgres", "config": {"connection_string": "postgresql://h/d", "min_size": 5, "max_size": 2}},
            "min_size (5) is greater than max_size (2)",
        ),
        (
            {"type": "postgres", "config": {"connection_string": "postgresql://h/d", "schema": 'a"; DROP'}},
            "postgres checkpointer config: schema: String should match pattern '^[A-Za-z_][A-Za-z0-9_]{0,62}$'.",
        ),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(data: dict[str, Any], message: str) -> None:
    """One line: what was found, what is allowed, and the nearest known name."""
    assert refusal(**data) == message


def test_a_missing_option_does_not_hide_a_wrong_one() -> None:
    """Only what is wrong is told; what is missing may still come."""
    assert refusal(type="sqlite", config={"busy_timeout": -1}) == (
        "sqlite checkpointer config: busy_timeout: Input should be greater than 0."
    )


@pytest.mark.parametrize(
    ("url", "config"),
    [
        ("memory://", CheckpointerConfig()),
        ("sqlite:///a.db", CheckpointerConfig(type="sqlite", config={"db_file": "a.db"})),
        ("sqlite:////var/a.db", CheckpointerConfig(type="sqlite", config={"db_file": "/var/a.db"})),
        ("sqlite:///a%20b%3F.db", CheckpointerConfig(type="sqlite", config={"db_file": "a b?.db"})),
        ("sqlite://", CheckpointerConfig(type="sqlite", config={"db_file": ":memory:"})),
        ("SQLITE:///:memory:", CheckpointerConfig(type="sqlite", config={"db_file": ":memory:"})),
        ("postgres://h/d", CheckpointerConfig(type="postgres", config={"connection_string": "postgres://h/d"})),
        ("postgresql://h/d", CheckpointerConfig(type="postgres", config={"connection_string": "postgresql://h/d"})),
    ],
)
def test_a_url_stands_for_a_configuration(url: str, config: CheckpointerConfig) -> None:
    """Each scheme, with relative and absolute files."""
    assert CheckpointerConfig.from_url(url) == config


def test_a_url_takes_options() -> None:
    """They are checked like those of a configuration."""
    assert CheckpointerConfig.from_url("memory://", durability="exit").options.durability == "exit"
    assert CheckpointerConfig.from_url("sqlite:///a.db", busy_timeout=3).config == {
        "db_file": "a.db",
        "busy_timeout": 3,
    }
    with pytest.raises(CheckpointerConfigurationError, match="Did you mean 'busy_timeout'"):
        CheckpointerConfig.from_url("sqlite:///a.db", busytimeout=3)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("a.db", "'a.db' is no database URL; write sqlite:///petal.db, postgresql://user@host/database or memory://."),
        (
            "mysql://me:hunter2@h",
            "'mysql://me:***@h' is no database URL; write sqlite:///petal.db, "
            "postgresql://user@host/database or memory://.",
        ),
        ("memory://here", "'memory://here' names a place; write memory:// and no more."),
        (
            "sqlite://a/b.db",
            "'sqlite://a/b.db' names a host; write sqlite:///a/b.db for a file here, "
            "and a fourth slash for an absolute path.",
        ),
        (
            "sqlite:///a.db?mode=ro",
            "'sqlite:///a.db?mode=ro' has options after '?', which would be ignored; pass them by name, "
            "or write %3F for a question mark in the file's name.",
        ),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, message: str) -> None:
    """The message says how to write it."""
    with pytest.raises(CheckpointerConfigurationError) as caught:
        CheckpointerConfig.from_url(url)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("connection", "where"),
    [
        ("postgresql://me:hunter2@h:5/d", "postgresql://me:***@h:5/d"),
        ("postgresql://me:hunter2@x/@h/d?sslmode=require", "postgresql://me:***@h/d?sslmode=require"),
        ("postgresql://me@h/d?password=hunter2&user=a@b", "postgresql://me@h/d?password=***&user=a@b"),
        ("host=h port=5 user=me password=hunter2 dbname=d", "postgresql://me@h:5/d"),
        (r"password = 'hunter2 \' x' host=/run/pg user='a b'", "postgresql://a%20b@%2Frun%2Fpg/"),
        ("hunter2", "postgresql:///"),
    ],
)
def test_no_password_is_shown(connection: str, where: str) -> None:
    """`where`, `str` and `repr` give the storage without its password, in either form of connection string."""
    for value in (connection, SecretStr(connection)):
        config = CheckpointerConfig(type="postgres", config={"connection_string": value, "min_size": 1})
        assert config.where == where
        assert "hunter2" not in f"{config!r} {config}"
        assert repr(where) in repr(config)
    assert "hunter2" not in refusal(type="postgres", config={"connection_string": connection, "min_siz": 1})
    assert CheckpointerConfig(type="postgres").where == "postgresql://"


def test_it_says_where() -> None:
    """The other storages by their URL."""
    assert CheckpointerConfig().where == "memory://"
    assert CheckpointerConfig(type="sqlite", config={"db_file": "a.db"}).where == "sqlite:///a.db"
    assert repr(CheckpointerConfig()) == "CheckpointerConfig(type='memory', config=None, enabled=True)"


def test_a_sentence_is_redacted_too() -> None:
    """An error message that quotes a connection string keeps its other words."""
    assert redacted("cannot reach postgresql://a:b@h/d, user=a password=b at all") == (
        "cannot reach postgresql://a:***@h/d, user=a password=*** at all"
    )
