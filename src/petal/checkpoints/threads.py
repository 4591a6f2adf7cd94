"""What listings say about threads and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from petal.errors import ThreadIdRequiredError

TWIN_OF = "rewound_to"
"""In the metadata of a checkpoint that a rewind made: the one that it repeats."""
OF_INPUT = "of_input"
"""In the metadata of what a run saved whose input was kept before its first checkpoint: where that was."""

_GREGORIAN = datetime(1582, 10, 15, tzinfo=UTC)


def thread_named(id: object) -> str:
    """A thread's id as text, in which it is kept.

    Raises:
        ThreadIdRequiredError: If it is None.
    """
    if id is None:
        raise ThreadIdRequiredError
    return str(id)


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """One thread of a storage, as `threads()` lists it."""

    thread_id: str
    checkpoints: int
    """How many checkpoints it has, those of its subgraphs included."""
    updated: datetime | None
    """When its newest checkpoint was made, in UTC; None if the checkpoint's id does not tell."""
    checkpoint_id: str
    """Its newest checkpoint in the root namespace."""
    status: str | None = None
    """`done`, `unfinished`, `waiting` (for an answer) or `failed`; None where the storage keeps none."""
    size: int | None = None
    """Bytes that were written for it and not deleted; None where the storage keeps none."""
    created: datetime | None = None
    """When it began, in UTC; None where the storage keeps none."""


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    """Which threads to list, the one that changed last first."""

    limit: int = 50
    before: ThreadInfo | None = None
    """The last one of the page before."""
    search: str | None = None
    """Only those whose id holds this text."""
    status: str | None = None
    thread_id: str | None = None
    """Only this one."""


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """One checkpoint of a thread without its values, as `checkpoints()` lists it."""

    thread_id: str
    ns: str
    """Namespace: "" for the root graph."""
    checkpoint_id: str
    parent_id: str | None
    created: str
    """ISO 8601 time of the checkpoint."""
    metadata: Mapping[str, Any]
    """LangGraph's: source, step, parents; and what the run declared."""
    channels: tuple[str, ...]
    """Names of the channels that have a value."""

    @property
    def input_id(self) -> str | None:
        """Of what came in with it, or before it in its run: where it was kept, or else this checkpoint's own id.

        None where neither is known. Such ids are in the order in which inputs came.
        """
        if (kept := self.metadata.get(OF_INPUT)) is None and self.metadata.get("source") == "input":
            kept = self.metadata.get(TWIN_OF, self.checkpoint_id)
        return None if kept is None else str(kept)


def made_at(checkpoint_id: str) -> datetime | None:
    """When a checkpoint was made, in UTC, if its id is a time-ordered UUID of version 6 as LangGraph's are."""
    found = ticks(checkpoint_id)
    return None if found is None else _GREGORIAN + timedelta(microseconds=found // 10)


def ticks(checkpoint_id: str) -> int | None:
    """The same as the id tells it: units of 100 ns since 15 October 1582."""
    try:
        id = UUID(checkpoint_id)
    except ValueError:
        return None
    return (id.int >> 80) << 12 | (id.int >> 64) & 0xFFF if id.version == 6 else None
