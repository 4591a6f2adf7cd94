"""Petal's own saver on every storage: linear, faithful, safe by default, and whole after whatever happens to it."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import enum
import gc
import os
import random
import sqlite3
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Overwrite, Send

from petal.checkpoints import MemorySaver, SqliteSaver, lineage, open_checkpointer
from petal.checkpoints.codec import Codec, RawValue, ValueNotSavableError
from petal.checkpoints.envelope import Place
from petal.checkpoints.header import Header
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.records import ValueRow
from petal.checkpoints.rows import Namespace
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig, PostgresOptions, SqliteOptions
from petal.core.factory import AgentFactory
from petal.errors import (
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerError,
    CheckpointerUnavailableError,
    CheckpointNotFoundError,
    ThreadIdRequiredError,
)


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Order:
    item: str
    colours: list[Colour]


class Shop(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    order: Order
    notes: dict[str, Any]


class Lines(TypedDict, total=False):
    lines: Annotated[list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w])]


@pytest.fixture
def saver(storage: CheckpointerConfig) -> Iterator[PetalSaver]:
    opened = open_checkpointer(storage, allow=[Order, Colour])
    assert isinstance(opened, PetalSaver)
    with opened:
        yield opened


def on(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def chat(saver: Any, answer: Any = None) -> Any:
    def reply(state: Shop) -> Any:
        return answer(state) if answer else {"messages": [AIMessage("answer " * 20)]}

    graph = StateGraph(Shop)
    graph.add_node("reply", reply)
    graph.set_entry_point("reply")
    return graph.compile(checkpointer=saver)


def said(saver: Any, thread_id: str = "t") -> list[str]:
    found = saver.get_tuple(on(thread_id))
    return [message.text for message in found.checkpoint["channel_values"].get("messages", [])]


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
    assert threads(**{"n' OR '1'='1": 1}) == set()
    assert threads(tenant=None) == set()
    assert len(list(saver.list(None, filter={"tenant": "acme"}, limit=3))) == 3


def test_only_declared_keys_of_configurable_reach_the_metadata(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage, metadata_keys=("tenant",)) as saver:
        chat(saver).invoke({"messages": []}, on("t", api_token="s3cret", tenant="acme"), durability="sync")
        for found in saver.list(on("t")):
            assert found.metadata["tenant"] == "acme"  # type: ignore[typeddict-item]
            assert "s3cret" not in str(found.metadata)


def test_copies_and_forks_are_exact_and_independent(saver: PetalSaver) -> None:
    graph = chat(saver)
    for turn in range(5):
        graph.invoke({"messages": [HumanMessage(str(turn))]}, on("t"), durability="sync")
    before = list(saver.list(on("t")))
    assert saver.verify() == []
    saver.copy_thread("t", "copy")

    def without_thread(found: Any) -> Any:
        return [(each.checkpoint, each.metadata, each.pending_writes) for each in found]

    assert without_thread(saver.list(on("copy"))) == without_thread(before)
    middle = before[6].config["configurable"]["checkpoint_id"]
    saver.fork_thread("t", middle, "fork")
    assert without_thread(saver.list(on("fork")))[0][0] == before[6].checkpoint
    assert len(list(saver.list(on("fork")))) == len(before) - 6
    graph.invoke({"messages": [HumanMessage("elsewhere")]}, on("fork"), durability="sync")
    assert list(saver.list(on("t"))) == before
    statuses = {info.thread_id: info.status for info in saver.threads()}
    assert statuses == {"t": "done", "copy": "done", "fork": "done"}
    for act in (lambda: saver.copy_thread("t", "copy"), lambda: saver.fork_thread("t", middle, "copy")):
        with pytest.raises(CheckpointerError, match="'copy' already has checkpoints"):
            act()
    with pytest.raises(CheckpointNotFoundError):
        saver.copy_thread("nobody", "x")
    with pytest.raises(CheckpointNotFoundError):
        saver.fork_thread("t", "1ef", "x")


def test_pruning_keeps_the_state_and_gives_space_back(saver: PetalSaver) -> None:
    graph = chat(saver)
    for _ in range(40):
        graph.invoke({"messages": [HumanMessage("word " * 50)]}, on("t"), durability="sync")
    head = saver.get_tuple(on("t"))
    assert head is not None
    size = saver.threads()[0].size or 0
    saver.prune(["t", "nobody"])
    [kept] = saver.list(on("t"))
    assert kept == head._replace(config=kept.config, parent_config=None)
    assert (saver.threads()[0].size or 0) < 0.6 * size
    graph.invoke({"messages": [HumanMessage("on")]}, on("t"), durability="sync")
    assert len(said(saver)) == 82
    with pytest.raises(ValueError, match="No prune strategy 'some'"):
        saver.prune(["t"], strategy="some")
    with pytest.raises(TypeError, match="A list of ids"):
        saver.prune("t")
    saver.prune(["t"], strategy="delete")
    assert saver.threads() == []
    assert saver.get_tuple(on("t")) is None


async def test_what_runs_saved_can_be_deleted(saver: PetalSaver) -> None:
    graph = chat(saver)
    for run in ("one", "two"):
        config = {**on("t"), "metadata": {"run_id": run}}
        graph.invoke({"messages": [HumanMessage(run)]}, config, durability="sync")
    await saver.adelete_for_runs(["two", "nobody"])
    assert said(saver)[0] == "one"
    assert {found.metadata.get("run_id") for found in saver.list(on("t"))} == {"one"}
    assert saver.verify() == []


def test_delta_channels_keep_what_they_are_rebuilt_from(saver: PetalSaver) -> None:
    graph = StateGraph(Lines)
    graph.add_node("add", lambda state: {"lines": ["line"]})
    graph.set_entry_point("add")
    compiled = graph.compile(checkpointer=saver)
    for run in range(3):
        compiled.invoke({"lines": ["in"]}, {**on("t"), "metadata": {"run_id": str(run)}}, durability="sync")
    lines = ["in", "line"] * 3
    assert compiled.get_state(on("t")).values == {"lines": lines}
    saver.prune(["t"])
    assert compiled.get_state(on("t")).values == {"lines": lines}
    saver.copy_thread("t", "copy")
    assert compiled.get_state(on("copy")).values == {"lines": lines}
    with pytest.raises(CheckpointerError, match="DeltaChannel"):
        saver.delete_for_runs(["1"])
    assert compiled.get_state(on("t")).values == {"lines": lines}


async def test_the_index_of_threads_says_how_they_stand(saver: PetalSaver) -> None:
    broken = chat(saver, lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.invoke({"messages": []}, on("failed-1"), durability="sync")
    chat(saver).invoke({"messages": []}, on("done-1"), durability="sync")
    await chat(saver).ainvoke({"messages": []}, on("done-2"), durability="sync")
    infos = await saver.athreads()
    assert {info.thread_id: info.status for info in infos} == {
        "failed-1": "failed",
        "done-1": "done",
        "done-2": "done",
    }
    assert infos[0].thread_id == "done-2"
    assert [info.thread_id for info in saver.threads(search="done")] == ["done-2", "done-1"]
    assert [info.thread_id for info in saver.threads(status="failed")] == ["failed-1"]
    first = saver.threads(1)
    assert saver.threads(5, first[0]) == infos[1:]
    assert saver.threads(0) == []
    assert all(info.created and info.updated and info.created <= info.updated and info.size for info in infos)


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


def test_ten_thousand_threads_stay_within_the_bound() -> None:
    """What a process keeps of the threads it has served is bounded in bytes, not by their number."""
    with MemorySaver(cache_bytes=200_000) as saver:
        graph = chat(saver)
        chance = random.Random(3)
        for n in range(300):
            graph.invoke({"messages": [HumanMessage("x" * chance.randrange(2000))]}, on(f"t{n}"), durability="sync")
            assert saver.cached <= 200_000
        assert len(said(saver, "t0")) == 2


class Counted(TypedDict, total=False):
    lines: Annotated[
        list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w], snapshot_frequency=2)
    ]


async def test_delta_channels_begin_with_their_last_snapshot(saver: PetalSaver) -> None:
    graph = StateGraph(Counted)
    graph.add_node("add", lambda state: {"lines": ["line"]})
    graph.set_entry_point("add")
    compiled = graph.compile(checkpointer=saver)
    for run in range(5):
        await compiled.ainvoke({"lines": [str(run)]}, on("t"), durability="sync")
    assert (await compiled.aget_state(on("t"))).values["lines"] == [x for run in range(5) for x in (str(run), "line")]
    states = [state.values.get("lines", []) for state in compiled.get_state_history(on("t"))]
    assert [len(lines) for lines in states] == sorted((len(lines) for lines in states), reverse=True)
    nothing = {"lines": {"writes": []}}
    assert saver.get_delta_channel_history(config=on("nobody"), channels=["lines"]) == nothing
    assert await saver.aget_delta_channel_history(config=on("nobody"), channels=["lines"]) == nothing


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


def test_long_threads_are_copied_page_by_page() -> None:
    with MemorySaver() as saver:
        graph = chat(saver)
        for turn in range(70):
            graph.invoke({"messages": [HumanMessage(str(turn))]}, on("t"), durability="sync")
        saver.copy_thread("t", "copy")
        assert len(list(saver.list(on("copy")))) == 210
        assert said(saver, "copy") == said(saver, "t")


@pytest.mark.parametrize("ts", ["yesterday", "2026-01-01T00:00:00"])
def test_a_checkpoint_that_does_not_tell_its_time_is_copied_all_the_same(storage: CheckpointerConfig, ts: str) -> None:
    with open_checkpointer(storage) as saver:
        chat(saver).invoke({"messages": []}, on("t"), durability="sync")
        found = saver.get_tuple(on("t"))
        assert found is not None
        saver.put(found.config, {**found.checkpoint, "id": "2" + found.checkpoint["id"][1:], "ts": ts}, {}, {})
        saver.copy_thread("t", "copy")
        copied = saver.get_tuple(on("copy"))
        assert copied is not None
        assert copied.checkpoint["ts"] == ts


def test_a_value_is_found_again_though_nothing_is_at_hand(storage: CheckpointerConfig) -> None:
    """A rewind names versions that its parent does not have; they are looked up, not written again."""
    with open_checkpointer(storage, cache_bytes=0) as saver:
        graph = chat(saver)
        for turn in range(3):
            graph.invoke({"messages": [HumanMessage(f"{turn} " + "word " * 50)]}, on("t"), durability="sync")
        past = next(s for s in graph.get_state_history(on("t")) if len(s.values.get("messages", [])) == 4)
        size = saver.threads()[0].size or 0
        graph.update_state(past.config, None, as_node="__copy__")
        assert len(said(saver)) == 4
        assert (saver.threads()[0].size or 0) - size < 700


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


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x9a\x09" + b"\xc0" * 9, b"\x9a\x01" + b"\xc0" * 9])
def test_a_header_that_cannot_be_read_says_so(data: bytes) -> None:
    with pytest.raises(CheckpointCorruptionError, match="its header cannot be read"):
        Header.unpacked(data, "1ef", "", "checkpoint '1ef'")


def put(
    saver: PetalSaver, id: str, parent: str | None, value: Any, version: str, *, new: bool = True, run_id: str = "r"
) -> None:
    """Save a checkpoint with one channel, whose parent may be any."""
    checkpoint = empty_checkpoint() | {"id": id, "channel_values": {"x": value}, "channel_versions": {"x": version}}
    config = on("t", checkpoint_ns="", **({} if parent is None else {"checkpoint_id": parent}))
    metadata: CheckpointMetadata = {"source": "loop", "step": 0, "run_id": run_id}
    saver.put(config, checkpoint, metadata, {"x": version} if new else {})


def value_of(saver: PetalSaver, id: str) -> Any:
    found = saver.get_tuple(on("t", checkpoint_ns="", checkpoint_id=id))
    assert found is not None
    return found.checkpoint["channel_values"]["x"]


BIG = "a" * 1000


def test_a_version_may_be_called_new_again(storage: CheckpointerConfig) -> None:
    """As a program does that copies checkpoints with all their versions."""
    with open_checkpointer(storage, cache_bytes=0) as saver:
        assert isinstance(saver, PetalSaver)
        put(saver, "1", None, [BIG, "b"], "v1")
        put(saver, "2", "1", [BIG, "b"], "v1")
        assert value_of(saver, "1") == value_of(saver, "2") == [BIG, "b"]
        assert saver.verify() == []


def test_a_checkpoint_may_be_saved_again_under_another_parent(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage, cache_bytes=0) as saver:
        assert isinstance(saver, PetalSaver)
        put(saver, "1", None, [BIG], "v1")
        put(saver, "2", "1", [BIG, "b"], "v2")
        put(saver, "3", "2", [BIG, "b"], "v2", new=False)
        put(saver, "2", None, [BIG, "c"], "v2")
        assert value_of(saver, "3") == [BIG, "b"]
        assert value_of(saver, "2") == [BIG, "c"]


def test_a_parent_that_was_saved_again_elsewhere_is_looked_up_anew(saver: PetalSaver) -> None:
    """Its values lie in other rows then, and those that were known go with the next prune."""
    with PetalSaver(saver._engine.store, saver._rows) as other:
        assert saver.threads() == other.threads() == []
        put(other, "1", None, [BIG], "v1")
        put(saver, "2", None, [BIG], "v1")
        put(other, "2", None, [BIG], "v1")
        other.prune(["t"])
        put(saver, "3", "2", [BIG], "v1", new=False)
        assert value_of(other, "3") == [BIG]
        assert other.verify() == []


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("gone", ["delete_thread", "delete_for_runs", "prune"])
def test_what_was_deleted_meanwhile_is_not_leaned_on(saver: PetalSaver, gone: str, is_async: bool) -> None:
    """A run that goes on after its past was deleted is saved with all that it holds."""
    with PetalSaver(saver._engine.store, saver._rows) as other:  # on the same storage, with caches of its own
        assert saver.threads() == other.threads() == []
        put(saver, "1", None, [BIG], "v1", run_id="r1")
        put(other, "2", None, ["a newer one"], "v2")
        match gone:
            case "delete_thread":
                other.delete_thread("t")
            case "delete_for_runs":
                other.delete_for_runs(["r1"])
            case _:
                other.prune(["t"])
        if is_async:
            checkpoint = empty_checkpoint() | {
                "id": "3", "channel_values": {"x": [BIG, "b"]}, "channel_versions": {"x": "v3"},
            }  # fmt: skip
            asyncio.run(saver.aput(on("t", checkpoint_ns="", checkpoint_id="1"), checkpoint, {}, {"x": "v3"}))
        else:
            put(saver, "3", "1", [BIG, "b"], "v3")
        put(saver, "4", "3", [BIG, "b", "c"], "v4")
        assert value_of(other, "3") == [BIG, "b"]
        assert value_of(other, "4") == [BIG, "b", "c"]
        assert other.verify() == []


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


def test_history_is_listed_without_values(saver: PetalSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, as `list` gives it."""
    graph = chat(saver)
    for turn in range(3):
        graph.invoke({"messages": [HumanMessage(str(turn))]}, on("t"), durability="sync")
    wanted = list(saver.list(on("t")))

    def fail(*_: Any) -> None:
        raise AssertionError("a value was read")

    monkeypatch.setattr(Codec, "decode_items", fail)
    monkeypatch.setattr(type(saver._rows), "chain", fail)
    first = saver.checkpoints("t", 4)
    rest = asyncio.run(saver.acheckpoints("t", 50, first[-1]))
    assert [info.checkpoint_id for info in first + rest] == [found.checkpoint["id"] for found in wanted]
    for info, found in zip(first + rest, wanted, strict=True):
        assert set(info.channels) == set(found.checkpoint["channel_values"])
        assert (info.thread_id, info.ns, info.created) == ("t", "", found.checkpoint["ts"])
        assert info.metadata == found.metadata
        parent = found.parent_config and found.parent_config["configurable"]["checkpoint_id"]
        assert info.parent_id == parent
    assert saver.checkpoints("t", 0) == saver.checkpoints("nobody") == saver.checkpoints("t", ns="sub") == []
    assert len(saver.checkpoints("t", ns=None)) == len(wanted)


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


def test_pruned_checkpoints_are_first_ones(saver: PetalSaver) -> None:
    """Sealed as such."""
    graph = chat(saver)
    for _ in range(2):
        graph.invoke({"messages": []}, on("t"), durability="sync")
    saver.prune(["t"])
    saver.copy_thread("t", "u")
    for thread_id in "tu":
        [kept] = saver.list(on(thread_id))
        assert kept.parent_config is None
    assert saver.verify() == []


def test_a_task_that_failed_before_its_checkpoint_was_saved_is_listed_as_failed(saver: PetalSaver) -> None:
    """As it happens with durability="async", where a checkpoint waits for the one before."""
    saver.put_writes(on("t", checkpoint_ns="", checkpoint_id="1"), [("__error__", ValueError("no"))], "task")
    put(saver, "1", None, [BIG], "v1")
    [thread] = saver.threads()
    assert thread.status == "failed"
    put(saver, "2", "1", [BIG, "b"], "v2")
    [thread] = saver.threads()
    assert thread.status == "done"


def test_a_copy_stands_as_its_source(saver: PetalSaver) -> None:
    """Also after Send, which leaves an empty channel of tasks behind."""

    def spread(state: Shop) -> list[Send]:
        return [Send("reply", state), Send("reply", state)]

    graph = StateGraph(Shop)
    graph.add_node("reply", lambda state: {"notes": {}} if len(state["messages"]) > 3 else {"messages": []})
    graph.add_conditional_edges("__start__", spread, ["reply"])
    compiled = graph.compile(checkpointer=saver)
    compiled.invoke({"messages": [HumanMessage("hi")]}, on("t"), durability="sync")
    saver.copy_thread("t", "copy")
    saver.fork_thread("t", saver.threads()[0].checkpoint_id, "fork")
    assert {thread.thread_id: thread.status for thread in saver.threads()} == dict.fromkeys(
        ("t", "copy", "fork"), "done"
    )


def test_a_bundle_that_comes_after_the_end_is_left(saver: PetalSaver) -> None:
    put(saver, "1", None, [BIG], "v1")
    saver.close()
    saver._engine.begin(lambda change: change.delete_thread("t"))  # raises nothing


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
