"""How numpy's arrays and scalars come apart into bytes, and together again."""

from __future__ import annotations

import sys
from typing import Any, Literal

from petal.checkpoints.codec.errors import Refusal

ARRAY, SCALAR = "ndarray", "scalar"


def is_array_type(cls: type) -> bool:
    """Whether a class is numpy's array or one of its scalars. Never imports numpy: without it there are none."""
    numpy = sys.modules.get("numpy")
    if numpy is None or getattr(numpy, "generic", None) is None:
        return False
    return cls is numpy.ndarray or (issubclass(cls, numpy.generic) and cls.__module__ == "numpy")


def take(value: Any) -> list[Any]:
    """`["ndarray", [dtype, shape, order, bytes]]` or `["scalar", [dtype, bytes]]`.

    Raises:
        Refusal: If the elements are Python objects, or their dtype could not be told from its description.
    """
    import numpy

    # As elements of an array, and in numpy's own words, these would lose trailing NULs.
    if isinstance(value, numpy.str_):
        return [SCALAR, ["str_", str.__str__(value)]]
    if isinstance(value, numpy.bytes_):
        return [SCALAR, ["bytes_", bytes.__getitem__(value, slice(None))]]
    dtype = _described(value)
    if type(value) is numpy.ndarray:
        # Elements that lie in neither order come back in C's.
        order: Literal["F", "C"] = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        return [ARRAY, [dtype, list(value.shape), order, value.tobytes(order=order)]]
    return [SCALAR, [dtype, value.tobytes()]]


def make(name: str, parts: list[Any]) -> Any:
    """The array or scalar again, writable and with memory of its own. Imports numpy, which the value needs."""
    import numpy

    if name == ARRAY:
        dtype, shape, order, data = parts
        return numpy.ndarray(tuple(shape), _dtype(dtype), bytearray(data), order=order)
    dtype, data = parts
    if dtype in ("str_", "bytes_"):
        if type(data) is not (str if dtype == "str_" else bytes):
            raise ValueError(f"{data!r} is no {dtype}")
        return getattr(numpy, dtype)(data)
    kind = _dtype(dtype)
    if len(data) != kind.itemsize:
        raise ValueError(f"{len(data)} bytes are no {kind}")
    return numpy.ndarray((1,), kind, bytearray(data))[0]


def _described(value: Any) -> Any:
    dtype = value.dtype
    if dtype.hasobject:
        raise Refusal(type(value), "its elements are Python objects; keep them in a list.")
    # `<i8` first, since it means the same on every machine; the letter where two types have one size.
    for description in (dtype.str, dtype.char) if dtype.names is None else (_structure(dtype),):
        again = _dtype(description)
        if again == dtype and again.type is dtype.type and again.metadata == dtype.metadata:
            return description
    raise Refusal(type(value), f"its dtype {dtype} could not be told from its description; use a simpler one.")


def _structure(dtype: Any) -> list[Any]:
    """A structured dtype's fields as lists: `[name, dtype]`, or `[name, dtype, shape]`."""
    return [[part if isinstance(part, str) else list(part) for part in field] for field in dtype.descr]


def _dtype(description: Any) -> Any:
    import numpy

    if isinstance(description, list):
        fields = [tuple(tuple(part) if isinstance(part, list) else part for part in field) for field in description]
        dtype = numpy.dtype(fields)
    elif type(description) is str:
        dtype = numpy.dtype(description)
    else:
        raise ValueError(f"{description!r} is no dtype")
    if dtype.hasobject:
        raise ValueError("an array of Python objects is never saved")
    return dtype
