"""LangGraph's checkpoints as rows, and rows as checkpoints: encoded, sealed, and bound to their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from petal.checkpoints.codec import Codec
from petal.checkpoints.envelope import Envelope, Place
from petal.checkpoints.header import Header
from petal.checkpoints.records import CheckpointRow, Save, Status, ValueRow, WriteRow
from petal.checkpoints.values import Parts, Version, chained, join, split, stored
from petal.errors import ThreadIdRequiredError

_COLUMNS = frozenset({"source", "step", "run_id"})
"""Metadata that rows hold in columns of their own."""
_PENDING = ("__start__", "__pregel_tasks")
"""Channels whose value says that there is something to do, beside those of LangGraph's branches."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """One namespace of one thread: the root graph's, or a subgraph's."""

    thread_id: str
    ns: str

    @classmethod
    def of(cls, config: RunnableConfig) -> Self:
        """The place that a config names.

        Raises:
            ThreadIdRequiredError: If it names no thread.
        """
        configurable = config.get("configurable", {})
        if "thread_id" not in configurable:
            raise ThreadIdRequiredError
        return cls(str(configurable["thread_id"]), configurable.get("checkpoint_ns") or "")

    def config(self, checkpoint_id: str) -> RunnableConfig:
        """The config that names a checkpoint here."""
        return {"configurable": {"thread_id": self.thread_id, "checkpoint_ns": self.ns, "checkpoint_id": checkpoint_id}}

    def named(self, what: str) -> str:
        """What to call a part of this place in an error."""
        inside = f" in {self.ns!r}" if self.ns else ""
        return f"{what} of thread {self.thread_id!r}{inside}"


@dataclass(frozen=True, slots=True)
class Rows:
    """The way between LangGraph's objects and rows.

    Attributes:
        codec: Values to bytes.
        envelope: Bytes to sealed bytes.
        metadata_keys: Which keys of a run's `configurable` go into the metadata of its checkpoints.
    """

    codec: Codec
    envelope: Envelope
    metadata_keys: frozenset[str] = frozenset()

    def saved(
        self,
        place: Namespace,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        roots: Mapping[str, str],
        bases: Mapping[str, Version],
    ) -> tuple[Save, Header, dict[str, Version]]:
        """The rows of a checkpoint: its values only where their version is new.

        Args:
            place: Where it goes.
            config: Of the run; its `checkpoint_id` is the parent.
            checkpoint: The checkpoint.
            metadata: Its metadata.
            new_versions: The channels that changed, with their versions.
            roots: Where the values lie whose version is not new.
            bases: Versions that the changed values may be written as changes of.

        Returns:
            The rows, the checkpoint's header, and the new versions by channel.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel.
        """
        id = checkpoint["id"]
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        made: dict[str, Version] = {}
        rows = []
        at = {}
        for channel, value in values.items():
            if channel not in new_versions and channel in roots:
                at[channel] = roots[channel]
                continue
            parts = split(value, self.codec, place.named(f"channel {channel!r}"))
            version = str(versions.get(channel, id))
            made[channel], data = stored(version, parts, bases.get(channel))
            at[channel] = made[channel].root
            rows.append(self._value_row(place, channel, made[channel], data))
        header = Header.of(checkpoint, at)
        for channel in made:
            header.versions.setdefault(channel, id)
        kept = self._metadata(config, metadata)
        row = CheckpointRow(
            place.thread_id,
            place.ns,
            id,
            get_checkpoint_id(config),
            str(kept.get("source") or ""),
            kept["step"] if isinstance(kept.get("step"), int) else None,
            str(kept["run_id"]) if kept.get("run_id") else None,
            self.envelope.seal(header.packed(), Place.header(place.thread_id, place.ns, id)),
            self._sealed_metadata(place, id, kept),
            self._labels(kept),
        )
        status: Status | None = None if place.ns else _status(values)
        return Save(row, rows, status=status, now=_now()), header, made

    def writes(
        self, place: Namespace, checkpoint_id: str, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Save:
        """The rows of what a task wrote.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel.
        """
        rows = []
        for position, (channel, value) in enumerate(writes):
            where = place.named(f"a write to channel {channel!r}")
            if channel == ERROR and isinstance(value, BaseException):
                data = self.codec.encode_error(value)
            else:
                data = self.codec.encode(value, where)
            idx = WRITES_IDX_MAP.get(channel, position)
            at = Place.write(place.thread_id, place.ns, checkpoint_id, channel, task_id, idx)
            sealed = self.envelope.seal(data, at)
            rows.append(WriteRow(place.thread_id, place.ns, checkpoint_id, task_id, idx, channel, task_path, sealed))
        channels = {channel for channel, _ in writes}
        status: Status | None = None
        if not place.ns:
            status = "waiting" if INTERRUPT in channels else "failed" if ERROR in channels else None
        return Save(writes=rows, status=status, now=_now())

    def header(self, row: CheckpointRow) -> Header:
        """A checkpoint's header."""
        place = Namespace(row.thread_id, row.ns)
        data = self.envelope.open(row.header, Place.header(row.thread_id, row.ns, row.id))
        return Header.unpacked(data, row.id, place.named(f"checkpoint {row.id!r}"))

    def status(self, header: Header, writes: Iterable[WriteRow]) -> Status:
        """How a thread stands whose newest checkpoint this is."""
        channels = {write.channel for write in writes}
        if INTERRUPT in channels or ERROR in channels:
            return "waiting" if INTERRUPT in channels else "failed"
        return _status(dict.fromkeys(header.roots, True))

    def metadata(self, row: CheckpointRow) -> CheckpointMetadata:
        """A checkpoint's metadata."""
        data = self.envelope.open(row.metadata, Place.metadata(row.thread_id, row.ns, row.id))
        where = Namespace(row.thread_id, row.ns).named(f"the metadata of checkpoint {row.id!r}")
        return cast(CheckpointMetadata, self.codec.decode(data, where))

    def chain(self, rows: Iterable[ValueRow], channel: str, root: str) -> dict[str, bytes]:
        """The opened rows of one chain by version."""
        return {row.version: self.opened(row) for row in rows if row.channel == channel and row.root == root}

    def version(
        self,
        chain: Mapping[str, bytes],
        place: Namespace,
        channel: str,
        version: str,
        root: str,
        known: Mapping[str, Version] | None = None,
    ) -> Version:
        """One version of a channel, from the rows of its chain."""
        return chained(chain, version, root, place.named(f"channel {channel!r}"), known)

    def opened(self, row: ValueRow) -> bytes:
        """The bytes of a value row."""
        return self.envelope.open(row.data, Place.value(row.thread_id, row.ns, row.channel, row.version))

    def value(self, place: Namespace, channel: str, parts: Parts) -> Any:
        """A channel's value, made anew."""
        return join(parts, self.codec, place.named(f"channel {channel!r}"))

    def write(self, row: WriteRow) -> PendingWrite:
        """One pending write as LangGraph has it."""
        at = Place.write(row.thread_id, row.ns, row.checkpoint_id, row.channel, row.task_id, row.idx)
        data = self.envelope.open(row.data, at)
        where = Namespace(row.thread_id, row.ns).named(f"a write to channel {row.channel!r}")
        return row.task_id, row.channel, self.codec.decode(data, where)

    def checkpoint_tuple(
        self, row: CheckpointRow, header: Header, versions: Mapping[str, Version], writes: Iterable[WriteRow]
    ) -> CheckpointTuple:
        """The whole checkpoint as LangGraph has it; nothing of it is shared with another one."""
        place = Namespace(row.thread_id, row.ns)
        values = {channel: self.value(place, channel, versions[channel].parts) for channel in header.roots}
        return CheckpointTuple(
            place.config(row.id),
            header.with_values(values),
            self.metadata(row),
            None if row.parent_id is None else place.config(row.parent_id),
            [self.write(write) for write in writes],
        )

    def moved(self, save: Save, thread_id: str) -> Save:
        """The same rows in another thread: opened where they were, sealed where they go."""
        there = Save(status=save.status, now=save.now)
        if (row := save.checkpoint) is not None:
            header = self.envelope.open(row.header, Place.header(row.thread_id, row.ns, row.id))
            metadata = self.envelope.open(row.metadata, Place.metadata(row.thread_id, row.ns, row.id))
            there.checkpoint = replace(
                row,
                thread_id=thread_id,
                header=self.envelope.seal(header, Place.header(thread_id, row.ns, row.id)),
                metadata=self.envelope.seal(metadata, Place.metadata(thread_id, row.ns, row.id)),
            )
        for value in save.values:
            to = Place.value(thread_id, value.ns, value.channel, value.version)
            data = self.envelope.seal(self.opened(value), to)
            there.values.append(replace(value, thread_id=thread_id, data=data))
        for write in save.writes:
            here = Place.write(write.thread_id, write.ns, write.checkpoint_id, write.channel, write.task_id, write.idx)
            data = self.envelope.open(write.data, here)
            data = self.envelope.seal(data, here._replace(thread_id=thread_id))
            there.writes.append(replace(write, thread_id=thread_id, data=data))
        return there

    def allowing(self, names: Collection[tuple[str, ...]]) -> Rows:
        """The same rows, which may also hold these types, named as LangGraph names them."""
        return replace(self, codec=Codec(self.codec.allowed.adding_names(names)))

    def searched(self, key: str, value: Any) -> tuple[bytes, ...]:
        """The labels under which a metadata value may be found."""
        return self.envelope.labels_for_search(key, value)

    def _value_row(self, place: Namespace, channel: str, version: Version, data: bytes) -> ValueRow:
        sealed = self.envelope.seal(data, Place.value(place.thread_id, place.ns, channel, version.version))
        return ValueRow(place.thread_id, place.ns, channel, version.root, version.version, sealed)

    def _metadata(self, config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
        """What a checkpoint's metadata holds: LangGraph's own, the run's, and of `configurable` what is declared.

        LangChain copies the scalars of `configurable` into the run's metadata, keys and tokens among them.
        """
        configurable = config.get("configurable", {})
        kept: dict[str, Any] = dict(metadata)
        for key, value in (config.get("metadata") or {}).items():
            if key not in kept and key not in configurable and not key.startswith(("__", "langgraph_")):
                kept[key] = value
        for key in self.metadata_keys & configurable.keys():
            kept.setdefault(key, configurable[key])
        return kept

    def _sealed_metadata(self, place: Namespace, id: str, metadata: Mapping[str, Any]) -> bytes:
        data = self.codec.encode(dict(metadata), place.named(f"the metadata of checkpoint {id!r}"))
        return self.envelope.seal(data, Place.metadata(place.thread_id, place.ns, id))

    def _labels(self, metadata: Mapping[str, Any]) -> tuple[bytes, ...]:
        return tuple(
            self.envelope.label(key, value)
            for key, value in metadata.items()
            if key not in _COLUMNS and (value is None or isinstance(value, str | int | float | bool))
        )


def _status(values: Mapping[str, Any]) -> Status:
    """What a checkpoint's channels say: LangGraph keeps a value in those that trigger what is next."""
    if any(channel.startswith("branch:to:") for channel in values):
        return "unfinished"
    return "unfinished" if any(values.get(channel) for channel in _PENDING) else "done"


def _now() -> str:
    return datetime.now(UTC).isoformat()
