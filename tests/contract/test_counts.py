"""What a turn may cost, in counts that no machine changes: statements, transactions, rows and bytes."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec
from petal.checkpoints.envelope import Envelope
from petal.checkpoints.memory import MemoryStore
from petal.checkpoints.postgres import PostgresStore
from petal.checkpoints.records import Save, Store, ValueRow
from petal.checkpoints.rows import Rows
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.sqlite import SqliteStore
from petal.core.config.checkpointer import CheckpointerConfig, PostgresOptions, SqliteOptions

SAID = 600
"""Characters of each message, as random as base 16 lets them be: 300 bytes is all that compression can make of them."""
RAW = 2 * SAID
"""Bytes that a turn says."""

# A turn of a graph with one node is three checkpoints (the input, what START made of it, the answer) and two sets of
# pending writes (those of START, those of the node).
SAVES = 5
# All of them are transactions of their own if nobody else is writing and nobody waits; a set of writes may join the
# checkpoint after it. In SQLite's WAL with synchronous=FULL each is one fsync.
COMMITS = 5
# Three checkpoints; the writes of START (the message, the trigger of the node) and of the node (the message); four
# values (the input, the trigger, and what each message changes in the channel).
ROWS = 3 + 3 + 4
# The user's message is stored three times (in the input, as START's write, in the channel) and the answer twice (as
# the node's write, in the channel); compressed, each is half as long, and up to 200 bytes are around it. A header has
# 300 bytes, the versions of all channels; a checkpoint's metadata has 40. Measured: 3,530.
BYTES = 5 * (SAID // 2 + 200) + 3 * (300 + 40) + 100
# BEGIN, an INSERT for the thread's entry in the index, and COMMIT of each transaction; one INSERT for each table that
# has new rows, which are checkpoints and values, or writes; and a look whether the parent of each checkpoint is there.
CHANGES = 3 * COMMITS + 3 * 2 + 2 + 3
# The turn begins with a load, which finds the messages at hand: BEGIN, the checkpoint, its writes, ROLLBACK.
STATEMENTS_OF_A_WARM_LOAD = 4
# And the messages' chain of changes.
STATEMENTS_OF_A_COLD_LOAD = 5


class CountedStore:
    """A store that remembers what it was told to commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.groups: list[Sequence[Save]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, saves: Sequence[Save]) -> None:
        self.groups.append(list(saves))
        self._store.commit(saves)

    @property
    def saves(self) -> list[Save]:
        return [save for group in self.groups for save in group]

    @property
    def values(self) -> list[ValueRow]:
        return [row for save in self.saves for row in save.values]

    @property
    def rows(self) -> int:
        return sum((save.checkpoint is not None) + len(save.values) + len(save.writes) for save in self.saves)

    @property
    def bytes(self) -> int:
        return sum(save.size for save in self.saves)


@contextmanager
def counted(storage: CheckpointerConfig) -> Iterator[tuple[PetalSaver, CountedStore]]:
    """A saver on a storage, and what it commits there."""
    match storage.options:
        case SqliteOptions() as options:
            store: Store = SqliteStore(options, storage.where)
        case PostgresOptions() as options:
            store = PostgresStore(options, storage.where)
        case _:
            store = MemoryStore()
    counting: Any = CountedStore(store)
    with PetalSaver(counting, Rows(Codec(Allowlist()), Envelope())) as saver:
        yield saver, counting


def said(number: int) -> str:
    return f"{random.Random(number).getrandbits(4 * SAID):0{SAID}x}"


def chat(saver: PetalSaver) -> Callable[[int], None]:
    """A conversation; calling it with a turn's number has that turn."""

    def reply(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(said(len(state["messages"])))]}

    graph = StateGraph(MessagesState)
    graph.add_node("reply", reply)
    graph.add_edge(START, "reply")
    graph.add_edge("reply", END)
    compiled = graph.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": "chat"}}

    def turn(number: int) -> None:
        compiled.invoke({"messages": [HumanMessage(said(2 * number))]}, config, durability="sync")

    return turn


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each statement that SQLite is given from here on, as it is carried out."""
    seen: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return seen


def test_the_fiftieth_turn_writes_little(storage: CheckpointerConfig) -> None:
    with counted(storage) as (saver, store):
        turn = chat(saver)
        for number in range(50):
            turn(number)
        store.groups.clear()
        turn(50)
        assert len(store.saves) == SAVES
        assert 1 <= len(store.groups) <= COMMITS
        assert store.rows <= ROWS
        assert RAW // 2 < store.bytes <= BYTES


async def test_a_turn_is_two_transactions(storage: CheckpointerConfig) -> None:
    """The input with START and its writes, before the node runs; then the node's writes with what they make.

    In memory there is nothing to wait for, and so nothing to share.
    """
    with counted(storage) as (saver, store):
        before, after = ([1] * 3, [1] * 5) if store.is_immediate else ([3], [3, 2])
        assert await saver.aget_tuple({"configurable": {"thread_id": "nobody's"}}) is None
        saver._engine.journal._linger = 60  # no machine is that slow

        async def reply(state: MessagesState) -> dict[str, Any]:
            assert [len(group) for group in store.groups] == before
            return {"messages": [AIMessage("hi")]}

        graph = StateGraph(MessagesState).add_node("reply", reply).add_edge(START, "reply").compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": "chat"}}
        await graph.ainvoke({"messages": [HumanMessage("hello")]}, config, durability="sync")
        assert [len(group) for group in store.groups] == after


def test_the_fiftieth_turn_takes_few_statements(tmp_path: Path, statements: list[str]) -> None:
    storage = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "counted.db")})
    with counted(storage) as (saver, _):
        turn = chat(saver)
        for number in range(50):
            turn(number)
        statements.clear()
        turn(50)
        assert 1 <= statements.count("COMMIT") <= COMMITS
        assert len(statements) <= CHANGES + STATEMENTS_OF_A_WARM_LOAD


def test_a_head_is_loaded_by_few_statements(tmp_path: Path, statements: list[str]) -> None:
    storage = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "counted.db")})
    with counted(storage) as (saver, _):
        turn = chat(saver)
        for number in range(50):
            turn(number)
    with counted(storage) as (fresh, _):
        assert fresh.get_tuple({"configurable": {"thread_id": "nobody's"}}) is None
        statements.clear()
        head = fresh.get_tuple({"configurable": {"thread_id": "chat"}})
        assert head is not None
        assert len(head.checkpoint["channel_values"]["messages"]) == 100
        assert len(statements) <= STATEMENTS_OF_A_COLD_LOAD


def test_what_is_written_grows_with_what_is_said(storage: CheckpointerConfig) -> None:
    with counted(storage) as (saver, store):
        turn = chat(saver)
        for number in range(100):
            turn(number)
        first = store.bytes
        store.groups.clear()
        for number in range(100, 200):
            turn(number)
        # More than once as much: a whole is written anew when the changes since outweigh it. Were each turn to write
        # all that was said before, it would be three times as much.
        assert store.bytes <= 1.3 * first


def test_what_does_not_change_is_not_written_again(storage: CheckpointerConfig) -> None:
    names = [f"channel_{number}" for number in range(20)]
    wide: Any = TypedDict("wide", dict.fromkeys(names, str))  # type: ignore[misc]

    def change(state: Any) -> dict[str, str]:
        return {"channel_0": f"{state['channel_0']}!"}

    graph = StateGraph(wide)
    graph.add_node("change", change)
    graph.add_edge(START, "change")
    graph.add_conditional_edges("change", lambda state: END if len(state["channel_0"]) > 10 else "change")
    with counted(storage) as (saver, store):
        compiled: Any = graph.compile(checkpointer=saver)
        compiled.invoke(
            dict.fromkeys(names, "x"), {"configurable": {"thread_id": "wide"}, "recursion_limit": 20}, durability="sync"
        )
        written = [row.channel for row in store.values]
        assert {channel: written.count(channel) for channel in names[1:]} == dict.fromkeys(names[1:], 1)
        assert written.count("channel_0") == 11
