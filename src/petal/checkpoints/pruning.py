"""Applies a policy to what a storage holds: a thread at a time, first looked at, and changed if something goes."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from threading import Lock

from langgraph.checkpoint.serde.types import INTERRUPT

from petal.checkpoints.engine import Engine
from petal.checkpoints.header import Header
from petal.checkpoints.langgraph.dialect import Key
from petal.checkpoints.lineage import (
    Reach,
    checkpoints_of,
    drop,
    forget_inputs,
    headers_of,
    lineage_of,
    named_heads,
    points_of,
    rebuilt_from,
    time_of,
)
from petal.checkpoints.recall import Recall
from petal.checkpoints.records import CheckpointRow, Reader, Transaction, ValueRow
from petal.checkpoints.retention import Point, PrunedThread, RetentionReport, leaves, may_concern, outdated
from petal.checkpoints.rows import Rows
from petal.checkpoints.threads import ThreadInfo, ThreadQuery, made_at
from petal.core.config.retention import Retention
from petal.errors import CheckpointCorruptionError, CheckpointerUnavailableError

PACE = 1.0
"""Seconds between two threads that a saver looks at by itself."""
REST = 50
"""It rests so many times longer than it took to look at the last one."""
TASK = "retention"
"""What of several processes only one does at a time."""

_PAGE = 200

_log = logging.getLogger(__name__)


def prune_all(
    engine: Engine,
    rows: Rows,
    recall: Recall,
    policy: Retention,
    thread_ids: Sequence[str] | None,
    *,
    dry_run: bool,
) -> RetentionReport:
    """Apply a policy to threads, or to all of them, each in a transaction of its own."""
    now = datetime.now(UTC)
    pruned: list[PrunedThread] = []
    damaged: list[tuple[str, str]] = []
    for thread_id in _concerned(engine, policy, now) if thread_ids is None else dict.fromkeys(thread_ids):
        try:
            done = prune_thread(engine, rows, recall, policy, thread_id, now, dry_run=dry_run)
        except CheckpointCorruptionError as error:
            damaged.append((thread_id, str(error)))
        else:
            pruned += [] if done is None else [done]
    return RetentionReport(tuple(pruned), tuple(damaged), dry_run)


def prune_thread(
    engine: Engine,
    rows: Rows,
    recall: Recall,
    policy: Retention,
    thread_id: str,
    now: datetime,
    *,
    dry_run: bool = False,
    alone: bool = False,
) -> PrunedThread | None:
    """Apply a policy to a thread; None if nothing of it goes.

    Args:
        alone: Leave it if another process applies one on its own just now.
    """
    planned = engine.read(lambda reader: _judged(reader, rows, policy, thread_id, now)[0])
    if planned is None or dry_run:
        return planned
    done = engine.change(partial(_pruned, rows=rows, policy=policy, thread_id=thread_id, now=now, alone=alone))
    if done is not None and done.whole:
        recall.forget(thread_id)
    return done


class Upkeep:
    """Applies a policy to a storage by itself: after saves, now and then one thread, on a thread of its own.

    A save only ever waits for it as for any other transaction. An idle one keeps no process alive.

    Args:
        engine: The store in use.
        rows: Opens what the store gives.
        recall: What is told of threads that are gone.
        policy: The policy.

    Attributes:
        pace: Seconds between two threads at least.
    """

    def __init__(self, engine: Engine, rows: Rows, recall: Recall, policy: Retention) -> None:
        self.pace = PACE
        self._engine, self._rows, self._recall, self._policy = engine, rows, recall, policy
        self._lock = Lock()
        self._busy = False
        self._next = 0.0
        self._after: ThreadInfo | None = None
        self._waiting: deque[ThreadInfo] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="petal-retention")

    def saved(self) -> None:
        """Tell that something was saved; it never blocks."""
        if self._busy or time.monotonic() < self._next:
            return
        with self._lock:
            if self._busy:
                return
            self._busy = True
        try:
            self._thread.submit(self._act)
        except RuntimeError:  # it was closed, or the interpreter is ending
            self._next = math.inf
            self._busy = False

    def close(self) -> None:
        """Finish the thread at which it is, and take no other. Closing twice is fine."""
        self._thread.shutdown()

    def _act(self) -> None:
        begun = time.monotonic()
        try:
            self._look()
        except CheckpointerUnavailableError as error:
            _log.info("%s: nothing was pruned: %s", self._engine.store.where, error)
        except Exception as error:
            _log.warning("%s: a thread could not be pruned: %s", self._engine.store.where, error)
        finally:
            ended = time.monotonic()
            self._next = ended + max(self.pace, REST * (ended - begun))
            self._busy = False

    def _look(self) -> None:
        """Look at the next thread of the index that the policy may concern, or for one in the next page of it."""
        now = datetime.now(UTC)
        if not self._waiting:
            page = self._engine.read(lambda reader: reader.threads(ThreadQuery(_PAGE, self._after)))
            self._after = page[-1] if len(page) == _PAGE else None
            self._waiting.extend(info for info in page if may_concern(self._policy, info, now))
        if self._waiting:
            thread_id = self._waiting.popleft().thread_id
            prune_thread(self._engine, self._rows, self._recall, self._policy, thread_id, now, alone=True)


def _concerned(engine: Engine, policy: Retention, now: datetime) -> Iterator[str]:
    """The threads of which a policy may delete something."""
    after: ThreadInfo | None = None
    while page := engine.read(lambda reader, after=after: reader.threads(ThreadQuery(_PAGE, after))):  # type: ignore[misc]
        after = page[-1]
        yield from [info.thread_id for info in page if may_concern(policy, info, now)]


def _pruned(
    change: Transaction, rows: Rows, policy: Retention, thread_id: str, now: datetime, *, alone: bool
) -> PrunedThread | None:
    if alone and not change.claim(TASK):
        return None
    pruned, found = _judged(change, rows, policy, thread_id, now)
    if pruned is not None:
        if pruned.whole:
            change.delete_thread(thread_id)
        else:
            forget_inputs(change, rows, thread_id, [found[key] for key in pruned.checkpoints])
            drop(change, rows, thread_id, found, set(pruned.checkpoints))
    return pruned


def _judged(
    reader: Reader, rows: Rows, policy: Retention, thread_id: str, now: datetime
) -> tuple[PrunedThread | None, dict[Key, CheckpointRow]]:
    """What of a thread goes, and its checkpoints."""
    if policy.is_empty or thread_id in policy.keep:
        return None, {}
    found = {(row.ns, row.id): row for row in checkpoints_of(reader, thread_id)}
    known = {key: lineage_of(row, rows) for key, row in found.items()}
    header = headers_of(found, rows)
    scale = _Scale(reader, rows, thread_id, found, header)

    def made(key: Key) -> datetime | None:
        if (moment := made_at(key[1])) is None and (told := time_of(header(key))):
            return datetime.fromisoformat(told)
        return moment

    points = [replace(point, made=made(point.key)) for point in points_of(found, rows)]
    asking, names = _asking(reader, thread_id, leaves(points)), named_heads(reader, rows, thread_id)

    def judged(point: Point) -> Point:
        given = None if point.ns else names.get(point.id)
        return replace(point, asks=point.key in asking, named=given is not None, given=bool(given))

    doomed = outdated(
        [judged(point) for point in points],
        policy,
        now,
        rebuilt_from=lambda key: rebuilt_from([key], known, header),
        added=scale.counter(),
    )
    if not doomed:
        return None, found
    size = scale.counter()(found) - scale.counter()(found.keys() - doomed)
    gone = sorted(doomed, key=lambda key: (key[1], key[0]), reverse=True)
    return PrunedThread(thread_id, tuple(gone), size, whole=len(gone) == len(found)), found


def _asking(reader: Reader, thread_id: str, points: Iterable[Point]) -> set[Key]:
    """Those of some checkpoints in which an answer is awaited."""
    return {
        (ns, write.checkpoint_id)
        for ns, ids in _by_namespace(point.key for point in points).items()
        for write in reader.writes(thread_id, ns, ids)
        if write.channel == INTERRUPT
    }


def _by_namespace(keys: Iterable[Key]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for ns, id in keys:
        ids.setdefault(ns, []).append(id)
    return ids


class _Scale:
    """Weighs checkpoints of a thread with their writes, and the values that they are read from. It reads when asked."""

    def __init__(
        self,
        reader: Reader,
        rows: Rows,
        thread_id: str,
        found: Mapping[Key, CheckpointRow],
        header: Callable[[Key], Header],
    ) -> None:
        self._reader, self._rows, self._thread_id = reader, rows, thread_id
        self._found, self._header = found, header

    def counter(self) -> Callable[[Collection[Key]], int]:
        """Counts the bytes that some checkpoints take beside those it was asked of before."""
        reaches: dict[str, Reach] = {}
        counted: set[tuple[str, str, str]] = set()

        def added(keys: Collection[Key]) -> int:
            size = 0
            for key in keys:
                ns = key[0]
                if ns not in reaches:
                    reaches[ns] = Reach(self._values[ns], self._rows)
                size += self._own[key]
                for row in reaches[ns].add(self._header(key)):
                    if (ns, row.channel, row.version) not in counted:
                        counted.add((ns, row.channel, row.version))
                        size += len(row.data)
            return size

        return added

    @cached_property
    def _own(self) -> dict[Key, int]:
        """What each checkpoint takes without values."""
        own = {key: len(row.header) + len(row.metadata) for key, row in self._found.items()}
        for ns, ids in _by_namespace(self._found).items():
            for write in self._reader.writes(self._thread_id, ns, ids):
                own[ns, write.checkpoint_id] += len(write.data)
        return own

    @cached_property
    def _values(self) -> dict[str, list[ValueRow]]:
        """The values of each namespace."""
        roots: dict[str, dict[tuple[str, str], None]] = {}
        for key in self._found:
            spots = self._header(key).spots
            roots.setdefault(key[0], {}).update({(channel, spot.root): None for channel, spot in spots.items()})
        return {ns: self._reader.chains(self._thread_id, ns, list(wanted)) for ns, wanted in roots.items()}
