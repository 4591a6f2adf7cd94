"""A checkpoint without its values, as bytes: the versions of its channels, and what each node has seen of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import ormsgpack
from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from petal.checkpoints.values import Spot
from petal.errors import CheckpointCorruptionError

_FORMAT = 1


class Outline(NamedTuple):
    """What the next save, and the next load, need to know of a checkpoint.

    Attributes:
        id: Of the checkpoint.
        name: The name of the save that it is from.
        spots: For each channel that has a value: where that lies.
        versions: The version of each channel, those without a value included.
        header: Its header as bytes.
        metadata: Its metadata as bytes.
    """

    id: str
    name: str
    spots: Mapping[str, Spot]
    versions: ChannelVersions
    header: bytes = b""
    metadata: bytes = b""


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint holds besides its values.

    Attributes:
        checkpoint: LangGraph's checkpoint, its `channel_values` empty.
        spots: For each channel that has a value: where that lies.
        unfinished: Whether its values say that there is something left to do.
        name: The name of the save that it is from.
        data: The bytes that hold all this but the name.
    """

    checkpoint: Checkpoint
    spots: dict[str, Spot]
    unfinished: bool = False
    name: str = ""
    data: bytes = b""

    def with_values(self, values: dict[str, Any]) -> Checkpoint:
        """The checkpoint with its values, for LangGraph to change as it likes."""
        return _copied(self.checkpoint, values)

    @property
    def versions(self) -> ChannelVersions:
        """The version of each channel, those without a value included."""
        return self.checkpoint["channel_versions"]

    def outline(self, metadata: bytes = b"") -> Outline:
        """What the next save needs to know, and, with the bytes of its metadata, the next load."""
        return Outline(self.checkpoint["id"], self.name, self.spots, self.versions, self.data, metadata)

    @classmethod
    def unpacked(cls, data: bytes, id: str, name: str, where: str) -> Header:
        """The header that the bytes hold.

        Raises:
            CheckpointCorruptionError: If they hold none.
        """
        try:
            format, v, ts, versions, seen, spots, updated, further, unfinished = ormsgpack.unpackb(data)
            if format != _FORMAT:
                raise ValueError(f"format {format!r} is unknown")
            checkpoint = Checkpoint(
                v=v,
                ts=ts,
                id=id,
                channel_values={},
                channel_versions=versions,
                versions_seen=seen,
                updated_channels=updated,
            )
            checkpoint.update(further)
            found = {channel: Spot(root, row) for channel, (root, row) in spots.items()}
            return cls(checkpoint, found, unfinished, name, data)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise CheckpointCorruptionError(where, f"its header cannot be read: {error}") from error


def packed(checkpoint: Checkpoint, spots: Mapping[str, Spot], *, unfinished: bool) -> bytes:
    """A header as bytes. Versions and names of rows recur often, which the envelope makes small."""
    return ormsgpack.packb(
        [
            _FORMAT,
            checkpoint["v"],
            checkpoint["ts"],
            checkpoint["channel_versions"],
            checkpoint["versions_seen"],
            {channel: list(spot) for channel, spot in spots.items()},
            checkpoint.get("updated_channels"),
            {key: checkpoint[key] for key in checkpoint.keys() - _KNOWN},  # type: ignore[literal-required]
            unfinished,
        ]
    )


def _copied(checkpoint: Checkpoint, values: dict[str, Any]) -> Checkpoint:
    seen = {node: dict(versions) for node, versions in checkpoint["versions_seen"].items()}
    copy = {**checkpoint, "channel_versions": dict(checkpoint["channel_versions"]), "versions_seen": seen}
    return cast(Checkpoint, {**copy, "channel_values": values})


_KNOWN = frozenset(Checkpoint.__annotations__)

NO_PARENT = Outline("", "", {}, {})
"""Stands for the parent of a thread's first checkpoint."""
