"""A whole database comes into Petal's tables, from LangGraph's or Petal's, as it was, or says what does not."""

from __future__ import annotations

import base64
import enum
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt

from petal.checkpoints import (
    Conversion,
    MemorySaver,
    PostgresSaver,
    Progress,
    SqliteSaver,
    ThreadsNotConvertedError,
    convert,
    open_checkpointer,
)
from petal.checkpoints.conversion.tuples import in_order
from petal.checkpoints.langgraph.dialect import Row
from petal.checkpoints.lineage import checkpoints_of
from petal.checkpoints.records import Save, Transaction
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import (
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerError,
    CheckpointerUnavailableError,
)


class Colour(enum.Enum):
    RED = 1


@dataclass
class Order:
    item: str
    colour: Colour


@dataclass
class Secret:
    text: str


class Shop(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    notes: dict[str, Any]
    order: Order
    said: Annotated[list[str], lambda old, new: [*(old or []), *new]]
    lines: Annotated[
        list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w], snapshot_frequency=2)
    ]


def on(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def shop(saver: BaseCheckpointSaver[str]) -> Any:
    """A graph with parallel sends, a subgraph that asks, a delta channel and values of one's own types."""
    inner = StateGraph(Shop)
    inner.add_node("look", lambda state: {"said": ["looked"]})
    inner.add_node("ask", lambda state: {"said": [interrupt({"question": "Which colour?"})]})
    inner.add_edge("__start__", "look")
    inner.add_edge("look", "ask")

    def reply(state: Shop) -> Any:
        count = len(state["messages"])
        if count > 100:
            raise ValueError("too much was said")
        notes = {**state.get("notes", {}), f"note {count}": {"length": count}}
        order = Order(f"item {count}", Colour.RED)
        return {"messages": [AIMessage("answer " * 20)], "notes": notes, "order": order, "lines": [f"line {count}"]}

    graph = StateGraph(Shop)
    graph.add_node("reply", reply)
    graph.add_node("work", lambda piece: {"said": [piece["name"]]})
    graph.add_node("talk", inner.compile())
    graph.add_edge("__start__", "reply")
    graph.add_conditional_edges("reply", lambda state: [Send("work", {"name": name}) for name in "abc"], ["work"])
    graph.add_conditional_edges("work", lambda state: "talk" if state.get("notes", {}).get("ask") else "__end__")
    return graph.compile(checkpointer=saver)


def fill(saver: BaseCheckpointSaver[str]) -> None:
    """Threads of every kind: a long one, one with forks, one that waits in a subgraph, one that failed."""
    graph = shop(saver)

    def say(thread_id: str, *words: str, **more: Any) -> None:
        messages = [HumanMessage(word) for word in words]
        config: RunnableConfig = {**on(thread_id), "metadata": {"run_id": str(uuid6())}}
        graph.invoke({"messages": messages, **more}, config, durability="sync")

    for turn in range(6):
        say("chat", f"question {turn} " * 20)
    for turn in range(3):
        say("forked", f"question {turn}")
    older = list(graph.get_state_history(on("forked")))
    graph.update_state(older[-4].config, {"messages": [HumanMessage("edited")]})
    say("forked", "and on")
    graph.invoke(None, older[2].config, durability="sync")
    say("waits", "hello", notes={"ask": True})
    say("answered", "hello", notes={"ask": True})
    graph.invoke(Command(resume="red"), on("answered"), durability="sync")
    with pytest.raises(ValueError, match="too much"):
        say("failed", *["hello"] * 101)


TYPES = (Shop,)


def everything(saver: Any) -> dict[tuple[str, str, str], Any]:
    """All that a saver tells of each checkpoint, delta channels included."""
    found = {}
    for thread in saver.threads(1000):
        for kept in saver.list(on(thread.thread_id)):
            where = kept.config["configurable"]
            key = where["thread_id"], where["checkpoint_ns"], where["checkpoint_id"]
            history = saver.get_delta_channel_history(config=kept.config, channels=["lines"])
            checkpoint = {"updated_channels": None, **kept.checkpoint}
            found[key] = (checkpoint, kept.metadata, kept.parent_config, kept.pending_writes, history)
    return found


@dataclass(frozen=True)
class Place:
    """A database to open, filled by somebody else or to be filled."""

    config: CheckpointerConfig

    def with_options(self, **options: Any) -> CheckpointerConfig:
        return CheckpointerConfig(type=self.config.type, config={**(self.config.config or {}), **options})

    def open(self, **options: Any) -> Any:
        return open_checkpointer(self.with_options(**options), allow=[Order, Colour, Secret])


def place(kind: str, request: pytest.FixtureRequest, name: str) -> CheckpointerConfig:
    if kind == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        return CheckpointerConfig(type="sqlite", config={"db_file": str(folder / f"{name}.db")})
    url = request.getfixturevalue("postgres_url")
    return CheckpointerConfig(type="postgres", config={"connection_string": url, "schema": name})


@pytest.fixture
def langgraphs(tmp_path: Path) -> CheckpointerConfig:
    """An SQLite file with LangGraph's tables, filled."""
    config = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "source.db")})
    with Place(config).open(engine="langgraph") as saver:
        fill(saver)
    return config


@pytest.fixture
def target(tmp_path: Path) -> CheckpointerConfig:
    """An SQLite file that is not there yet."""
    return CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "target.db")})


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PETAL_KEYS", "first:" + base64.b64encode(b"1" * 32).decode())
    return "PETAL_KEYS"


def thread_ids(saver: Any) -> set[str]:
    return {thread.thread_id for thread in saver.threads(1000)}


def unmark(saver: PetalSaver, thread_id: str) -> None:
    """As if the thread's checkpoints had been brought in some other way."""

    def bare(change: Transaction) -> None:
        for row in checkpoints_of(change, thread_id):
            change.save(Save(replace(row, labels=()), now="2026-01-01T00:00:00+00:00"))

    saver._engine.change(bare)


def failure(source: Any, target: Any, **options: Any) -> str:
    with pytest.raises(ThreadsNotConvertedError) as caught:
        convert(source, target, **options)
    (error,) = caught.value.failures.values()
    return str(error)


@pytest.mark.parametrize("engine", ["langgraph", "petal"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("other", ["sqlite", "postgres"])
def test_all_of_a_database_arrives(request: pytest.FixtureRequest, engine: str, kind: str, other: str) -> None:
    """Threads, namespaces, forks, parents, metadata, runs, writes and delta channels; in order, by whatever way."""
    here, there = Place(place(kind, request, "source")), Place(place(other, request, "target"))
    with here.open(engine=engine) as saver:
        fill(saver)
        kept, threads = everything(saver), {thread.thread_id: thread for thread in saver.threads()}
    told: list[Progress] = []
    done = convert(here.with_options(engine=engine), there.config, allow=TYPES, progress=told.append)
    assert done == Conversion(5, len(kept), 0)
    last = told[-1]
    assert (last.threads, last.of_threads, last.checkpoints, last.of_checkpoints) == (5, 5, len(kept), len(kept))
    with there.open() as saver:
        assert everything(saver) == kept
        assert saver.verify() == []
        found = {thread.thread_id: thread for thread in saver.threads()}
        assert {id: info.status for id, info in found.items()} == {
            "chat": "done", "forked": "done", "waits": "waiting", "answered": "done", "failed": "failed",
        }  # fmt: skip
        for id, thread in threads.items():
            assert (found[id].checkpoints, found[id].checkpoint_id) == (thread.checkpoints, thread.checkpoint_id)
            assert engine == "langgraph" or replace(found[id], size=None) == replace(thread, size=None)
        runs = {metadata["run_id"] for (id, *_), (_, metadata, *_) in kept.items() if id == "chat"}
        for run_id in runs:
            assert {tuple_.metadata["run_id"] for tuple_ in saver.list(None, filter={"run_id": run_id})} == {run_id}


def test_a_converted_thread_goes_on(langgraphs: CheckpointerConfig, target: CheckpointerConfig) -> None:
    """An open question of a subgraph is answered, and what was said is known."""
    convert(langgraphs, target, allow=TYPES)
    with Place(target).open() as saver:
        graph = shop(saver)
        assert graph.get_state(on("waits")).interrupts[0].value == {"question": "Which colour?"}
        assert graph.invoke(Command(resume="red"), on("waits"))["said"][-2:] == ["looked", "red"]
        after = graph.invoke({"messages": [HumanMessage("more")]}, on("chat"))
        assert (len(after["messages"]), len(after["lines"])) == (14, 7)


def test_open_savers_may_be_given(langgraphs: CheckpointerConfig) -> None:
    """And stay open; memory takes part then."""
    kept = open_checkpointer("memory://", engine="langgraph")
    fill(kept)
    with MemorySaver(allow=[Order, Colour]) as first, MemorySaver(allow=[Order, Colour]) as second:
        assert convert(kept, first, allow=TYPES).threads == 5
        assert everything(first) == everything(kept)
        convert(first, second)
        assert everything(second) == everything(first)
        assert convert(kept, second, allow=TYPES).already == 5
    kept.close()


def test_a_second_conversion_passes_over_what_is_there(
    langgraphs: CheckpointerConfig, target: CheckpointerConfig
) -> None:
    """Threads that an earlier one brought are not even read; those that are new come."""
    with Place(langgraphs).open() as saver:
        saver.delete_thread("chat")
    assert convert(langgraphs, target, allow=TYPES).threads == 4
    with Place(target).open() as saver:
        shop(saver).invoke(Command(resume="red"), on("waits"))  # it has gone on there since
    with Place(langgraphs).open() as saver:
        shop(saver).invoke({"messages": [HumanMessage("new")]}, on("new"))
    told: list[str] = []
    done = convert(langgraphs, target, allow=TYPES, progress=lambda progress: told.append(progress.thread_id))
    assert (done.threads, done.already) == (1, 4)
    assert {id for id in told if told.count(id) > 1} == {"new"}


def test_the_mark_of_a_conversion_goes_with_the_thread(
    langgraphs: CheckpointerConfig, target: CheckpointerConfig
) -> None:
    """What was deleted there is brought again, and a copy is no thread of the source."""
    convert(langgraphs, target, allow=TYPES)
    with Place(target).open() as saver:
        saver.copy_thread("chat", "copy")
        saver.delete_thread("chat")
    done = convert(langgraphs, target, allow=TYPES)
    assert (done.threads, done.already) == (1, 4)
    with Place(target).open() as saver:
        assert thread_ids(saver) == {"chat", "copy", "forked", "waits", "answered", "failed"}


def test_a_thread_that_is_another_one_is_named(langgraphs: CheckpointerConfig, target: CheckpointerConfig) -> None:
    """All others are converted, and it stays as it is."""
    with Place(target).open() as saver:
        saver.put(on("chat", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})
        before = everything(saver)
    with pytest.raises(ThreadsNotConvertedError) as caught:
        convert(langgraphs, target, allow=TYPES)
    assert caught.value.done.threads == 4
    assert list(caught.value.failures) == ["chat"]
    message = str(caught.value)
    assert message.startswith("1 of the threads were not converted:\n  Thread 'chat' is in sqlite:///")
    assert "is not the same there" in message
    with Place(target).open() as saver:
        assert {key: value for key, value in everything(saver).items() if key[0] == "chat"} == before
        assert len(thread_ids(saver)) == 5


@pytest.mark.parametrize("engine", ["langgraph", "petal"])
def test_an_equal_thread_without_a_mark_is_compared(tmp_path: Path, target: CheckpointerConfig, engine: str) -> None:
    """It is passed over if it is the same, and named if the source or the target has gone on."""
    here = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "here.db"), "engine": engine})
    with Place(here).open() as saver:
        fill(saver)
    between = str(tmp_path / "between.db")
    convert(here, f"sqlite:///{between}", allow=TYPES)
    convert(f"sqlite:///{between}", target)  # which has marks of its own
    assert convert(here, target, allow=TYPES) == Conversion(0, 0, 5)
    with Place(target).open() as saver:
        head = saver.get_tuple(on("chat")).config
        saver.put_writes(head, [("said", ["more"])], "task")
        unmark(saver, "chat")
    with pytest.raises(ThreadsNotConvertedError, match=r"checkpoint '.*' of thread 'chat' is not the same there"):
        convert(here, target, allow=TYPES)
    with Place(target).open() as saver:
        saver.delete_thread("chat")
        unmark(saver, "waits")
        shop(saver).invoke(Command(resume="red"), on("waits"))
    with pytest.raises(ThreadsNotConvertedError, match=r"of thread 'waits'.* is not the same there") as caught:
        convert(here, target, allow=TYPES)
    assert caught.value.done.threads == 1


def test_threads_are_compared_by_what_they_hold(tmp_path: Path, langgraphs: CheckpointerConfig) -> None:
    """However their rows came to be; the channel that differs is named."""
    first, second = (f"sqlite:///{tmp_path}/{name}.db" for name in ("first", "second"))
    convert(langgraphs, first, allow=TYPES)
    convert(langgraphs, second, allow=TYPES)
    assert convert(first, second) == Conversion(0, 0, 5)
    with open_checkpointer(second, allow=[Order, Colour]) as saver:
        kept = saver.get_tuple(on("chat"))
        kept.checkpoint["channel_values"]["notes"] = {"other": "notes"}
        saver.put(kept.parent_config, kept.checkpoint, kept.metadata, {"notes": "1"})
        unmark(saver, "chat")
    id = kept.checkpoint["id"]
    for source in (first, langgraphs):
        message = failure(source, second, allow=TYPES)
        assert f"already, and channel 'notes' of checkpoint '{id}' of thread 'chat' is not the same there" in message


def test_writes_that_came_since_are_noticed(langgraphs: CheckpointerConfig, target: CheckpointerConfig) -> None:
    """A checkpoint that was converted may get further writes in the source: then it is not the same any more."""
    convert(langgraphs, target, allow=TYPES)
    with Place(langgraphs).open() as saver:
        saver.put_writes(saver.get_tuple(on("chat")).config, [("said", ["more"])], "task")
    with pytest.raises(ThreadsNotConvertedError, match="thread 'chat' is not the same there"):
        convert(langgraphs, target, allow=TYPES)


def test_only_longer_threads_are_told_apart(target: CheckpointerConfig) -> None:
    """What the target has more of is named too."""
    with MemorySaver() as here:
        first = here.put(on("t", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})
        convert(here, target)
        with Place(target).open() as there, open_checkpointer("memory://", engine="langgraph") as older:
            there.put(first, empty_checkpoint(), {"source": "loop", "step": 0}, {})
            kept = there.get_tuple(first)
            older.put(on("t", checkpoint_ns=""), kept.checkpoint, kept.metadata, {})
            assert "the number of checkpoints of thread 't' is not the same" in failure(older, there)
        here.put_writes(first, [("x", 1)], "task")
        assert "checkpoint" in failure(here, target)
        with Place(target).open() as there:
            there.put_writes(first, [("x", 1)], "task")
        assert "the number of checkpoints of thread 't' is not the same" in failure(here, target)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_within_one_database(request: pytest.FixtureRequest, kind: str) -> None:
    """LangGraph's tables and Petal's lie beside each other."""
    here = place(kind, request, "both")
    with Place(here).open(engine="langgraph") as saver:
        fill(saver)
        kept = everything(saver)
    convert(Place(here).with_options(engine="langgraph"), here, allow=TYPES)
    assert convert(Place(here).with_options(engine="langgraph"), here, allow=TYPES).already == 5
    with Place(here).open() as saver:
        assert isinstance(saver, PetalSaver)
        assert everything(saver) == kept


def test_a_database_becomes_an_encrypted_one_and_back(
    tmp_path: Path, langgraphs: CheckpointerConfig, target: CheckpointerConfig, key: str
) -> None:
    """Also one that is converted to another key; labels are made anew, so what is searched for is found."""
    plain = f"sqlite:///{tmp_path}/plain.db"
    locked = Place(target).with_options(encryption_key_env=key)
    convert(langgraphs, locked, allow=TYPES)
    assert convert(langgraphs, locked, allow=TYPES).already == 5
    content = (tmp_path / "target.db").read_bytes()
    assert b"question" not in content
    convert(locked, plain)
    again = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "again.db"), "encryption_key_env": key})
    convert(plain, again)
    with Place(again).open() as saver, Place(langgraphs).open() as source:
        assert everything(saver) == everything(source)
        waiting = saver.get_tuple(on("waits"))
        found = list(saver.list(None, filter={"step": waiting.metadata["step"], "thread_id": "waits"}))
        assert found == [] or found[0].config == waiting.config
    with pytest.raises(CheckpointerConfigurationError, match="there is no encryption key"):
        convert(target, f"sqlite:///{tmp_path}/other.db")


def test_labels_are_found_after_a_conversion(target: CheckpointerConfig, key: str) -> None:
    """By whatever key they are made."""
    with MemorySaver() as here:
        metadata: Any = {"source": "input", "step": -1, "colour": "red", "secret": Secret("x")}
        with MemorySaver(allow=[Secret]) as filled:
            filled.put(on("t", checkpoint_ns=""), empty_checkpoint(), metadata, {})
            convert(filled, here)
        locked = Place(target).with_options(encryption_key_env=key)
        assert convert(here, locked).threads == 1
    with open_checkpointer(locked, allow=[Secret]) as saver:
        (found,) = saver.list(None, filter={"colour": "red"})
        assert found.metadata == metadata


def test_a_type_that_is_not_allowed_is_named(langgraphs: CheckpointerConfig, target: CheckpointerConfig) -> None:
    """With its thread, its checkpoint, its channel, and how to allow it; nothing of the thread is there then."""
    with pytest.raises(ThreadsNotConvertedError) as caught:
        convert(langgraphs, target)
    error = str(caught.value.failures["chat"])
    assert error.startswith("a write to channel 'order' of checkpoint '")
    assert error.endswith(
        f"of thread 'chat' holds a {__name__}.Colour, and it is not among the types that may be loaded: name it with "
        f"--allow {__name__}:Colour, or in code with allow=[Colour]. The thread was not converted whole."
    )
    with Place(target).open() as saver:
        assert thread_ids(saver) == {"failed"}
    with pytest.raises(ThreadsNotConvertedError, match=r"holds a .*Order, and it is not"):
        convert(langgraphs, target, allow=[Colour])
    assert convert(langgraphs, target, allow=[Order]).threads == 4  # which names Colour


def test_types_of_writes_are_asked_for_too(target: CheckpointerConfig) -> None:
    """Also of those whose checkpoint is not there."""
    with open_checkpointer("memory://", engine="langgraph") as here:
        first = here.put(on("t", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})
        here.put_writes(first, [("order", Order("x", Colour.RED))], "task")
        message = failure(here, target)
        assert message.startswith(
            f"a write to channel 'order' of checkpoint '{first['configurable']['checkpoint_id']}'"
        )
        here.put_writes(on("t", checkpoint_ns="", checkpoint_id="lost"), [("order", Secret("x"))], "task")
        message = failure(here, target, allow=[Order])
        assert message.startswith("a write to channel 'order' of checkpoint 'lost' of thread 't' holds a")
        assert convert(here, target, allow=[Order, Secret]).threads == 1
        with Place(target).open() as saver:
            writes = saver._engine.read(lambda reader: reader.writes("t", "", ["lost"]))
            assert [saver._rows.write(write) for write in writes] == [("task", "order", Secret("x"))]
            saver.put_writes(on("t", checkpoint_ns="", checkpoint_id="lost"), [("order", 1), ("order", 2)], "task")
            unmark(saver, "t")
        assert "a write that waits at checkpoint 'lost' of thread 't' is not the same" in failure(
            here, target, allow=[Order, Secret]
        )


def test_a_type_that_hides_in_another_is_still_refused(target: CheckpointerConfig) -> None:
    """Where the channel cannot be told, the checkpoint is named."""

    class Lid:
        def __init__(self, item: str, colour: Any) -> None:
            self.item = str(item)

    Lid.__module__, Lid.__qualname__ = Order.__module__, "Order"
    Lid.__name__ = "Order"
    with open_checkpointer("memory://", engine="langgraph") as here:
        checkpoint = {**empty_checkpoint(), "channel_values": {"order": Order("x", Colour.RED)}}
        checkpoint["channel_versions"] = {"order": "1"}
        here.put(on("t", checkpoint_ns=""), checkpoint, {"source": "input", "step": -1}, {"order": "1"})
        message = failure(here, target, allow=[Lid])
    assert message.startswith(f"checkpoint '{checkpoint['id']}' of thread 't' holds a {__name__}.Colour")


def test_what_cannot_be_made_again_is_told(tmp_path: Path, target: CheckpointerConfig) -> None:
    """LangGraph itself would give a dict, or nothing."""

    class Changed:
        def __init__(self, other: str) -> None: ...

    Changed.__module__, Changed.__name__ = Order.__module__, "Order"
    with open_checkpointer("memory://", engine="langgraph") as here:
        checkpoint = {**empty_checkpoint(), "channel_values": {"order": Order("x", Colour.RED)}}
        checkpoint["channel_versions"] = {"order": "1"}
        here.put(on("t", checkpoint_ns=""), checkpoint, {"source": "input", "step": -1}, {"order": "1"})
        message = failure(here, target, allow=[Changed, Colour])
    assert "holds a " + __name__ + ".Order, and it cannot be made again (TypeError: " in message


def test_one_version_may_have_two_values(target: CheckpointerConfig) -> None:
    """LangGraph's SQLite saver keeps whole copies, so it holds what a step changed in place, and forks of old savers
    number alike."""
    with open_checkpointer("sqlite:///:memory:", engine="langgraph") as here:
        config = on("t", checkpoint_ns="")
        for value in (["a"], ["a", "b"], ["a", "b"], ["c"]):
            checkpoint: Any = {**empty_checkpoint(), "channel_values": {"said": value}}
            checkpoint["channel_versions"] = {"said": 1}
            config = here.put(config, checkpoint, {"source": "loop", "step": 0}, {"said": 1})
        convert(here, target)
        with Place(target).open() as saver:
            assert everything(saver) == everything(here)


def test_gaps_and_forks_share_what_is_equal(target: CheckpointerConfig) -> None:
    """Checkpoints whose parents are gone, versions that are numbers, channels without versions or values."""
    with open_checkpointer("sqlite:///:memory:", engine="langgraph") as here:
        root: Any = here.put(on("t", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})
        ids = [root["configurable"]["checkpoint_id"]]
        for number in range(120):
            values = {"said": [f"word {n} " * 10 for n in range(number)], "once": "the same", "unversioned": number}
            checkpoint: Any = {
                **empty_checkpoint(),
                "channel_values": values,
                "channel_versions": {"said": number, "once": 1, "gone": 7},
            }
            parent = {40: "gone", 41: ids[4], 42: ids[4]}.get(number, ids[-1]) if number > 39 else ids[-1]
            at = on("t", checkpoint_ns="", checkpoint_id=parent)
            ids.append(checkpoint["id"])
            here.put(at, checkpoint, {"source": "loop", "step": number}, {})
        kept = everything(here)
        assert convert(here, target).checkpoints == 121
        with Place(target).open() as there:
            assert everything(there) == kept
            (info,) = there.threads()
    assert info.size < 3 * len("word 100 " * 10) * 120  # not the 60 copies that the source holds on average


def test_children_come_after_their_parents() -> None:
    """And right after them where they can; a loop begins somewhere, a missing parent begins a tree."""

    def row(id: str, parent: str | None, ns: str = "") -> Row:
        return Row(ns, id, parent, None, None, False)

    tree = [row("4", "1"), row("1", None), row("2", "1"), row("3", "2"), row("5", "gone"), row("1", None, "sub")]
    assert [each.ns + each.id for each in in_order(tree)] == ["1", "2", "3", "4", "5", "sub1"]
    loop = [row("1", "2"), row("2", "1"), row("3", "3")]
    assert [each.id for each in in_order(loop)] == ["3", "1", "2"]


def test_a_source_that_changes_meanwhile_is_refused(langgraphs: CheckpointerConfig, target: CheckpointerConfig) -> None:
    """Else what came in between might be missed; the next conversion brings the thread."""
    with Place(langgraphs).open() as agent:
        for id in thread_ids(agent) - {"chat"}:
            agent.delete_thread(id)

        def interfere(progress: Progress) -> None:
            if progress.checkpoints == 3:
                agent.put_writes(agent.get_tuple(on("chat")).config, [("said", ["more"])], "task")

        message = failure(langgraphs, target, allow=TYPES, progress=interfere)
        assert message == (
            "Thread 'chat' was changed while it was converted. Let no agent use the source meanwhile, and do it again; "
            "the thread was not converted whole."
        )

        def delete(progress: Progress) -> None:
            if progress.checkpoints == 3:
                agent.delete_thread("chat")

        with Place(target).open() as saver:
            assert thread_ids(saver) == set()
        assert convert(langgraphs, target, allow=TYPES).threads == 1
        with Place(target).open() as saver:
            saver.delete_thread("chat")
        assert "checkpoint" in failure(langgraphs, target, allow=TYPES, progress=delete)
        assert thread_ids(agent) == set()


def test_a_thread_that_goes_before_its_turn_is_refused(tmp_path: Path, target: CheckpointerConfig) -> None:
    with open_checkpointer(f"sqlite:///{tmp_path}/lg.db", engine="langgraph") as here:
        for id in "ab":
            here.put(on(id, checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})

        def delete(progress: Progress) -> None:
            for id in {"a", "b"} - {progress.thread_id}:
                here.delete_thread(id)

        assert "was changed while it was converted" in failure(here, target, progress=delete)


def test_the_source_is_not_changed(langgraphs: CheckpointerConfig, tmp_path: Path, target: CheckpointerConfig) -> None:
    """Not a byte of its file, though LangGraph's own saver would bring its tables up to date."""
    file = tmp_path / "source.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("ALTER TABLE writes DROP COLUMN task_path")
    before = file.read_bytes()
    assert convert(langgraphs, target, allow=TYPES).threads == 5
    assert file.read_bytes() == before
    between = tmp_path / "target.db"
    before = between.read_bytes()
    assert convert(target, f"sqlite:///{tmp_path}/next.db").threads == 5
    assert between.read_bytes() == before


def test_what_is_missing_is_not_made(tmp_path: Path, postgres_url: str, target: CheckpointerConfig) -> None:
    for source in (
        f"sqlite:///{tmp_path}/none.db",
        CheckpointerConfig.from_url(f"sqlite:///{tmp_path}/none.db", engine="langgraph"),
    ):
        with pytest.raises(CheckpointerUnavailableError, match="there is no such file"):
            convert(source, target)
    with pytest.raises(CheckpointerError, match="has no tables of this version of LangGraph's saver"):
        convert(CheckpointerConfig.from_url(postgres_url, engine="langgraph"), target)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    assert not (tmp_path / "none.db").exists()


def test_a_source_that_cannot_be_read_makes_no_target(tmp_path: Path) -> None:
    source, target = f"sqlite:///{tmp_path}/newer.db", f"sqlite:///{tmp_path}/target.db"
    with open_checkpointer(source) as saver:
        saver.threads()
    with closing(sqlite3.connect(tmp_path / "newer.db")) as connection, connection:
        connection.execute("UPDATE petal_meta SET value = 99")
    with pytest.raises(CheckpointerError, match="was written by a newer Petal"):
        convert(source, target)
    assert not (tmp_path / "target.db").exists()


def test_a_server_is_only_read(postgres_url: str) -> None:
    with open_checkpointer(postgres_url, engine="langgraph") as saver:
        saver.put(on("t", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})
    with open_checkpointer(postgres_url, engine="langgraph", inspect=True) as saver:
        assert thread_ids(saver) == {"t"}
        with pytest.raises(CheckpointerUnavailableError, match="read-only transaction"):
            saver.delete_thread("t")


def test_langgraphs_tables_are_no_target(langgraphs: CheckpointerConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointerConfigurationError, match="only Petal's can be converted to"):
        convert(langgraphs, Place(langgraphs).with_options(engine="langgraph"))


def test_damage_in_the_source_is_named(
    langgraphs: CheckpointerConfig, tmp_path: Path, target: CheckpointerConfig
) -> None:
    """By its row; all other threads are converted."""
    between = f"sqlite:///{tmp_path}/between.db"
    convert(langgraphs, between, allow=TYPES)
    with closing(sqlite3.connect(tmp_path / "between.db")) as connection, connection:
        connection.execute("UPDATE petal_values SET data = zeroblob(20) WHERE thread_id = 'chat' AND channel = 'notes'")
        connection.execute("DELETE FROM petal_values WHERE thread_id = 'forked' AND channel = 'said'")
    with pytest.raises(ThreadsNotConvertedError) as caught:
        convert(between, target)
    assert caught.value.done.threads == 3
    assert set(caught.value.failures) == {"chat", "forked"}
    assert isinstance(caught.value.failures["chat"], CheckpointCorruptionError)
    assert "channel 'notes'" in str(caught.value.failures["chat"])
    assert "channel 'said' of checkpoint" in str(caught.value.failures["forked"])
    assert "is missing" in str(caught.value.failures["forked"])


@pytest.mark.parametrize("engine", ["langgraph", "petal"])
@pytest.mark.parametrize("loss", ["writes", "checkpoints"])
def test_what_the_target_does_not_keep_is_noticed(
    langgraphs: CheckpointerConfig, tmp_path: Path, target: CheckpointerConfig, engine: str, loss: str
) -> None:
    """A trigger in the target drops rows as they come; nothing of such a thread remains."""
    here = langgraphs
    if engine == "petal":
        here = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "between.db")})
        convert(langgraphs, here, allow=TYPES)
    with Place(target).open() as saver:
        saver.threads()
    key = {"writes": "checkpoint_id", "checkpoints": "id"}[loss]
    with closing(sqlite3.connect(tmp_path / "target.db")) as connection, connection:
        connection.execute(
            f"CREATE TRIGGER lossy AFTER INSERT ON petal_{loss} WHEN new.thread_id = 'waits' BEGIN "
            f"DELETE FROM petal_{loss} WHERE thread_id = new.thread_id AND {key} = new.{key}; END"
        )
    with pytest.raises(ThreadsNotConvertedError) as caught:
        convert(here, target, allow=TYPES)
    assert list(caught.value.failures) == ["waits"]
    assert f"was not read back from sqlite:///{tmp_path}/target.db as it was written" in str(caught.value)
    with Place(target).open() as saver:
        assert thread_ids(saver) == {"chat", "forked", "answered", "failed"}
        assert saver.verify() == []


def test_a_conversion_that_is_stopped_goes_on(langgraphs: CheckpointerConfig, target: CheckpointerConfig) -> None:
    """What the callback raises ends it; the thread it was at is not there, those before are."""

    def stop(progress: Progress) -> None:
        if progress.threads == 2:
            raise Enough

    with pytest.raises(Enough):
        convert(langgraphs, target, allow=TYPES, progress=stop)
    with Place(target).open() as saver:
        assert len(thread_ids(saver)) == 2
    done = convert(langgraphs, target, allow=TYPES)
    assert (done.threads, done.already) == (3, 2)


class Enough(Exception):
    """Ends a conversion in the middle."""


def stop_at(count: int) -> Callable[[Progress], None]:
    """A callback that ends a conversion at a checkpoint."""

    def stop(progress: Progress) -> None:
        if progress.checkpoints == count:
            raise Enough

    return stop


def say_more(saver: Any, numbers: range, ns: str = "") -> None:
    """Steps of a long thread: a list grows, each tenth step has writes, each fiftieth begins a fork."""
    head = saver.get_tuple(on("long", checkpoint_ns=ns))
    config = head.config if head else on("long", checkpoint_ns=ns)
    for number in numbers:
        checkpoint: Any = empty_checkpoint()
        checkpoint["channel_values"] = {"said": [f"word {n} of the talk" for n in range(number)], "once": "the same"}
        checkpoint["channel_versions"] = {"said": f"{number:08}", "once": "1"}
        new = {"said": f"{number:08}"} if head or number != numbers[0] else checkpoint["channel_versions"]
        made = saver.put(config, checkpoint, {"source": "loop", "step": number}, new)
        if number % 10 == 0:
            saver.put_writes(made, [("said", [f"word {number}"]), ("other", number)], f"task-{number}")
        config = config if head and number % 50 == 0 else made


def talked(place: Place, engine: str) -> None:
    with place.open(engine=engine) as saver:
        say_more(saver, range(420))
        say_more(saver, range(10), "sub")


def alike(found: CheckpointTuple) -> CheckpointTuple:
    """A checkpoint without what only one engine tells of it."""
    return found._replace(checkpoint={"updated_channels": None, **found.checkpoint})  # type: ignore[typeddict-item]


def half(source: Any, target: Any) -> None:
    """Convert a long thread, and be interrupted in its second part."""
    with pytest.raises(Enough):
        convert(source, target, progress=stop_at(300))


@pytest.mark.parametrize("engine", ["langgraph", "petal"])
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_a_long_thread_goes_on_in_its_middle(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str, kind: str
) -> None:
    """What is there is compared, only the rest is copied; and what the source got in between comes along."""
    here = Place(place("sqlite", request, "source"))
    there = Place(CheckpointerConfig(type="memory") if kind == "memory" else place(kind, request, "target"))
    talked(here, engine)
    source = here.with_options(engine=engine)
    with there.open(engine="petal") as target:
        half(source, target)
        assert target.verify() == []
        (info,) = target.threads()
        assert info.checkpoints == 200
        with here.open(engine=engine) as saver:
            say_more(saver, range(420, 425))
            kept, (before,) = list(saver.list(None)), saver.threads()
        assert convert(source, target) == Conversion(1, 235, 0, 200)
        assert [alike(found) for found in target.list(None)] == [alike(found) for found in kept]
        assert target.verify() == []
        (info,) = target.threads()
        assert (info.checkpoints, info.checkpoint_id) == (435, before.checkpoint_id)
        assert engine == "langgraph" or replace(info, size=None) == replace(before, size=None)
        assert convert(source, target) == Conversion(0, 0, 1)


@pytest.mark.parametrize("engine", ["langgraph", "petal"])
def test_a_part_that_was_used_is_not_gone_on_with(
    request: pytest.FixtureRequest, target: CheckpointerConfig, engine: str
) -> None:
    """Whether a run went on in the target or only wrote; nor is a thread that was whole, if the source has gone on."""
    here = Place(place("sqlite", request, "source"))
    talked(here, engine)
    source = here.with_options(engine=engine)
    half(source, target)
    with Place(target).open() as saver:
        say_more(saver, range(300, 301))
    said = (
        f"Thread 'long' is in sqlite:///{target.options.db_file} already, and {{}} is not the same there: it was used"
    )
    assert failure(source, target).startswith(said.format("the number of checkpoints of thread 'long'"))
    with Place(target).open() as saver:
        saver.delete_thread("long")
    half(source, target)
    with Place(target).open() as saver:
        head = saver.get_tuple(on("long", checkpoint_ns="")).config
        saver.put_writes(head, [("said", ["more"])], "task")
    id = head["configurable"]["checkpoint_id"]
    assert failure(source, target).startswith(said.format(f"checkpoint '{id}' of thread 'long'"))
    with Place(target).open() as saver:
        assert len(list(saver.list(on("long")))) == 200
        saver.delete_thread("long")
    assert convert(source, target) == Conversion(1, 430, 0)
    with here.open(engine=engine) as saver:
        say_more(saver, range(420, 421))
    assert "is not the same there" in failure(source, target)


@pytest.mark.parametrize("engine", ["langgraph", "petal"])
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_writes_that_wait_for_a_checkpoint_come_along(
    request: pytest.FixtureRequest, engine: str, kind: str, target: CheckpointerConfig
) -> None:
    """The input of a run that died before its first one is kept so, in a thread that may have none at all."""
    config = CheckpointerConfig(type="memory") if kind == "memory" else place(kind, request, "source")
    with Place(config).open(engine=engine) as here, Place(target).open() as there:
        here.put(on("t", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})
        here.put_writes(on("t", checkpoint_ns="sub", checkpoint_id="1"), [("x", "one"), ("y", "two")], "task")
        here.put_writes(on("t", checkpoint_ns="", checkpoint_id="2"), [("x", "three")], "task")
        if engine == "petal":
            here.put_writes(on("new", checkpoint_ns="", checkpoint_id="1"), [("__petal_input__", "hi")], "input:1")
        threads = 2 if engine == "petal" else 1

        def strays(saver: PetalSaver) -> list[tuple[Any, ...]]:
            found = saver._engine.read(lambda reader: [*reader.strays("t"), *reader.strays("new")])
            return [(row.thread_id, row.ns, row.checkpoint_id, saver._rows.write(row)) for row in found]

        assert convert(here, there) == Conversion(threads, 1, 0)
        kept = [
            ("t", "", "2", ("task", "x", "three")),
            ("t", "sub", "1", ("task", "x", "one")),
            ("t", "sub", "1", ("task", "y", "two")),
            ("new", "", "1", ("input:1", "__petal_input__", "hi")),
        ]
        assert strays(there) == kept[: 3 if engine == "langgraph" else 4]
        assert convert(here, there) == Conversion(0, 0, threads)
        if engine == "petal":
            assert [replace(info, created=None) for info in there.threads()] == [
                replace(info, created=None) for info in here.threads()
            ]
            there.put_writes(on("new", checkpoint_ns="", checkpoint_id="1"), [("x", "more")], "other")
            said = failure(here, there)
            assert "a write that waits for a checkpoint of thread 'new' is not the same there" in said


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
@pytest.mark.parametrize("other", ["sqlite", "postgres"])
def test_a_thread_is_as_old_as_it_was(request: pytest.FixtureRequest, kind: str, other: str) -> None:
    """Also where a prune left one checkpoint: one that was used of late must not count as idle since it began."""
    config = CheckpointerConfig(type="memory") if kind == "memory" else place(kind, request, "source")
    with Place(config).open() as here, Place(place(other, request, "target")).open() as there:
        say_more(here, range(3))
        here.prune(["long"])
        (info,) = here.threads()
        assert (info.checkpoints, info.created != info.updated) == (1, True)
        assert convert(here, there) == Conversion(1, 1, 0)
        assert there.threads() == [info]


@pytest.mark.parametrize("act", ["saves", "deletes"])
def test_a_source_of_petals_that_changes_meanwhile_is_refused(
    request: pytest.FixtureRequest, target: CheckpointerConfig, act: str
) -> None:
    """Between two parts, whatever becomes of it."""
    here = Place(place("sqlite", request, "source"))
    talked(here, "petal")
    with here.open() as saver:

        def interfere(progress: Progress) -> None:
            if progress.checkpoints == 200:
                say_more(saver, range(420, 421)) if act == "saves" else saver.delete_thread("long")

        assert failure(here.config, target, progress=interfere) == (
            "Thread 'long' was changed while it was converted. Let no agent use the source meanwhile, and do it again; "
            "the thread was not converted whole."
        )
        assert act == "deletes" or convert(here.config, target) == Conversion(1, 31, 0, 400)


def test_ctrl_c_leaves_the_thread_at_once(langgraphs: CheckpointerConfig, target: CheckpointerConfig) -> None:
    """What the journal's thread is at ends then, and nothing of it remains."""
    begun, stopped = threading.Event(), threading.Event()
    with Place(langgraphs).open() as source, Place(target).open() as saver:
        change, journal = saver._engine.change, saver._engine.journal
        promised: list[Any] = []
        assert saver.threads() == []

        def interrupted(work: Callable[[Any], Any]) -> Any:
            promised.append(journal.change(work))
            assert begun.wait(30)
            raise KeyboardInterrupt

        def hold(progress: Progress) -> None:
            begun.set()
            assert stopped.wait(30)

        saver._engine.change = interrupted
        with pytest.raises(KeyboardInterrupt):
            convert(source, saver, allow=TYPES, progress=hold)
        stopped.set()
        assert type(promised[0].exception(30)).__name__ == "_Stopped"
        saver._engine.change = change
        assert thread_ids(saver) == set()


def test_other_serializers_are_used_as_they_are(target: CheckpointerConfig) -> None:
    """LangGraph's encrypting one reads exactly, too; one of somebody else's has to tell by itself."""
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    class Reversing:
        def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
            return "reversed", plaintext[::-1]

        def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
            return ciphertext[::-1]

    class Own(JsonPlusSerializer):
        pass

    for serde, told in (
        (EncryptedSerializer(Reversing()), "name it with --allow"),
        (Own(allowed_msgpack_modules=True), "that cannot be saved"),
    ):
        with open_checkpointer("memory://", engine="langgraph", serde=serde) as here:
            checkpoint = {**empty_checkpoint(), "channel_values": {"order": Order("x", Colour.RED)}}
            checkpoint["channel_versions"] = {"order": "1"}
            here.put(on("t", checkpoint_ns=""), checkpoint, {"source": "input", "step": -1}, {"order": "1"})
            here.put_writes(on("t", checkpoint_ns="", checkpoint_id=checkpoint["id"]), [("x", 1)], "task")
            assert told in failure(here, target)
            assert convert(here, target, allow=[Order]).threads == 1
        with Place(target).open() as saver:
            assert saver.get_tuple(on("t")).checkpoint["channel_values"] == {"order": Order("x", Colour.RED)}
            saver.delete_thread("t")


def test_many_failures_are_listed_in_part(target: CheckpointerConfig) -> None:
    with open_checkpointer("memory://", engine="langgraph") as here:
        for number in range(12):
            first = here.put(
                on(f"t{number}", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {}
            )
            here.put_writes(first, [("x", Secret("s"))], "task")
        with pytest.raises(ThreadsNotConvertedError) as caught:
            convert(here, target)
    assert str(caught.value).startswith("12 of the threads were not converted:\n  a write to channel 'x'")
    assert str(caught.value).endswith("\n  … and 2 more")


@pytest.mark.parametrize("ts", ["", "yesterday", "2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00"])
def test_the_index_has_the_times_of_the_checkpoints(target: CheckpointerConfig, ts: str) -> None:
    """Where they tell one."""
    with open_checkpointer("memory://", engine="langgraph") as here:
        here.put(on("t", checkpoint_ns="sub"), {**empty_checkpoint(), "ts": ts}, {"source": "input", "step": -1}, {})
        assert convert(here, target).threads == 1
    with Place(target).open() as saver:
        (info,) = saver.threads()
        assert (info.updated.isoformat() == ts) is ts.endswith("+00:00")
        assert info.status is None
        assert info.updated == info.created


def test_petals_classes_take_part(tmp_path: Path, postgres_url: str) -> None:
    """Savers that a program has open already."""
    with SqliteSaver(tmp_path / "a.db") as here, PostgresSaver(postgres_url) as there:
        here.put(on("t", checkpoint_ns=""), empty_checkpoint(), {"source": "input", "step": -1}, {})
        assert convert(here, there) == Conversion(1, 1, 0)
        assert everything(there) == everything(here)
