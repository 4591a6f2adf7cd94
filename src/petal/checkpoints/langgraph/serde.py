"""A serializer whose errors say which value is meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from petal.errors import CheckpointCorruptionError, CheckpointerError


class NamingSerializer:
    """Passes values on to another serializer, for one operation.

    Args:
        serde: The serializer that does the work.
        place: The checkpoint that is read or written, for messages.
        channels: The (channel, value) pairs that are written.
    """

    def __init__(self, serde: SerializerProtocol, place: str, channels: Iterable[tuple[str, Any]] = ()) -> None:
        self._serde, self._place, self._channels = serde, place, channels

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        try:
            return self._serde.dumps_typed(obj)
        except Exception as error:
            raise CheckpointerError(self._refusal(obj, error)) from error

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        try:
            return self._serde.loads_typed(data)
        except Exception as error:
            raise CheckpointCorruptionError(self._place, f"a value of it cannot be read ({error})") from error

    def _refusal(self, obj: Any, error: Exception) -> str:
        for channel, value in self._channels:
            try:
                self._serde.dumps_typed(value)
            except Exception as reason:
                return (
                    f"Channel {channel!r} of {self._place} holds a {type(value).__name__} that cannot be saved: "
                    f"{reason}. Keep plain data, messages, dataclasses or pydantic models in the state."
                )
        return f"A {type(obj).__name__} in {self._place} cannot be saved: {error}."
