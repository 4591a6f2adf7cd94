"""What saves and reads know of earlier ones: from bounded caches where it is at hand, else from the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from petal.checkpoints.cache import ByteCache
from petal.checkpoints.header import NO_PARENT, Header
from petal.checkpoints.records import CheckpointRow, Reader, WriteRow
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.values import Version, weight

Known = tuple[dict[str, str], dict[str, Version]]
"""Roots of the values whose version is not new, and bases of those that are new."""
Found = tuple[CheckpointRow, Header, dict[str, Version], Sequence[WriteRow]]
"""A checkpoint's row and header, the versions of its channels, and its pending writes."""
Chains = dict[tuple[Namespace, str, str], tuple[dict[str, bytes], dict[str, Version]]]
"""By namespace, channel and root: the rows of a chain, and the versions that were made of them."""


class Recall:
    """The latest versions and headers that passed through, and the way to those that are not at hand.

    A version never changes once it is written, and no two processes give the same one to two values: so what is
    held here is right whatever another process does.

    Args:
        rows: Opens what the store gives.
        limit: Bytes that the caches may take together.
    """

    def __init__(self, rows: Rows, limit: int) -> None:
        self._rows = rows
        self._cache: ByteCache[tuple[str, str, str], Version] = ByteCache(limit * 7 // 8, weight)
        self._headers: ByteCache[tuple[str, str], Header] = ByteCache(limit // 8, Header.weight)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._cache.size + self._headers.size

    def known(
        self, place: Namespace, parent: str | None, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> Known | None:
        """What a save needs of earlier ones, if all of it is at hand."""
        header = self._header(place, parent)
        if header is None:
            return None
        roots, unknown = self._roots(place, header, checkpoint, new_versions)
        bases = {}
        for channel in _apart(checkpoint, new_versions):
            if channel in header.roots:
                base = self._held(place, channel, str(header.versions[channel]))
                if base is None:
                    return None
                bases[channel] = base
        return None if unknown else (roots, bases)

    def looked_up(
        self,
        place: Namespace,
        parent: str | None,
        checkpoint: Checkpoint,
        new_versions: ChannelVersions,
        reader: Reader,
    ) -> Known:
        """What a save needs of earlier ones, read where it is not at hand."""
        header = self._header(place, parent)
        if header is None:
            row = None if parent is None else reader.checkpoint(place.thread_id, place.ns, parent)
            header = NO_PARENT if row is None else self._rows.header(row)
        wanted = [channel for channel in _apart(checkpoint, new_versions) if channel in header.roots]
        at = {channel: str(header.versions[channel]) for channel in wanted}
        bases = self._versions(reader, place, at, header.roots)
        roots, unknown = self._roots(place, header, checkpoint, new_versions)
        if unknown:
            found = reader.roots(place.thread_id, place.ns, unknown)
            roots.update((channel, root) for (channel, _), root in found.items())
        return roots, bases

    def _roots(
        self, place: Namespace, header: Header, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """Where the values lie whose version is not new, and the (channel, version) of which that is not known.

        A version is never written twice: earlier checkpoints say where it lies.
        """
        roots, unknown = {}, []
        for channel in checkpoint["channel_values"]:
            if channel in new_versions or channel not in checkpoint["channel_versions"]:
                continue
            version = str(checkpoint["channel_versions"][channel])
            if str(header.versions.get(channel)) == version and channel in header.roots:
                roots[channel] = header.roots[channel]
            elif (held := self._held(place, channel, version)) is not None:
                roots[channel] = held.root
            else:
                unknown.append((channel, version))
        return roots, unknown

    def remember(self, place: Namespace, header: Header, made: Mapping[str, Version]) -> None:
        """Keep what was saved at hand for the next save."""
        for channel, version in made.items():
            self._cache.put((place.thread_id, place.ns, channel), version)
        self._headers.put((place.thread_id, place.ns), header)

    def forget(self, thread_id: str) -> None:
        """Drop all that is held of a thread."""
        self._cache.forget(thread_id)
        self._headers.forget(thread_id)

    def found(self, place: Namespace, id: str | None, reader: Reader) -> Found | None:
        row = reader.checkpoint(place.thread_id, place.ns, id)
        return None if row is None else self.found_all([row], reader)[0]

    def found_all(self, rows: Sequence[CheckpointRow], reader: Reader) -> list[Found]:
        """Checkpoints with their versions and writes; each chain is read once, and each version made of the last."""
        chains: Chains = {}
        found: list[Found] = []
        for row in reversed(rows):
            place, header = Namespace(row.thread_id, row.ns), self._rows.header(row)
            at = {channel: str(header.versions[channel]) for channel in header.roots}
            versions = self._versions(reader, place, at, header.roots, chains)
            found.append((row, header, versions, reader.writes(row.thread_id, row.ns, [row.id])))
        return found[::-1]

    def _versions(
        self,
        reader: Reader,
        place: Namespace,
        at: Mapping[str, str],
        roots: Mapping[str, str],
        chains: Chains | None = None,
    ) -> dict[str, Version]:
        """Versions of channels, from the cache or from their chains."""
        found = {}
        chains = {} if chains is None else chains
        for channel, version in at.items():
            if (held := self._held(place, channel, version)) is not None:
                found[channel] = held
        missing = [(place, channel, roots[channel]) for channel in at if channel not in found]
        unread = [key for key in missing if key not in chains]
        if unread:
            rows = reader.chains(place.thread_id, place.ns, [key[1:] for key in unread])
            for key in unread:
                chains[key] = self._rows.chain(rows, *key[1:]), {}
        for key in missing:
            _, channel, root = key
            chain, known = chains[key]
            made = self._rows.version(chain, place, channel, at[channel], root, known)
            found[channel] = known[made.version] = made
        return found

    def _held(self, place: Namespace, channel: str, version: str) -> Version | None:
        held = self._cache.get((place.thread_id, place.ns, channel))
        return held if held is not None and held.version == version else None

    def _header(self, place: Namespace, id: str | None) -> Header | None:
        """The header of a checkpoint, if it is the one at hand."""
        if id is None:
            return NO_PARENT
        held = self._headers.get((place.thread_id, place.ns))
        return held if held is not None and held.checkpoint["id"] == id else None


def _apart(checkpoint: Checkpoint, new_versions: ChannelVersions) -> Iterator[str]:
    """The changed channels whose values are taken apart, so that they may be written as changes."""
    for channel in new_versions:
        if type(checkpoint["channel_values"].get(channel)) in (list, dict):
            yield channel
