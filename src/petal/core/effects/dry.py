"""Dry runs: what was done before answers for what would be done again.

An effect of another checkpoint stands for one of now if its node, name and arguments are the same. The newest other
line of the thread comes first, and on a line each record answers once, in order. A fork begins with what was done on
the thread it was forked from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from petal.checkpoints.lines import aoutlines
from petal.checkpoints.notes import EFFECT, Note, anotes, aput_note, notes
from petal.checkpoints.threads import TWIN_OF, CheckpointInfo
from petal.core.effects.records import DONE, ORIGIN, Effect, Identity, effects
from petal.core.effects.task import Task

_PAGE = 500

_claimed: WeakKeyDictionary[BaseCheckpointSaver[Any], dict[tuple[str, str], set[str]]] = WeakKeyDictionary()
"""Of running dry runs, by thread and checkpoint, which records were used that may not be told of on disk yet."""
_claiming = threading.Lock()
_MOST_CLAIMS = 1000
"""Checkpoints of dry runs for which that is known; older ones are surely told of on disk."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a thread tells: its effects, and how its checkpoints follow on each other."""

    effects: Sequence[Effect]
    known: Mapping[str, CheckpointInfo]

    def way(self, checkpoint_id: str) -> list[str]:
        """A checkpoint and those before it, newest first; a rewind goes on from what it repeats."""
        way: list[str] = []
        at: str | None = checkpoint_id
        while at is not None and at in self.known and at not in way:
            way.append(at)
            at = before(self.known[at])
        return way

    def lines(self) -> Iterator[list[str]]:
        """The ways on which steps ran, newest first, each in order: of each its checkpoints from which it went on."""
        going_on = {info.parent_id for info in self.known.values() if not begins_anew(info)}
        for end in sorted((id for id in self.known if id not in going_on), reverse=True):
            way = self.way(end)
            left = [id for after, id in pairwise(way) if not begins_anew(self.known[after])]
            yield [*reversed(left), end]


Records = Sequence[Past]
"""Of the thread, and of those it was forked from, nearest first."""


def begins_anew(info: CheckpointInfo) -> bool:
    """Whether a checkpoint parts from the one before it: a replay, an edit, a rewind, rather than the next step."""
    return TWIN_OF in info.metadata or info.metadata.get("source") in ("fork", "update")


def before(info: CheckpointInfo) -> str | None:
    """The checkpoint that another one came of."""
    return info.metadata.get(TWIN_OF) or info.parent_id


def choose(task: Task, identity: Identity, told: str, records: Records) -> Effect | None:
    """The record that answers for an effect, which then answers for no other of this run; None if there is none."""
    assert task.saver is not None, "a run that keeps nothing has no records"
    with _claiming:
        own = records[0]
        way = own.way(task.root)
        claims = _claimed.setdefault(task.saver, {})
        used = claims.setdefault((task.thread_id, task.root), set())
        if len(claims) > _MOST_CLAIMS:
            del claims[next(iter(claims))]
        used |= {one.origin for one in own.effects if one.begun["replayed"] and one.begun["root"] in way}
        for source in _candidates(task, identity, told, records, way):
            if source.origin not in used:
                used.add(source.origin)
                return source
    return None


def _candidates(task: Task, identity: Identity, told: str, records: Records, way: Sequence[str]) -> Iterator[Effect]:
    for past in records:
        alike: dict[str, list[Effect]] = {}
        for one in past.effects:
            if one.status == DONE and _is_like(one, task, identity, told):
                alike.setdefault(one.begun["root"], []).append(one)
        passed = {id for after, id in pairwise(way) if after in past.known and not begins_anew(past.known[after])}
        for line in past.lines():
            for root in line:
                if root not in passed:
                    yield from sorted(alike.get(root, ()), key=lambda one: one.begun["place"] != task.place)


def _is_like(one: Effect, task: Task, identity: Identity, told: str) -> bool:
    return (one.identity.kind, one.identity.name, one.begun["node"], one.begun["told"]) == (
        identity.kind,
        identity.name,
        task.node,
        told,
    )


def read_records(task: Task) -> Records:
    """All that may answer for effects of a task."""
    assert task.saver is not None, "a run that keeps nothing has no records"
    found: list[Past] = []
    thread_ids = [task.thread_id]
    for thread_id in thread_ids:
        told = notes(task.saver, thread_id, EFFECT)
        found.append(_past(told, _outlines(task.saver, thread_id)))
        thread_ids += [id for id in _origins(told) if id not in thread_ids]
    return found


async def aread_records(task: Task) -> Records:
    """As `read_records`."""
    assert task.saver is not None, "a run that keeps nothing has no records"
    found: list[Past] = []
    thread_ids = [task.thread_id]
    for thread_id in thread_ids:
        told = await anotes(task.saver, thread_id, EFFECT)
        found.append(_past(told, await aoutlines(task.saver, thread_id)))
        thread_ids += [id for id in _origins(told) if id not in thread_ids]
    return found


async def anote_origin(saver: BaseCheckpointSaver[Any], source: str, target: str, checkpoint_id: str) -> None:
    """Note on a fork the thread it was forked from, so that dry runs of it find what was done there.

    Args:
        saver: Keeps both.
        source: The thread that was forked.
        target: The fork.
        checkpoint_id: The newest checkpoint of the fork.
    """
    config: RunnableConfig = {
        "configurable": {"thread_id": target, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
    }
    said = {"word": ORIGIN, "thread_id": source, "time": datetime.now(UTC).isoformat()}
    await aput_note(saver, config, EFFECT, said, f"{ORIGIN}/{source}")


def _past(told: Sequence[Note], outlines: Sequence[CheckpointInfo]) -> Past:
    return Past(effects(told), {info.checkpoint_id: info for info in outlines})


def _origins(told: Sequence[Note]) -> list[str]:
    """The threads that a thread was forked from, nearest first."""
    said = [note.value for note in told if note.value["word"] == ORIGIN]
    return [one["thread_id"] for one in sorted(said, key=lambda one: str(one["time"]), reverse=True)]


def _outlines(saver: BaseCheckpointSaver[Any], thread_id: str) -> list[CheckpointInfo]:
    """As `petal.checkpoints.lines.aoutlines`, of the root namespace, for a caller that may not wait for a loop."""
    found: list[CheckpointInfo] = []
    if (pages := getattr(saver, "checkpoints", None)) is not None:
        while True:
            page = pages(thread_id, _PAGE, found[-1] if found else None)
            found += page
            if len(page) < _PAGE:
                return found
    for kept in saver.list({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}):
        parent = (kept.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        found.append(
            CheckpointInfo(thread_id, "", kept.checkpoint["id"], parent, kept.checkpoint["ts"], kept.metadata, ())
        )
    return found
