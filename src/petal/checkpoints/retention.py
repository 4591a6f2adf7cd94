"""Which checkpoints of a thread a policy deletes, decided from what is known of them without their values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any

from petal.checkpoints.langgraph.dialect import Key
from petal.checkpoints.threads import TWIN_OF, ThreadInfo
from petal.core.config.retention import Retention, seconds


@dataclass(frozen=True, slots=True)
class PrunedThread:
    """What of a thread a policy deletes."""

    thread_id: str
    checkpoints: tuple[Key, ...]
    """(namespace, id) of each checkpoint that goes, newest first."""
    bytes: int
    """What they took, as `threads()` counts it."""
    whole: bool
    """Whether nothing is left of the thread."""


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What a policy deletes, or for a dry run would."""

    threads: tuple[PrunedThread, ...]
    """Those of which something goes."""
    damaged: tuple[tuple[str, str], ...]
    """(thread_id, problem) of each thread that could not be read. All of it stays."""
    dry_run: bool

    @property
    def checkpoints(self) -> int:
        """How many checkpoints go."""
        return sum(len(thread.checkpoints) for thread in self.threads)

    @property
    def bytes(self) -> int:
        """What they took."""
        return sum(thread.bytes for thread in self.threads)


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint, as far as a policy looks at it."""

    ns: str
    id: str
    parent: str | None = None
    root: str | None = None
    """Of a subgraph's checkpoint: that of the root graph at which the subgraph was called."""
    made: datetime | None = None
    asks: bool = False
    """Whether an answer is awaited in it, and nothing follows it."""
    named: bool = False
    """Whether a branch has its name here."""
    given: bool = False
    """Whether somebody gave it such a name, rather than a rewind by itself."""
    source: str = ""
    step: int | None = None
    twin: bool = False
    """Whether a rewind made it."""

    @classmethod
    def of(cls, ns: str, id: str, parent: str | None, metadata: Mapping[str, Any]) -> Point:
        """A checkpoint as its metadata tells of it."""
        root = (metadata.get("parents") or {}).get("") if ns else None
        source, step = metadata.get("source") or "", metadata.get("step")
        return cls(ns, id, parent, root, source=source, step=step, twin=TWIN_OF in metadata)

    @property
    def key(self) -> Key:
        return self.ns, self.id


def may_concern(policy: Retention, thread: ThreadInfo, now: datetime) -> bool:
    """Whether a policy may delete something of a thread, as far as the index of threads tells."""
    return thread.thread_id not in policy.keep and (
        (policy.keep_last is not None and thread.checkpoints > policy.keep_last)
        or (policy.max_age is not None and thread.checkpoints > 1)
        or (policy.max_bytes is not None and (thread.size or 0) > policy.max_bytes)
        or (policy.max_idle is not None and _is_older(thread.updated, policy.max_idle, now))
    )


def outdated(
    points: Sequence[Point],
    policy: Retention,
    now: datetime,
    *,
    rebuilt_from: Callable[[Key], Collection[Key]],
    added: Callable[[Collection[Key]], int],
) -> set[Key]:
    """The checkpoints of a thread that a policy deletes.

    Args:
        points: All checkpoints of the thread.
        policy: The policy.
        now: The time, in UTC.
        rebuilt_from: The ancestors that the delta channels of a checkpoint are rebuilt from.
        added: The bytes that some checkpoints take beside those it was asked of before.
    """
    lines = _Lines(points)
    held = [point for point in points if lines.is_head(point) or _is_held(point, policy)]
    if policy.max_idle is not None and not any(_is_held_idle(point, policy) for point in points):
        idle = [_is_older(point.made, policy.max_idle, now) for point in points]
        if all(idle):
            return set(lines.known)

    def wanted(point: Point) -> set[Key]:
        keys = {point.key, *lines.states_at(point)}
        return keys.union(*(rebuilt_from(key) for key in keys))

    kept = set[Key]().union(*(wanted(point) for point in lines.with_roots(held)))
    chosen = {point.key for point in lines.with_roots(held)}
    size = added(kept) if policy.max_bytes is not None else 0
    allowed = _allowed(points, policy, now)
    for point in lines.newest_first():
        if point.key in chosen or point.key not in allowed:
            continue
        if (call := lines.call_of(point)) is not None and call not in chosen:
            continue
        more = wanted(point) - kept
        if policy.max_bytes is not None and (size := size + added(more)) > policy.max_bytes:
            break
        kept |= more
        chosen.add(point.key)
    return lines.known.keys() - kept


def needed_by(points: Sequence[Point], ids: Collection[str]) -> set[Key]:
    """Some root checkpoints, and what subgraphs need to run on from them."""
    lines = _Lines(points)
    held = [point for point in points if not point.ns and point.id in ids]
    return {key for point in held for key in (point.key, *lines.states_at(point))}


def states_at(points: Sequence[Point], root: str, *, as_far: bool | None = None) -> dict[str, str]:
    """The checkpoints at which subgraphs that keep a state of their own stood at a root checkpoint, by namespace.

    Args:
        points: All checkpoints of the thread.
        root: The root checkpoint.
        as_far: Whether a subgraph that was called at it is taken as far as that call came, rather than as the call
            began; default: if nothing follows.
    """
    found = _Lines(points).states_before(root)
    if as_far is None:
        as_far = not any(point.parent == root and not point.ns for point in points)
    called: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.id):
        if point.root == root and point.ns and ":" not in point.ns:
            called.setdefault(point.ns, []).append(point)
    for ns, (first, *later) in called.items():
        if as_far:
            found[ns] = max((later or [first])[-1].id, found.get(ns, ""))
        elif first.twin or first.source == "input":
            found[ns] = first.id
    return found


def leaves(points: Sequence[Point]) -> Iterator[Point]:
    """The checkpoints that nothing follows; of subgraph calls, which go with a root checkpoint, none."""
    lines = _Lines(points)
    followed = {(point.ns, point.parent) for point in points}
    return (point for point in points if point.key not in followed and lines.call_of(point) is None)


class _Lines:
    """How the checkpoints of a thread hang together.

    The namespace of one subgraph call, which has a `:` in its name, goes with the root checkpoint at which the call
    began. A subgraph that keeps a state of its own has one namespace for all calls.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.known: Mapping[Key, Point] = {point.key: point for point in points}
        self._ordered = sorted(points, key=lambda point: point.id)
        self._heads = {point.ns: point.key for point in self._ordered if self.call_of(point) is None}
        self._begun: dict[str, dict[str, Key]] = {}
        """By the id of a root checkpoint and namespace: the newest checkpoint of what was called at it."""
        for point in self._ordered:
            if point.ns and point.root is not None:
                self._begun.setdefault(point.root, {})[point.ns] = point.key
        self._ran = {point.parent for point in points if not point.ns and point.source == "loop"}
        self._before = dict(self._states_before())

    def is_head(self, point: Point) -> bool:
        """Whether it is the newest of a namespace that stands for itself."""
        return self._heads.get(point.ns) == point.key

    def call_of(self, point: Point) -> Key | None:
        """The root checkpoint that a checkpoint goes with."""
        if ":" not in point.ns or point.root is None or ("", point.root) not in self.known:
            return None
        return "", point.root

    def states_at(self, point: Point) -> Sequence[Key]:
        """What subgraphs need to run on from a root checkpoint, and to begin there anew."""
        if point.ns:
            return ()
        before = chain.from_iterable(self._before[point.id].values())
        return [*before, *self._begun.get(point.id, {}).values()]

    def states_before(self, root: str) -> dict[str, str]:
        """By namespace, the newest state on the way to a root checkpoint of each subgraph that keeps one."""
        return {ns: max(id for _, id in keys) for ns, keys in self._before[root].items() if keys}

    def with_roots(self, points: Iterable[Point]) -> Iterator[Point]:
        """Some checkpoints, and the root checkpoints that they go with."""
        for point in points:
            yield point
            if (call := self.call_of(point)) is not None:
                yield self.known[call]

    def newest_first(self) -> list[Point]:
        """All checkpoints, newest first; those of a subgraph call follow the root checkpoint at which it began."""

        def place(point: Point) -> tuple[str, bool, str]:
            call = self.call_of(point)
            return (point.id, True, "") if call is None else (call[1], False, point.id)

        return sorted(self._ordered, key=place, reverse=True)

    def _states_before(self) -> Iterator[tuple[str, dict[str, tuple[Key, ...]]]]:
        """For each root checkpoint, by namespace: the newest state on its way of each subgraph that keeps one.

        Where the way is gone, that may be any that was called at a checkpoint that is gone too.
        """
        before: dict[str, dict[str, tuple[Key, ...]]] = {}
        lost: dict[str, tuple[Key, ...]] = {}
        for point in sorted(self._ordered, key=_called):
            if point.ns:
                if ":" not in point.ns and ("", point.root) not in self.known:
                    lost[point.ns] = (*lost.get(point.ns, ()), point.key)
                continue
            if point.parent is None or (earlier := before.get(point.parent)) is None:
                before[point.id] = dict(lost)
            else:
                begun = self._begun.get(point.parent, {}) if self._went_through(point) else {}
                before[point.id] = earlier | {ns: (key,) for ns, key in begun.items() if ":" not in ns}
            yield point.id, before[point.id]

    def _went_through(self, point: Point) -> bool:
        """Whether what was called at the parent of a root checkpoint is on the way to it.

        A run that replays its parent begins as that began. What is changed or told there is beside what ran, if
        something did.
        """
        assert point.parent is not None
        if point.source == "fork":
            return point.step is None or point.step - 1 != self.known["", point.parent].step
        return point.source not in ("update", "input") or point.parent not in self._ran


def _called(point: Point) -> tuple[str, str]:
    """Orders checkpoints by when they began: those of subgraphs by the root checkpoint at which they were called."""
    return point.root if point.ns and point.root is not None else point.id, point.id


def _is_held(point: Point, policy: Retention) -> bool:
    return point.named or _is_held_idle(point, policy)


def _is_held_idle(point: Point, policy: Retention) -> bool:
    """Whether it also keeps a whole thread in which nothing happens any more."""
    return point.asks or point.given or point.id in policy.keep


def _allowed(points: Iterable[Point], policy: Retention, now: datetime) -> set[Key]:
    """The checkpoints that are neither too many nor too old."""
    by_namespace: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.id, reverse=True):
        by_namespace.setdefault(point.ns, []).append(point)
    return {
        point.key
        for line in by_namespace.values()
        for point in islice(line, policy.keep_last)
        if policy.max_age is None or not _is_older(point.made, policy.max_age, now)
    }


def _is_older(moment: datetime | None, duration: float | str, now: datetime) -> bool:
    return moment is not None and (now - moment).total_seconds() > seconds(duration)
