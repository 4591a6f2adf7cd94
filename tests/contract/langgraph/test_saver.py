"""The contract of a checkpoint saver, sync and async, for any thread and any event loop, on every storage."""

from __future__ import annotations

import asyncio
import contextvars
import operator
import pickle
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph

from petal.checkpoints import open_checkpointer
from petal.checkpoints.langgraph.adapter import PAGE, LangGraphSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerError, CheckpointerUnavailableError, ThreadIdRequiredError


class Notes(TypedDict):
    notes: Annotated[list[str], operator.add]


def noted(saver: BaseCheckpointSaver[str]) -> Any:
    """A graph of one step that adds a note."""
    graph = StateGraph(Notes)
    graph.add_node("note", lambda state: {"notes": [f"after {len(state['notes'])}"]})
    graph.add_edge(START, "note")
    graph.add_edge("note", END)
    return graph.compile(checkpointer=saver)


def on(thread_id: Any, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def fill(saver: LangGraphSaver, thread_id: str, count: int, ns: str = "") -> list[str]:
    """Saves a chain of checkpoints, and returns their ids, oldest first."""
    config = on(thread_id, checkpoint_ns=ns)
    for step in range(count):
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"n": [step]}
        checkpoint["channel_versions"] = {"n": f"{step:032}.0"}
        versions = checkpoint["channel_versions"]
        config = saver.put(config, checkpoint, {"source": "loop", "step": step, "parity": step % 2}, versions)  # type: ignore[typeddict-unknown-key]
    return sorted(ids(saver.list(on(thread_id, checkpoint_ns=ns))))


def ids(found: Iterator[CheckpointTuple] | list[CheckpointTuple]) -> list[str]:
    return [each.config["configurable"]["checkpoint_id"] for each in found]


@pytest.fixture
def saver(storage: CheckpointerConfig) -> Iterator[LangGraphSaver]:
    with open_checkpointer(storage) as opened:
        yield opened


async def test_a_graph_goes_on_in_either_face(saver: LangGraphSaver) -> None:
    """What is saved by sync code is there for async code, and the other way round, in a running loop."""
    graph = noted(saver)
    graph.invoke({"notes": ["a"]}, on("t"))
    await graph.ainvoke({"notes": ["b"]}, on("t"))
    assert graph.invoke({"notes": ["c"]}, on("t"))["notes"] == ["a", "after 1", "b", "after 3", "c", "after 5"]
    history = [snapshot.values async for snapshot in graph.aget_state_history(on("t"))]
    assert history == [snapshot.values for snapshot in graph.get_state_history(on("t"))]


async def test_both_faces_answer_alike(saver: LangGraphSaver) -> None:
    """Each async method returns what its sync twin does."""
    first, second = fill(saver, "t", 2)
    saver.put_writes(on("t", checkpoint_id=second), [("n", [7])], "task", "path")
    await saver.aput_writes(on("t", checkpoint_id=second), [("n", [8])], "task 2", "path")

    assert await saver.aget_tuple(on("t")) == saver.get_tuple(on("t"))
    newest = saver.get_tuple(on("t"))
    assert newest is not None
    assert newest.pending_writes == [("task", "n", [7]), ("task 2", "n", [8])]
    assert await saver.aget(on("t", checkpoint_id=first)) == saver.get(on("t", checkpoint_id=first))
    assert [each async for each in saver.alist(on("t"))] == list(saver.list(on("t")))
    assert await saver.athreads() == saver.threads()
    history = saver.get_delta_channel_history(config=on("t"), channels=["n"])
    assert history["n"]["seed"] == [0]
    assert await saver.aget_delta_channel_history(config=on("t"), channels=["n"]) == history
    assert saver.config_specs == []

    await saver.adelete_thread("t")
    assert saver.get_tuple(on("t")) is None
    assert await saver.aget_tuple(on("t")) is None


def test_versions_have_langgraphs_format(saver: LangGraphSaver) -> None:
    """They grow, and sort as text."""
    first = saver.get_next_version(None, None)
    second = saver.get_next_version(first, None)
    assert first.startswith(f"{1:032}.")
    assert second.startswith(f"{2:032}.")


def test_many_threads_at_once(saver: LangGraphSaver) -> None:
    """Eight threads run graphs on threads of their own, and each finds all of its own."""
    graph = noted(saver)

    def talk(name: str) -> list[str]:
        for turn in range(4):
            graph.invoke({"notes": [f"{name}{turn}"]}, on(name))
        notes: list[str] = graph.get_state(on(name)).values["notes"]
        return notes

    names = [f"thread {n}" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        talks = list(pool.map(talk, names))
    assert [notes[::2] for notes in talks] == [[f"{name}{turn}" for turn in range(4)] for name in names]
    assert {info.thread_id for info in saver.threads()} == set(names)


def test_many_loops_at_once(saver: LangGraphSaver) -> None:
    """One saver serves several event loops, in several threads, one after the other and together."""
    graph = noted(saver)

    async def talk(name: str) -> None:
        await asyncio.gather(*(graph.ainvoke({"notes": ["x"]}, on(f"{name}/{n}")) for n in range(4)))

    asyncio.run(talk("first"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: asyncio.run(talk(name)), "abcd"))
    assert len(saver.threads()) == 5 * 4
    assert {info.checkpoints for info in saver.threads()} == {3}


async def test_what_a_cancelled_caller_began_is_completed(saver: LangGraphSaver) -> None:
    """Cancelling a save neither undoes it nor hurts the next one."""
    checkpoint = empty_checkpoint()
    save = asyncio.ensure_future(saver.aput(on("t"), checkpoint, {"step": 1}, {}))
    await asyncio.sleep(0)
    save.cancel()
    with pytest.raises(asyncio.CancelledError):
        await save
    await saver.aput_writes(on("t", checkpoint_id=checkpoint["id"]), [("n", 1)], "task")
    await saver.aclose()
    with pytest.raises(CheckpointerUnavailableError):
        await saver.aget_tuple(on("t"))


async def test_a_cancelled_save_is_saved(durable_storage: CheckpointerConfig) -> None:
    """It is there when the storage is opened again."""
    checkpoint = empty_checkpoint()
    async with open_checkpointer(durable_storage) as saver:
        save = asyncio.ensure_future(saver.aput(on("t"), checkpoint, {"step": 1}, {}))
        await asyncio.sleep(0)
        save.cancel()
    with open_checkpointer(durable_storage) as again:
        assert ids(again.list(on("t"))) == [checkpoint["id"]]


async def test_context_reaches_the_worker(saver: LangGraphSaver) -> None:
    """A context variable of an async caller is set where the serializer runs."""
    tenant = contextvars.ContextVar("tenant", default="none")
    seen: list[str] = []

    class Watching(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            seen.append(tenant.get())
            return super().dumps_typed(obj)

    saver.serde = Watching()
    tenant.set("acme")
    await saver.aput_writes(on("t", checkpoint_id="c"), [("n", 1)], "task")
    assert seen == ["acme"]


def test_the_saver_can_be_used_inside_an_open_list(saver: LangGraphSaver) -> None:
    """A list holds no lock between two of its checkpoints, so reading and saving inside the loop is fine."""
    fill(saver, "t", 3)
    for config in (on("t", checkpoint_ns=""), on("t"), None):
        for each in saver.list(config):
            assert saver.get_tuple(each.config) is not None
            saver.put_writes(each.config, [("n", 1)], "task")


async def test_the_saver_can_be_used_inside_an_open_async_list(saver: LangGraphSaver) -> None:
    """The same in an async loop, by both faces."""
    fill(saver, "t", 3)
    async for each in saver.alist(on("t", checkpoint_ns="")):
        assert await saver.aget_tuple(each.config) == saver.get_tuple(each.config)


async def test_an_abandoned_list_holds_nothing(saver: LangGraphSaver) -> None:
    """After a list that was left midway the saver works, and closes without a warning."""
    fill(saver, "t", PAGE + 5)
    listing = saver.list(on("t", checkpoint_ns=""))
    next(listing)
    alisting = saver.alist(on("t", checkpoint_ns=""))
    await anext(alisting)
    await alisting.aclose()
    saver.delete_thread("t")
    assert len(list(listing)) == PAGE - 1  # the page that was fetched


async def test_a_list_in_pages_is_the_whole_list(saver: LangGraphSaver) -> None:
    """Limit, filter and before give what LangGraph's own saver gives, on both sides of a page's end."""
    made = fill(saver, "t", 2 * PAGE + 1)[::-1]
    here = on("t", checkpoint_ns="")
    assert ids(saver.list(here)) == made
    for limit in (0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE):
        assert ids(saver.list(here, limit=limit)) == made[:limit]
        assert ids([each async for each in saver.alist(here, limit=limit)]) == made[:limit]
    before = on("t", checkpoint_id=made[PAGE - 5])
    assert ids(saver.list(here, before=before)) == made[PAGE - 4 :]
    odd = [id for step, id in enumerate(made[::-1]) if step % 2][::-1]
    older = [id for id in odd if id < made[PAGE - 5]]
    assert ids(saver.list(here, before=before, filter={"parity": 1}, limit=20)) == older[:20]
    assert ids(saver.list(here, filter={"parity": 1})) == odd
    assert len(ids(saver.list(here, filter={"parity": 0}))) == PAGE + 1
    assert ids(saver.list(on("t", checkpoint_ns="", checkpoint_id=made[3]))) == [made[3]]


def test_a_list_over_copied_threads_misses_none(saver: LangGraphSaver) -> None:
    """Copies share checkpoint ids, and all of them are listed where no thread is named."""
    fill(saver, "t", 3)
    for copy in range(PAGE):
        saver.copy_thread("t", f"copy {copy}")
    assert len(list(saver.list(None))) == 3 * (PAGE + 1)
    assert len(list(saver.list(None, limit=PAGE + 7))) == PAGE + 7


HOSTILE = "step') = 0 OR 1=1; DROP TABLE checkpoints; --"


def test_a_hostile_filter_key_does_nothing(saver: LangGraphSaver) -> None:
    """A metadata key is no SQL: it matches nothing or is refused, and nothing is dropped (CVE-2025-67644)."""
    fill(saver, "t", 2)
    for key in (HOSTILE, "x' OR '1'='1", "step') OR 1=1 --", 'parity") OR 1=1 --'):
        for here in (on("t"), on("t", checkpoint_ns=""), None):
            try:
                found = ids(saver.list(here, filter={key: 0}))
            except ValueError as error:
                assert str(error).startswith("Invalid filter key")  # noqa: PT017  the other answer is fine too
            else:
                assert found == []
    assert len(list(saver.list(on("t")))) == 2


def test_hostile_ids_are_only_ids(saver: LangGraphSaver) -> None:
    """Ids are parameters in every statement of ours."""
    name = "t'; DROP TABLE checkpoints; --"
    (head,) = fill(saver, name, 1)
    saver.copy_thread(name, name + "copy")
    saver.fork_thread(name, head, name + "fork")
    saver.prune([name])
    saver.delete_for_runs([name])
    assert {info.thread_id for info in saver.threads()} == {name, name + "copy", name + "fork"}


def test_a_thread_id_may_be_any_value(saver: LangGraphSaver) -> None:
    """A UUID or a number names the same thread as its text does."""
    id = uuid.uuid4()
    checkpoint = empty_checkpoint()
    saver.put(on(id), checkpoint, {}, {})
    saver.put_writes(on(id, checkpoint_id=checkpoint["id"]), [("n", 1)], "task")
    assert ids(saver.list(on(str(id)))) == [checkpoint["id"]]
    saver.put(on(7), checkpoint, {}, {})
    assert ids(saver.list(on(7))) == ids(saver.list(on("7"))) == [checkpoint["id"]]


def test_a_missing_thread_id_is_asked_for(saver: LangGraphSaver) -> None:
    """Whatever is called without one says what to pass."""
    nobody: Any = None
    for call in (
        lambda: saver.get_tuple({}),
        lambda: saver.get_tuple({"configurable": {"thread_id": None}}),
        lambda: list(saver.list({"configurable": {}})),
        lambda: saver.put({"configurable": {}}, empty_checkpoint(), {}, {}),
        lambda: saver.delete_thread(nobody),
        lambda: saver.copy_thread("t", nobody),
        lambda: saver.fork_thread(nobody, "1ef", "t"),
    ):
        with pytest.raises(ThreadIdRequiredError, match="thread_id='user-123'"):
            call()


@dataclass
class Point:
    x: int


def test_an_allowlist_reaches_the_serializer(storage: CheckpointerConfig) -> None:
    """A clone with an allowlist shares the connection, and reads back only the types that it allows."""
    with open_checkpointer(storage, serde=JsonPlusSerializer(allowed_msgpack_modules=None)) as strict:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"point": Point(3)}
        checkpoint["channel_versions"] = {"point": "1"}
        strict.put(on("t"), checkpoint, {}, {"point": "1"})

        allowed = strict.with_allowlist([(Point.__module__, "Point")])

        assert isinstance(allowed, LangGraphSaver)
        read = allowed.get(on("t"))
        assert read is not None
        assert read["channel_values"] == {"point": Point(3)}
        blind = strict.get(on("t"))
        assert blind is not None
        assert blind["channel_values"] != {"point": Point(3)}
        assert allowed.with_allowlist([(Point.__module__, "Point")]) is allowed
        allowed.close()
        with pytest.raises(CheckpointerUnavailableError):
            strict.get(on("t"))


def test_a_value_that_cannot_be_saved_names_its_channel(saver: LangGraphSaver) -> None:
    """Nothing of that checkpoint is saved, and the saver goes on."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"fine": [1], "handle": [object()], "also": [2]}
    checkpoint["channel_versions"] = {"fine": "1", "handle": "1", "also": "1"}
    with pytest.raises(CheckpointerError) as caught:
        saver.put(on("t"), checkpoint, {}, checkpoint["channel_versions"])
    assert str(caught.value).startswith(f"Channel 'handle' of thread 't' in {saver.where} holds a list that cannot")
    assert caught.value.__cause__ is not None
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(CheckpointerError, match="Channel 'b' of checkpoint 'c' of thread 't'"):
        saver.put_writes(on("t", checkpoint_id="c"), [("a", 1), ("b", object())], "task")
    assert list(saver.list(on("t"))) == []
    fill(saver, "t", 1)


def test_metadata_that_cannot_be_saved_is_refused(saver: LangGraphSaver) -> None:
    """Metadata is plain data; anything else is a typed error, and nothing is saved."""
    with pytest.raises(CheckpointerError, match="object"):
        saver.put(on("t"), empty_checkpoint(), {"odd": object()}, {})  # type: ignore[typeddict-unknown-key]
    assert list(saver.list(on("t"))) == []


def test_a_mistake_of_the_caller_is_told_as_it_is(saver: LangGraphSaver) -> None:
    """What is no checkpoint at all is no trouble of the storage."""
    with pytest.raises(KeyError, match="id"):
        saver.put(on("t"), {"channel_values": {}}, {}, {})  # type: ignore[typeddict-item]
    fill(saver, "t", 1)


class Log(TypedDict):
    lines: Annotated[list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w])]


def test_a_delta_channel_is_rebuilt(saver: LangGraphSaver) -> None:
    """A graph with a delta channel finds its value after many turns, as it does on LangGraph's own saver."""
    graph = StateGraph(Log)
    graph.add_node("say", lambda state: {"lines": ["answer"]})
    graph.add_edge(START, "say")
    for checkpointer in (saver, InMemorySaver()):
        compiled = graph.compile(checkpointer=checkpointer)
        for turn in range(3):
            compiled.invoke({"lines": [f"turn {turn}"]}, on("t"))
        lines = compiled.get_state(on("t")).values["lines"]
        assert lines == ["turn 0", "answer", "turn 1", "answer", "turn 2", "answer"]


def test_it_says_where_it_keeps_what(storage: CheckpointerConfig) -> None:
    """`where`, `durability` and its repr are told without a database."""
    with open_checkpointer(storage, durability="exit") as saver:
        assert saver.where == storage.where
        assert saver.durability == "exit"
        assert repr(saver) == f"<{type(saver).__name__} {storage.where}>"
    assert open_checkpointer(storage).durability == "sync"
