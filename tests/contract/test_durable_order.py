"""Durable order: what a task wrote is on disk before anyone builds on it, and a failed save stops the run."""

from __future__ import annotations

import asyncio
import operator
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, CheckpointTuple, create_checkpoint, empty_checkpoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from petal.checkpoints import open_checkpointer, order
from petal.checkpoints.notes import EFFECT, aput_note
from petal.checkpoints.order import TASK
from petal.checkpoints.recall import Recall
from petal.checkpoints.records import Save
from petal.checkpoints.rows import FENCE, HEAD, RUNTIME, Namespace
from petal.checkpoints.saver import PetalSaver
from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import CheckpointConflictError, CheckpointerUnavailableError

ON: RunnableConfig = {"configurable": {"thread_id": "t"}}
WAYS = ["first", "left", "right", "last"]
WORDS = [("log", ["word"]), ("ran", ["word"])]


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    ran: Annotated[list[str], operator.add]


class FullError(Exception):
    """A fault on purpose: the storage has no room."""


class StoppedError(BaseException):
    """A fault on purpose of the kind that no `except Exception` catches."""


class Commits:
    """What a store was given to write, which the test may slow down or have fail."""

    def __init__(self, saver: PetalSaver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.saves: list[Save] = []
        self.before: Callable[[Save], object] = lambda save: None
        commit = saver._engine.store.commit

        def commit_some(saves: Sequence[Save]) -> None:
            for save in saves:
                self.before(save)
            commit(saves)
            self.saves += saves

        monkeypatch.setattr(saver._engine.store, "commit", commit_some)
        monkeypatch.setattr(saver._engine.store, "is_immediate", False)  # what may be held up is written by a thread


def saver_of(agent: Agent) -> PetalSaver:
    assert isinstance(agent.checkpointer, PetalSaver)
    return agent.checkpointer


def is_written(save: Save) -> bool:
    """Whether it holds what a step of the test wrote, rather than LangGraph's own."""
    return any(row.channel == "log" for row in save.writes) and any(row.channel == "ran" for row in save.writes)


def full_for(wanted: Callable[[Save], bool]) -> Callable[[Save], object]:
    def before(save: Save) -> None:
        if wanted(save):
            raise FullError("no room")

    return before


def logging(ran: list[str]) -> list[Callable[[Log], Any]]:
    def node(name: str) -> Callable[[Log], Any]:
        def run(state: Log) -> Log:
            ran.append(name)
            return {"log": [name], "ran": [name]}

        return run

    return [node(name) for name in WAYS]


def forked(saver: Any, ran: list[str]) -> Agent:
    """first, then left and right at once, then last."""
    first, left, right, last = logging(ran)
    return (
        AgentFactory(Log)
        .add(first, "first")
        .with_condition(lambda state: ["left", "right"], {"left": "left", "right": "right"})
        .add(left, "left")
        .with_next("last")
        .add(right, "right")
        .add(last, "last")
        .with_checkpointer(saver)
        .build()
    )


async def test_what_tasks_wrote_is_written_no_later_than_the_checkpoint_that_holds_it(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with forked(storage, []) as agent:
        commits = Commits(saver_of(agent), monkeypatch)
        commits.before = lambda save: time.sleep(0.002)
        await agent.ainvoke({"log": []}, thread_id="t")
    written: dict[str, int] = {}
    for save in commits.saves:
        if save.checkpoint is None:
            if is_written(save):
                written[save.writes[0].checkpoint_id] = written.get(save.writes[0].checkpoint_id, 0) + 1
        elif save.checkpoint.step is not None and save.checkpoint.step > 0:
            expected = {1: 1, 2: 2, 3: 1}[save.checkpoint.step]
            assert save.checkpoint.parent_id is not None
            assert written[save.checkpoint.parent_id] == expected
    assert sorted(written.values()) == [1, 1, 2]


async def test_what_is_shown_is_on_disk(storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer of a stream sees a step's result after the database has it, a question too."""

    def ask(state: Log) -> Log:
        return {"log": [interrupt("Go on?")]}

    factory = AgentFactory(Log).add(logging([])[0], "first").add(ask).with_checkpointer(storage)
    async with factory.build() as agent:
        saver = saver_of(agent)
        Commits(saver, monkeypatch).before = lambda save: time.sleep(0.02)
        shown = []
        async for item in agent.astream({"log": ["in"]}, thread_id="t"):
            shown.append(item)
            kept = await saver.aget_tuple(ON)
            assert kept is not None
            if "first" in item:
                assert "first" in said(kept)
            else:
                assert kept.pending_writes is not None
                assert "__interrupt__" in [channel for _, channel, _ in kept.pending_writes]
        assert [list(item) for item in shown] == [["first"], ["__interrupt__"]]


def said(kept: CheckpointTuple) -> list[str]:
    """What a checkpoint and the writes on it say in the log."""
    pending = [word for _, channel, value in kept.pending_writes or () if channel == "log" for word in value]
    return [*kept.checkpoint["channel_values"].get("log", ()), *pending]


@pytest.mark.parametrize("fault", [is_written, lambda save: save.checkpoint is not None and save.checkpoint.step == 1])
async def test_a_failed_save_stops_the_run_before_the_next_step(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Save], bool]
) -> None:
    """Of a task's writes or of the checkpoint; once there is room, it goes on, and no finished step runs again."""
    ran: list[str] = []
    async with forked(storage, ran) as agent:
        commits = Commits(saver_of(agent), monkeypatch)
        commits.before = full_for(fault)
        with pytest.raises(FullError, match="no room"):
            await agent.ainvoke({"log": []}, thread_id="t")
        assert ran == ["first"]
        commits.before = lambda save: None
        thread = agent.thread("t")
        assert sorted((await thread.aresume())["log"]) == sorted(WAYS)
        assert sorted(ran) == sorted(WAYS)


async def test_a_failed_save_of_one_of_two_steps_at_once_stops_the_run(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is heard although the other one is saved, and what the other one did is kept."""
    ran: list[str] = []
    async with forked(storage, ran) as agent:
        commits = Commits(saver_of(agent), monkeypatch)
        seen: list[Save] = []

        def before(save: Save) -> None:
            if is_written(save):
                if save not in seen:
                    seen.append(save)
                if seen.index(save) == 2:  # of `right`, behind `first` and `left`
                    raise FullError("no room")

        commits.before = before
        with pytest.raises(FullError, match="no room"):
            await agent.ainvoke({"log": []}, thread_id="t")
        assert sorted(ran) == ["first", "left", "right"]
        commits.before = lambda save: None
        assert sorted((await agent.thread("t").aresume())["log"]) == sorted(WAYS)
        assert sorted(ran) == sorted(WAYS)


async def test_what_could_not_be_saved_is_not_shown(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    async with forked(storage, ran) as agent:
        Commits(saver_of(agent), monkeypatch).before = full_for(is_written)
        with pytest.raises(FullError):
            await anext(agent.astream({"log": []}, thread_id="t"))
        assert ran == ["first"]


async def test_an_answer_that_could_not_be_saved_stops_the_run(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(state: Log) -> Log:
        return {"log": [interrupt("Go on?")]}

    ran: list[str] = []
    factory = AgentFactory(Log).add(ask).add(logging(ran)[3], "last").with_checkpointer(storage)
    async with factory.build() as agent:
        await agent.ainvoke({"log": ["in"]}, thread_id="t")
        commits = Commits(saver_of(agent), monkeypatch)
        commits.before = full_for(lambda save: any(row.channel == "__resume__" for row in save.writes))
        with pytest.raises(FullError):
            await agent.thread("t").aresume("yes")
        assert ran == []


async def test_a_bare_graph_stops_too(storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    first, _, _, last = logging(ran)
    async with open_checkpointer(storage) as saver:
        await saver.aget_tuple(ON)
        commits = Commits(saver, monkeypatch)
        graph = StateGraph(Log).add_node("first", first).add_node("last", last)
        graph.add_edge(START, "first").add_edge("first", "last")
        compiled = graph.compile(checkpointer=saver)
        commits.before = full_for(is_written)
        with pytest.raises(FullError):
            await compiled.ainvoke({"log": []}, ON, durability="sync")
        assert ran == ["first"]
        commits.before = lambda save: None
        assert (await compiled.ainvoke(Command(update={"log": ["more"]}), ON, durability="sync"))["log"][-1] != "first"
        assert not saver.unsettled._by_thread


def on(loop: object, checkpoint_id: str | None = None, thread_id: str = "t") -> RunnableConfig:
    """The config of a save within a run."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_id": checkpoint_id, RUNTIME: loop}}


def test_a_checkpoint_waits_for_writes_of_another_thread(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangGraph's sync runs save from a pool of threads: the checkpoint is not answered before the writes are."""
    with open_checkpointer(storage) as saver, ThreadPoolExecutor() as pool:
        assert saver.threads() == []
        commits, begun, opened, loop = Commits(saver, monkeypatch), threading.Event(), threading.Event(), object()

        def before(save: Save) -> None:
            if is_written(save):
                begun.set()
                opened.wait()
                raise FullError("no room")

        commits.before = before
        first = empty_checkpoint()
        saver.put(on(loop), first, {"source": "input", "step": -1}, {})
        written = pool.submit(saver.put_writes, on(loop, first["id"]), WORDS, "task")
        begun.wait()
        second = create_checkpoint(first, {}, 0)
        put = pool.submit(saver.put, on(loop, first["id"]), second, {"source": "loop", "step": 0}, {})
        opened.set()
        with pytest.raises(FullError):
            put.result()
        with pytest.raises(FullError):
            written.result()


INPUT: CheckpointMetadata = {"source": "input", "step": -1}
LOOP: CheckpointMetadata = {"source": "loop", "step": 0}


def is_input(save: Save) -> bool:
    return save.checkpoint is not None and save.checkpoint.source == "input"


async def put_either(saver: PetalSaver, face: str, *args: Any) -> RunnableConfig:
    """By one of its two faces; the sync one on a thread, as LangGraph does."""
    return await (saver.aput(*args) if face == "async" else asyncio.to_thread(saver.put, *args))


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("cache_bytes", [64 * 2**20, 0], ids=["at hand", "not at hand"])
async def test_a_run_waits_for_its_input_with_its_first_step(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch, face: str, cache_bytes: int
) -> None:
    """LangGraph's loop waits for no save before that of START's step; the input is on disk no later than this."""
    async with open_checkpointer(storage) as saver:
        saver._recall = Recall(saver.rows, cache_bytes)
        assert await saver.aget_tuple(ON) is None
        commits, loop, opened = Commits(saver, monkeypatch), object(), threading.Event()
        commits.before = lambda save: opened.wait() if is_input(save) else None
        first = {**empty_checkpoint(), "channel_values": {"a": 1}, "channel_versions": {"a": 1}}
        await put_either(saver, face, on(loop), first, INPUT, {"a": 1})
        assert not commits.saves
        second = create_checkpoint(first, {}, 0)
        second["channel_values"] = {"a": 1}
        put = asyncio.create_task(put_either(saver, face, on(loop, first["id"]), second, LOOP, {}))
        await asyncio.sleep(0.05)
        assert not put.done()
        opened.set()
        await put
        assert [save.checkpoint.id for save in commits.saves if save.checkpoint] == [first["id"], second["id"]]
        assert not saver.unsettled._by_thread
        kept = await saver.aget_tuple(ON)
        assert kept is not None
        assert kept.parent_config is not None
        assert kept.checkpoint["channel_values"] == {"a": 1}


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("when", ["before the next begins", "with the next"])
@pytest.mark.parametrize("fault", [FullError, StoppedError])
async def test_behind_an_input_that_could_not_be_saved_nothing_is(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch, face: str, when: str, fault: type[BaseException]
) -> None:
    async with open_checkpointer(storage) as saver:
        assert await saver.aget_tuple(ON) is None
        commits, loop, opened = Commits(saver, monkeypatch), object(), threading.Event()

        def before(save: Save) -> None:
            if is_input(save):
                opened.wait()
                raise fault("no room")

        commits.before = before
        first = empty_checkpoint()
        await put_either(saver, face, on(loop), first, INPUT, {})
        if when == "before the next begins":
            opened.set()
            await asyncio.to_thread(saver._engine.journal.flush)
        second = create_checkpoint(first, {}, 0)
        put = asyncio.create_task(put_either(saver, face, on(loop, first["id"]), second, LOOP, {}))
        await asyncio.sleep(0.05)
        opened.set()
        with pytest.raises(fault, match="no room"):
            await put
        assert not commits.saves
        assert await saver.aget_tuple(ON) is None
        assert not saver.unsettled._by_thread


async def test_an_input_behind_which_another_run_came_stops_the_run(storage: CheckpointerConfig) -> None:
    async with open_checkpointer(storage) as saver:
        old, loop = empty_checkpoint(), object()
        head = create_checkpoint(old, {}, 0)
        await saver.aput(await saver.aput(ON, old, LOOP, {}), head, LOOP, {})
        first = create_checkpoint(old, {}, 1)
        stale = on(loop, old["id"])
        stale["configurable"][FENCE] = HEAD
        await saver.aput(stale, first, INPUT, {})
        second = create_checkpoint(first, {}, 2)
        with pytest.raises(CheckpointConflictError):
            await saver.aput(on(loop, first["id"]), second, LOOP, {})
        kept = await saver.aget_tuple(ON)
        assert kept is not None
        assert kept.checkpoint["id"] == head["id"]


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_whoever_waits_for_an_input_has_it_on_disk(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch, face: str
) -> None:
    """A caller that is no run, and a node that changes the state of another thread; neither waits for company."""
    async with open_checkpointer(storage) as saver:
        assert await saver.aget_tuple(ON) is None
        saver._engine.journal._linger = 60
        commits = Commits(saver, monkeypatch)
        commits.before = lambda save: time.sleep(0.02)
        within = on(object(), thread_id="other")
        within["configurable"][TASK] = "a task of this run"
        for number, config in enumerate((ON, within), 1):
            await asyncio.wait_for(put_either(saver, face, config, empty_checkpoint(), INPUT, {}), 30)
            assert len(commits.saves) == number


async def test_an_input_of_a_saver_that_was_not_opened_yet_is_waited_for(storage: CheckpointerConfig) -> None:
    async with open_checkpointer(storage) as saver:
        first = empty_checkpoint()
        await saver.aput(on(object()), first, INPUT, {})
        assert not saver.unsettled._by_thread
        assert await saver.aget_tuple(ON) is not None


async def test_a_closed_saver_takes_no_input(storage: CheckpointerConfig) -> None:
    async with open_checkpointer(storage) as saver:
        assert await saver.aget_tuple(ON) is None
    with pytest.raises(CheckpointerUnavailableError, match="closed"):
        await saver.aput(on(object()), empty_checkpoint(), INPUT, {})
    assert not saver.unsettled._by_thread


def test_only_the_run_whose_writes_failed_hears_of_it(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was cut off in the middle of its failure leaves nothing that stops a later one."""
    with open_checkpointer(storage) as saver:
        assert saver.threads() == []
        commits, lost, later = Commits(saver, monkeypatch), object(), object()
        first = empty_checkpoint()
        saver.put(on(lost), first, {"source": "input", "step": -1}, {})
        commits.before = full_for(is_written)
        for number in range(order.REMEMBERED + 2):
            with pytest.raises(FullError):
                saver.put_writes(on(lost, first["id"], f"t{number % 2 or ''}"), WORDS, "task")
        kept = [write for writes in saver.unsettled._by_thread.values() for write in writes]
        assert len(kept) == order.REMEMBERED
        second = create_checkpoint(first, {}, 0)
        saver.put(on(later, first["id"]), second, {"source": "loop", "step": 0}, {})
        with pytest.raises(FullError):
            saver.put(on(lost, first["id"]), create_checkpoint(first, {}, 0), {"source": "loop", "step": 0}, {})
        assert "t" not in saver.unsettled._by_thread


async def test_notes_and_saves_of_no_run_are_told_to_their_caller_alone(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_checkpointer(storage) as saver:
        first, loop = empty_checkpoint(), object()
        config = await saver.aput(on(loop), first, {"source": "input", "step": -1}, {})
        await aput_note(saver, on(loop, first["id"]), EFFECT, "value", "earlier")
        Commits(saver, monkeypatch).before = full_for(lambda save: bool(save.writes))
        with pytest.raises(FullError):
            await aput_note(saver, on(loop, first["id"]), EFFECT, "value", "key")
        with pytest.raises(FullError):
            await saver.aput_writes(config, WORDS, "task")
        assert not saver.unsettled._by_thread


async def being_saved(
    saver: PetalSaver, monkeypatch: pytest.MonkeyPatch
) -> tuple[RunnableConfig, asyncio.Task[None], threading.Event]:
    """What a task wrote, on its way to the disk, which it reaches once the event is set; and where it belongs."""
    first, loop, opened = empty_checkpoint(), object(), threading.Event()
    await saver.aput(on(loop), first, {"source": "input", "step": -1}, {})
    Commits(saver, monkeypatch).before = lambda save: opened.wait() if is_written(save) else None
    config = on(loop, first["id"])
    writes = asyncio.create_task(saver.aput_writes(config, WORDS, "task"))
    await asyncio.sleep(0)
    return config, writes, opened


async def test_a_cancelled_save_is_no_failure(storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_checkpointer(storage) as saver:
        config, writes, opened = await being_saved(saver, monkeypatch)
        settled = asyncio.create_task(saver.unsettled.asettle(Namespace("t", ""), config))
        await asyncio.sleep(0)
        writes.cancel()
        opened.set()
        await settled
        with pytest.raises(asyncio.CancelledError):
            await writes
        assert not saver.unsettled._by_thread


async def test_who_waits_for_a_save_may_be_cancelled(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_checkpointer(storage) as saver:
        config, writes, opened = await being_saved(saver, monkeypatch)
        impatient, patient = (
            asyncio.create_task(saver.unsettled.asettle(Namespace("t", ""), config)) for _ in range(2)
        )
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        opened.set()
        await patient
        await writes
        assert not saver.unsettled._by_thread


async def test_a_misspelt_durability_is_refused(storage: CheckpointerConfig) -> None:
    """LangGraph takes any word, and then waits for no save."""
    factory = AgentFactory(Log).add(lambda state: {"log": ["first"]}, "first").with_checkpointer(storage)
    async with factory.build() as agent:
        with pytest.raises(ValueError, match="durability is 'sync', 'async' or 'exit', not 'snyc'"):
            await agent.thread("t").ainvoke({"log": []}, durability="snyc")
        with pytest.raises(ValueError, match="durability is"):
            async for _ in agent.astream({"log": []}, thread_id="t", durability="snyc"):  # type: ignore[arg-type]
                pass
        assert (await agent.thread("t").astate()).values == {}
