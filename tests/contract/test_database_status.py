"""What a database is, told without a change in it; whose tables a server holds; and upgrades of older formats."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint

from petal.checkpoints import (
    DatabaseStatus,
    PostgresSaver,
    convert,
    database_status,
    open_checkpointer,
    postgres_migrations,
    sqlite_sql,
    upgrade_database,
)
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import (
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerError,
    CheckpointerUnavailableError,
)


def put(config: CheckpointerConfig | str, thread_id: str = "t", **options: Any) -> None:
    with open_checkpointer(config, **options) as saver:
        where = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        saver.put(where, empty_checkpoint(), {"source": "input", "step": -1}, {})


def executed(config: CheckpointerConfig, statement: str) -> None:
    assert config.config is not None
    if config.type == "sqlite":
        with closing(sqlite3.connect(config.config["db_file"])) as connection, connection:
            connection.execute(statement)
    else:
        with psycopg.connect(config.config["connection_string"]) as connection:
            connection.execute(statement)


def made_older(config: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let this version of Petal know one format more than the database has; that format's number."""
    module: Any = sqlite_sql if config.type == "sqlite" else postgres_migrations
    schema = "" if config.type == "sqlite" else "{s}."
    step = (f"ALTER TABLE {schema}petal_threads ADD COLUMN colour TEXT",)
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, step))
    return len(module.MIGRATIONS)


def test_a_database_of_this_version(durable_storage: CheckpointerConfig) -> None:
    """How much is in it, and what it takes."""
    put(durable_storage)
    put(durable_storage, "u")
    status = database_status(durable_storage)
    assert (status.where, status.engine, status.state) == (durable_storage.where, "petal", "current")
    assert status.format == status.known_format
    assert (status.threads, status.checkpoints, status.encrypted) == (2, 2, False)
    assert status.bytes is not None
    assert status.size is not None
    assert status.size > status.bytes > 0
    with open_checkpointer(durable_storage) as saver:
        saver.delete_thread("t")
        saver.delete_thread("u")
    emptied = database_status(durable_storage)
    assert (emptied.threads, emptied.checkpoints, emptied.bytes, emptied.encrypted) == (0, 0, 0, None)


def test_a_database_of_langgraphs(untouched_storage: CheckpointerConfig) -> None:
    """Also where Petal's tables lie beside them, if that engine is asked for."""
    theirs = CheckpointerConfig(
        type=untouched_storage.type, config={**(untouched_storage.config or {}), "engine": "langgraph"}
    )
    put(theirs)
    status = database_status(untouched_storage)
    assert (status.engine, status.format, status.state) == ("langgraph", None, "langgraph")
    assert (status.threads, status.checkpoints, status.bytes, status.encrypted) == (1, 1, None, None)
    put(untouched_storage, "u", engine="petal")
    put(untouched_storage, "v", engine="petal")
    assert database_status(untouched_storage).threads == 2
    assert database_status(theirs) == database_status(theirs)
    assert (database_status(theirs).engine, database_status(theirs).threads) == ("langgraph", 1)


def test_encryption_is_seen_without_the_key(
    durable_storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYS", "k:" + base64.b64encode(b"1" * 32).decode())
    put(durable_storage, encryption_key_env="KEYS")
    assert database_status(durable_storage).encrypted is True
    executed(durable_storage, "UPDATE petal_checkpoints SET header = metadata")
    executed(durable_storage, "UPDATE petal_checkpoints SET header = substr(header, 2)")
    assert database_status(durable_storage).encrypted is None


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/none.db"])
def test_what_is_not_there_is_not_looked_at(tmp_path: Path, url: str) -> None:
    with pytest.raises((CheckpointerConfigurationError, CheckpointerUnavailableError)):
        database_status(url.format(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_looked_at_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointerUnavailableError, match="It is a folder; name a file in it"):
        database_status(f"sqlite:///{tmp_path}")
    url = f"sqlite:///{tmp_path}/runs.db"
    with open_checkpointer(url) as saver:
        saver.threads()
    (tmp_path / "runs.db-shm").symlink_to("nowhere/shm")
    with pytest.raises(CheckpointerUnavailableError, match="SQLite makes a file beside it"):
        database_status(url)


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a letter " * 100)
    with pytest.raises(CheckpointCorruptionError, match="not a database"):
        database_status(f"sqlite:///{tmp_path}/note.txt")


def test_an_unreachable_server_is_said_to_be_one(postgres_url: str) -> None:
    with pytest.raises(CheckpointerUnavailableError, match="does not exist"):
        database_status(postgres_url + "_none")


def test_the_driver_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "petal.checkpoints.postgres_probe", None)
    with pytest.raises(CheckpointerConfigurationError, match=r"pip install 'petal\[postgres\]'"):
        database_status("postgresql://localhost/none")


def test_an_older_database_is_told_and_upgraded(
    durable_storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at it leaves it as it is; upgrading it twice is fine."""
    put(durable_storage)
    newest = made_older(durable_storage, monkeypatch)
    for _ in range(2):
        status = database_status(durable_storage)
        assert (status.state, status.format, status.known_format) == ("older", newest - 1, newest)
        assert (status.threads, status.encrypted) == (None, None)
    assert upgrade_database(durable_storage) == (newest - 1, newest)
    assert upgrade_database(durable_storage) == (newest, newest)
    assert (database_status(durable_storage).state, database_status(durable_storage).threads) == ("current", 1)


def test_a_newer_database_is_told_and_left_alone(durable_storage: CheckpointerConfig) -> None:
    put(durable_storage)
    executed(durable_storage, "UPDATE petal_meta SET value = '77' WHERE key = 'format'")
    status = database_status(durable_storage)
    assert (status.state, status.format, status.threads) == ("newer", 77, None)
    with pytest.raises(CheckpointerError, match="written by a newer Petal"):
        upgrade_database(durable_storage)
    assert database_status(durable_storage) == status


def test_there_is_nothing_to_upgrade_in_a_database_without_tables(tmp_path: Path, postgres_url: str) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE other (n)")
    for url in (f"sqlite:///{tmp_path}/empty.db", postgres_url):
        assert database_status(url).state == "empty"
        with pytest.raises(CheckpointerError, match="holds no tables of Petal's, so there is nothing to upgrade"):
            upgrade_database(url)
        assert database_status(url).state == "empty"


def test_a_schema_is_looked_at_alone(postgres_url: str) -> None:
    put(postgres_url, schema="kept")
    assert database_status(postgres_url).state == "empty"
    there = CheckpointerConfig.from_url(postgres_url, schema="kept")
    assert isinstance(database_status(there), DatabaseStatus)
    assert database_status(there).threads == 1
    assert database_status(CheckpointerConfig.from_url(postgres_url, schema="other")).state == "empty"


def test_no_empty_state_is_begun_beside_langgraphs_tables(postgres_url: str) -> None:
    """Who names no engine is told of both ways out, and either of them works; so does an engine that is named."""
    put(postgres_url, engine="langgraph")
    for saver in (open_checkpointer(postgres_url), PostgresSaver(postgres_url)):
        with saver, pytest.raises(CheckpointerConfigurationError) as caught:
            saver.threads()
        assert str(caught.value) == (
            f"{saver.where} holds the tables of LangGraph's own saver and none of Petal's. Go on with them as they are "
            "with engine='langgraph', or copy them into Petal's with `petal convert`; engine='petal' begins an empty "
            "state beside them."
        )
    assert database_status(postgres_url).engine == "langgraph"
    with open_checkpointer(postgres_url, schema="mine") as saver:
        assert saver.threads() == []  # which are not in this schema
    convert(CheckpointerConfig.from_url(postgres_url, engine="langgraph"), postgres_url)
    with open_checkpointer(postgres_url) as saver:
        assert [thread.thread_id for thread in saver.threads()] == ["t"]


def test_langgraphs_tables_are_found_along_the_search_path(postgres_url: str) -> None:
    """As LangGraph's saver finds them, though a schema before theirs would get Petal's: no empty state hides them."""
    put(postgres_url, engine="langgraph")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA first")
    path = f"{postgres_url}?options={quote('-c search_path=first,public')}"
    status = database_status(path)
    assert (status.engine, status.state, status.threads) == ("langgraph", "langgraph", 1)
    assert status.size == database_status(postgres_url).size
    with open_checkpointer(path) as saver, pytest.raises(CheckpointerConfigurationError, match="engine='langgraph'"):
        saver.threads()
    with open_checkpointer(path, schema="first") as saver:
        assert saver.threads() == []  # which are not in this one
    assert database_status(CheckpointerConfig.from_url(path, schema="first")).has_langgraphs is False
    assert convert(CheckpointerConfig.from_url(path, engine="langgraph"), path).threads == 1
    assert (database_status(path).engine, database_status(path).has_langgraphs) == ("petal", True)


def test_tables_of_other_names_are_nobodys(postgres_url: str) -> None:
    """One that is called as one of LangGraph's does not make it theirs."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE checkpoints (id int); CREATE TABLE checkpoint_writes (id int)")
    put(postgres_url)
    assert database_status(postgres_url).engine == "petal"
