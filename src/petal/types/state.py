"""The states that agents share among their steps, and how to read and extend any of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, cast, get_type_hints

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from pydantic import BaseModel, Field, create_model
from typing_extensions import TypedDict, is_typeddict

from petal.errors import AgentConfigurationError

Messages = Annotated[list[AnyMessage], add_messages]
"""A list of messages that grows: new ones are added, those with a known id replace it."""


class DefaultState(TypedDict, total=False):
    """A conversation, and the text that came last from outside it."""

    messages: Messages
    input: str


class ConversationState(TypedDict, total=False):
    """A conversation with somebody: prompts may name `{user_id}` and `{context}`."""

    messages: Messages
    input: str
    user_id: str
    context: str


STATE_TYPES: Mapping[str, type] = {"DefaultState": DefaultState, "ConversationState": ConversationState}
"""The state types that YAML and the command line know by name."""


def state_keys(state_type: type) -> tuple[str, ...]:
    """The keys of a state type, in their order."""
    return tuple(_hints(state_type))


def values_of(state: Any) -> dict[str, Any]:
    """A state's values by key: those that are set in a dict, all fields of a dataclass or model."""
    if isinstance(state, Mapping):
        return dict(state)
    if isinstance(state, BaseModel):
        return {name: getattr(state, name) for name in type(state).model_fields}
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def reducer_of(state_type: type, key: str) -> Callable[[Any, Any], Any] | None:
    """What joins a key's old value and a new one; None if the new one replaces it."""
    extras = getattr(_hints(state_type)[key], "__metadata__", ())
    return extras[-1] if extras and callable(extras[-1]) else None


@lru_cache(maxsize=256)
def with_messages(state_type: type) -> type:
    """The state type itself if it has `messages`, else the same with `messages` added.

    Raises:
        AgentConfigurationError: If `messages` has no reducer, so that each step would overwrite the others'.
    """
    hints = _hints(state_type)
    if "messages" in hints:
        if not any(callable(extra) for extra in getattr(hints["messages"], "__metadata__", ())):
            raise AgentConfigurationError(
                f"`messages` of {state_type.__name__} would be overwritten by each step; annotate it as "
                "Annotated[list[AnyMessage], add_messages] (from langgraph.graph.message)."
            )
        return state_type
    if is_typeddict(state_type):
        return cast(type, TypedDict(state_type.__name__, {**hints, "messages": Messages}))  # type: ignore[operator]
    if issubclass(state_type, BaseModel):
        return create_model(state_type.__name__, __base__=state_type, messages=(Messages, Field(default_factory=list)))
    return dataclasses.make_dataclass(
        state_type.__name__,
        [("messages", Messages, dataclasses.field(default_factory=list))],
        bases=(state_type,),
        frozen=state_type.__dataclass_params__.frozen,  # type: ignore[attr-defined]
        kw_only=True,
    )


def _hints(state_type: type) -> dict[str, Any]:
    if not (
        is_typeddict(state_type)
        or (inspect.isclass(state_type) and (dataclasses.is_dataclass(state_type) or issubclass(state_type, BaseModel)))
    ):
        raise AgentConfigurationError(
            f"{state_type!r} is no state type; use a TypedDict, a dataclass or a pydantic model."
        )
    try:
        return get_type_hints(state_type, include_extras=True)
    except NameError as error:
        raise AgentConfigurationError(
            f"The annotations of {state_type.__name__} cannot be read: {error}. Define the types that it names "
            "in its module, not inside a function."
        ) from error
