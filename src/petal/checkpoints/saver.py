"""Petal's checkpoint saver: LangGraph's contract on any store, sync and async written once."""

from __future__ import annotations

import builtins
import copy
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)

from petal.checkpoints import clock, lineage, undoing
from petal.checkpoints.chains import BUNDLED
from petal.checkpoints.engine import Engine
from petal.checkpoints.leases import LEASE, Conflicts, Leases
from petal.checkpoints.lifetime import Closable
from petal.checkpoints.names import hexadecimal
from petal.checkpoints.order import Unsettled, goes_ahead
from petal.checkpoints.pruning import Upkeep
from petal.checkpoints.recall import LIGHT, AtHand, Recall
from petal.checkpoints.records import (
    Head,
    OrphanedSave,
    Reader,
    Save,
    Store,
    Transaction,
    WouldWaitError,
)
from petal.checkpoints.rows import FENCE, FORK, HEAD, Found, Namespace, Rows, Saved, checkpoint_id_of
from petal.checkpoints.search import Search
from petal.checkpoints.whole_threads import WholeThreads
from petal.core.config.checkpointer import Durability
from petal.core.config.retention import Retention
from petal.errors import CheckpointCorruptionError

T = TypeVar("T")

PAGE = 50
"""Checkpoints that `list` fetches at a time."""
CACHE_BYTES = 64 * 2**20
"""What the caches of encoded values and headers may take together by default."""


class PetalSaver(WholeThreads, Closable, BaseCheckpointSaver[str]):
    """Keeps checkpoints linear on disk, durable when a save returns, for sync and async callers of any loop.

    Nothing is opened before the first use. Every method may raise `CheckpointerUnavailableError` (the storage
    cannot be used, or the saver is closed) and `CheckpointCorruptionError` (what lies there cannot be read).

    Attributes:
        durability: When a superstep counts as done, for runs that do not say.
        leases: Which runs have which threads.
        unsettled: What tasks of runs wrote that is not on disk yet.
    """

    def __init__(
        self,
        store: Store,
        rows: Rows,
        *,
        durability: Durability = "sync",
        cache_bytes: int = CACHE_BYTES,
        retention: Retention | None = None,
    ) -> None:
        super().__init__()
        self.durability: Durability = durability
        self._rows = rows
        self._engine = Engine(store, rows.seal)  # shared by the clones that with_allowlist makes
        self._recall = Recall(rows, cache_bytes)
        self.leases = Leases(self._engine)
        self.unsettled = Unsettled()
        self._upkeep = None if retention is None else Upkeep(self._engine, rows, self._recall, retention)

    @property
    def where(self) -> str:
        """The storage as a URL, without any password."""
        return self._engine.store.where

    @property
    def cached(self) -> int:
        """Bytes that are held of threads which passed through; at most `cache_bytes`."""
        return self._recall.size

    @property
    def rows(self) -> Rows:
        """What makes and opens the rows that it keeps; with the next three for what in this package works on rows."""
        return self._rows

    def with_rows(self, rows: Rows) -> Self:
        """A clone on the same storage that makes and opens them so."""
        clone = copy.copy(self)
        clone._rows = rows
        return clone

    def read_rows(self, ask: Callable[[Reader], T]) -> T:
        """What `ask` reads, from one consistent view."""
        return self._engine.read(ask)

    def change_rows(self, thread_id: str, work: Callable[[Transaction], T]) -> T:
        """What `work` returns after its transaction, which changes one thread, is durable."""
        try:
            return self._engine.change(work)
        finally:
            self._recall.forget(thread_id)

    def close(self) -> None:
        """Finishes what was begun, then closes all connections. Closing twice is fine."""
        if self._upkeep is not None:
            self._upkeep.close()
        self.leases.close()
        self._engine.close()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the newest of the thread in the config's namespace."""
        found = self._engine.read(partial(self._recall.found, Namespace.of(config), checkpoint_id_of(config)))
        return None if found is None else self._begun(self._made(found), found, config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        if checkpoint_id_of(config) is None:
            place = Namespace.of(config)
            held = self._recall.at_hand(place)
            if held is None or held.size <= LIGHT:
                if held is not None and (found := self._seen(place, held)) is not None:
                    return self._begun(self._rows.checkpoint_tuple(found), found, config)
                with suppress(WouldWaitError):
                    head = await self._engine.head(place)
                    if head is None:
                        return None
                    if held is not None and (found := self._recall.completed(head, held)) is not None:
                        return self._begun(self._rows.checkpoint_tuple(found), found, config)
                    return await self._engine.later(partial(self._read_on, head, config))
        return await self._engine.later(partial(self.get_tuple, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, fetched page by page while they are read.

        No lock and no connection is held between two of them: the loop may use the saver and may end early.

        Args:
            config: The thread, and within it the namespace and the checkpoint; None for all threads.
            filter: Only those whose metadata has these values.
            before: Only those older than the checkpoint that this config names.
            limit: At most so many.
        """
        search: Search | None = Search.of(config, filter, before, limit, self._rows)
        while search is not None:
            page, search = self._page(search)
            yield from page

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        search: Search | None = Search.of(config, filter, before, limit, self._rows)
        while search is not None:
            page, search = await self._engine.later(partial(self._page, search))
            for found in page:
                yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Saves a checkpoint; it is durable when this returns.

        That of a graph's input, where LangGraph's loop saves it, is when the next one is: the loop does not wait for it
        before either.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel, and nothing was saved.
            Exception: What went wrong when the run saved its input, or what its tasks wrote, on the way here.
        """
        place, parent = Namespace.of(config), _base_of(config, checkpoint)
        self.unsettled.check(place, config)
        known = self._recall.known(place, parent, checkpoint, new_versions)
        if known is None:
            self.unsettled.settle(place, config)
            known = self._engine.read(partial(self._recall.looked_up, place, parent, checkpoint, new_versions))
        made = self._rows.saved(place, config, checkpoint, metadata, new_versions, *known)
        if not self._goes_ahead(place, config, made):
            with Conflicts(place.thread_id):
                try:
                    self._engine.save(made.save)
                except OrphanedSave:
                    self.unsettled.settle(place, config)
                    made = self._saved_anew(place, config, checkpoint, metadata, new_versions)
            self.unsettled.settle(place, config)
            self._has_saved(made.save)
        return self._remembered(place, made)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        place, parent = Namespace.of(config), _base_of(config, checkpoint)
        self.unsettled.check(place, config)
        known = self._recall.known(place, parent, checkpoint, new_versions)
        if known is None:
            await self.unsettled.asettle(place, config)
            known = await self._engine.aread(partial(self._recall.looked_up, place, parent, checkpoint, new_versions))
        made = self._rows.saved(place, config, checkpoint, metadata, new_versions, *known)
        if not self._goes_ahead(place, config, made):
            with Conflicts(place.thread_id):
                try:
                    await self._engine.asave(made.save)
                except OrphanedSave:
                    await self.unsettled.asettle(place, config)
                    anew = partial(self._saved_anew, place, config, checkpoint, metadata, new_versions)
                    made = await self._engine.later(anew)
            await self.unsettled.asettle(place, config)
            self._has_saved(made.save)
        return self._remembered(place, made)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Saves what a task wrote, until the next checkpoint holds it.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel, and nothing was saved.
        """
        place = Namespace.of(config)
        with self.unsettled.saving(place, config, task_id), Conflicts(place.thread_id):
            self._engine.save(self._written(place, config, writes, task_id, task_path))
            undoing.is_noted(self.leases.of(config), place, config["configurable"]["checkpoint_id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        place = Namespace.of(config)
        with self.unsettled.saving(place, config, task_id), Conflicts(place.thread_id):
            await self._engine.asave(self._written(place, config, writes, task_id, task_path))
            undoing.is_noted(self.leases.of(config), place, config["configurable"]["checkpoint_id"])

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What delta channels are rebuilt from, as LangGraph asks for it."""
        place, id = Namespace.of(config), checkpoint_id_of(config)
        return self._engine.read(partial(lineage.delta_history, rows=self._rows, place=place, id=id, channels=channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await self._engine.later(partial(self.get_delta_channel_history, config=config, channels=channels))

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`: a number that keeps its width, and chance, so that forks don't collide."""
        number, _, _ = (current or "0000000000").partition(".")
        return f"{int(number) + 1:0{len(number)}d}.{hexadecimal(12)}"

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """A clone on the same storage that also loads these types, named as LangGraph names them."""
        return self.with_rows(self._rows.allowing(extra_allowlist))

    def _written(
        self, place: Namespace, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Save:
        id = get_checkpoint_id(config)  # an empty one, too: that is where a thread without checkpoints is noted on
        if id is None:
            raise ValueError("put_writes needs the checkpoint_id that the writes belong to.")
        save = self._rows.writes(place, id, writes, task_id, task_path, config["configurable"].get(LEASE))
        return undoing.with_note(save, self.leases.of(config), self._rows, place, id)

    def _goes_ahead(self, place: Namespace, config: RunnableConfig, made: Saved) -> bool:
        """Whether this is the input of a run that does not wait for it; then saving it has begun."""
        save = made.save
        is_input = save.checkpoint is not None and save.checkpoint.source == "input"
        if not (is_input and goes_ahead(config) and self._engine.is_open):
            return False
        save.is_ahead = True
        saving = self._engine.begin_save(save)
        self.unsettled.ahead(place, config, made.outline.id, saving, partial(self._has_saved, save))
        return True

    def _has_saved(self, save: Save) -> None:
        """Take note that a checkpoint is on disk."""
        if save.lease is not None and save.checkpoint is not None and not save.checkpoint.ns:
            self.leases.has_saved(save.lease)

    def _saved_anew(
        self,
        place: Namespace,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Saved:
        """Save a checkpoint whose parent was deleted meanwhile, looked up again in the transaction that writes it."""
        self._recall.forget(place.thread_id)

        def work(change: Transaction) -> Saved:
            known = self._recall.looked_up(place, _base_of(config, checkpoint), checkpoint, new_versions, change)
            made = self._rows.saved(place, config, checkpoint, metadata, new_versions, *known)
            change.save(self._rows.sealed([made.save])[0])
            return made

        return self._engine.change(work)

    def _remembered(self, place: Namespace, made: Saved) -> RunnableConfig:
        """Keep what was saved at hand, bundle what has become many rows, and name the checkpoint."""
        for channel, version in made.versions.items():
            if len(version.alone) >= BUNDLED:
                self._engine.begin(
                    partial(
                        lineage.bundle,
                        rows=self._rows,
                        place=place,
                        channel=channel,
                        names=version.alone,
                        now=made.save.now,
                    )
                )
                made.versions[channel] = replace(version, alone=())
        self._recall.remember(place, made.outline, made.versions)
        if self._upkeep is not None:
            self._upkeep.saved()
        return place.config(made.outline.id)

    def _made(self, found: Found) -> CheckpointTuple:
        made = self._rows.checkpoint_tuple(found)
        self._recall.remember(found.place, found.header.outline(found.metadata), found.versions)
        return made

    def _seen(self, place: Namespace, held: AtHand) -> Found | None:
        """What is at hand, if the store says at once that it is the newest checkpoint still."""
        try:
            newest = self._engine.glance(place)
        except WouldWaitError:
            return None
        return None if newest is None else self._recall.seen(place, newest, held)

    def _read_on(self, head: Head, config: RunnableConfig) -> CheckpointTuple | None:
        """The newest checkpoint, of which a head was read."""
        try:
            found = self._engine.read(partial(self._recall.read_on, head))
        except CheckpointCorruptionError:  # or it was deleted meanwhile; read as a whole, it tells
            return self.get_tuple(config)
        return self._begun(self._made(found), found, config)

    def _begun(self, made: CheckpointTuple, found: Found, config: RunnableConfig) -> CheckpointTuple:
        """Says, in each save of a run that goes on from here, whether it named the checkpoint where it began."""
        undoing.found_by(self.leases.of(config), found)
        clock.follow(made.checkpoint["id"])
        configurable = made.config["configurable"]
        if not configurable["checkpoint_ns"]:
            configurable[FENCE] = HEAD if checkpoint_id_of(config) is None else FORK
        return made

    def _page(self, search: Search) -> tuple[builtins.list[CheckpointTuple], Search | None]:
        """The checkpoints of a page that match, and the search for the next page."""

        def ask(reader: Reader) -> tuple[builtins.list[Found], Search | None]:
            here, wanted = replace(search), []  # it is asked once more if the connection is lost meanwhile
            for row in reader.checkpoints(here.query):
                if here.matches(row, self._rows):
                    wanted.append(row)
                here.passed(row)
            return self._recall.found_all(wanted, reader), here.following()

        if search.query.limit <= 0:
            return [], None
        page, following = self._engine.read(ask)
        return [self._rows.checkpoint_tuple(found) for found in page], following


def _base_of(config: RunnableConfig, checkpoint: Checkpoint) -> str | None:
    """The parent that a checkpoint may be saved as a change of.

    Who saves once more what was loaded, under the config that came with it, names the checkpoint as its own parent.
    """
    parent = checkpoint_id_of(config)
    return None if parent == checkpoint["id"] else parent
