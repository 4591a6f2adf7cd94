"""State types written as text: `{"total": "int", "log": {"type": "list[str]", "reducer": "append"}}`."""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_origin

from langgraph.channels import BinaryOperatorAggregate, LastValue
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from petal.errors import AgentConfigurationError, nearest
from petal.types.references import is_reference, resolve
from petal.types.state import Messages

TYPES: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "bytes": bytes,
    "list": list,
    "dict": dict,
    "set": set,
    "tuple": tuple,
    "Any": Any,
    "None": None,
    "Literal": Literal,
}
"""The types that a field's text may name, beside `messages` and `package.module:Name`."""

MESSAGES = "messages"
"""Stands for the list of messages that grows."""

_UNSET: Any = LastValue(Any).checkpoint()
"""What LangGraph keeps for a channel without a value."""

_TOKEN = re.compile(r"""\s*([^\W\d][\w.]*(:[\w.]+)?|'[^']*'|"[^"]*"|-?\d+|\.\.\.|[\[\],|])""")


def appended(old: Any, new: Any) -> Any:
    """The old list, and behind it the new one, or the new element."""
    return [*old, *new] if isinstance(new, list) else [*old, new]


def merged(old: Any, new: Any) -> Any:
    """The old dict with the new one's keys over it."""
    return {**old, **new}


REDUCERS: Mapping[str, tuple[Callable[[Any, Any], Any], tuple[Any, ...]]] = {
    "append": (appended, (list,)),
    "add": (operator.add, (list, int, float, str, tuple)),
    "merge": (merged, (dict,)),
}
"""Each reducer's function, and the types of field that it fits."""


@dataclass(frozen=True, slots=True)
class StateField:
    """One key of a state, as text."""

    type: str
    """E.g. `str`, `list[str]`, `dict[str, Any]`, `messages` or `package.module:Name`."""
    default: Any = None
    """The value before any was written; only looked at if `has_default`."""
    has_default: bool = False
    reducer: str | None = None
    """`append`, `add`, `merge` or `package.module:function`: how a new value joins the old one.
    Without one it replaces it."""


def field_type(name: str, field: StateField, *, folder: Path | None = None) -> Any:
    """The annotation that a field's text stands for, as LangGraph reads it from a state type.

    Args:
        name: The field's key.
        field: The text.
        folder: Where modules are looked for first.

    Raises:
        AgentConfigurationError: If the text names no type, or default, reducer and type do not fit together.
    """
    if field.type.strip() == MESSAGES:
        if field.has_default or field.reducer is not None:
            raise AgentConfigurationError("'messages' has a reducer and a default of its own; write it alone.")
        return Messages
    value = parse_type(field.type, folder=folder)
    reducer = _reducer(field.reducer, value, field.type, folder) if field.reducer is not None else None
    if field.has_default:
        default = _fitting(field.default, value, field.type)
        if reducer is None:
            return Annotated[value, Defaulted(value, default, name)]
        return Annotated[value, DefaultedReduced(value, reducer, default, name)]
    return value if reducer is None else Annotated[value, reducer]


def state_type(name: str, annotations: Mapping[str, Any]) -> type:
    """A TypedDict with these keys; the same one each time for the same arguments.

    Args:
        name: Its name.
        annotations: A key and its annotation each, as `field_type` gives them.
    """
    return _typed_dict(name, tuple(annotations.items()))


@lru_cache(maxsize=256)
def _typed_dict(name: str, annotations: tuple[tuple[str, Any], ...]) -> type:
    return cast(type, TypedDict(name, dict(annotations), total=False))  # type: ignore[operator]


def parse_type(text: str, *, folder: Path | None = None) -> Any:
    """The type that a text such as `dict[str, list[int]] | None` names. Nothing in it is evaluated.

    Raises:
        AgentConfigurationError: If it names none.
    """
    try:
        tokens = list(_tokens(text))
        parsed, rest = _union(tokens, folder)
        if rest:
            raise AgentConfigurationError(f"unexpected {rest[0]!r}")
        return parsed
    except (AgentConfigurationError, TypeError) as error:
        raise AgentConfigurationError(f"{text!r} is no type: {error}") from error.__cause__


def _tokens(text: str) -> Iterator[str]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise AgentConfigurationError(f"unexpected {text[at:].strip()[:10]!r}")
        yield match[0].strip()
        at = match.end()


def _union(tokens: list[str], folder: Path | None) -> tuple[Any, list[str]]:
    found, tokens = _one(tokens, folder)
    while tokens[:1] == ["|"]:
        other, tokens = _one(tokens[1:], folder)
        found = found | other if found is not None or other is not None else None
    return found, tokens


def _one(tokens: list[str], folder: Path | None) -> tuple[Any, list[str]]:
    if not tokens:
        raise AgentConfigurationError("it ends too early")
    name, rest = tokens[0], tokens[1:]
    found = _named(name, folder)
    if found is Literal:
        return _literal(rest)
    if rest[:1] != ["["]:
        return found, rest
    arguments, rest = [], ["[", *rest[1:]]
    while rest[0] in ("[", ","):
        rest = rest[1:]
        if rest[:1] == ["..."]:
            argument, rest = ..., rest[1:]
        else:
            argument, rest = _union(rest, folder)
        arguments.append(argument)
        if not rest or rest[0] not in (",", "]"):
            raise AgentConfigurationError(f"a ']' is missing behind {name!r}")
    wanted = {list: 1, set: 1, dict: 2}.get(found)
    if wanted is not None and len(arguments) != wanted:
        raise AgentConfigurationError(f"{name!r} takes {wanted} types in brackets, not {len(arguments)}")
    return found[arguments[0] if len(arguments) == 1 else tuple(arguments)], rest[1:]


def _literal(tokens: list[str]) -> tuple[Any, list[str]]:
    if "]" not in tokens or tokens[0] != "[":
        raise AgentConfigurationError("'Literal' takes its values in brackets, e.g. Literal['yes', 'no']")
    end = tokens.index("]")
    values = []
    for value in tokens[1:end:2]:
        if value[0] in "'\"":
            values.append(value[1:-1])
        elif value.lstrip("-").isdigit():
            values.append(int(value))  # type: ignore[arg-type]
        else:
            raise AgentConfigurationError(f"{value!r} is no value; put text in quotes")
    if not values or end % 2 or any(mark != "," for mark in tokens[2:end:2]):
        raise AgentConfigurationError("the values of 'Literal' are separated by commas")
    return Literal[tuple(values)], tokens[end + 1 :]


def _named(name: str, folder: Path | None) -> Any:
    if name in TYPES:
        return TYPES[name]
    if is_reference(name):
        found = resolve(name, folder=folder)
        if not isinstance(found, type) and get_origin(found) is None:
            raise AgentConfigurationError(f"{name!r} is no type")
        return found
    guess = nearest(name, [*TYPES, MESSAGES])
    hint = f"; did you mean {guess!r}?" if guess else "."
    known = ", ".join([*TYPES, "package.module:Name", f"and alone {MESSAGES}"])
    raise AgentConfigurationError(f"unknown name {name!r}{hint} Known: {known}.")


def _reducer(name: str, value: Any, text: str, folder: Path | None) -> Callable[[Any, Any], Any]:
    if name in REDUCERS:
        reducer, fits = REDUCERS[name]
        if (get_origin(value) or value) not in fits:
            allowed = ", ".join(kind.__name__ for kind in fits)
            raise AgentConfigurationError(f"The reducer {name!r} fits {allowed}, not {text!r}.")
        return reducer
    if not is_reference(name):
        guess = nearest(name, REDUCERS)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise AgentConfigurationError(
            f"No reducer {name!r}.{hint} Known: {', '.join(REDUCERS)}, and package.module:function."
        )
    found = resolve(name, folder=folder)
    if not callable(found):
        raise AgentConfigurationError(
            f"{name!r} is of type {type(found).__name__}, not a function of the old and the new value."
        )
    return cast(Callable[[Any, Any], Any], found)


def _fitting(default: Any, value: Any, text: str) -> Any:
    """The default as a value of its type: a mapping becomes the model that it describes."""
    try:
        return _adapter(value).validate_python(default, strict=True)
    except ValidationError:
        raise AgentConfigurationError(f"The default {default!r} is no {text}.") from None
    except PydanticUserError:
        raise AgentConfigurationError(
            f"Nothing tells whether the default {default!r} is a {text}; leave it out, and let a step write the value."
        ) from None


def _adapter(value: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(value)
    except PydanticSchemaGenerationError:  # of a class that is none of pydantic's, only instances fit
        return TypeAdapter(value, config=ConfigDict(arbitrary_types_allowed=True))


class Defaulted(LastValue[Any]):
    """A key that has a value before any was written."""

    __slots__ = ("default",)

    def __init__(self, typ: Any, default: Any, key: str = "") -> None:
        super().__init__(typ, key)
        self.default = default
        self.value = copy.deepcopy(default)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Defaulted) and _identity(self) == _identity(other)

    def __hash__(self) -> int:
        return hash(repr(_identity(self)))

    def copy(self) -> Self:
        return self.from_checkpoint(self.value)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        fresh = type(self)(self.typ, self.default, self.key)
        if checkpoint is not _UNSET:
            fresh.value = checkpoint
        return fresh


class DefaultedReduced(BinaryOperatorAggregate[Any]):
    """A key that has a value before any was written, and joins each new one to the old."""

    __slots__ = ("default",)

    def __init__(self, typ: Any, operator: Callable[[Any, Any], Any], default: Any, key: str = "") -> None:
        super().__init__(typ, operator)
        self.key = key
        self.default = default
        self.value = copy.deepcopy(default)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DefaultedReduced)
            and self.operator is other.operator
            and _identity(self) == _identity(other)
        )

    def __hash__(self) -> int:
        return hash(repr(_identity(self)))

    def copy(self) -> Self:
        return self.from_checkpoint(self.value)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        fresh = type(self)(self.typ, self.operator, self.default, self.key)
        if checkpoint is not _UNSET:
            fresh.value = checkpoint
        return fresh


def _identity(channel: Defaulted | DefaultedReduced) -> tuple[Any, Any, str]:
    return channel.typ, channel.default, channel.key
