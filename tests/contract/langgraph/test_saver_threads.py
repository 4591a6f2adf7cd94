"""Copies, forks, prunes and deletions are exact, on every storage."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import TASKS
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from petal.checkpoints import ThreadInfo, open_checkpointer
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.notes import BRANCH, EFFECT, Note, put_note
from petal.checkpoints.threads import made_at
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerError, CheckpointNotFoundError


class Notes(TypedDict):
    notes: Annotated[list[str], operator.add]


def asking(saver: LangGraphSaver) -> Any:
    """A graph with a step, then a subgraph whose second step asks a question."""
    inner = StateGraph(Notes)
    inner.add_node("think", lambda state: {"notes": ["thought"]})
    inner.add_node("ask", lambda state: {"notes": [interrupt("go on?")]})
    inner.add_edge(START, "think")
    inner.add_edge("think", "ask")
    subgraph: Any = inner.compile()
    outer = StateGraph(Notes)
    outer.add_node("prepare", lambda state: {"notes": ["prepared"]})
    outer.add_node("talk", lambda state: {"notes": subgraph.invoke({"notes": []})["notes"]})
    outer.add_edge(START, "prepare")
    outer.add_edge("prepare", "talk")
    return outer.compile(checkpointer=saver)


def on(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def held(saver: LangGraphSaver, thread_id: str) -> dict[tuple[str, str], CheckpointTuple]:
    """All that a thread holds, by namespace and id, as if the thread had no name."""

    def nameless(config: RunnableConfig | None) -> RunnableConfig | None:
        return config and {"configurable": {**config["configurable"], "thread_id": ""}}

    found = {}
    for each in saver.list(on(thread_id)):
        key = each.config["configurable"]["checkpoint_ns"], each.config["configurable"]["checkpoint_id"]
        config = nameless(each.config)
        assert config is not None
        found[key] = each._replace(config=config, parent_config=nameless(each.parent_config))
    return found


def root(saver: LangGraphSaver, thread_id: str) -> list[str]:
    """The ids of a thread's root checkpoints, newest first."""
    return [each.config["configurable"]["checkpoint_id"] for each in saver.list(on(thread_id, checkpoint_ns=""))]


def save(saver: LangGraphSaver, config: RunnableConfig, value: Any, **metadata: Any) -> RunnableConfig:
    """Saves one checkpoint with one channel, after the one that the config names."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"n": [value]}
    checkpoint["channel_versions"] = {"n": str(value)}
    return saver.put(config, checkpoint, metadata, {"n": str(value)})  # type: ignore[arg-type]


@pytest.fixture
def saver(storage: CheckpointerConfig) -> Iterator[LangGraphSaver]:
    with open_checkpointer(storage) as opened:
        yield opened


async def test_a_copy_is_equal_and_goes_on(saver: LangGraphSaver) -> None:
    """A copied thread has every checkpoint and write of its source, and its open question can be answered."""
    graph = asking(saver)
    graph.invoke({"notes": ["hello"]}, on("t"))
    before = held(saver, "t")
    assert {ns for ns, _ in before} > {""}

    await saver.acopy_thread("t", "copy")

    assert held(saver, "copy") == held(saver, "t") == before
    answered = await graph.ainvoke(Command(resume="yes"), on("copy"))
    assert answered["notes"] == ["hello", "prepared", "thought", "yes"]
    assert held(saver, "t") == before
    assert graph.invoke(Command(resume="no"), on("t"))["notes"] == ["hello", "prepared", "thought", "no"]


def test_a_copy_keeps_the_order_of_writes(saver: LangGraphSaver) -> None:
    """The path of the task that wrote is copied, by which writes are sorted."""
    config = save(saver, on("t"), 0)
    saver.put_writes(config, [("n", "second")], "task a", "path 2")
    saver.put_writes(config, [("n", "first")], "task b", "path 1")
    saver.copy_thread("t", "copy")
    saver.fork_thread("t", config["configurable"]["checkpoint_id"], "fork")
    for thread in ("t", "copy", "fork"):
        found = saver.get_tuple(on(thread))
        assert found is not None
        assert found.pending_writes == [("task b", "n", "first"), ("task a", "n", "second")]


def test_a_channel_without_a_value_is_copied_as_such(saver: LangGraphSaver) -> None:
    """A channel that has a version but was never given a value has none in the copy either."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_versions"] = {"n": "1"}
    saver.put(on("t"), checkpoint, {}, {})
    saver.copy_thread("t", "copy")
    assert held(saver, "copy") == held(saver, "t")


def test_copies_refuse_what_they_would_mix(saver: LangGraphSaver) -> None:
    """An unknown source and a target that holds anything are refused, and nothing changes."""
    config = save(saver, on("t"), 0)
    id = config["configurable"]["checkpoint_id"]
    save(saver, on("other"), 1)
    saver.put_writes(on("written", checkpoint_id="c"), [("n", 1)], "task")
    other = held(saver, "other")
    for target in ("other", "t", "written"):
        with pytest.raises(CheckpointerError, match=f"Thread '{target}' already has checkpoints"):
            saver.copy_thread("t", target)
        with pytest.raises(CheckpointerError, match=f"Thread '{target}' already has checkpoints"):
            saver.fork_thread("t", id, target)
    with pytest.raises(CheckpointNotFoundError, match="Thread 'nobody' has no checkpoints"):
        saver.copy_thread("nobody", "new")
    with pytest.raises(CheckpointNotFoundError, match="Thread 'nobody' has no checkpoints"):
        saver.fork_thread("nobody", id, "new")
    with pytest.raises(CheckpointNotFoundError, match="Thread 't' has no checkpoint 'nothing'"):
        saver.fork_thread("t", "nothing", "new")
    assert held(saver, "other") == other
    assert held(saver, "new") == {}


async def test_a_fork_at_the_newest_keeps_its_questions(saver: LangGraphSaver) -> None:
    """Forking a thread that waits in a subgraph gives one that waits there too."""
    graph = asking(saver)
    graph.invoke({"notes": ["hello"]}, on("t"))
    await saver.afork_thread("t", root(saver, "t")[0], "fork")
    assert held(saver, "fork") == held(saver, "t")
    assert graph.get_state(on("fork")).interrupts == graph.get_state(on("t")).interrupts != ()
    assert graph.invoke(Command(resume="yes"), on("fork"))["notes"] == ["hello", "prepared", "thought", "yes"]


def test_a_fork_in_the_past_knows_nothing_of_what_came_later(saver: LangGraphSaver) -> None:
    """It holds the ancestors with their writes, not the writes or the subgraphs of the chosen checkpoint."""
    graph = asking(saver)
    graph.invoke({"notes": ["hello"]}, on("t"))
    graph.invoke(Command(resume="yes"), on("t"))
    graph.invoke({"notes": ["again"]}, on("t"))
    ids = root(saver, "t")
    states = {each.config["configurable"]["checkpoint_id"]: each for each in graph.get_state_history(on("t"))}
    for id in ids[1:]:
        saver.fork_thread("t", id, id)
        source, fork = held(saver, "t"), held(saver, id)
        chosen = fork.pop(("", id))
        assert chosen == source["", id]._replace(pending_writes=[])
        assert [key for key in fork if key[0] == ""] == [("", older) for older in ids[ids.index(id) + 1 :]]
        assert fork.items() <= source.items()
        begun = {each.metadata["parents"][""] for (ns, _), each in fork.items() if ns}
        assert begun <= set(ids[ids.index(id) + 1 :])
        state = graph.get_state(on(id))
        assert (state.values, state.next) == (states[id].values, states[id].next)
    middle = ids[3]
    assert graph.invoke(None, on(middle))["notes"][:2] == ["hello", "prepared"]


def test_a_fork_leaves_other_branches_behind(saver: LangGraphSaver) -> None:
    """Only the parent chain of the chosen checkpoint is copied."""
    first = save(saver, on("t"), 0)
    left = save(saver, first, 1)
    right = save(saver, first, 2)
    save(saver, left, 3)
    saver.put(on("t", checkpoint_ns="child"), empty_checkpoint(), {}, {})
    saver.fork_thread("t", right["configurable"]["checkpoint_id"], "fork")
    assert root(saver, "fork") == [c["configurable"]["checkpoint_id"] for c in (right, first)]
    newest = saver.get_tuple(on("fork"))
    assert newest is not None
    assert newest.checkpoint["channel_values"] == {"n": [2]}


async def test_a_prune_keeps_the_newest_and_the_open_question(saver: LangGraphSaver) -> None:
    """A pruned thread holds one checkpoint a namespace, unchanged but for its parent, and can be answered."""
    graph = asking(saver)
    graph.invoke({"notes": ["hello"]}, on("t"))
    graph.invoke(Command(resume="yes"), on("t"))
    graph.invoke({"notes": ["again"]}, on("t"))
    save(saver, on("other"), 0)
    before, other = held(saver, "t"), held(saver, "other")

    await saver.aprune(["t", "t", "nobody"])

    after = held(saver, "t")
    newest = root(saver, "t")[0]
    waiting = max(
        (key for key, each in before.items() if each.metadata["parents"].get("") == newest), key=lambda key: key[1]
    )
    assert set(after) == {("", newest), waiting}
    assert after == {key: before[key]._replace(parent_config=None) for key in after}
    assert held(saver, "other") == other
    assert graph.invoke(Command(resume="no"), on("t"))["notes"][-2:] == ["thought", "no"]


def test_a_prune_of_everything_leaves_nothing(saver: LangGraphSaver) -> None:
    """The strategy `delete` empties the threads named, and no other."""
    asking(saver).invoke({"notes": ["hello"]}, on("t"))
    save(saver, on("other"), 0)
    saver.prune(["t", "nobody"], strategy="delete")
    assert [info.thread_id for info in saver.threads()] == ["other"]
    saver.prune([])
    saver.delete_for_runs([])
    with pytest.raises(ValueError, match=r"No prune strategy 'all'\. Known: 'keep_latest', 'delete'\."):
        saver.prune(["other"], strategy="all")
    with pytest.raises(TypeError, match="not the text 'other'"):
        saver.prune("other")
    assert len(held(saver, "other")) == 1


async def test_what_runs_saved_is_deleted_and_no_more(saver: LangGraphSaver) -> None:
    """In every namespace of every thread; what stays is unchanged, but for a parent that is gone."""
    first = save(saver, on("t"), 0, run_id="keep")
    second = save(saver, first, 1, run_id="drop")
    third = save(saver, second, 2, run_id="keep")
    save(saver, on("t", checkpoint_ns="child"), 3, run_id="drop")
    save(saver, on("u"), 4, run_id="drop too")
    save(saver, on("v"), 5)
    for config in (first, second, third):
        saver.put_writes(config, [("n", 1)], "task")
    before = held(saver, "t")
    untouched = held(saver, "v")

    await saver.adelete_for_runs(["drop", "drop too", "nobody's"])

    keys = [("", config["configurable"]["checkpoint_id"]) for config in (first, third)]
    assert held(saver, "t") == {keys[0]: before[keys[0]], keys[1]: before[keys[1]]._replace(parent_config=None)}
    assert held(saver, "u") == {}
    assert held(saver, "v") == untouched


class Backwards:
    """A cipher that hides nothing, but that plain bytes do not pass."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "backwards", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "backwards"
        return ciphertext[::-1]


def test_a_serializer_of_ones_own_is_used_for_all(storage: CheckpointerConfig) -> None:
    """Encrypted threads are copied, forked, pruned and deleted like others."""
    with open_checkpointer(storage, serde=EncryptedSerializer(Backwards())) as saver:
        first = save(saver, on("t"), 0, run_id="one")
        second = save(saver, first, 1, run_id="two")
        saver.copy_thread("t", "copy")
        saver.fork_thread("t", first["configurable"]["checkpoint_id"], "fork")
        assert held(saver, "copy") == held(saver, "t")
        assert [each.checkpoint["channel_values"] for each in held(saver, "fork").values()] == [{"n": [0]}]
        saver.prune(["t"])
        assert root(saver, "t") == [second["configurable"]["checkpoint_id"]]
        saver.delete_for_runs(["two"])
        assert held(saver, "t") == {}
        assert root(saver, "copy") == root(saver, "fork") == [first["configurable"]["checkpoint_id"]]


def test_a_prune_keeps_the_sends_of_an_old_format(postgres_url: str) -> None:
    """LangGraph's PostgreSQL saver reads them from the parent, where formats before the fourth left them."""
    with open_checkpointer(postgres_url, engine="langgraph") as saver:
        first = save(saver, on("t"), 0)
        second = save(saver, first, 1)
        saver.put_writes(second, [(TASKS, "sent")], "task")
        third = save(saver, second, 2)
        before = saver.get_tuple(third)
        saver.prune(["t"])
        assert root(saver, "t") == [each["configurable"]["checkpoint_id"] for each in (third, second)]
        after = saver.get_tuple(third)
        assert after == before
        assert after is not None
        assert "sent" in after.checkpoint["channel_values"][TASKS]


class Log(TypedDict):
    lines: Annotated[list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w])]


async def test_deleting_refuses_to_break_a_delta_channel(saver: LangGraphSaver) -> None:
    """What a delta channel is rebuilt from stays, in all threads of the call; copies and forks carry it along."""
    graph = StateGraph(Log)
    graph.add_node("say", lambda state: {"lines": ["answer"]})
    graph.add_edge(START, "say")
    compiled = graph.compile(checkpointer=saver)
    compiled.invoke({"lines": ["one"]}, {"configurable": {"thread_id": "t"}, "metadata": {"run_id": "first"}})
    compiled.invoke({"lines": ["two"]}, {"configurable": {"thread_id": "t"}, "metadata": {"run_id": "second"}})
    first = save(saver, on("plain"), 0)
    save(saver, first, 1)
    before = held(saver, "t"), held(saver, "plain")

    for refused in (saver.aprune(["plain", "t"]), saver.adelete_for_runs(["first"])):
        with pytest.raises(CheckpointerError, match="Thread 't' uses a DeltaChannel"):
            await refused
    assert (held(saver, "t"), held(saver, "plain")) == before

    saver.copy_thread("t", "copy")
    saver.fork_thread("t", root(saver, "t")[3], "fork")
    assert compiled.get_state(on("copy")).values == {"lines": ["one", "answer", "two", "answer"]}
    assert compiled.get_state(on("fork")).values == {"lines": ["one", "answer"]}
    saver.delete_for_runs(["second"])
    assert compiled.get_state(on("t")).values == {"lines": ["one", "answer"]}
    saver.delete_for_runs(["first"])
    assert held(saver, "t") == {}


def test_threads_are_listed_newest_first_in_pages(saver: LangGraphSaver) -> None:
    """Pages neither skip nor repeat one, not even copies, whose newest checkpoints have equal ids."""
    for number in range(5):
        save(saver, save(saver, on(f"t{number}"), 0), 1)
    saver.copy_thread("t2", "t2 copy")
    save(saver, on("t0", checkpoint_ns="child"), 2)
    save(saver, on("only a child", checkpoint_ns="child"), 3)
    saver.get_tuple(on("looked at, and never saved"))

    whole = saver.threads()

    order = ["only a child", "t4", "t3", "t2 copy", "t2", "t1", "t0"]
    assert [info.thread_id for info in whole] == order
    head = root(saver, "t0")[0]
    assert whole[-1] == ThreadInfo("t0", 3, made_at(head), head)
    paged: list[ThreadInfo] = []
    while page := saver.threads(2, paged[-1] if paged else None):
        paged += page
    assert paged == whole
    assert saver.threads(0) == []


def test_a_thread_says_when_it_was_updated(saver: LangGraphSaver) -> None:
    """The time is that of its newest checkpoint, to the microsecond or so."""
    asking(saver).invoke({"notes": ["hello"]}, on("t"))
    (info,) = saver.threads()
    newest = saver.get(on("t"))
    assert newest is not None
    assert info.updated is not None
    assert abs(info.updated.timestamp() - datetime.fromisoformat(newest["ts"]).timestamp()) < 1
    saver.put(on("u"), {**empty_checkpoint(), "id": "not a uuid"}, {}, {})
    assert [each.updated for each in saver.threads() if each.thread_id == "u"] == [None]


async def test_a_listing_and_notes_are_read_without_a_value(
    saver: LangGraphSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pages, of one namespace or all."""
    asking(saver).invoke({"notes": []}, on("t"))
    asking(saver).invoke({"notes": []}, on("other"))
    kept = list(saver.list(on("t")))
    newest = next(each.config for each in kept if not each.config["configurable"]["checkpoint_ns"])
    put_note(saver, newest, BRANCH, {"name": "what-if"}, "b")
    put_note(saver, newest, BRANCH, {"name": "another"}, "a")
    put_note(saver, newest, EFFECT, "else", "c")
    assert saver.notes_at(newest, BRANCH) == await saver.anotes_at(newest, BRANCH) == saver.notes("t", BRANCH)
    assert saver.notes_at(on("t", checkpoint_ns="", checkpoint_id="none"), BRANCH) is None

    def refuse(*_: Any) -> Any:
        raise AssertionError("a value was read")

    monkeypatch.setattr(saver.storage.dialect, "saver", refuse)
    every = saver.checkpoints("t", 100, ns=None)
    assert {(info.ns, info.checkpoint_id): (info.parent_id, info.metadata) for info in every} == {
        (each.config["configurable"]["checkpoint_ns"], each.checkpoint["id"]): (
            each.parent_config and each.parent_config["configurable"]["checkpoint_id"],
            each.metadata,
        )
        for each in kept
    }
    assert [(info.checkpoint_id, info.ns) for info in every] == sorted(
        ((info.checkpoint_id, info.ns) for info in every), reverse=True
    )
    assert await saver.acheckpoints("t", 2, every[1], ns=None) == every[2:4]
    assert saver.checkpoints("t", 100) == [info for info in every if not info.ns]
    assert saver.checkpoints("t", 0) == saver.checkpoints("unknown") == []
    assert all(datetime.fromisoformat(info.created) == made_at(info.checkpoint_id) for info in every)
    place = newest["configurable"]["checkpoint_id"]
    assert await saver.anotes("t", BRANCH) == [
        Note("t", "", place, "a", {"name": "another"}),
        Note("t", "", place, "b", {"name": "what-if"}),
    ]
    assert saver.notes("other", BRANCH) == []


def test_a_checkpoint_whose_id_tells_no_time_is_listed(saver: LangGraphSaver) -> None:
    checkpoint = {**empty_checkpoint(), "id": "mine"}
    saver.put(on("t", checkpoint_ns=""), checkpoint, {}, {})  # type: ignore[arg-type]
    assert [(info.checkpoint_id, info.created) for info in saver.checkpoints("t")] == [("mine", "")]
