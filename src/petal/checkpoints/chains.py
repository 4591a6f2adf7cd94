"""What is stored for a new value of a channel: the whole, or what changed since another one.

A row is written once, under a name of its own, and never changed: so nothing that leans on it can find it altered.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from itertools import accumulate
from typing import Any, Final, NamedTuple, Self, assert_never

import ormsgpack

from petal.checkpoints.values import Entries, Items, Parts, Spot, Version, Whole
from petal.errors import CheckpointCorruptionError

FEW_ROWS: Final = 256
"""A chain may have so many rows, however small its value."""
ROW_WORTH: Final = 512
"""Bytes of a value that are worth one more row of its chain."""
BUNDLED: Final = 32
"""So many rows of a chain that lie alone become one. A thousand rows take 20 ms to read, the same in 32 bundles 2."""
SMALL: Final = 16 * 1024
"""Bytes of a row; a larger one takes so long anyway that it may lie alone."""
BUNDLE_MARK: Final = "+"
"""What the name of a bundle begins with, and that of no other row."""

_WHOLE: Final = 0
_LIST: Final = 1
_DICT: Final = 2
_SPLICE: Final = 3
"""[kind, base, keep, drop, items]: the base with `drop` items behind the first `keep` replaced."""
_UPDATE: Final = 4
"""[kind, base, removed keys, keys and values]: the base without some keys, then with some set."""
_ROW_BYTES: Final = 24
"""What a row in a bundle takes beside what it brings, roughly."""


class Bundle(NamedTuple):
    """Changes of one kind in one row of the store, oldest first; a change that lies alone is a bundle of one.

    They are kept as columns, since to read a few long lists takes a fraction of the time of many short ones.

    Attributes:
        kind: Of all of them.
        names: Theirs.
        bases: The row that each is a change of; None for the one before it, as it mostly is.
        firsts: `keep`, or the removed keys.
        seconds: `drop`, or 0.
        starts: Where in `parts` that begins what each brings, and where the last one ends.
        parts: What they bring, one after the other.
    """

    kind: int
    names: list[str]
    bases: list[str | None]
    firsts: list[Any]
    seconds: list[int]
    starts: list[int]
    parts: list[bytes]

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """The bundle that the bytes hold.

        Raises:
            ValueError: If they hold none.
        """
        try:
            kind, names, bases, firsts, seconds, counts, parts = ormsgpack.unpackb(data)
            starts = [*accumulate(counts, initial=0)]
            lengths = {len(names), len(bases), len(firsts), len(seconds), len(counts)}
            if len(lengths) > 1 or kind not in (_SPLICE, _UPDATE) or starts[-1] != len(parts) or bases[0] is None:
                raise ValueError("its columns do not fit together")
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError(f"it is no bundle: {error}") from error
        return cls(kind, names, bases, firsts, seconds, starts, parts)

    def based(self) -> dict[str, str]:
        """For each of them what it is a change of."""
        befores = ["", *self.names]
        return {name: base or before for name, base, before in zip(self.names, self.bases, befores, strict=False)}

    def back_from(self, name: str, known: Container[str]) -> tuple[int, int, str]:
        """The changes that lead to one of them from the nearest row elsewhere, or that is known.

        Returns:
            The first, the end, and the row that the first is a change of.
        """
        first = self.names.index(name)
        end = first + 1
        while (base := self.bases[first]) is None:
            if (before := self.names[first - 1]) in known:
                return first, end, before
            first -= 1
        return first, end, base

    def size(self, first: int, end: int) -> int:
        """Bytes of some of them, roughly."""
        return sum(map(len, self.parts[self.starts[first] : self.starts[end]])) + _ROW_BYTES * (end - first)


class Chain:
    """Rows of one chain, its forks among them.

    Attributes:
        rows: By name what lies alone, as bytes, and for each row in a bundle that.
    """

    def __init__(self) -> None:
        self.rows: dict[str, bytes | Bundle] = {}

    def add(self, name: str, data: bytes) -> None:
        """Take in what one row of the store holds.

        Raises:
            ValueError: If it is a bundle that cannot be read.
        """
        if name.startswith(BUNDLE_MARK):
            bundle = Bundle.unpacked(data)
            for inner in bundle.names:
                self.rows.setdefault(inner, bundle)
        else:
            self.rows[name] = data

    def bases(self) -> dict[str, str | None]:
        """For each row what it is a change of; None for a whole."""
        found: dict[str, str | None] = {}
        for name, row in self.rows.items():
            if isinstance(row, bytes):
                found[name] = base_of(row)
            elif name not in found:
                found |= row.based()
        return found


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
    found = known or {}
    steps: list[tuple[Bundle, int, int]] = []
    alone: list[str] = []
    at, count, size, is_alone, whole = spot.row, 0, 0, True, None
    while (base := found.get(at)) is None and count <= len(chain.rows):
        try:
            row = chain.rows[at]
            opened = _opened(at, row) if isinstance(row, bytes) else row
        except KeyError:
            raise CheckpointCorruptionError(where, f"the row {at!r} is missing") from None
        except (ValueError, TypeError, IndexError) as error:
            raise CheckpointCorruptionError(where, f"the row {at!r} cannot be read: {error}") from error
        if not isinstance(opened, Bundle):
            whole, count, size = opened, count + 1, size + len(row)
            break
        name = at
        first, end, at = opened.back_from(name, found)
        steps.append((opened, first, end))
        count += end - first
        size += len(row) if isinstance(row, bytes) else opened.size(first, end)
        is_alone = is_alone and isinstance(row, bytes)
        if is_alone and len(row) <= SMALL:
            alone.append(name)
    if base is None and at != spot.root:
        raise CheckpointCorruptionError(where, f"its chain begins with {at!r} instead of {spot.root!r}")
    try:
        if base is None:
            return Version(spot, _replayed(whole, steps), count, size, tuple(alone))
        last = (*alone, *base.alone) if is_alone else tuple(alone)
        return Version(spot, _replayed(base.parts, steps), base.rows + count, base.chained + size, last)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise CheckpointCorruptionError(where, f"its changes do not fit together: {error}") from error


def bundled(rows: Mapping[str, bytes]) -> bytes:
    """Some changes of a chain, oldest first, as one row that is read like each of them; they may be of any branch.

    Raises:
        ValueError: If there is a whole among them.
    """
    changes = []
    for name, data in rows.items():
        if not isinstance(change := _opened(name, data), Bundle):
            raise ValueError(f"the row {name!r} is no change")
        changes.append(change)
    bases = [change.bases[0] for change in changes]
    return ormsgpack.packb(
        [
            changes[0].kind,
            [*rows],
            [None if base == before else base for base, before in zip(bases, [None, *rows], strict=False)],
            [change.firsts[0] for change in changes],
            [change.seconds[0] for change in changes],
            [len(change.parts) for change in changes],
            [part for change in changes for part in change.parts],
        ]
    )


def base_of(data: bytes) -> str | None:
    """The row that a row is a change of; None for a whole."""
    row = ormsgpack.unpackb(data)
    return row[1] if row[0] >= _SPLICE else None


def _opened(name: str, data: bytes) -> Bundle | Parts:
    """What a row that lies alone holds."""
    kind, *row = ormsgpack.unpackb(data)
    match kind:
        case 0:
            return Whole(*row)
        case 1:
            (items,) = row
            return Items(tuple(items), sum(map(len, items)))
        case 2:
            (flat,) = row
            entries = dict(_pairs(flat))
            return Entries(entries, sum(map(len, entries)) + sum(map(len, entries.values())))
        case 3:
            base, keep, drop, items = row
            return Bundle(kind, [name], [base], [keep], [drop], [0, len(items)], items)
        case 4:
            base, removed, flat = row
            return Bundle(kind, [name], [base], [removed], [0], [0, len(flat)], flat)
        case _:
            raise ValueError(f"no kind of row {kind!r}")


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


def _replayed(parts: Parts | None, steps: list[tuple[Bundle, int, int]]) -> Parts:
    """The parts after some changes, of which the newest come first."""
    if parts is None:
        raise ValueError("it begins with a change")
    if not steps:
        return parts
    match parts:
        case Items():
            items = list(parts.items)
            for changes, first, end in reversed(steps):
                _splice(items, changes, first, end)
            return Items(tuple(items), sum(map(len, items)))
        case Entries():
            entries = dict(parts.entries)
            for changes, first, end in reversed(steps):
                _update(entries, changes, first, end)
            return Entries(entries, sum(map(len, entries)) + sum(map(len, entries.values())))
        case Whole():
            raise ValueError("a change of what cannot be taken apart")
        case _:
            assert_never(parts)


def _splice(items: list[bytes], changes: Bundle, first: int, end: int) -> None:
    if changes.kind != _SPLICE:
        raise ValueError("a change of no list")
    starts, parts = changes.starts, changes.parts
    keeps, drops = changes.firsts[first:end], changes.seconds[first:end]
    # Most lists only grow, and what thirty rows add at once takes a tenth of the time.
    shift = len(items) - starts[first]
    if not any(drops) and keeps == [shift + start for start in starts[first:end]]:
        items += parts[starts[first] : starts[end]]
        return
    for number, keep, drop in zip(range(first, end), keeps, drops, strict=True):
        if keep + drop > len(items):
            raise ValueError("a change reaches behind the end")
        items[keep : keep + drop] = parts[starts[number] : starts[number + 1]]


def _update(entries: dict[bytes, bytes], changes: Bundle, first: int, end: int) -> None:
    if changes.kind != _UPDATE:
        raise ValueError("a change of no dict")
    starts, parts = changes.starts, changes.parts
    for number in range(first, end):
        for key in changes.firsts[number]:
            del entries[key]
        entries.update(_pairs(parts[starts[number] : starts[number + 1]]))


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [part for pair in pairs for part in pair]


def _pairs(flat: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
