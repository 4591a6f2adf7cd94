"""A checkpoint without its values, as bytes: the versions of its channels, and what each node has seen of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import ormsgpack
from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from petal.checkpoints.values import Spot
from petal.errors import CheckpointCorruptionError

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint holds besides its values.

    Attributes:
        checkpoint: LangGraph's checkpoint, its `channel_values` empty.
        spots: For each channel that has a value: where that lies.
        unfinished: Whether its values say that there is something left to do.
        name: The name of the save that it is from.
    """

    checkpoint: Checkpoint
    spots: dict[str, Spot]
    unfinished: bool = False
    name: str = ""

    @classmethod
    def of(cls, checkpoint: Checkpoint, spots: dict[str, Spot], *, unfinished: bool, name: str) -> Header:
        """The header of a checkpoint, which shares nothing with it that LangGraph goes on to change."""
        return cls(_copied(checkpoint, {}), spots, unfinished, name)

    def with_values(self, values: dict[str, Any]) -> Checkpoint:
        """The checkpoint with its values, for LangGraph to change as it likes."""
        return _copied(self.checkpoint, values)

    @property
    def versions(self) -> ChannelVersions:
        """The version of each channel, those without a value included."""
        return self.checkpoint["channel_versions"]

    def weight(self) -> int:
        """Bytes that it takes in memory, roughly."""
        seen = self.checkpoint["versions_seen"].values()
        return 200 * (2 * len(self.versions) + sum(1 + len(versions) for versions in seen))

    def packed(self) -> bytes:
        """The bytes. Versions and names of rows recur often, so each is written once."""
        checkpoint = self.checkpoint
        table: dict[Any, int] = {}

        def numbered(versions: ChannelVersions) -> dict[str, int]:
            return {channel: table.setdefault(version, len(table)) for channel, version in versions.items()}

        channels = numbered(checkpoint["channel_versions"])
        seen = {node: numbered(versions) for node, versions in checkpoint["versions_seen"].items()}
        spots = {channel: [table.setdefault(name, len(table)) for name in spot] for channel, spot in self.spots.items()}
        further = {key: value for key, value in checkpoint.items() if key not in _KNOWN}
        return ormsgpack.packb(
            [
                _FORMAT,
                checkpoint["v"],
                checkpoint["ts"],
                list(table),
                channels,
                seen,
                spots,
                checkpoint.get("updated_channels"),
                further,
                self.unfinished,
            ]
        )

    @classmethod
    def unpacked(cls, data: bytes, id: str, name: str, where: str) -> Header:
        """The header that the bytes hold.

        Raises:
            CheckpointCorruptionError: If they hold none.
        """
        try:
            format, v, ts, table, channels, seen, spots, updated, further, unfinished = ormsgpack.unpackb(data)
            if format != _FORMAT:
                raise ValueError(f"format {format!r} is unknown")
            checkpoint = Checkpoint(
                v=v,
                ts=ts,
                id=id,
                channel_values={},
                channel_versions={channel: table[n] for channel, n in channels.items()},
                versions_seen={node: {ch: table[n] for ch, n in versions.items()} for node, versions in seen.items()},
                updated_channels=updated,
            )
            checkpoint.update(further)
            found = {channel: Spot(table[root], table[row]) for channel, (root, row) in spots.items()}
            return cls(checkpoint, found, unfinished, name)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise CheckpointCorruptionError(where, f"its header cannot be read: {error}") from error


def _copied(checkpoint: Checkpoint, values: dict[str, Any]) -> Checkpoint:
    seen = {node: dict(versions) for node, versions in checkpoint["versions_seen"].items()}
    copy = {**checkpoint, "channel_versions": dict(checkpoint["channel_versions"]), "versions_seen": seen}
    return cast(Checkpoint, {**copy, "channel_values": values})


_KNOWN = frozenset(Checkpoint.__annotations__)

NO_PARENT = Header(
    Checkpoint(v=0, id="", ts="", channel_values={}, channel_versions={}, versions_seen={}, updated_channels=None),
    {},
)
"""Stands for the parent of a thread's first checkpoint."""
