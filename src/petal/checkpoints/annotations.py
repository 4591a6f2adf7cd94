"""The types that a state type's annotations reach."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, ClassVar, ForwardRef, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.types import Secret, SecretBytes, SecretStr
from typing_extensions import is_typeddict

_SECRETS = (SecretStr, SecretBytes, Secret)
_PLAIN = frozenset({"builtins", "typing", "typing_extensions", "collections.abc", "abc"})
_FRAMES = (BaseModel, object)
"""Bases whose annotations are about the class, not about its values."""


def types_in(*annotations: Any) -> list[type]:
    """Each type that annotations name, and that the fields of those types name, in the order met.

    Builtin and abstract types are left out, and so are pydantic's secrets, which nobody saves without meaning it. A
    name that cannot be resolved (it is imported for type checkers alone, say) is passed over.
    """
    found: dict[type, None] = {}
    # Annotations are looked up by identity, since some cannot be hashed; so they are kept alive here.
    seen: dict[int, Any] = {}
    waiting: list[tuple[Any, type | None]] = [(annotation, None) for annotation in reversed(annotations)]
    while waiting:
        annotation, owner = waiting.pop()
        if isinstance(annotation, (str, ForwardRef)):
            annotation = _resolved(annotation, owner)
        if id(annotation) in seen:
            continue
        seen[id(annotation)] = annotation
        if not isinstance(annotation, type) or isinstance(annotation, types.GenericAlias):
            waiting.extend((part, owner) for part in reversed(list(_parts(annotation))))
        elif annotation.__module__ not in _PLAIN and not issubclass(annotation, _SECRETS):
            if not is_typeddict(annotation):
                found[annotation] = None
            waiting.extend(reversed(list(_fields(annotation))))
    return list(found)


def _parts(annotation: Any) -> Iterator[Any]:
    """What an annotation that is no class is made of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield get_args(annotation)[0]
    elif origin is Literal:
        yield from (type(value) for value in get_args(annotation) if isinstance(value, Enum))
    elif origin is ClassVar:
        return
    elif origin is not None:
        yield origin
        for argument in get_args(annotation):
            # Callable[[A, B], C] has a list among its arguments.
            yield from argument if isinstance(argument, list) else (argument,)
    elif isinstance(annotation, TypeVar):
        yield annotation.__bound__
        yield from annotation.__constraints__
    elif isinstance(annotation, dataclasses.InitVar):
        return
    elif (supertype := getattr(annotation, "__supertype__", None)) is not None:
        yield supertype
    elif hasattr(annotation, "__type_params__") and hasattr(annotation, "__value__"):
        yield annotation.__value__


def _fields(cls: type) -> Iterator[tuple[Any, type]]:
    """The annotations of a class's fields with the class that has them, and what it is a generic of."""
    if issubclass(cls, BaseModel):
        for field in cls.model_fields.values():
            yield field.annotation, cls
        for argument in cls.__pydantic_generic_metadata__["args"]:
            yield argument, cls
    elif not (is_typeddict(cls) or dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")):
        return
    for base in cls.__mro__:
        if base not in _FRAMES:
            for annotation in vars(base).get("__annotations__", {}).values():
                yield annotation, base
    for alias in getattr(cls, "__orig_bases__", ()):
        for argument in get_args(alias):
            yield argument, cls


def _resolved(name: str | ForwardRef, owner: type | None) -> Any:
    """What the text of an annotation means where it stands; None if that cannot be known."""
    module = getattr(name, "__forward_module__", None) or (owner and owner.__module__)
    home = module if isinstance(module, types.ModuleType) else sys.modules.get(module or "")
    scope = {**vars(owner), owner.__name__: owner} if owner else {}
    text = name.__forward_arg__ if isinstance(name, ForwardRef) else name
    try:
        # The text is the program's own source, and this is how `typing.get_type_hints` reads it too.
        return eval(text, dict(vars(home)) if home else {}, scope)
    except Exception:
        # A name that only a type checker knows must not hide the other fields; a value of that type is refused
        # when it is saved, with what to do about it.
        return None
