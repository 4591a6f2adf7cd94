"""What is held of checkpoints that passed through: right, whole or known not to be, and bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.cache import OVERHEAD
from petal.checkpoints.codec import Codec
from petal.checkpoints.envelope import Envelope
from petal.checkpoints.header import Outline
from petal.checkpoints.recall import Recall
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.values import Items, Spot, Version, Whole

PLACE = Namespace("t", "")


def recall(limit: int) -> Recall:
    return Recall(Rows(Codec(Allowlist()), Envelope()), limit)


def version(row: str, parts: Whole | Items) -> Version:
    return Version(Spot(row, row), parts, 1, parts.size)


def outline(id: str, spots: dict[str, Spot]) -> Outline:
    return Outline(id, "name of " + id, spots, dict.fromkeys(spots, "1"), b"header", b"metadata")


steps = st.lists(st.dictionaries(st.sampled_from("abc"), st.tuples(st.sampled_from("xyz"), st.integers(0, 3000))))


@given(steps)
def test_of_the_values_those_are_held_that_the_last_checkpoint_has(steps: list[dict[str, tuple[str, int]]]) -> None:
    """Some are new in a save, some stay, some go; what they weigh is added up right."""
    held = recall(100_000)
    last: dict[str, Version] = {}
    for number, channels in enumerate(steps):
        made = {name: version(f"{number}{row}", Whole(b"x" * size)) for name, (row, size) in channels.items()}
        kept = {name: one for name, one in last.items() if number % 3 or name == "a"}
        last = {**kept, **made}
        held.remember(PLACE, outline(str(number), {name: one.spot for name, one in last.items()}), made)
        found = held.at_hand(PLACE)
        assert found is not None
        assert (found.outline.id, found.versions, found.is_whole) == (str(number), last, True)
        assert found.weight == sum(one.parts.weight + OVERHEAD for one in last.values())
        assert found.size == sum(one.parts.size for one in last.values())
    held.forget("t")
    assert held.size == 0


def test_what_was_not_seen_of_a_checkpoint_is_not_at_hand() -> None:
    held = recall(100_000)
    spots = {"a": Spot("1", "1"), "b": Spot("2", "2")}
    held.remember(PLACE, outline("1", spots), {"a": version("1", Whole(b"x"))})
    assert held.at_hand(PLACE) is None
    held.remember(PLACE, outline("2", spots), {"b": version("2", Whole(b"x"))})
    assert held.at_hand(PLACE) is not None
    held.remember(PLACE, outline("3", {**spots, "a": Spot("3", "3")}), {})
    assert held.at_hand(PLACE) is None


def test_of_values_too_large_to_hold_the_outline_stays() -> None:
    """So that the next save need not read it."""
    held = recall(20_000)
    large = version("1", Items((b"x" * 18_000,), 18_000))
    held.remember(PLACE, outline("1", {"a": large.spot, "b": large.spot}), {"a": large})
    assert held.at_hand(PLACE) is None
    assert 0 < held.size < 5_000
    checkpoint = {"channel_values": {"b": 1}}
    assert held.known(PLACE, "1", checkpoint, {"b": "2"}) is not None  # type: ignore[arg-type]
    checkpoint = {"channel_values": {"a": []}}
    assert held.known(PLACE, "1", checkpoint, {"a": "2"}) is None  # type: ignore[arg-type]


def test_it_is_bounded_however_many_threads_there_are() -> None:
    held = recall(50_000)
    for number in range(1_000):
        made = {"a": version("1", Whole(b"x" * (number % 900)))}
        held.remember(Namespace(f"thread {number}", ""), outline("1", {"a": Spot("1", "1")}), made)
        assert held.size <= 50_000
    assert held.at_hand(Namespace("thread 999", "")) is not None
    assert held.at_hand(Namespace("thread 1", "")) is None
