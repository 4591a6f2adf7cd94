"""Which types may be saved, and be made again when state is read."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Self

from petal.checkpoints.annotations import types_in
from petal.errors import CheckpointerConfigurationError

_MESSAGES = "langchain_core.messages"

STANDARD: dict[str, tuple[str, str]] = {
    "HumanMessage": (f"{_MESSAGES}.human", "HumanMessage"),
    "HumanMessageChunk": (f"{_MESSAGES}.human", "HumanMessageChunk"),
    "AIMessage": (f"{_MESSAGES}.ai", "AIMessage"),
    "AIMessageChunk": (f"{_MESSAGES}.ai", "AIMessageChunk"),
    "SystemMessage": (f"{_MESSAGES}.system", "SystemMessage"),
    "SystemMessageChunk": (f"{_MESSAGES}.system", "SystemMessageChunk"),
    "ChatMessage": (f"{_MESSAGES}.chat", "ChatMessage"),
    "ChatMessageChunk": (f"{_MESSAGES}.chat", "ChatMessageChunk"),
    "ToolMessage": (f"{_MESSAGES}.tool", "ToolMessage"),
    "ToolMessageChunk": (f"{_MESSAGES}.tool", "ToolMessageChunk"),
    "FunctionMessage": (f"{_MESSAGES}.function", "FunctionMessage"),
    "FunctionMessageChunk": (f"{_MESSAGES}.function", "FunctionMessageChunk"),
    "RemoveMessage": (f"{_MESSAGES}.modifier", "RemoveMessage"),
    "BaseMessage": (f"{_MESSAGES}.base", "BaseMessage"),
    "BaseMessageChunk": (f"{_MESSAGES}.base", "BaseMessageChunk"),
    "Document": ("langchain_core.documents.base", "Document"),
    "Interrupt": ("langgraph.types", "Interrupt"),
    "Send": ("langgraph.types", "Send"),
    "Command": ("langgraph.types", "Command"),
    "Overwrite": ("langgraph.types", "Overwrite"),
    "TimeoutPolicy": ("langgraph.types", "TimeoutPolicy"),
    "StateSnapshot": ("langgraph.types", "StateSnapshot"),
    "StateUpdate": ("langgraph.types", "StateUpdate"),
    "PregelTask": ("langgraph.types", "PregelTask"),
    "DeltaSnapshot": ("langgraph.checkpoint.serde.types", "_DeltaSnapshot"),
    "StoreItem": ("langgraph.store.base", "Item"),
    "StoreGetOp": ("langgraph.store.base", "GetOp"),
}
"""What LangChain and LangGraph put into a state, by the name under which it is saved: where it lives. The name stays
when a library moves the type."""

_STANDARD_NAMES = {place: name for name, place in STANDARD.items()}


def resolve(module: str, qualname: str) -> type | None:
    """Import a type by its name; None if there is no such type. Only for names that were declared.

    Args:
        module: Dotted name of the module. It is imported.
        qualname: Name in the module, nested as in `Outer.Inner`. A name within a function (`<locals>`) is never found.
    """
    try:
        found: Any = import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


class Allowlist:
    """The types that state may hold beside plain data. Immutable; each change gives a new one.

    Messages, documents and LangGraph's own types are always in it. A type is found by its module and qualified name;
    nothing is imported for a name that was not declared.

    Args:
        types: Types to allow.
        names: `(module, qualified name)` of types to allow, which are imported when they are first asked for.
    """

    __slots__ = ("_found", "_known", "_names")

    def __init__(self, types: Iterable[type] = (), names: Iterable[tuple[str, ...]] = ()) -> None:
        self._known: dict[tuple[str, str], type] = {}
        for cls in types:
            if not isinstance(cls, type):
                raise CheckpointerConfigurationError(f"Only types can be allowed, and {cls!r} is none.")
            # Of two types with one name the first counts; the other is refused when it is saved.
            self._known.setdefault((cls.__module__, cls.__qualname__), cls)
        self._names = frozenset((".".join(module), name) for *module, name in names)
        self._found: dict[tuple[str, str], type | None] = {}

    @classmethod
    def of_state(cls, *schemas: Any) -> Self:
        """All types that the annotations of state types reach.

        Args:
            schemas: TypedDicts, dataclasses, pydantic models or other annotations. Reducers and other metadata of
                `Annotated` don't count, nor do pydantic's secrets: allow those with `adding`.
        """
        return cls(types_in(*schemas))

    def adding(self, *types: type) -> Self:
        """This allowlist and more types.

        Raises:
            CheckpointerConfigurationError: If one of them is no type.
        """
        return type(self)((*types, *self._known.values()), self._names)

    def adding_names(self, names: Iterable[tuple[str, ...]]) -> Self:
        """This allowlist and more `(module, name)`, as LangGraph's `with_allowlist` hands them over."""
        return type(self)(self._known.values(), (*self._names, *names))

    def get(self, module: str, qualname: str) -> type | None:
        """The allowed type of that name; None if there is none, be it undeclared or gone."""
        place = (module, qualname)
        if (known := self._known.get(place)) is not None:
            return known
        if not self.declares(module, qualname):
            return None
        if place not in self._found:
            self._found[place] = resolve(module, qualname)
        return self._found[place]

    def declares(self, module: str, qualname: str) -> bool:
        """Whether a type of that name may be loaded, if there is one."""
        place = (module, qualname)
        # LangGraph names a nested type by its last name only.
        last = (module, qualname.rpartition(".")[2])
        return place in self._known or place in _STANDARD_NAMES or place in self._names or last in self._names

    def name_of(self, cls: type) -> str | None:
        """Under which name a type is saved; None if it is not allowed."""
        place = (cls.__module__, cls.__qualname__)
        if self.get(*place) is not cls:
            return None
        return _STANDARD_NAMES.get(place) or ":".join(place)

    def place_of(self, name: str) -> tuple[str, str]:
        """The module and qualified name that a saved name stands for."""
        if (place := STANDARD.get(name)) is not None:
            return place
        module, _, qualname = name.partition(":")
        return module, qualname

    def __repr__(self) -> str:
        declared = sorted({".".join(place) for place in (*self._known, *self._names)})
        return f"<Allowlist of {', '.join(declared) or 'the standard types'}>"
