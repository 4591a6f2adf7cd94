"""Any TypedDict, dataclass or pydantic model is a state, and gets `messages` where a step needs them."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel

from petal.errors import AgentConfigurationError
from petal.types.state import ConversationState, DefaultState, state_keys, values_of, with_messages


class Typed(TypedDict, total=False):
    topic: str


@dataclasses.dataclass
class Data:
    topic: str = "tea"


@dataclasses.dataclass(frozen=True)
class FrozenData:
    topic: str


class Model(BaseModel):
    topic: str = "tea"


class Overwritten(TypedDict):
    messages: list[Any]


@pytest.mark.parametrize("state_type", [Typed, Data, FrozenData, Model])
def test_messages_are_added_once(state_type: type) -> None:
    extended = with_messages(state_type)
    assert state_keys(extended) == ("topic", "messages")
    assert extended.__name__ == state_type.__name__
    assert with_messages(state_type) is extended
    assert with_messages(extended) is extended


@pytest.mark.parametrize("state_type", [DefaultState, ConversationState])
def test_a_state_with_messages_stays_as_it_is(state_type: type) -> None:
    assert with_messages(state_type) is state_type
    assert state_keys(state_type)[:2] == ("messages", "input")


def test_an_extended_state_is_still_one_of_its_kind() -> None:
    assert isinstance(with_messages(Data)(), Data)
    assert isinstance(with_messages(FrozenData)(topic="tea"), FrozenData)
    assert isinstance(with_messages(Model)(), Model)


@pytest.mark.parametrize("state", [{"topic": "tea"}, Data(), FrozenData("tea"), Model()])
def test_values_are_read_from_any_kind(state: Any) -> None:
    assert values_of(state) == {"topic": "tea"}


def test_messages_that_each_step_would_overwrite_are_refused() -> None:
    with pytest.raises(AgentConfigurationError, match="add_messages"):
        with_messages(Overwritten)


@pytest.mark.parametrize("no_state", [int, "DefaultState", dict])
def test_what_is_no_state_is_refused(no_state: Any) -> None:
    with pytest.raises(AgentConfigurationError, match="use a TypedDict, a dataclass or a pydantic model"):
        state_keys(no_state)


def test_annotations_that_cannot_be_read_are_named() -> None:
    class Hidden:
        pass

    class Local(TypedDict):
        hidden: Hidden

    with pytest.raises(AgentConfigurationError, match="The annotations of Local cannot be read"):
        state_keys(Local)
