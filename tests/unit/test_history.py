"""A conversation is mended where a provider would refuse it, and nowhere else; a step keeps the repair in its state."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.tools import tool
from langgraph.graph.message import add_messages
from langgraph.types import Command

import petal
from petal.core.agent import Agent
from petal.core.config.agent import StepConfig
from petal.core.factory import AgentFactory
from petal.core.steps.history import dangling
from petal.core.yaml.loader import parse_step
from petal.errors import AgentConfigurationError, YAMLConfigurationError
from petal.testing.models import ScriptedChatModel
from petal.types.state import DefaultState


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def asks(*ids: str, id: str = "a", **fields: Any) -> AIMessage:
    return AIMessage(
        "", id=id, tool_calls=[tool_call(name="add", args={"a": 1, "b": 2}, id=one) for one in ids], **fields
    )


def answers(id: str, text: str = "3", **fields: Any) -> ToolMessage:
    return ToolMessage(text, tool_call_id=id, **fields)


def told(messages: Sequence[BaseMessage]) -> list[str]:
    return [
        f"{one.tool_call_id}={one.text}" if isinstance(one, ToolMessage) else f"{one.type}={one.text}"
        for one in messages
    ]


def is_refused(messages: Sequence[BaseMessage]) -> bool:
    """Whether a provider would not take them; written from the providers' rules, not from the code."""
    waiting: set[str | None] = set()
    for message in [*messages, SystemMessage("end")]:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                return True
            waiting.remove(message.tool_call_id)
        elif waiting:
            return True
        elif isinstance(message, AIMessage):
            waiting = {one["id"] for one in (*message.tool_calls, *message.invalid_tool_calls)}
    return False


IDS = st.sampled_from(["c1", "c2", "c3"])
MESSAGES = st.lists(
    st.one_of(
        st.builds(HumanMessage, st.just("hi")),
        st.builds(lambda ids: asks(*ids, id=""), st.lists(IDS, max_size=3, unique=True)),
        st.builds(answers, IDS, status=st.sampled_from(["success", "error"])),
    ),
    max_size=12,
)


@given(MESSAGES)
def test_any_conversation_becomes_one_that_is_taken(messages: list[BaseMessage]) -> None:
    """What is no result stays, in its order; a healthy conversation stays as it is; mending twice changes nothing."""
    mended = petal.healthy(messages)
    assert not is_refused(mended)
    assert dangling(mended) == []
    kept = [one for one in messages if not isinstance(one, ToolMessage)]
    assert [id(one) for one in mended if not isinstance(one, ToolMessage)] == [id(one) for one in kept]
    if not is_refused(messages):
        assert [id(one) for one in mended] == [id(one) for one in messages]
    assert [id(one) for one in petal.healthy(mended)] == [id(one) for one in mended]


def test_results_stand_behind_their_calls_in_the_calls_order() -> None:
    late = [asks("c1", "c2", "c3"), answers("c3"), HumanMessage("Well?"), answers("c1", "1")]
    assert told(petal.healthy(late))[:2] == ["ai=", "c1=1"]
    assert told(petal.healthy(late))[3:] == ["c3=3", "human=Well?"]
    in_place = [asks("c1", "c2"), answers("c2"), answers("c1")]
    assert petal.healthy(in_place) == in_place


def test_the_first_result_that_is_no_error_counts() -> None:
    late = [
        asks("c1"),
        answers("c1", "lost", status="error"),
        HumanMessage("Well?"),
        answers("c1", "4"),
        answers("c1", "5"),
    ]
    assert told(petal.healthy(late)) == ["ai=", "c1=4", "human=Well?"]
    errors = [asks("c1"), answers("c1", "lost", status="error"), answers("c1", "late", status="error")]
    assert told(petal.healthy(errors)) == ["ai=", "c1=lost"]


def test_an_id_that_is_used_again_is_another_call() -> None:
    messages = [asks("call_0", id="a1"), answers("call_0", "1"), asks("call_0", id="a2"), HumanMessage("Well?")]
    assert [one.place for one in dangling(messages)] == [2]
    assert told(petal.healthy(messages))[:3] == ["ai=", "call_0=1", "ai="]
    stands_in = petal.healthy(messages)[3]
    assert isinstance(stands_in, ToolMessage)
    assert (stands_in.tool_call_id, stands_in.status, stands_in.name) == ("call_0", "error", "add")
    assert stands_in.id == petal.healthy(messages)[3].id


def test_a_call_that_cannot_be_read_is_answered() -> None:
    unread = invalid_tool_call(name="add", args='{"a": 1', id="c2", error="no JSON")
    nameless = invalid_tool_call(name=None, args=None, id=None, error="no name")
    message = asks("c1", invalid_tool_calls=[unread, nameless])
    assert [(one.call["id"], one.is_readable) for one in dangling([message, answers("c1")])] == [
        ("c2", False),
        ("unread_a_1", False),
    ]
    mended = petal.healthy([message, answers("c1")])
    assert told(mended) == [
        "ai=",
        "c1=3",
        "c2=The call of 'add' was not run: its arguments cannot be read as JSON.",
        "unread_a_1=The call of 'unknown' was not run: its arguments cannot be read as JSON.",
    ]
    assert isinstance(mended[0], AIMessage)
    assert (mended[0].id, [one["id"] for one in mended[0].invalid_tool_calls]) == ("a", ["c2", "unread_a_1"])
    assert message.invalid_tool_calls[1]["id"] is None


def test_a_call_in_a_content_block_is_a_call() -> None:
    """Anthropic's; those that its servers run themselves are none, and the blocks stay as they are."""
    blocks: list[Any] = [
        "Let me see.",
        {"type": "text", "text": "I add."},
        {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1, "b": 2}},
        {"type": "tool_use", "id": "t2", "name": "add", "input": "", "partial_json": '{"a":'},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
    ]
    mended = petal.healthy([AIMessage(blocks, id="a"), HumanMessage("Well?")])
    assert isinstance(mended[0], AIMessage)
    assert (mended[0].content, mended[0].id) == (blocks, "a")
    assert [(one["id"], one["args"]) for one in mended[0].tool_calls] == [("t1", {"a": 1, "b": 2})]
    assert [(one["id"], one["args"]) for one in mended[0].invalid_tool_calls] == [("t2", '{"a":')]
    assert [one.tool_call_id for one in mended if isinstance(one, ToolMessage)] == ["t1", "t2"]
    known = asks("t1", id="b").model_copy(update={"content": blocks[:3]})
    assert petal.healthy([known, answers("t1")])[0] is known


# --- steps --------------------------------------------------------------------------------------------------------


class Log(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    input: str
    pad: str
    moves: int


def begun(*messages: Any, **values: Any) -> dict[str, Any]:
    return {"messages": [HumanMessage("Add.", id="h"), *messages], **values}


def with_pad(kind: str, *tools: Any) -> Agent:
    """An agent that runs calls which never began, and keeps a scratchpad."""
    model = ScriptedChatModel(replies=["Three.", "Three."])
    factory = AgentFactory(Log)
    if kind == "llm":
        factory.with_chat(llm=model).with_tools(tools, "pad")
    else:
        factory.with_react_loop(tools, llm=model, scratchpad_key="pad")
    return factory.with_dangling_calls("run").build()


@pytest.mark.parametrize("kind", ["llm", "react"])
def test_both_faces_of_a_graph_run_what_never_began(kind: str) -> None:
    """The scratchpad has it too."""
    with with_pad(kind, add) as agent:
        for result in (agent.graph.invoke(begun(asks("c"))), agent.invoke(begun(asks("c")))):
            assert told(result["messages"]) == ["human=Add.", "ai=", "c=3", "ai=Three."]
            assert result["pad"] == 'Action: add({"a": 1, "b": 2})\nObservation: 3\n'


@pytest.mark.parametrize("kind", ["llm", "react"])
def test_the_scratchpad_has_the_calls_of_each_message(kind: str) -> None:
    """In their order, behind what was there, also where a tool of a later message changes the state itself."""

    @tool
    def move() -> Any:
        """Move on."""
        return Command(update={"moves": 1, "messages": [ToolMessage("moved", tool_call_id="m")]})

    moving = asks("m").model_copy(update={"id": "b", "tool_calls": [tool_call(name="move", args={}, id="m")]})
    left = begun(asks("c1"), asks("c2", id="a2"), moving, pad="Before.\n")
    with with_pad(kind, add, move) as agent:
        for result in (agent.graph.invoke(left), agent.invoke(left)):
            added = 'Action: add({"a": 1, "b": 2})\nObservation: 3\n'
            assert told(result["messages"]) == [
                "human=Add.",
                "ai=",
                "c1=3",
                "ai=",
                "c2=3",
                "ai=",
                "m=moved",
                "ai=Three.",
            ]
            assert (result["pad"], result["moves"]) == (f"Before.\n{added}{added}", 1)


def test_a_new_prompt_is_sent_although_a_result_stands_last() -> None:
    model = ScriptedChatModel(replies=["Hm."])
    agent = AgentFactory(Log).with_chat(llm=model, prompt_template="{input}").with_tools([add]).build()
    result = agent.invoke(begun(asks("c1", "c2"), answers("c1"), input="Well?"))
    assert told(result["messages"])[-2:] == ["human=Well?", "ai=Hm."]
    assert [one.type for one in model.requests[0]] == ["human", "ai", "tool", "tool", "human"]


def test_what_a_tool_changes_besides_is_kept() -> None:
    @tool
    def move() -> Any:
        """Move on."""
        return Command(
            update={"moves": 1, "messages": [ToolMessage("moved", tool_call_id="m"), HumanMessage("By the way.")]}
        )

    model = ScriptedChatModel(replies=["Done."])
    agent = AgentFactory(Log).with_chat(llm=model).with_tools([add, move]).with_dangling_calls("run").build()
    left = asks("c").model_copy(update={"tool_calls": [*asks("c").tool_calls, tool_call(name="move", args={}, id="m")]})
    result = agent.invoke(begun(left, HumanMessage("Well?")))
    assert told(result["messages"]) == [
        "human=Add.",
        "ai=",
        "c=3",
        "m=moved",
        "human=By the way.",
        "human=Well?",
        "ai=Done.",
    ]
    assert result["moves"] == 1


def test_steps_side_by_side_mend_without_loss() -> None:
    """Both find the same call; the answer of each stays, and one result."""
    first, second = ScriptedChatModel(replies=["One."]), ScriptedChatModel(replies=["Two."])
    agent = (
        AgentFactory(DefaultState)
        .add(lambda state: {}, "start")
        .with_condition(lambda state: ["one", "two"], {"one": "one", "two": "two"})
        .with_chat(llm=first, node_name="one")
        .with_next("END")
        .with_chat(llm=second, node_name="two")
        .build()
    )
    result = agent.invoke(begun(asks("c"), HumanMessage("Well?", id="w")))
    assert sorted(told(result["messages"])[3:]) == ["ai=One.", "ai=Two.", "human=Well?"]
    assert [one.type for one in result["messages"][:3]] == ["human", "ai", "tool"]
    assert not is_refused(result["messages"])


class Added(TypedDict, total=False):
    messages: Annotated[list[Any], operator.add]


def strict(old: list[Any], new: list[Any]) -> list[Any]:
    if any(one.type == "remove" for one in new):
        raise TypeError("nothing is taken out here")
    return [*old, *new]


class Strict(TypedDict, total=False):
    messages: Annotated[list[Any], strict]


@pytest.mark.parametrize("state_type", [Added, Strict])
@pytest.mark.parametrize("id", ["w", None])
def test_a_reducer_that_cannot_move_gets_the_result_once(state_type: type, id: str | None) -> None:
    model = ScriptedChatModel(replies=["Three.", "Bye."])
    agent = AgentFactory(state_type).with_chat(llm=model).with_tools([add]).with_dangling_calls("run").build()
    result = agent.invoke(begun(asks("c"), HumanMessage("Well?", id=id)))
    assert told(result["messages"]) == ["human=Add.", "ai=", "human=Well?", "c=3", "ai=Three."]
    result = agent.invoke({"messages": [*result["messages"], HumanMessage("Bye.")]})
    assert told(result["messages"])[5:] == ["human=Bye.", "ai=Bye."]
    assert told(model.requests[1])[1:4] == ["ai=", "c=3", "human=Well?"]


def test_a_policy_is_one_of_three() -> None:
    step = StepConfig(type="llm", name="chat", config={"dangling": "ignore"})
    with pytest.raises(AgentConfigurationError, match="Input should be 'error', 'run' or 'ask'"):
        AgentFactory(DefaultState).with_llm("demo:").add(step).build()
    with pytest.raises(AgentConfigurationError, match="with_dangling_calls belongs behind a step of kind llm or react"):
        AgentFactory(DefaultState).with_tool_step([add]).with_dangling_calls("run")


def test_yaml_says_the_policy(tmp_path: Path) -> None:
    text = "type: react\nname: answer\nllm: 'demo:'\nconfig: {dangling: ask}\n"
    assert parse_step(text, base=tmp_path).step.config["dangling"] == "ask"
    with pytest.raises(YAMLConfigurationError, match=r"Found 'asks'; allowed: 'error', 'run' or 'ask'"):
        parse_step(text.replace("ask}", "asks}"), base=tmp_path)
