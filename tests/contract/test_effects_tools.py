"""Tool calls are recorded, answered from the record, asked about and listed, for each kind of step that has tools."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.prebuilt import InjectedState, ToolRuntime
from langgraph.types import Command, interrupt

import petal
from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import EffectNotRecordedError, UnknownEffectError
from petal.testing import ScriptedChatModel
from petal.tools.ledger import ToolCallRecord, recorded_calls
from petal.types.state import DefaultState

charged: list[tuple[int, str]] = []
KINDS = ["llm", "react"]
each_kind = pytest.mark.parametrize("kind", KINDS)


class Killed(BaseException):
    """Stands for the end of the process."""


killing: list[int] = []
"""The amounts whose calls end so, each when all of them have begun."""


@tool
def charge(amount: int) -> str:
    """Charge an amount."""
    charged.append((amount, petal.idempotency_key()))
    if amount in killing:
        killing.remove(amount)
        while killing:
            time.sleep(0.001)
        raise Killed
    return f"charged {amount}"


@tool
async def acharge(amount: int) -> str:
    """Charge an amount, later."""
    await asyncio.sleep(0)
    return str(charge.invoke({"amount": amount}))


@tool
def confirm(amount: int) -> str:
    """Charge an amount if a human agrees."""
    return f"{interrupt(f'charge {amount}?')}: {charge.invoke({'amount': amount})}"


@tool
def look(state: Annotated[Any, InjectedState], runtime: ToolRuntime) -> str:
    """Tell what was said."""
    messages = state["messages"] if isinstance(state, dict) else state.messages
    return f"{messages[0].text} {runtime.tool_call_id}"


@tool
def remember(call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Put something into the state."""
    return Command(update={"messages": [ToolMessage("remembered", tool_call_id=call_id, name="remember")]})


@tool
def fail() -> str:
    """Fail."""
    raise ConnectionError("down")


@tool
async def slow() -> str:
    """Take longer than what is beside it."""
    for _ in range(100):
        await asyncio.sleep(0)
    return "ended"


TOOLS = [charge, acharge, confirm, look, remember, fail, slow]


@pytest.fixture(autouse=True)
def nothing_charged() -> None:
    charged.clear()
    killing.clear()


def asks(*calls: tuple[str, str, dict[str, Any]]) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": id} for name, id, args in calls])


def built(kind: str, storage: Any, *replies: Any, unknown: Any = "run") -> Agent:
    factory = AgentFactory(DefaultState)
    model = ScriptedChatModel(replies=list(replies))
    if kind == "tool":
        factory.add(lambda state: {"messages": [replies[0]]}, "ask").with_tool_step(TOOLS)
    elif kind == "llm":
        factory.with_chat(llm=model).with_tools(TOOLS)
    else:
        factory.with_react_loop(TOOLS, llm=model)
    return factory.with_unknown_calls(unknown).with_checkpointer(storage).build()


async def results(agent: Agent) -> list[str]:
    messages = (await agent.thread("t").astate()).values["messages"]
    return [message.text for message in messages if isinstance(message, ToolMessage)]


@pytest.mark.parametrize("kind", [*KINDS, "tool"])
async def test_a_tool_that_ended_beside_one_that_asks_is_not_called_again(
    kind: str, storage: CheckpointerConfig
) -> None:
    calls = asks(("charge", "1", {"amount": 1}), ("confirm", "2", {"amount": 2}), ("acharge", "3", {"amount": 3}))
    async with built(kind, storage, calls, "Done.") as agent:
        thread = agent.thread("t")
        await thread.ainvoke("Hello")
        assert {call.name: call.status for call in await thread.atool_calls()}["confirm"] == "open"
        await thread.aresume("yes")
        assert await results(agent) == ["charged 1", "yes: charged 2", "charged 3"]
        assert sorted(amount for amount, _ in charged) == [1, 2, 3]
        assert len({key for _, key in charged}) == 3
        found = await thread.atool_calls()
        assert [(call.id, call.name, call.arguments, call.status, call.result) for call in found] == [
            ("1", "charge", {"amount": 1}, "done", "charged 1"),
            ("2", "confirm", {"amount": 2}, "done", "yes: charged 2"),
            ("3", "acharge", {"amount": 3}, "done", "charged 3"),
        ]
        assert [call.attempt for call in found][:2] == [1, 2]
        assert {call.idempotency_key for call in found} == {key for _, key in charged}
        for call in found:
            assert call.started is not None
            assert call.started.tzinfo is UTC
            assert call.duration is not None
            assert call.kind == "tool"
            assert call.checkpoint_id


@pytest.mark.parametrize("kind", [*KINDS, "tool"])
@pytest.mark.parametrize("place", [0, 1])
async def test_a_tool_beside_one_that_asks_may_end(kind: str, place: int, storage: CheckpointerConfig) -> None:
    calls = [("confirm", "1", {"amount": 1}), ("slow", "2", {})]
    async with built(kind, storage, asks(*calls[place:], *calls[:place]), "Done.") as agent:
        await agent.thread("t").ainvoke("Hello")
        assert {call.id: call.status for call in await agent.thread("t").atool_calls()} == {"1": "open", "2": "done"}


@pytest.mark.parametrize("kind", ["llm", "tool"])
async def test_a_tool_beside_those_that_fail_may_end(kind: str) -> None:
    calls = asks(("fail", "1", {}), ("slow", "2", {}), ("fail", "3", {}))
    async with built(kind, "memory://", calls, "Done.") as agent:
        with pytest.raises(ConnectionError):
            await agent.thread("t").ainvoke("Hello")
        found = {call.id: call.status for call in await agent.thread("t").atool_calls()}
        assert found == {"1": "failed", "2": "done", "3": "failed"}


def test_two_questions_of_one_tool_step_go_to_their_own(storage: CheckpointerConfig) -> None:
    calls = asks(("confirm", "1", {"amount": 1}), ("confirm", "2", {"amount": 2}))
    with built("tool", storage, calls) as agent:
        thread = agent.thread("t")
        asked = [thread.invoke("Hello")["__interrupt__"][0].value]
        asked.append(thread.resume("a")["__interrupt__"][0].value)
        thread.resume("b")
        answers = {call.id: call.result for call in thread.tool_calls()}
    assert sorted(asked) == ["charge 1?", "charge 2?"]
    expected = dict(zip(asked, "ab", strict=True))
    assert answers == {"1": f"{expected['charge 1?']}: charged 1", "2": f"{expected['charge 2?']}: charged 2"}
    assert sorted(amount for amount, _ in charged) == [1, 2]


@each_kind
async def test_what_tools_are_given_and_give_is_as_before(kind: str) -> None:
    calls = asks(("look", "1", {}), ("remember", "2", {}), ("nothing", "3", {}), ("charge", "4", {"amount": "x"}))
    async with built(kind, "memory://", calls, "Done.") as agent:
        await agent.ainvoke("Hello", thread_id="t")
        found = await agent.thread("t").atool_calls()
    assert [(call.status, call.result) for call in found][:2] == [("done", "Hello 1"), ("done", "remembered")]
    assert [call.status for call in found][2:] == ["failed", "failed"]
    assert [call.error == call.result for call in found][2:] == [True, True]


@pytest.mark.parametrize("kind", [*KINDS, "tool"])
def test_a_tool_that_raises_is_called_again(kind: str) -> None:
    with built(kind, "memory://", asks(("fail", "1", {})), "Done.") as agent:
        thread = agent.thread("t")
        for attempt in (1, 2):
            with pytest.raises(ConnectionError):
                thread.invoke("Hello") if attempt == 1 else thread.resume()
            (call,) = thread.tool_calls()
            assert (call.status, call.error, call.attempt) == ("failed", "ConnectionError: down", attempt)


def killed(kind: str, storage: Any, *amounts: int, unknown: str) -> Agent:
    """An agent whose tools began and never ended."""
    calls = asks(*(("charge", str(amount), {"amount": amount}) for amount in amounts))
    agent = built(kind, storage, calls, "Done.", unknown=unknown)
    config = agent.thread("t").config()
    for at, amount in enumerate(amounts):
        killing[:] = [amount]
        with pytest.raises(Killed):
            agent.graph.invoke(None if at else {"messages": [HumanMessage("Hello")]}, config, durability="sync")
    return agent


@pytest.mark.parametrize("kind", [*KINDS, "tool"])
def test_an_unknown_call_is_made_again_under_its_key(kind: str, durable_storage: CheckpointerConfig) -> None:
    with killed(kind, durable_storage, 1, unknown="run") as agent:
        thread = agent.thread("t")
        assert [call.status for call in thread.tool_calls()] == ["unknown"]
        thread.resume()
        assert [(call.status, call.attempt) for call in thread.tool_calls()] == [("done", 2)]
        assert [amount for amount, _ in charged] == [1, 1]
        assert len({key for _, key in charged}) == 1


@pytest.mark.parametrize("kind", [*KINDS, "tool"])
def test_an_unknown_call_can_fail_or_be_asked_about(kind: str) -> None:
    with killed(kind, "memory://", 1, unknown="fail") as agent, pytest.raises(UnknownEffectError):
        agent.thread("t").resume()
    with killed(kind, "memory://", 1, unknown="ask") as agent:
        thread = agent.thread("t")
        asked = thread.resume()["__interrupt__"][0].value
        assert (asked["effect"], asked["arguments"]) == ("charge", {"amount": 1})
        thread.resume({"result": 8})
        assert [(call.status, call.result) for call in thread.tool_calls()] == [("done", "8")]
        assert [amount for amount, _ in charged] == [1, 1]  # once for each of the two agents


def test_several_unknown_calls_are_asked_about_in_their_order() -> None:
    calls = asks(*(("charge", f"{amount}", {"amount": amount}) for amount in (1, 2)))
    with built("tool", "memory://", calls, unknown="ask") as agent:
        thread = agent.thread("t")
        killing[:] = [1, 2]
        with pytest.raises(Killed):
            agent.graph.invoke({"messages": [HumanMessage("Hello")]}, thread.config(), durability="sync")
        assert [call.status for call in thread.tool_calls()] == ["unknown", "unknown"]
        assert thread.resume()["__interrupt__"][0].value["arguments"] == {"amount": 1}
        assert thread.resume("run")["__interrupt__"][0].value["arguments"] == {"amount": 2}
        thread.resume({"result": "charged by hand"})
        found = [(call.id, call.result) for call in thread.tool_calls()]
        assert found == [("1", "charged 1"), ("2", "charged by hand")]
        assert sorted(amount for amount, _ in charged) == [1, 1, 2]


@each_kind
async def test_a_dry_run_calls_nothing(kind: str, storage: CheckpointerConfig) -> None:
    """Also where the model gives the same calls other ids."""

    def replies() -> list[Any]:
        return [asks(("charge", "1", {"amount": 1})), "One.", asks(("remember", "2", {})), "Two."]

    again = [asks(("charge", "x", {"amount": 1}), ("remember", "z", {})), "One.", asks(("charge", "y", {"amount": 2}))]
    async with built(kind, storage, *replies(), *again) as agent:
        thread = agent.thread("t")
        await thread.ainvoke("Hello")
        history = await thread.ahistory()
        start = next(one for one in reversed(history) if one.values.get("messages"))
        at = start.config["configurable"]["checkpoint_id"]
        await thread.ainvoke("Hello again")
        await thread.ainvoke(None, checkpoint_id=at, replay="dry")
        assert await results(agent) == ["charged 1", "remembered"]
        with pytest.raises(EffectNotRecordedError, match="'charge' with amount=2 cannot be answered"):
            await thread.ainvoke("More", replay="dry")
        assert [amount for amount, _ in charged] == [1]


def test_older_conversations_are_told_of_too() -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    said = [
        asks(("charge", "1", {"amount": 1}), ("charge", "2", {"amount": 2})),
        ToolMessage("charged 1", tool_call_id="1"),
        ToolMessage("no", tool_call_id="2", status="error"),
        asks(("charge", "1", {"amount": 3}), ("charge", "4", {"amount": 4})),
        ToolMessage("charged 3", tool_call_id="1"),
        asks(("charge", "5", {"amount": 5})),
    ]
    recorded = [
        ToolCallRecord("4", "charge", {"amount": 4}, "unknown", started=time, attempt=1),
        ToolCallRecord(None, "mail", {}, "done", {"sent": 1}, kind="step", started=time, attempt=1),
        ToolCallRecord("1", "charge", {"amount": 3}, "done", said[4], started=time, attempt=2),
    ]
    found = recorded_calls({"messages": said}, recorded)
    assert [(call.name, call.id, call.status, call.result, call.attempt) for call in found] == [
        ("charge", "1", "done", "charged 3", None),
        ("charge", "2", "failed", "no", None),
        ("charge", "1", "done", "charged 3", 2),
        ("mail", None, "done", {"sent": 1}, 1),
        ("charge", "4", "unknown", None, 1),
        ("charge", "5", "open", None, None),
    ]
