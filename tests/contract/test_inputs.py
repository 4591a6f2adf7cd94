"""Inputs whose runs died before their first checkpoint: each is listed, and taken up once, in the order they came."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base.id import uuid6
from langgraph.types import interrupt

from petal.checkpoints.notes import INPUT, aput_note
from petal.checkpoints.saver import PetalSaver
from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import CheckpointerUnavailableError, NothingToResumeError

DURABILITIES = ["sync", "async", "exit"]


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Step:
    """A step that answers, asks where it is given a question, and raises while it is down."""

    down = False

    def __call__(self, state: Log) -> Log:
        if self.down:
            raise ConnectionError("down")
        word = state["log"][-1]
        return {"log": [interrupt(word) if word.endswith("?") else word.upper()]}


@pytest.fixture
def step() -> Step:
    return Step()


@pytest.fixture(params=DURABILITIES)
def agent(storage: CheckpointerConfig, step: Step, request: pytest.FixtureRequest) -> Iterator[Agent]:
    storage = storage.model_copy(update={"config": {**(storage.config or {}), "durability": request.param}})
    with AgentFactory(Log).add(step, "step").with_checkpointer(storage).build() as agent:
        yield agent


async def leave(agent: Agent, *words: str) -> list[str]:
    """Inputs whose runs died before their first checkpoint, one after another, and where they are kept."""
    ids = []
    for word in words:
        ids.append(str(uuid6()))
        place: Any = {"configurable": {"thread_id": "t", "checkpoint_id": ids[-1]}}
        await aput_note(saver_of(agent), place, INPUT, {"run": f"of {word}", "input": {"log": [word]}}, "input")
    return ids


def saver_of(agent: Agent) -> PetalSaver:
    assert isinstance(agent.checkpointer, PetalSaver)
    return agent.checkpointer


async def left(agent: Agent) -> list[str | None]:
    """Where the inputs lie that are listed as left."""
    return [run.input_id for run in await agent.aincomplete()]


async def log(agent: Agent) -> list[str]:
    return list((await agent.thread("t").astate()).values.get("log", []))


async def test_each_that_was_left_is_taken_up(agent: Agent) -> None:
    first, second = await leave(agent, "a", "b")
    thread = agent.thread("t")
    assert await left(agent) == [first]
    await thread.aresume()
    assert await left(agent) == [second]
    await thread.aresume()
    assert await log(agent) == ["a", "A", "b", "B"]
    assert await left(agent) == []
    with pytest.raises(NothingToResumeError):
        await thread.aresume()


async def test_recovery_takes_up_all_of_them(agent: Agent, step: Step) -> None:
    """Behind a run that had died before them too."""
    step.down = True
    with pytest.raises(ConnectionError):
        await agent.ainvoke({"log": ["x"]}, thread_id="t")
    ids = await leave(agent, "a", "b")
    assert await left(agent) == [None]
    told = [(run.outcome, run.attempts) async for run in agent.arecover(attempts=2)]
    assert told == [("failed", 1), ("dead", 2)]
    step.down = False
    told = [(run.outcome, run.attempts) async for run in agent.arecover(again=True)]
    assert told == [("done", 1)] * 3
    assert await log(agent) == ["x", "X", "a", "A", "b", "B"]
    assert await left(agent) == []
    assert ids == sorted(ids)


async def test_one_that_fails_is_counted_by_itself(agent: Agent, step: Step) -> None:
    await leave(agent, "a", "b")
    step.down = True
    assert [(run.outcome, run.attempts) async for run in agent.arecover(attempts=2)] == [("failed", 1), ("dead", 2)]
    (run,) = await agent.aincomplete()
    assert (run.status, run.attempts, run.input_id) == ("dead", 2, None)
    step.down = False
    assert [(run.outcome, run.attempts) async for run in agent.arecover(again=True)] == [("done", 1), ("done", 1)]
    assert await log(agent) == ["a", "A", "b", "B"]


async def test_one_whose_run_cannot_save_stays_left(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    (id,) = await leave(agent, "a")
    put = PetalSaver.aput

    async def refuse(*_: Any) -> Any:
        raise CheckpointerUnavailableError("here", "it is down", "Wait")

    monkeypatch.setattr(PetalSaver, "aput", refuse)
    for _ in range(2):
        with pytest.raises(CheckpointerUnavailableError):
            await agent.thread("t").aresume()
    monkeypatch.setattr(PetalSaver, "aput", put)
    assert await left(agent) == [id]
    await agent.thread("t").aresume()
    assert await log(agent) == ["a", "A"]
    assert await left(agent) == []
    with pytest.raises(NothingToResumeError):
        await agent.thread("t").aresume()


async def test_what_was_left_waits_behind_a_question(agent: Agent) -> None:
    await agent.ainvoke({"log": ["sure?"]}, thread_id="t")
    (id,) = await leave(agent, "a")
    thread = agent.thread("t")
    assert await left(agent) == []
    await thread.aresume("yes")
    assert await left(agent) == [id]
    await thread.aresume()
    assert await log(agent) == ["sure?", "yes", "a", "A"]
    assert await left(agent) == []


async def test_what_is_taken_up_may_ask(agent: Agent) -> None:
    _, second = await leave(agent, "sure?", "b")
    thread = agent.thread("t")
    await thread.aresume()
    assert [asked.value for asked in await thread.ainterrupts()] == ["sure?"]
    await thread.aresume("yes")
    assert await left(agent) == [second]


async def test_an_update_and_a_rewind_leave_it(agent: Agent) -> None:
    await agent.ainvoke({"log": ["x"]}, thread_id="t")
    await agent.ainvoke({"log": ["y"]}, thread_id="t")
    (id,) = await leave(agent, "a")
    thread = agent.thread("t")
    await thread.aupdate({"log": ["edited"]}, as_node="step")
    assert await left(agent) == [id]
    await thread.arewind()
    assert await left(agent) == [id]
    assert await log(agent) == ["x", "X"]
    await thread.aresume()
    assert await log(agent) == ["x", "X", "a", "A"]
    assert await left(agent) == []


@pytest.mark.parametrize("rules", [{}, {"keep_last": 1}])
async def test_new_input_takes_its_place_for_good(agent: Agent, rules: dict[str, Any]) -> None:
    """Also when the checkpoint that tells so has been pruned."""
    await leave(agent, "a")
    await agent.ainvoke({"log": ["new"]}, thread_id="t")
    await agent.thread("t").aprune(**rules)
    with pytest.raises(NothingToResumeError):
        await agent.thread("t").aresume()
    assert await log(agent) == ["new", "NEW"]


async def test_turns_are_counted_where_runs_leave_one_checkpoint_each(agent: Agent) -> None:
    for word in "xyz":
        await agent.ainvoke({"log": [word]}, thread_id="t")
    thread = agent.thread("t")
    await thread.arewind()
    assert await log(agent) == ["x", "X", "y", "Y"]
    await thread.arewind()
    assert await log(agent) == ["x", "X"]
