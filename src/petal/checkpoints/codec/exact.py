"""The slow way to write a value, for what MessagePack cannot hold; it also finds out what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ormsgpack

from petal.checkpoints.codec.errors import Refusal
from petal.checkpoints.codec.forms import DECLARED, MAPPING, NESTED, RAW, STANDARD, Form

_LEVELS = 64
"""So many levels of lists and dicts are written as one; the next go into an extension of their own, since MessagePack
readers bound the depth."""


class ExactTree:
    """Turns one value into a tree that ormsgpack writes as it is.

    Args:
        form_of: The form of a type.
        pack: Writes such a tree.
    """

    def __init__(self, form_of: Callable[[type], Form], pack: Callable[[Any], bytes]) -> None:
        self._form_of, self._pack = form_of, pack
        self._open: set[int] = set()
        """Ids of the values that are being taken apart: one that comes up again contains itself."""

    def of(self, value: Any, level: int = 1, step: str = "") -> Any:
        """The tree of a value.

        Raises:
            Refusal: If it or something in it cannot be saved.
        """
        cls = type(value)
        if value is None or cls is bool or cls is float or cls is bytes:
            return value
        if cls is int and -(1 << 63) <= value < 1 << 64:
            return value
        if cls is str and _is_text(value):
            return value
        if id(value) in self._open:
            raise Refusal(cls, "it contains itself; keep a name or an index instead.")
        self._open.add(id(value))
        try:
            # Loops rather than comprehensions: each level costs one frame of Python's stack, not three.
            if cls is list:
                tree: Any = []
                for index, part in enumerate(value):
                    tree.append(self.of(part, level + 1, f"[{index}]"))
            elif cls is dict and _are_texts(value):
                tree = {}
                for key, part in value.items():
                    tree[key] = self.of(part, level + 1, f"[{key!r}]")
            elif cls is dict:
                tree = []
                for key, part in value.items():
                    tree += (self.of(key), self.of(part, 1, f"[{key!r}]"))
                return ormsgpack.Ext(MAPPING, self._pack(tree))
            else:
                return self._extension(self._form_of(cls), value)
        except Refusal as refusal:
            refusal.path = step + refusal.path
            raise
        finally:
            self._open.discard(id(value))
        return ormsgpack.Ext(NESTED, self._pack(tree)) if level % _LEVELS == 0 else tree

    def _extension(self, form: Form, value: Any) -> ormsgpack.Ext:
        data = form.take(value)
        if form.code in RAW:
            return ormsgpack.Ext(form.code, data)
        if form.code in DECLARED:
            tree = [self._fields(part) if type(part) is dict else self.of(part) for part in data]
        elif form.code == STANDARD:
            tree = [self.of(part) if type(part) is not list else [self.of(at) for at in part] for part in data]
        else:
            tree = self.of(data)
        return ormsgpack.Ext(form.code, self._pack(tree))

    def _fields(self, fields: dict[str, Any]) -> Any:
        if _are_texts(fields):
            return {field: self.of(part, step=f".{field}") for field, part in fields.items()}
        return self.of(fields)


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _are_texts(keys: Iterable[Any]) -> bool:
    return all(type(key) is str and _is_text(key) for key in keys)
