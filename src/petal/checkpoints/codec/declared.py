"""How instances of declared classes come apart into their fields, and are made again without running their code."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, Flag
from struct import calcsize
from types import BuiltinFunctionType, MemberDescriptorType
from typing import Any

from petal.checkpoints.codec.errors import Refusal, Unreadable
from petal.checkpoints.codec.standard import mapping, pairs

_HEAP_TYPE = 1 << 9
"""CPython's flag of a class that was made at run time: by a `class` statement, or by newer extensions in C."""

_POINTER = calcsize("P")


def shown(name: str) -> str:
    """A saved name as the program's author writes it."""
    return name.replace(":", ".")


def changed(name: str, problem: str, data: Any) -> Unreadable:
    """The error for a class that is not what it was."""
    return Unreadable(shown(name), f"{shown(name)} is no longer what it was when this was saved: {problem}", data)


def expect_fields(name: str, recorded: frozenset[str], known: frozenset[str], data: Any) -> None:
    """Check that a class still has the fields that were recorded.

    Raises:
        Unreadable: If it has more or fewer.
    """
    if recorded != known:
        gone, new = sorted(recorded - known), sorted(known - recorded)
        said = [f"it had {', '.join(gone)}"] if gone else []
        said += [f"it has {', '.join(new)} now"] if new else []
        raise changed(name, " and ".join(said), data)


class Attributes:
    """The instance dict and slots of a class whose instances hold nothing else."""

    __slots__ = ("_cls", "_has_dict", "_slots")

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._slots: dict[str, Any] = {}
        for base in cls.__mro__:
            for name, slot in vars(base).items():
                if isinstance(slot, MemberDescriptorType) and base.__flags__ & _HEAP_TYPE:
                    self._slots.setdefault(name, slot)
        self._has_dict = cls.__dictoffset__ != 0

    def of(self, value: Any) -> dict[str, Any]:
        """All that are set."""
        found = dict(object.__getattribute__(value, "__dict__")) if self._has_dict else {}
        for name, slot in self._slots.items():
            try:
                found[name] = slot.__get__(value)
            except AttributeError:  # not set
                continue
        return found

    def put(self, value: Any, attributes: dict[str, Any], name: str) -> None:
        """Set them, past `__setattr__`, so that frozen classes and validators don't object."""
        for key, part in attributes.items():
            if (slot := self._slots.get(key)) is not None:
                slot.__set__(value, part)
            elif self._has_dict:
                value.__dict__[key] = part
            else:
                raise changed(name, f"it has no {key!r} now", attributes)


def is_of_python(cls: type) -> bool:
    """Whether instances hold nothing but attributes: every base is a Python class, or object."""
    return not any(_is_made_in_c(base) for base in cls.__mro__)


def _is_made_in_c(cls: type) -> bool:
    """Whether a class itself, not its bases, holds something that Python does not see."""
    if cls is object:
        return False
    if not cls.__flags__ & _HEAP_TYPE or isinstance(vars(cls).get("__new__"), BuiltinFunctionType):
        return True
    slots = sum(isinstance(slot, MemberDescriptorType) for slot in vars(cls).values())
    base = cls.__base__ or object
    # A class statement adds a pointer for each slot, and for __dict__ and __weakref__.
    return cls.__basicsize__ > base.__basicsize__ + _POINTER * (slots + 2)


class DataclassForm:
    """`[name, fields, fields that are not set, other attributes]`."""

    def __init__(self, cls: type, name: str) -> None:
        self._cls, self._name, self._attributes = cls, name, Attributes(cls)
        self._fields = frozenset(field.name for field in dataclasses.fields(cls))

    def take(self, value: Any) -> list[Any]:
        set_now = self._attributes.of(value)
        fields = {key: part for key, part in set_now.items() if key in self._fields}
        tree: list[Any] = [self._name, fields]
        if len(fields) != len(self._fields) or len(set_now) != len(fields):
            tree.append(sorted(self._fields - fields.keys()))
            tree.append({key: part for key, part in set_now.items() if key not in self._fields})
        return tree

    def make(self, tree: list[Any]) -> Any:
        _, fields, *rest = tree
        unset, others = rest or ([], {})
        expect_fields(self._name, frozenset(fields) | frozenset(unset), self._fields, fields)
        value: Any = object.__new__(self._cls)
        self._attributes.put(value, fields, self._name)
        self._attributes.put(value, others, self._name)
        return value


class NamedTupleForm:
    """`[name, fields, other attributes]`."""

    def __init__(self, cls: Any, name: str) -> None:
        self._cls, self._name, self._attributes = cls, name, Attributes(cls)
        self._fields: tuple[str, ...] = cls._fields

    def take(self, value: Any) -> list[Any]:
        tree: list[Any] = [self._name, dict(zip(self._fields, tuple.__iter__(value), strict=True))]
        if others := self._attributes.of(value):
            tree.append(others)
        return tree

    def make(self, tree: list[Any]) -> Any:
        _, fields, *rest = tree
        expect_fields(self._name, frozenset(fields), frozenset(self._fields), fields)
        value = tuple.__new__(self._cls, (fields[field] for field in self._fields))
        for others in rest:
            self._attributes.put(value, others, self._name)
        return value


class EnumForm:
    """`[name, member, its value]`; a Flag of several members has None for a member."""

    def __init__(self, cls: type[Enum], name: str) -> None:
        self._cls, self._name = cls, name

    def take(self, value: Any) -> list[Any]:
        member: str | None = value._name_
        if self._cls._member_map_.get(member or "") is not value:
            if not isinstance(value, Flag):
                raise Refusal(self._cls, f"{value!r} is none of its members.")
            member = None
        plain = value._value_ if type(value._value_) in (int, str, float, bool, bytes) else None
        return [self._name, member, plain]

    def make(self, tree: list[Any]) -> Any:
        _, member, plain = tree
        if member is not None:
            value: Any = self._cls._member_map_.get(member)
        elif issubclass(self._cls, Flag) and type(plain) is int:
            value = self._cls(plain)
        else:
            value = None
        if type(value) is not self._cls:
            raise changed(self._name, f"it has no {plain if member is None else member!r} now", tree[1:])
        if plain is not None and (type(value._value_) is not type(plain) or value._value_ != plain):
            raise changed(self._name, f"{member} was {plain!r} and is {value._value_!r}", tree[1:])
        return value


class ObjectForm:
    """`[name, attributes]` of a class that is nothing more special."""

    def __init__(self, cls: type, name: str) -> None:
        self._cls, self._name, self._attributes = cls, name, Attributes(cls)

    def take(self, value: Any) -> list[Any]:
        return [self._name, self._attributes.of(value)]

    def make(self, tree: list[Any]) -> Any:
        _, attributes = tree
        value: Any = object.__new__(self._cls)
        self._attributes.put(value, attributes, self._name)
        return value


def _new_dict(cls: Any, parts: list[Any]) -> Any:
    value = dict.__new__(cls)
    dict.update(value, mapping(parts))
    return value


def _new_ordered(cls: Any, parts: list[Any]) -> Any:
    value = OrderedDict.__new__(cls)
    for key, part in mapping(parts).items():
        OrderedDict.__setitem__(value, key, part)
    return value


def _new_list(cls: Any, parts: list[Any]) -> Any:
    value = list.__new__(cls)
    list.extend(value, parts)
    return value


_BASES: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    str: (str.__str__, str.__new__),
    int: (int.__int__, int.__new__),
    float: (float.__float__, float.__new__),
    complex: (complex.__complex__, complex.__new__),
    bytes: (lambda value: bytes.__getitem__(value, slice(None)), bytes.__new__),
    tuple: (lambda value: list(tuple.__iter__(value)), tuple.__new__),
    list: (lambda value: list(list.__iter__(value)), _new_list),
    dict: (pairs, _new_dict),
    OrderedDict: (lambda value: [part for item in OrderedDict.items(value) for part in item], _new_ordered),
}
"""Builtin types that a declared class may extend: how to get at the plain value, and how to make an instance of it."""


def extended(cls: type) -> type | None:
    """The builtin type that a class extends, if it is one whose value can be taken out and put in again."""
    solid = [base for base in cls.__mro__ if _is_made_in_c(base)]
    found = solid[0] if solid and solid[0] in _BASES else None
    return found if found and all(issubclass(found, base) for base in solid) else None


class ExtensionForm:
    """`[name, base, plain value, attributes]` of a subclass of a builtin type."""

    def __init__(self, cls: type, name: str, base: type) -> None:
        self._cls, self._name, self._base, self._attributes = cls, name, base, Attributes(cls)
        self._plain, self._new = _BASES[base]

    def take(self, value: Any) -> list[Any]:
        return [self._name, self._base.__name__, self._plain(value), self._attributes.of(value)]

    def make(self, tree: list[Any]) -> Any:
        _, base, plain, attributes = tree
        if base != self._base.__name__:
            raise changed(self._name, f"it was a {base} and is a {self._base.__name__}", tree[2:])
        if type(plain) is not (self._base if self._base in (str, int, float, complex, bytes) else list):
            raise ValueError(f"{plain!r} is no {base}")
        value = self._new(self._cls, plain)
        self._attributes.put(value, attributes, self._name)
        return value
