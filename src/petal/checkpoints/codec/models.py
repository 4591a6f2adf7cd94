"""How pydantic models, and so messages, come apart into their fields and are made again without validation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from petal.checkpoints.codec.declared import changed, expect_fields
from petal.checkpoints.codec.many_models import Recipe

_set_dict = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__

_MOST_MASKS = 1024


class ModelForm:
    """`[name, mask, fields]`, and where there is more: `[…, extra, private, private unset, fields unset, others]`.

    The mask has a bit for each field, in alphabetical order, that is in the model's fields set; where that set names
    anything else, its names stand there instead.
    """

    __slots__ = ("_bits", "_cls", "_extra", "_fields", "_masks", "_name", "_order", "_private", "_sets")

    def __init__(self, cls: type[BaseModel], name: str) -> None:
        self._cls, self._name = cls, name
        self._order = tuple(cls.model_fields)
        self._fields = frozenset(self._order)
        self._private = frozenset(cls.__private_attributes__)
        self._bits = {field: 1 << position for position, field in enumerate(sorted(self._fields))}
        self._extra: dict[str, Any] | None = {} if cls.model_config.get("extra") == "allow" else None
        # Those met so far, since the few that a program makes come again and again.
        self._masks: dict[frozenset[str], int | list[str]] = {}
        self._sets: dict[int, frozenset[str]] = {}

    @property
    def recipe(self) -> Recipe | None:
        """How to make what holds all of its fields and no more; None where nothing does."""
        return None if self._private else (self._cls, self._order, self._extra is not None, self._sets)

    def take(self, model: Any) -> list[Any]:
        fields = model.__dict__
        names = frozenset(model.__pydantic_fields_set__)
        mask = self._masks.get(names)
        if mask is None:
            mask = self._mask(names)
        if (
            fields.keys() == self._fields
            and not self._private
            and model.__pydantic_private__ is None
            and model.__pydantic_extra__ == self._extra
        ):
            return [self._name, mask, fields]
        return [self._name, mask, *self._rest(model)]

    def _rest(self, model: Any) -> list[Any]:
        """The parts of a model that is not as most are."""
        attributes, private = model.__dict__, model.__pydantic_private__
        return [
            {key: value for key, value in attributes.items() if key in self._fields},
            model.__pydantic_extra__,
            private,
            sorted(self._private - (private or {}).keys()),
            sorted(self._fields - attributes.keys()),
            # A cached property, say.
            {key: value for key, value in attributes.items() if key not in self._fields},
        ]

    def make(self, tree: list[Any]) -> Any:
        if len(tree) == 3:
            _, mask, fields = tree
            if fields.keys() != self._fields:
                expect_fields(self._name, frozenset(fields), self._fields, fields)
            attributes, private = fields, None
            extra: dict[str, Any] | None = None if self._extra is None else {}
            if self._private:
                raise changed(self._name, f"it has {', '.join(sorted(self._private))} now", fields)
        else:
            _, mask, fields, extra, private, private_unset, unset, others = tree
            expect_fields(self._name, frozenset(fields) | frozenset(unset), self._fields, fields)
            expect_fields(self._name, frozenset(private or ()) | frozenset(private_unset), self._private, fields)
            if extra and self._extra is None:
                raise changed(self._name, f"it allows no {', '.join(sorted(extra))} now", {**fields, **extra})
            attributes = {**fields, **others}
        names = self._sets.get(mask) if type(mask) is int else frozenset(mask)
        if names is None:
            names = self._names(mask)
        model = object.__new__(self._cls)
        _set_dict(model, attributes)
        _set_fields_set(model, set(names))
        _set_extra(model, extra)
        _set_private(model, private)
        return model

    def _mask(self, names: frozenset[str]) -> int | list[str]:
        mask: int | list[str]
        mask = sum(self._bits[name] for name in names) if names <= self._fields else sorted(names)
        if len(self._masks) < _MOST_MASKS:
            self._masks[names] = mask
        return mask

    def _names(self, mask: int) -> frozenset[str]:
        if not 0 <= mask < 1 << len(self._bits):
            raise ValueError(f"{mask} names no fields of {self._name}")
        names = frozenset(name for name, bit in self._bits.items() if mask & bit)
        if len(self._sets) < _MOST_MASKS:
            self._sets[mask] = names
        return names
