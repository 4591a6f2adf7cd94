"""A scripted model answers as it was told to, in order, and tells what it was asked."""

from __future__ import annotations

import asyncio
import operator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from petal.testing.models import ScriptedChatModel, ScriptEndedError

CALLS = AIMessage(
    "",
    tool_calls=[
        {"name": "add", "args": {"a": 2, "b": 3}, "id": "1", "type": "tool_call"},
        {"name": "shout", "args": {"text": "a long text, to be cut into pieces"}, "id": "2", "type": "tool_call"},
    ],
)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def whole(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    return reduce(operator.add, chunks)


def test_replies_come_in_order() -> None:
    """Texts, messages, functions of the messages and errors."""

    def count(messages: list[BaseMessage]) -> str:
        return f"{len(messages)} messages"

    model = ScriptedChatModel(replies=["one", AIMessage("two"), count, OSError("gone"), lambda _: OSError("again")])
    assert model.invoke("a").text == "one"
    assert model.invoke("b").text == "two"
    assert model.invoke([("system", "be brief"), ("user", "c")]).text == "2 messages"
    with pytest.raises(OSError, match=r"^gone$"):
        model.invoke("d")
    with pytest.raises(OSError, match=r"^again$"):
        model.invoke("e")


def test_the_end_of_the_script_is_an_error() -> None:
    """It says how long the script was; the request in vain is recorded."""
    model = ScriptedChatModel(replies=["only"])
    model.invoke("a")
    with pytest.raises(ScriptEndedError) as raised:
        model.invoke("b")
    assert str(raised.value) == (
        "The script has 1 replies, and the model was asked once more; "
        "add a reply, or look at .requests for what was asked."
    )
    assert [messages[-1].text for messages in model.requests] == ["a", "b"]


def test_requests_stay_as_they_were_made() -> None:
    """What happens to a message later does not change the record."""
    model = ScriptedChatModel(replies=["one"])
    message = HumanMessage("before")
    model.invoke([message])
    message.content = "after"
    assert model.requests == [[HumanMessage("before")]]


async def test_it_streams_words_and_pieces_of_tool_calls() -> None:
    """Added up, the pieces are the message; a message of only tool calls streams too."""
    text = ScriptedChatModel(replies=["two words\nand more "] * 2)
    pieces = list(text.stream("a"))
    assert [piece.text for piece in pieces if piece.text] == ["two", " words", "\nand", " more", " "]
    assert whole([piece async for piece in text.astream("a")]).text == "two words\nand more "

    calls = ScriptedChatModel(replies=[CALLS] * 2)
    pieces = list(calls.stream("a"))
    assert sum(bool(piece.tool_call_chunks) for piece in pieces) > 4
    assert whole(pieces).tool_calls == CALLS.tool_calls
    assert whole([piece async for piece in calls.astream("a")]).tool_calls == CALLS.tool_calls
    assert len({piece.id for piece in pieces}) == 1


@pytest.mark.parametrize(
    "message",
    [
        AIMessage(""),
        AIMessage([{"type": "text", "text": "a block"}]),
        AIMessage("own", id="mine", response_metadata={"model_name": "x"}, additional_kwargs={"k": 1}),
        AIMessage("", invalid_tool_calls=[{"name": "f", "args": "no JSON", "id": "1", "error": None}]),
        CALLS,
    ],
)
def test_a_stream_adds_up_to_the_message(message: AIMessage) -> None:
    """Whatever kind of message it is."""
    model = ScriptedChatModel(replies=[message, message])
    said, streamed = model.invoke("a"), whole(list(model.stream("a")))
    for field in ("text", "tool_calls", "additional_kwargs", "response_metadata", "usage_metadata"):
        assert getattr(streamed, field) == getattr(said, field), field
    assert [(call["name"], call["args"]) for call in streamed.invalid_tool_calls] == [
        (call["name"], call["args"]) for call in said.invalid_tool_calls
    ]
    assert message.id in (None, said.id)


def test_the_script_itself_is_not_changed() -> None:
    """A reply that is used twice gets an id of its own each time."""
    message = AIMessage("same")
    model = ScriptedChatModel(replies=[message, message])
    assert model.invoke("a").id != model.invoke("b").id
    assert message.id is None


def test_tools_and_structured_answers() -> None:
    """Bound tools are recorded; a structured answer is a call of its form."""

    class Sum(BaseModel):
        total: int

    model = ScriptedChatModel(
        replies=[CALLS, AIMessage("", tool_calls=[{"name": "Sum", "args": {"total": 5}, "id": "1"}])]
    )
    answer = model.bind_tools([add]).invoke("2 and 3")
    assert answer.tool_calls == CALLS.tool_calls
    assert model.with_structured_output(Sum).invoke("2 and 3") == Sum(total=5)
    assert model.tools == [["add"], ["Sum"]]


def test_a_choice_that_is_not_bound_is_an_error() -> None:
    """As it is with a provider."""
    model = ScriptedChatModel(replies=["one"])
    with pytest.raises(ValueError, match=r"^tool_choice names 'subtract', which is not bound; bound: add$"):
        model.bind_tools([add], tool_choice="subtract").invoke("a")


def test_many_threads_share_a_script() -> None:
    """Each request gets a reply of its own, and none is lost."""
    model = ScriptedChatModel(replies=[str(n) for n in range(200)])
    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(lambda n: model.invoke(str(n)).text, range(200)))
    assert said == {str(n) for n in range(200)}
    assert len(model.requests) == 200


async def test_latency_leaves_the_loop_free() -> None:
    """While one request waits, another begins and ends."""
    asked = asyncio.Event()

    class Slow(ScriptedChatModel):
        def _next(self, *args: Any, **kwargs: Any) -> Any:
            asked.set()
            return super()._next(*args, **kwargs)

    slow, quick = Slow(replies=["slow"], latency=30), ScriptedChatModel(replies=["quick"])
    waiting = asyncio.create_task(slow.ainvoke("a"))
    await asked.wait()
    assert (await quick.ainvoke("b")).text == "quick"
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("faulty", [{"replies": [HumanMessage("no answer")]}, {"replies": [1]}, {"latency": -1}])
def test_a_faulty_script_is_refused(faulty: dict[str, Any]) -> None:
    """When it is written, not when it is played."""
    with pytest.raises(ValidationError):
        ScriptedChatModel(**faulty)
