"""One checkpoint saver for sync and async callers of any event loop, over LangGraph's own."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar, cast

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
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from petal.checkpoints import clock
from petal.checkpoints.langgraph import lineage
from petal.checkpoints.langgraph.dialect import Dialect
from petal.checkpoints.langgraph.serde import NamingSerializer
from petal.checkpoints.langgraph.storage import Storage
from petal.checkpoints.lifetime import Closable
from petal.checkpoints.notes import Note, in_order, key_of, notes_of
from petal.checkpoints.threads import CheckpointInfo, ThreadInfo, made_at, thread_named
from petal.core.config.checkpointer import Durability

T = TypeVar("T")

PAGE = 50
"""Checkpoints that `list` fetches at a time."""

_VERSIONS = InMemorySaver()


class LangGraphSaver(Closable, BaseCheckpointSaver[str]):
    """LangGraph's saver of one storage, made whole: sync and async, shared by threads, closed properly.

    Sync methods work on the caller's thread, also inside a running event loop; async ones do the same on
    a worker thread. Nothing is opened before the first use. Every method may raise
    `CheckpointerUnavailableError` (the storage cannot be used, or the saver is closed) and
    `CheckpointCorruptionError` (what lies there cannot be read).

    Attributes:
        durability: When a superstep counts as done, for runs that do not say.
        storage: What it asks; for what in this package works on LangGraph's rows.
    """

    def __init__(self, dialect: Dialect, *, durability: Durability, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self.durability: Durability = durability
        self.storage = Storage(dialect)  # shared by the clones that with_allowlist makes

    @property
    def where(self) -> str:
        """The storage as a URL, without any password."""
        return self.storage.dialect.where

    def close(self) -> None:
        """Waits for running operations, then closes all connections. Closing twice is fine."""
        self.storage.close()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the thread's newest in the config's namespace."""
        config = _named(config)
        found = self._ask(lambda saver: saver.get_tuple(config), config)
        if found is not None:
            clock.follow(found.checkpoint["id"])
        return found

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Like `get_tuple`."""
        return await self.storage.later(partial(self.get_tuple, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first, fetched while they are read where the config names thread and namespace.

        No lock and no connection is held between two of them: the loop may use the saver and may end early.

        Args:
            config: The thread, and within it the namespace and the checkpoint; None for all threads.
            filter: Only those whose metadata has these values.
            before: Only those older than the checkpoint that this config names.
            limit: At most so many.
        """
        page = partial(self._page, config and _named(config), filter)
        found = page(before, limit)
        while found:
            yield from found
            before, limit = _after(found, limit)
            found = page(before, limit) if _pages(config, found) else []

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[CheckpointTuple, None]:
        """Like `list`."""
        page = partial(self._page, config and _named(config), filter)
        found = await self.storage.later(partial(page, before, limit))
        while found:
            for checkpoint in found:
                yield checkpoint
            before, limit = _after(found, limit)
            found = await self.storage.later(partial(page, before, limit)) if _pages(config, found) else []

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Saves a checkpoint, durably when this returns.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel, and nothing was saved.
        """
        config = _named(config, namespace=True)
        values = checkpoint["channel_values"]
        return self._ask(lambda saver: saver.put(config, checkpoint, metadata, new_versions), config, values.items())

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Like `put`."""
        return await self.storage.later(partial(self.put, config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Saves what a task wrote, until the next checkpoint holds it.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel, and nothing was saved.
        """
        config = _named(config, namespace=True)
        self._ask(lambda saver: saver.put_writes(config, writes, task_id, task_path), config, writes)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Like `put_writes`."""
        await self.storage.later(partial(self.put_writes, config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Deletes all that a thread holds; an unknown one is no error."""
        self.prune([thread_named(thread_id)], strategy="delete")

    async def adelete_thread(self, thread_id: str) -> None:
        """Like `delete_thread`."""
        await self.storage.later(partial(self.delete_thread, thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints whose metadata names one of the runs, and their pending writes, all or none.

        Raises:
            CheckpointerError: If a delta channel of a checkpoint that stays is rebuilt from one of them.
        """
        self._change(partial(lineage.delete_for_runs, run_ids=_ids(run_ids)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Like `delete_for_runs`."""
        await self.storage.later(partial(self.delete_for_runs, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints and writes of a thread, so that the copy goes on where the source would.

        Raises:
            CheckpointNotFoundError: If the source has no checkpoints.
            CheckpointerError: If the target already has some.
        """
        source, target = thread_named(source_thread_id), thread_named(target_thread_id)
        copy = partial(lineage.copy_thread, source=source, target=target)
        self._change(copy, repeatable=False)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Like `copy_thread`."""
        await self.storage.later(partial(self.copy_thread, source_thread_id, target_thread_id))

    def fork_thread(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> None:
        """Makes a thread that has the past of one checkpoint, and that checkpoint as its newest.

        Open questions of the checkpoint come along if nothing follows it; else it goes on from there as if the later
        ones had never been.

        Args:
            source_thread_id: The thread to fork.
            checkpoint_id: A checkpoint of its root namespace.
            target_thread_id: The thread to make.

        Raises:
            CheckpointNotFoundError: If the source or the checkpoint is unknown.
            CheckpointerError: If the target already has checkpoints.
        """
        fork = partial(
            lineage.fork_thread,
            source=thread_named(source_thread_id),
            checkpoint_id=checkpoint_id,
            target=thread_named(target_thread_id),
        )
        self._change(fork, repeatable=False)

    async def afork_thread(self, source_thread_id: str, checkpoint_id: str, target_thread_id: str) -> None:
        """Like `fork_thread`."""
        await self.storage.later(partial(self.fork_thread, source_thread_id, checkpoint_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes what threads no longer need to go on, in one transaction; unknown threads are no error.

        Args:
            thread_ids: The threads.
            strategy: `"keep_latest"` keeps the newest checkpoint of each namespace with its pending writes,
                but not the namespaces of subgraph calls that ended, nor what only has a name; `"delete"` keeps nothing.

        Raises:
            ValueError: If the strategy is unknown.
            CheckpointerError: If a delta channel is rebuilt from what would be deleted; nothing was changed.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"No prune strategy {strategy!r}. Known: 'keep_latest', 'delete'.")
        self._change(partial(lineage.prune, thread_ids=_ids(thread_ids), strategy=cast(lineage.Strategy, strategy)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Like `prune`."""
        await self.storage.later(partial(self.prune, thread_ids, strategy=strategy))

    def threads(self, limit: int = 50, before: ThreadInfo | None = None) -> builtins.list[ThreadInfo]:
        """The threads, newest first.

        Args:
            limit: At most so many.
            before: Only those after this one in the list: the last of the page before.
        """
        if limit <= 0:
            return []
        return self.storage.run(lambda: self.storage.dialect.heads(limit, before))

    async def athreads(self, limit: int = 50, before: ThreadInfo | None = None) -> builtins.list[ThreadInfo]:
        """Like `threads`."""
        return await self.storage.later(partial(self.threads, limit, before))

    def checkpoints(
        self, thread_id: str, limit: int = 50, before: CheckpointInfo | None = None, *, ns: str | None = ""
    ) -> builtins.list[CheckpointInfo]:
        """A page of a thread's history, newest first, for which no value is read, so the channels are not told.

        Args:
            thread_id: The thread.
            limit: At most so many.
            before: Only those after this one in the list: the last of the page before.
            ns: The namespace; None for all.
        """
        thread_id = str(thread_id)
        found = [
            CheckpointInfo(thread_id, row.ns, row.id, row.parent, _made(row.id), row.metadata, ())
            for row in self.storage.run(lambda: self.storage.dialect.outlined(thread_id))
            if ns in (None, row.ns) and (before is None or (row.id, row.ns) < (before.checkpoint_id, before.ns))
        ]
        found.sort(key=lambda info: (info.checkpoint_id, info.ns), reverse=True)
        return found[: max(0, limit)]

    async def acheckpoints(
        self, thread_id: str, limit: int = 50, before: CheckpointInfo | None = None, *, ns: str | None = ""
    ) -> builtins.list[CheckpointInfo]:
        """Like `checkpoints`."""
        return await self.storage.later(partial(self.checkpoints, thread_id, limit, before, ns=ns))

    def notes(self, thread_id: str, channel: str) -> builtins.list[Note]:
        """What was noted on the checkpoints of a thread; see `petal.checkpoints.notes`."""
        thread_id = str(thread_id)
        serde = NamingSerializer(self.serde, f"thread {thread_id!r} in {self.where}")
        return in_order(
            Note(thread_id, row.ns, row.checkpoint_id, key, serde.loads_typed(row.value))
            for row in self.storage.run(lambda: self.storage.dialect.noted(thread_id, channel))
            if (key := key_of(row.task_id)) is not None
        )

    async def anotes(self, thread_id: str, channel: str) -> builtins.list[Note]:
        """Like `notes`."""
        return await self.storage.later(partial(self.notes, thread_id, channel))

    def notes_at(self, config: RunnableConfig, channel: str) -> builtins.list[Note] | None:
        """What was noted on one checkpoint; None if it is not there."""
        kept = self.get_tuple(config)
        return None if kept is None else in_order(notes_of(kept, channel))

    async def anotes_at(self, config: RunnableConfig, channel: str) -> builtins.list[Note] | None:
        """Like `notes_at`."""
        return await self.storage.later(partial(self.notes_at, config, channel))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What delta channels are rebuilt from, as LangGraph asks for it."""
        config = _named(config)
        return self._ask(lambda saver: saver.get_delta_channel_history(config=config, channels=channels), config)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Like `get_delta_channel_history`."""
        return await self.storage.later(partial(self.get_delta_channel_history, config=config, channels=channels))

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`, in LangGraph's own format."""
        return _VERSIONS.get_next_version(current, channel)

    def _ask(
        self,
        question: Callable[[BaseCheckpointSaver[str]], T],
        config: RunnableConfig | None,
        channels: Sequence[tuple[str, Any]] | Any = (),
    ) -> T:
        serde = NamingSerializer(self.serde, _place(self.where, config), channels)

        def work() -> T:
            with self.storage.dialect.saver(serde) as saver:
                return question(saver)

        return self.storage.run(work)

    def _change(self, change: Callable[..., None], *, repeatable: bool = True) -> None:
        def work() -> None:
            with self.storage.dialect.transaction() as transaction:
                change(transaction)

        self.storage.run(work, repeatable=repeatable)

    def _page(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> builtins.list[CheckpointTuple]:
        if limit is not None and limit <= 0:
            return []
        if _names_one_namespace(config):
            limit = PAGE if limit is None else min(limit, PAGE)

        def page(saver: BaseCheckpointSaver[str]) -> builtins.list[CheckpointTuple]:
            return list(islice(saver.list(config, filter=filter, before=before, limit=limit), limit))

        return self._ask(page, config)


def _named(config: RunnableConfig, *, namespace: bool = False) -> RunnableConfig:
    """The config with its thread's id as text, and if asked for with a namespace."""
    configurable = config.get("configurable", {})
    thread_id = thread_named(configurable.get("thread_id"))
    default = {"checkpoint_ns": ""} if namespace else {}
    named = {**config, "configurable": {**default, **configurable, "thread_id": thread_id}}
    return cast(RunnableConfig, named)


def _made(checkpoint_id: str) -> str:
    moment = made_at(checkpoint_id)
    return "" if moment is None else moment.isoformat()


def _ids(ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"A list of ids is needed, not the text {ids!r}")
    return [str(id) for id in ids]


def _names_one_namespace(config: RunnableConfig | None) -> bool:
    """Whether checkpoint ids are unique within what the config names, so that they can mark a page's end."""
    return config is not None and config["configurable"].get("checkpoint_ns") is not None


def _pages(config: RunnableConfig | None, found: Sequence[CheckpointTuple]) -> bool:
    return _names_one_namespace(config) and len(found) == PAGE


def _after(found: Sequence[CheckpointTuple], limit: int | None) -> tuple[RunnableConfig, int | None]:
    return found[-1].config, None if limit is None else limit - len(found)


def _place(where: str, config: RunnableConfig | None) -> str:
    if config is None:
        return where
    place = f"thread {config['configurable']['thread_id']!r} in {where}"
    id = get_checkpoint_id(config)
    return f"checkpoint {id!r} of {place}" if id else place
