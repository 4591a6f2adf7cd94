"""Threads of Petal's own tables: rows are opened where they lie and sealed where they go, and no value is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import cast

from petal.checkpoints.chains import Chain
from petal.checkpoints.codec import Codec
from petal.checkpoints.conversion.content import contents, expect, together
from petal.checkpoints.conversion.source import Different, Tick, changed, newest
from petal.checkpoints.langgraph.dialect import Key
from petal.checkpoints.lineage import checkpoints_of
from petal.checkpoints.records import CheckpointRow, Reader, Save, Status, Transaction, ValueRow
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.threads import ThreadInfo, ThreadQuery
from petal.errors import CheckpointCorruptionError

_PAGE = 1000


class PetalSource:
    """Petal's tables, of any storage."""

    def __init__(self, saver: PetalSaver, target: Rows) -> None:
        self._saver, self._target = saver, target

    def threads(self) -> Iterator[ThreadInfo]:
        before = None
        while page := self._saver.threads(_PAGE, before):
            yield from page
            before = page[-1]

    @contextmanager
    def copying(self, thread: ThreadInfo) -> Iterator[RowCopying]:
        yield RowCopying(self._saver, self._target, thread)


class RowCopying:
    """One thread, its oldest checkpoint first."""

    def __init__(self, saver: PetalSaver, target: Rows, thread: ThreadInfo) -> None:
        self._read = saver.read_rows
        self._source, self._target, self._thread = saver.rows, target, thread
        # Of the metadata only plain values are looked at, so its types need not be known.
        self._codec = Codec(saver.rows.codec.allowed, on_decode_error="raw")
        keys = self._read(lambda reader: [(row.ns, row.id) for row in checkpoints_of(reader, thread.thread_id)])
        self.order: Sequence[Key] = keys[::-1]
        self.head = newest(keys)
        self.fingerprint = _fingerprint(thread)
        self._brought: dict[tuple[str, str, str], _Bases] = {}

    def copy(self, change: Transaction, keys: Sequence[Key], tick: Tick) -> None:
        # If the connection to the source is lost, this begins again, and writes the same rows once more.
        self._brought = self._read(lambda reader: self._copied(reader, change, keys, tick))

    def compare(self, change: Transaction, keys: Sequence[Key], tick: Tick) -> None:
        """By what the checkpoints hold, since the rows may have been made in another way."""
        self._read(lambda reader: self._compared(reader, change, keys, tick))

    def end(self, change: Transaction, *, copies: bool) -> None:
        id = self._thread.thread_id
        there = self._source.unsealed(Save(writes=self._read(lambda reader: reader.strays(id))))
        if copies and there.writes:
            there.status = None if self.order else cast("Status | None", self._thread.status)
            there.now = _iso(self._thread.updated)
            change.save(self._target.sealed([there])[0])
        if there.writes != self._target.unsealed(Save(writes=change.strays(id))).writes:
            raise Different(f"a write that waits for a checkpoint of thread {id!r}")
        query = ThreadQuery(1, thread_id=id)
        if [self.fingerprint] != [_fingerprint(info) for info in self._read(lambda reader: reader.threads(query))]:
            raise changed(self._thread.thread_id)

    def _copied(
        self, reader: Reader, change: Transaction, keys: Sequence[Key], tick: Tick
    ) -> dict[tuple[str, str, str], _Bases]:
        """The chains that are in the target then, with those that checkpoints before these brought."""
        brought = dict(self._brought)
        for done, key in enumerate(keys, 1):
            there = self._source.unsealed(self._save(reader, self._row(reader, key), brought))
            row = there.checkpoint
            assert row is not None
            passed = {(value.channel, value.version) for value in _values(there, row, change)}
            save = replace(
                there,
                checkpoint=replace(row, labels=self._labels(row)),
                values=[value for value in there.values if (value.channel, value.version) not in passed],
                status=cast("Status | None", self._thread.status) if key == self.head else None,
                now=_iso(self._thread.updated),
            )
            (sealed,) = self._target.sealed([save])
            if key == self.order[0]:
                # An entry of the index begins with what is saved first; of a pruned thread that may be all there is.
                change.save(Save(sealed.checkpoint, now=_iso(self._thread.created)))
            change.save(sealed)
            if _plain(there) != _plain(self._target.unsealed(_read_back(there, row, change))):
                raise Different(Namespace(row.thread_id, row.ns).named(f"checkpoint {row.id!r}"))
            tick(done)
        return brought

    def _labels(self, row: CheckpointRow) -> tuple[bytes, ...]:
        """The labels of a checkpoint, of which the target's key makes others than the source's did."""
        where = Namespace(row.thread_id, row.ns).named(f"the metadata of checkpoint {row.id!r}")
        return self._target.labels(self._codec.decode(row.metadata, where))

    def _compared(self, reader: Reader, change: Transaction, keys: Sequence[Key], tick: Tick) -> None:
        done = 0
        for some in together(keys):
            rows = [self._row(reader, key) for key in reversed(some)]
            expect(contents(rows, reader, self._source)[::-1], change, self._target)
            tick(done := done + len(some))

    def _row(self, reader: Reader, key: Key) -> CheckpointRow:
        if (row := reader.checkpoint(self._thread.thread_id, *key)) is None:
            raise changed(self._thread.thread_id)
        return row

    def _save(self, reader: Reader, row: CheckpointRow, brought: dict[tuple[str, str, str], _Bases]) -> Save:
        """A checkpoint with its writes, and with the chains that none before it brought along."""
        spots = self._source.header(row).spots
        new = [(channel, spot.root) for channel, spot in spots.items() if (row.ns, channel, spot.root) not in brought]
        values = reader.chains(row.thread_id, row.ns, new) if new else []
        for channel, root in new:
            brought[row.ns, channel, root] = _Bases(self._source.chain(values, channel, root))
        for channel, spot in spots.items():
            if (gone := brought[row.ns, channel, spot.root].missing(spot.row)) is not None:
                where = Namespace(row.thread_id, row.ns).named(f"channel {channel!r} of checkpoint {row.id!r}")
                raise CheckpointCorruptionError(where, f"the row {gone!r} is missing")
        return Save(row, values, reader.writes(row.thread_id, row.ns, [row.id]))


class _Bases:
    """The names of a chain's rows, and which of them are changes of which."""

    def __init__(self, chain: Chain) -> None:
        self._bases = chain.bases()
        self._whole: set[str] = set()

    def missing(self, name: str) -> str | None:
        """The row that is not there of those that a value is read from, if there is one."""
        at: str | None = name
        while at is not None and at not in self._whole:
            if at not in self._bases:
                return at
            self._whole.add(at)
            at = self._bases[at]
        return None


def _plain(save: Save) -> tuple[object, ...]:
    """Rows to be compared; labels are hashes of what else is compared."""
    row = save.checkpoint and replace(save.checkpoint, labels=())
    return row, sorted(save.values, key=lambda value: (value.channel, value.version)), save.writes


def _read_back(there: Save, row: CheckpointRow, change: Transaction) -> Save:
    """The same rows as they lie in the target."""
    return Save(
        change.checkpoint(row.thread_id, row.ns, row.id),
        _values(there, row, change),
        change.writes(row.thread_id, row.ns, [row.id]),
    )


def _values(there: Save, row: CheckpointRow, change: Transaction) -> list[ValueRow]:
    """The value rows of a save as they lie in the target, as far as they do."""
    chains = list({(value.channel, value.root): None for value in there.values})
    names = {(value.channel, value.version) for value in there.values}
    found = change.chains(row.thread_id, row.ns, chains) if chains else []
    return [value for value in found if (value.channel, value.version) in names]


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()


def _fingerprint(thread: ThreadInfo) -> str:
    return f"{thread.checkpoints} {thread.checkpoint_id} {thread.size} {thread.updated}"
