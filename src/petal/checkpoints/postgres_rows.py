"""Saves as columns: what one statement takes to write the rows of many saves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from petal.checkpoints.records import (
    Beat,
    CheckpointRow,
    Claim,
    Release,
    Save,
    StaleSave,
    Status,
    ValueRow,
    WriteRow,
)

UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of what does not tell its time."""

Column = list[Any]
Key = tuple[str | int, ...]

_CHECKPOINT = attrgetter("thread_id", "ns", "id", "parent_id", "source", "step", "run_id", "header", "metadata", "name")
_CLAIM = attrgetter("thread_id", "owner", "process", "run_id", "is_urgent")
_WRITE = attrgetter("thread_id", "ns", "checkpoint_id", "task_id", "idx", "channel", "task_path", "data")


@dataclass(slots=True)
class _Entry:
    """What a group of saves changes in the index entry of one thread."""

    created: datetime
    updated: datetime
    head: str = ""
    status: Status | None = None
    told: str = ""


@dataclass(slots=True)
class Batch:
    """The rows of some saves, each key once, as the last save has it; an ordinary write as the first one has it."""

    checkpoints: dict[Key, CheckpointRow] = field(default_factory=dict)
    values: dict[Key, ValueRow] = field(default_factory=dict)
    writes: dict[Key, WriteRow] = field(default_factory=dict)
    leaning: dict[Key, str | None] = field(default_factory=dict)
    """The name of the save that the parent of each checkpoint must be of, if any."""
    fenced: dict[Key, bool] = field(default_factory=dict)
    """Whether each checkpoint must follow on the newest one."""
    leases: dict[tuple[str, str], None] = field(default_factory=dict)
    """(thread, owner) of the claims that must hold their threads."""
    claims: list[Claim] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    beats: list[Beat] = field(default_factory=list)
    _entries: dict[str, _Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, saves: Iterable[Save]) -> Batch:
        batch = cls()
        for save in saves:
            batch._add(save)
        return batch

    @property
    def threads(self) -> list[str]:
        """The threads it changes, in the order in which all lock them."""
        return sorted(self._entries)

    @property
    def has_turns(self) -> bool:
        """Whether it changes who has which thread."""
        return bool(self.claims or self.releases or self.beats)

    @property
    def turning(self) -> list[str]:
        """The threads of which it changes who has them, in the order in which all lock them."""
        return sorted({claim.thread_id for claim in self.claims} | {release.thread_id for release in self.releases})

    @property
    def turns(self) -> list[Column]:
        """What `petal_take_turns` takes after the locks' keys."""
        return [
            *_columns(3, ((turn.thread_id, turn.owner, turn.input_id) for turn in self.releases)),
            *_columns(5, (_CLAIM(turn) for turn in self.claims)),
            *_columns(2, ((turn.process, turn.seconds) for turn in self.beats)),
        ]

    @property
    def parameters(self) -> list[Column]:
        """What `petal_save` takes after the locks' keys."""
        entries = [self._entries[thread] for thread in self.threads]
        return [
            self.threads,
            [entry.head for entry in entries],
            [entry.status for entry in entries],
            [entry.told for entry in entries],
            [entry.created for entry in entries],
            [entry.updated for entry in entries],
            *_columns(10, (_CHECKPOINT(self.checkpoints[key]) for key in sorted(self.checkpoints))),
            [self.leaning[key] for key in sorted(self.checkpoints)],
            [self.fenced[key] for key in sorted(self.checkpoints)],
            *_columns(4, ((*key, label) for key, row in self.checkpoints.items() for label in set(row.labels))),
            *_columns(6, (_value(self.values[key]) for key in sorted(self.values))),
            *_columns(8, (_WRITE(self.writes[key]) for key in sorted(self.writes))),
            *_columns(2, self.leases),
        ]

    def _add(self, save: Save) -> None:
        now = datetime.fromisoformat(save.now) if save.now else datetime.now(UTC)
        match save.turn:
            case Claim():
                self.claims.append(save.turn)
            case Release():
                self.releases.append(save.turn)
            case Beat():
                self.beats.append(save.turn)
        if save.lease is not None:
            thread_id = save.checkpoint.thread_id if save.checkpoint is not None else save.writes[0].thread_id
            if any(release.owner == save.lease for release in self.releases):
                raise StaleSave(lost=True)
            self.leases[thread_id, save.lease] = None
        if (row := save.checkpoint) is not None:
            entry = self._entry(row.thread_id, now, save)
            if row.ns == "" and row.id > entry.head:
                entry.head = row.id
            key = row.thread_id, row.ns, row.id
            self.checkpoints[key] = row
            self.leaning[key] = save.leans
            self.fenced[key] = save.fenced
        for value in save.values:
            self._entry(value.thread_id, now, save)
            self.values[value.thread_id, value.ns, value.channel, value.version] = value
        for write in save.writes:
            self._entry(write.thread_id, now, save)
            place = (write.checkpoint_id, write.thread_id, write.ns, write.task_id, write.idx)
            if write.idx < 0:
                self.writes[place] = write
            else:
                self.writes.setdefault(place, write)

    def _entry(self, thread_id: str, now: datetime, save: Save) -> _Entry:
        entry = self._entries.get(thread_id)
        if entry is None:
            entry = self._entries[thread_id] = _Entry(now, now)
        entry.updated = max(entry.updated, now)
        if save.status is not None and save.told >= entry.told:
            entry.status, entry.told = save.status, save.told
        return entry


def _value(row: ValueRow) -> tuple[Any, ...]:
    # Most values are wholes, which need no place in the index of chains.
    root = None if row.root == row.version else row.root
    return row.thread_id, row.ns, row.channel, row.version, root, row.data


def _columns(width: int, rows: Iterable[tuple[Any, ...]]) -> list[Column]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]
