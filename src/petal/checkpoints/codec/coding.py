"""Values to bytes and back: equal in value and type, or a typed error."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import orjson
import ormsgpack

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec.errors import RawValue, Refusal, Unreadable, ValueNotSavableError, type_name
from petal.checkpoints.codec.exact import ExactTree
from petal.checkpoints.codec.forms import (
    BUFFER,
    DECLARED,
    FROZENSET,
    INTEGER,
    MAPPING,
    MODEL,
    NESTED,
    RAW,
    SET,
    STANDARD,
    TEXT,
    TUPLE,
    TYPE,
    Fielded,
    Form,
    Forms,
)
from petal.checkpoints.codec.many_models import Look, Recipe, again, look, read, unchanged
from petal.checkpoints.codec.models import ModelForm
from petal.checkpoints.codec.standard import mapping
from petal.errors import CheckpointCorruptionError

_AS_IT_IS = (
    ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
"""All that ormsgpack would write as something plainer comes to us instead."""

_SIEVE = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

# Bound here, since they are called for each message.
_Ext, _packb, _unpackb, _sieve = ormsgpack.Ext, ormsgpack.packb, ormsgpack.unpackb, orjson.dumps

_WRITTEN_AS_BYTES = frozenset({bytearray, memoryview, ormsgpack.Ext, ormsgpack.Fragment})
"""Types that ormsgpack writes as bytes or worse, without asking."""

_MODEL = bytes([MODEL])
_FIXED = {1: b"\xd4", 2: b"\xd5", 4: b"\xd6", 8: b"\xd7", 16: b"\xd8"}

_ATOMS = frozenset({str, int, float, bool, type(None), bytes})

_CHANGED = b"\0"
"""What `unchanged` says of a model that is not as it was."""

_MANY = 100
"""Objects whose making the garbage collector would disturb."""

_TOO_DEEP = "it is nested too deeply, or contains itself."


class Codec:
    """Writes values as MessagePack with extensions, and reads them. Safe for many threads.

    The bytes depend on the value alone: two equal values of equal types, with their dicts in equal order, give equal
    bytes in every process.

    Args:
        allowed: The types that may be saved and loaded beside plain data.
        on_decode_error: What a value becomes whose type is not allowed, is gone, or has changed: an error (`raise`), or
            a `RawValue` in its place (`raw`).
    """

    def __init__(self, allowed: Allowlist, *, on_decode_error: Literal["raise", "raw"] = "raise") -> None:
        self.allowed, self._raw = allowed, on_decode_error == "raw"
        self._forms = Forms(allowed, self._pack)
        self._by_class: dict[type, Form] = {}
        self._model_classes: set[type] = set()
        """Models that were met, and so can be written without asking."""
        self._models: dict[str, Fielded] = {}
        self._recipes: dict[str, Recipe] = {}
        self._makers: dict[int, Callable[[Any], Any]] = {
            TEXT: _text_with_surrogates,
            INTEGER: _big_integer,
            BUFFER: bytearray,
            TYPE: lambda data: self._forms.type_named(data.decode()),
            TUPLE: _of_list(tuple),
            SET: _of_list(set),
            FROZENSET: _of_list(frozenset),
            MAPPING: _of_list(mapping),
            NESTED: _itself,
            STANDARD: self._forms.standard,
        }

    def encode(self, value: Any, where: str = "") -> bytes:
        """The bytes of a value.

        Args:
            value: Plain data, standard types, messages, and instances of allowed types, nested in any way.
            where: Where it stands, e.g. `channel 'messages'`, for the error.

        Raises:
            ValueNotSavableError: If it, or something in it, could not come back exactly.
        """
        try:
            cls = type(value)
            if cls is list and value and type(value[0]) in self._model_classes:
                return b"".join(self._list_of_models(value))
            if cls in self._model_classes:
                payload = self._model(self._by_class[cls].take(value))
                return _header(len(payload)) + payload
            return self._pack(value)
        except Refusal as refusal:
            raise self._refused(value, where, refusal) from None
        except RecursionError:
            raise ValueNotSavableError(where, type_name(type(value)), _TOO_DEEP) from None
        except Exception as error:
            reason = f"it cannot be taken apart ({type(error).__name__}: {error})."
            raise ValueNotSavableError(where, type_name(type(value)), reason) from error

    def encode_items(
        self, values: list[Any], where: str = "", known: tuple[bytes, ...] = (), looks: tuple[Look | None, ...] = ()
    ) -> tuple[tuple[bytes, ...], tuple[Look | None, ...]]:
        """The bytes of each value of a list, and how each looks.

        Args:
            values: The values.
            where: As in `encode`.
            known: The bytes of an earlier list, from which those of values are taken that look as they did there.
            looks: How its values looked; empty where that is not known.

        Returns:
            The bytes, and the looks: None for a value that has none, no looks at all if none has one.

        Raises:
            ValueNotSavableError: As in `encode`.
        """
        models, encode = self._model_classes, self.encode
        same = unchanged(values, looks, models) if looks else b""
        kept = len(same) if (first := same.find(_CHANGED)) < 0 else first  # most lists only grow
        if kept == len(values) == len(known):
            return known, looks
        items, seen = list(known[:kept]), list(looks[:kept])
        for n, value in enumerate(values[kept:], kept):
            if n < len(same) and same[n]:
                items.append(known[n])
                seen.append(looks[n])
            else:
                items.append(encode(value, where))
                seen.append(look(value) if type(value) in models else None)
        return tuple(items), tuple(seen) if any(seen) else ()

    def decode_items(
        self,
        items: tuple[bytes, ...],
        where: str = "",
        looks: tuple[Look | None, ...] = (),
        used: list[Any] | None = None,
    ) -> list[Any]:
        """The values of a list's items.

        Args:
            items: The bytes of each.
            where: As in `decode`.
            looks: What `encode_items` gave with them; it saves most of the time.
            used: The values of which it gave these, in a list that nobody else has. Those that are still as they were
                and that nobody holds any more need not be made.

        Raises:
            CheckpointCorruptionError: As in `decode`.
        """
        values: list[Any] = []
        used = [] if used is None else used
        with _collector_at_rest(len(items)):
            while True:
                values += again(looks, len(values), self._model_classes, used)
                values += read(items, len(values), MODEL, self._recipes)
                if len(values) == len(items):
                    return values
                values.append(self.decode(items[len(values)], where))

    def encode_error(self, error: BaseException) -> bytes:
        """The bytes of `repr(error)`, which is what LangGraph keeps of an exception that a task raised."""
        return self.encode(repr(error))

    def decode(self, data: bytes, where: str = "") -> Any:
        """The value of some bytes.

        Args:
            data: What `encode` gave.
            where: Where it stands, for the error.

        Raises:
            CheckpointCorruptionError: If the bytes are none of this codec's, or hold a type that is not allowed, is
                gone, or has other fields than those recorded.
        """
        try:
            return _unpackb(data, ext_hook=self._build)
        except Exception:
            # ormsgpack keeps what the hook raised to itself, so it is read again, slowly, to learn the cause.
            return _Reading(self, self._raw).value(data, where)

    def _pack(self, value: Any) -> bytes:
        try:
            if _is_plain(value):
                return _packb(value, self._default, _AS_IT_IS)
        except (TypeError, RecursionError):
            # Something that MessagePack cannot hold, or that cannot be saved at all: the exact way tells.
            pass
        return _pack_exact(ExactTree(self._form, _pack_exact).of(value))

    def _refused(self, value: Any, where: str, refusal: Refusal) -> ValueNotSavableError:
        try:
            # From the top, to learn where in the value it is.
            ExactTree(self._form, _pack_exact).of(value)
        except Refusal as placed:
            refusal = placed
        reason = f"at {refusal.path}, {refusal.reason}" if refusal.path else refusal.reason
        return ValueNotSavableError(where, type_name(refusal.cls), reason)

    def _default(self, value: Any) -> ormsgpack.Ext:
        form = self._by_class.get(type(value)) or self._form(type(value))
        return self._extension(form, value)

    def _extension(self, form: Form, value: Any) -> ormsgpack.Ext:
        tree = form.take(value)
        code = form.code
        if code == MODEL:
            return _Ext(code, self._model(tree))
        return _Ext(code, tree if code in RAW else self._pack(tree))

    def _model(self, tree: list[Any]) -> bytes:
        """What `_pack` gives, without its calls: of messages there are many."""
        try:
            _sieve(tree, None, _SIEVE)
            return _packb(tree, None, _AS_IT_IS)
        except TypeError:  # something in it is not as plain as most messages are
            return self._pack(tree)

    def _list_of_models(self, values: list[Any]) -> Iterator[bytes]:
        """The pieces of a list of mostly models: to join them copies each once, ormsgpack would three times."""
        yield _array_header(len(values))
        models, forms = self._model_classes, self._by_class
        for value in values:
            cls = type(value)
            if cls not in models:
                yield self._pack(value)
                continue
            tree = forms[cls].take(value)
            try:
                _sieve(tree, None, _SIEVE)
                payload = _packb(tree, None, _AS_IT_IS)
            except TypeError:
                payload = self._pack(tree)
            yield _header(len(payload))
            yield payload

    def _form(self, cls: type) -> Form:
        form = self._by_class.get(cls)
        if form is None:
            form = self._forms.of(cls)
            if cls is not int and cls is not str:  # of these only the unusual ones have a form
                self._by_class[cls] = form
            if form.code == MODEL:
                self._model_classes.add(cls)
        return form

    def _build(self, code: int, data: bytes) -> Any:
        if code == MODEL:
            tree = _unpackb(data, ext_hook=self._build)
            model = self._models.get(tree[0])
            if model is None:
                model = self._models[tree[0]] = self._forms.named(MODEL, tree)
                if isinstance(model, ModelForm) and (recipe := model.recipe) is not None:
                    self._recipes[tree[0]] = recipe
            return model.make(tree)
        return self.made(code, data if code in RAW else _unpackb(data, ext_hook=self._build))

    def made(self, code: int, tree: Any) -> Any:
        """The value of an extension, once its parts are made.

        Raises:
            Unreadable: If its type is not allowed, gone or changed.
            Exception: Whatever a type says to parts that are none of its.
        """
        if (make := self._makers.get(code)) is not None:
            return make(tree)
        if code in DECLARED:
            return self._forms.named(code, tree).make(tree)
        raise ValueError(f"there is no extension {code}")


class _Reading:
    """Reads once more what could not be read, and keeps the first cause."""

    def __init__(self, codec: Codec, raw: bool) -> None:
        self._codec, self._raw = codec, raw
        self._problem: str | None = None

    def value(self, data: bytes, where: str) -> Any:
        """The value with a `RawValue` where one could not be made, if that is wanted.

        Raises:
            CheckpointCorruptionError: If not, or if the bytes themselves are damaged.
        """
        try:
            return _unpackb(data, ext_hook=self._build)
        except Exception as error:
            problem = self._problem or f"it cannot be read ({error})"
            raise CheckpointCorruptionError(where or "A saved value", problem) from None

    def _build(self, code: int, data: bytes) -> Any:
        try:
            return self._codec.made(code, data if code in RAW else _unpackb(data, ext_hook=self._build))
        except Unreadable as unreadable:
            if self._raw:
                return RawValue(unreadable.type_name, unreadable.data)
            self._problem = self._problem or unreadable.problem
            raise
        except Exception as error:
            self._problem = self._problem or f"it cannot be read ({type(error).__name__}: {error})"
            raise


@contextmanager
def _collector_at_rest(objects: int) -> Iterator[None]:
    """Keeps Python's garbage collector from looking, again and again, through many objects that all stay.

    With it, making the thousand messages of a long chat takes more than twice as long.
    """
    if objects < _MANY or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _header(size: int) -> bytes:
    """What stands before the bytes of a model: the extension's size and code, as MessagePack has them."""
    if size < 1 << 8:
        return _FIXED.get(size, b"\xc7" + size.to_bytes(1, "big")) + _MODEL
    if size < 1 << 16:
        return b"\xc8" + size.to_bytes(2, "big") + _MODEL
    return b"\xc9" + size.to_bytes(4, "big") + _MODEL


def _array_header(size: int) -> bytes:
    """What stands before the elements of a list."""
    if size < 1 << 4:
        return bytes([0x90 | size])
    return b"\xdc" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xdd" + size.to_bytes(4, "big")


def _text_with_surrogates(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _big_integer(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _itself(tree: Any) -> Any:
    return tree


def _of_list(cls: Any) -> Any:
    def make(tree: Any) -> Any:
        if type(tree) is not list:
            raise ValueError(f"a {type(tree).__name__} holds no elements of a {cls.__name__}")
        return cls(tree)

    return make


def _pack_exact(tree: Any) -> bytes:
    return _packb(tree, None, _AS_IT_IS)


def _is_plain(value: Any) -> bool:
    """Whether ormsgpack asks us about everything in the value that it could not write exactly.

    It asks about all but `_WRITTEN_AS_BYTES`, so those must be looked for. What orjson takes is free of them, and it
    looks about four times faster than Python does.
    """
    try:
        _sieve(value, None, _SIEVE)
    except TypeError:  # there is something that JSON cannot hold, which most often is none of those
        return _has_none_written_as_bytes((value,))
    return True


def _has_none_written_as_bytes(values: Iterable[Any]) -> bool:
    for value in values:
        cls = type(value)
        if cls in _ATOMS:
            continue
        if cls is dict:
            if not _has_none_written_as_bytes(value.values()):
                return False
        elif cls is list:
            if not _has_none_written_as_bytes(value):
                return False
        elif cls in _WRITTEN_AS_BYTES:
            return False
    return True
