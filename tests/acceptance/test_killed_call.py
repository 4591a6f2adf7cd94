"""A process is killed with SIGKILL between a model's answer and the tool's; the thread takes further turns."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.types.state import DefaultState

pytestmark = pytest.mark.usefixtures("unmeasured")
SCRIPT = Path(__file__).with_name("killed_call.py")


def charge(amount: int) -> str:
    """Charge an amount."""
    return f"charged {amount}"


def built(storage: CheckpointerConfig, kind: str, policy: Any = "error") -> Agent:
    factory = AgentFactory(DefaultState)
    if kind == "llm":
        factory.with_chat(llm="openai:gpt-4o").with_tools([charge])
    else:
        factory.with_react_loop([charge], llm="openai:gpt-4o")
    return factory.with_dangling_calls(policy).with_checkpointer(storage).build()


def die(storage: CheckpointerConfig, kind: str, when: str, openai: Any) -> None:
    openai.call_tool("charge", amount=3)
    assert storage.config is not None
    url = storage.config.get("connection_string") or f"sqlite:///{storage.config['db_file']}"
    died = subprocess.run([sys.executable, str(SCRIPT), url, kind, when], capture_output=True, text=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died.stderr


def told(agent: Agent) -> list[str]:
    return [f"{one.type}: {one.text}" for one in agent.thread("t").state().values["messages"]]


@pytest.mark.parametrize(
    ("durable_storage", "kind", "when"),
    [("sqlite", "llm", "before"), ("postgres", "llm", "within"), ("postgres", "react", "within")],
    indirect=["durable_storage"],
)
def test_new_input_after_a_kill(durable_storage: CheckpointerConfig, kind: str, when: str, openai: Any) -> None:
    """An llm step had its call in the state: it is answered. A loop had not: nothing is left of it."""
    die(durable_storage, kind, when, openai)
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


@pytest.mark.parametrize("durable_storage", ["sqlite"], indirect=True)
def test_a_call_that_a_kill_forestalled_is_run(durable_storage: CheckpointerConfig, openai: Any) -> None:
    die(durable_storage, "llm", "before", openai)
    openai.reply("You were charged.")
    with built(durable_storage, "llm", "run") as agent:
        agent.invoke("Well?", thread_id="t")
        assert told(agent)[1:] == ["ai: ", "tool: charged 3", "human: Well?", "ai: You were charged."]


@pytest.mark.parametrize("durable_storage", ["sqlite"], indirect=True)
def test_a_resumed_loop_answers_its_call_itself(durable_storage: CheckpointerConfig, openai: Any) -> None:
    """Nothing is mended while the tool is still to come."""
    die(durable_storage, "react", "before", openai)
    openai.reply("You were charged.")
    with built(durable_storage, "react") as agent:
        agent.thread("t").resume()
        assert told(agent) == ["human: Charge 3.", "ai: ", "tool: charged 3", "ai: You were charged."]
