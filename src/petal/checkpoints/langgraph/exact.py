"""Reads what LangGraph's serializer wrote: as it was, or with a note of what could not be made again."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde import _msgpack as known
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send

from petal.checkpoints.codec import RawValue
from petal.errors import CheckpointerConfigurationError

UNDECLARED = "it is not among the types that may be loaded"
_MOVED = {"pathlib._local": "pathlib"}
"""Modules that only some versions of Python have."""


class ExactSerializer(JsonPlusSerializer):
    """LangGraph's serializer, for reading. Where it would fall back to plainer data, this puts a `RawValue`.

    Only LangGraph's safe types and those that are given are made; nothing else is imported or called.

    Args:
        types: Types that may be made beside LangGraph's safe ones.

    Attributes:
        problems: By the name of a type that could not be made, why; whoever reads empties it.

    Raises:
        CheckpointerConfigurationError: If LangGraph cannot tell two of the types from each other.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        self._types: dict[tuple[str, str], Any] = {}
        for cls in types:
            other = self._types.setdefault((cls.__module__, cls.__name__), cls)
            if other is not cls:
                raise CheckpointerConfigurationError(
                    f"LangGraph saves {cls.__qualname__} and {other.__qualname__} of {cls.__module__} under one name, "
                    "so values of theirs cannot be told from each other; allow only one of them."
                )
        super().__init__(
            allowed_json_modules=[(*cls.__module__.split("."), cls.__name__) for cls in self._types.values()],
            allowed_msgpack_modules=None,
            __unpack_ext_hook__=self._build,
        )
        self.problems: dict[str, str] = {}

    def _build(self, code: int, data: bytes) -> Any:
        if code == jsonplus.EXT_NUMPY_ARRAY:
            array = jsonplus._msgpack_ext_hook(code, data)
            return self._raw("numpy.ndarray", "it cannot be read", data) if array is None else array
        parts = ormsgpack.unpackb(data, ext_hook=self._build, option=ormsgpack.OPT_NON_STR_KEYS)
        if code == jsonplus.EXT_DELTA_SNAPSHOT:
            return _DeltaSnapshot(parts)
        module, name, given, *_ = parts
        try:
            make = self._maker(module, name)
            if make is None:
                return self._raw(f"{module}.{name}", UNDECLARED, given)
            return _made(code, make, parts)
        except Exception as error:
            return self._raw(f"{module}.{name}", f"it cannot be made again ({type(error).__name__}: {error})", given)

    def _maker(self, module: str, name: str) -> Any:
        """What makes values of a type; None if it is not allowed."""
        if (cls := self._types.get((module, name))) is not None:
            return cls
        if (module, name) in known.SAFE_MSGPACK_TYPES:
            return getattr(import_module(_MOVED.get(module, module)), name)
        return None

    def _reviver(self, value: dict[str, Any]) -> Any:
        """An object of the JSON that LangGraph wrote before MessagePack."""
        if "lc" not in value or value.get("type") not in ("constructor", "not_implemented"):
            return super()._reviver(value)
        name = ".".join(map(str, value.get("id") or ("?",)))
        try:
            made = super()._reviver(value)
        except Exception as error:
            return self._raw(name, f"it cannot be made again ({type(error).__name__}: {error})", value)
        return self._raw(name, UNDECLARED, value) if made is None or made is value else made

    def _raw(self, name: str, problem: str, data: Any) -> RawValue:
        self.problems.setdefault(name, problem)
        return RawValue(name, data)


def exact(serde: SerializerProtocol, types: Iterable[type]) -> tuple[SerializerProtocol, ExactSerializer | None]:
    """A serializer that reads what `serde` wrote, and the part of it that tells what it could not make.

    A serializer that is none of LangGraph's is used as it is, and tells by itself.
    """
    if isinstance(serde, EncryptedSerializer):
        inner, reading = exact(serde.serde, types)
        return EncryptedSerializer(serde.cipher, inner), reading
    if type(serde) is not JsonPlusSerializer:
        return serde, None
    reading = ExactSerializer(types)
    return reading, reading


def _made(code: int, make: Any, parts: Any) -> Any:
    """The value as LangGraph's serializer makes it."""
    given = parts[2]
    match code:
        case jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG:
            return make(given)
        case jsonplus.EXT_CONSTRUCTOR_POS_ARGS if make is Send and len(given) == 3:
            return Send(given[0], given[1], timeout=given[2])
        case jsonplus.EXT_CONSTRUCTOR_POS_ARGS:
            return make(*given)
        case jsonplus.EXT_CONSTRUCTOR_KW_ARGS:
            return make(**given)
        case jsonplus.EXT_METHOD_SINGLE_ARG if (*parts[:2], parts[3]) in known.SAFE_MSGPACK_METHODS:
            return getattr(make, parts[3])(given)
        case jsonplus.EXT_PYDANTIC_V1 | jsonplus.EXT_PYDANTIC_V2:
            try:
                return make(**given)
            except Exception:
                # What an older version of the class took, or what was put into it without asking.
                without_asking = make.construct if code == jsonplus.EXT_PYDANTIC_V1 else make.model_construct
                return without_asking(**given)
        case _:
            raise ValueError(f"nothing of LangGraph's is written in the form {code}")
