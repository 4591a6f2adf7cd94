"""Values of channels in encoded form: taken apart where their parts may change one by one, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, assert_never

from petal.checkpoints.codec.many_models import WEIGHT as LOOK_WEIGHT
from petal.checkpoints.codec.many_models import Look

MANY: Final = 64
"""Items of a list of which it is worth while to keep the values for the next one who loads them."""
OBJECT_WEIGHT: Final = 50
"""Bytes that Python needs around each part."""
USED_WEIGHT: Final = 850
"""Bytes that a message takes in memory beside what it says, roughly."""


class Spot(NamedTuple):
    """Where a channel's value lies: its row, and the row that its chain begins with."""

    root: str
    row: str


class ValueCodec(Protocol):
    """Values to bytes and back."""

    def encode(self, value: Any, where: str = "") -> bytes:
        """The value as bytes."""
        ...

    def decode(self, data: bytes, where: str = "") -> Any:
        """The value that the bytes hold."""
        ...

    def encode_items(
        self, values: list[Any], where: str = "", known: tuple[bytes, ...] = (), looks: tuple[Look | None, ...] = ()
    ) -> tuple[tuple[bytes, ...], tuple[Look | None, ...]]:
        """The bytes of each value of a list, and how each looks, if that helps with the next such list."""
        ...

    def decode_items(
        self,
        items: tuple[bytes, ...],
        where: str = "",
        looks: tuple[Look | None, ...] = (),
        used: list[Any] | None = None,
    ) -> list[Any]:
        """The values of a list."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A value that is stored as it is."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.data)

    @property
    def weight(self) -> int:
        """Bytes that it takes in memory, roughly: the encoded parts, and what Python needs around each."""
        return len(self.data) + OBJECT_WEIGHT


@dataclass(frozen=True, slots=True)
class Items:
    """A list, each item encoded for itself."""

    items: tuple[bytes, ...]
    size: int
    looks: tuple[Look | None, ...] = field(default=(), compare=False)
    """How the items looked when they were encoded in this process; empty where they were not."""
    used: list[list[Any]] = field(default_factory=list, compare=False)
    """The values that looked so, for the one that takes them out of here: it may use those again which are as they were
    and which nobody else holds."""

    @property
    def weight(self) -> int:
        """As that of a whole, with what the looks and the values take."""
        count = len(self.items)
        if not self.looks:
            return self.size + OBJECT_WEIGHT * count
        return 2 * self.size + (OBJECT_WEIGHT + LOOK_WEIGHT + (USED_WEIGHT if count >= MANY else 0)) * count


@dataclass(frozen=True, slots=True)
class Entries:
    """A dict, each key and each value encoded for itself, in the dict's order."""

    entries: Mapping[bytes, bytes]
    size: int

    @property
    def weight(self) -> int:
        """As that of a whole."""
        return self.size + 2 * OBJECT_WEIGHT * len(self.entries)


Parts = Whole | Items | Entries
"""A value in encoded form, taken apart where its parts may change one by one."""


@dataclass(frozen=True, slots=True)
class Version:
    """A channel's value, and the chain of rows that it is stored in.

    Attributes:
        spot: Where it lies.
        rows: How many rows the chain has up to this one.
        chained: Bytes of these rows.
        alone: The last of them that lie in no bundle, newest first, without large ones.
    """

    spot: Spot
    parts: Parts
    rows: int
    chained: int
    alone: tuple[str, ...] = field(default=(), compare=False)


def split(value: Any, codec: ValueCodec, where: str, base: Version | None = None) -> Parts:
    """Encode a value, lists and dicts part by part.

    Args:
        value: The value.
        codec: Encodes it.
        where: What to call it in an error.
        base: An earlier version, whose items need not be encoded again where they are the same.

    Raises:
        CheckpointerError: If a part of it cannot be saved.
    """
    encode = codec.encode
    if type(value) is list:
        if base is not None and isinstance(base.parts, Items):
            items, looks = codec.encode_items(value, where, base.parts.items, base.parts.looks)
        else:
            items, looks = codec.encode_items(value, where)
        used = [value.copy()] if looks and len(items) >= MANY else []
        return Items(items, sum(map(len, items)), looks, used)
    if type(value) is dict:
        entries = {encode(key, where): encode(item, where) for key, item in value.items()}
        return Entries(entries, sum(map(len, entries)) + sum(map(len, entries.values())))
    return Whole(encode(value, where))


def join(parts: Parts, codec: ValueCodec, where: str) -> Any:
    """The value that was split; each time a new one."""
    decode = codec.decode
    match parts:
        case Whole():
            return decode(parts.data, where)
        case Items():
            return codec.decode_items(parts.items, where, parts.looks, _taken(parts.used))
        case Entries():
            return {decode(key, where): decode(item, where) for key, item in parts.entries.items()}
        case _:
            assert_never(parts)


def _taken(used: list[list[Any]]) -> list[Any] | None:
    """What nobody else can take any more."""
    try:
        return used.pop()
    except IndexError:
        return None
