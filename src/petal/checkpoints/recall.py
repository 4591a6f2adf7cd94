"""What saves and reads know of earlier ones: from bounded caches where it is at hand, else from the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from petal.checkpoints.cache import ByteCache
from petal.checkpoints.header import NO_PARENT, Header, Outline
from petal.checkpoints.records import CheckpointRow, Head, Reader, WriteRow
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.values import Chain, Spot, Version, weight

LIGHT = 256 * 1024
"""Bytes of values that take an event loop no longer to make than it takes to have them made by a worker."""

Known = tuple[Outline, dict[str, Version]]
"""A checkpoint, and values of it by channel: of one at hand all, of a save's parent those that the new ones may be
written as changes of."""
Found = tuple[CheckpointRow, Header, dict[str, Version], Sequence[WriteRow]]
"""A checkpoint's row and header, the versions of its channels, and its pending writes."""
Chains = dict[tuple[Namespace, str, str], tuple[Chain, dict[str, Version]]]
"""By namespace, channel and root: the rows of a chain, and the values that were made of them, by row."""


class Recall:
    """The latest versions and headers that passed through, and the way to those that are not at hand.

    A row never changes once it is written, and a save is refused if the parent that it leans on is gone: so what is
    held here is right whatever another process does.

    Args:
        rows: Opens what the store gives.
        limit: Bytes that the caches may take together.
    """

    def __init__(self, rows: Rows, limit: int) -> None:
        self._rows = rows
        self._cache: ByteCache[tuple[str, str, str], Version] = ByteCache(limit * 7 // 8, weight)
        self._outlines: ByteCache[Namespace, Outline] = ByteCache(limit // 8, _weight)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._cache.size + self._outlines.size

    def known(
        self, place: Namespace, parent: str | None, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> Known | None:
        """What a save needs of earlier ones, if all of it is at hand."""
        known = self._outline(place, parent)
        if known is None:
            return None
        bases = {}
        for channel in _apart(checkpoint, new_versions, known):
            base = self._held(place, channel, known.spots[channel])
            if base is None:
                return None
            bases[channel] = base
        return known, bases

    def looked_up(
        self,
        place: Namespace,
        parent: str | None,
        checkpoint: Checkpoint,
        new_versions: ChannelVersions,
        reader: Reader,
    ) -> Known:
        """What a save needs of earlier ones, read where it is not at hand."""
        known = self._outline(place, parent)
        if known is None:
            row = None if parent is None else reader.checkpoint(place.thread_id, place.ns, parent)
            known = NO_PARENT if row is None else self._rows.header(row).outline
        spots = {channel: known.spots[channel] for channel in _apart(checkpoint, new_versions, known)}
        return known, self._versions(reader, place, spots)

    def remember(self, place: Namespace, outline: Outline, made: Mapping[str, Version]) -> None:
        """Keep what was saved at hand for the next save."""
        for channel, version in made.items():
            self._cache.put((place.thread_id, place.ns, channel), version)
        self._outlines.put(place, outline)

    def forget(self, thread_id: str) -> None:
        """Drop all that is held of a thread."""
        self._cache.forget(thread_id)
        self._outlines.forget(thread_id)

    def at_hand(self, place: Namespace) -> Known | None:
        """What is to be known of a namespace's last checkpoint, and all its values, if they are at hand."""
        outline = self._outlines.get(place)
        if outline is None:
            return None
        versions = {}
        for channel, spot in outline.spots.items():
            if (held := self._held(place, channel, spot)) is None:
                return None
            versions[channel] = held
        return outline, versions

    def completed(self, head: Head, known: Known) -> Found | None:
        """A head with what was at hand, if that is of the same checkpoint."""
        (row, writes), (outline, versions) = head, known
        if (row.id, row.name) != (outline.id, outline.name):
            return None
        return row, self._rows.header(row), versions, writes

    def read_on(self, head: Head, reader: Reader) -> Found:
        """A head with what is not at hand read.

        Raises:
            CheckpointCorruptionError: If something of it is missing, as it is of a head that was deleted meanwhile.
        """
        row, writes = head
        header = self._rows.header(row)
        return row, header, self._versions(reader, Namespace(row.thread_id, row.ns), header.spots), writes

    def found(self, place: Namespace, id: str | None, reader: Reader) -> Found | None:
        row = reader.checkpoint(place.thread_id, place.ns, id)
        return None if row is None else self.found_all([row], reader)[0]

    def found_all(self, rows: Sequence[CheckpointRow], reader: Reader) -> list[Found]:
        """Checkpoints with their versions and writes; each chain is read once, and each version made of the last."""
        chains: Chains = {}
        found: list[Found] = []
        for row in reversed(rows):
            place, header = Namespace(row.thread_id, row.ns), self._rows.header(row)
            versions = self._versions(reader, place, header.spots, chains)
            found.append((row, header, versions, reader.writes(row.thread_id, row.ns, [row.id])))
        return found[::-1]

    def _versions(
        self, reader: Reader, place: Namespace, spots: Mapping[str, Spot], chains: Chains | None = None
    ) -> dict[str, Version]:
        """Values of channels, from the cache or from their chains."""
        found = {}
        chains = {} if chains is None else chains
        for channel, spot in spots.items():
            if (held := self._held(place, channel, spot)) is not None:
                found[channel] = held
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

    def _held(self, place: Namespace, channel: str, spot: Spot) -> Version | None:
        held = self._cache.get((place.thread_id, place.ns, channel))
        return held if held is not None and held.spot == spot else None

    def _outline(self, place: Namespace, id: str | None) -> Outline | None:
        """What is to be known of a checkpoint, if it is the one at hand."""
        if id is None:
            return NO_PARENT
        outline = self._outlines.get(place)
        return outline if outline is not None and outline.id == id else None


def _weight(outline: Outline) -> int:
    """Bytes that it takes in memory, roughly."""
    return 600 + 80 * (3 * len(outline.spots) + 2 * len(outline.versions))


def _apart(checkpoint: Checkpoint, new_versions: ChannelVersions, parent: Outline) -> Iterator[str]:
    """The changed channels whose values are taken apart, so that they may be written as changes of the parent's."""
    for channel in new_versions:
        if channel in parent.spots and type(checkpoint["channel_values"].get(channel)) in (list, dict):
            yield channel
