"""Threads of Petal's own tables: rows are opened where they lie and sealed where they go, and no value is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import cast

from petal.checkpoints.codec import Codec
from petal.checkpoints.conversion.content import TOGETHER, contents, expect
from petal.checkpoints.conversion.source import Different, Tick
from petal.checkpoints.lineage import checkpoints_of
from petal.checkpoints.records import CheckpointRow, Reader, Save, Status, Transaction
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.threads import ThreadInfo
from petal.checkpoints.values import Chain, base_of
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
    """One thread, its newest checkpoint first."""

    def __init__(self, saver: PetalSaver, target: Rows, thread: ThreadInfo) -> None:
        self._read = saver._engine.read
        self._source, self._target, self._thread = saver._rows, target, thread
        # Of the metadata only plain values are looked at, so its types need not be known.
        self._codec = Codec(saver._rows.codec.allowed, on_decode_error="raw")
        self.fingerprint = f"{thread.checkpoints} {thread.checkpoint_id} {thread.size} {thread.updated}"
        self.head = ("", thread.checkpoint_id)

    def copy(self, change: Transaction, mark: bytes, tick: Tick) -> None:
        # If the connection to the source is lost, this begins again, and writes the same rows once more.
        self._read(lambda reader: self._copied(reader, change, mark, tick))

    def compare(self, change: Transaction, tick: Tick) -> None:
        self._read(lambda reader: self._compared(reader, change, tick))

    def _copied(self, reader: Reader, change: Transaction, mark: bytes, tick: Tick) -> None:
        updated = self._thread.updated
        for done, there in enumerate(self._saves(reader), 1):
            save = self._source.unsealed(there)
            row = save.checkpoint
            assert row is not None
            save.checkpoint = replace(row, labels=self._labels(row, mark))
            save.status = cast("Status | None", self._thread.status)
            # An entry of the index begins with what is saved first.
            moment = self._thread.created if done == 1 else updated
            save.now = "" if moment is None else moment.isoformat()
            change.save(self._target.sealed([save])[0])
            if _plain(save) != _plain(self._target.unsealed(_read_back(save, row, change))):
                raise Different(Namespace(row.thread_id, row.ns).named(f"checkpoint {row.id!r}"))
            tick(done)

    def _labels(self, row: CheckpointRow, mark: bytes) -> tuple[bytes, ...]:
        """The labels of a checkpoint, of which the target's key makes others than the source's did."""
        where = Namespace(row.thread_id, row.ns).named(f"the metadata of checkpoint {row.id!r}")
        labels = self._target._labels(self._codec.decode(row.metadata, where))
        return (*labels, mark) if (row.ns, row.id) == self.head else labels

    def _compared(self, reader: Reader, change: Transaction, tick: Tick) -> None:
        """By what the checkpoints hold, since the rows may have been made in another way."""
        done = 0
        rows = checkpoints_of(reader, self._thread.thread_id)
        while page := list(islice(rows, TOGETHER)):
            expect(contents(page, reader, self._source)[::-1], change, self._target)
            done += len(page)
            tick(done)
        if done != sum(1 for _ in checkpoints_of(change, self._thread.thread_id)):
            raise Different(f"the number of checkpoints of thread {self._thread.thread_id!r}")

    def _saves(self, reader: Reader) -> Iterator[Save]:
        """Each checkpoint with its writes, and with the chains that no newer one has brought along."""
        chains: dict[tuple[str, str, str], _Bases] = {}
        for row in checkpoints_of(reader, self._thread.thread_id):
            spots = self._source.header(row).spots
            new = [
                (channel, spot.root) for channel, spot in spots.items() if (row.ns, channel, spot.root) not in chains
            ]
            values = reader.chains(row.thread_id, row.ns, new) if new else []
            for channel, root in new:
                chains[row.ns, channel, root] = _Bases(self._source.chain(values, channel, root))
            for channel, spot in spots.items():
                if (gone := chains[row.ns, channel, spot.root].missing(spot.row)) is not None:
                    where = Namespace(row.thread_id, row.ns).named(f"channel {channel!r} of checkpoint {row.id!r}")
                    raise CheckpointCorruptionError(where, f"the row {gone!r} is missing")
            yield Save(row, values, reader.writes(row.thread_id, row.ns, [row.id]))


class _Bases:
    """The names of a chain's rows, and which of them are changes of which."""

    def __init__(self, chain: Chain) -> None:
        self._bases = {name: base_of(data) for name, data in chain.rows.items()}
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
    chains = list({(value.channel, value.root): None for value in there.values})
    return Save(
        change.checkpoint(row.thread_id, row.ns, row.id),
        change.chains(row.thread_id, row.ns, chains) if chains else [],
        change.writes(row.thread_id, row.ns, [row.id]),
    )
