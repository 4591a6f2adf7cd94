"""What goes wrong between a value and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from petal.errors import CheckpointerError


class ValueNotSavableError(CheckpointerError, TypeError):
    """A value would not come back exactly as it is, so it is not saved.

    Attributes:
        where: Where it stands, e.g. `channel 'messages'`; empty if that is not known.
        type_name: The type that is the cause, with its module.
        reason: Why, and what to do about it.
    """

    def __init__(self, where: str, type_name: str, reason: str) -> None:
        super().__init__(where, type_name, reason)
        self.where, self.type_name, self.reason = where, type_name, reason

    def __str__(self) -> str:
        return f"{self.where or 'A value'} holds a {self.type_name} that cannot be saved: {self.reason}"


@dataclass(frozen=True)
class RawValue:
    """What was saved for a value that cannot be made again. It is for looking at; it cannot be saved."""

    type_name: str
    """The type it had, with its module."""
    data: Any
    """Its fields, or what else was saved of it."""

    def __hash__(self) -> int:
        # The data may be a dict, and a raw value may still stand in a set.
        return hash(self.type_name)


class Refusal(Exception):
    """Why a value cannot be saved, before it is known in which channel.

    Attributes:
        path: Where in the value it stands, as one would write it: `[3].artifact['x']`.
    """

    def __init__(self, cls: type, reason: str) -> None:
        super().__init__(cls, reason)
        self.cls, self.reason = cls, reason
        self.path = ""


class Unreadable(Exception):
    """Why a saved value cannot be made again."""

    def __init__(self, type_name: str, problem: str, data: Any) -> None:
        super().__init__(type_name, problem)
        self.type_name, self.problem, self.data = type_name, problem, data


def type_name(cls: type) -> str:
    """A type with its module, a builtin one without."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
