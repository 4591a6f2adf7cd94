"""Loads of newest checkpoints: the way each takes, and that all ways lead to the same."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import MessagesState, StateGraph

from petal.checkpoints import open_checkpointer
from petal.checkpoints.engine import Engine
from petal.checkpoints.memory import MemoryStore
from petal.checkpoints.records import CheckpointRow, Glimpse, Head, Save, Store, WouldWaitError, WriteRow
from petal.checkpoints.rows import Namespace
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.sqlite import SqliteStore
from petal.core.config.checkpointer import CheckpointerConfig, SqliteOptions
from petal.errors import CheckpointerError, CheckpointerUnavailableError


@pytest.fixture
def saver(storage: CheckpointerConfig) -> Iterator[PetalSaver]:
    opened = open_checkpointer(storage)
    assert isinstance(opened, PetalSaver)
    with opened:
        yield opened


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done on worker threads from here on."""
    seen: list[str] = []
    later = Engine.later

    async def noted(self: Engine, act: Callable[[], Any]) -> Any:
        seen.append(getattr(getattr(act, "func", act), "__name__", ""))
        return await later(self, act)

    monkeypatch.setattr(Engine, "later", noted)
    return seen


def on(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def chat(saver: PetalSaver, answer: str = "answer") -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("reply", lambda state: {"messages": [AIMessage(answer)]})
    graph.set_entry_point("reply")
    return graph.compile(checkpointer=saver)


async def say(graph: Any, text: str, thread_id: str = "t") -> None:
    await graph.ainvoke({"messages": [HumanMessage(text)]}, on(thread_id), durability="sync")


async def said(saver: PetalSaver, thread_id: str = "t") -> list[str]:
    found = await saver.aget_tuple(on(thread_id))
    return [message.text for message in found.checkpoint["channel_values"]["messages"]] if found else []


async def test_what_is_at_hand_takes_no_worker_of_its_own(saver: PetalSaver, workers: list[str]) -> None:
    await say(chat(saver), "first")
    workers.clear()
    assert await said(saver) == ["first", "answer"]
    assert await saver.aget_tuple(on("t")) == saver.get_tuple(on("t"))
    assert await said(saver, "nobody's") == []
    assert workers == []


async def test_what_a_caller_keeps_of_a_turn_is_its_own(saver: PetalSaver) -> None:
    """Whether it changes that, or drops it; and two loads at once share nothing."""
    graph = chat(saver)
    first = [HumanMessage(f"{number}", additional_kwargs={"k": [number]}) for number in range(100)]
    expected = [f"{number}" for number in range(100)]
    await graph.ainvoke({"messages": first}, on("t"), durability="sync")
    del first
    for number in range(5):
        result = await graph.ainvoke({"messages": [HumanMessage(f"turn {number}")]}, on("t"), durability="sync")
        expected = [*expected, "answer", f"turn {number}"]
        kept, inner = result["messages"][number], result["messages"][50 + number].additional_kwargs["k"]
        dropped = result["messages"][20 + number]
        dropped.content = "changed"
        del result, dropped
        loads = [await saver.aget_tuple(on("t")) for _ in range(2)]
        kept.content = "changed too"
        inner.append("changed")
        one, other = ([*found.checkpoint["channel_values"]["messages"]] for found in loads if found)
        assert [message.text for message in one] == [message.text for message in other] == [*expected, "answer"]
        assert [message.additional_kwargs for message in one[:100]] == [{"k": [n]} for n in range(100)]
        assert not {*map(id, one), id(kept)} & {*map(id, other)}
        del one, other, loads


async def test_what_is_large_is_made_by_a_worker(saver: PetalSaver, workers: list[str]) -> None:
    await say(chat(saver), "x" * 300_000)
    workers.clear()
    assert [len(text) for text in await said(saver)] == [300_000, len("answer")]
    assert workers == ["get_tuple"]


async def test_of_what_is_not_all_at_hand_the_rest_is_read(saver: PetalSaver, workers: list[str]) -> None:
    await say(chat(saver), "first")
    whole = saver.get_tuple(on("t"))
    place = Namespace("t", "")
    held = saver._recall.at_hand(place)
    assert held is not None
    for known in ({}, None):
        saver._recall.forget("t")
        if known is not None:
            saver._recall.remember(place, held.outline, known)
        workers.clear()
        assert await saver.aget_tuple(on("t")) == whole
        assert workers == ["_read_on"]
        assert await saver.aget_tuple(on("t")) == whole
        assert workers == ["_read_on"]


@pytest.mark.parametrize("again", [False, True], ids=["it is gone", "it was begun anew"])
async def test_what_is_deleted_while_it_is_read_is_read_anew(
    saver: PetalSaver, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    await say(chat(saver), "first")
    saver._recall.forget("t")
    head = Engine.head

    async def and_then_deleted(self: Engine, place: tuple[str, str]) -> Head | None:
        found = await head(self, place)
        monkeypatch.setattr(Engine, "head", head)
        await saver.adelete_thread("t")
        if again:
            await say(chat(saver), "second")
        return found

    monkeypatch.setattr(Engine, "head", and_then_deleted)
    assert await said(saver) == (["second", "answer"] if again else [])


async def test_a_checkpoint_that_is_named_is_the_one_that_is_given(saver: PetalSaver) -> None:
    graph = chat(saver)
    await say(graph, "first")
    first = await saver.aget_tuple(on("t"))
    assert first is not None
    await say(graph, "second")
    named = await saver.aget_tuple(first.config)
    assert named is not None
    assert named.checkpoint == first.checkpoint


async def test_an_id_that_is_empty_names_no_checkpoint(saver: PetalSaver) -> None:
    """As in LangGraph's own savers: what a form leaves empty must not begin the thread anew."""
    graph = chat(saver)
    empty: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": ""}}
    graph.invoke({"messages": [HumanMessage("first")]}, empty)
    first = saver.get_tuple(on("t"))
    assert first is not None
    await graph.ainvoke({"messages": [HumanMessage("second")]}, empty)
    assert len((await graph.aget_state(empty)).values["messages"]) == 4
    newest = saver.get_tuple(on("t"))
    assert saver.get_tuple(empty) == await saver.aget_tuple(empty) == newest
    assert list(saver.list(empty)) == list(saver.list(on("t"), before=empty)) == list(saver.list(on("t")))
    saver.put(empty, first.checkpoint, first.metadata, {})
    again = saver.get_tuple(first.config)
    assert again is not None
    assert again.parent_config is None


async def test_many_loads_at_once(saver: PetalSaver) -> None:
    graph = chat(saver)
    await asyncio.gather(*(say(graph, f"word {number}", f"thread {number}") for number in range(60)))
    for known in (True, False):
        if not known:
            for number in range(60):
                saver._recall.forget(f"thread {number}")
        found = await asyncio.gather(*(said(saver, f"thread {number}") for number in range(70)))
        assert found == [[f"word {number}", "answer"] if number < 60 else [] for number in range(70)]


async def test_a_load_sees_what_others_did(durable_storage: CheckpointerConfig) -> None:
    async with open_checkpointer(durable_storage) as mine, open_checkpointer(durable_storage) as other:
        assert isinstance(mine, PetalSaver)
        assert isinstance(other, PetalSaver)
        await say(chat(mine), "first")
        assert await said(mine) == ["first", "answer"]
        await say(chat(other), "second")
        assert await said(mine) == ["first", "answer", "second", "answer"]
        found = await mine.aget_tuple(on("t"))
        assert found is not None
        await other.aput_writes(found.config, [("messages", "b")], "task 2", "~2")
        await other.aput_writes(found.config, [("messages", "a"), ("x", 1)], "task 1", "~1")
        found = await mine.aget_tuple(on("t"))
        assert found is not None
        assert found.pending_writes == [("task 1", "messages", "a"), ("task 1", "x", 1), ("task 2", "messages", "b")]
        await other.adelete_thread("t")
        assert await mine.aget_tuple(on("t")) is None


async def test_a_parent_that_another_removed_is_not_named(durable_storage: CheckpointerConfig) -> None:
    """The checkpoint itself stays, and is at hand."""
    async with open_checkpointer(durable_storage) as mine, open_checkpointer(durable_storage) as other:
        await say(chat(mine), "first")
        before = await mine.aget_tuple(on("t"))
        assert before is not None
        assert before.parent_config is not None
        await other.aprune(["t"], strategy="keep_latest")
        after = await mine.aget_tuple(on("t"))
        assert after is not None
        assert (after.config, after.parent_config) == (before.config, None)
        assert await mine.aget_tuple(on("t")) == mine.get_tuple(on("t"))
        assert after.checkpoint == before.checkpoint


async def test_what_two_loads_give_is_shared_by_nobody(saver: PetalSaver) -> None:
    await say(chat(saver), "first")
    one, two = [await saver.aget_tuple(on("t")) for _ in range(2)]
    assert one is not None
    assert two is not None
    assert one == two
    one.checkpoint["channel_values"]["messages"][0].content = "changed"
    one.checkpoint["channel_versions"].clear()
    one.metadata.clear()
    assert await saver.aget_tuple(on("t")) == two


async def test_a_wrong_id_is_no_matter_for_the_others(saver: PetalSaver) -> None:
    """PostgreSQL keeps no NUL: who asks for such a thread is told, who asks at the same time is answered."""
    await say(chat(saver), "first")
    ids = ["t", "nul\0", "t", "nobody's"]
    saver._recall.forget("t")
    found = await asyncio.gather(*(said(saver, id) for id in ids), return_exceptions=True)
    assert [found[0], found[2], found[3]] == [["first", "answer"], ["first", "answer"], []]
    assert found[1] == [] or isinstance(found[1], CheckpointerError)


async def test_a_closed_saver_says_so_to_loads(saver: PetalSaver) -> None:
    await say(chat(saver), "first")
    saver.close()
    with pytest.raises(CheckpointerUnavailableError):
        await saver.aget_tuple(on("t"))


async def test_a_saver_that_closes_meanwhile_says_so(saver: PetalSaver) -> None:
    """The workers are gone already when the newest checkpoint is asked for."""
    await say(chat(saver), "first")
    saver._engine._workers.shutdown()
    with pytest.raises(WouldWaitError):
        await saver._engine.head(("t", "not at hand"))


STORES: dict[str, Callable[[Path], MemoryStore | SqliteStore]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite-memory": lambda folder: SqliteStore(SqliteOptions(db_file=":memory:"), "sqlite:///:memory:"),
    "sqlite": lambda folder: SqliteStore(SqliteOptions(db_file=str(folder / "rows.db")), "sqlite:///rows.db"),
}
"""Those that can be looked at without waiting."""


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryStore | SqliteStore]:
    store = STORES[request.param](tmp_path)
    store.open()
    head = CheckpointRow("t", "", "2", "1", "loop", 1, "run", b"head", b"meta", "name")
    first = CheckpointRow("t", "", "1", None, "input", None, None, b"head", b"meta", "name")
    inner = CheckpointRow("t", "inner", "3", None, "loop", 1, None, b"head", b"meta", "name")
    writes = [
        WriteRow("t", "", "2", "b", 0, "x", "~1", b"third"),
        WriteRow("t", "", "2", "a", 1, "x", "~1", b"second"),
        WriteRow("t", "", "2", "a", 0, "y", "~1", b"first"),
        WriteRow("t", "", "1", "a", 0, "y", "~1", b"of another"),
    ]
    store.commit([Save(head), Save(first), Save(inner), Save(writes=writes)])
    yield store
    store.close()


PLACES = [("t", ""), ("t", "inner"), ("t", "none"), ("nobody's", "")]


def told(heads: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    return {
        place: (row.id, row.parent_id, row.step, [w.data for w in writes]) for place, (row, writes) in heads.items()
    }


def test_heads_come_with_their_writes_in_order(store: Store) -> None:
    expected = {("t", ""): ("2", "1", 1, [b"first", b"second", b"third"]), ("t", "inner"): ("3", None, 1, [])}
    assert told(store.heads(PLACES)) == expected
    assert store.heads([]) == {}


def test_a_glance_tells_which_checkpoint_is_the_newest(store: Store) -> None:
    glimpses = [store.glance(place) for place in PLACES]
    assert glimpses == [
        Glimpse("2", "name", "1", "run", has_writes=True),
        Glimpse("3", "name", None, None, has_writes=False),
        None,
        None,
    ]


def test_a_store_that_is_in_use_is_not_waited_for(store: Store) -> None:
    """Only a file has a connection more, for which only those wait that glance too."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        lock = getattr(store, "_glancing", None) if is_file else getattr(store, "_writing", None)
        with lock or store._lock:  # type: ignore[attr-defined]
            held.set()
            done.wait(30)

    is_file = isinstance(store, SqliteStore) and not store._in_memory
    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    with pytest.raises(WouldWaitError):
        store.glance(PLACES[0])
    done.set()
    holder.join()
    assert store.glance(PLACES[0]) is not None


def test_a_closed_store_is_not_glanced_at(tmp_path: Path) -> None:
    store = STORES["sqlite"](tmp_path)
    store.open()
    store.close()
    with pytest.raises(WouldWaitError):
        store.glance(PLACES[0])


def test_what_is_wrong_with_a_file_is_left_to_a_read(tmp_path: Path) -> None:
    store = STORES["sqlite"](tmp_path)
    store.open()
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("DROP TABLE petal_writes")
    connection.close()
    with pytest.raises(WouldWaitError):
        store.glance(PLACES[0])
    store.close()
