"""What `petal.checkpoints.codec.many_models` does, without a compiler."""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice, takewhile
from operator import attrgetter
from types import NoneType
from typing import Any, NamedTuple

from pydantic import BaseModel

_set_dict = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__

_state_of = attrgetter("__class__", "__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")

_ATOMS = frozenset({str, bool, NoneType})
_TYPES = _ATOMS | {dict, list}
"""Of these, two equal values are of one type, unless something is in them."""
_EMPTY_DICT: dict[str, Any] = {}
_EMPTY_LIST: list[Any] = []
_VERSION = 2
"""Of marshal: the last in which equal values of equal types give equal bytes, whoever else holds them."""

Recipe = tuple[type[BaseModel], tuple[str, ...], bool, Mapping[int, frozenset[str]]]
"""A class, the names of its fields, whether it allows others, and the sets of fields that masks stand for."""


class Look(NamedTuple):
    """One model as it was."""

    state: tuple[type, dict[str, Any], frozenset[str], dict[str, Any] | None, None]
    """Class, fields, fields set, extra, private; shared with no one."""
    dicts: tuple[str, ...]
    """Fields that hold an empty dict."""
    lists: tuple[str, ...]
    """Fields that hold an empty list."""
    filled: tuple[str, ...]
    """Fields that hold a dict or a list with something in it."""
    data: bytes
    """What these hold: equal for values that are equal in type and order too."""


def look(model: Any) -> Look | None:
    """How a pydantic model looks, if it holds plain data and no more than its fields."""
    cls, fields, names, extra, private = _state_of(model)
    if extra or private is not None:
        return None
    copied = dict(fields)
    dicts, lists, filled = [], [], []
    for name, value in fields.items():
        kind = type(value)
        if kind in _ATOMS:
            continue
        if kind is not dict and kind is not list:
            return None
        if value:
            filled.append(name)
        elif kind is dict:
            dicts.append(name)
            copied[name] = _EMPTY_DICT
        else:
            lists.append(name)
            copied[name] = _EMPTY_LIST
    data = b""
    if filled:
        try:
            data = _told(fields, filled)
        except ValueError:  # of something that is not plain data
            return None
        copied.update(zip(filled, marshal.loads(data), strict=True))
    state = cls, copied, frozenset(names), None if extra is None else _EMPTY_DICT, None
    return Look(state, tuple(dicts), tuple(lists), tuple(filled), data)


def read(items: tuple[bytes, ...], start: int, code: int, recipes: Mapping[str, Recipe]) -> list[Any]:
    """The models of items up to the first that is to be read by the codec, which here is the first of all.

    Args:
        items: What the codec made of some values, each for itself.
        start: Where to begin among them.
        code: How it marks models.
        recipes: How to make a model that holds all of its fields and nothing else, by its name in an item.
    """
    return []


def unchanged(models: list[Any], looks: tuple[Look | None, ...], classes: Set[type]) -> bytes:
    """For each value that there is a look for: 1 if it is a model of one of some classes and as it was, else 0."""
    return bytes(_compared(models, looks, classes))


def again(looks: tuple[Look | None, ...], start: int, classes: Set[type], used: list[Any]) -> list[Any]:
    """Models of looks, from a position up to the first that is of none of some classes.

    They share nothing that can be changed.

    Args:
        looks: How the models of a list looked.
        start: Where to begin among them.
        classes: The classes.
        used: The models that looked so, in a list that nobody else has; empty where they are not at hand. In C, those
            are taken that are still as they looked and that nobody holds any more. Here all are made anew.
    """
    known = takewhile(lambda look: look is not None and look.state[0] in classes, islice(looks, start, None))
    return [_made(look) for look in known if look is not None]


def _compared(models: list[Any], looks: tuple[Look | None, ...], classes: Set[type]) -> Iterator[bool]:
    for model, known in zip(models, looks, strict=False):
        try:
            yield (
                known is not None
                and known.state[0] in classes
                and _state_of(model) == known.state
                and _TYPES.issuperset(map(type, model.__dict__.values()))
                and (not known.filled or _told(model.__dict__, known.filled) == known.data)
            )
        except Exception:  # whatever a value in it says to being compared: it is not what it was
            yield False


def _made(known: Look) -> Any:
    (cls, fields, names, extra, _), dicts, lists, filled, data = known
    fields = fields.copy()
    for name in dicts:
        fields[name] = {}
    for name in lists:
        fields[name] = []
    if filled:
        fields.update(zip(filled, marshal.loads(data), strict=True))
    model: Any = object.__new__(cls)
    _set_dict(model, fields)
    _set_fields_set(model, set(names))
    _set_extra(model, None if extra is None else {})
    _set_private(model, None)
    return model


def _told(fields: dict[str, Any], names: Iterable[str]) -> bytes:
    return marshal.dumps([fields[name] for name in names], _VERSION)
