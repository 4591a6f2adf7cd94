"""One run a thread: runs wait, are refused, stopped or rolled back; whatever comes between is refused, never lost."""

from __future__ import annotations

import asyncio
import operator
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base import id as ids
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, interrupt

import petal
from petal.checkpoints import clock, leases, open_checkpointer
from petal.checkpoints.leases import STOP, Lease
from petal.checkpoints.notes import INPUT, aput_note
from petal.checkpoints.records import Beat, Claim, LeaseRow, Reader, Save
from petal.checkpoints.rewinding import arewind
from petal.checkpoints.saver import PetalSaver
from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import (
    CheckpointConflictError,
    CheckpointerError,
    CheckpointerUnavailableError,
    NothingToResumeError,
    PendingInterruptError,
    RunStoppedError,
    ThreadBusyError,
)


class Log(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


class Gate:
    """A step of a run that waits until it is let through, and says when it is reached."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, state: Log) -> Log:
        self.reached.set()
        await self.opened.wait()
        return {"log": ["through"]}


def last(state: Log) -> Log:
    return {"log": ["last"]}


def gated(saver: CheckpointerConfig | BaseCheckpointSaver[Any], gate: Callable[[Log], Any]) -> Agent:
    return AgentFactory(Log).add(gate, "gate").add(last).with_checkpointer(saver).build()


async def waiting(agent: Agent, count: int, thread_id: str = "t") -> None:
    """Returns when so many runs have the thread or wait for it."""
    assert isinstance(agent.checkpointer, PetalSaver)
    engine = agent.checkpointer._engine

    async def come() -> bool:
        return len(await engine.aread(lambda reader: reader.leases(thread_id))) >= count

    await until(come)


async def until(holds: Callable[[], Any]) -> None:
    """Returns when it is so."""
    for _ in range(4000):
        found = holds()
        if await found if asyncio.iscoroutine(found) else found:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{holds} never held")


async def test_runs_on_one_thread_take_turns_in_the_order_of_arrival(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent:
        runs = []
        for number in range(4):
            runs.append(asyncio.create_task(agent.ainvoke({"log": [number]}, thread_id="t")))
            await waiting(agent, number + 1)
        gate.opened.set()
        log = (await asyncio.gather(*runs))[-1]["log"]
    assert log == [word for number in range(4) for word in (number, "through", "last")]


async def test_threads_do_not_wait_for_each_other(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent, asyncio.TaskGroup() as runs:
        first = runs.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        gate.reached.clear()
        runs.create_task(agent.ainvoke({"log": [2]}, thread_id="u"))
        await gate.reached.wait()
        assert not first.done()
        gate.opened.set()


async def test_a_run_that_does_not_wait_is_refused(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent, asyncio.TaskGroup() as runs:
        runs.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        with pytest.raises(ThreadBusyError, match="nothing was run") as refused:
            await agent.ainvoke({"log": [2]}, thread_id="t", on_conflict="reject")
        assert refused.value.waited == 0
        with pytest.raises(ThreadBusyError, match=r"after 0\.05 s"):
            await agent.ainvoke({"log": [2]}, thread_id="t", conflict_timeout=0.05)
        with pytest.raises(ThreadBusyError):
            async for _ in agent.astream({"log": [2]}, thread_id="t", on_conflict="reject"):
                pass
        with pytest.raises(ValueError, match="on_conflict is 'wait'"):
            await agent.ainvoke({"log": [2]}, thread_id="t", on_conflict="push")  # type: ignore[arg-type]
        gate.opened.set()
    async with gated(storage, gate) as agent:
        if storage.type != "memory":
            assert (await agent.thread("t").astate()).values["log"] == [1, "through", "last"]


async def test_the_checkpointer_says_what_runs_do_that_do_not(storage: CheckpointerConfig) -> None:
    config = storage.model_copy(update={"config": {**(storage.config or {}), "on_conflict": "reject"}})
    gate = Gate()
    async with gated(config, gate) as agent, asyncio.TaskGroup() as runs:
        runs.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        with pytest.raises(ThreadBusyError):
            await agent.ainvoke({"log": [2]}, thread_id="t")
        gate.opened.set()


@pytest.mark.parametrize("how", ["interrupt", "rollback"])
async def test_a_later_run_stops_the_one_that_runs_and_goes_next(storage: CheckpointerConfig, how: Any) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent:
        first = asyncio.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        patient = asyncio.create_task(agent.ainvoke({"log": [2]}, thread_id="t"))
        await waiting(agent, 2)
        urgent = asyncio.create_task(agent.ainvoke({"log": [3]}, thread_id="t", on_conflict=how))
        await waiting(agent, 3)
        assert isinstance(agent.checkpointer, PetalSaver)
        holder = agent.checkpointer.leases._mine[_holder(agent.checkpointer)]
        await until(lambda: holder.wish)
        gate.opened.set()
        with pytest.raises(RunStoppedError, match="removed" if how == "rollback" else "kept") as stopped:
            await first
        assert stopped.value.rolled_back == (how == "rollback")
        kept = [1, "through"] if how == "interrupt" else []
        assert (await urgent)["log"] == [*kept, 3, "through", "last"]
        assert (await patient)["log"] == [*kept, 3, "through", "last", 2, "through", "last"]


async def test_a_branch_that_is_rolled_back_leaves_nothing(storage: CheckpointerConfig) -> None:
    """Not even what it repeated for graphs within to begin where they were."""
    gate = Gate()
    gate.opened.set()
    keeping = StateGraph(Log).add_node(last).add_edge(START, "last").compile(checkpointer=True)
    async with AgentFactory(Log).add(gate, "gate").add(keeping, "keeping").with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"log": [1]})
        early = (await thread.astate()).config["configurable"]["checkpoint_id"]
        log = (await thread.ainvoke({"log": [2]}))["log"]
        saver = agent.checkpointer
        assert isinstance(saver, PetalSaver)
        before = await saver.acheckpoints("t", ns=None)

        gate.opened.clear()
        gate.reached.clear()
        first = asyncio.create_task(thread.ainvoke({"log": [3]}, checkpoint_id=early))
        await gate.reached.wait()
        assert len(await saver.acheckpoints("t", ns=None)) > len(before)
        urgent = asyncio.create_task(thread.ainvoke({"log": [4]}, on_conflict="rollback"))
        await until(lambda: saver.leases._mine[_holder(saver)].wish)
        gate.opened.set()
        with pytest.raises(RunStoppedError):
            await first
        assert (await urgent)["log"][: len(log) + 1] == [*log, 4]
        assert (await saver.acheckpoints("t", ns=None))[-len(before) :] == before
        assert len(await thread.alines()) == 1


async def rolled_back(agent: Agent, first: asyncio.Task[Any], gate: Gate) -> None:
    """Returns when a run that waits at a gate has ended, since a later one asked for its removal."""
    assert isinstance(agent.checkpointer, PetalSaver)
    await waiting(agent, 2)
    holder = agent.checkpointer.leases._mine[_holder(agent.checkpointer)]
    await until(lambda: holder.wish)
    gate.opened.set()
    await asyncio.wait([first])
    gate.opened.clear()
    gate.reached.clear()


def sure(state: Log) -> Log:
    petal.step("look", str, "here")
    return {"log": [petal.step("say", str, interrupt("Sure?"))]}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_rollback_opens_the_question_that_the_run_answered(
    storage: CheckpointerConfig, durability: Any
) -> None:
    """Also another time, and for the answer of the run that comes then. What its step recorded is gone too.

    What was there before the run stays: what the step had recorded then, and a question of an earlier turn.
    """
    gate = Gate()
    factory = AgentFactory(Log).add(sure).add(gate, "gate").add(last).with_checkpointer(storage)
    async with factory.build() as agent:
        thread = agent.thread("t")
        gate.opened.set()
        await thread.ainvoke({"log": [0]})
        await thread.aresume("earlier")
        gate.opened.clear()
        gate.reached.clear()
        await thread.ainvoke({"log": [1]}, durability=durability)
        before, called = await thread.astate(), await thread.atool_calls()
        for answer in "yes", "maybe":
            first = asyncio.create_task(thread.aresume(answer, durability=durability))
            await gate.reached.wait()
            urgent = asyncio.create_task(thread.ainvoke({"log": [2]}, on_conflict="rollback"))
            await rolled_back(agent, first, gate)
            with pytest.raises(RunStoppedError, match="removed"):
                await first
            with pytest.raises(PendingInterruptError):
                await urgent
            state = await thread.astate()
            assert (state.config, state.values, state.tasks) == (before.config, before.values, before.tasks)
            assert [question.value for question in await thread.ainterrupts()] == ["Sure?"]
            assert await thread.atool_calls() == called
            assert isinstance(agent.checkpointer, PetalSaver)
            assert [info.status for info in agent.checkpointer.threads()] == ["waiting"]
            assert agent.checkpointer.verify() == []
        first = asyncio.create_task(thread.aresume("again", durability=durability))
        await gate.reached.wait()
        urgent = asyncio.create_task(thread.aresume("no", on_conflict="rollback"))
        await rolled_back(agent, first, gate)
        gate.opened.set()
        with pytest.raises(RunStoppedError):
            await first
        assert (await urgent)["log"] == [0, "earlier", "through", "last", 1, "no", "through", "last"]


async def test_a_rollback_opens_questions_beside_each_other_and_within_graphs(storage: CheckpointerConfig) -> None:
    """One run asks again in one branch, and waits in another; a graph within asks too."""
    gate = Gate()

    def twice(state: Log) -> Log:
        return {"log": [f"{interrupt('One?')} {interrupt('Two?')}"]}

    async def once(state: Log) -> Log:
        answer = interrupt("Three?")
        return {"log": [answer, *(await gate(state))["log"]]}

    inner = StateGraph(Log)
    inner.add_node("within", once)
    inner.add_edge(START, "within")
    graph = StateGraph(Log)
    graph.add_node("twice", twice)
    graph.add_node("inner", inner.compile())
    graph.add_edge(START, "twice")
    graph.add_edge(START, "inner")
    async with gated(storage, gate) as agent:
        agent.graph = graph.compile(checkpointer=agent.graph.checkpointer)
        thread = agent.thread("t")
        await thread.ainvoke({"log": [1]})
        asked = {question.value: question.id for question in await thread.ainterrupts()}
        answers = {asked["One?"]: "one", asked["Three?"]: "three"}
        first = asyncio.create_task(thread.aresume(answers))
        await gate.reached.wait()
        urgent = asyncio.create_task(thread.ainvoke({"log": [2]}, on_conflict="rollback"))
        await rolled_back(agent, first, gate)
        with pytest.raises(PendingInterruptError):
            await urgent
        assert {question.value: question.id for question in await thread.ainterrupts()} == asked
        gate.opened.set()
        await thread.aresume(answers)
        assert [question.value for question in await thread.ainterrupts()] == ["Two?"]
        assert (await thread.aresume("two"))["log"] == [1, 1, "three", "through", "one two"]


def _holder(saver: PetalSaver) -> str:
    found: list[LeaseRow] = saver._engine.read(lambda reader: reader.leases("t"))
    return found[0].owner


async def test_a_stream_has_its_thread_until_it_is_closed(storage: CheckpointerConfig) -> None:
    async with gated(storage, last) as agent:
        stream = agent.astream({"log": [1]}, thread_id="t")
        assert await anext(stream) == {"gate": {"log": ["last"]}}
        with pytest.raises(ThreadBusyError):
            await agent.ainvoke({"log": [2]}, thread_id="t", on_conflict="reject")
        await stream.aclose()
        assert (await agent.ainvoke({"log": [2]}, thread_id="t", on_conflict="reject"))["log"][-3:] == [
            2,
            "last",
            "last",
        ]


async def test_changes_of_a_thread_wait_for_its_run(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent:
        thread = agent.thread("t")
        await thread.aupdate({"log": [0]})
        first = asyncio.create_task(thread.ainvoke({"log": [1]}))
        await gate.reached.wait()
        change = asyncio.create_task(thread.aupdate({"log": ["changed"]}))
        await waiting(agent, 2)
        back = asyncio.create_task(thread.arewind())
        await waiting(agent, 3)
        gate.opened.set()
        assert (await first)["log"] == [0, 1, "through", "last"]
        await change
        assert (await back).values == {"log": [0]}
        assert (await thread.ahistory())[1].values["log"] == [0, 1, "through", "last", "changed"]
        await thread.adelete()
        assert (await thread.astate()).created_at is None


async def test_a_step_cannot_run_its_own_thread(storage: CheckpointerConfig) -> None:
    async def again(state: Log) -> Log:
        return await agent.ainvoke({"log": ["inner"]}, thread_id="t")  # type: ignore[no-any-return]

    async with gated(storage, again) as agent:
        with pytest.raises(ThreadBusyError, match="own thread 't'"):
            await agent.ainvoke({"log": [1]}, thread_id="t")


async def test_a_drain_of_the_callers_own_is_told_as_langgraph_tells_it() -> None:
    gate, control = Gate(), RunControl()
    async with gated(CheckpointerConfig(), gate) as agent:
        run = asyncio.create_task(agent.ainvoke({"log": [1]}, thread_id="t", control=control))
        await gate.reached.wait()
        control.request_drain("enough")
        gate.opened.set()
        with pytest.raises(GraphDrained, match="enough"):
            await run


async def test_runs_of_savers_without_leases_take_turns_within_a_process() -> None:
    gate = Gate()
    async with gated(InMemorySaver(), gate) as agent:
        first = asyncio.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        second = asyncio.create_task(agent.ainvoke({"log": [2]}, thread_id="t", on_conflict="interrupt"))
        await asyncio.sleep(0.1)
        gate.opened.set()
        with pytest.raises(RunStoppedError):
            await first
        assert (await second)["log"] == [1, "through", 2, "through", "last"]
        with pytest.raises(CheckpointerError, match="InMemorySaver cannot remove what a run saved"):
            await agent.ainvoke({"log": [3]}, thread_id="t", on_conflict="rollback")


async def test_a_run_that_lost_its_lease_saves_nothing_more(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent:
        first = asyncio.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        assert isinstance(agent.checkpointer, PetalSaver)
        engine = agent.checkpointer._engine
        [lease] = await engine.aread(lambda reader: reader.leases("t"))
        await engine.later(lambda: engine.change(lambda change: change.revoke(lease)))
        second = asyncio.create_task(agent.ainvoke({"log": [2]}, thread_id="t"))
        gate.opened.set()
        with pytest.raises(CheckpointConflictError, match="no longer has thread 't'"):
            await first
        assert (await second)["log"] == [1, 2, "through", "last"]


async def test_whoever_was_taken_for_dead_while_it_waited_comes_in_again(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent:
        first = asyncio.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        second = asyncio.create_task(agent.ainvoke({"log": [2]}, thread_id="t"))
        await waiting(agent, 2)
        assert isinstance(agent.checkpointer, PetalSaver)
        engine = agent.checkpointer._engine
        [_, lease] = await engine.aread(lambda reader: reader.leases("t"))
        await engine.later(lambda: engine.change(lambda change: change.revoke(lease)))
        await waiting(agent, 2)
        gate.opened.set()
        await first
        assert (await second)["log"][-3:] == [2, "through", "last"]


async def test_a_dead_process_lets_go_of_its_threads(
    durable_storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two savers stand for two processes, one of which gives no sign of life after its first one."""
    gate = Gate()
    monkeypatch.setattr(leases, "BELIEVED", 0.3)
    monkeypatch.setattr(leases, "PULSE", 0.1)
    async with gated(durable_storage, gate) as dead, gated(durable_storage, last) as alive:
        assert isinstance(dead.checkpointer, PetalSaver)
        monkeypatch.setattr(dead.checkpointer.leases, "_keep_alive", lambda: None)
        first = asyncio.create_task(dead.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        rolled_back = await alive.ainvoke({"log": [2]}, thread_id="t", on_conflict="rollback")
        assert rolled_back["log"] == [2, "last", "last"]
        gate.opened.set()
        with pytest.raises(CheckpointConflictError, match="no longer has"):
            await first
        assert (await alive.thread("t").astate()).values["log"] == [2, "last", "last"]


async def test_another_process_asks_a_run_to_stop(durable_storage: CheckpointerConfig) -> None:
    """Two savers stand for two processes, which hear of each other through the database alone."""
    gate = Gate()
    async with gated(durable_storage, gate) as one, gated(durable_storage, last) as other:
        first = asyncio.create_task(one.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        second = asyncio.create_task(other.ainvoke({"log": [2]}, thread_id="t", on_conflict="interrupt"))
        assert isinstance(one.checkpointer, PetalSaver)
        [lease] = one.checkpointer.leases._mine.values()
        await until(lambda: lease.wish)
        gate.opened.set()
        with pytest.raises(RunStoppedError):
            await first
        assert (await second)["log"] == [1, "through", 2, "last", "last"]


async def test_a_release_that_failed_is_made_again(
    storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gated(storage, last) as agent:
        assert isinstance(agent.checkpointer, PetalSaver)
        mine, post = agent.checkpointer.leases, agent.checkpointer._engine.post
        monkeypatch.setattr(mine._engine, "post", lambda save, then: then(CheckpointerError("not now")))
        await agent.ainvoke({"log": [1]}, thread_id="t")
        assert [release.thread_id for release in mine._unreleased] == ["t"]
        monkeypatch.setattr(mine._engine, "post", post)
        assert (await agent.ainvoke({"log": [2]}, thread_id="t"))["log"][-3:] == [2, "last", "last"]
        assert mine._unreleased == []


async def test_a_heart_that_cannot_reach_the_database_beats_on(
    durable_storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    async with gated(durable_storage, gate) as agent:
        run = asyncio.create_task(agent.ainvoke({"log": [1]}, thread_id="t"))
        await gate.reached.wait()
        assert isinstance(agent.checkpointer, PetalSaver)
        mine, read = agent.checkpointer.leases, agent.checkpointer._engine.read

        def broken(ask: Callable[[Reader], Any]) -> Any:
            raise CheckpointerUnavailableError("here", "it is gone", "Wait")

        monkeypatch.setattr(mine._engine, "read", broken)
        assert mine._beat_once()
        assert "No sign of life could be given: here: it is gone" in caplog.text
        monkeypatch.setattr(mine._engine, "read", read)
        gate.opened.set()
        await run
    assert not mine._beat_once()


async def test_that_a_process_of_this_machine_has_ended_is_seen_at_once(storage: CheckpointerConfig) -> None:
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await ended.wait()
    async with gated(storage, last) as agent:
        assert (await agent.ainvoke({"log": [0]}, thread_id="t"))["log"] == [0, "last", "last"]
        assert isinstance(agent.checkpointer, PetalSaver)
        engine, home = agent.checkpointer._engine, leases._home()
        gone, foreign = f"x {home} {ended.pid}", f"y elsewhere {ended.pid}"
        await engine.asave(Save(turn=Beat(gone, 60)))
        await engine.asave(Save(turn=Beat(foreign, 60)))
        await engine.asave(Save(turn=Claim("t", "ended", gone, "run", is_urgent=False)))
        await engine.asave(Save(turn=Claim("u", "elsewhere", foreign, "run", is_urgent=False)))
        assert len((await agent.ainvoke({"log": [1]}, thread_id="t"))["log"]) == 6
        with pytest.raises(ThreadBusyError):
            await agent.ainvoke({"log": [1]}, thread_id="u", conflict_timeout=0.05)


def test_a_process_of_somebody_else_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(leases.os, "kill", refuse)
    assert not leases._is_dead(LeaseRow("t", "o", f"x {leases._home()} 1", "run"))


def test_without_linux_the_name_of_the_machine_says_where_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(leases.os, "readlink", missing)
    monkeypatch.setattr(leases.socket, "gethostname", lambda: "my machine")
    assert leases._home.__wrapped__() == "mymachine"


async def test_the_input_of_a_run_is_kept_until_it_has_ended(storage: CheckpointerConfig) -> None:
    """Where its first checkpoint may come late. Whoever resumes then finds it, once."""
    gate = Gate()
    async with gated(storage, gate) as agent:
        run = asyncio.create_task(agent.ainvoke({"log": [1]}, thread_id="t", durability="exit"))
        await gate.reached.wait()
        saver = agent.checkpointer
        assert isinstance(saver, PetalSaver)
        [kept] = await saver.anotes("t", INPUT)
        assert kept.value["input"] == {"log": [1]}
        gate.opened.set()
        await run
        await until(lambda: not saver.notes("t", INPUT))

        id = await leave(saver, 2)
        assert (await agent.thread("t").aresume())["log"] == [1, "through", "last", 2, "through", "last"]
        await until(lambda: not saver.notes("t", INPUT))
        # As if the process had ended between the last save and the release of the thread.
        for taken in id, kept.checkpoint_id:
            await leave(saver, 3, taken)
            with pytest.raises(NothingToResumeError):
                await agent.thread("t").aresume()
            await until(lambda: not saver.notes("t", INPUT))


async def test_new_input_takes_the_place_of_one_whose_run_died(storage: CheckpointerConfig) -> None:
    async with gated(storage, last) as agent:
        saver = agent.checkpointer
        assert isinstance(saver, PetalSaver)
        place: Any = {"configurable": {"thread_id": "t", "checkpoint_id": str(uuid6())}}
        await aput_note(saver, place, INPUT, {"run": "killed", "input": {"log": ["old"]}}, "input")
        await agent.ainvoke({"log": ["new"]}, thread_id="t")
        assert [told async for told in agent.arecover(thread_id="t")] == []
        with pytest.raises(NothingToResumeError):
            await agent.thread("t").aresume()
        assert (await agent.thread("t").astate()).values["log"] == ["new", "last", "last"]
        await until(lambda: not saver.notes("t", INPUT))


async def test_a_rollback_takes_the_input_of_a_run_that_died_too(storage: CheckpointerConfig) -> None:
    async with gated(storage, last) as agent:
        saver = agent.checkpointer
        assert isinstance(saver, PetalSaver)
        place: Any = {"configurable": {"thread_id": "t", "checkpoint_id": str(uuid6())}}
        for run in "removed", "other":
            await aput_note(saver, place, INPUT, {"run": run, "input": {"log": [run]}}, run)
            place["configurable"]["checkpoint_id"] = str(uuid6())
        await saver.aroll_back("t", [LeaseRow("t", "owner", "process", "removed")])
        assert [note.value["run"] for note in saver.notes("t", INPUT)] == ["other"]


async def test_only_a_save_of_its_own_tells_that_a_run_holds_what_it_took_up() -> None:
    """One that comes through when its run is over concerns no other run."""
    runs = leases.Leases.in_memory()
    async with runs.held("t", "run", "wait", 1) as lease:
        lease.leaves_input = True
        runs.has_saved("another")
        assert lease.leaves_input
        runs.has_saved(lease.owner)
        assert not lease.leaves_input
    runs.close()


async def leave(saver: PetalSaver, number: int, id: str | None = None) -> str:
    """An input whose run died before its first checkpoint, and where it is kept."""
    id = id or str(uuid6())
    place: Any = {"configurable": {"thread_id": "t", "checkpoint_id": id}}
    await aput_note(saver, place, INPUT, {"run": "killed", "input": {"log": [number]}}, "input")
    return id


async def test_nobody_is_given_a_thread_out_of_turn(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with gated(storage, gate) as agent:
        runs = []
        for number in range(3):
            runs.append(asyncio.create_task(agent.ainvoke({"log": [number]}, thread_id="t")))
            await waiting(agent, number + 1)
        assert isinstance(agent.checkpointer, PetalSaver)
        engine = agent.checkpointer._engine
        [_, second, third] = await engine.aread(lambda reader: reader.leases("t"))
        for lease in second, third:
            await engine.later(lambda lease=lease: engine.change(lambda change: leases._pass_on(change, lease)))  # type: ignore[misc]
        assert [lease.holds for lease in await engine.aread(lambda reader: reader.leases("t"))] == [True, False, False]
        gate.opened.set()
        await asyncio.gather(*runs)


def test_whose_loop_has_ended_is_not_woken() -> None:
    loop, woken = asyncio.new_event_loop(), asyncio.Event()
    loop.close()
    leases._wake(loop, woken)
    assert not woken.is_set()


def test_a_wish_is_heard_once_and_by_whoever_listens_late() -> None:
    heard: list[str] = []
    lease = Lease("t", "owner", "run")
    lease.hear(STOP)
    lease.hear("roll back")
    lease.on_wish(lambda: heard.append(lease.wish))
    assert heard == [STOP]


async def test_a_claim_on_a_closed_database_says_so(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage) as saver:
        assert saver.threads() == []
    with pytest.raises(CheckpointerUnavailableError):
        async with saver.leases.held("t", "run", "wait", 1):
            raise AssertionError


# The fence: where no lease is held.


def bare(saver: BaseCheckpointSaver[Any], gate: Callable[[Log], Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Log)
    graph.add_node("gate", gate)
    graph.add_node("last", last)
    graph.add_edge(START, "gate")
    graph.add_edge("gate", "last")
    return graph.compile(checkpointer=saver)


ON: Any = {"configurable": {"thread_id": "t"}}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("is_new", [True, False])
async def test_of_two_bare_runs_on_one_thread_one_is_refused(
    storage: CheckpointerConfig, durability: Any, is_new: bool
) -> None:
    gate = Gate()
    async with open_checkpointer(storage) as saver:
        slow, fast = bare(saver, gate), bare(saver, last)
        if not is_new:
            await fast.ainvoke({"log": [0]}, ON, durability=durability)
        before = (await slow.aget_state(ON)).values.get("log", [])
        first = asyncio.create_task(slow.ainvoke({"log": [1]}, ON, durability=durability))
        await gate.reached.wait()
        saved = [] if durability == "exit" else [1]

        async def is_saved() -> bool:
            return durability == "exit" or (await slow.aget_state(ON)).next == ("gate",)

        await until(is_saved)
        await fast.ainvoke({"log": [2]}, ON, durability=durability)
        gate.opened.set()
        with pytest.raises(CheckpointConflictError, match="Another run changed thread 't'"):
            await first
        assert (await slow.aget_state(ON)).values["log"] == [*before, *saved, 2, "last", "last"]


async def test_a_run_that_named_its_checkpoint_is_a_fork_and_passes(storage: CheckpointerConfig) -> None:
    async with open_checkpointer(storage) as saver:
        graph = bare(saver, last)
        await graph.ainvoke({"log": [1]}, ON)
        middle = [state async for state in graph.aget_state_history(ON)][1]
        head = await graph.aget_state(ON)
        await graph.ainvoke({"log": [2]}, ON)
        assert (await graph.ainvoke(None, middle.config))["log"] == [1, "last", "last"]
        assert (await graph.ainvoke({"log": [3]}, head.config))["log"] == [1, "last", "last", 3, "last", "last"]
        await graph.aupdate_state(middle.config, {"log": ["edited"]})
        await graph.aupdate_state(head.config, {"log": ["edited"]})
        assert (await graph.aget_state(ON)).values["log"] == [1, "last", "last", "edited"]


@pytest.mark.parametrize("engine", ["petal", "langgraph"])
def test_a_machine_whose_clock_is_behind_goes_on_from_what_another_one_saved(
    durable_storage: CheckpointerConfig, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangGraph's ids begin with the time, and the greatest is the newest: so time goes on from the latest known."""

    def a_machine(seconds: int) -> Agent:
        monkeypatch.setattr(ids, "_last_v6_timestamp", None)
        monkeypatch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + seconds * 10**9))
        config = {**(durable_storage.config or {}), "engine": engine}
        return gated(CheckpointerConfig(type=durable_storage.type, config=config), last)

    with a_machine(60) as ahead:
        ahead.invoke({"log": [1]}, thread_id="t")
        ahead.thread("t").name_branch("there")
        earlier = ahead.thread("t").state().config["configurable"]["checkpoint_id"]
    with a_machine(0) as behind:
        assert behind.invoke({"log": [2]}, thread_id="t")["log"] == [1, "last", "last", 2, "last", "last"]
        assert behind.thread("t").state().values["log"][-3:] == [2, "last", "last"]
    with a_machine(0) as behind:
        behind.thread("t").drop_branch("there")
        assert behind.thread("t").branches() == []
    with a_machine(0) as behind:
        assert behind.checkpointer is not None
        asyncio.run(arewind(behind.checkpointer, {"configurable": {"thread_id": "t"}}, earlier))
        assert behind.thread("t").state().values["log"] == [1, "last", "last"]


def test_an_id_that_tells_no_time_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    for id in "1", str(uuid4()), "ffffffff-ffff-6fff-8fff-ffffffffffff", str(uuid6()):
        monkeypatch.setattr(ids, "_last_v6_timestamp", None)
        clock.follow(id)
        assert ids._last_v6_timestamp is None


async def test_an_update_during_a_bare_run_refuses_the_run(storage: CheckpointerConfig) -> None:
    gate = Gate()
    async with open_checkpointer(storage) as saver:
        graph = bare(saver, gate)
        run = asyncio.create_task(graph.ainvoke({"log": [1]}, ON, durability="sync"))
        await gate.reached.wait()
        await graph.aupdate_state(ON, {"log": ["edited"]}, as_node="last")
        gate.opened.set()
        with pytest.raises(CheckpointConflictError):
            await run
        assert (await graph.aget_state(ON)).values["log"] == [1, "edited"]


async def test_a_bare_run_that_is_asked_and_answered_passes(storage: CheckpointerConfig) -> None:
    def ask(state: Log) -> Log:
        return {"log": [interrupt("Which?")]}

    async with open_checkpointer(storage) as saver:
        graph = bare(saver, ask)
        await graph.ainvoke({"log": [1]}, ON)
        assert (await graph.ainvoke(Command(resume="this"), ON))["log"] == [1, "this", "last"]
