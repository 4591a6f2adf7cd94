"""Petal's own saver on every storage: linear, faithful, safe by default, from any thread and loop."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Overwrite
from shop import Colour, Order, Shop, chat, on, said

from petal.checkpoints import MemorySaver, SqliteSaver, open_checkpointer
from petal.checkpoints.codec import RawValue, ValueNotSavableError
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import (
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerUnavailableError,
    ThreadIdRequiredError,
)


def test_disk_grows_with_what_was_said(saver: PetalSaver) -> None:
    """A thousand messages take about what they hold, not the square of it; so does each turn."""
    graph = chat(saver)
    sizes = []
    for turn in range(120):
        graph.invoke({"messages": [HumanMessage(f"{turn} " + "word " * 30)]}, on("t"), durability="sync")
        [thread] = saver.threads()
        sizes.append(thread.size or 0)
    first, last = sizes[39] - sizes[19], sizes[119] - sizes[99]
    assert last < 1.3 * first
    assert sizes[-1] < 10 * 120 * (150 + 140)  # short messages: most of it is keys and headers


def test_types_come_back_as_they_were(saver: PetalSaver) -> None:
    order = Order("tea", [Colour.RED])
    graph = chat(saver, lambda state: {"order": order, "notes": {"pair": (1, 2), "set": {1}, "text": "\x00\ud800"}})
    graph.invoke({"messages": []}, on("t"), durability="sync")
    values = graph.get_state(on("t")).values
    assert values["order"] == order
    assert type(values["order"].colours[0]) is Colour
    assert values["notes"] == {"pair": (1, 2), "set": {1}, "text": "\x00\ud800"}
    assert type(values["notes"]["pair"]) is tuple


@pytest.mark.parametrize("name", ["checkpoint_id", "checkpoint_ns"])
def test_what_a_config_names_is_text(saver: PetalSaver, name: str) -> None:
    """A number became text in its column and stayed a number in the checksum, so the row could not be read again."""
    place: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", name: 3}}
    for act in (lambda: saver.put(place, empty_checkpoint(), {}, {}), lambda: saver.get_tuple(place)):
        with pytest.raises(TypeError, match=f"{name} in a config is text, not 3"):
            act()
    assert list(saver.list(None)) == []
    assert saver.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": "", name: None}}) is None


def test_none_is_no_thread(saver: PetalSaver) -> None:
    nobody: Any = None
    for act in (
        lambda: saver.delete_thread(nobody),
        lambda: saver.copy_thread(nobody, "t"),
        lambda: saver.fork_thread("t", "1ef", nobody),
    ):
        with pytest.raises(ThreadIdRequiredError):
            act()


def test_a_step_that_no_column_holds_is_kept(saver: PetalSaver) -> None:
    for step in (2**63, 1):
        saver.put(on("t"), empty_checkpoint(), {"step": step}, {})
    for step in (2**63, 1):
        assert [found.metadata["step"] for found in saver.list(on("t"), filter={"step": step})] == [step]


def test_what_could_not_come_back_is_refused_when_it_is_saved(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage) as saver:
        graph = chat(saver, lambda state: {"order": Order("tea", [])})
        with pytest.raises(ValueNotSavableError, match=r"'order'.*Order"):
            graph.invoke({"messages": []}, on("t"), durability="sync")
        assert graph.get_state(on("t")).next == ("reply",)


def test_an_undeclared_type_is_not_loaded_but_can_be_looked_at(durable_storage: CheckpointerConfig) -> None:
    with open_checkpointer(durable_storage, allow=[Order, Colour]) as saver:
        chat(saver, lambda state: {"order": Order("tea", [])}).invoke({"messages": []}, on("t"), durability="sync")
    with open_checkpointer(durable_storage) as stranger, pytest.raises(CheckpointCorruptionError, match="Order"):
        stranger.get_tuple(on("t"))
    with open_checkpointer(durable_storage, inspect=True) as inspector:
        found = inspector.get_tuple(on("t"))
        assert found is not None
        assert isinstance(found.checkpoint["channel_values"]["order"], RawValue)
    names = [(kind.__module__, kind.__name__) for kind in (Order, Colour)]
    with open_checkpointer(durable_storage) as saver:
        found = saver.with_allowlist(names).get_tuple(on("t"))
        assert found is not None
        assert found.checkpoint["channel_values"]["order"] == Order("tea", [])


def test_an_agents_state_types_are_declared_by_its_annotations(durable_storage: CheckpointerConfig) -> None:
    def order(state: Shop) -> Shop:
        return {"order": Order("tea", [Colour.RED])}

    factory = AgentFactory(Shop).add(order).with_checkpointer(durable_storage)
    with factory.build() as agent:
        agent.invoke({}, thread_id="t")
    with factory.build() as agent:
        assert agent.thread("t").state().values["order"] == Order("tea", [Colour.RED])


def test_edits_of_the_history_are_kept(saver: PetalSaver) -> None:
    """Changed in place, removed, put elsewhere in order, replaced as a whole: what a step returns is what is kept."""
    acts: list[Any] = [
        lambda m: {"messages": [AIMessage("one", id="1"), AIMessage("two", id="2"), AIMessage("three", id="3")]},
        lambda m: (setattr(m[1], "content", "2!"), {"messages": [m[1]]})[1],
        lambda m: (m[0].additional_kwargs.update(deep={"x": [1]}), {"messages": [m[0]]})[1],
        lambda m: {"messages": [RemoveMessage(id="1")]},
        lambda m: {"messages": Overwrite([m[1], m[0]])},
    ]
    graph = chat(saver, lambda state: acts.pop(0)(state["messages"]))
    expected = [
        ["one", "two", "three"],
        ["one", "2!", "three"],
        ["one", "2!", "three"],
        ["2!", "three"],
        ["three", "2!"],
    ]
    for texts in expected:
        graph.invoke({"messages": []}, on("t"), durability="sync")
        assert said(saver) == texts
    third = next(s for s in graph.get_state_history(on("t")) if len(s.values.get("messages", [])) == 3)
    assert third.values["messages"][0].additional_kwargs == {"deep": {"x": [1]}}


def test_what_was_loaded_belongs_to_the_caller(saver: PetalSaver) -> None:
    graph = chat(saver)
    graph.invoke({"messages": [HumanMessage("Hello")]}, on("t"), durability="sync")
    found = saver.get_tuple(on("t"))
    assert found is not None
    found.checkpoint["channel_values"]["messages"].clear()
    found.checkpoint["channel_versions"].clear()
    found.checkpoint["versions_seen"].clear()
    again = saver.get_tuple(on("t"))
    assert again is not None
    assert len(again.checkpoint["channel_values"]["messages"]) == 2
    assert again.checkpoint["channel_versions"]
    assert again.checkpoint["versions_seen"]


def test_another_savers_writes_are_seen(durable_storage: CheckpointerConfig) -> None:
    """The caches of two savers on one database never hide each other's saves."""
    with open_checkpointer(durable_storage) as one, open_checkpointer(durable_storage) as other:
        graphs = [chat(one), chat(other)]
        for turn in range(6):
            graphs[turn % 2].invoke({"messages": [HumanMessage(str(turn))]}, on("t"), durability="sync")
            assert said(one) == said(other)
        assert len(said(one)) == 12


def test_a_small_cache_changes_nothing(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage, cache_bytes=0) as saver:
        graph = chat(saver)
        for turn in range(10):
            graph.invoke({"messages": [HumanMessage(str(turn))]}, on("t"), durability="sync")
        assert len(said(saver)) == 20
        assert len(list(graph.get_state_history(on("t")))) == 30
        assert saver.cached == 0  # type: ignore[union-attr]


async def test_sync_and_async_from_many_threads_and_loops(saver: PetalSaver) -> None:
    graph = chat(saver)
    failures: list[BaseException] = []

    def sync_turns(name: str) -> None:
        try:
            for n in range(5):
                graph.invoke({"messages": [HumanMessage(str(n))]}, on(name), durability="sync")
        except BaseException as error:
            failures.append(error)

    async def async_turns(name: str) -> None:
        for n in range(5):
            await graph.ainvoke({"messages": [HumanMessage(str(n))]}, on(name), durability="sync")

    threads = [threading.Thread(target=sync_turns, args=(f"s{n}",)) for n in range(4)]
    threads += [threading.Thread(target=lambda n=n: asyncio.run(async_turns(f"l{n}"))) for n in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(async_turns(f"a{n}") for n in range(20)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert failures == []
    for thread_id in [f"s{n}" for n in range(4)] + [f"l{n}" for n in range(2)] + [f"a{n}" for n in range(20)]:
        assert len(said(saver, thread_id)) == 10
    assert len(saver.threads()) == 26


def test_an_open_list_blocks_nothing(saver: PetalSaver) -> None:
    graph = chat(saver)
    for turn in range(30):
        graph.invoke({"messages": [HumanMessage(str(turn))]}, on("t"), durability="sync")
    for seen, found in enumerate(saver.list(on("t"))):
        again = saver.get_tuple(found.config)
        assert again is not None
        assert again._replace(config=found.config) == found
        graph.invoke({"messages": [HumanMessage("x")]}, on("other"), durability="sync")
        if seen == 60:
            break
    assert len(list(saver.list(on("t")))) == 90
    assert len(list(saver.list(on("t"), limit=7))) == 7
    assert list(saver.list(on("t"), limit=0)) == []


def test_metadata_is_found_by_its_values(saver: PetalSaver) -> None:
    graph = chat(saver)
    for n in range(4):
        config = {**on(f"t{n}"), "metadata": {"tenant": "acme" if n % 2 else "other", "n": n, "deep": {"x": n}}}
        graph.invoke({"messages": [HumanMessage(str(n))]}, config, durability="sync")

    def threads(**filter: Any) -> set[str]:
        return {found.config["configurable"]["thread_id"] for found in saver.list(None, filter=filter)}

    assert threads(tenant="acme") == {"t1", "t3"}
    assert threads(tenant="acme", n=3) == {"t3"}
    assert threads(n=2.0) == {"t2"}
    assert threads(deep={"x": 2}) == {"t2"}
    assert threads(source="input", n=1) == {"t1"}
    assert threads(step=-1) == {"t0", "t1", "t2", "t3"}
    assert threads(step=10**20) == set()
    assert threads(**{"n' OR '1'='1": 1}) == set()
    assert threads(tenant=None) == set()
    assert len(list(saver.list(None, filter={"tenant": "acme"}, limit=3))) == 3


def test_only_declared_keys_of_configurable_reach_the_metadata(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage, metadata_keys=("tenant",)) as saver:
        chat(saver).invoke({"messages": []}, on("t", api_token="s3cret", tenant="acme"), durability="sync")
        for found in saver.list(on("t")):
            assert found.metadata["tenant"] == "acme"  # type: ignore[typeddict-item]
            assert "s3cret" not in str(found.metadata)


async def test_a_closed_saver_says_so(saver: PetalSaver) -> None:
    graph = chat(saver)
    await graph.ainvoke({"messages": []}, on("t"))
    await saver.aclose()
    saver.close()
    for act in (saver.aget_tuple(on("t")), graph.ainvoke({"messages": []}, on("t"))):
        with pytest.raises(CheckpointerUnavailableError, match="the checkpointer is closed"):
            await act
    for call in (lambda: saver.get_tuple(on("t")), lambda: saver.delete_thread("t")):
        with pytest.raises(CheckpointerUnavailableError, match="the checkpointer is closed"):
            call()


async def test_a_saver_that_is_being_closed_says_so(saver: PetalSaver) -> None:
    """It takes no more reads while it waits for those that go on."""
    assert await saver.acheckpoints("t") == []
    saver._engine._workers.shutdown(wait=False)
    with pytest.raises(CheckpointerUnavailableError, match="is closed"):
        await saver.acheckpoints("t")
    with pytest.raises(CheckpointerUnavailableError, match="is closed"):
        await saver.aget_tuple(on("t"))


async def test_a_save_is_completed_though_its_caller_is_cancelled(durable_storage: CheckpointerConfig) -> None:
    async with open_checkpointer(durable_storage) as saver:
        await chat(saver).ainvoke({"messages": [HumanMessage("Hello")]}, on("t"), durability="sync")
        found = saver.get_tuple(on("t"))
        assert found is not None
        checkpoint = {**found.checkpoint, "id": "2" + found.checkpoint["id"][1:]}
        saving = asyncio.ensure_future(saver.aput(found.config, checkpoint, found.metadata, {}))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
    async with open_checkpointer(durable_storage) as saver:
        found = await saver.aget_tuple(on("t"))
        assert found is not None
        assert found.config["configurable"]["checkpoint_id"].startswith("2")


async def test_an_empty_saver_opens_and_closes_in_every_way(storage: CheckpointerConfig) -> None:
    async with open_checkpointer(storage) as saver:
        assert await saver.aget_tuple(on("t")) is None
        assert [found async for found in saver.alist(None)] == []
        with pytest.raises(ThreadIdRequiredError):
            saver.get_tuple({"configurable": {}})
        with pytest.raises(ValueError, match="checkpoint_id"):
            saver.put_writes(on("t"), [("a", 1)], "task")
        assert repr(saver) == f"<{type(saver).__name__} {storage.where}>"


def test_a_forgotten_saver_warns_and_closes(storage: CheckpointerConfig) -> None:
    saver = open_checkpointer(storage)
    saver.get_tuple(on("t"))
    saver.delete_thread("t")
    with pytest.warns(ResourceWarning, match="unclosed checkpointer"):
        del saver


def test_langgraphs_own_files_are_recognised(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    with open_checkpointer(f"sqlite:///{file}", engine="langgraph") as theirs:
        chat(theirs).invoke({"messages": [HumanMessage("Hello")]}, on("t"), durability="sync")
    with open_checkpointer(f"sqlite:///{file}") as opened:
        assert isinstance(opened, LangGraphSaver)
        assert said(opened)[0] == "Hello"
    with open_checkpointer(f"sqlite:///{file}", inspect=True) as opened:
        assert isinstance(opened, LangGraphSaver)
        assert said(opened)[0] == "Hello"
    with open_checkpointer(f"sqlite:///{file}", engine="petal") as ours:
        assert ours.get_tuple(on("t")) is None
    (tmp_path / "no.db").write_text("no database")
    with open_checkpointer(f"sqlite:///{tmp_path}/no.db") as broken, pytest.raises(CheckpointCorruptionError):
        broken.get_tuple(on("t"))


def test_an_engine_has_only_its_own_options() -> None:
    with pytest.raises(CheckpointerConfigurationError, match="cache_bytes is an option of Petal's own engine"):
        open_checkpointer("memory://", engine="langgraph", cache_bytes=1)
    with pytest.raises(CheckpointerConfigurationError, match="Petal's own engine takes allow"):
        open_checkpointer("memory://", serde=JsonPlusSerializer())
    with pytest.raises(CheckpointerConfigurationError, match="use open_checkpointer"):
        MemorySaver(engine="langgraph")
    for theirs in ("memory://", "sqlite://", "postgresql://nobody@127.0.0.1:1/nothing"):
        assert isinstance(open_checkpointer(theirs, engine="langgraph"), LangGraphSaver)


def test_versions_grow_and_never_collide() -> None:
    saver = MemorySaver()
    first = saver.get_next_version(None, None)
    versions = {saver.get_next_version(first, None) for _ in range(1000)}
    assert len(versions) == 1000
    assert all(version > first for version in versions)
    theirs = "00000000000000000000000000000099.0.5"
    assert saver.get_next_version(theirs, None) > theirs


def test_ten_thousand_threads_stay_within_the_bound() -> None:
    """What a process keeps of the threads it has served is bounded in bytes, not by their number."""
    with MemorySaver(cache_bytes=200_000) as saver:
        graph = chat(saver)
        chance = random.Random(3)
        for n in range(300):
            graph.invoke({"messages": [HumanMessage("x" * chance.randrange(2000))]}, on(f"t{n}"), durability="sync")
            assert saver.cached <= 200_000
        assert len(said(saver, "t0")) == 2


def test_a_process_that_served_many_threads_holds_no_more_than_its_bound(tmp_path: Path) -> None:
    limit = 500_000
    with SqliteSaver(tmp_path / "a.db", cache_bytes=limit, synchronous="normal") as saver:

        async def serve(threads: range) -> None:
            for number in threads:
                checkpoint = empty_checkpoint() | {
                    "id": "1", "channel_values": {"x": [HumanMessage("word " * 50)]}, "channel_versions": {"x": "v1"},
                }  # fmt: skip
                await saver.aput(on(str(number), checkpoint_ns=""), checkpoint, {}, {"x": "v1"})
                await saver.aget_tuple(on(str(number)))

        asyncio.run(serve(range(300)))
        tracemalloc.start()
        try:
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            asyncio.run(serve(range(300, 1300)))
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert limit // 2 < saver.cached <= limit
        # Before it nothing was traced of what has since been replaced, so all that is held counts.
        assert after - before < 2 * limit
