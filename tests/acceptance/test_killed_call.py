"""A process is killed with SIGKILL between a model's answer and the next step; the thread takes further turns."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from nursery import Nursery

from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.types.state import DefaultState

pytestmark = pytest.mark.usefixtures("unmeasured")
SCRIPT = Path(__file__).with_name("killed_call.py")


charged: list[int] = []


@pytest.fixture(autouse=True)
def nothing_charged() -> None:
    charged.clear()


def charge(amount: int) -> str:
    """Charge an amount."""
    charged.append(amount)
    return f"charged {amount}"


def built(storage: CheckpointerConfig, kind: str, policy: Any = "error") -> Agent:
    factory = AgentFactory(DefaultState)
    if kind == "llm":
        factory.with_chat(llm="openai:gpt-4o").with_tools([charge])
    else:
        factory.with_react_loop([charge], llm="openai:gpt-4o")
    return factory.with_dangling_calls(policy).with_checkpointer(storage).build()


Die = Callable[..., None]


@pytest.fixture
def die(nursery: Nursery, openai: Any) -> Die:
    """Has a process call a tool and die."""
    return partial(_die, nursery, openai)


def _die(nursery: Nursery, openai: Any, storage: CheckpointerConfig, kind: str, when: str) -> None:
    openai.call_tool("charge", amount=3)
    assert storage.config is not None
    url = storage.config.get("connection_string") or f"sqlite:///{storage.config['db_file']}"
    died = nursery.run([str(SCRIPT), url, kind, when])
    assert died.returncode == -signal.SIGKILL, died.stderr


def told(agent: Agent) -> list[str]:
    return [f"{one.type}: {one.text}" for one in agent.thread("t").state().values["messages"]]


@pytest.mark.parametrize(("kind", "when"), [("llm", "before"), ("llm", "within"), ("react", "within")])
def test_new_input_after_a_kill(
    die: Die, durable_storage: CheckpointerConfig, kind: str, when: str, openai: Any
) -> None:
    """An llm step had its call in the state: it is answered. A loop had not: nothing is left of it."""
    die(durable_storage, kind, when)
    openai.reply("Here.", "Bye.")
    with built(durable_storage, kind) as agent:
        thread = agent.thread("t")
        thread.invoke("Still there?")
        thread.invoke("Bye.")
        calls = [one.tool_calls for one in thread.state().values["messages"] if isinstance(one, AIMessage)]
        if kind == "llm":
            assert [[call["name"] for call in asked] for asked in calls] == [["charge"], [], []]
            assert [line[:43] for line in told(agent)[:3]] == [
                "human: Charge 3.",
                "ai: ",
                "tool: The call of 'charge' was interrupted ",
            ]
        assert told(agent)[-4:] == ["human: Still there?", "ai: Here.", "human: Bye.", "ai: Bye."]


@pytest.mark.parametrize("policy", ["error", "run", "ask"])
def test_a_call_that_had_ended_is_answered_from_the_record(
    die: Die, durable_storage: CheckpointerConfig, policy: str, openai: Any
) -> None:
    """Its process was killed between the record of its end and all that its step saves."""
    die(durable_storage, "llm", "behind")
    openai.reply("You were charged.")
    with built(durable_storage, "llm", policy) as agent:
        assert told(agent) == ["human: Charge 3.", "ai: "]
        agent.invoke("Well?", thread_id="t")
        assert told(agent)[2:] == ["tool: charged 3", "human: Well?", "ai: You were charged."]
        (result,) = [one for one in agent.thread("t").state().values["messages"] if one.type == "tool"]
        assert (result.name, result.status) == ("charge", "success")
    assert charged == []


@pytest.mark.parametrize("kind", ["llm", "react"])
def test_a_resumed_step_takes_the_record_too(
    die: Die, durable_storage: CheckpointerConfig, kind: str, openai: Any
) -> None:
    die(durable_storage, kind, "behind")
    openai.reply("You were charged.")
    with built(durable_storage, kind) as agent:
        agent.thread("t").resume()
        assert told(agent) == ["human: Charge 3.", "ai: ", "tool: charged 3", "ai: You were charged."]
    assert charged == []


def test_a_call_that_a_kill_forestalled_is_run(die: Die, durable_storage: CheckpointerConfig, openai: Any) -> None:
    die(durable_storage, "llm", "before")
    openai.reply("You were charged.")
    with built(durable_storage, "llm", "run") as agent:
        agent.invoke("Well?", thread_id="t")
        assert told(agent)[1:] == ["ai: ", "tool: charged 3", "human: Well?", "ai: You were charged."]


def test_a_resumed_loop_answers_its_call_itself(die: Die, durable_storage: CheckpointerConfig, openai: Any) -> None:
    """Nothing is mended while the tool is still to come."""
    die(durable_storage, "react", "before")
    openai.reply("You were charged.")
    with built(durable_storage, "react") as agent:
        agent.thread("t").resume()
        assert told(agent) == ["human: Charge 3.", "ai: ", "tool: charged 3", "ai: You were charged."]
