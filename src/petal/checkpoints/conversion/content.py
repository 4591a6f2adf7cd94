"""What a checkpoint holds, in a form in which two databases can be compared exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import assert_never

from langgraph.checkpoint.base import Checkpoint

from petal.checkpoints.conversion.source import Different
from petal.checkpoints.langgraph.dialect import Key
from petal.checkpoints.recall import Recall
from petal.checkpoints.records import CheckpointRow, Reader, Save, WriteRow
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.values import Entries, Items, Parts, Whole

_TOGETHER = 50
"""Checkpoints that are read together, since they share what they are read from."""


@dataclass(frozen=True, slots=True)
class Content:
    """A checkpoint; the codec's bytes stand for values, since it gives equal ones to equal values."""

    place: Namespace
    id: str
    parent_id: str | None
    checkpoint: Checkpoint
    """Without its values."""
    metadata: bytes
    values: dict[str, bytes]
    """A digest of each channel's value."""
    writes: Sequence[WriteRow]
    """Opened."""


def together(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """Checkpoints in groups that are read together."""
    return (keys[at : at + _TOGETHER] for at in range(0, len(keys), _TOGETHER))


def contents(found: Sequence[CheckpointRow], reader: Reader, rows: Rows) -> list[Content]:
    """What checkpoints hold, which are given newest first; all of it is read now."""
    return [
        Content(
            place,
            header.checkpoint["id"],
            parent_id,
            header.with_values({}),
            metadata,
            {channel: digest(versions[channel].parts) for channel in header.spots},
            rows.unsealed(Save(writes=writes)).writes,
        )
        for place, parent_id, _, header, metadata, versions, writes in Recall(rows, 0).found_all(found, reader)
    ]


def expect(expected: Sequence[Content], reader: Reader, rows: Rows) -> None:
    """Compare checkpoints, given oldest first, with what a target holds.

    Raises:
        Different: If one is not the same there.
    """
    found = []
    for there in expected:
        row = reader.checkpoint(there.place.thread_id, there.place.ns, there.id)
        if row is None:
            raise Different(there.place.named(f"checkpoint {there.id!r}"))
        found.append(row)
    for there, here in zip(reversed(expected), contents(found[::-1], reader, rows), strict=True):
        if there != here:
            raise Different(there.place.named(f"{_part(there, here)}checkpoint {there.id!r}"))


def digest(parts: Parts) -> bytes:
    """32 bytes that no other value has."""
    made = blake2b(type(parts).__name__.encode(), digest_size=32)
    match parts:
        case Whole():
            pieces: Iterable[bytes] = (parts.data,)
        case Items():
            pieces = parts.items
        case Entries():
            pieces = (piece for entry in parts.entries.items() for piece in entry)
        case _:
            assert_never(parts)
    for piece in pieces:
        made.update(len(piece).to_bytes(8))
        made.update(piece)
    return made.digest()


def _part(there: Content, here: Content) -> str:
    """Which part of a checkpoint differs, as far as it is a channel."""
    for channel in there.values | here.values:
        if there.values.get(channel) != here.values.get(channel):
            return f"channel {channel!r} of "
    return ""
