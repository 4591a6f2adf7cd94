"""State types written as text."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from petal.core.config.agent import RetryConfig
from petal.errors import AgentConfigurationError
from petal.types.inline import StateField, field_type, parse_type, state_type
from petal.types.state import Messages, state_keys, with_messages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("str", str),
        (" int ", int),
        ("Any", Any),
        ("None", None),
        ("list", list),
        ("list[str]", list[str]),
        ("dict[str, list[int]]", dict[str, list[int]]),
        ("set[float]", set[float]),
        ("tuple[int, str]", tuple[int, str]),
        ("tuple[int, ...]", tuple[int, ...]),
        ("str | None", str | None),
        ("None|bytes", bytes | None),
        ("dict[str, bool | None] | list[Any]", dict[str, bool | None] | list[Any]),
        ("Literal['yes', \"no\", 3]", Literal["yes", "no", 3]),
        ("list[Literal['a']] | None", list[Literal["a"]] | None),
        ("datetime:date", datetime.date),
        ("list[datetime:datetime]", list[datetime.datetime]),
    ],
)
def test_a_type_by_its_text(text: str, expected: Any) -> None:
    assert parse_type(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it ends too early"),
        ("strr", "unknown name 'strr'; did you mean 'str'? Known: "),
        ("zzzzzz", "unknown name 'zzzzzz'. Known: str, int,"),
        ("list[messages]", "unknown name 'messages'; did you mean 'messages'?"),
        ("list[", "it ends too early"),
        ("list[int", "a ']' is missing behind 'list'"),
        ("list[int str]", "a ']' is missing behind 'list'"),
        ("list[int]]", "unexpected ']'"),
        ("list[int, str]", "'list' takes 1 types in brackets, not 2"),
        ("dict[str]", "'dict' takes 2 types in brackets, not 1"),
        ("int[str]", "type 'int' is not subscriptable"),
        ("str |", "it ends too early"),
        ("str & int", "unexpected '& int'"),
        ("__import__('os')", "unexpected \"('os')\""),
        ("Literal", "'Literal' takes its values in brackets, e.g. Literal['yes', 'no']"),
        ("Literal[]", "the values of 'Literal' are separated by commas"),
        ("Literal['a' 'b']", "the values of 'Literal' are separated by commas"),
        ("Literal['a',]", "the values of 'Literal' are separated by commas"),
        ("Literal[a]", "'a' is no value; put text in quotes"),
        ("json:loads", "'json:loads' is no type"),
        ("datetime:datetim", "'datetime' has no 'datetim'. Did you mean 'datetime'?"),
    ],
)
def test_a_text_that_is_no_type(text: str, problem: str) -> None:
    with pytest.raises(AgentConfigurationError) as raised:
        parse_type(text)
    assert str(raised.value).startswith(f"{text!r} is no type: {problem}")


def test_an_exception_in_an_imported_module_stays_the_cause(tmp_path: Path) -> None:
    (tmp_path / "state_that_raises.py").write_text("1 / 0")
    with pytest.raises(AgentConfigurationError, match="raised ZeroDivisionError") as raised:
        parse_type("list[state_that_raises:Item]", folder=tmp_path)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_fields_become_a_state() -> None:
    fields = {
        "messages": StateField("messages"),
        "plain": StateField("str | None"),
        "count": StateField("int", default=5, has_default=True),
        "total": StateField("int", default=2, has_default=True, reducer="add"),
        "log": StateField("list[str]", reducer="append"),
        "seen": StateField("dict[str, int]", reducer="merge"),
        "best": StateField("int", default=0, has_default=True, reducer="operator:or_"),
    }
    state = state_type("Counts", {key: field_type(key, field) for key, field in fields.items()})
    assert state.__name__ == "Counts"
    assert state_keys(state) == tuple(fields)
    assert with_messages(state) is state
    assert get_type_hints(state, include_extras=True)["messages"] == Messages

    def step(values: dict[str, Any]) -> dict[str, Any]:
        return {
            "count": values["count"] + 1,
            "total": 10,
            "log": "one" if not values["log"] else ["two", "three"],
            "seen": {str(values["count"]): values["total"]},
            "best": 4,
            "messages": [AIMessage("hello", id="a")],
        }

    graph: Any = StateGraph(state)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_edge("step", END)
    compiled = graph.compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t"}}
    first = compiled.invoke({"plain": None, "messages": [HumanMessage("hi", id="h")]}, thread)
    assert first == {
        "messages": [HumanMessage("hi", id="h"), AIMessage("hello", id="a")],
        "plain": None,
        "count": 6,
        "total": 12,
        "log": ["one"],
        "seen": {"5": 2},
        "best": 4,
    }
    again = compiled.invoke({"plain": "text", "best": 1}, thread)
    assert (again["count"], again["total"], again["log"]) == (7, 22, ["one", "two", "three"])
    assert (again["seen"], again["best"], again["plain"]) == ({"5": 2, "6": 12}, 5, "text")
    oldest = list(compiled.get_state_history(thread))[-1]
    assert oldest.values == {"messages": [], "count": 5, "total": 2, "log": [], "seen": {}, "best": 0}


def test_the_same_fields_are_the_same_type() -> None:
    def state(default: Any, reducer: str | None = None) -> type:
        annotations = {key: field_type(key, StateField("list[int]", default, True, reducer)) for key in ("a", "b")}
        return state_type("S", annotations)

    assert state([1]) is state([1])
    assert state([1], "add") is state([1], "add")
    assert state([1], "add") is not state([1], "append")
    assert state([1], "add") is not state([2], "add")
    assert state([1]) is not state([2])
    assert state([1]) is not state([1], "add")
    hints = get_type_hints(state([1]), include_extras=True)
    assert [hints[key].__metadata__[0].key for key in ("a", "b")] == ["a", "b"]


def test_a_default_is_not_shared() -> None:
    """A step that changes a list in place changes its own run only."""
    state = state_type("Shared", {"items": field_type("items", StateField("list[int]", [], True))})

    def step(values: dict[str, Any]) -> dict[str, Any]:
        values["items"].append(1)
        return {"items": values["items"]}

    graph: Any = StateGraph(state)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    compiled = graph.compile()
    assert [compiled.invoke({}) for _ in range(2)] == [{"items": [1]}] * 2


def test_a_default_is_of_the_fields_type() -> None:
    def default(text: str, value: Any) -> Any:
        (channel,) = field_type("n", StateField(text, value, True)).__metadata__
        return channel.get()

    retry = "petal.core.config.agent:RetryConfig"
    assert default(retry, {"attempts": 3}) == RetryConfig(attempts=3)
    assert default(f"list[{retry}]", [{"attempts": 3}]) == [RetryConfig(attempts=3)]
    assert repr(default("float", 1)) == "1.0"
    assert default("petal.tools.toolbox:Toolbox | None", None) is None


def test_a_channel_is_copied_with_its_value() -> None:
    """LangGraph copies channels where it looks at a state without running anything."""
    for reducer in (None, "add"):
        (channel,) = field_type("n", StateField("int", 1, True, reducer)).__metadata__
        channel.update([5])
        copied = channel.copy()
        assert copied == channel
        assert (copied.get(), copied.key, copied.default) == (channel.get(), "n", 1)
        assert channel.from_checkpoint(3).get() == 3


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (StateField("messages", reducer="add"), "'messages' has a reducer and a default of its own; write it alone."),
        (StateField("messages", [], True), "'messages' has a reducer and a default of its own; write it alone."),
        (StateField("int", "x", True), "The default 'x' is no int."),
        (StateField("int", None, True), "The default None is no int."),
        (StateField("list[int]", ["x"], True), "The default ['x'] is no list[int]."),
        (StateField("petal.tools.toolbox:Toolbox", None, True), "The default None is no petal.tools.toolbox:Toolbox."),
        (
            StateField("petal.core.turns:Turn", None, True),
            "Nothing tells whether the default None is a petal.core.turns:Turn; leave it out, and let a step write the "
            "value.",
        ),
        (StateField("int", reducer="append"), "The reducer 'append' fits list, not 'int'."),
        (StateField("bool", reducer="add"), "The reducer 'add' fits list, int, float, str, tuple, not 'bool'."),
        (StateField("list[int]", reducer="merge"), "The reducer 'merge' fits dict, not 'list[int]'."),
        (
            StateField("list[int]", reducer="appned"),
            "No reducer 'appned'. Did you mean 'append'? Known: append, add, merge, and package.module:function.",
        ),
        (StateField("int", reducer="zzz"), "No reducer 'zzz'. Known: append, add, merge, and package.module:function."),
        (
            StateField("int", reducer="math:pi"),
            "'math:pi' is of type float, not a function of the old and the new value.",
        ),
    ],
)
def test_a_field_that_cannot_work(field: StateField, message: str) -> None:
    with pytest.raises(AgentConfigurationError) as raised:
        field_type("key", field)
    assert str(raised.value) == message
