"""Damage, keys and bundled rows in Petal's own saver: whole after whatever happens, or told by name."""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import StateGraph
from shop import BIG, Lines, chat, on, put, said, value_of

from petal.checkpoints import SqliteSaver, lineage, open_checkpointer
from petal.checkpoints.envelope import Place
from petal.checkpoints.header import Header
from petal.checkpoints.notes import INPUT, put_note
from petal.checkpoints.records import ValueRow
from petal.checkpoints.rows import Namespace
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig, PostgresOptions, SqliteOptions
from petal.errors import (
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerError,
    CheckpointerUnavailableError,
)


def damage(config: CheckpointerConfig, statement: str) -> None:
    assert config.config is not None
    if config.type == "sqlite":
        with sqlite3.connect(config.config["db_file"]) as connection:
            connection.execute(statement)
        connection.close()
    else:
        import psycopg

        with psycopg.connect(config.config["connection_string"], autocommit=True) as server:
            server.execute(statement)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE petal_values SET data = substr(data, 1, 20) WHERE channel = 'messages'", "channel 'messages'"),
        ("UPDATE petal_checkpoints SET header = metadata", "the header of checkpoint"),
        ("UPDATE petal_checkpoints SET metadata = header", "the metadata of checkpoint"),
        ("UPDATE petal_writes SET data = substr(data, 1, 9)", "write"),
        ("DELETE FROM petal_values WHERE channel = 'messages'", "channel 'messages'"),
    ],
)
def test_damage_is_named_and_verification_finds_it(
    durable_storage: CheckpointerConfig, statement: str, named: str
) -> None:
    with open_checkpointer(durable_storage) as saver:
        for thread_id in ("t", "sound"):
            chat(saver).invoke({"messages": [HumanMessage("Hello")]}, on(thread_id), durability="sync")
        assert isinstance(saver, PetalSaver)
        assert saver.verify() == []
    damage(durable_storage, f"{statement} {'AND' if 'WHERE' in statement else 'WHERE'} thread_id = 't'")
    with open_checkpointer(durable_storage) as saver:
        assert isinstance(saver, PetalSaver)
        with pytest.raises(CheckpointCorruptionError) as caught:
            list(saver.list(on("t")))
        assert named in caught.value.where
        assert "'t'" in caught.value.where
        found = saver.verify()
        assert found != []
        assert {each.thread_id for each in found} == {"t"}
        assert any(named in each.where for each in found)
        assert asyncio.run(saver.averify("sound")) == []
        assert len(said(saver, "sound")) == 2


def test_verification_reads_what_waits_for_a_checkpoint(durable_storage: CheckpointerConfig) -> None:
    """The input of a run that died before its first checkpoint is all that is there of it."""
    with open_checkpointer(durable_storage) as saver:
        place = on("t", checkpoint_ns="", checkpoint_id="never")
        put_note(saver, place, INPUT, {"run": "r", "input": "Hello"}, "input")
        assert isinstance(saver, PetalSaver)
        assert saver.verify() == []
        damage(durable_storage, "UPDATE petal_writes SET data = substr(data, 1, 9)")
        [found] = saver.verify()
        assert (found.thread_id, found.problem) == ("t", "its checksum does not match its content and its place")
        assert "'__petal_input__' of checkpoint 'never'" in found.where
        assert saver.verify("t") == [found]


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def test_encryption_at_rest(storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = f"old:{key()}", f"new:{key()}"
    monkeypatch.setenv("PETAL_KEYS", old)
    secret = "the password is swordfish"
    with open_checkpointer(storage, encryption_key_env="PETAL_KEYS") as saver:
        graph = chat(saver)
        graph.invoke({"messages": [HumanMessage(secret)]}, {**on("t"), "metadata": {"who": "swordfish"}})
        assert said(saver)[0] == secret
        assert [found.metadata["who"] for found in saver.list(None, filter={"who": "swordfish"})] != []  # type: ignore[typeddict-item]
        saver.copy_thread("t", "copy")
        assert said(saver, "copy")[0] == secret
    if storage.type == "memory":
        return
    if storage.type == "sqlite":
        assert storage.config is not None
        kept = b"".join(file.read_bytes() for file in Path(storage.config["db_file"]).parent.glob("storage.db*"))
        assert b"swordfish" not in kept
    with (
        open_checkpointer(storage) as keyless,
        pytest.raises(CheckpointerConfigurationError, match="encryption_key_env"),
    ):
        keyless.get_tuple(on("t"))
    monkeypatch.setenv("PETAL_KEYS", f"{new},{old}")
    with open_checkpointer(storage, encryption_key_env="PETAL_KEYS") as saver:
        assert said(saver)[0] == secret
    damage(storage, "UPDATE petal_values SET thread_id = 'moved' WHERE thread_id = 'copy'")
    damage(storage, "UPDATE petal_checkpoints SET thread_id = 'moved' WHERE thread_id = 'copy'")
    with (
        open_checkpointer(storage, encryption_key_env="PETAL_KEYS") as saver,
        pytest.raises(CheckpointCorruptionError),
    ):
        saver.get_tuple(on("moved"))


def test_plaintext_is_refused_where_there_is_a_key(
    durable_storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETAL_KEYS", key())
    with open_checkpointer(durable_storage) as saver:
        chat(saver).invoke({"messages": [HumanMessage("plain")]}, on("t"), durability="sync")
    with (
        open_checkpointer(durable_storage, encryption_key_env="PETAL_KEYS") as saver,
        pytest.raises(CheckpointerConfigurationError, match="not encrypted"),
    ):
        saver.get_tuple(on("t"))
    with open_checkpointer(durable_storage, encryption_key_env="PETAL_KEYS", allow_plaintext=True) as saver:
        assert said(saver)[0] == "plain"


def test_looking_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with open_checkpointer(f"sqlite:///{file}", inspect=True) as saver, pytest.raises(CheckpointerUnavailableError):
        saver.get_tuple(on("t"))
    assert not file.exists()
    with SqliteSaver(file) as saver:
        chat(saver).invoke({"messages": [HumanMessage("Hello")]}, on("t"))
    with open_checkpointer(f"sqlite:///{file}", inspect=True) as saver:
        assert said(saver)[0] == "Hello"
        with pytest.raises(CheckpointerUnavailableError):
            saver.delete_thread("t")


def test_a_missing_ancestor_ends_a_delta_channels_history(durable_storage: CheckpointerConfig) -> None:
    with open_checkpointer(durable_storage) as saver:
        graph = StateGraph(Lines)
        graph.add_node("add", lambda state: {"lines": ["line"]})
        graph.set_entry_point("add")
        compiled = graph.compile(checkpointer=saver)
        compiled.invoke({"lines": ["in"]}, on("t"), durability="sync")
        compiled.invoke({"lines": ["in"]}, on("t"), durability="sync")
    damage(durable_storage, "DELETE FROM petal_checkpoints WHERE step = 1")
    with open_checkpointer(durable_storage) as saver:
        found = saver.get_delta_channel_history(config=on("t"), channels=["lines"])
        assert len(found["lines"]["writes"]) < 4


async def test_errors_of_the_storage_are_typed_and_others_pass(durable_storage: CheckpointerConfig) -> None:
    saver = open_checkpointer(durable_storage)
    assert isinstance(saver, PetalSaver)
    async with saver:
        chat(saver).invoke({"messages": []}, on("t"), durability="sync")
        damage(durable_storage, "DROP TABLE petal_values")
        with pytest.raises(CheckpointerError):
            await chat(saver).ainvoke({"messages": [HumanMessage("x")]}, on("other"), durability="sync")
        with pytest.raises(CheckpointerError):
            list(saver.list(on("t")))
        with pytest.raises(ZeroDivisionError):
            saver._engine.read(lambda reader: 1 / 0)

        def fail() -> None:
            raise RuntimeError("of the caller's own")

        with pytest.raises(RuntimeError, match="of the caller's own"):
            await saver._engine.later(fail)


def test_verification_tells_of_rows_that_no_key_opens(
    durable_storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETAL_KEYS", key())
    with open_checkpointer(durable_storage, encryption_key_env="PETAL_KEYS") as saver:
        chat(saver).invoke({"messages": [HumanMessage("Hello")]}, on("t"), durability="sync")
    with open_checkpointer(durable_storage) as keyless:
        assert isinstance(keyless, PetalSaver)
        assert all("encrypted" in each.problem for each in keyless.verify("t"))
        assert keyless.verify("t") != []


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x99\x09" + b"\xc0" * 8, b"\x99\x01" + b"\xc0" * 8])
def test_a_header_that_cannot_be_read_says_so(data: bytes) -> None:
    with pytest.raises(CheckpointCorruptionError, match="its header cannot be read"):
        Header.unpacked(data, "1ef", "", "checkpoint '1ef'")


def test_a_long_chat_lies_in_few_rows(saver: PetalSaver) -> None:
    """Small rows are put into bundles, and forks from a bundled place and prunes go on reading them."""
    graph = chat(saver)
    for turn in range(50):
        graph.invoke({"messages": [HumanMessage(f"{turn} " + "word " * 30)]}, on("t"), durability="sync")
    saver._engine.journal.flush()
    with saver._engine.store.transaction() as rows:
        values = [row for row in rows.all_values("t", "") if row.channel == "messages"]
    assert len(values) <= 1 + 100 // 32 + 32
    states = list(graph.get_state_history(on("t")))
    assert [len(state.values.get("messages", [])) for state in states if not state.next] == [*range(100, 0, -2)]
    middle = next(state for state in states if len(state.values["messages"]) == 10 and not state.next)
    fork = middle.config["configurable"]["checkpoint_id"]
    saver.fork_thread("t", fork, "fork")
    graph.invoke({"messages": [HumanMessage("again")]}, middle.config, durability="sync")
    assert len(said(saver)) == len(said(saver, "fork")) + 2 == 12
    assert saver.verify() == []
    saver.prune(["t"])
    saver._recall.forget("t")
    assert len(said(saver)) == 12
    [*threads] = saver.threads()
    with saver._engine.store.transaction() as change:
        for thread in threads:
            change.recount(thread.thread_id)
    assert saver.threads() == threads
    assert saver.verify() == []


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with SqliteSaver(file) as saver:
        graph = chat(saver)
        for turn in range(20):
            graph.invoke({"messages": [HumanMessage(f"{turn} " + "word " * 30)]}, on("t"), durability="sync")
    with sqlite3.connect(file) as connection:
        [(version, data)] = connection.execute("SELECT version, data FROM petal_values WHERE version LIKE '+%'")
        connection.execute("UPDATE petal_values SET data = ? WHERE version = ?", (data[:-1] + b"?", version))
    connection.close()
    with SqliteSaver(file) as saver:
        with pytest.raises(CheckpointCorruptionError, match="checksum"):
            saver.get_tuple(on("t"))
        assert any(repr(version) in damage.where for damage in saver.verify())
        row = ValueRow("t", "", "messages", "root", version, b"")
        place = Place.value("t", "", "messages", version)
        for wrong in (b"\xc1", b"\x91\xa1x"):
            with pytest.raises(CheckpointCorruptionError, match="cannot be read"):
                saver._rows.chain([replace(row, data=saver._rows.envelope.seal(wrong, place))], "messages", "root")


def test_rows_that_cannot_be_put_together_are_told_and_left(
    saver: PetalSaver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing depends on it, so a run goes on."""

    def fail(*_: Any, **__: Any) -> None:
        raise CheckpointerUnavailableError(saver.where, "the disk is full", "Free some space")

    monkeypatch.setattr(lineage, "bundle", fail)
    graph = chat(saver)
    for turn in range(20):
        graph.invoke({"messages": [HumanMessage(f"{turn} " + "word " * 30)]}, on("t"), durability="sync")
    saver._engine.journal.flush()
    assert "putting rows together failed" in caplog.text
    assert len(said(saver)) == 40


ALTERED = [
    ("UPDATE petal_checkpoints SET parent_id = NULL WHERE parent_id IS NOT NULL", "header"),
    ("UPDATE petal_checkpoints SET parent_id = id WHERE parent_id IS NOT NULL", "header"),
    ("UPDATE petal_checkpoints SET source = 'input'", "header"),
    ("UPDATE petal_checkpoints SET step = step + 1", "header"),
    ("UPDATE petal_checkpoints SET run_id = 'none'", "header"),
    ("UPDATE petal_checkpoints SET run_id = NULL", "header"),
    ("UPDATE petal_checkpoints SET name = 'another'", "header"),
    ("UPDATE petal_writes SET task_path = 'z'", "write"),
]


@pytest.mark.parametrize(("statement", "part"), ALTERED)
def test_what_stands_in_clear_cannot_be_altered(durable_storage: CheckpointerConfig, statement: str, part: str) -> None:
    """A row vouches for each of its columns, not only for its bytes."""
    with open_checkpointer(durable_storage) as saver:
        assert isinstance(saver, PetalSaver)
        graph = chat(saver)
        graph.invoke({"messages": []}, {**on("t"), "metadata": {"run_id": "run"}}, durability="sync")
        assert saver.verify() == []
        options = durable_storage.options
        if isinstance(options, SqliteOptions):
            with closing(sqlite3.connect(options.db_file)) as connection, connection:
                connection.execute(statement)
        elif isinstance(options, PostgresOptions):
            with psycopg.connect(options.connection_string.get_secret_value()) as server:
                server.execute(statement)
        assert saver.verify()
        assert all(part in damage.where for damage in saver.verify())
        with pytest.raises(CheckpointCorruptionError, match="checksum does not match its content and its place"):
            list(saver.list(on("t")))


def test_a_bundle_that_comes_after_the_end_is_left(saver: PetalSaver) -> None:
    put(saver, "1", None, [BIG], "v1")
    saver.close()
    saver._engine.begin(lambda change: change.delete_thread("t"))  # raises nothing


def test_rows_that_are_gone_are_not_bundled(saver: PetalSaver) -> None:
    """A thread may be deleted before its rows are put together."""
    put(saver, "1", None, [BIG], "v1")
    before = saver.threads()
    place = Namespace("t", "")
    work = partial(lineage.bundle, rows=saver._rows, place=place, channel="x", names=["gone", "too"], now="")
    saver._engine.change(work)
    assert saver.threads() == before
    assert value_of(saver, "1") == [BIG]


def test_a_missing_row_does_not_keep_a_thread_from_being_pruned(saver: PetalSaver) -> None:
    """Nothing more is lost by it, and verification names it."""
    put(saver, "1", None, [BIG], "v1")
    put(saver, "2", "1", [BIG, "b"], "v2")
    put(saver, "3", "2", [BIG, "b", "c"], "v3")
    with saver._engine.store.transaction() as change:
        lost = change.checkpoint("t", "", "2")
        assert lost is not None
        change.delete_values("t", "", [("x", saver._rows.header(lost).spots["x"].row)])
    saver.prune(["t"])
    assert [found.checkpoint_id for found in saver.checkpoints("t")] == ["3"]
    assert ["is missing" in damage.problem for damage in saver.verify()] == [True]
