"""The state that an agent's steps share, as a YAML file says it."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel
from typing_extensions import is_typeddict

from petal.core.yaml.format import AgentFile
from petal.core.yaml.mistakes import unknown
from petal.core.yaml.resolution import Resolution
from petal.errors import AgentConfigurationError
from petal.types.inline import StateField, field_type, state_type
from petal.types.state import STATE_TYPES, DefaultState


def state_of(file: AgentFile, resolution: Resolution) -> type:
    """The state type of an agent: a built-in one, one of the user's, or one that the file spells out."""
    if file.state_schema is not None:
        annotations: dict[str, Any] = {}
        for key, entry in file.state_schema.items():
            field = StateField(entry.type, entry.default, "default" in entry.model_fields_set, entry.reducer)
            try:
                annotations[key] = field_type(key, field, folder=resolution.folder)
            except AgentConfigurationError as error:
                resolution.mistakes.add_error(("state_schema", key), error)
        return state_type(f"{_class_name(file.name)}State", annotations)
    if file.state_type is None:
        return DefaultState
    place = ("state_type",)
    if ":" in file.state_type:
        found = resolution.find(place, file.state_type, "a TypedDict, a dataclass or a pydantic model", is_state)
        return found if found is not None else DefaultState
    if file.state_type not in STATE_TYPES:
        problem = unknown("state type", file.state_type, STATE_TYPES, ", and package.module:Name")
        resolution.mistakes.add(place, problem)
    return STATE_TYPES.get(file.state_type, DefaultState)


def is_state(found: Any) -> bool:
    """Whether it is a type that LangGraph takes as a state."""
    if not isinstance(found, type):
        return False
    return is_typeddict(found) or dataclasses.is_dataclass(found) or issubclass(found, BaseModel)


def _class_name(name: str) -> str:
    words = "".join(mark if mark.isalnum() else " " for mark in name).split()
    return "".join(word[0].upper() + word[1:] for word in words)
