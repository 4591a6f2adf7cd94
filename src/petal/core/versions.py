"""The saver of an agent's graph: it notes the agent's version, and migrates older state when it is loaded.

It also gives graphs within the state from which a run that answers at an earlier checkpoint goes on.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Self

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

from petal.checkpoints.leniency import lenient
from petal.checkpoints.notes import anotes, aput_note, put_note
from petal.checkpoints.saver import PetalSaver
from petal.core.shapes import AGENT, Shape, is_state, state_of, version_of
from petal.errors import CheckpointCorruptionError, MigrationError

WRITTEN = "__petal_version__"
"""Channel of notes: which version wrote what a task left, where that is not the checkpoint's."""
LOADED = "__petal_loaded"
"""In `configurable`: which checkpoint was migrated when the run loaded it, and the new versions of its channels."""

STATES = "__petal_states"
"""In `configurable` of a run that answers at an earlier checkpoint: which states the graphs within that ask go on from,
and the id that is older than all that the run saves."""


def _as_it_is(act: str) -> Callable[..., Any]:
    def call(self: VersionedSaver, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.inner, act)(*args, **kwargs)

    call.__name__ = act
    return call


class VersionedSaver(BaseCheckpointSaver[Any]):
    """An agent's saver as its graph sees it.

    Nothing is rewritten: what lies in the database stays as it is until the next checkpoint is saved, which then holds
    the migrated values. Only the agent's own state has its shape, not that of graphs within its steps.

    Attributes:
        inner: The saver that keeps the state.
        shape: The shape of the agent's state.
    """

    def __init__(self, inner: BaseCheckpointSaver[Any], shape: Shape) -> None:
        super().__init__(serde=inner.serde)
        self.inner, self.shape = inner, shape
        self._lenient = lenient(inner) if isinstance(inner, PetalSaver) else inner

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint as the inner saver gives it, its state migrated.

        Raises:
            StateVersionError: If it cannot be brought to the agent's version.
        """
        try:
            kept = self.inner.get_tuple(config)
        except CheckpointCorruptionError:
            kept = self._lenient.get_tuple(config)
            if not self._is_older(kept):
                raise
        if kept and (meant := _meant(config, kept)):
            return self.get_tuple(meant)
        return kept and self._migrated(kept)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        try:
            kept = await self.inner.aget_tuple(config)
        except CheckpointCorruptionError:
            kept = await self._lenient.aget_tuple(config)
            if not self._is_older(kept):
                raise
        if kept and (meant := _meant(config, kept)):
            return await self.aget_tuple(meant)
        return kept and self._migrated(kept)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As the inner saver's, each migrated as `get_tuple` does."""
        try:
            for kept in self.inner.list(config, filter=filter, before=before, limit=limit):
                before, limit = kept.config, limit and limit - 1
                yield self._migrated(kept)
        except CheckpointCorruptionError:
            for kept in self._lenient.list(config, filter=filter, before=before, limit=limit):
                strict = kept if self._is_older(kept) else self.inner.get_tuple(kept.config)
                assert strict is not None, "it was just read"
                yield self._migrated(strict)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        try:
            async for kept in self.inner.alist(config, filter=filter, before=before, limit=limit):
                before, limit = kept.config, limit and limit - 1
                yield self._migrated(kept)
        except CheckpointCorruptionError:
            async for kept in self._lenient.alist(config, filter=filter, before=before, limit=limit):
                strict = kept if self._is_older(kept) else await self.inner.aget_tuple(kept.config)
                assert strict is not None, "it was just read"
                yield self._migrated(strict)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As the inner saver's; the metadata says which agent of which version wrote it."""
        return self.inner.put(config, checkpoint, *self._told(config, checkpoint, metadata, new_versions))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await self.inner.aput(config, checkpoint, *self._told(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As the inner saver's; on a checkpoint of an older version it notes that these are of the agent's."""
        if _is_of(config, "id"):
            put_note(self.inner, config, WRITTEN, self.shape.version, task_id)
        self.inner.put_writes(config, writes, task_id, task_path)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        if _is_of(config, "id"):
            await aput_note(self.inner, config, WRITTEN, self.shape.version, task_id)
        await self.inner.aput_writes(config, writes, task_id, task_path)

    async def acheck_begun(self, config: RunnableConfig) -> None:
        """See that a run may go on from a checkpoint whose step was cut off; see `Shape.check_begun`.

        Raises:
            StateVersionError: If it may not.
        """
        kept = await self._lenient.aget_tuple(config)
        if kept is None or not self.shape.is_older(kept):
            return
        place = kept.config["configurable"]
        marks = await anotes(self.inner, place["thread_id"], WRITTEN, ns="", checkpoint_id=str(place["checkpoint_id"]))
        newest = await self._lenient.aget_tuple(
            {"configurable": {"thread_id": place["thread_id"], "checkpoint_ns": ""}}
        )
        replayed = newest is not None and newest.checkpoint["id"] != kept.checkpoint["id"]
        self.shape.check_begun(kept, {mark.key: mark.value for mark in marks}, input_only=replayed)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As the inner saver's."""
        return self.inner.get_delta_channel_history(config=config, channels=channels)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As the inner saver's."""
        return await self.inner.aget_delta_channel_history(config=config, channels=channels)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """As the inner saver's."""
        return self.inner.get_next_version(current, channel)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """A clone whose inner saver also loads these types."""
        clone = copy.copy(self)
        clone.inner = self.inner.with_allowlist(extra_allowlist)
        clone._lenient = lenient(clone.inner) if isinstance(clone.inner, PetalSaver) else clone.inner
        return clone

    delete_thread = _as_it_is("delete_thread")
    adelete_thread = _as_it_is("adelete_thread")
    delete_for_runs = _as_it_is("delete_for_runs")
    adelete_for_runs = _as_it_is("adelete_for_runs")
    copy_thread = _as_it_is("copy_thread")
    acopy_thread = _as_it_is("acopy_thread")
    prune = _as_it_is("prune")
    aprune = _as_it_is("aprune")

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # while it is made, or copied
            raise AttributeError(name)
        return getattr(self.inner, name)

    def _is_older(self, kept: CheckpointTuple | None) -> bool:
        return kept is not None and not _ns(kept.config) and self.shape.is_older(kept)

    def _migrated(self, kept: CheckpointTuple) -> CheckpointTuple:
        """The checkpoint with today's state, each channel of it in a new version, so that the next save holds it."""
        if not self._is_older(kept):
            return kept
        state = state_of(kept)
        values = self.shape.migrated(dict(state), version_of(kept), kept)
        checkpoint = kept.checkpoint
        others = {name: value for name, value in checkpoint["channel_values"].items() if not is_state(name)}
        versions = checkpoint["channel_versions"]
        new = self.inner.get_next_version(max(versions.values(), default=None), None)
        bumped = dict.fromkeys(values, new)
        parent = kept.parent_config
        loaded = {
            "id": get_checkpoint_id(kept.config),
            "parent": parent and get_checkpoint_id(parent),
            "versions": bumped,
            "input": self._stale_input(kept),
        }
        return kept._replace(
            config=_with(kept.config, loaded),
            checkpoint={
                **checkpoint,
                "channel_values": {**values, **others},
                "channel_versions": {**versions, **bumped},
            },
            # A copy of the checkpoint is saved behind its parent.
            parent_config=parent and _with(parent, loaded),
        )

    def _stale_input(self, kept: CheckpointTuple) -> tuple[Any, MigrationError] | None:
        """The version of the channel of an input that no step has seen, and why it may not be saved as one of today."""
        if "__start__" not in kept.checkpoint["channel_values"]:
            return None
        try:
            self.shape.check_begun(kept, {}, input_only=True)
        except MigrationError as error:
            return kept.checkpoint["channel_versions"].get("__start__"), error
        return None

    def _told(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> tuple[CheckpointMetadata, ChannelVersions]:
        if _ns(config):
            return metadata, new_versions
        told: Any = {**metadata, AGENT: {"name": self.shape.agent, "version": self.shape.version}}
        if _is_of(config, "id") or _is_of(config, "parent"):
            versions = checkpoint["channel_versions"]
            migrated, stale = (config["configurable"][LOADED][key] for key in ("versions", "input"))
            if (
                stale is not None
                and stale[0] == versions.get("__start__")
                and "__start__" in checkpoint["channel_values"]
            ):
                raise stale[1]
            kept = {name: new for name, new in migrated.items() if versions.get(name) == new}
            new_versions = {
                **{name: new for name, new in kept.items() if name in checkpoint["channel_values"]},
                **new_versions,
            }
        return told, new_versions


def _ns(config: RunnableConfig) -> str:
    return config["configurable"].get("checkpoint_ns") or ""


def _meant(config: RunnableConfig, newest: CheckpointTuple) -> RunnableConfig | None:
    """What names the state that a graph within goes on from; None if that is its newest one."""
    place = config["configurable"]
    meant = place.get(STATES)
    if meant is None or get_checkpoint_id(config) is not None or newest.checkpoint["id"] > meant["since"]:
        return None
    id = meant["at"].get(place.get("checkpoint_ns"))
    return None if id is None else {**config, "configurable": {**place, "checkpoint_id": id}}


def _with(config: RunnableConfig, loaded: Mapping[str, Any]) -> RunnableConfig:
    return {**config, "configurable": {**config["configurable"], LOADED: loaded}}


def _is_of(config: RunnableConfig, which: str) -> bool:
    """Whether a save belongs to the checkpoint that was migrated when it was loaded, or to its parent."""
    loaded = config["configurable"].get(LOADED)
    return loaded is not None and not _ns(config) and get_checkpoint_id(config) == loaded[which]
