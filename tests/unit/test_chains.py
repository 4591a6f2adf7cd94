"""Values are stored as what changed, read back exactly, and never take much more than they hold."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petal.checkpoints.cache import ByteCache
from petal.checkpoints.chains import SMALL, Chain, base_of, bundled, chained, stored
from petal.checkpoints.values import Spot, Version, join, split
from petal.errors import CheckpointCorruptionError


class Packed:
    """A codec that is simple enough to be right."""

    def encode(self, value: Any, where: str = "") -> bytes:
        return bytes(ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS))

    def decode(self, data: bytes, where: str = "") -> Any:
        return ormsgpack.unpackb(data, option=ormsgpack.OPT_NON_STR_KEYS)

    def encode_items(self, values: list[Any], *_: Any) -> tuple[tuple[bytes, ...], tuple[()]]:
        return tuple(map(self.encode, values)), ()

    def decode_items(self, items: Sequence[bytes], *_: Any) -> list[Any]:
        return list(map(self.decode, items))


codec = Packed()
scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=30)
values = (
    scalars
    | st.lists(scalars, max_size=12)
    | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), scalars, max_size=8)
)


class Stored:
    """The rows of a channel, as a database would hold them."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.versions: dict[str, Version] = {}
        self.values: dict[str, Any] = {}

    def put(self, value: Any, base: str | None) -> str:
        version = f"{len(self.rows):04d}"
        known = self.versions.get(base) if base else None
        self.versions[version], self.rows[version] = stored(version, split(value, codec, ""), known)
        self.values[version] = value
        return version

    def bundle(self, names: Sequence[str]) -> None:
        """Put some rows into one."""
        self.rows[f"+{names[0]}"] = bundled({name: self.rows.pop(name) for name in names})

    def read(self, version: str, known: dict[str, Version] | None = None) -> Version:
        return chained(chain_of(self.rows), self.versions[version].spot, "here", known)


def chain_of(rows: Mapping[str, bytes]) -> Chain:
    chain = Chain()
    for name, data in rows.items():
        chain.add(name, data)
    return chain


@given(st.lists(st.tuples(values, st.integers(0, 5)), min_size=1, max_size=12))
def test_every_version_reads_back_whatever_it_is_a_change_of(history: list[tuple[Any, int]]) -> None:
    """Versions may be made of any earlier one, as forks do."""
    kept = Stored()
    made: list[str] = []
    for value, back in history:
        made.append(kept.put(value, made[-1 - back] if back < len(made) else None))
    for version in made:
        read = kept.read(version)
        assert join(read.parts, codec, "") == kept.values[version]
        if isinstance(kept.values[version], dict):
            assert list(join(read.parts, codec, "")) == list(kept.values[version])
        assert read == kept.versions[version]


def edited(value: Any, edit: int, text: str) -> Any:
    """A list or dict with something added, removed or changed."""
    if isinstance(value, list):
        at = edit % (len(value) + 1)
        after = value[at + 1 :]
        return [[*value[:at], *after], [*value[:at], text, *after], [*value, text], value][edit % 4]
    key = f"k{edit % 8}"
    return {k: v for k, v in value.items() if k != key} if edit % 3 == 0 else {**value, key: text}


@given(
    st.sampled_from([[f"item {n} " * 9 for n in range(8)], {f"k{n}": f"item {n} " * 9 for n in range(8)}]),
    st.lists(st.tuples(st.integers(0, 99), st.text(max_size=20), st.sampled_from([0, 0, 0, 1, 4])), max_size=12),
    st.data(),
)
def test_bundles_of_any_branches_read_back(
    value: Any, history: list[tuple[int, str, int]], data: st.DataObject
) -> None:
    """Some changes of a chain, whichever they are, become one row, and some of the others another one."""
    kept = Stored()
    made = [kept.put(value, None)]
    for edit, text, back in history:
        base = made[max(0, len(made) - 1 - back)]
        made.append(kept.put(edited(kept.values[base], edit, text), base))
    for root in set(made):
        changes = [name for name in made if kept.versions[name].spot.root == root != name]
        first = data.draw(st.sets(st.sampled_from(changes))) if changes else set()
        for some in (first, {*changes} - first):
            if some:
                kept.bundle(sorted(some))
    chain = chain_of(kept.rows)
    bases = chain.bases()
    for version in made:
        read = kept.read(version)
        assert join(read.parts, codec, "") == kept.values[version]
        assert (read.parts, read.rows) == (kept.versions[version].parts, kept.versions[version].rows)
        for known in made:
            assert kept.read(version, {known: kept.read(known)}).rows == read.rows
            assert kept.read(version, {known: kept.read(known)}).parts == read.parts
        rows = 0
        at: str | None = version
        while at is not None:
            rows, at = rows + 1, bases[at]
        assert rows == read.rows


@pytest.mark.parametrize(
    "change",
    [
        lambda items: [*items, "new" * 30],
        lambda items: items[:-1],
        lambda items: [*items[:20], "other" * 20, *items[21:]],
        lambda items: [*items[:20], *items[22:]],
        lambda items: ["first" * 20, *items],
        lambda items: items,
    ],
    ids=["append", "pop", "edit", "remove", "prepend", "same"],
)
def test_a_small_change_of_a_list_is_a_small_row(change: Any) -> None:
    kept = Stored()
    items = [f"message {n} " * 10 for n in range(50)]
    first = kept.put(items, None)
    second = kept.put(change(items), first)
    assert len(kept.rows[second]) < 300 < len(kept.rows[first])
    assert join(kept.read(second).parts, codec, "") == change(items)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {**d, "k5": "changed"},
        lambda d: {**d, "new": 1},
        lambda d: {k: v for k, v in d.items() if k != "k7"},
    ],
    ids=["set", "add", "remove"],
)
def test_a_small_change_of_a_dict_is_a_small_row(change: Any) -> None:
    kept = Stored()
    first = kept.put({f"k{n}": "value " * 20 for n in range(30)}, None)
    second = kept.put(change(kept.values[first]), first)
    assert len(kept.rows[second]) < 100 < len(kept.rows[first])
    assert list(join(kept.read(second).parts, codec, "").items()) == list(change(kept.values[first]).items())


def test_a_dict_in_another_order_is_stored_whole() -> None:
    kept = Stored()
    first = kept.put({f"k{n}": "value " * 20 for n in range(30)}, None)
    second = kept.put(dict(reversed(kept.values[first].items())), first)
    assert base_of(kept.rows[second]) is None
    third = kept.put({**kept.values[second], "k1": 1}, second)
    assert base_of(kept.rows[third]) == second
    assert list(join(kept.read(second).parts, codec, "")) == list(kept.values[second])


def test_a_value_changed_in_place_is_noticed() -> None:
    kept = Stored()
    value = [{"text": "one" * 50}, {"text": "two" * 50}, {"text": "three" * 50}]
    first = kept.put(value, None)
    value[1]["text"] = "2"
    second = kept.put(value, first)
    assert join(kept.read(second).parts, codec, "")[1] == {"text": "2"}
    assert join(kept.read(first).parts, codec, "")[1] == {"text": "two" * 50}


def test_disk_grows_with_what_was_said() -> None:
    kept, version, said = Stored(), None, 0
    messages: list[str] = []
    for n in range(1000):
        messages.append(f"{n} " + "word " * 100)
        said += len(messages[-1])
        version = kept.put(list(messages), version)
    assert sum(map(len, kept.rows.values())) < 1.2 * said


def test_reading_takes_at_most_about_twice_the_value() -> None:
    """Edits all over the place are folded into a whole before the chain outweighs it."""
    kept, version = Stored(), None
    chance = random.Random(7)
    items = ["x" * 100 for _ in range(100)]
    for _ in range(500):
        items[chance.randrange(100)] = chance.randbytes(50).hex()
        version = kept.put(list(items), version)
        assert kept.versions[version].chained <= 2 * kept.versions[version].parts.size + 512


def test_many_tiny_changes_make_no_endless_chain() -> None:
    kept, version = Stored(), None
    for n in range(1000):
        version = kept.put([0] * 300 + [n], version)
    assert max(v.rows for v in kept.versions.values()) <= 257


def test_damaged_chains_are_named() -> None:
    kept = Stored()
    first = kept.put(["x" * 100] * 50, None)
    second = kept.put(["x" * 100] * 51, first)
    third = kept.put(["x" * 100] * 52, second)
    whole = {**kept.rows}
    for rows, problem in [
        ({k: v for k, v in whole.items() if k != second}, f"the row '{second}' is missing"),
        ({**whole, second: b"\xc1"}, "cannot be read"),
        ({**whole, second: b"\x90"}, "cannot be read"),
        ({**whole, second: ormsgpack.packb([3, second, 0, 0, []])}, "begins with"),
        ({**whole, second: whole[first]}, f"begins with '{second}' instead of '{first}'"),
        ({**whole, first: ormsgpack.packb([0, b"x"])}, "do not fit together"),
        ({**whole, first: ormsgpack.packb([2, []])}, "do not fit together"),
        ({**whole, first: ormsgpack.packb([-1, []])}, "cannot be read: no kind of row -1"),
        ({**whole, first: ormsgpack.packb([1, []])}, "do not fit together"),
        ({**whole, first: ormsgpack.packb([1])}, "cannot be read"),
        ({**whole, first: ormsgpack.packb([3, first, 0, 0, []])}, "begins with a change"),
        ({**whole, second: ormsgpack.packb([4, first, [], []])}, "a change of no list"),
        ({**whole, first: ormsgpack.packb([2, []]), second: ormsgpack.packb([3, first, 0, 0, []])}, "of no dict"),
    ]:
        with pytest.raises(CheckpointCorruptionError, match=problem):
            chained(chain_of(rows), Spot(first, third), "here")


def test_bundles_are_read_like_the_rows_in_them() -> None:
    """Those of forks too, which may have begun from a row that was bundled since, and hold some rows twice."""
    kept = Stored()
    first = version = kept.put(["x" * 100] * 50, None)
    names = []
    for n in range(40):
        version = kept.put([*kept.values[version], f"{n}" * 50], version)
        names.append(version)
    middle = names[20]
    fork = kept.put([*kept.values[middle], "fork"], middle)
    assert kept.versions[version].alone == tuple(reversed(names))
    assert kept.versions[fork].alone == (fork, *reversed(names[:21]))
    rows = {name: kept.rows[name] for name in [*names[:21], fork]}
    kept.bundle(names[:30])
    for name in [first, *names, fork]:
        assert join(kept.read(name).parts, codec, "") == kept.values[name]
    assert kept.read(version).alone == kept.read(version, {}).alone == tuple(reversed(names[30:]))
    assert kept.read(fork).alone == (fork,)
    assert kept.read(names[29]).alone == kept.read(first).alone == ()
    known = {names[34]: kept.read(names[34])}
    assert kept.read(version, known).alone == tuple(reversed(names[30:]))
    kept.bundle([names[36]])
    assert kept.read(version, known).alone == tuple(reversed(names[37:]))
    kept.rows.update({f"+{fork}": bundled(rows)})
    assert join(kept.read(fork).parts, codec, "") == kept.values[fork]


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        ormsgpack.packb(7),
        ormsgpack.packb([3, ["a"], ["b"], [0], [0], [1]]),
        ormsgpack.packb([3, ["a"], ["b"], [0], [0], [1], []]),
        ormsgpack.packb([3, ["a"], [None], [0], [0], [0], []]),
        ormsgpack.packb([3, ["a"], ["b"], [0, 0], [0], [0], []]),
        ormsgpack.packb([3, [], [], [], [], [], []]),
        ormsgpack.packb([3, 1, ["b"], [0], [0], [0], []]),
        ormsgpack.packb([1, ["a"], ["b"], [0], [0], [0], []]),
    ],
)
def test_what_is_no_bundle_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="it is no bundle"):
        Chain().add("+", data)


def test_a_whole_is_in_no_bundle() -> None:
    """Every chain begins with the row of its root, which no bundle hides."""
    kept = Stored()
    first = kept.put([1], None)
    with pytest.raises(ValueError, match="is no change"):
        bundled(kept.rows)
    assert kept.versions[first].alone == ()


def test_large_rows_are_left_alone() -> None:
    kept = Stored()
    first = kept.put(["x" * 5 * SMALL], None)
    small = kept.put([*kept.values[first], "small"], first)
    large = kept.put([*kept.values[small], "y" * SMALL], small)
    last = kept.put([*kept.values[large], "small"], large)
    assert kept.versions[last].alone == kept.read(last).alone == (last, small)


def test_a_cache_is_bounded_in_bytes_and_forgets_the_oldest() -> None:
    cache: ByteCache[tuple[str, str], str] = ByteCache(20_000)
    for n in range(100):
        cache.put((f"t{n}", "c"), f"value {n}", 1000)
        assert cache.size <= 20_000
    assert cache.get(("t0", "c")) is None
    assert cache.get(("t99", "c")) == "value 99"
    size = cache.size
    cache.put(("big", "c"), "too large", 30_000)
    assert cache.get(("big", "c")) is None
    assert cache.size == size
    cache.put(("t99", "c"), "smaller", 1)
    assert cache.get(("t99", "c")) == "smaller"
    assert cache.size == size - 999
    cache.put(("t99", "c"), "too large now", 30_000)
    assert cache.get(("t99", "c")) is None
    cache.put(("t99", "d"), "another", 1)
    for n in range(100):
        cache.forget(f"t{n}")
    assert cache.get(("t99", "d")) is None
    assert cache.size == 0
