"""A saver that shows what it cannot make: for migrations of values whose types are gone or have changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from petal.checkpoints.codec import Codec, RawValue
from petal.checkpoints.saver import PetalSaver


def lenient(saver: PetalSaver) -> PetalSaver:
    """The same saver, with a `RawValue` wherever a value cannot be made again."""
    codec = Codec(saver.rows.codec.allowed, on_decode_error="raw")
    return saver.with_rows(replace(saver.rows, codec=codec))


def raw_in(value: Any) -> RawValue | None:
    """A value that could not be made, if there is one in plain data."""
    if isinstance(value, RawValue):
        return value
    if isinstance(value, dict):
        return next((found for one in value.values() if (found := raw_in(one)) is not None), None)
    if isinstance(value, list | tuple | set | frozenset):
        return next((found for one in value if (found := raw_in(one)) is not None), None)
    return None
