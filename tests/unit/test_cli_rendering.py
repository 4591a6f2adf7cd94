"""How values of any kind look in JSON and on a terminal."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.types import Interrupt
from pydantic import BaseModel, SecretStr

from petal.cli.rendering import jsonable, last_words, message_line, printable, question
from petal.cli.shortening import only, shortened
from petal.errors import CheckpointerError


class Order(BaseModel):
    """A model that holds a secret."""

    number: int
    key: SecretStr


@dataclass
class Place:
    """A dataclass in a state."""

    name: str


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Order(number=3, key=SecretStr("hush")), {"number": 3, "key": "**********"}),
        (Place("Rome"), {"name": "Rome"}),
        ({"when": datetime(2026, 1, 2, tzinfo=UTC)}, {"when": "2026-01-02T00:00:00Z"}),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        ({("a", 1)}, [["a", 1]]),
        (Counter("aab"), {"a": 2, "b": 1}),
        (b"\xff\x00", "_wA="),
        (math.nan, "NaN"),
        ("\ud800", "\ud800"),
    ],
)
def test_a_value_becomes_json(value: Any, expected: Any) -> None:
    """What a state may hold, as plain data."""
    assert jsonable(value) == expected


def test_what_json_cannot_say_is_shown() -> None:
    """An object of a class of one's own is there as its repr."""
    assert jsonable({"it": object})["it"] == repr(object)


def test_a_message_becomes_json() -> None:
    """Its type, its content, and what else is set."""
    message = AIMessage("", id="m1", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}])
    assert jsonable([message]) == [
        {
            "type": "ai",
            "content": "",
            "id": "m1",
            "tool_calls": [{"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}],
        }
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
        lambda x: st.lists(x) | st.dictionaries(st.text() | st.integers(), x),
    )
)
def test_any_value_can_be_printed(value: Any) -> None:
    """It is strict JSON, which every program can read."""
    assert json.loads(json.dumps(jsonable(value), allow_nan=False)) is not ...


def test_messages_read_like_a_conversation() -> None:
    """Who said it, and which tools were asked."""
    call = AIMessage("Let me see.", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}])
    assert message_line(HumanMessage("hi")) == "You: hi"
    assert message_line(call) == 'Agent: Let me see.\nAgent: calls add({"a": 1})'
    assert message_line(ToolMessage("3", name="add", tool_call_id="c1")) == "Tool add: 3"


def test_the_last_words_are_the_agents() -> None:
    """Not those of a human, and not an empty message that only calls a tool."""
    messages = [AIMessage("one"), HumanMessage("two"), AIMessage("")]
    assert last_words({"messages": messages}) == "one"
    assert last_words({"n": 1}) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [({"question": "Go?", "step": "a"}, "Go?"), ("Go?", "Go?"), ({"pick": [1, 2]}, '{"pick": [1, 2]}')],
)
def test_a_question_is_read_as_words(value: Any, words: str) -> None:
    """The text where there is one, else all of it."""
    assert question(Interrupt(value=value, id="i")) == words


def test_nothing_steers_a_terminal() -> None:
    """Escape sequences in what a model says do nothing there; a file gets what was said."""
    text = "a\x1b]0;title\x07b\tc\nd\x9b1m"
    assert printable(text, Terminal()) == "a�]0;title�b\tc\nd�1m"
    assert printable(text, io.StringIO()) == text


def test_an_id_may_be_shortened_while_it_is_unique() -> None:
    """The whole id wins over longer ones; several are listed."""
    ids = ["user-1", "user-12", "user-2", "other"]
    assert only(ids, "user-1", "threads") == "user-1"
    assert only(ids, "o", "threads") == "other"
    assert only(ids, "x", "threads") is None
    with pytest.raises(CheckpointerError) as raised:
        only(ids, "user", "threads")
    assert str(raised.value) == (
        "'user' is the beginning of 3 threads; give more of it:\n  user-1\n  user-12\n  user-2"
    )


def test_shortened_ids_still_differ() -> None:
    """As short as may be, but not so short that two are one."""
    ids = ["1f1e81c8-b0a4-6300-800a-aa", "1f1e81c8-b0a4-6300-800a-ab", "1f1e81c8-b094-6300-8009-aa"]
    cut = shortened(ids)
    assert len(set(cut)) == 3
    assert all(id.startswith(short) for id, short in zip(ids, cut, strict=True))
    assert shortened(ids[1:]) == ["1f1e81c8-b0a4", "1f1e81c8-b094"]
