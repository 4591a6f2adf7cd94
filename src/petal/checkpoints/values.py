"""What is stored for a new value of a channel: the whole, or what changed since another one.

A row is written once, under a name of its own, and never changed: so nothing that leans on it can find it altered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final, NamedTuple, Protocol, assert_never

import ormsgpack

from petal.checkpoints.codec.many_models import WEIGHT as LOOK_WEIGHT
from petal.checkpoints.codec.many_models import Look
from petal.errors import CheckpointCorruptionError

FEW_ROWS: Final = 256
"""A chain may have so many rows, however small its value."""
ROW_WORTH: Final = 512
"""Bytes of a value that are worth one more row of its chain."""
BUNDLED: Final = 32
"""So many rows of a chain that lie alone become one. A thousand rows take 20 ms to read, the same in 32 bundles 3."""
MANY: Final = 64
"""Items of a list of which it is worth while to keep the values for the next one who loads them."""
OBJECT_WEIGHT: Final = 50
"""Bytes that Python needs around each part."""
USED_WEIGHT: Final = 850
"""Bytes that a message takes in memory beside what it says, roughly."""
SMALL: Final = 16 * 1024
"""Bytes of a row; a larger one takes so long anyway that it may lie alone."""
BUNDLE_MARK: Final = "+"
"""What the name of a bundle begins with, and that of no other row."""


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


class Chain:
    """Rows of one chain, its forks among them, by name."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.alone: set[str] = set()
        """Those that lie in no bundle."""

    def add(self, name: str, data: bytes) -> None:
        """Take in what one row of the store holds.

        Raises:
            ValueError: If it is a bundle that cannot be read.
        """
        if name.startswith(BUNDLE_MARK):
            self.rows.update(unbundled(data))
        else:
            self.rows[name] = data
            self.alone.add(name)


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


def stored(name: str, parts: Parts, base: Version | None) -> tuple[Version, bytes]:
    """The new value, and the bytes of its row: what changed since `base` where that is worth while.

    A whole is written once the chain would hold more than twice the value, or more rows than the value is
    worth: so reading takes at most about twice the value, and writing stays linear.
    """
    if base is not None and (delta := _delta(base, parts)) is not None:
        data, parts = delta
        rows, chained = base.rows + 1, base.chained + len(data)
        if chained <= 2 * parts.size + ROW_WORTH and rows <= FEW_ROWS + parts.size // ROW_WORTH:
            alone = (name, *base.alone) if len(data) <= SMALL else base.alone
            return Version(Spot(base.spot.root, name), parts, rows, chained, alone), data
    data = _packed(parts)
    return Version(Spot(name, name), parts, 1, len(data)), data


def chained(chain: Chain, spot: Spot, where: str, known: Mapping[str, Version] | None = None) -> Version:
    """Put a value together from the rows of its chain.

    Args:
        chain: The rows.
        spot: Where the value lies.
        where: What to call it in an error.
        known: Values of this chain that are together already, by row; it goes on from the nearest one.

    Raises:
        CheckpointCorruptionError: If a row is missing or cannot be read.
    """
    rows = chain.rows
    steps: list[list[Any]] = []
    names: list[str] = []
    at, size, base = spot.row, 0, None
    while (base := known.get(at) if known else None) is None:
        try:
            row = ormsgpack.unpackb(rows[at])
            kind = row[0]
        except KeyError:
            raise CheckpointCorruptionError(where, f"the row {at!r} is missing") from None
        except (ValueError, TypeError, IndexError) as error:
            raise CheckpointCorruptionError(where, f"the row {at!r} cannot be read: {error}") from error
        size += len(rows[at])
        steps.append(row)
        names.append(at)
        if kind < _SPLICE or len(steps) > len(rows):
            break
        at = row[1]
    if base is None and at != spot.root:
        raise CheckpointCorruptionError(where, f"its chain begins with {at!r} instead of {spot.root!r}")
    count = len(steps)
    last = list(takewhile(chain.alone.__contains__, names if base is not None else names[:-1]))
    alone = tuple(name for name in last if len(rows[name]) <= SMALL)
    if base is not None and len(last) == count:
        alone += base.alone
    try:
        if base is None:
            return Version(spot, _replayed(_whole(steps.pop()), steps), count, size, alone)
        return Version(spot, _replayed(base.parts, steps), base.rows + count, base.chained + size, alone)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise CheckpointCorruptionError(where, f"its changes do not fit together: {error}") from error


def bundled(rows: Mapping[str, bytes]) -> bytes:
    """Some rows of a chain as one, which is read like each of them; they may be of any branch."""
    return ormsgpack.packb([part for name, data in rows.items() for part in (name, data)])


def unbundled(data: bytes) -> dict[str, bytes]:
    """The rows of a bundle by name.

    Raises:
        ValueError: If it is none.
    """
    parts = ormsgpack.unpackb(data)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def base_of(data: bytes) -> str | None:
    """The row that a row is a change of; None for a whole."""
    row = ormsgpack.unpackb(data)
    return row[1] if row[0] >= _SPLICE else None


_WHOLE: Final = 0
_LIST: Final = 1
_DICT: Final = 2
_SPLICE: Final = 3
"""[kind, base, keep, drop, items]: the base with `drop` items behind the first `keep` replaced."""
_UPDATE: Final = 4
"""[kind, base, removed keys, keys and values]: the base without some keys, then with some set."""


def _packed(parts: Parts) -> bytes:
    match parts:
        case Whole():
            return ormsgpack.packb([_WHOLE, parts.data])
        case Items():
            return ormsgpack.packb([_LIST, parts.items])
        case Entries():
            return ormsgpack.packb([_DICT, _flat(parts.entries.items())])
        case _:
            assert_never(parts)


def _delta(base: Version, parts: Parts) -> tuple[bytes, Parts] | None:
    """The bytes that make `parts` of the base, and parts that share what is equal; None where a whole is as good."""
    if isinstance(parts, Items) and isinstance(base.parts, Items):
        return _spliced(base.spot.row, base.parts.items, parts)
    if isinstance(parts, Entries) and isinstance(base.parts, Entries):
        return _updated(base.spot.row, base.parts.entries, parts)
    return None


def _spliced(base: str, old: tuple[bytes, ...], parts: Items) -> tuple[bytes, Parts] | None:
    new = parts.items
    most = min(len(old), len(new))
    # Most lists only grow, and a thousand items at once are compared in a tenth of the time.
    keep = most if old[:most] == new[:most] else next(n for n in range(most) if old[n] != new[n])
    tail = next((n for n in range(most - keep) if old[-1 - n] != new[-1 - n]), most - keep)
    items = new[keep : len(new) - tail]
    if sum(map(len, items)) > parts.size // 2:
        return None
    data = ormsgpack.packb([_SPLICE, base, keep, len(old) - keep - tail, items])
    return data, Items(old[:keep] + items + old[len(old) - tail :], parts.size, parts.looks, parts.used)


def _updated(base: str, old: Mapping[bytes, bytes], parts: Entries) -> tuple[bytes, Parts] | None:
    new = parts.entries
    removed = [key for key in old if key not in new]
    changed = [(key, item) for key, item in new.items() if old.get(key) != item]
    after = {key: item for key, item in old.items() if key in new} | dict(changed)
    size = sum(len(key) + len(item) for key, item in changed) + sum(map(len, removed))
    if size > parts.size // 2 or list(after) != list(new):
        return None
    return ormsgpack.packb([_UPDATE, base, removed, _flat(changed)]), Entries(after, parts.size)


def _whole(row: list[Any]) -> Parts:
    """The parts that a row holds which is no change."""
    kind, content = row
    match kind:
        case 0:
            return Whole(content)
        case 1:
            return Items(tuple(content), sum(map(len, content)))
        case 2:
            entries = dict(zip(content[::2], content[1::2], strict=True))
            return Entries(entries, sum(map(len, entries)) + sum(map(len, entries.values())))
        case _:
            raise ValueError(f"no kind of row {kind!r}")


def _replayed(parts: Parts, steps: list[list[Any]]) -> Parts:
    """The parts after the changes of rows, the newest of which is the first."""
    if not steps:
        return parts
    match parts:
        case Whole():
            raise ValueError("a change of what cannot be taken apart")
        case Items():
            items = list(parts.items)
            for _, _, keep, drop, new in reversed(steps):
                if keep + drop > len(items):
                    raise ValueError("a change reaches behind the end")
                items[keep : keep + drop] = new
            return Items(tuple(items), sum(map(len, items)))
        case Entries():
            entries = dict(parts.entries)
            for _, _, removed, new in reversed(steps):
                for key in removed:
                    del entries[key]
                entries.update(zip(new[::2], new[1::2], strict=True))
            return Entries(entries, sum(map(len, entries)) + sum(map(len, entries.values())))
        case _:
            assert_never(parts)


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [part for pair in pairs for part in pair]
