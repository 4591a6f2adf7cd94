"""Which form the instances of a class are saved in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import ormsgpack
from langgraph._internal._typing import MISSING
from pydantic import BaseModel

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import arrays
from petal.checkpoints.codec.declared import (
    DataclassForm,
    EnumForm,
    ExtensionForm,
    NamedTupleForm,
    ObjectForm,
    extended,
    is_of_python,
    shown,
)
from petal.checkpoints.codec.errors import Refusal, Unreadable
from petal.checkpoints.codec.models import ModelForm
from petal.checkpoints.codec.standard import STANDARDS, TYPES

TEXT, INTEGER, BUFFER, TYPE = 8, 9, 10, 11
TUPLE, MAPPING, NESTED, SET, FROZENSET = 12, 13, 14, 15, 16
STANDARD = 17
MODEL, DATACLASS, NAMEDTUPLE, ENUM, EXTENSION, OBJECT = 24, 25, 26, 27, 28, 29
"""MessagePack extension codes. They are on disk: a code never changes its meaning. LangGraph's serializer has 0 to 7,
so its data is never taken for ours."""

DECLARED = frozenset({MODEL, DATACLASS, NAMEDTUPLE, ENUM, EXTENSION, OBJECT})
"""Codes whose data begins with the name of a declared type."""

RAW = frozenset({TEXT, INTEGER, BUFFER, TYPE})
"""Codes whose data is no MessagePack."""

_BY_CLASS = {standard.cls: standard for standard in STANDARDS}
_BY_NAME = {standard.name: standard for standard in STANDARDS}
_TYPE_NAMES = {cls: name for name, cls in TYPES.items()}
_UNDECLARED = "its type is not declared; name it in the annotations of the state, or pass allow=[{}]."


class Fielded(Protocol):
    """The form of one declared class."""

    def take(self, value: Any) -> list[Any]:
        """The class's name and what the instance holds."""
        ...

    def make(self, tree: list[Any]) -> Any:
        """The instance again."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of one type are written: an extension code, and what it holds."""

    code: int
    take: Callable[[Any], Any]


class Forms:
    """The forms of all types that an allowlist knows."""

    def __init__(self, allowed: Allowlist, pack: Callable[[Any], bytes]) -> None:
        self._allowed = allowed

        def in_order(values: Any) -> list[Any]:
            # A set has no order that outlives the process; its elements' bytes do.
            return sorted(values, key=pack) if len(values) > 1 else list(values)

        self._builtin = {
            tuple: Form(TUPLE, list),
            set: Form(SET, in_order),
            frozenset: Form(FROZENSET, in_order),
            bytearray: Form(BUFFER, bytes),
            int: Form(INTEGER, _big_integer),
            str: Form(TEXT, lambda text: text.encode("utf-8", "surrogatepass")),
            object: Form(STANDARD, _take_missing),
        }
        self._declared: dict[tuple[int, str], Fielded] = {}

    def of(self, cls: type) -> Form:
        """The form in which instances of a class are saved.

        Raises:
            Refusal: If the class is not allowed, or holds more than can be told.
        """
        if (builtin := self._builtin.get(cls)) is not None:
            return builtin
        if (standard := _BY_CLASS.get(cls)) is not None:
            name, take = standard.name, standard.take
            return Form(STANDARD, lambda value: [name, take(value)])
        if arrays.is_array_type(cls):
            return Form(STANDARD, arrays.take)
        if issubclass(cls, type):
            return Form(TYPE, self._take_type)
        saved_as = self._allowed.name_of(cls)
        if saved_as is None:
            raise Refusal(cls, self._undeclared(cls))
        code, declared = self._form_of(cls, saved_as)
        return Form(code, declared.take)

    def named(self, code: int, tree: list[Any]) -> Fielded:
        """The form that the name stands for with which a saved tree begins.

        Raises:
            Unreadable: If the name is not declared, or its type is gone or is of another kind now.
        """
        name: str = tree[0]
        if (known := self._declared.get((code, name))) is not None:
            return known
        data = _fields_of(code, tree)
        place = self._allowed.place_of(name)
        cls = self._allowed.get(*place)
        if cls is None:
            if self._allowed.declares(*place):
                raise Unreadable(shown(name), f"there is no type {shown(name)} any more", data)
            raise Unreadable(
                shown(name),
                f"its type {shown(name)} is not declared, so it is not loaded; name it in the annotations of the "
                f"state, or pass allow=[{place[1].rpartition('.')[2]}]",
                data,
            )
        try:
            code_now, form = self._form_of(cls, name)
        except Refusal as refusal:
            raise Unreadable(shown(name), refusal.reason, data) from refusal
        if code_now != code:
            raise Unreadable(shown(name), f"{shown(name)} is another kind of type now", data)
        self._declared[code, name] = form
        return form

    def standard(self, tree: list[Any]) -> Any:
        """The standard value again that was saved as `[name, parts]`."""
        name, parts = tree
        if (standard := _BY_NAME.get(name)) is not None:
            return standard.make(parts)
        if name in (arrays.ARRAY, arrays.SCALAR):
            return arrays.make(name, parts)
        if name == "MISSING" and parts is None:
            return MISSING
        raise Unreadable(str(name), f"there is no standard type {name!r}", parts)

    def type_named(self, name: str) -> type:
        """The type itself that was saved as a value."""
        if (cls := TYPES.get(name)) is None and (cls := self._allowed.get(*self._allowed.place_of(name))) is None:
            raise Unreadable(shown(name), f"the type {shown(name)} is not declared, or there is none any more", name)
        return cls

    def _take_type(self, cls: type) -> bytes:
        name = _TYPE_NAMES.get(cls) or self._allowed.name_of(cls)
        if name is None:
            raise Refusal(cls, self._undeclared(cls))
        return name.encode()

    def _undeclared(self, cls: type) -> str:
        if self._allowed.get(cls.__module__, cls.__qualname__) is not None:
            return "another type of the same name is declared; give one of the two a name of its own."
        if issubclass(cls, BaseException):
            return "it is an exception; keep its text."
        if cls in (memoryview, ormsgpack.Ext, ormsgpack.Fragment):
            return "it stands for bytes that are somewhere else; keep bytes."
        return _UNDECLARED.format(cls.__qualname__.rpartition(".")[2])

    def _form_of(self, cls: type, name: str) -> tuple[int, Fielded]:
        """
        Raises:
            Refusal: If instances hold something that fields and attributes don't tell.
        """
        if issubclass(cls, Enum):
            return ENUM, EnumForm(cls, name)
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return NAMEDTUPLE, NamedTupleForm(cls, name)
        if is_of_python(cls):
            if issubclass(cls, BaseModel):
                return MODEL, ModelForm(cls, name)
            if dataclasses.is_dataclass(cls):
                return DATACLASS, DataclassForm(cls, name)
            if not _has_ways_of_its_own(cls):
                return OBJECT, ObjectForm(cls, name)
            raise Refusal(cls, "it says itself how it is pickled, so its attributes may not be all; use a dataclass.")
        if (base := extended(cls)) is not None:
            return EXTENSION, ExtensionForm(cls, name, base)
        raise Refusal(cls, "it is made in C, so nothing tells what it holds; keep plain data, or a dataclass of it.")


def _has_ways_of_its_own(cls: type) -> bool:
    """Whether a class says how it is pickled: then there may be more to it than its attributes."""
    mine = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
    return any(name in vars(base) for base in cls.__mro__ if base is not object for name in mine)


def _fields_of(code: int, tree: list[Any]) -> Any:
    """What there is to look at in a tree whose type is unknown."""
    if code == MODEL:
        return tree[2]
    if code == EXTENSION:
        return tree[2:]
    return tree[1:] if code == ENUM else tree[1]


def _big_integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _take_missing(value: Any) -> list[Any]:
    if value is not MISSING:
        raise Refusal(object, "one bare object is like another, so it could not be told which it was.")
    return ["MISSING", None]
