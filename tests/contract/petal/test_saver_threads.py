"""Whole threads in Petal's own saver: listed, copied, forked, pruned, deleted, and leaned on meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any, TypedDict, cast

import pytest
from langchain_core.messages import HumanMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import StateGraph
from langgraph.types import Send
from shop import BIG, Lines, Shop, chat, on, put, said, value_of

from petal.checkpoints import MemorySaver, open_checkpointer
from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec
from petal.checkpoints.envelope import Envelope
from petal.checkpoints.memory import MemoryStore
from petal.checkpoints.notes import INPUT, put_note
from petal.checkpoints.rows import Rows
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerError, CheckpointNotFoundError


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
        # Four messages are 1,600 in memory, where nothing is compressed.
        assert (saver.threads()[0].size or 0) - size < (1000 if storage.type == "memory" else 700)


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


def test_a_checkpoint_may_be_its_own_parent(storage: CheckpointerConfig) -> None:
    """As one is that a program saves under the config that came with it."""
    with open_checkpointer(storage) as saver:
        assert isinstance(saver, PetalSaver)
        for value in [BIG], [BIG, "b"], [BIG, "b"]:
            put(saver, "1", "1", value, "v1")
            assert value_of(saver, "1") == value
        put(saver, "2", "1", [BIG, "b"], "v1", new=False)
        assert value_of(saver, "2") == [BIG, "b"]
        assert saver.verify() == []


@pytest.mark.timeout(30)
def test_a_loop_of_parents_ends_what_a_delta_channel_is_rebuilt_from(saver: PetalSaver) -> None:
    there, told = empty_checkpoint(), cast(CheckpointMetadata, {"counters_since_delta_snapshot": {"lines": (1, 1)}})
    there["channel_versions"] = {"lines": "1"}
    for id, parent in ("1", "2"), ("2", "1"), ("3", "3"):
        saver.put(on("t", checkpoint_ns="", checkpoint_id=parent), cast(Checkpoint, there | {"id": id}), told, {})
        saver.put_writes(on("t", checkpoint_ns="", checkpoint_id=id), [("lines", [id])], "task")

    def written(id: str) -> list[Any]:
        config = on("t", checkpoint_id=id)
        history = saver.get_delta_channel_history(config=config, channels=["lines"])
        return [value for _, _, value in history["lines"]["writes"]]

    assert (written("1"), written("2"), written("3")) == ([["2"]], [["1"]], [])
    saver.prune(["t"])
    assert [found.checkpoint["id"] for found in saver.list(on("t"))] == ["3"]
    assert written("3") == []


def test_two_savers_may_have_one_store_in_memory() -> None:
    """The second one sees what the first one saved, and goes on after that was closed; then all of it is gone."""
    store, rows = MemoryStore(), Rows(Codec(Allowlist()), Envelope())
    with PetalSaver(store, rows) as second:
        with PetalSaver(store, rows) as first:
            put(first, "1", None, [BIG], "v1")
            assert value_of(second, "1") == [BIG]
            put(second, "2", "1", [BIG, "b"], "v2")
            assert value_of(first, "2") == [BIG, "b"]
        assert value_of(second, "2") == [BIG, "b"]
    with PetalSaver(store, rows) as third:
        assert third.threads() == []


def test_a_parent_that_was_saved_again_elsewhere_is_looked_up_anew(saver: PetalSaver) -> None:
    """Its values lie in other rows then, and those that were known go with the next prune."""
    with PetalSaver(saver._engine.store, saver._rows) as other:
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


def test_a_copy_has_the_input_that_waits_for_a_run(saver: PetalSaver) -> None:
    """That of a run which died before its first checkpoint."""
    chat(saver).invoke({"messages": [HumanMessage("Hello")]}, on("t"), durability="sync")
    place = on("t", checkpoint_ns="", checkpoint_id=str(uuid6()))
    put_note(saver, place, INPUT, {"run": "r", "input": "more"}, "input")
    saver.copy_thread("t", "copy")
    copy, source = saver.threads()
    assert (copy.thread_id, copy.status, copy.size) == ("copy", source.status, source.size)
    assert copy.status == "unfinished"
    assert saver.notes("copy", INPUT) == [replace(note, thread_id="copy") for note in saver.notes("t", INPUT)] != []
    assert saver.verify() == []
