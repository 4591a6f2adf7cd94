"""Effects happen once: under questions, errors, retries, branches, subgraphs, forks and dry runs, with any saver."""

from __future__ import annotations

import asyncio
import operator
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt

import petal
from petal.checkpoints import open_checkpointer
from petal.checkpoints.notes import EFFECT, notes
from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.effects.records import effects
from petal.core.factory import AgentFactory
from petal.errors import (
    EffectMismatchError,
    EffectNotRecordedError,
    EffectResultError,
    InvalidAnswerError,
    OutsideStepError,
    UnknownEffectError,
)


class Log(TypedDict, total=False):
    entries: Annotated[list[Any], operator.add]


class Killed(BaseException):
    """Stands for the end of the process: nothing that comes after it is done."""


class World:
    """Where acts of the tests show, with the key that each had."""

    def __init__(self) -> None:
        self.acts: list[tuple[str, Any]] = []
        self.keys: list[str] = []

    def act(self, what: str, amount: Any = 0) -> str:
        self.acts.append((what, amount))
        self.keys.append(petal.idempotency_key())
        return f"{what} {amount} #{len(self.acts)}"

    async def aact(self, what: str, amount: Any = 0) -> str:
        await asyncio.sleep(0)
        return self.act(what, amount)


@pytest.fixture
def world() -> World:
    return World()


in_memory = pytest.mark.parametrize("saver", ["memory", "langgraph"], indirect=True)
CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}


def graph(saver: Any, *nodes: Any, **kwargs: Any) -> Any:
    """The nodes one after the other."""
    built = StateGraph(Log)
    before = START
    for node in nodes:
        built.add_node(node, **kwargs)
        built.add_edge(before, node.__name__)
        before = node.__name__
    return built.compile(checkpointer=saver)


def agent(*steps: Any, storage: Any = "memory://") -> Agent:
    factory = AgentFactory(Log)
    for step in steps:
        factory.add(step, step.__name__)
    return factory.with_checkpointer(storage).build()


def recorded(saver: BaseCheckpointSaver[Any], thread_id: str = "t") -> list[tuple[str, str, int]]:
    found = effects(notes(saver, thread_id, EFFECT))
    return [(one.identity.name, one.status, one.begun["attempt"]) for one in found]


def test_questions_before_between_and_after_do_not_make_it_happen_again(
    saver: BaseCheckpointSaver[Any], world: World
) -> None:
    def pay(state: Log) -> Log:
        asked = [interrupt("before?")]
        first = petal.step("charge", world.act, "charge", 1)
        asked.append(interrupt("between?"))
        second = petal.step("charge", world.act, "charge", amount=2)
        asked.append(interrupt("after?"))
        return {"entries": [first, second, *asked]}

    flow = graph(saver, pay)
    flow.invoke({"entries": []}, CONFIG)
    for answer in ("a", "b", "c"):
        result = flow.invoke(Command(resume=answer), CONFIG)
    assert result == {"entries": ["charge 1 #1", "charge 2 #2", "a", "b", "c"]}
    assert world.acts == [("charge", 1), ("charge", 2)]
    assert len(set(world.keys)) == 2
    assert recorded(saver) == [("charge", "done", 1), ("charge", "done", 1)]


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_async_nodes(saver: BaseCheckpointSaver[Any], world: World, durability: str) -> None:
    """Also where effects of one name are under way at the same time, and end in any order."""

    async def pay(state: Log) -> Log:
        together = await asyncio.gather(*(petal.step("charge", world.aact, "charge", n) for n in range(3)))
        sync = await petal.astep("mail", world.act, "mail")
        return {"entries": [*(one.split(" #")[0] for one in together), sync, interrupt("ok?")]}

    flow = graph(saver, pay)
    await flow.ainvoke({"entries": []}, CONFIG, durability=durability)
    result = await flow.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    assert sorted(world.acts) == [("charge", 0), ("charge", 1), ("charge", 2), ("mail", 0)]
    assert result["entries"] == ["charge 0", "charge 1", "charge 2", "mail 0 #4", "yes"]


async def test_sync_nodes_of_async_runs(saver: BaseCheckpointSaver[Any], world: World) -> None:
    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", world.act, "charge"), interrupt("ok?")]}

    flow = graph(saver, pay)
    await flow.ainvoke({"entries": []}, CONFIG)
    assert (await flow.ainvoke(Command(resume="yes"), CONFIG))["entries"] == ["charge 0 #1", "yes"]


def test_one_that_began_and_never_ended_runs_again_under_the_same_key(
    saver: BaseCheckpointSaver[Any], world: World
) -> None:
    def charge() -> str:
        done = world.act("charge")
        if len(world.acts) == 2:
            raise Killed
        return done

    def pay(state: Log) -> Log:
        return {"entries": [petal.step("mail", world.act, "mail"), petal.step("charge", charge)]}

    flow = graph(saver, pay)
    with pytest.raises(Killed):
        flow.invoke({"entries": []}, CONFIG)
    assert recorded(saver) == [("mail", "done", 1), ("charge", "unknown", 1)]
    assert flow.invoke(None, CONFIG)["entries"] == ["mail 0 #1", "charge 0 #3"]
    assert world.keys[0] != world.keys[1] == world.keys[2]
    assert recorded(saver) == [("mail", "done", 1), ("charge", "done", 2)]


def _calling(name: str, fn: Any, **kwargs: Any) -> Any:
    def node(state: Log) -> Log:
        return {"entries": [petal.step("charge", fn, **kwargs)]}

    node.__name__ = name
    return node


def _killed_once(saver: BaseCheckpointSaver[Any], world: World, *more: Any, **kwargs: Any) -> Any:
    """A graph with an effect that began and never ended."""
    killed = [True]

    def charge(amount: int) -> str:
        done = world.act("charge", amount)
        if killed:
            killed.clear()
            raise Killed
        return done

    flow = graph(saver, _calling("pay", charge, amount=5, **kwargs), *more)
    with pytest.raises(Killed):
        flow.invoke({"entries": []}, CONFIG)
    return flow


@in_memory
def test_unknown_can_fail(saver: BaseCheckpointSaver[Any], world: World) -> None:
    flow = _killed_once(saver, world, on_unknown="fail")
    with pytest.raises(UnknownEffectError, match=r"'charge' with amount=5 began at .* and never ended") as failed:
        flow.invoke(None, CONFIG)
    assert failed.value.key == world.keys[0]
    assert world.acts == [("charge", 5)]


@in_memory
def test_unknown_can_be_asked_about_and_run(saver: BaseCheckpointSaver[Any], world: World) -> None:
    def follow(state: Log) -> Log:
        return {"entries": [interrupt("more?")]}

    flow = _killed_once(saver, world, follow, on_unknown="ask")
    asked = flow.invoke(None, CONFIG)["__interrupt__"][0].value
    assert (asked["effect"], asked["arguments"]) == ("charge", {"amount": 5})
    assert (asked["idempotency_key"], asked["attempt"]) == (world.keys[0], 1)
    assert asked["question"].startswith("'charge' with amount=5 began at ")
    flow.invoke(Command(resume="run"), CONFIG)
    assert flow.invoke(Command(resume="no"), CONFIG) == {"entries": ["charge 5 #2", "no"]}
    assert world.keys[0] == world.keys[1]


@in_memory
def test_an_answer_about_it_is_not_taken_for_that_to_the_next_question(
    saver: BaseCheckpointSaver[Any], world: World
) -> None:
    killed = [True]

    def charge() -> str:
        world.act("charge")
        if killed:
            killed.clear()
            raise Killed
        return "charged"

    def pay(state: Log) -> Log:
        paid = petal.step("charge", charge, on_unknown="ask")
        return {"entries": [paid, interrupt("first?"), interrupt("second?")]}

    flow = graph(saver, pay)
    with pytest.raises(Killed):
        flow.invoke({"entries": []}, CONFIG)
    flow.invoke(None, CONFIG)
    assert flow.invoke(Command(resume={"result": "it was"}), CONFIG)["__interrupt__"][0].value == "first?"
    assert flow.invoke(Command(resume="one"), CONFIG)["__interrupt__"][0].value == "second?"
    assert flow.invoke(Command(resume="two"), CONFIG) == {"entries": ["it was", "one", "two"]}
    assert world.acts == [("charge", 0)]


@in_memory
def test_what_an_effect_asked_itself_is_not_taken_for_a_later_answer(
    saver: BaseCheckpointSaver[Any], world: World
) -> None:
    def approved() -> str:
        return f"{interrupt('approve?')} {world.act('charge')}"

    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", approved), interrupt("first?"), petal.step("charge", approved)]}

    flow = graph(saver, pay)
    flow.invoke({"entries": []}, CONFIG)
    assert recorded(saver) == [("charge", "paused", 1)]
    for answer in ("yes", "one", "again"):
        result = flow.invoke(Command(resume=answer), CONFIG)
    assert result == {"entries": ["yes charge 0 #1", "one", "again charge 0 #2"]}


def test_a_wrong_answer_leaves_it_open(world: World, storage: CheckpointerConfig) -> None:
    killed = [True]

    def charge() -> str:
        if killed:
            killed.clear()
            raise Killed
        return world.act("charge")

    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", charge, on_unknown="ask")]}

    with agent(pay, storage=storage) as built:
        with pytest.raises(Killed):
            built.graph.invoke({"entries": []}, CONFIG, durability="sync")
        thread = built.thread("t")
        assert thread.tool_calls()[0].status == "unknown"
        thread.resume()
        with pytest.raises(InvalidAnswerError, match=r'answer run, or \{"result": …\}'):
            thread.resume("perhaps")
        assert thread.resume({"run": True}) == {"entries": ["charge 0 #1"]}


def test_one_that_failed_is_made_again(saver: BaseCheckpointSaver[Any], world: World) -> None:
    def charge() -> str:
        done = world.act("charge")
        if len(world.acts) < 3:
            raise ConnectionError("down")
        return done

    def pay(state: Log) -> Log:
        return {"entries": [petal.step("mail", lambda: "mailed"), petal.step("charge", charge)]}

    flow = graph(saver, pay)
    with pytest.raises(ConnectionError):
        flow.invoke({"entries": []}, CONFIG)
    assert recorded(saver) == [("mail", "done", 1), ("charge", "failed", 1)]
    assert effects(notes(saver, "t", EFFECT))[1].record.error == "ConnectionError: down"
    retrying = graph(saver, pay, retry_policy=RetryPolicy(initial_interval=0, jitter=False))
    assert retrying.invoke(None, CONFIG) == {"entries": ["mailed", "charge 0 #3"]}
    assert len(set(world.keys)) == 1
    assert recorded(saver) == [("mail", "done", 1), ("charge", "done", 3)]


@in_memory
def test_what_a_retry_finds_is_the_record_and_not_what_was_made_of_it(
    saver: BaseCheckpointSaver[Any], world: World
) -> None:
    def pay(state: Log) -> Log:
        found = petal.step("fetch", lambda: [world.act("fetch")])
        found.append("changed")
        if len(found) == 2 and not interrupted:
            interrupted.append(True)
            raise ConnectionError("down")
        return {"entries": found}

    interrupted: list[bool] = []
    flow = graph(saver, pay, retry_policy=RetryPolicy(initial_interval=0, jitter=False))
    assert flow.invoke({"entries": []}, CONFIG) == {"entries": ["fetch 0 #1", "changed"]}


@in_memory
def test_an_error_that_cannot_say_what_is_wrong_is_recorded_too(saver: BaseCheckpointSaver[Any]) -> None:
    class Refused(Exception):
        def __str__(self) -> str:
            raise AttributeError("details")

    def charge() -> str:
        raise Refused

    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", charge)]}

    flow = graph(saver, pay)
    with pytest.raises(Refused):
        flow.invoke({"entries": []}, CONFIG)
    assert recorded(saver) == [("charge", "failed", 1)]


def test_other_arguments_than_recorded_are_refused(saver: BaseCheckpointSaver[Any], world: World) -> None:
    amount = [1]

    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", world.act, "charge", amount[0]), interrupt("ok?")]}

    flow = graph(saver, pay)
    flow.invoke({"entries": []}, CONFIG)
    amount[0] = 2
    with pytest.raises(EffectMismatchError) as failed:
        flow.invoke(Command(resume="yes"), CONFIG)
    assert str(failed.value).startswith(
        "'charge' was called with what='charge', amount=1 when this step ran before, and now with what='charge', "
        "amount=2; it was not called again."
    )
    assert world.acts == [("charge", 1)]


@pytest.mark.parametrize("fork", ["within", "thread"])
def test_a_fork_from_before_makes_it_happen_anew_under_another_key(
    world: World, storage: CheckpointerConfig, fork: str
) -> None:
    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", world.act, "charge")]}

    with agent(pay, storage=storage) as built:
        thread = built.thread("t")
        thread.invoke({"entries": []})
        before = next(one for one in thread.history() if one.next == ("pay",)).config["configurable"]["checkpoint_id"]
        if fork == "within":
            assert thread.invoke(None, checkpoint_id=before) == {"entries": ["charge 0 #2"]}
        else:
            assert thread.fork(before, to="u").resume() == {"entries": ["charge 0 #2"]}
        assert len(world.acts) == len(set(world.keys)) == 2


def test_a_fork_from_the_question_behind_it_keeps_it(world: World, storage: CheckpointerConfig) -> None:
    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", world.act, "charge"), interrupt("ok?")]}

    with agent(pay, storage=storage) as built:
        thread = built.thread("t")
        thread.invoke({"entries": []})
        for there in (thread.fork(to="u"), thread.copy(to="v"), thread):
            assert there.resume("yes") == {"entries": ["charge 0 #1", "yes"]}
            assert [call.name for call in there.tool_calls()] == ["charge"]
        assert len(world.acts) == 1


def test_parallel_branches_and_subgraphs(saver: BaseCheckpointSaver[Any], world: World) -> None:
    def charge(state: Any) -> Log:
        return {"entries": [petal.step("charge", world.act, "charge", state["n"])]}

    def ask(state: Any) -> Log:
        return {"entries": [interrupt(f"ok {state['n']}?")]}

    class One(Log, total=False):
        n: int

    inner = StateGraph(One, output_schema=Log)
    inner.add_node(charge)
    inner.add_node(ask)
    inner.add_edge(START, "charge")
    inner.add_edge("charge", "ask")

    def each(state: Log) -> list[Send]:
        return [Send("inner", {"n": n, "entries": []}) for n in (1, 2)]

    outer = StateGraph(Log)
    outer.add_node("inner", inner.compile())
    outer.add_conditional_edges(START, each)
    outer.add_edge("inner", END)
    flow = outer.compile(checkpointer=saver)
    asked = flow.invoke({"entries": []}, CONFIG, durability="sync")["__interrupt__"]
    result = flow.invoke(Command(resume={one.id: one.value for one in asked}), CONFIG)
    assert sorted(world.acts) == [("charge", 1), ("charge", 2)]
    assert len(set(world.keys)) == 2
    assert [entry for entry in result["entries"] if entry.startswith("ok")] == ["ok 1?", "ok 2?"]
    assert recorded(saver) == [("charge", "done", 1)] * 2


@in_memory
def test_effects_within_effects(saver: BaseCheckpointSaver[Any], world: World) -> None:
    def both() -> list[str]:
        return [petal.step("charge", world.act, "charge", 1), petal.step("charge", world.act, "charge", 2)]

    def pay(state: Log) -> Log:
        inner = petal.step("both", both)
        return {"entries": [*inner, petal.step("charge", world.act, "charge", 3), interrupt("ok?")]}

    flow = graph(saver, pay)
    flow.invoke({"entries": []}, CONFIG)
    result = flow.invoke(Command(resume="yes"), CONFIG)
    assert result == {"entries": ["charge 1 #1", "charge 2 #2", "charge 3 #3", "yes"]}
    assert len(set(world.keys)) == 3


@dataclass
class Undeclared:
    """What no state declares."""

    n: int


@dataclass
class Odd:
    """Comes back from LangGraph's serializer as what it was not."""

    parts: tuple[int, ...]


def test_a_result_that_would_not_come_back_is_refused(storage: CheckpointerConfig) -> None:
    def fetch(state: Log) -> Log:
        petal.step("fetch", lambda: Undeclared(1))
        return {}

    with agent(fetch, storage=storage) as built:
        with pytest.raises(
            EffectResultError, match=r"'fetch' was called and returned a .*Undeclared that cannot"
        ) as no:
            built.invoke({"entries": []}, thread_id="t")
        assert no.value.type_name.endswith(".Undeclared")
        assert [call.status for call in built.thread("t").tool_calls()] == ["unknown"]


@pytest.mark.parametrize(
    "value", [(1, 2), {"a": [Odd((1, 2))]}, lambda: None, {1: (2,)}], ids=["tuple", "nested", "function", "in a dict"]
)
def test_so_it_is_with_savers_of_langgraph(value: Any) -> None:
    def fetch(state: Log) -> Log:
        petal.step("fetch", lambda: value)
        return {}

    with pytest.raises(EffectResultError, match="'fetch' was called and returned a"):
        graph(InMemorySaver(), fetch).invoke({"entries": []}, CONFIG)


@pytest.mark.parametrize("value", [None, float("nan"), [1.5, {"a": {1, 2}}], datetime(2026, 1, 1, tzinfo=UTC), b"x"])
def test_others_come_back_exactly(value: Any) -> None:
    def fetch(state: Log) -> Log:
        return {"entries": [petal.step("fetch", lambda: value), interrupt("ok?")]}

    flow = graph(InMemorySaver(), fetch)
    flow.invoke({"entries": []}, CONFIG)
    back = flow.invoke(Command(resume="yes"), CONFIG)["entries"][0]
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_without_a_checkpointer_it_simply_runs(world: World) -> None:
    def pay(state: Log) -> Log:
        first = petal.step("charge", world.act, "charge")
        return {"entries": [first, petal.step("charge", world.act, "charge")]}

    assert graph(None, pay).invoke({"entries": []})["entries"] == ["charge 0 #1", "charge 0 #2"]
    assert len(set(world.keys)) == 2
    with pytest.raises(EffectNotRecordedError, match="this run keeps no record"):
        graph(None, pay).invoke({"entries": []}, {"configurable": {"__petal_replay": "dry"}})


async def test_outside_of_graphs_too(world: World) -> None:
    assert petal.step("charge", world.act, "charge") == "charge 0 #1"
    assert await petal.step("charge", world.aact, "charge") == "charge 0 #2"
    assert await petal.astep("charge", world.act, "charge") == "charge 0 #3"
    assert len(set(world.keys)) == 3
    with pytest.raises(OutsideStepError):
        petal.idempotency_key()


@in_memory
def test_the_key_of_a_step_is_its_own_and_stays(saver: BaseCheckpointSaver[Any]) -> None:
    seen: list[str] = []

    def first(state: Log) -> Log:
        seen.append(petal.idempotency_key())
        interrupt("ok?")
        return {}

    def second(state: Log) -> Log:
        seen.append(petal.idempotency_key())
        return {}

    flow = graph(saver, first, second)
    flow.invoke({"entries": []}, CONFIG)
    flow.invoke(Command(resume="yes"), CONFIG)
    assert seen[0] == seen[1] != seen[2]


def test_wrong_use_is_said(world: World) -> None:
    with pytest.raises(ValueError, match="on_unknown is 'run', 'ask' or 'fail', not 'maybe'"):
        petal.step("charge", world.act, on_unknown="maybe")  # type: ignore[call-overload]

    def pay(state: Log) -> Log:
        petal.step("charge", lambda: world.aact("charge"))
        return {}

    with pytest.raises(TypeError, match=r"use `await petal.astep\(…\)`"):
        graph(None, pay).invoke({"entries": []})
    with agent(pay) as built, pytest.raises(ValueError, match="replay is 'dry' or None, not 'wet'"):
        built.invoke({"entries": []}, thread_id="t", replay="wet")


class SlowSaver(InMemorySaver):
    """Takes its time over checkpoints, and may fail to save them."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []
        self.broken = False
        self.go_on = threading.Event()

    def put(self, *args: Any) -> RunnableConfig:
        self.go_on.wait()
        if self.broken:
            raise ConnectionError("no room")
        kept = super().put(*args)
        self.order.append(f"checkpoint {kept['configurable']['checkpoint_id']}")
        return kept

    async def aput(self, *args: Any) -> RunnableConfig:
        return await asyncio.to_thread(self.put, *args)

    def put_writes(self, config: RunnableConfig, writes: Any, *args: Any) -> None:
        if writes[0][0] == EFFECT:
            self.order.append(f"note on {config['configurable']['checkpoint_id']}")
        super().put_writes(config, writes, *args)

    async def aput_writes(self, *args: Any) -> None:
        self.put_writes(*args)


@pytest.mark.parametrize("is_async", [False, True])
async def test_under_async_durability_it_waits_for_its_checkpoint(world: World, is_async: bool) -> None:
    saver = SlowSaver()

    def pay(state: Log) -> Log:
        threading.Timer(0.02, saver.go_on.set).start()
        return {"entries": [petal.step("charge", world.act, "charge")]}

    async def apay(state: Log) -> Log:
        threading.Timer(0.02, saver.go_on.set).start()
        return {"entries": [await petal.step("charge", world.aact, "charge")]}

    flow = graph(saver, apay if is_async else pay)
    if is_async:
        await flow.ainvoke({"entries": []}, CONFIG, durability="async")
    else:
        await asyncio.to_thread(flow.invoke, {"entries": []}, CONFIG, durability="async")
    noted = next(line for line in saver.order if line.startswith("note on"))
    assert saver.order.index(noted.replace("note on", "checkpoint")) < saver.order.index(noted)


@pytest.mark.parametrize("limit", [None, 20])
async def test_under_async_durability_a_time_limit_changes_nothing(world: World, limit: float | None) -> None:
    """LangGraph puts functions of its own around what a step with a time limit is given."""
    saver = SlowSaver()

    async def pay(state: Log) -> Log:
        threading.Timer(0.02, saver.go_on.set).start()
        return {"entries": [await petal.step("charge", world.aact, "charge"), interrupt("ok?")]}

    flow = graph(saver, pay, timeout=limit)
    await flow.ainvoke({"entries": []}, CONFIG, durability="async")
    result = await flow.ainvoke(Command(resume="yes"), CONFIG, durability="async")
    assert result == {"entries": ["charge 0 #1", "yes"]}


async def test_what_would_hold_up_its_own_checkpoint_is_refused(world: World) -> None:
    saver = SlowSaver()

    async def pay(state: Log) -> Log:
        try:
            return {"entries": [petal.step("charge", world.act, "charge")]}
        finally:
            saver.go_on.set()

    with pytest.raises(RuntimeError, match=r"use `await petal.astep\(…\)` in async nodes"):
        await graph(saver, pay).ainvoke({"entries": []}, CONFIG, durability="async")
    assert world.acts == []


async def test_it_does_not_happen_if_its_checkpoint_cannot_be_saved(world: World) -> None:
    saver = SlowSaver()
    saver.broken = True
    saver.go_on.set()

    async def pay(state: Log) -> Log:
        return {"entries": [await petal.step("charge", world.aact, "charge")]}

    with pytest.raises(ConnectionError, match="no room"):
        await graph(saver, pay).ainvoke({"entries": []}, CONFIG, durability="async")
    assert world.acts == []


def test_a_try_that_was_given_up_begins_nothing_more(world: World) -> None:
    """Its thread goes on, beside the next try."""
    again, is_over = threading.Event(), threading.Event()
    tries: list[int] = []

    def pay(state: Log) -> Log:
        tries.append(1)
        is_first = len(tries) == 1
        petal.step("look", again.wait if is_first else again.set)
        try:
            if not is_first:
                is_over.wait(20)
            return {"entries": [petal.step("charge", world.act, "charge")]}
        finally:
            is_over.set()

    factory = AgentFactory(Log).add(pay).with_timeout(1).with_retry(2, delay=0.01)
    with factory.with_checkpointer("memory://").build() as built:
        try:
            result = built.invoke({"entries": []}, thread_id="t")
        finally:
            again.set()
        assert result == {"entries": ["charge 0 #1"]}
        assert [(call.name, call.attempt) for call in built.thread("t").tool_calls()] == [("look", 2), ("charge", 1)]


def test_what_a_try_did_that_was_given_up_answers_the_next_one(world: World) -> None:
    """The other side refuses to do it again under the same key."""
    again, is_over = threading.Event(), threading.Event()

    def charge() -> str:
        if len(world.acts) == 1:
            again.set()
            is_over.wait(20)
            raise ConnectionError("seen before")
        receipt = world.act("charge")
        again.wait(20)
        return receipt

    def pay(state: Log) -> Log:
        try:
            return {"entries": [petal.step("charge", charge)]}
        finally:
            is_over.set()

    factory = AgentFactory(Log).add(pay).with_timeout(1).with_retry(3, delay=0.01)
    with factory.with_checkpointer("memory://").build() as built:
        try:
            assert built.invoke({"entries": []}, thread_id="t") == {"entries": ["charge 0 #1"]}
        finally:
            again.set()
        (call,) = built.thread("t").tool_calls()
        assert (call.status, call.result) == ("done", "charge 0 #1")


async def test_an_effect_that_was_given_up_begins_nothing_more(world: World) -> None:
    go_on, is_over = asyncio.Event(), asyncio.Event()

    async def order() -> None:
        async def later() -> None:
            await go_on.wait()
            try:
                await petal.step("charge", world.aact, "charge")
            finally:
                is_over.set()

        await asyncio.shield(asyncio.ensure_future(later()))

    async def pay(state: Log) -> Log:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(petal.step("order", order), 0.05)
        go_on.set()
        await is_over.wait()
        return {"entries": [await petal.step("charge", world.aact, "charge", 2)]}

    assert await graph(InMemorySaver(), pay).ainvoke({"entries": []}, CONFIG) == {"entries": ["charge 2 #1"]}


@in_memory
def test_under_exit_durability_it_is_recorded_as_far_as_there_is_a_checkpoint(
    saver: BaseCheckpointSaver[Any], world: World
) -> None:
    def pay(state: Log) -> Log:
        first = petal.step("charge", world.act, "charge")
        return {"entries": [first, interrupt("ok?"), petal.step("charge", world.act, "charge"), interrupt("again?")]}

    flow = graph(saver, pay)
    flow.invoke({"entries": []}, CONFIG, durability="exit")
    assert recorded(saver) == []
    flow.invoke(Command(resume="yes"), CONFIG, durability="exit")
    result = flow.invoke(Command(resume="no"), CONFIG, durability="exit")
    assert result == {"entries": ["charge 0 #2", "yes", "charge 0 #3", "no"]}
    assert world.keys[0] == world.keys[1]


def test_subgraphs_that_keep_a_state_of_their_own(saver: BaseCheckpointSaver[Any], world: World) -> None:
    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", world.act, "charge"), interrupt("ok?")]}

    built = StateGraph(Log)
    built.add_node("inner", graph(True, pay))
    built.add_edge(START, "inner")
    flow = built.compile(checkpointer=saver)
    flow.invoke({"entries": []}, CONFIG)
    flow.invoke(Command(resume="yes"), CONFIG)
    assert len(world.acts) == 1


def test_the_functional_api(saver: BaseCheckpointSaver[Any], world: World) -> None:
    @task
    def charge(amount: int) -> str:
        done = petal.step("charge", world.act, "charge", amount)
        return f"{done} {interrupt('ok?')}"

    @entrypoint(checkpointer=saver)
    def shop(amounts: list[int]) -> list[str]:
        mailed = petal.step("mail", world.act, "mail")
        return [mailed, *(charge(amount).result() for amount in amounts)]

    shop.invoke([1, 2], CONFIG)
    shop.invoke(Command(resume="a"), CONFIG)
    assert shop.invoke(Command(resume="b"), CONFIG) == ["mail 0 #1", "charge 1 #2 a", "charge 2 #3 b"]
    assert len(world.acts) == 3


def test_an_effect_waits_for_an_input_that_could_not_be_saved(
    storage: CheckpointerConfig, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of LangGraph's functional API runs right behind its input, for which nobody has waited yet."""
    ran = []

    def full(saves: Any) -> None:
        assert saves[0].is_ahead
        time.sleep(0.05)
        raise OSError("no room")

    with open_checkpointer(storage) as saver:

        @entrypoint(checkpointer=saver)
        def shop(amount: int) -> str:
            ran.append(amount)
            return petal.step("charge", world.act, "charge", amount)

        assert saver.get_tuple(CONFIG) is None
        monkeypatch.setattr(saver._engine.store, "commit", full)
        with pytest.raises(OSError, match="no room"):
            shop.invoke(1, CONFIG, durability="sync")
    assert (ran, world.acts) == ([1], [])


@in_memory
def test_a_subgraph_that_keeps_nothing_records_nothing(saver: BaseCheckpointSaver[Any], world: World) -> None:
    def pay(state: Log) -> Log:
        return {"entries": [petal.step("charge", world.act, "charge")]}

    built = StateGraph(Log)
    built.add_node("inner", graph(False, pay))
    built.add_edge(START, "inner")
    built.compile(checkpointer=saver).invoke({"entries": []}, CONFIG)
    assert (len(world.acts), recorded(saver)) == (1, [])
