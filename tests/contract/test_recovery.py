"""Runs that died are found and taken up again, on every storage: counted, and given up after so many attempts."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt

from petal.checkpoints import open_checkpointer
from petal.checkpoints.notes import INPUT, aput_note
from petal.checkpoints.saver import PetalSaver
from petal.cli.statuses import threads_with_status
from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.core.recovery import KILLED, Attempt, Recovery
from petal.errors import CheckpointerRequiredError, CheckpointerUnavailableError


class Log(TypedDict, total=False):
    entries: Annotated[list[str], operator.add]


class Outage:
    """A step that raises until it has been tried so often."""

    def __init__(self, tries: int = 10**6, name: str = "down") -> None:
        self.left, self.name, self.runs = tries, name, 0

    def __call__(self, state: Log) -> Log:
        self.runs += 1
        if self.left > 0:
            self.left -= 1
            raise ConnectionError(f"{self.name} with postgresql://me:secret@host/db")
        return {"entries": [self.name]}


def begin(state: Log) -> Log:
    return {"entries": ["begun"]}


def ask(state: Log) -> Log:
    return {"entries": [interrupt("Sure?")]}


def built(storage: Any, *steps: Any, name: str = "agent") -> Agent:
    factory = AgentFactory(Log, name=name)
    for step in steps:
        factory.add(step, getattr(step, "__name__", None) or step.name)
    return factory.with_checkpointer(storage).build()


async def dies(agent: Agent, thread_id: str) -> None:
    with pytest.raises(ConnectionError):
        await agent.ainvoke({"entries": ["in"]}, thread_id=thread_id)


async def told(agent: Agent, *args: Any, **kwargs: Any) -> list[Recovery]:
    return [one async for one in agent.arecover(*args, **kwargs)]


DOWN = "ConnectionError: down with postgresql://me:***@host/db"


async def test_threads_whose_run_died_are_found(storage: CheckpointerConfig) -> None:
    """Not those that are done, wait for an answer, are another agent's, or have a run now."""
    with open_checkpointer(storage) as saver:
        down = built(saver, begin, Outage())
        await dies(down, "failed")
        await built(saver, begin).ainvoke({"entries": ["in"]}, thread_id="done")
        await built(saver, ask).ainvoke({"entries": ["in"]}, thread_id="waiting")
        await dies(built(saver, Outage(), name="other"), "others")
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def slow(state: Log) -> Log:
            begun.set()
            await stopped.wait()
            return {}

        running = asyncio.create_task(built(saver, slow).ainvoke({"entries": ["in"]}, thread_id="running"))
        await begun.wait()
        (found,) = await down.aincomplete()
        assert (found.thread_id, found.status, found.attempts) == ("failed", "failed", 0)
        assert found.error is not None
        assert "down with postgresql://me:***@host/db" in found.error
        assert isinstance(found.since, datetime)
        state = await down.thread("failed").astate()
        assert found.head == state.config["configurable"]["checkpoint_id"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert {(run.thread_id, run.status) for run in down.incomplete()} == {
            ("failed", "failed"),
            ("running", "interrupted"),
        }


async def test_what_died_goes_on_until_it_is_done_or_asks(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage) as saver:
        once, twice = Outage(1), Outage(2)
        agent = built(saver, begin, once)
        await dies(agent, "first")
        assert await told(agent) == [Recovery("first", "done", 1)]
        assert (await agent.thread("first").astate()).values["entries"] == ["in", "begun", "down"]
        assert await told(agent) == []
        asking = built(saver, twice, ask)
        await dies(asking, "asks")
        results = list(asking.recover())
        assert [(one.outcome, one.attempts) for one in results] == [("failed", 1), ("waiting", 2)]
        assert results[0].error == DOWN
        assert await asking.aincomplete() == []


async def test_an_error_that_cannot_say_what_is_wrong_keeps_no_other_run_from_going_on(
    storage: CheckpointerConfig,
) -> None:
    class Refused(Exception):
        def __init__(self, code: int) -> None:
            self.code = code

        def __str__(self) -> str:
            raise AttributeError("details")

    def refuse(state: Log) -> Log:
        if state["entries"] == ["mute"]:
            raise Refused(7)
        return once(state)

    with open_checkpointer(storage) as saver:
        once = Outage(1)
        agent = built(saver, refuse)
        await dies(agent, "goes on")
        with pytest.raises(Refused):
            await agent.ainvoke({"entries": ["mute"]}, thread_id="mute")
        found = {one.thread_id: one for one in await told(agent, 1)}
        assert found["goes on"].outcome == "done"
        assert found["mute"] == Recovery("mute", "dead", 1, "Refused: (it cannot say what is wrong)")


async def test_a_run_that_dies_each_time_is_given_up_with_its_error(storage: CheckpointerConfig) -> None:
    """New input goes on as ever, and is counted anew; `again` begins again."""
    with open_checkpointer(storage) as saver:
        down = Outage()
        agent = built(saver, begin, down)
        await dies(agent, "t")
        results = await told(agent, 2)
        assert [(one.outcome, one.attempts, one.error) for one in results] == [("failed", 1, DOWN), ("dead", 2, DOWN)]
        assert down.runs == 3
        (run,) = await agent.aincomplete()
        assert (run.status, run.attempts, run.error) == ("dead", 2, DOWN)
        assert await told(agent) == await told(agent, 5) == [Recovery("t", "dead", 2, DOWN)]
        assert down.runs == 3
        assert [one.outcome for one in await told(agent, 1, again=True)] == ["dead"]
        assert down.runs == 4
        await dies(agent, "t")
        (run,) = await agent.aincomplete()
        assert (run.status, run.attempts) == ("failed", 0)
        down.left = 1
        assert [(one.outcome, one.attempts) for one in await told(agent, thread_id="t")] == [("failed", 1), ("done", 2)]


async def test_attempts_count_across_progress(storage: CheckpointerConfig) -> None:
    """Each gets a step further and dies there; a run that was whole meanwhile begins anew."""
    with open_checkpointer(storage) as saver:
        steps = [Outage(1, name) for name in ("a", "b", "c")]
        agent = built(saver, *steps, ask, Outage(1, "d"))
        await dies(agent, "t")
        assert [(one.outcome, one.attempts) for one in await told(agent, 2)] == [("failed", 1), ("dead", 2)]
        assert [(one.outcome, one.attempts) for one in await told(agent, 3, again=True)] == [("waiting", 1)]
        with pytest.raises(ConnectionError):
            await agent.thread("t").aresume("yes")
        (run,) = await agent.aincomplete()
        assert (run.status, run.attempts) == ("failed", 0)
        assert [(one.outcome, one.attempts) for one in await told(agent, 3)] == [("done", 1)]
        assert [step.runs for step in steps] == [2, 2, 2]


async def test_fewer_attempts_than_before_give_up_at_once(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage) as saver:
        down = Outage()
        agent = built(saver, down)
        await dies(agent, "t")
        recovering = agent.arecover(5)
        for _ in range(2):
            await anext(recovering)
        await recovering.aclose()
        (run,) = await agent.aincomplete()
        assert (run.status, run.attempts) == ("failed", 2)
        assert await told(agent, 1) == [Recovery("t", "dead", 2, DOWN)]
        assert down.runs == 3


async def test_a_thread_that_another_run_has_is_passed_over(storage: CheckpointerConfig) -> None:
    """And one that another run finished meanwhile is left as it is: each step runs once."""
    with open_checkpointer(storage) as saver:
        begun, go, runs = asyncio.Event(), asyncio.Event(), []

        async def slow(state: Log) -> Log:
            runs.append("slow")
            begun.set()
            await go.wait()
            return {"entries": ["slow"]}

        one, other = (built(saver, outage, slow) for outage in (Outage(3), Outage(0)))
        for thread_id in ("first", "second", "third"):
            await dies(one, thread_id)
        go.set()
        late = other.arecover()
        assert await anext(late) == Recovery("first", "done", 1)
        go.clear()
        begun.clear()
        sooner = asyncio.create_task(told(one))
        await begun.wait()
        assert await anext(late) == Recovery("second", "held")
        go.set()
        assert await sooner == [Recovery("second", "done", 1), Recovery("third", "done", 1)]
        assert [told async for told in late] == [Recovery("third", "whole")]
        assert runs == ["slow"] * 3


async def test_an_attempt_that_is_stopped_does_not_count(storage: CheckpointerConfig) -> None:
    """Neither do those before it cease to."""
    with open_checkpointer(storage) as saver:
        begun, runs = asyncio.Event(), Outage(2)

        async def slow(state: Log) -> Log:
            begun.set()
            await asyncio.Event().wait()
            return {}

        agent = built(saver, runs, slow)
        await dies(agent, "t")
        for _ in range(4):
            recovering = asyncio.create_task(told(agent, 3))
            await begun.wait()
            recovering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await recovering
            begun.clear()
            (run,) = await agent.aincomplete()
            assert (run.status, run.attempts) == ("interrupted", 1)
        agent = built(saver, runs, Outage(0, "slow"))
        assert await told(agent, 3) == [Recovery("t", "done", 2)]


async def left(saver: PetalSaver, thread_id: str) -> None:
    """An input whose run died before its first checkpoint."""
    place: Any = {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": str(uuid6())}
    await aput_note(saver, {"configurable": place}, INPUT, {"run": "gone", "input": {"entries": ["left"]}}, "input")


@pytest.mark.parametrize("is_new", [True, False])
async def test_what_died_before_its_first_checkpoint_is_taken_up(storage: CheckpointerConfig, is_new: bool) -> None:
    with open_checkpointer(storage) as saver:
        down = Outage(0)
        agent = built(saver, begin, down)
        if not is_new:
            down.left = 1
            await dies(agent, "t")
            assert await told(agent) == [Recovery("t", "done", 1)]
        state = await agent.thread("t").astate()
        before = state.values.get("entries", [])
        await left(saver, "t")
        (run,) = await agent.aincomplete()
        assert (run.status, run.attempts, run.error) == ("interrupted", 0, None)
        assert run.head == state.config["configurable"].get("checkpoint_id", "")
        assert run.since == (state.created_at and datetime.fromisoformat(state.created_at))
        assert [status for _, status in await asyncio.to_thread(threads_with_status, saver, None, 9)] == ["interrupted"]
        down.left = 2
        assert [(one.outcome, one.attempts) for one in await told(agent, 2)] == [("failed", 1), ("dead", 2)]
        (run,) = await agent.aincomplete()
        assert (run.status, run.attempts, run.error, run.input_id) == ("dead", 2, DOWN, None)
        assert [(one.outcome, one.attempts) for one in await told(agent, again=True)] == [("done", 1)]
        assert (await agent.thread("t").astate()).values["entries"] == [*before, "left", "begun", "down"]
        assert await agent.aincomplete() == []


async def test_attempts_at_what_died_before_its_first_checkpoint_count(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage) as saver:
        agent = built(saver, begin)
        await agent.ainvoke({"entries": ["in"]}, thread_id="t")
        await left(saver, "t")
        run: Any = {"configurable": {"thread_id": "t"}, "metadata": {"run_id": "killed"}}
        for _ in range(2):
            await Attempt(limit=5).begin(saver, run)
        assert [(one.outcome, one.attempts) for one in await told(agent, 2)] == [("dead", 2)]
        (found,) = await agent.aincomplete()
        assert (found.status, found.attempts, found.error) == ("dead", 2, KILLED)
        assert [(one.outcome, one.attempts) for one in await told(agent, again=True)] == [("done", 1)]
        assert (await agent.thread("t").astate()).values["entries"] == ["in", "begun", "left", "begun"]


def test_a_langgraph_saver_of_ones_own_will_do() -> None:
    """What is found by an index there, is read here."""
    saver = InMemorySaver()
    agent = built(saver, begin, Outage(2))
    with pytest.raises(ConnectionError):
        agent.invoke({"entries": ["in"]}, thread_id="t")
    agent.thread("u").update({"entries": ["edited"]})
    assert [(run.thread_id, run.status) for run in agent.incomplete() if run.thread_id == "t"] == [("t", "failed")]
    assert [one.outcome for one in agent.recover(thread_id="t")] == ["failed", "done"]


def test_an_agent_without_state_has_nothing_to_recover() -> None:
    agent = AgentFactory(Log).add(begin).build()
    acts: list[Callable[[], Any]] = [agent.incomplete, lambda: list(agent.recover()), lambda: list(agent.check())]
    for act in acts:
        with pytest.raises(CheckpointerRequiredError):
            act()
    agent.close()


async def test_a_database_that_is_gone_is_no_fault_of_a_thread(storage: CheckpointerConfig) -> None:
    with open_checkpointer(storage) as saver:
        agent = built(saver, Outage(), begin)
        await dies(agent, "t")
        with pytest.raises(ValueError, match="at least once, not 0 times"):
            await told(agent, 0)

        def down(state: Log) -> Log:
            saver.close()
            return {}

        with pytest.raises(CheckpointerUnavailableError):
            await told(built(saver, down, begin))
