"""What Petal itself remembers of a checkpoint: recorded effects, names of branches, attempts to go on.

A note is a pending write to a channel of its own, so it works with every saver, is encrypted and checked as all that is
saved, and goes wherever its checkpoint goes. LangGraph passes over it, since no task has its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

EFFECT, BRANCH, RECOVERY, INPUT = "__petal_effect__", "__petal_branch__", "__petal_recovery__", "__petal_input__"
BEFORE = "__petal_before__"
"""The channels: what steps did, which names checkpoints have, how often a run was taken up again, what a run was given
that may end before its first checkpoint is on disk, and what it found where it goes on from another's."""

INPUT_ID, INPUT_LEFT = "__petal_input_id", "__petal_input_left"
"""In a run's `configurable`: where its input is kept, if it is, and whether that of a run that died waits behind it."""

_TASK = "petal:"


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that is remembered of a checkpoint.

    Attributes:
        thread_id: The thread.
        ns: The namespace of the checkpoint.
        checkpoint_id: The checkpoint.
        key: Tells it from other notes on the same checkpoint and channel.
        value: What it says.
    """

    thread_id: str
    ns: str
    checkpoint_id: str
    key: str
    value: Any


@runtime_checkable
class NoteReader(Protocol):
    """A saver that finds notes without reading the checkpoints they are on."""

    def notes(self, thread_id: str, channel: str) -> list[Note]:
        """The notes of a thread."""
        ...

    async def anotes(self, thread_id: str, channel: str) -> list[Note]:
        """As `notes`."""
        ...

    def notes_at(self, config: RunnableConfig, channel: str) -> list[Note] | None:
        """The notes on one checkpoint; None if it is not there."""
        ...

    async def anotes_at(self, config: RunnableConfig, channel: str) -> list[Note] | None:
        """As `notes_at`."""
        ...


def put_note(saver: BaseCheckpointSaver[Any], config: RunnableConfig, channel: str, value: Any, key: str) -> None:
    """Keep a note; it is durable when this returns. One of the same key and checkpoint stays as it is.

    Args:
        saver: The saver of the checkpoint.
        config: Names the checkpoint: `thread_id`, `checkpoint_ns`, `checkpoint_id`. What else a run's `configurable`
            holds may be in it.
        channel: One of this module's channels.
        value: What is to be remembered.
        key: Names it among those of the checkpoint and the channel.
    """
    saver.put_writes(config, [(channel, value)], task_of(key))


async def aput_note(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, channel: str, value: Any, key: str
) -> None:
    """As `put_note`."""
    await saver.aput_writes(config, [(channel, value)], task_of(key))


def notes(
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    channel: str,
    *,
    ns: str | None = None,
    checkpoint_id: str | None = None,
) -> list[Note]:
    """The notes of a thread, by checkpoint and key in ascending order.

    Args:
        saver: The saver; one that finds no notes by themselves has to read the checkpoints too.
        thread_id: The thread.
        channel: One of this module's channels.
        ns: Only those of this namespace; None for all.
        checkpoint_id: Only those on this checkpoint.
    """
    if isinstance(saver, NoteReader):
        found = saver.notes(thread_id, channel)
    else:
        kept = saver.list({"configurable": {"thread_id": thread_id}})
        found = in_order(note for one in kept for note in notes_of(one, channel))
    return [note for note in found if ns in (None, note.ns) and checkpoint_id in (None, note.checkpoint_id)]


async def anotes(
    saver: BaseCheckpointSaver[Any],
    thread_id: str,
    channel: str,
    *,
    ns: str | None = None,
    checkpoint_id: str | None = None,
) -> list[Note]:
    """As `notes`."""
    if isinstance(saver, NoteReader):
        found = await saver.anotes(thread_id, channel)
    else:
        kept = saver.alist({"configurable": {"thread_id": thread_id}})
        found = in_order([note async for one in kept for note in notes_of(one, channel)])
    return [note for note in found if ns in (None, note.ns) and checkpoint_id in (None, note.checkpoint_id)]


def notes_at(saver: BaseCheckpointSaver[Any], config: RunnableConfig, channel: str) -> list[Note] | None:
    """The notes on one checkpoint, by key; None if there is no such checkpoint.

    Args:
        saver: The saver; one that finds no notes by themselves has to read the checkpoint too.
        config: Names the checkpoint: `thread_id`, `checkpoint_ns`, `checkpoint_id`.
        channel: One of this module's channels.
    """
    if isinstance(saver, NoteReader):
        return saver.notes_at(config, channel)
    kept = saver.get_tuple(config)
    return None if kept is None else in_order(notes_of(kept, channel))


async def anotes_at(saver: BaseCheckpointSaver[Any], config: RunnableConfig, channel: str) -> list[Note] | None:
    """As `notes_at`."""
    if isinstance(saver, NoteReader):
        return await saver.anotes_at(config, channel)
    kept = await saver.aget_tuple(config)
    return None if kept is None else in_order(notes_of(kept, channel))


def task_of(key: str) -> str:
    """The task id under which the note of a key is kept."""
    return _TASK + key


def key_of(task_id: str) -> str | None:
    """The key of a note that is kept under this task id; None if it is no note's."""
    return task_id.removeprefix(_TASK) if task_id.startswith(_TASK) else None


def in_order(found: Iterable[Note]) -> list[Note]:
    """Notes by checkpoint, then by key."""
    return sorted(found, key=lambda note: (note.checkpoint_id, note.ns, note.key))


def notes_of(kept: CheckpointTuple, channel: str) -> Iterator[Note]:
    """The notes on a checkpoint that was read."""
    place = kept.config["configurable"]
    for task_id, name, value in kept.pending_writes or ():
        if name == channel and (key := key_of(task_id)) is not None:
            yield Note(place["thread_id"], place.get("checkpoint_ns", ""), place["checkpoint_id"], key, value)
