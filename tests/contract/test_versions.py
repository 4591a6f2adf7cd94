"""State of earlier versions of an agent, on every storage: migrated when it is loaded, or a typed error."""

from __future__ import annotations

import asyncio
import copy
import operator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from pydantic import BaseModel

from petal.checkpoints import open_checkpointer
from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec, RawValue
from petal.checkpoints.leniency import raw_in
from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import (
    AgentConfigurationError,
    CheckpointCorruptionError,
    CheckpointerError,
    MigrationError,
    StateVersionError,
    StepGoneError,
)


class One(TypedDict, total=False):
    n: int
    log: Annotated[list[str], operator.add]


class Two(TypedDict, total=False):
    amount: float
    log: Annotated[list[str], operator.add]


class Three(TypedDict, total=False):
    cents: int
    log: Annotated[list[str], operator.add]


def first(state: One) -> One:
    return {"n": state["n"] + 1, "log": [f"one {state['n']}"]}


def second(state: Two) -> Two:
    return {"amount": state["amount"] + 0.5, "log": [f"two {state['amount']}"]}


def third(state: Three) -> Three:
    return {"cents": state["cents"] + 1, "log": [f"three {state['cents']}"]}


def to_two(values: dict[str, Any]) -> dict[str, Any]:
    if "n" in values:
        values["amount"] = float(values.pop("n"))
    return values


def to_three(values: dict[str, Any]) -> dict[str, Any]:
    amount = values.pop("amount", None)
    return values if amount is None else {**values, "cents": round(amount * 100)}


def v1(storage: Any, *steps: Any) -> Agent:
    factory = AgentFactory(One)
    for step in steps or (first,):
        factory.add(step, "step" if not steps else None)
    return factory.with_checkpointer(storage).build()


def v2(storage: Any, step: Any = second, migration: Any = to_two) -> Agent:
    factory = AgentFactory(Two).add(step, "step").with_version(2).with_migration(1, 2, migration)
    return factory.with_checkpointer(storage).build()


def v3(storage: Any) -> Agent:
    factory = AgentFactory(Three).add(third, "step").with_version(3)

    @factory.migration(2, 3)
    def up(values: dict[str, Any]) -> dict[str, Any]:
        return to_three(values)

    return factory.with_migration(1, 2, to_two).with_checkpointer(storage).build()


@pytest.fixture
def saver(storage: CheckpointerConfig) -> Any:
    """A saver that the agents of a test share, as versions share a database."""
    with open_checkpointer(storage) as saver:
        yield saver


@pytest.fixture(params=["petal", "langgraph"])
def either(request: pytest.FixtureRequest) -> Any:
    """A saver of ours, and one of LangGraph's that keeps each version of a channel apart."""
    if request.param == "langgraph":
        yield InMemorySaver()
        return
    with open_checkpointer("memory://") as saver:
        yield saver


async def test_older_state_is_migrated_when_it_is_loaded(saver: Any) -> None:
    """In order, for runs, states, histories and edits; what lies in the database changes only with the next save."""
    await v1(saver).ainvoke({"n": 1}, thread_id="t")
    last = await v1(saver).thread("t").astate()
    thread = v3(saver).thread("t")
    assert (await thread.astate()).values == {"cents": 200, "log": ["one 1"]}
    assert [state.values.get("cents") for state in await thread.ahistory()] == [200, 100, None]
    assert (await v1(saver).thread("t").astate()) == last
    await thread.ainvoke({"log": ["more"]})
    assert (await thread.astate()).values == {"cents": 201, "log": ["one 1", "more", "three 200"]}
    assert (await v3(saver).thread("t").astate()).values["cents"] == 201
    with pytest.raises(StateVersionError) as caught:
        await v1(saver).ainvoke({"n": 1}, thread_id="t")
    assert type(caught.value) is StateVersionError
    assert (caught.value.thread_id, caught.value.found, caught.value.version) == ("t", 3, 1)
    assert (await thread.astate()).values["cents"] == 201


async def test_what_was_migrated_stays_so(either: Any) -> None:
    """Through each way to save: an edit, a rewind to a first and to a later state, a fork, a run from a checkpoint."""
    old = v1(either)
    for _ in range(2):
        await old.ainvoke({"n": 1}, thread_id="t")
    new = v2(either)
    thread = new.thread("t")
    await thread.aupdate({"log": ["edited"]})
    assert (await thread.astate()).values == {"amount": 2.0, "log": ["one 1", "one 1", "edited"]}
    for state in await thread.ahistory():
        rewound = await thread.arewind(to=state.config["configurable"]["checkpoint_id"])
        assert rewound.values == state.values
        assert (await v2(either).thread("t").astate()).values == state.values
    oldest = (await thread.ahistory())[-2].config["configurable"]["checkpoint_id"]
    result = await thread.ainvoke(None, checkpoint_id=oldest)
    assert result == (await thread.astate()).values == {"amount": 1.5, "log": ["two 1.0"]}


async def test_a_copy_that_langgraph_makes_is_of_the_new_version(either: Any) -> None:
    """But input that no step has seen is not passed off as one of it."""
    await v1(either).ainvoke({"n": 1}, thread_id="t")
    thread = v2(either).thread("t")
    last, before, entered = await thread.ahistory()
    for state in (before, last):
        await thread.agent.graph.aupdate_state(state.config, None, as_node="__copy__")
        assert (await v2(either).thread("t").astate()).values == state.values
    with pytest.raises(MigrationError, match="what was left for 'n' is of version 1"):
        await thread.agent.graph.aupdate_state(entered.config, None, as_node="__copy__")
    assert (await v2(either).thread("t").astate()).values == last.values
    told = [state.metadata["petal_agent"]["version"] for state in await thread.ahistory()]
    assert told == [2, 2, 1, 1, 1]


async def test_a_run_that_was_cut_off_goes_on_in_the_new_shape(either: Any) -> None:
    """Also if it fails again: then its newest checkpoint is still the old one."""

    def fails(state: One) -> One:
        raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        await v1(either, first, fails).ainvoke({"n": 1}, thread_id="t")
    outage = [True]

    def again(state: Two) -> Two:
        if outage.pop() if outage else False:
            raise ConnectionError("down")
        return {"amount": state["amount"] + 1}

    new = (
        AgentFactory(Two)
        .add(second, "first")
        .add(again, "fails")
        .with_version(2)
        .with_migration(1, 2, to_two)
        .with_checkpointer(either)
        .build()
    )
    with pytest.raises(ConnectionError):
        await new.thread("t").aresume()
    assert await new.thread("t").aresume() == {"amount": 3.0, "log": ["one 1"]}


async def test_an_open_question_is_answered_in_the_new_shape(saver: Any) -> None:
    def ask(state: Any) -> Any:
        return {"log": [interrupt("Sure?")]}

    asked = await v1(saver, first, ask).ainvoke({"n": 1}, thread_id="t")
    new = AgentFactory(Two).add(second, "first").add(ask).with_version(2).with_migration(1, 2, to_two)
    thread = new.with_checkpointer(saver).build().thread("t")
    result = await thread.aresume("yes", asked["__interrupt__"][0].id)
    assert result == (await thread.astate()).values == {"amount": 2.0, "log": ["one 1", "yes"]}


class Left:
    """A graph of two steps side by side, of which one can be made to fail, when what the other wrote is saved."""

    def __init__(self, state: type, wrote: dict[str, Any]) -> None:
        self.down, self.runs, self.wrote, self.state = True, 0, wrote, state
        self.saver: Any = None

    def writes(self, state: Any) -> Any:
        self.runs += 1
        return self.wrote

    async def fails(self, state: Any) -> Any:
        if not self.down:
            return {"log": ["came up"]}
        for _ in range(4000):
            if self.wrote.keys() <= await self.left():
                raise ConnectionError("down")
            await asyncio.sleep(0.005)
        raise AssertionError(f"{self.wrote} was never saved")

    async def left(self) -> set[str]:
        """The channels of what is saved behind the newest checkpoint."""
        newest = await self.saver.aget_tuple({"configurable": {"thread_id": get_config()["configurable"]["thread_id"]}})
        return {channel for _, channel, _ in newest.pending_writes}

    def built(self, saver: Any, version: int = 1) -> Agent:
        self.saver, factory = saver, AgentFactory(self.state).add(lambda state: {}, "begin")
        factory.with_condition(lambda state: ["writes", "fails"], {"writes": "writes", "fails": "fails"})
        factory.add(self.writes, "writes").with_next(END).add(self.fails, "fails").with_version(version)
        if version > 1:
            factory.with_migration(1, 2, to_two)
        if version > 2:
            factory.with_migration(2, 3, to_three)
        return factory.with_checkpointer(saver).build()


async def test_what_a_finished_sibling_left_is_kept_or_refused(either: Any) -> None:
    """It is part of a state only: where migrations would change it, a run does not go on with half of it."""
    old = Left(One, {"n": 7})
    with pytest.raises(ConnectionError):
        await old.built(either).ainvoke({"n": 1}, thread_id="changed")
    with pytest.raises(MigrationError) as caught:
        await Left(Two, {}).built(either, 2).thread("changed").aresume()
    assert "what was left for 'n' is of version 1" in str(caught.value)
    old.down = False
    assert (await old.built(either).thread("changed").aresume())["n"] == 7
    assert old.runs == 1

    old = Left(One, {"log": ["left"]})
    with pytest.raises(ConnectionError):
        await old.built(either).ainvoke({"n": 1}, thread_id="same")
    new = Left(Two, {})
    new.down = False
    result = await new.built(either, 2).thread("same").aresume()
    assert (result["amount"], sorted(result["log"]), new.runs) == (1.0, ["came up", "left"], 0)


async def test_what_a_newer_sibling_left_on_an_old_checkpoint_counts_as_new(either: Any) -> None:
    old = Left(One, {})
    old.writes = old.fails  # type: ignore[assignment, method-assign]
    with pytest.raises(ConnectionError):
        await old.built(either).ainvoke({"n": 1}, thread_id="t")
    new = Left(Two, {"amount": 9.0})
    with pytest.raises(ConnectionError):
        await new.built(either, 2).thread("t").aresume()
    with pytest.raises(MigrationError, match="what was left for 'amount' is of version 2"):
        await Left(Three, {}).built(either, 3).thread("t").aresume()
    new.down = False
    assert (await new.built(either, 2).thread("t").aresume())["amount"] == 9.0
    assert new.runs == 1


@pytest.mark.parametrize(
    ("migration", "problem"),
    [
        (lambda values: values["nothing"], "KeyError: 'nothing'"),
        (lambda values: None, "the migration returned a NoneType, not the dict of the values."),
    ],
)
async def test_a_migration_that_fails_is_named_and_changes_nothing(saver: Any, migration: Any, problem: str) -> None:
    await v1(saver).ainvoke({"n": 1}, thread_id="t")
    before = await v1(saver).thread("t").ahistory()
    new = v2(saver, migration=migration)
    for act in (new.thread("t").astate, lambda: new.ainvoke({"amount": 1.0}, thread_id="t"), new.thread("t").ahistory):
        with pytest.raises(MigrationError) as caught:
            await act()
        assert caught.value.thread_id == "t"
        assert str(caught.value).endswith(f"cannot be brought from version 1 of the agent to 2: {problem}")
    assert caught.value.checkpoint_id == before[0].config["configurable"]["checkpoint_id"]
    assert await v1(saver).thread("t").ahistory() == before


def test_a_way_that_is_missing_is_said_when_the_agent_is_built() -> None:
    def failure(*migrations: tuple[int, int], version: int = 3) -> str:
        factory = AgentFactory(One).add(first).with_version(version)
        for start, to in migrations:
            factory.with_migration(start, to, to_two)
        with pytest.raises(AgentConfigurationError) as caught:
            factory.build()
        return str(caught.value)

    assert failure((1, 2)) == (
        "Agent 'agent' is of version 3, and no migration leads on from version 2; add one, from 2 to 3 or later."
    )
    assert failure((1, 2), (1, 3)) == "Agent 'agent' has two migrations from version 1; keep one."
    assert failure((1, 2), version=1) == (
        "Agent 'agent' has a migration to version 2, but is of version 1; "
        "raise the version, or leave the migration out."
    )
    factory = AgentFactory(One)
    with pytest.raises(AgentConfigurationError, match="a whole number from 1 on, not 0"):
        factory.with_version(0)
    with pytest.raises(AgentConfigurationError, match="leads to a later version, not from 2 to 2"):
        factory.with_migration(2, 2, to_two)
    with pytest.raises(AgentConfigurationError, match="a function of the state's values, not 'to_two'"):
        factory.with_migration(1, 2, "to_two")  # type: ignore[arg-type]


def test_versions_stand_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text("def up(values):\n    return {**values, 'input': 'moved'}\n")
    text = (
        "state_type: DefaultState\nversion: 2\n"
        "migrations:\n  - {from: 1, to: 2, function: 'shapes:up'}\n"
        "steps:\n  - {type: llm, name: chat, config: {llm: 'demo:'}}\n"
    )
    (tmp_path / "agent.yaml").write_text(text)
    config = AgentFactory.from_yaml(tmp_path / "agent.yaml").config
    assert (config.version, config.migrations[0].function({})) == (2, {"input": "moved"})
    (tmp_path / "agent.yaml").write_text(text.replace("version: 2", "version: 3"))
    with pytest.raises(
        AgentConfigurationError, match=r"agent.yaml:3: migrations: .* no migration leads on from version 2"
    ):
        AgentFactory.from_yaml(tmp_path / "agent.yaml")


def test_a_type_that_changed_comes_raw_to_migrations(saver: Any) -> None:
    """And nothing raw is left behind; of the agent's own version it is an error still."""
    before, after = prices()

    def up(values: dict[str, Any]) -> dict[str, Any]:
        if "price" in values:
            values["price"] = after(values["price"].data["amount"], "EUR")
        return values

    def agent(price: type, version: int = 1, migration: Any = up) -> Any:
        class Shop(TypedDict, total=False):
            price: Any

        factory = AgentFactory(Shop).add(lambda state: {}, "step").with_version(version)
        if version > 1:
            factory.with_migration(1, 2, migration)
        allowed = open_checkpointer_on(saver, price)
        return factory.with_checkpointer(allowed).build().thread("t")

    agent(before).invoke({"price": before(3)})
    with pytest.raises(CheckpointCorruptionError):
        agent(after).state()
    thread = agent(after, 2)
    assert thread.state().values == {"price": after(3, "EUR")}
    assert [state.values.get("price") for state in thread.history()] == [after(3, "EUR"), after(3, "EUR"), None]
    graph, config = thread.agent.graph, thread.config()
    assert graph.get_state(config).values == {"price": after(3, "EUR")}
    assert [state.values.get("price") for state in graph.get_state_history(config)] == [after(3, "EUR")] * 2 + [None]
    with pytest.raises(CheckpointCorruptionError):
        agent(after).agent.graph.get_state(config)
    with pytest.raises(MigrationError, match=r"'price' still holds what was saved of a .*Price"):
        agent(after, 2, lambda values: values).state()
    thread.update({})
    assert thread.state().values == {"price": after(3, "EUR")}
    assert agent(after, 2, lambda values: values).state().values == {"price": after(3, "EUR")}


@pytest.mark.parametrize("around", [lambda raw: raw, lambda raw: {"k": [raw]}, lambda raw: (1, {raw}), lambda raw: 1])
def test_what_could_not_be_made_is_found_wherever_it_stands(around: Any) -> None:
    raw = RawValue("shop.Price", {"amount": 3})
    assert raw_in(around(raw)) == (None if around(raw) == 1 else raw)


def test_a_saver_that_only_reads_changes_nothing(untouched_storage: CheckpointerConfig) -> None:
    """Not even to make its tables; but what it reads is of the types that are allowed, or an error."""
    with open_checkpointer(untouched_storage, read_only=True) as reading, pytest.raises(CheckpointerError):
        reading.get_tuple({"configurable": {"thread_id": "t"}})
    with open_checkpointer(untouched_storage) as saver:
        v1(saver).invoke({"n": 1}, thread_id="t")
    with open_checkpointer(untouched_storage, read_only=True) as reading:
        assert [one.error for one in v1(reading).check()] == [None]
        with pytest.raises(CheckpointerError):
            v1(reading).thread("t").update({"n": 5})


def prices() -> tuple[Any, Any]:
    """One dataclass before and after a change of the code."""
    global Price

    @dataclass
    class Price:
        amount: int

    Price.__qualname__ = "Price"
    before = Price

    @dataclass
    class Price:  # type: ignore[no-redef]
        amount: int
        currency: str

    Price.__qualname__ = "Price"
    return before, Price


def open_checkpointer_on(saver: Any, kind: type) -> Any:
    """The saver, on which a type stands for its name."""
    clone = copy.copy(saver)
    clone._rows = replace(saver._rows, codec=Codec(Allowlist().adding(kind)))
    return clone


async def test_a_step_that_is_gone_is_an_error_and_not_a_silent_end(saver: Any) -> None:
    """Also of the new name's neighbours nothing runs; new input goes on."""

    def ask(state: Any) -> Any:
        return {"log": [interrupt("Sure?")]}

    def fails(state: Any) -> Any:
        raise ConnectionError("down")

    def renamed(*steps: Any) -> Agent:
        factory = AgentFactory(One)
        for step in steps:
            factory.add(step, f"new_{step.__name__}")
        return factory.with_checkpointer(saver).build()

    asked = await v1(saver, ask, first).ainvoke({"n": 1}, thread_id="asks")
    with pytest.raises(ConnectionError):
        await v1(saver, fails).ainvoke({"n": 1}, thread_id="died")
    agent = renamed(ask, first, fails)
    with pytest.raises(StepGoneError) as caught:
        await agent.thread("asks").aresume("yes")
    assert str(caught.value) == (
        "Thread 'asks' would go on at step 'ask', which the agent no longer has. Did you mean 'new_ask'? "
        "Known: new_ask, new_first, new_fails. Give the step its name back, or move the thread on with "
        "update(values, as_node=...), or send new input, which drops what was left to do."
    )
    for act in (lambda: agent.thread("died").aresume(), lambda: agent.ainvoke(None, thread_id="died")):
        with pytest.raises(StepGoneError, match="would go on at step 'fails'"):
            await act()
    with pytest.raises(StepGoneError):
        _ = [item async for item in agent.thread("asks").astream_resume("yes", asked["__interrupt__"][0].id)]
    checked = {one.thread_id: one.error async for one in agent.acheck()}
    assert [type(checked[name]) for name in ("asks", "died")] == [StepGoneError, StepGoneError]
    await renamed(first).ainvoke({"n": 5}, thread_id="died")


async def test_a_step_that_is_gone_is_found_among_sent_ones_and_within_a_graph(saver: Any) -> None:
    def inner(name: str, down: bool) -> Any:
        def step(state: One) -> One:
            if down:
                raise ConnectionError("down")
            return {"log": [name]}

        graph = StateGraph(One)
        graph.add_node("before", lambda state: {})
        graph.add_node(name, step)
        graph.add_edge(START, "before")
        graph.add_edge("before", name)
        return graph.compile()

    with pytest.raises(ConnectionError):
        await (
            AgentFactory(One)
            .add(inner("pay", True), "shop")
            .with_checkpointer(saver)
            .build()
            .ainvoke({"n": 1}, thread_id="within")
        )
    new = AgentFactory(One).add(inner("charge", False), "shop").with_checkpointer(saver).build()
    with pytest.raises(StepGoneError, match="step 'pay', which the graph of step 'shop' no longer has"):
        await new.thread("within").aresume()

    def sends(target: str, down: bool) -> Agent:
        def step(state: Any) -> Any:
            if down:
                raise ConnectionError("down")
            return {"log": ["sent"]}

        factory = AgentFactory(One).add(lambda state: {}, "begin")
        factory.with_condition(lambda state: [Send(target, {"n": 2})], {"x": "END"}).add(step, target)
        return factory.with_checkpointer(saver).build()

    with pytest.raises(ConnectionError):
        await sends("old", True).ainvoke({"n": 1}, thread_id="sent")
    with pytest.raises(StepGoneError, match="'old'"):
        await sends("new", False).thread("sent").aresume()
    assert (await sends("old", False).thread("sent").aresume())["log"] == ["sent"]


async def test_a_check_tells_which_states_no_longer_fit(saver: Any) -> None:
    class Strict(BaseModel):
        n: str = ""
        log: Annotated[list[str], operator.add] = []

    await v1(saver).ainvoke({"n": 1}, thread_id="t")
    strict = AgentFactory(Strict).add(lambda state: {}, "step").with_checkpointer(saver).build()
    (checked,) = [one async for one in strict.acheck()]
    assert "it is no Strict of today (n: Input should be a valid string)" in str(checked.error)
    assert [one.error async for one in v2(saver).acheck()] == [None]
    assert [one.error for one in v2(saver).check()] == [None]


async def test_the_metadata_says_which_agent_of_which_version_wrote_it(saver: Any) -> None:
    await v1(saver).ainvoke({"n": 1}, thread_id="t")
    await v2(saver).thread("t").aupdate({"amount": 1.0})
    told = [kept.metadata["petal_agent"] for kept in saver.list({"configurable": {"thread_id": "t"}})]
    assert told == [{"name": "agent", "version": 2}] + [{"name": "agent", "version": 1}] * 3


def test_the_graphs_saver_does_all_that_the_agents_does(saver: Any) -> None:
    """`agent.graph` is a plain graph, so what is asked of its saver is done."""
    agent = v1(saver)
    graph: Any = agent.graph
    graph.invoke({"n": 1}, {"configurable": {"thread_id": "t"}})
    kept = graph.checkpointer
    assert kept.get_tuple({"configurable": {"thread_id": "t"}}).checkpoint["channel_values"]["n"] == 2
    kept.copy_thread("t", "u")
    kept.delete_thread("t")
    assert [info.thread_id for info in kept.threads()] == ["u"]
    assert len(list(graph.get_state_history({"configurable": {"thread_id": "u"}}, limit=2))) == 2
    assert kept.with_allowlist([("fractions", "Fraction")]).inner is not saver
    with pytest.raises(AttributeError):
        _ = kept.nothing
    agent.close()
