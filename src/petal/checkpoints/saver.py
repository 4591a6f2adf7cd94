"""Petal's checkpoint saver: LangGraph's contract on any store, sync and async written once."""

from __future__ import annotations

import builtins
import copy
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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

from petal.checkpoints import lineage
from petal.checkpoints.engine import Engine
from petal.checkpoints.leases import LEASE, Leases
from petal.checkpoints.lifetime import Closable
from petal.checkpoints.names import hexadecimal
from petal.checkpoints.notes import Note, in_order, key_of
from petal.checkpoints.pruning import Upkeep, prune_all
from petal.checkpoints.recall import LIGHT, Found, Recall
from petal.checkpoints.records import (
    CheckpointQuery,
    OrphanedSave,
    Reader,
    Save,
    StaleSave,
    Store,
    Transaction,
    WouldWaitError,
)
from petal.checkpoints.retention import RetentionReport
from petal.checkpoints.rows import FENCE, FORK, HEAD, Namespace, Rows, Saved
from petal.checkpoints.search import Search
from petal.checkpoints.threads import CheckpointInfo, ThreadInfo, ThreadQuery
from petal.checkpoints.values import BUNDLED
from petal.checkpoints.verification import Damage, damages
from petal.core.config.checkpointer import Durability
from petal.core.config.retention import Retention
from petal.errors import CheckpointConflictError

T = TypeVar("T")

PAGE = 50
"""Checkpoints that `list` fetches at a time."""
CACHE_BYTES = 64 * 2**20
"""What the caches of encoded values and headers may take together by default."""


class PetalSaver(Closable, BaseCheckpointSaver[str]):
    """Keeps checkpoints linear on disk, durable when a save returns, for sync and async callers of any loop.

    Nothing is opened before the first use. Every method may raise `CheckpointerUnavailableError` (the storage
    cannot be used, or the saver is closed) and `CheckpointCorruptionError` (what lies there cannot be read).

    Attributes:
        durability: When a superstep counts as done, for runs that do not say.
        leases: Which runs have which threads.
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
        self._upkeep = None if retention is None else Upkeep(self._engine, rows, self._recall, retention)

    @property
    def where(self) -> str:
        """The storage as a URL, without any password."""
        return self._engine.store.where

    @property
    def cached(self) -> int:
        """Bytes that are held of threads which passed through; at most `cache_bytes`."""
        return self._recall.size

    def close(self) -> None:
        """Finishes what was begun, then closes all connections. Closing twice is fine."""
        if self._upkeep is not None:
            self._upkeep.close()
        self.leases.close()
        self._engine.close()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the newest of the thread in the config's namespace."""
        found = self._engine.read(partial(self._recall.found, Namespace.of(config), get_checkpoint_id(config)))
        return None if found is None else _begun(self._made(found), config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        if get_checkpoint_id(config) is None:
            place = Namespace.of(config)
            weight = self._recall.weight(place)
            if weight is None or weight <= LIGHT:
                with suppress(WouldWaitError):
                    head = await self._engine.head((place.thread_id, place.ns), at_once=weight is not None)
                    if head is None:
                        return None
                    if (found := self._recall.at_hand(head)) is not None:
                        return _begun(self._rows.checkpoint_tuple(*found), config)
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

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel, and nothing was saved.
        """
        place, parent = Namespace.of(config), get_checkpoint_id(config)
        known = self._recall.known(place, parent, checkpoint, new_versions)
        if known is None:
            known = self._engine.read(partial(self._recall.looked_up, place, parent, checkpoint, new_versions))
        made = self._rows.saved(place, config, checkpoint, metadata, new_versions, *known)
        with _conflicts(config):
            try:
                self._engine.save(made.save)
            except OrphanedSave:
                made = self._saved_anew(place, config, checkpoint, metadata, new_versions)
        return self._remembered(place, made)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        place, parent = Namespace.of(config), get_checkpoint_id(config)
        known = self._recall.known(place, parent, checkpoint, new_versions)
        if known is None:
            known = await self._engine.aread(partial(self._recall.looked_up, place, parent, checkpoint, new_versions))
        made = self._rows.saved(place, config, checkpoint, metadata, new_versions, *known)
        with _conflicts(config):
            try:
                await self._engine.asave(made.save)
            except OrphanedSave:
                anew = partial(self._saved_anew, place, config, checkpoint, metadata, new_versions)
                made = await self._engine.later(anew)
        return self._remembered(place, made)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Saves what a task wrote, until the next checkpoint holds it.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel, and nothing was saved.
        """
        with _conflicts(config):
            self._engine.save(self._written(config, writes, task_id, task_path))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        with _conflicts(config):
            await self._engine.asave(self._written(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Deletes all that a thread holds; an unknown one is no error."""
        self._change(partial(lineage.delete_threads, thread_ids=[str(thread_id)]), [str(thread_id)])

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._engine.later(partial(self.delete_thread, thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of runs, with their writes, and the values that no other checkpoint needs.

        Raises:
            CheckpointerError: If a delta channel of a checkpoint that stays is rebuilt from one of them.
        """
        self._change(partial(lineage.delete_for_runs, rows=self._rows, run_ids=_ids(run_ids)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._engine.later(partial(self.delete_for_runs, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all of a thread, so that the copy goes on where the source would.

        Raises:
            CheckpointNotFoundError: If the source has no checkpoints.
            CheckpointerError: If the target already has some.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        self._change(partial(lineage.copy_thread, rows=self._rows, source=source, target=target))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await self._engine.later(partial(self.copy_thread, source_thread_id, target_thread_id))

    def fork_thread(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> None:
        """Makes a thread that has the past of one checkpoint, and that checkpoint as its newest.

        Open questions of the checkpoint come along if it is its thread's newest; else it goes on from there
        as if the later ones had never been.

        Args:
            source_thread_id: The thread to fork.
            checkpoint_id: A checkpoint of its root namespace.
            target_thread_id: The thread to make.

        Raises:
            CheckpointNotFoundError: If the source or the checkpoint is unknown.
            CheckpointerError: If the target already has checkpoints.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        self._change(
            partial(lineage.fork_thread, rows=self._rows, source=source, checkpoint_id=checkpoint_id, target=target)
        )

    async def afork_thread(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> None:
        """As `fork_thread`."""
        await self._engine.later(partial(self.fork_thread, source_thread_id, checkpoint_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes what threads no longer need to go on; unknown threads are no error.

        Args:
            thread_ids: The threads.
            strategy: `"keep_latest"` keeps the newest checkpoint of each namespace with its pending writes, and
                the ancestors from which delta channels are rebuilt; `"delete"` keeps nothing.

        Raises:
            ValueError: If the strategy is unknown.
        """
        ids = _ids(thread_ids)
        match strategy:
            case "keep_latest":
                self._change(partial(lineage.keep_latest, rows=self._rows, thread_ids=ids))
            case "delete":
                self._change(partial(lineage.delete_threads, thread_ids=ids), ids)
            case _:
                raise ValueError(f"No prune strategy {strategy!r}. Known: 'keep_latest', 'delete'.")

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await self._engine.later(partial(self.prune, thread_ids, strategy=strategy))

    def retain(
        self, policy: Retention, thread_ids: Sequence[str] | None = None, *, dry_run: bool = False
    ) -> RetentionReport:
        """Deletes what a policy does not keep: checkpoints with their writes, and values that none that stays needs.

        Each thread is one transaction. A run that goes on meanwhile loses nothing: what it saves next is written
        whole if what it began with is gone.

        Args:
            policy: Which checkpoints go.
            thread_ids: Only these threads, of which unknown ones are no error; None for all.
            dry_run: Only tell what would go.

        Returns:
            What went, and which threads could not be read; of these nothing went.
        """
        ids = None if thread_ids is None else _ids(thread_ids)
        return prune_all(self._engine, self._rows, self._recall, policy, ids, dry_run=dry_run)

    async def aretain(
        self, policy: Retention, thread_ids: Sequence[str] | None = None, *, dry_run: bool = False
    ) -> RetentionReport:
        """As `retain`."""
        return await self._engine.later(partial(self.retain, policy, thread_ids, dry_run=dry_run))

    def threads(
        self,
        limit: int = 50,
        before: ThreadInfo | None = None,
        *,
        search: str | None = None,
        status: str | None = None,
    ) -> builtins.list[ThreadInfo]:
        """A page of the index of threads, the one that changed last first.

        Args:
            limit: At most so many.
            before: Only those after this one in the list: the last of the page before.
            search: Only those whose id holds this text.
            status: Only those with this status.
        """
        query = ThreadQuery(limit, before, search, status)
        return [] if limit <= 0 else self._engine.read(lambda reader: reader.threads(query))

    async def athreads(
        self,
        limit: int = 50,
        before: ThreadInfo | None = None,
        *,
        search: str | None = None,
        status: str | None = None,
    ) -> builtins.list[ThreadInfo]:
        """As `threads`."""
        return await self._engine.later(partial(self.threads, limit, before, search=search, status=status))

    def checkpoints(
        self, thread_id: str, limit: int = 50, before: CheckpointInfo | None = None, *, ns: str | None = ""
    ) -> builtins.list[CheckpointInfo]:
        """A page of a thread's history, newest first, for which no value is read.

        Args:
            thread_id: The thread.
            limit: At most so many.
            before: Only those after this one in the list: the last of the page before.
            ns: The namespace; None for all.
        """
        after = None if before is None else (before.checkpoint_id, before.thread_id, before.ns)
        query = CheckpointQuery(thread_id=str(thread_id), ns=ns, after=after, limit=limit)
        rows = [] if limit <= 0 else self._engine.read(lambda reader: reader.checkpoints(query))
        return [self._rows.info(row) for row in rows]

    async def acheckpoints(
        self, thread_id: str, limit: int = 50, before: CheckpointInfo | None = None, *, ns: str | None = ""
    ) -> builtins.list[CheckpointInfo]:
        """As `checkpoints`."""
        return await self._engine.later(partial(self.checkpoints, thread_id, limit, before, ns=ns))

    def notes(self, thread_id: str, channel: str) -> builtins.list[Note]:
        """What was noted on the checkpoints of a thread; see `petal.checkpoints.notes`."""
        rows = self._engine.read(lambda reader: reader.notes(str(thread_id), channel))
        return in_order(
            Note(row.thread_id, row.ns, row.checkpoint_id, key, self._rows.write(row)[2])
            for row in rows
            if (key := key_of(row.task_id)) is not None
        )

    async def anotes(self, thread_id: str, channel: str) -> builtins.list[Note]:
        """As `notes`."""
        return await self._engine.later(partial(self.notes, thread_id, channel))

    def verify(self, thread_id: str | None = None) -> builtins.list[Damage]:
        """Reads every row of a thread, or of all threads, and tells which are damaged."""
        return self._engine.read(lambda reader: builtins.list(damages(reader, self._rows, thread_id)))

    async def averify(self, thread_id: str | None = None) -> builtins.list[Damage]:
        """As `verify`."""
        return await self._engine.later(partial(self.verify, thread_id))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What delta channels are rebuilt from, as LangGraph asks for it."""
        place, id = Namespace.of(config), get_checkpoint_id(config)
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
        clone = copy.copy(self)
        clone._rows = self._rows.allowing(extra_allowlist)
        return clone

    def _written(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> Save:
        id = get_checkpoint_id(config)
        if id is None:
            raise ValueError("put_writes needs the checkpoint_id that the writes belong to.")
        lease = config["configurable"].get(LEASE)
        return self._rows.writes(Namespace.of(config), id, writes, task_id, task_path, lease)

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
            known = self._recall.looked_up(place, get_checkpoint_id(config), checkpoint, new_versions, change)
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
        row, header, versions, writes = found
        made = self._rows.checkpoint_tuple(row, header, versions, writes)
        self._recall.remember(Namespace(row.thread_id, row.ns), header.outline, versions)
        return made

    def _page(self, search: Search) -> tuple[builtins.list[CheckpointTuple], Search | None]:
        """The checkpoints of a page that match, and the search for the next page."""

        def ask(reader: Reader) -> builtins.list[Found]:
            wanted = []
            for row in reader.checkpoints(search.query):
                if search.matches(row, self._rows):
                    wanted.append(row)
                search.passed(row)
            return self._recall.found_all(wanted, reader)

        if search.query.limit <= 0:
            return [], None
        page = self._engine.read(ask)
        return [self._rows.checkpoint_tuple(*found) for found in page], search.following()

    def _change(self, work: Callable[[Transaction], T], thread_ids: Sequence[str] = ()) -> T:
        done = self._engine.change(work)
        for thread_id in thread_ids:
            self._recall.forget(thread_id)
        return done


def _begun(found: CheckpointTuple, config: RunnableConfig) -> CheckpointTuple:
    """Says, in each save of a run that goes on from here, whether it named the checkpoint where it began."""
    configurable = found.config["configurable"]
    if not configurable["checkpoint_ns"]:
        configurable[FENCE] = HEAD if get_checkpoint_id(config) is None else FORK
    return found


@contextmanager
def _conflicts(config: RunnableConfig) -> Iterator[None]:
    try:
        yield
    except StaleSave as error:
        raise CheckpointConflictError(str(config["configurable"]["thread_id"]), lost=error.lost) from None


def _ids(ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"A list of ids is needed, not the text {ids!r}")
    return [str(id) for id in ids]
