"""What is stored for a new version of a channel's value: the whole, or what changed since another version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

import ormsgpack

from petal.errors import CheckpointCorruptionError

FEW_ROWS: Final = 256
"""A chain may have so many rows, however small its value."""
ROW_WORTH: Final = 512
"""Bytes of a value that are worth one more row of its chain."""


class ValueCodec(Protocol):
    """Values to bytes and back."""

    def encode(self, value: Any, where: str = "") -> bytes:
        """The value as bytes."""
        ...

    def decode(self, data: bytes, where: str = "") -> Any:
        """The value that the bytes hold."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A value that is stored as it is."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Items:
    """A list, each item encoded for itself."""

    items: tuple[bytes, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Entries:
    """A dict, each key and each value encoded for itself, in the dict's order."""

    entries: Mapping[bytes, bytes]
    size: int


Parts = Whole | Items | Entries
"""A value in encoded form, taken apart where its parts may change one by one."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a channel's value, and the chain of rows that it is stored in.

    Attributes:
        version: LangGraph's version of the channel.
        root: Version of the whole that the chain begins with.
        rows: How many rows the chain has up to this version.
        chained: Bytes of these rows.
    """

    version: str
    root: str
    parts: Parts
    rows: int
    chained: int


def split(value: Any, codec: ValueCodec, where: str) -> Parts:
    """Encode a value, lists and dicts part by part.

    Raises:
        CheckpointerError: If a part of it cannot be saved.
    """
    encode = codec.encode
    if type(value) is list:
        items = tuple([encode(item, where) for item in value])
        return Items(items, sum(map(len, items)))
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
            return [decode(item, where) for item in parts.items]
        case Entries():
            return {decode(key, where): decode(item, where) for key, item in parts.entries.items()}
        case _:
            assert_never(parts)


def stored(version: str, parts: Parts, base: Version | None) -> tuple[Version, bytes]:
    """The new version, and the bytes of its row: what changed since `base` where that is worth while.

    A whole is written once the chain would hold more than twice the value, or more rows than the value is
    worth: so reading takes at most about twice the value, and writing stays linear.
    """
    if base is not None and (delta := _delta(base, parts)) is not None:
        data, parts = delta
        rows, chained = base.rows + 1, base.chained + len(data)
        if chained <= 2 * parts.size + ROW_WORTH and rows <= FEW_ROWS + parts.size // ROW_WORTH:
            return Version(version, base.root, parts, rows, chained), data
    data = _packed(parts)
    return Version(version, version, parts, 1, len(data)), data


def chained(
    rows: Mapping[str, bytes], version: str, root: str, where: str, known: Mapping[str, Version] | None = None
) -> Version:
    """Put a version together from the rows of its chain.

    Args:
        rows: The rows' bytes by version; rows of other branches may be among them.
        version: The version wanted.
        root: Where its chain begins.
        where: What to call it in an error.
        known: Versions of this chain that are together already; it goes on from the nearest one.

    Raises:
        CheckpointCorruptionError: If a row is missing or cannot be read.
    """
    steps: list[list[Any]] = []
    at, size, base = version, 0, None
    while (base := known.get(at) if known else None) is None:
        try:
            row = ormsgpack.unpackb(rows[at])
            kind = row[0]
        except KeyError:
            raise CheckpointCorruptionError(where, f"the row of version {at!r} is missing") from None
        except (ValueError, TypeError, IndexError) as error:
            raise CheckpointCorruptionError(where, f"the row of version {at!r} cannot be read: {error}") from error
        size += len(rows[at])
        steps.append(row)
        if kind < _SPLICE or len(steps) > len(rows):
            break
        at = row[1]
    if base is None and at != root:
        raise CheckpointCorruptionError(where, f"its chain begins with version {at!r} instead of {root!r}")
    count = len(steps)
    try:
        if base is None:
            return Version(version, root, _replayed(_whole(steps.pop()), steps), count, size)
        return Version(version, root, _replayed(base.parts, steps), base.rows + count, base.chained + size)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise CheckpointCorruptionError(where, f"its changes do not fit together: {error}") from error


def bases(data: bytes) -> str | None:
    """The version that a row is a change of; None for a whole."""
    row = ormsgpack.unpackb(data)
    return row[1] if row[0] >= _SPLICE else None


def weight(version: Version) -> int:
    """Bytes that a version takes in memory, roughly: the encoded parts, and what Python needs around each."""
    match version.parts:
        case Whole():
            objects = 1
        case Items(items=items):
            objects = len(items)
        case Entries(entries=entries):
            objects = 2 * len(entries)
        case _:
            assert_never(version.parts)
    return version.parts.size + 50 * objects


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
        return _spliced(base.version, base.parts.items, parts)
    if isinstance(parts, Entries) and isinstance(base.parts, Entries):
        return _updated(base.version, base.parts.entries, parts)
    return None


def _spliced(version: str, old: tuple[bytes, ...], parts: Items) -> tuple[bytes, Parts] | None:
    new = parts.items
    most = min(len(old), len(new))
    keep = next((n for n in range(most) if old[n] != new[n]), most)
    tail = next((n for n in range(most - keep) if old[-1 - n] != new[-1 - n]), most - keep)
    items = new[keep : len(new) - tail]
    if sum(map(len, items)) > parts.size // 2:
        return None
    data = ormsgpack.packb([_SPLICE, version, keep, len(old) - keep - tail, items])
    return data, Items(old[:keep] + items + old[len(old) - tail :], parts.size)


def _updated(version: str, old: Mapping[bytes, bytes], parts: Entries) -> tuple[bytes, Parts] | None:
    new = parts.entries
    removed = [key for key in old if key not in new]
    changed = [(key, item) for key, item in new.items() if old.get(key) != item]
    after = {key: item for key, item in old.items() if key in new} | dict(changed)
    size = sum(len(key) + len(item) for key, item in changed) + sum(map(len, removed))
    if size > parts.size // 2 or list(after) != list(new):
        return None
    return ormsgpack.packb([_UPDATE, version, removed, _flat(changed)]), Entries(after, parts.size)


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
