"""What saves and reads know of earlier ones: from bounded caches where it is at hand, else from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from petal.checkpoints.cache import OVERHEAD, ByteCache
from petal.checkpoints.chains import Chain
from petal.checkpoints.header import NO_PARENT, Header, Outline
from petal.checkpoints.records import CheckpointRow, Glimpse, Head, Reader, WriteRow
from petal.checkpoints.rows import Found, Namespace, Rows
from petal.checkpoints.values import Spot, Version

LIGHT = 256 * 1024
"""Bytes of values that take an event loop no longer to make than it takes to have them made by a worker."""

Known = tuple[Outline, Mapping[str, Version]]
"""What a save needs: of its parent the outline, and values that the new ones may be written as changes of."""
Chains = dict[tuple[Namespace, str, str], tuple[Chain, dict[str, Version]]]
"""By namespace, channel and root: the rows of a chain, and the values that were made of them, by row."""


class AtHand(NamedTuple):
    """What is held of a namespace: its latest checkpoint, as far as it passed through.

    Attributes:
        outline: What is to be known of it.
        versions: Values of its channels.
        weight: Bytes that these take in memory, roughly.
    """

    outline: Outline
    versions: Mapping[str, Version]
    weight: int

    @property
    def is_whole(self) -> bool:
        """Whether all its values are here."""
        return len(self.versions) == len(self.outline.spots)

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return sum([version.parts.size for version in self.versions.values()])


class Recall:
    """The latest checkpoints that passed through, and the way to those that are not at hand.

    A row never changes once it is written, and a save is refused if the parent that it leans on is gone: so what is
    held here is right whatever another process does.

    Args:
        rows: Opens what the store gives.
        limit: Bytes that the cache may take.
    """

    def __init__(self, rows: Rows, limit: int) -> None:
        self._rows = rows
        self._cache: ByteCache[Namespace, AtHand] = ByteCache(limit)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._cache.size

    def known(
        self, place: Namespace, parent: str | None, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> Known | None:
        """What a save needs of earlier ones, if all of it is at hand."""
        if parent is None:
            return NO_PARENT, {}
        held = self._cache.get(place)
        if held is None or held.outline.id != parent:
            return None
        outline, versions, _ = held
        for channel in new_versions:
            if channel not in versions and _is_apart(channel, checkpoint, outline):
                return None
        return outline, versions

    def looked_up(
        self,
        place: Namespace,
        parent: str | None,
        checkpoint: Checkpoint,
        new_versions: ChannelVersions,
        reader: Reader,
    ) -> Known:
        """What a save needs of earlier ones, read where it is not at hand."""
        held = self._cache.get(place)
        if held is not None and held.outline.id == parent:
            outline = held.outline
        else:
            row = None if parent is None else reader.checkpoint(place.thread_id, place.ns, parent)
            outline = NO_PARENT if row is None else self._rows.header(row).outline()
        spots = {channel: outline.spots[channel] for channel in new_versions if _is_apart(channel, checkpoint, outline)}
        return outline, self._versions(reader, place, spots)

    def remember(self, place: Namespace, outline: Outline, made: Mapping[str, Version]) -> None:
        """Keep at hand what was saved or read, with those values of the one before that it still has."""
        spots, versions, weight = outline.spots, dict(made), 0
        if (held := self._cache.get(place)) is not None:
            weight = held.weight
            for channel, version in held.versions.items():
                if channel not in made and spots.get(channel) == version.spot:
                    versions[channel] = version
                else:
                    weight -= version.parts.weight + OVERHEAD
        for version in made.values():
            weight += version.parts.weight + OVERHEAD
        if weight > self._cache.limit // 8 * 7:
            versions, weight = {}, 0  # it would not be kept as a whole, and the next save needs the outline
        self._cache.put(place, AtHand(outline, versions, weight), weight + _weight(outline))

    def forget(self, thread_id: str) -> None:
        """Drop all that is held of a thread."""
        self._cache.forget(thread_id)

    def at_hand(self, place: Namespace) -> AtHand | None:
        """What is held of a namespace, if that is a checkpoint with all its values."""
        held = self._cache.get(place)
        return held if held is not None and held.is_whole else None

    def seen(self, place: Namespace, newest: Glimpse, held: AtHand) -> Found | None:
        """The newest checkpoint without having been read, if it is the one at hand and nothing was written on it."""
        outline = held.outline
        if newest.has_writes or (newest.id, newest.name) != (outline.id, outline.name):
            return None
        return self._found(place, newest.parent_id, newest.run_id, held, ())

    def completed(self, head: Head, held: AtHand) -> Found | None:
        """A head with what was at hand, if that is of the same checkpoint."""
        (row, writes), outline = head, held.outline
        if (row.id, row.name) != (outline.id, outline.name):
            return None
        return self._found(Namespace(row.thread_id, row.ns), row.parent_id, row.run_id, held, writes)

    def read_on(self, head: Head, reader: Reader) -> Found:
        """A head with what is not at hand read.

        Raises:
            CheckpointCorruptionError: If something of it is missing, as it is of a head that was deleted meanwhile.
        """
        row, writes = head
        return self._read(row, writes, reader, {})

    def found(self, place: Namespace, id: str | None, reader: Reader) -> Found | None:
        row = reader.checkpoint(place.thread_id, place.ns, id)
        return None if row is None else self.found_all([row], reader)[0]

    def found_all(self, rows: Sequence[CheckpointRow], reader: Reader) -> list[Found]:
        """Checkpoints with their versions and writes; each chain is read once, and each version made of the last."""
        chains: Chains = {}
        found = [
            self._read(row, reader.writes(row.thread_id, row.ns, [row.id]), reader, chains) for row in reversed(rows)
        ]
        return found[::-1]

    def _found(
        self,
        place: Namespace,
        parent_id: str | None,
        run_id: str | None,
        held: AtHand,
        writes: Sequence[WriteRow],
    ) -> Found:
        """What is held, as if it had been read."""
        outline = held.outline
        header = Header.unpacked(outline.header, outline.id, outline.name, "what is at hand")
        return Found(place, parent_id, run_id, header, outline.metadata, held.versions, writes)

    def _read(self, row: CheckpointRow, writes: Sequence[WriteRow], reader: Reader, chains: Chains) -> Found:
        place, header = Namespace(row.thread_id, row.ns), self._rows.header(row)
        versions = self._versions(reader, place, header.spots, chains)
        return Found(place, row.parent_id, row.run_id, header, self._rows.opened_metadata(row), versions, writes)

    def _versions(
        self, reader: Reader, place: Namespace, spots: Mapping[str, Spot], chains: Chains | None = None
    ) -> dict[str, Version]:
        """Values of channels, from the cache or from their chains."""
        found = {}
        chains = {} if chains is None else chains
        held = self._cache.get(place)
        at_hand = {} if held is None else held.versions
        for channel, spot in spots.items():
            if (version := at_hand.get(channel)) is not None and version.spot == spot:
                found[channel] = version
        missing = [(place, channel, spots[channel].root) for channel in spots if channel not in found]
        unread = [key for key in missing if key not in chains]
        if unread:
            rows = reader.chains(place.thread_id, place.ns, [key[1:] for key in unread])
            for key in unread:
                chains[key] = self._rows.chain(rows, *key[1:]), {}
        for key in missing:
            channel, (chain, known) = key[1], chains[key]
            made = self._rows.version(chain, place, channel, spots[channel], known)
            found[channel] = known[made.spot.row] = made
        return found


def _weight(outline: Outline) -> int:
    """Bytes that it takes in memory, roughly."""
    objects = 600 + 80 * (3 * len(outline.spots) + 2 * len(outline.versions))
    return objects + len(outline.header) + len(outline.metadata)


def _is_apart(channel: str, checkpoint: Checkpoint, parent: Outline) -> bool:
    """Whether a changed channel's value is taken apart, so that it may be written as a change of the parent's."""
    return channel in parent.spots and type(checkpoint["channel_values"].get(channel)) in (list, dict)
