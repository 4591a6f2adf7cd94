"""No thread is bricked by a tool call without a result: a server as strict as OpenAI's takes every further turn."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, convert_to_openai_messages
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.errors import ParentCommand
from langgraph.types import Command, interrupt
from llmock.scenarios import Reply, ToolCall
from openai import BadRequestError, OpenAI

from petal.checkpoints.notes import EFFECT, aput_note
from petal.core.agent import Agent, Thread
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import InvalidAnswerError
from petal.types.state import DefaultState

INTERRUPTED = (
    "The call of 'charge' was interrupted and never gave a result. It may have been carried out in part or in full."
)
KINDS = ["llm", "react"]

charged: list[int] = []
each_kind = pytest.mark.parametrize("kind", KINDS)


@tool
def charge(amount: int) -> str:
    """Charge an amount."""
    charged.append(amount)
    return f"charged {amount}"


@tool
def ask_first(amount: int) -> str:
    """Charge an amount if a human agrees."""
    return f"charged {amount}: {interrupt('Really?')}"


@pytest.fixture(autouse=True)
def nothing_charged() -> None:
    charged.clear()


def built(kind: str, storage: CheckpointerConfig, dangling: str = "error", tools: Any = (charge, ask_first)) -> Agent:
    factory = AgentFactory(DefaultState)
    if kind == "llm":
        factory.with_chat(llm="openai:gpt-4o").with_tools(tools)
    else:
        factory.with_react_loop(tools, llm="openai:gpt-4o")
    return factory.with_dangling_calls(dangling).with_checkpointer(storage).build()


def call(id: str, amount: int = 3, name: str = "charge") -> dict[str, Any]:
    return {"name": name, "args": {"amount": amount}, "id": id, "type": "tool_call"}


async def bricked(agent: Agent, *messages: Any) -> Thread:
    """A thread that holds what a plain LangGraph program left behind, and is refused by the provider."""
    thread = agent.thread("t")
    config = {"configurable": {"thread_id": "t"}}
    await agent.graph.aupdate_state(config, {"messages": list(messages)}, as_node="__start__")
    held = (await thread.astate()).values["messages"]
    asked: Any = convert_to_openai_messages([*held, HumanMessage("Still there?")])
    with OpenAI() as client, pytest.raises(BadRequestError, match="tool"):
        client.chat.completions.create(model="gpt-4o", messages=asked)
    return thread


async def texts(thread: Thread) -> list[str]:
    return [f"{one.type}: {one.text}" for one in (await thread.astate()).values["messages"]]


@each_kind
async def test_a_bricked_thread_goes_on(storage: CheckpointerConfig, kind: str, openai: Any) -> None:
    """The call is answered by an error directly behind it, in the state too, and what was there keeps its ids."""
    openai.reply("I could not charge you.", "Yes?")
    async with built(kind, storage) as agent:
        thread = await bricked(agent, HumanMessage("Charge 3.", id="h"), AIMessage("", id="a", tool_calls=[call("c")]))
        await thread.ainvoke("Well?")
        held = (await thread.astate()).values["messages"]
        assert await texts(thread) == [
            "human: Charge 3.",
            "ai: ",
            f"tool: {INTERRUPTED}",
            "human: Well?",
            "ai: I could not charge you.",
        ]
        assert ([one.id for one in held[:2]], held[2].status) == (["h", "a"], "error")
        ids = [one.id for one in held]
        await thread.ainvoke("Hello?")
        assert [one.id for one in (await thread.astate()).values["messages"]][:5] == ids
    assert len(openai.requests) == 2
    assert charged == []


@each_kind
async def test_results_return_to_their_calls(durable_storage: CheckpointerConfig, kind: str, openai: Any) -> None:
    """Of parallel calls one was answered, behind new input; another call was answered twice; one answer has no call."""
    openai.reply("Fine.", "Fine still.")
    async with built(kind, durable_storage) as agent:
        thread = await bricked(
            agent,
            HumanMessage("Charge 1, 2 and 3."),
            AIMessage("", tool_calls=[call("c1", 1), call("c2", 2), call("c3", 3)]),
            HumanMessage("Well?"),
            ToolMessage("charged 3", tool_call_id="c3"),
            ToolMessage("charged 4", tool_call_id="nobody"),
            ToolMessage("no money", tool_call_id="c1", status="error"),
            ToolMessage("charged 1", tool_call_id="c1"),
        )
        await thread.ainvoke("And now?")
        assert await texts(thread) == [
            "human: Charge 1, 2 and 3.",
            "ai: ",
            "tool: charged 1",
            f"tool: {INTERRUPTED}",
            "tool: charged 3",
            "human: Well?",
            "human: And now?",
            "ai: Fine.",
        ]
        await thread.ainvoke("Bye.")


async def test_an_abandoned_question_of_a_tool_bricks_nothing(durable_storage: CheckpointerConfig, openai: Any) -> None:
    openai.call_tool("ask_first", amount=3)
    openai.reply("As you like.", "Bye.")
    async with built("llm", durable_storage) as agent:
        thread = agent.thread("t")
        assert "__interrupt__" in await thread.ainvoke("Charge 3.")
        await thread.ainvoke("Forget it.", on_pending="abandon")
        assert (await texts(thread))[2:] == [
            f"tool: {INTERRUPTED.replace('charge', 'ask_first')}",
            "human: Forget it.",
            "ai: As you like.",
        ]
        await thread.ainvoke("Bye.")


@each_kind
async def test_a_question_of_a_tool_that_is_answered_stays_its_own(kind: str, openai: Any) -> None:
    """While a tool is under way nothing is mended: the answer goes to it, and its result is the call's."""
    openai.call_tool("ask_first", amount=3)
    openai.reply("Done.")
    async with built(kind, CheckpointerConfig(), "run") as agent:
        thread = agent.thread("t")
        await thread.ainvoke("Charge 3.")
        await thread.aresume("yes")
        assert (await texts(thread))[2:] == ["tool: charged 3: yes", "ai: Done."]


async def test_an_abandoned_question_of_the_loop_bricks_nothing(openai: Any) -> None:
    openai.call_tool("ask_first", amount=3)
    openai.reply("As you like.", "Bye.")
    async with built("react", CheckpointerConfig()) as agent:
        thread = agent.thread("t")
        await thread.ainvoke("Charge 3.")
        await thread.ainvoke("Forget it.", on_pending="abandon")
        await thread.ainvoke("Bye.")
        assert (await texts(thread))[-3:] == ["ai: As you like.", "human: Bye.", "ai: Bye."]


@each_kind
async def test_a_call_that_never_began_is_run(durable_storage: CheckpointerConfig, kind: str, openai: Any) -> None:
    """Once; a call of a tool that the step does not have is answered by an error."""
    openai.reply("You were charged.", "Bye.")
    async with built(kind, durable_storage, "run") as agent:
        thread = await bricked(
            agent, HumanMessage("Charge 3."), AIMessage("", tool_calls=[call("c1"), call("c2", name="refund")])
        )
        await thread.ainvoke("Well?")
        await thread.ainvoke("Bye.")
        assert (await texts(thread))[2:6] == [
            "tool: charged 3",
            f"tool: {INTERRUPTED.replace('charge', 'refund')}",
            "human: Well?",
            "ai: You were charged.",
        ]
    assert charged == [3]


async def test_a_call_is_run_once_although_its_step_is_resumed(
    durable_storage: CheckpointerConfig, openai: Any
) -> None:
    """A question of the loop's own tools stops the step that ran the call; the step begins anew when it is answered."""
    openai.call_tool("ask_first", amount=4)
    openai.reply("Done.")
    async with built("react", durable_storage, "run") as agent:
        thread = await bricked(agent, HumanMessage("Charge 3."), AIMessage("", tool_calls=[call("c1")]))
        assert "__interrupt__" in await thread.ainvoke("And 4.")
        assert charged == [3]
        await thread.aresume("yes")
        assert (await texts(thread))[2:] == [
            "tool: charged 3",
            "human: And 4.",
            "ai: ",
            "tool: charged 4: yes",
            "ai: Done.",
        ]
    assert charged == [3]


@each_kind
async def test_a_call_that_is_run_may_ask(durable_storage: CheckpointerConfig, kind: str, openai: Any) -> None:
    """Its question is answered as any other; the call beside it is not run again."""
    openai.reply("Done.")
    async with built(kind, durable_storage, "run") as agent:
        left = [AIMessage("", tool_calls=[call("c1")]), AIMessage("", tool_calls=[call("c2", 4, "ask_first")])]
        thread = await bricked(agent, HumanMessage("Charge."), *left)
        assert [one.value for one in (await thread.ainvoke("Well?"))["__interrupt__"]] == ["Really?"]
        await thread.aresume("yes")
        assert (await texts(thread))[2:] == [
            "tool: charged 3",
            "ai: ",
            "tool: charged 4: yes",
            "human: Well?",
            "ai: Done.",
        ]
    assert charged == [3]


@each_kind
@pytest.mark.parametrize(
    ("answer", "results"),
    [
        ("run", ["charged 3", "charged 4"]),
        (" Skip ", ["The call of 'charge' was skipped by the user and has no result."] * 2),
        ({"c1": "run", "c2": "It was done by hand."}, ["charged 3", "It was done by hand."]),
        (
            {"c1": {"result": "skip"}, "c2": "skip"},
            ["skip", "The call of 'charge' was skipped by the user and has no result."],
        ),
    ],
)
async def test_a_human_says_what_becomes_of_calls(kind: str, openai: Any, answer: Any, results: list[str]) -> None:
    openai.reply("Fine.", "Bye.")
    async with built(kind, CheckpointerConfig(), "ask") as agent:
        thread = await bricked(agent, HumanMessage("Charge."), AIMessage("", tool_calls=[call("c1"), call("c2", 4)]))
        asked = (await thread.ainvoke("Well?"))["__interrupt__"]
        assert [one.value for one in asked] == [
            {
                "step": "chat" if kind == "llm" else "react",
                "question": 'The calls charge({"amount": 3}), charge({"amount": 4}) were interrupted and never gave a '
                "result. Answer run, skip or the result, or a dict of these by id.",
                "calls": [
                    {"id": "c1", "tool": "charge", "arguments": {"amount": 3}, "began": False},
                    {"id": "c2", "tool": "charge", "arguments": {"amount": 4}, "began": False},
                ],
                "choices": ["run", "skip"],
            }
        ]
        for wrong, why in [
            (7, "answer run, skip, or the result as text"),
            ({"c1": "run"}, "say what becomes of c2 too"),
            ({"c1": "run", "c2": "run", "c9": "run"}, "no call 'c9' is asked about; there are c1, c2"),
        ]:
            with pytest.raises(InvalidAnswerError, match=why):
                await thread.aresume(wrong)
        await thread.aresume(answer)
        assert (await texts(thread))[2:] == [*(f"tool: {one}" for one in results), "human: Well?", "ai: Fine."]
        await thread.ainvoke("Bye.")


@each_kind
@pytest.mark.parametrize("policy", ["run", "ask"])
async def test_a_call_that_began_is_not_run_unasked(kind: str, policy: str, openai: Any) -> None:
    openai.reply("Fine.")
    async with built(kind, CheckpointerConfig(), policy) as agent:
        thread = await bricked(agent, HumanMessage("Charge."), AIMessage("", tool_calls=[call("c1"), call("c2", 4)]))
        assert agent.checkpointer is not None
        begun = {"word": "start", "identity": ["task", "tool", "charge", "c1/1"], "tool_call_id": "c1", "told": ""}
        head = (await thread.astate()).config
        await aput_note(agent.checkpointer, head, EFFECT, {**begun, "time": "2026-01-01"}, "c1")
        asked = (await thread.ainvoke("Well?")).get("__interrupt__", ())
        if policy == "ask":
            assert [one["began"] for one in asked[0].value["calls"]] == [True, False]
            await thread.aresume({"c1": "skip", "c2": "run"})
        stands_in = (
            INTERRUPTED if policy == "run" else "The call of 'charge' was skipped by the user and has no result."
        )
        assert (await texts(thread))[2:] == [f"tool: {stands_in}", "tool: charged 4", "human: Well?", "ai: Fine."]
    assert charged == [4]


@tool(response_format="content_and_artifact")
def receipt(amount: int) -> tuple[str, dict[str, int]]:
    """Write a receipt."""
    charged.append(amount)
    return f"receipt of {amount}", {"amount": amount}


@tool
def note_down(amount: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Note an amount down."""
    charged.append(amount)
    return Command(update={"input": f"noted {amount}", "messages": [ToolMessage("noted", tool_call_id=tool_call_id)]})


@tool
def hand_over(amount: int) -> Command[Any]:
    """Let another agent charge."""
    charged.append(amount)
    return Command(graph=Command.PARENT, goto="other")


@tool
def refuse(amount: int) -> str:
    """Refuse to charge."""
    charged.append(amount)
    raise ConnectionError(f"no way to charge {amount}")


def asking(openai: Any, **amounts: int) -> None:
    """Has the model ask for these tools next, each with its amount."""
    calls = tuple(ToolCall(name, {"amount": amount}) for name, amount in amounts.items())
    openai.state.scenarios.add(Reply(tool_calls=calls))


async def results(thread: Thread) -> dict[str | None, tuple[str, str, Any]]:
    """The results in a thread by the names of their tools: text, status and artifact."""
    messages = (await thread.astate()).values["messages"]
    return {one.name: (one.text, one.status, one.artifact) for one in messages if isinstance(one, ToolMessage)}


each_policy = pytest.mark.parametrize("policy", ["error", "run", "ask"])


@each_policy
async def test_a_call_that_had_ended_is_answered_from_the_record(
    durable_storage: CheckpointerConfig, policy: str, openai: Any
) -> None:
    """The step was given up at a question of one call, so it kept nothing of those beside it, which had ended."""
    asking(openai, receipt=1, note_down=2, ask_first=3)
    openai.reply("Fine.", "Bye.")
    async with built("llm", durable_storage, policy, (receipt, note_down, ask_first)) as agent:
        thread = agent.thread("t")
        assert "__interrupt__" in await thread.ainvoke("Charge.")
        assert await results(thread) == {}
        given_up = await thread.ainvoke("Forget it.", on_pending="abandon")
        if policy == "ask":
            (question,) = given_up["__interrupt__"]
            assert [(one["tool"], one["began"]) for one in question.value["calls"]] == [("ask_first", True)]
            await thread.aresume("skip")
        gave = await results(thread)
        assert gave["receipt"] == ("receipt of 1", "success", {"amount": 1})
        assert gave["note_down"] == ("noted", "success", None)
        assert gave["ask_first"][1] == "error"
        assert (await thread.astate()).values["input"] == "noted 2"
        assert [one.type for one in (await thread.astate()).values["messages"][2:]] == [*["tool"] * 3, "human", "ai"]
        await thread.ainvoke("Bye.")
    assert sorted(charged) == [1, 2]


@each_policy
@pytest.mark.parametrize(
    ("wanted", "text", "status"),
    [
        (refuse, "The call of 'refuse' failed: ConnectionError: no way to charge 3", "error"),
        (hand_over, "The call of 'hand_over' ended and gave no result.", "success"),
    ],
    ids=["it failed", "it led elsewhere"],
)
async def test_a_call_that_ended_otherwise_is_not_made_again(
    policy: str, wanted: Any, text: str, status: str, openai: Any
) -> None:
    openai.call_tool(wanted.name, amount=3)
    openai.reply("Sorry.")
    async with built("llm", CheckpointerConfig(), policy, [wanted]) as agent:
        thread = agent.thread("t")
        with pytest.raises((ConnectionError, ParentCommand)):
            await thread.ainvoke("Charge 3.")
        await thread.ainvoke("Well?")
        assert await results(thread) == {wanted.name: (text, status, None)}
        assert (await texts(thread))[-2:] == ["human: Well?", "ai: Sorry."]
    assert charged == [3]


@each_kind
async def test_a_record_is_of_the_call_of_its_message(
    durable_storage: CheckpointerConfig, kind: str, openai: Any
) -> None:
    """The model uses an id again, with the same arguments: what the first call gave is no result of the second."""
    openai.call_tool("charge", amount=3)
    openai.reply("Charged.", "Well.")
    async with built(kind, durable_storage) as agent:
        thread = agent.thread("t")
        await thread.ainvoke("Charge 3.")
        (first,) = [one for one in (await thread.astate()).values["messages"] if isinstance(one, ToolMessage)]
        again = AIMessage("", tool_calls=[call(first.tool_call_id)])
        await thread.aupdate({"messages": [again]}, as_node="__start__")
        await thread.ainvoke("Well?")
        told = [line for line in await texts(thread) if line.startswith("tool")]
        assert told == ["tool: charged 3", f"tool: {INTERRUPTED}"]
    assert charged == [3]


async def test_what_cannot_be_run_is_not_offered(durable_storage: CheckpointerConfig, openai: Any) -> None:
    """The question outlives the process that asked it."""
    openai.reply("Fine.")
    async with built("llm", durable_storage, "ask") as agent:
        left = AIMessage("", tool_calls=[call("c", name="refund")])
        thread = await bricked(agent, HumanMessage("Charge."), left)
        await thread.ainvoke("Well?")
    async with built("llm", durable_storage, "ask") as agent:
        thread = agent.thread("t")
        value = (await thread.ainterrupts())[0].value
        assert value["choices"] == ["skip"]
        assert value["question"].endswith("Answer skip or the result.")
        with pytest.raises(InvalidAnswerError, match="the step has no tool 'refund' to run"):
            await thread.aresume("run")
        await thread.aresume("refunded by hand")
        assert (await texts(thread))[2:] == ["tool: refunded by hand", "human: Well?", "ai: Fine."]


async def test_a_healthy_thread_is_not_touched(durable_storage: CheckpointerConfig, openai: Any) -> None:
    """A turn with tools changes the messages by adding only: each update holds no more than what is new."""
    openai.call_tool("charge", amount=3)
    openai.reply("Charged.", "Bye.")
    async with built("llm", durable_storage, "run") as agent:
        thread = agent.thread("t")
        updates = [update async for update in thread.astream("Charge 3.")]
        assert [[one.type for one in update.popitem()[1]["messages"]] for update in updates] == [
            ["ai"],
            ["tool"],
            ["ai"],
        ]
        await thread.ainvoke("Bye.")
    assert charged == [3]
