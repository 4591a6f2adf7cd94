"""What a retention policy deletes: its rules one by one, and what always stays whatever they say."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petal.checkpoints.retention import Point, leaves, may_concern, outdated, states_at
from petal.checkpoints.threads import ThreadInfo
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.config.retention import Retention, seconds
from petal.errors import CheckpointerConfigurationError

NOW = datetime(2026, 1, 31, tzinfo=UTC)
Key = tuple[str, str]


def line(*ids: int, ns: str = "", root: int | None = None) -> list[Point]:
    """Checkpoints after one another, each made as many days before now as 30 is above its number."""
    return [
        Point(ns, f"{id:02}", f"{before:02}" if before else None, None if root is None else f"{root:02}", day(id))
        for before, id in zip((0, *ids), ids, strict=False)
    ]


def day(id: int) -> datetime:
    return NOW - timedelta(days=30 - id)


def gone(
    points: list[Point],
    policy: Retention | None = None,
    *,
    sizes: Mapping[Key, int] | None = None,
    ancestors: Mapping[Key, Collection[Key]] | None = None,
    **rules: Any,
) -> list[str]:
    """The ids of what goes, or with the namespace where that is not the root."""
    counted: set[Key] = set()

    def added(keys: Collection[Key]) -> int:
        new = set(keys) - counted
        counted.update(new)
        return sum((sizes or {}).get(key, 10) for key in new)

    doomed = outdated(
        points,
        policy or Retention(**rules),
        NOW,
        rebuilt_from=lambda key: (ancestors or {}).get(key, ()),
        added=added,
    )
    return [f"{ns}/{id}".lstrip("/") for ns, id in sorted(doomed)]


def test_without_rules_all_stays() -> None:
    assert gone(line(1, 2, 3)) == gone([], keep_last=1) == gone([], max_idle=1) == []
    assert Retention(keep=("01",)).is_empty
    assert not Retention(max_bytes=1).is_empty


def test_the_last_ones_are_kept_of_each_namespace() -> None:
    points = [*line(1, 2, 3), *line(4, 5, 6, ns="sub", root=9)]
    assert gone(points, keep_last=2) == ["01", "sub/04"]
    assert gone(points, keep_last=3) == []


def test_old_ones_go_but_not_the_newest() -> None:
    assert gone(line(10, 20, 25), max_age="10d") == ["10"]
    assert gone(line(10, 20, 25), max_age="1d") == ["10", "20"]
    assert gone([replace(point, made=None) for point in line(1, 2)], max_age=1) == []


def test_one_rule_is_enough() -> None:
    assert gone(line(1, 2, 28, 29, 30), keep_last=4, max_age="10d") == ["01", "02"]
    assert gone(line(1, 2, 28, 29, 30), keep_last=2, max_age="10d") == ["01", "02", "28"]


def test_an_idle_thread_goes_whole() -> None:
    assert gone(line(1, 2), max_idle="20d") == ["01", "02"]
    assert gone(line(1, 20), max_idle="20d") == []
    asking = [*line(1), replace(*line(2), asks=True)]
    assert gone(asking, max_idle="20d") == []
    assert gone(line(1, 2), max_idle="20d", keep=["01"]) == []
    assert gone([*line(1), replace(*line(2), made=None)], max_idle="20d") == []


def test_the_oldest_go_until_it_fits() -> None:
    assert gone(line(1, 2, 3, 4), max_bytes=40) == []
    assert gone(line(1, 2, 3, 4), max_bytes=39) == ["01"]
    assert gone(line(1, 2, 3, 4), max_bytes=20) == ["01", "02"]
    assert gone(line(1, 2, 3, 4), max_bytes=1) == ["01", "02", "03"]
    # What does not fit ends it, though an older one still would: there are no gaps.
    assert gone(line(1, 2, 3), max_bytes=25, sizes={("", "02"): 100}) == ["01", "02"]


def test_pins_and_open_questions_stay() -> None:
    points = line(1, 2, 3, 4)
    points[1] = replace(points[1], asks=True)
    assert gone(points, keep_last=1) == ["01", "03"]
    assert gone(points, keep_last=1, keep=["03"]) == ["01"]
    assert gone(points, max_bytes=1, keep=["03"]) == ["01"]


def test_delta_channels_keep_their_ancestors() -> None:
    chain = {("", "04"): [("", "03"), ("", "02")]}
    assert gone(line(1, 2, 3, 4), keep_last=1, ancestors=chain) == ["01"]
    assert gone(line(1, 2, 3, 4, 5), max_bytes=35, ancestors=chain) == ["01", "02", "03", "04"]
    assert gone(line(1, 2, 3, 4, 5), max_bytes=40, ancestors=chain) == ["01"]


def test_a_subgraph_call_goes_with_its_root_checkpoint() -> None:
    points = [*line(1, 4, 7), *line(2, 3, ns="sub:a", root=1), *line(5, 6, ns="sub:b", root=4)]
    assert gone(points, keep_last=1) == ["01", "04", "sub:a/02", "sub:a/03", "sub:b/05", "sub:b/06"]
    assert gone(points, keep_last=2) == ["01", "sub:a/02", "sub:a/03"]
    assert gone(points, max_age="10d", keep=["04"]) == ["01", "sub:a/02", "sub:a/03", "sub:b/05"]
    assert gone(points, max_bytes=30) == ["01", "sub:a/02", "sub:a/03", "sub:b/05"]
    # What is named in a call keeps the root checkpoint too, for it is reached through that.
    assert gone(points, keep_last=1, keep=["02"]) == ["04", "sub:b/05", "sub:b/06"]


def test_a_call_whose_root_checkpoint_is_not_there_stands_for_itself() -> None:
    """A subgraph may be saved before the checkpoint that it was called at."""
    points = [*line(1, 2), *line(3, 4, ns="sub:a", root=9)]
    assert gone(points, keep_last=1) == ["01", "sub:a/03"]


def test_the_state_of_a_subgraph_stays_for_each_root_checkpoint_that_does() -> None:
    called = [
        Point("sub", "02", None, "01", day(2)),
        Point("sub", "04", "02", "03", day(4)),
        Point("sub", "06", "04", "05", day(6)),
    ]
    points = [*line(1, 3, 5, 7), *called]
    assert gone(points, keep_last=1) == ["01", "03", "05", "sub/02", "sub/04"]
    # Both what its call was begun with, and what that made of it.
    assert gone(points, keep_last=1, keep=["03"]) == ["01", "05"]
    # Of a branch, that of its own way; and that stays also when the way to it was deleted.
    branch = [*points, Point("", "08", "03", None, day(8))]
    assert gone(branch, keep_last=1) == ["01", "03", "05", "07", "sub/02"]
    assert gone([Point("", "08", None, None, day(8)), called[1], called[2]], keep_last=1) == []
    assert gone([Point("", "05", None, None, day(8)), called[1], called[2]], keep_last=1) == []


def test_leaves_are_what_nothing_follows() -> None:
    points = [*line(1, 4), Point("", "05", "01"), *line(2, 3, ns="sub:a", root=1), *line(6, 7, ns="sub")]
    assert [point.key for point in leaves(points)] == [("", "04"), ("", "05"), ("sub", "07")]


def test_the_index_of_threads_tells_what_need_not_be_looked_at() -> None:
    thread = ThreadInfo("t", 3, day(20), "03", "done", 100)
    for policy, concerned in [
        (Retention(), False),
        (Retention(keep_last=3), False),
        (Retention(keep_last=2), True),
        (Retention(keep_last=2, keep=("t",)), False),
        (Retention(max_age=1), True),
        (Retention(max_bytes=100), False),
        (Retention(max_bytes=99), True),
        (Retention(max_idle="11d"), False),
        (Retention(max_idle="9d"), True),
    ]:
        assert may_concern(policy, thread, NOW) == concerned, policy
    assert not may_concern(Retention(max_age=1), replace(thread, checkpoints=1), NOW)
    assert not may_concern(Retention(max_idle=1, max_bytes=1), replace(thread, updated=None, size=None), NOW)


@pytest.mark.parametrize(
    ("duration", "meant"),
    [("90s", 90), ("1.5m", 90), (" 2 h ", 7_200), ("30d", 2_592_000), ("2w", 1_209_600), (60, 60), (0.5, 0.5)],
)
def test_durations(duration: float | str, meant: float) -> None:
    assert seconds(duration) == meant
    assert Retention(max_age=duration) == Retention(max_age=meant)


@pytest.mark.parametrize("duration", ["", "soon", "30", "1y", "-1d", "0d", 0, -1, math.inf, math.nan])
def test_what_is_no_duration_is_refused(duration: float | str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(duration)
    with pytest.raises(CheckpointerConfigurationError, match=r"^Retention's max_idle: .*duration"):
        Retention(max_idle=duration)


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        (
            {"keep_lost": 1},
            "Retention has no rule 'keep_lost'. Did you mean 'keep_last'? "
            "Known: keep_last, max_age, max_idle, max_bytes, keep.",
        ),
        ({"keep_last": 0}, "Retention's keep_last: Input should be greater than or equal to 1."),
        ({"max_age": []}, "Retention's max_age: Input should be a valid number."),
    ],
)
def test_what_is_no_rule_is_refused(rules: dict[str, Any], problem: str) -> None:
    with pytest.raises(CheckpointerConfigurationError) as direct:
        Retention(**rules)
    assert str(direct.value) == problem
    with pytest.raises(CheckpointerConfigurationError) as within:
        CheckpointerConfig(config={"retention": rules})
    assert str(within.value) == f"memory checkpointer config: retention: {problem}"


def test_it_is_an_option_of_petals_own_engine() -> None:
    config = CheckpointerConfig(config={"retention": {"keep_last": 3, "max_age": "30d"}})
    assert config.options.retention == Retention(keep_last=3, max_age=2_592_000)
    with pytest.raises(CheckpointerConfigurationError, match="retention is an option of Petal's own engine"):
        CheckpointerConfig(config={"retention": {"keep_last": 3}, "engine": "langgraph"})


@st.composite
def threads(draw: st.DrawFn) -> tuple[list[Point], dict[Key, list[Key]]]:
    """A tree of root checkpoints, subgraph calls and subgraphs with a state, and what delta channels need."""
    points: list[Point] = []
    for number in range(draw(st.integers(0, 14))):
        roots = [point.id for point in points if not point.ns]
        root = draw(st.sampled_from(roots)) if roots else None
        ns = draw(st.sampled_from(["", "", "own", f"call:{root}"])) if root else ""
        earlier = [point.id for point in points if point.ns == ns]
        parent = draw(st.none() | st.sampled_from(earlier)) if earlier else None
        made = draw(st.none() | st.integers(0, 60).map(day))
        points.append(Point(ns, f"{number:02}", parent, root if ns else None, made))
    ancestors: dict[Key, list[Key]] = {}
    for point in points:
        way, at = [], point
        while draw(st.booleans()) and at.parent is not None:
            at = next(other for other in points if other.key == (at.ns, at.parent))
            way.append(at.key)
        ancestors[point.key] = way
    asking = draw(st.sets(st.sampled_from([point.key for point in leaves(points)]))) if points else set()
    return [replace(point, asks=point.key in asking) for point in points], ancestors


POLICIES = st.builds(
    Retention,
    keep_last=st.none() | st.integers(1, 4),
    max_age=st.none() | st.sampled_from(["1d", "10d", "25d"]),
    max_bytes=st.none() | st.integers(1, 150),
    keep=st.sets(st.integers(0, 14).map("{:02}".format), max_size=2).map(tuple),
)


@given(threads(), POLICIES)
def test_what_is_needed_always_stays(thread: tuple[list[Point], dict[Key, list[Key]]], policy: Retention) -> None:
    points, ancestors = thread
    counted: set[Key] = set()

    def added(keys: Collection[Key]) -> int:
        new = set(keys) - counted
        counted.update(new)
        return 10 * len(new)

    def of(rows: list[Point]) -> set[Key]:
        counted.clear()
        return outdated(rows, policy, NOW, rebuilt_from=lambda key: ancestors[key], added=added)

    known = {point.key: point for point in points}
    doomed = of(points)
    kept = known.keys() - doomed
    assert doomed <= known.keys()
    for ns in ("", "own"):
        line = [point for point in points if point.ns == ns]
        assert not line or line[-1].key in kept
    for point in points:
        if point.asks or point.id in policy.keep:
            assert point.key in kept
            assert point.root is None or ":" not in point.ns or ("", point.root) in kept
    needed = {key for key in kept if known[key].asks or key[1] in policy.keep}
    for key in needed:
        assert kept >= set(ancestors[key])
        if key[0] == "":
            for ns in {point.ns for point in points if point.root == key[1]}:
                newest = [point.key for point in points if point.ns == ns and point.root == key[1]][-1]
                assert newest in kept
                assert kept >= set(ancestors[newest])
    # Each kept root checkpoint that is not merely an ancestor has its calls; none outlives its root checkpoint.
    for ns, id in kept:
        if ":" in ns:
            assert ("", known[ns, id].root) in kept
    # Doing it again deletes nothing more: nothing that stays had leaned on what went.
    rest = [replace(point, parent=_kept_parent(point, kept)) for point in points if point.key in kept]
    assert of(rest) == set()


def _kept_parent(point: Point, kept: Collection[Key]) -> str | None:
    return point.parent if (point.ns, point.parent) in kept else None


@given(threads(), st.integers(1, 150))
def test_it_fits_or_nothing_more_can_go(thread: tuple[list[Point], dict[Key, list[Key]]], limit: int) -> None:
    points, ancestors = thread
    sizes = {point.key: 10 for point in points}
    least = gone(points, max_bytes=1, sizes=sizes, ancestors=ancestors)
    went = gone(points, max_bytes=limit, sizes=sizes, ancestors=ancestors)
    assert set(went) <= set(least)
    assert 10 * (len(points) - len(went)) <= limit or went == least


def test_a_run_that_replays_a_checkpoint_begins_as_that_began() -> None:
    """What a subgraph had reached there is not on its way; it is on that of a fork that was made behind it."""
    called = [Point("", "01", None, None, source="loop", step=0), Point("own", "02", None, "01", source="loop")]
    forks = [Point("", f"{id:02}", "01", None, source="fork", step=step) for id, step in ((3, 1), (4, 5), (5, None))]
    assert [states_at([*called, *forks], fork.id) for fork in forks] == [{}, {"own": "02"}, {"own": "02"}]


def test_a_call_of_which_the_beginning_is_gone_is_not_where_it_began() -> None:
    """Then a subgraph stands as before it, unless a rewind had it begin there."""
    before = [Point("", "1"), Point("sub", "2", None, "1", source="input"), Point("", "3", "1", source="loop")]
    called, after = Point("sub", "4", None, "3", source="loop"), Point("", "5", "3", source="loop")
    assert states_at([*before, called, after], "3") == {"sub": "2"}
    assert states_at([*before, called, after], "3", as_far=True) == {"sub": "4"}
    assert states_at([*before, replace(called, twin=True), after], "3") == {"sub": "4"}
