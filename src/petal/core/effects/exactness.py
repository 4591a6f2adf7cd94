"""Whether a saver that is none of Petal's gives a value back as it went in."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from pydantic import BaseModel

from petal.checkpoints.codec import ValueNotSavableError
from petal.checkpoints.codec.errors import type_name


def loss(saver: BaseCheckpointSaver[Any], value: Any) -> ValueNotSavableError | None:
    """What is wrong with a value that the saver would not give back as it is; None if it would."""
    try:
        back = saver.serde.loads_typed(saver.serde.dumps_typed(value))
    except Exception as error:
        return ValueNotSavableError("", type_name(type(value)), f"{error}.")
    if (changed := _changed(value, back)) is None:
        return None
    return ValueNotSavableError(
        "", type_name(type(changed[0])), f"it would come back as {type_name(type(changed[1]))}."
    )


def _changed(value: Any, back: Any) -> tuple[Any, Any] | None:
    """The first part that is not what it was, and what it became."""
    if type(value) is not type(back):
        return value, back
    match value:
        case dict():
            if list(map(type, value)) != list(map(type, back)) or list(value) != list(back):
                return value, back
            parts = [(one, back[key]) for key, one in value.items()]
        case list() | tuple():
            if len(value) != len(back):
                return value, back
            parts = list(zip(value, back, strict=True))
        case BaseModel():
            parts = [(value.__dict__, back.__dict__)]
        case _ if is_dataclass(value):
            parts = [(getattr(value, field.name), getattr(back, field.name)) for field in fields(value)]
        case float() if value != value:
            return None if back != back else (value, back)
        case _:
            return None if _equal(value, back) else (value, back)
    return next((changed for pair in parts if (changed := _changed(*pair)) is not None), None)


def _equal(value: Any, back: Any) -> bool:
    if getattr(type(value), "__eq__", None) == object.__eq__:
        return True  # it is equal to nothing but itself, so nothing can be told
    same = value == back
    return bool(same.all()) if hasattr(same, "all") else bool(same)
