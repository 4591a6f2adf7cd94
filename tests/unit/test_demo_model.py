"""The demo model remembers, calls tools and fills forms, the same way each time, and says that it is a demo."""

from __future__ import annotations

import operator
from datetime import date
from enum import Enum
from functools import reduce
from typing import Annotated, Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field

from petal.core.models import DemoChatModel
from petal.core.models.arguments import NotInTextError, arguments_from


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def add_all(numbers: list[int]) -> int:
    """Add many numbers."""
    return sum(numbers)


@tool
def search(query: str, limit: int = 10) -> str:
    """Search the web."""
    return f"{limit} pages about {query}"


@tool
def get_weather(city: str) -> str:
    """Tell the weather."""
    return f"It is sunny in {city}."


def chat(*said: str) -> list[str]:
    """What the demo answers to each of these, in one conversation."""
    history: list[BaseMessage] = []
    for text in said:
        history.append(HumanMessage(text))
        history.append(DemoChatModel().invoke(history))
    return [message.text for message in history if isinstance(message, AIMessage)]


def calls(text: str, *tools: Any) -> list[tuple[str, dict[str, Any]]]:
    answer = DemoChatModel().bind_tools(tools).invoke(text)
    assert isinstance(answer, AIMessage)
    return [(call["name"], call["args"]) for call in answer.tool_calls]


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (["Hello"], ["(demo model) You said: Hello"]),
        (["Hello", "What did I just say?"], ["(demo model) You said: Hello", "You said: Hello"]),
        (["What did I just say?"], ["You have not said anything before that."]),
        (["My name is Ada.", "What is my name?"], ["Nice to meet you, Ada!", "Your name is Ada."]),
        (["my name's Ada", "what's my name"], ["Nice to meet you, Ada!", "Your name is Ada."]),
        (["I'm Ada", "Who am I?"], ["Nice to meet you, Ada!", "Your name is Ada."]),
        (["Call me Ada.", "Do you know what my name is?"], ["Nice to meet you, Ada!", "Your name is Ada."]),
        (["My name is Ada. What is my name?"], ["Your name is Ada."]),
        (["What is my name?"], ["You have not told me your name yet."]),
        (["My name is Ada", "My name is Bo", "What is my name?"], ["*", "*", "Your name is Bo."]),
        (
            [
                "My favourite colour is green, and my cat is called Tom.",
                "What is my favorite colour?",
                "What is my cat?",
            ],
            [
                "Noted: your favourite colour is green; your cat is called Tom.",
                "Your favourite colour is green.",
                "Your cat is called Tom.",
            ],
        ),
        (
            ["Remember that the door code is 1234.", "What is the door code?"],
            ["I will remember: the door code is 1234.", "The door code is 1234."],
        ),
        (
            ["Please remember that I like tea", "My name is Ada", "What did I tell you?"],
            [
                "I will remember: you like tea.",
                "Nice to meet you, Ada!",
                "You told me: you like tea; your name is Ada.",
            ],
        ),
        (["What do you know about me?"], ["You have not told me anything to remember yet."]),
        (["What is the capital of France?"], ["(demo model) You said: What is the capital of France?"]),
        (["Is my name Ada?", "What is my name?"], ["*", "You have not told me your name yet."]),
        (["What is my height?", "My height is 1.70 m.", "What's my height?"], ["*", "*", "Your height is 1.70 m."]),
        ([""], ["(demo model) You have not said anything."]),
    ],
)
def test_it_remembers_what_it_was_told(said: list[str], answers: list[str]) -> None:
    """From the history alone; `*` is any answer."""
    for answer, expected in zip(chat(*said), answers, strict=True):
        assert expected in ("*", answer)


def test_system_prompts_are_ignored() -> None:
    """They change no answer, and nothing that they say counts as told."""
    history = [SystemMessage("My name is Hal."), HumanMessage("What is my name?")]
    assert DemoChatModel().invoke(history).text == "You have not told me your name yet."
    assert DemoChatModel().invoke([SystemMessage("Be kind.")]).text == "(demo model) You have not said anything."


@pytest.mark.parametrize(
    ("text", "tools", "expected"),
    [
        ("add 2 and 3", [add], [("add", {"a": 2, "b": 3})]),
        ("What is 2 and 3? Use add.", [add], [("add", {"a": 2, "b": 3})]),
        ('add {"a": 4, "b": -1}', [add], [("add", {"a": 4, "b": -1})]),
        ('please call add with {"a": 4, "b": {}} now', [add], [("add", {"a": 4, "b": {}})]),
        ("in {braces}, add 2 and 3", [add], [("add", {"a": 2, "b": 3})]),
        ("add {these}: 2 and 3", [add], [("add", {"a": 2, "b": 3})]),
        ("add b=7, a=-2", [add], [("add", {"a": -2, "b": 7})]),
        ("Add 2 and 3, then add 4 and 5", [add], [("add", {"a": 2, "b": 3}), ("add", {"a": 4, "b": 5})]),
        (
            'add 2 and 3 and search "cats and dogs"',
            [add, search],
            [("add", {"a": 2, "b": 3}), ("search", {"query": "cats and dogs"})],
        ),
        ("search for cats, limit: 5", [search], [("search", {"query": "cats, limit: 5", "limit": 5})]),
        ("get weather in Paris!", [get_weather], [("get_weather", {"city": "Paris"})]),
        ("get_weather Oslo", [get_weather], [("get_weather", {"city": "Oslo"})]),
        ("add_all of these", [add, add_all], [("add_all", {"numbers": []})]),
        ("add milk to my list", [add], []),
        ("Hello there", [add, search], []),
        ("readdress 2 and 3", [add], []),
    ],
)
def test_it_calls_the_tools_that_the_text_names(
    text: str, tools: list[Any], expected: list[tuple[str, dict[str, Any]]]
) -> None:
    """With arguments from the text; not where a number it needs is not there."""
    assert calls(text, *tools) == expected


def test_no_tool_is_called_where_none_may_be() -> None:
    """`tool_choice="none"`, and a model without tools."""
    assert DemoChatModel().bind_tools([add], tool_choice="none").invoke("add 2 and 3").tool_calls == []
    assert DemoChatModel().invoke("add 2 and 3").text == "(demo model) You said: add 2 and 3"


def test_it_answers_from_all_results_of_the_turn() -> None:
    """Failures too, and not from those of an earlier turn."""
    model = DemoChatModel().bind_tools([add, search])
    history: list[AnyMessage] = [HumanMessage("add 1 and 1"), ToolMessage("2", name="add", tool_call_id="0")]
    history += [HumanMessage("add 2 and 3, search cats")]
    asked = model.invoke(history)
    assert isinstance(asked, AIMessage)
    assert len(asked.tool_calls) == 2
    history += [
        asked,
        ToolMessage("5", name="add", tool_call_id="1"),
        ToolMessage("no network", name="search", tool_call_id="2", status="error"),
    ]
    assert model.invoke(history).text == "add says 5. search failed: no network."


def test_the_same_history_gets_the_same_answer() -> None:
    """Ids of tool calls included; another place in the history gives others, and each message is its own."""
    model = DemoChatModel().bind_tools([add])
    first, again = model.invoke("add 2 and 3"), model.invoke("add 2 and 3")
    later = model.invoke([HumanMessage("add 2 and 3"), AIMessage("5"), HumanMessage("add 2 and 3")])
    assert isinstance(first, AIMessage)
    assert isinstance(again, AIMessage)
    assert isinstance(later, AIMessage)
    assert first.tool_calls == again.tool_calls
    assert first.tool_calls[0]["id"] != later.tool_calls[0]["id"]
    assert first.id != again.id


@pytest.mark.parametrize("text", ["Hello there, you", "add 2 and 3, add 4 and 5"])
async def test_a_stream_is_the_answer_in_pieces(text: str) -> None:
    """Words, or pieces of tool calls; in both faces, with usage at the end, under one id."""
    model = DemoChatModel().bind_tools([add])
    said, asaid = model.invoke(text), await model.ainvoke(text)
    pieces, apieces = list(model.stream(text)), [piece async for piece in model.astream(text)]
    assert len(pieces) > 3
    for chunks in (pieces, apieces):
        whole: Any = reduce(operator.add, chunks)
        for field in ("text", "tool_calls", "usage_metadata", "response_metadata"):
            assert getattr(whole, field) == getattr(said, field) == getattr(asaid, field), field
        assert {chunk.id for chunk in chunks} == {whole.id}


def test_an_answer_says_what_it_is() -> None:
    """The model's name, why it ended, and how many words were read and said."""
    answer = DemoChatModel().invoke([SystemMessage("Be kind."), HumanMessage("Hello there")])
    assert answer.response_metadata["model_name"] == "demo"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata == {"input_tokens": 4, "output_tokens": 6, "total_tokens": 10}
    call = DemoChatModel().bind_tools([add]).invoke("add 2 and 3")
    assert call.response_metadata["finish_reason"] == "tool_calls"


def test_an_answer_can_be_cut() -> None:
    """By the number of words, or where a text begins."""
    short = DemoChatModel(max_tokens=3).invoke("Hello there")
    assert (short.text, short.response_metadata["finish_reason"]) == ("(demo model) You", "length")
    assert DemoChatModel().invoke("one two three", stop=["three", "two"]).text == "(demo model) You said: one "


class Mood(Enum):
    """How somebody feels."""

    LOW = "low"
    HIGH = "high"


class Address(BaseModel):
    """Where somebody lives."""

    street: str
    number: Annotated[int, Field(ge=1, le=99)]


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int
    mood: Mood
    kind: Literal["person"] = "person"
    height: Annotated[float, Field(gt=0, lt=3)]
    nickname: str | None
    tags: list[str]
    friends: Annotated[list[Address], Field(min_length=2)]
    address: Address
    born: date
    awake: bool
    email: Annotated[str, Field(pattern=r"^\S+@\S+$")]
    code: Annotated[str, Field(min_length=4, max_length=6)]
    notes: str = "none"


TEXT = "name: Ada, she is 36 and in a high mood, 1.7 m, born 1815-12-10, not awake, ada@example.com"


async def test_a_structured_answer_holds_what_the_text_says() -> None:
    """As far as it says it; the rest fits the form. In both faces, whole and streamed."""
    model = DemoChatModel().with_structured_output(Person)
    person = model.invoke(TEXT)
    assert isinstance(person, Person)
    assert (person.name, person.age, person.mood, person.height) == ("Ada", 36, Mood.HIGH, 1.7)
    assert (person.born, person.awake, person.email) == (date(1815, 12, 10), False, "ada@example.com")
    assert (person.tags, len(person.friends), person.notes) == ([], 2, "none")
    assert await model.ainvoke(TEXT) == person
    assert list(model.stream(TEXT))[-1] == person


@given(st.text())
def test_a_structured_answer_is_valid_whatever_the_text(text: str) -> None:
    """The schema holds for every text, the empty one included."""
    schema = convert_to_openai_tool(Person)["function"]["parameters"]
    made = arguments_from(schema, text.replace("{", ""), invent=True)
    # A pattern cannot be met by every text, so it is left out here.
    schema["properties"]["email"].pop("pattern")
    jsonschema.validate(made, schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 5, "maximum": 9, "multipleOf": 4},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": ["integer", "null"]},
        {"type": "number", "maximum": -1.5},
        {"enum": [3, 4]},
        {"const": "x"},
        {"type": "null"},
        {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        {"allOf": [{"type": "integer"}, {"minimum": 7}]},
        {"$ref": "#/$defs/Inner"},
        {"type": "array", "items": {"type": "string", "minLength": 3}, "minItems": 2},
        {"type": "string", "maxLength": 0},
        {"type": "string", "format": "uuid"},
        {"type": "string", "pattern": "^a$"},
        {},
    ],
)
@pytest.mark.parametrize("text", ["", "12.5 of 3 'quoted' words"])
def test_a_value_fits_its_schema(schema: dict[str, Any], text: str) -> None:
    """Each kind of schema, with and without something in the text."""
    whole = {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
        "$defs": {"Inner": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
    }
    jsonschema.validate(arguments_from(whole, text, invent=True), whole)


def test_nothing_is_invented_where_it_must_not_be() -> None:
    """A number that the text lacks is an error there."""
    with pytest.raises(NotInTextError):
        arguments_from(convert_to_openai_tool(add)["function"]["parameters"], "only 2", invent=False)


def test_a_forced_tool_is_called() -> None:
    """By its name, or any of several; with what is stated as JSON, if it fits."""
    model = DemoChatModel()
    assert [c["args"] for c in _calls(model.bind_tools([add], tool_choice="add"), "nothing to add")] == [
        {"a": 0, "b": 0}
    ]
    assert [c["name"] for c in _calls(model.bind_tools([search, add], tool_choice="any"), "search cats")] == ["search"]
    stated = _calls(model.bind_tools([add], tool_choice="required"), 'use {"a": 8, "b": 9}')
    assert [c["args"] for c in stated] == [{"a": 8, "b": 9}]
    forced = {"type": "function", "function": {"name": "search"}}
    assert [
        c["name"]
        for c in _calls(model.bind(tools=[convert_to_openai_tool(t) for t in (add, search)], tool_choice=forced), "x")
    ] == ["search"]


def _calls(model: Any, text: str) -> list[Any]:
    answer = model.invoke(text)
    assert isinstance(answer, AIMessage)
    return answer.tool_calls


async def test_it_works_in_langchains_agent() -> None:
    """It calls the tools, then answers from them, in a form if one is asked for."""

    class Sum(BaseModel):
        """A sum."""

        total: int

    asked: Any = {"messages": [HumanMessage("add 2 and 3")]}
    agent = create_agent(DemoChatModel(), [add, search])
    assert (await agent.ainvoke(asked))["messages"][-1].text == "add says 5."
    formed = create_agent(DemoChatModel(), [add, search], response_format=ToolStrategy(Sum))
    assert formed.invoke(asked)["structured_response"] == Sum(total=5)
