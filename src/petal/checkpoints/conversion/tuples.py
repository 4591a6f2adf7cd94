"""Threads of LangGraph's tables: read as LangGraph reads them, and saved as runs save them, parents first."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from typing import cast

from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from petal.checkpoints.chains import BUNDLED
from petal.checkpoints.codec import ValueNotSavableError
from petal.checkpoints.conversion.content import Content, contents, digest, expect, together
from petal.checkpoints.conversion.source import Different, Tick, changed, moment, newest
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.langgraph.dialect import Key, Row
from petal.checkpoints.langgraph.exact import UNDECLARED, exact
from petal.checkpoints.langgraph.serde import NamingSerializer
from petal.checkpoints.lineage import bundle
from petal.checkpoints.recall import Recall
from petal.checkpoints.records import OrphanedSave, Save, Status, Transaction, WriteRow
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.threads import ThreadInfo
from petal.checkpoints.values import split
from petal.errors import CheckpointerError

_PAGE = 10_000
"""Threads at a time: LangGraph keeps no index of them, so that each page takes a look at all checkpoints."""
_CACHE_BYTES = 64 * 2**20


class LangGraphSource:
    """LangGraph's tables, of any storage.

    Args:
        saver: Opened on them.
        target: How the target keeps values.
        types: Types that may be made, beside LangGraph's safe ones.
    """

    def __init__(self, saver: LangGraphSaver, target: Rows, types: Iterable[type]) -> None:
        self._saver, self.target = copy.copy(saver), target
        self._saver.serde, self._reading = exact(saver.serde, types)

    def threads(self) -> Iterator[ThreadInfo]:
        before = None
        while page := self._saver.threads(_PAGE, before):
            yield from page
            before = page[-1]

    @contextmanager
    def copying(self, thread: ThreadInfo) -> Iterator[TupleCopying]:
        yield TupleCopying(self, thread.thread_id)

    def rows(self, thread_id: str) -> list[Row]:
        """All checkpoints of a thread, without their values."""
        storage = self._saver.storage
        return storage.run(lambda: storage.dialect.rows(thread_id))

    def fingerprint(self, thread_id: str, rows: Iterable[Row]) -> str:
        """Changes with whatever is saved in a thread."""
        storage = self._saver.storage
        written = storage.run(lambda: storage.dialect.written(thread_id))
        known = sorted((row.ns, row.id, row.parent or "") for row in rows)
        return blake2b(repr((known, sorted(written))).encode(), digest_size=16).hexdigest()

    def orphans(self, thread_id: str, known: Set[Key]) -> list[Key]:
        """Checkpoints that have writes and are not there."""
        storage = self._saver.storage
        written = storage.run(lambda: storage.dialect.written(thread_id))
        return sorted({(write.ns, write.checkpoint_id) for write in written} - known)

    def checkpoint(self, place: Namespace, id: str) -> CheckpointTuple:
        """One checkpoint, with each value as it was saved.

        Raises:
            CheckpointerError: If one of its types is not allowed, is gone or has changed.
        """
        found = self._saver.get_tuple(place.config(id))
        if found is None:
            raise Different(place.named(f"checkpoint {id!r}"))
        if self._reading is not None and self._reading.problems:
            raise self._refusal(self._culprit(place, id, found))
        return found

    def writes(self, place: Namespace, id: str) -> list[WriteRow]:
        """The pending writes of a checkpoint in the order of their tasks, not sealed yet."""
        storage = self._saver.storage
        pending = storage.run(lambda: storage.dialect.pending(place.thread_id, place.ns, id))
        rows = []
        for write in sorted(pending, key=lambda write: (write.task_path, write.task_id, write.idx)):
            where = place.named(f"a write to channel {write.channel!r} of checkpoint {id!r}")
            value = NamingSerializer(self._saver.serde, where).loads_typed(write.value)
            if self._reading is not None and self._reading.problems:
                raise self._refusal(where)
            data = self.target.codec.encode(value, where)
            task = write.task_id, write.idx, write.channel, write.task_path
            rows.append(WriteRow(place.thread_id, place.ns, id, *task, data))
        return rows

    def _culprit(self, place: Namespace, id: str, found: CheckpointTuple) -> str:
        """What to call the part of a checkpoint that holds what could not be made."""
        held = [(f"channel {channel!r}", value) for channel, value in found.checkpoint["channel_values"].items()]
        written = [(f"a write to channel {channel!r}", value) for _, channel, value in found.pending_writes or ()]
        for what, value in (*held, *written):
            try:
                self.target.codec.encode(value)
            except ValueNotSavableError:
                return place.named(f"{what} of checkpoint {id!r}")
        return place.named(f"checkpoint {id!r}")

    def _refusal(self, where: str) -> CheckpointerError:
        assert self._reading is not None
        name, problem = next(iter(self._reading.problems.items()))
        self._reading.problems.clear()
        if problem == UNDECLARED:
            module, _, qualname = name.rpartition(".")
            problem += f": name it with --allow {module}:{qualname}, or in code with allow=[{qualname}]"
        return CheckpointerError(f"{where} holds a {name}, and {problem}. The thread was not converted whole.")


class TupleCopying:
    """One thread, each namespace for itself, parents before their children."""

    def __init__(self, source: LangGraphSource, thread_id: str) -> None:
        self._source, self._rows, self._thread_id = source, source.target, thread_id
        known = source.rows(thread_id)
        if not known:
            raise changed(thread_id)
        self.fingerprint = source.fingerprint(thread_id, known)
        self._known = {row.key: row for row in in_order(known)}
        self.order: Sequence[Key] = list(self._known)
        self.head = newest(self.order)
        self._saving = replace(self._rows, metadata_keys=frozenset())  # it has its metadata already
        self._recall = Recall(self._saving, _CACHE_BYTES)
        self._last: Content | None = None

    def copy(self, change: Transaction, keys: Sequence[Key], tick: Tick) -> None:
        self._gone_through(change, keys, tick, copies=True)

    def compare(self, change: Transaction, keys: Sequence[Key], tick: Tick) -> None:
        self._gone_through(change, keys, tick, copies=False)

    def end(self, change: Transaction, *, copies: bool) -> None:
        for ns, id in self._source.orphans(self._thread_id, self._known.keys()):
            self._orphan(change, Namespace(self._thread_id, ns), id, copies=copies)
        if self.fingerprint != self._source.fingerprint(self._thread_id, self._source.rows(self._thread_id)):
            raise changed(self._thread_id)

    def _gone_through(self, change: Transaction, keys: Sequence[Key], tick: Tick, *, copies: bool) -> None:
        done = 0
        for some in together(keys):
            expected = []
            for key in some:
                expected.append(self._one(change, self._known[key], copies=copies))
                tick(done := done + 1)
            expect(expected, change, self._rows)

    def _one(self, change: Transaction, row: Row, *, copies: bool) -> Content:
        """What must be read back of one checkpoint, which is saved or was."""
        place, codec = Namespace(self._thread_id, row.ns), self._rows.codec
        found = self._source.checkpoint(place, row.id)
        writes = self._source.writes(place, row.id)
        content = Content(
            place,
            row.id,
            row.parent,
            cast(Checkpoint, {"updated_channels": None, **found.checkpoint, "channel_values": {}}),
            codec.encode(dict(found.metadata), place.named(f"the metadata of checkpoint {row.id!r}")),
            {
                channel: digest(split(value, codec, place.named(f"channel {channel!r} of checkpoint {row.id!r}")))
                for channel, value in found.checkpoint["channel_values"].items()
            },
            writes,
        )
        if copies:
            save = self._saved(change, found, content)
            save.writes, save.now = writes, moment(found.checkpoint["ts"])
            save.status = _status(save.status, writes) if row.key == self.head else None
            try:
                change.save(self._rows.sealed([save])[0])
            except OrphanedSave:
                raise Different(place.named(f"checkpoint {row.parent!r}")) from None
        self._last = content
        return content

    def _saved(self, change: Transaction, found: CheckpointTuple, content: Content) -> Save:
        """The rows of a checkpoint: its values as changes of its parent's."""
        place, parent_id, checkpoint = content.place, content.parent_id, found.checkpoint
        parent = self._parent(change, place, parent_id)
        versions = {} if parent is None else parent.checkpoint["channel_versions"]
        kept = {} if parent is None else parent.values
        # LangGraph's SQLite tables hold each value whole, so one may have been changed in place under its old version.
        new: ChannelVersions = {
            channel: checkpoint["channel_versions"].get(channel, "")
            for channel, value in content.values.items()
            if kept.get(channel) != value or checkpoint["channel_versions"].get(channel, "") != versions.get(channel)
        }
        known = self._recall.known(place, parent_id, checkpoint, new)
        known = known or self._recall.looked_up(place, parent_id, checkpoint, new, change)
        config = place.config(content.id) if parent_id is None else place.config(parent_id)
        if parent_id is None:
            del config["configurable"]["checkpoint_id"]
        made = self._saving.saved(place, config, checkpoint, found.metadata, new, *known)
        for channel, version in made.versions.items():
            if len(version.alone) >= BUNDLED:
                bundle(change, self._rows, place, channel, version.alone, made.save.now)
                made.versions[channel] = replace(version, alone=())
        self._recall.remember(place, made.outline, made.versions)
        return made.save

    def _parent(self, change: Transaction, place: Namespace, id: str | None) -> Content | None:
        """A checkpoint that was saved before."""
        if self._last is not None and (self._last.place, self._last.id) == (place, id):
            return self._last
        row = None if id is None else change.checkpoint(place.thread_id, place.ns, id)
        return None if row is None else contents([row], change, self._rows)[0]

    def _orphan(self, change: Transaction, place: Namespace, id: str, *, copies: bool) -> None:
        writes = self._source.writes(place, id)
        if copies:
            change.save(self._rows.sealed([Save(writes=writes)])[0])
        if writes != self._rows.unsealed(Save(writes=change.writes(place.thread_id, place.ns, [id]))).writes:
            raise Different(place.named(f"a write that waits at checkpoint {id!r}"))


def in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Each checkpoint after its parent, and where it can be right after it: it is saved as a change of that."""
    known = {row.key: row for row in sorted(rows, key=lambda row: row.key)}
    children: dict[Key | None, list[Row]] = {}
    for row in known.values():
        parent = None if row.parent is None or row.parent == row.id else (row.ns, row.parent)
        children.setdefault(parent if parent in known else None, []).append(row)
    left = dict(known)
    while left:
        # A loop of parents has no beginning, so that it begins anywhere.
        waiting = children.pop(None, None) or [next(iter(left.values()))]
        waiting.reverse()
        while waiting:
            row = waiting.pop()
            if left.pop(row.key, None) is not None:
                yield row
                waiting += reversed(children.get(row.key, ()))


def _status(status: Status | None, writes: Iterable[WriteRow]) -> Status | None:
    """How a thread stands by its newest checkpoint, which alone would stand so."""
    channels = {write.channel for write in writes}
    if status is None or not channels & {INTERRUPT, ERROR}:
        return status
    return "waiting" if INTERRUPT in channels else "failed"
