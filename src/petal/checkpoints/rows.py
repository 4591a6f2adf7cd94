"""LangGraph's checkpoints as rows, and rows as checkpoints: encoded, sealed, and bound to their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self, cast

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
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, TASKS
from langgraph.constants import START

from petal.checkpoints.chains import BUNDLE_MARK, Chain, bundled, chained, stored
from petal.checkpoints.codec import Codec
from petal.checkpoints.envelope import Envelope, Place
from petal.checkpoints.header import Header, Outline, packed
from petal.checkpoints.leases import LEASE
from petal.checkpoints.names import row_name
from petal.checkpoints.notes import INPUT, INPUT_ID, INPUT_LEFT
from petal.checkpoints.records import CheckpointRow, Save, Status, ValueRow, WriteRow
from petal.checkpoints.threads import OF_INPUT, CheckpointInfo, thread_named
from petal.checkpoints.values import Parts, Spot, Version, join, split
from petal.errors import CheckpointCorruptionError

FENCE, HEAD, FORK = "__petal_fence", "head", "fork"
"""In `configurable`: where a run began, at the newest checkpoint, or at one that it named."""
RUNTIME = "__pregel_runtime"
"""In `configurable` wherever LangGraph's loop saves."""

NO_STEP = 2**63
"""More than a column of numbers holds."""

_COLUMNS = frozenset({"source", "step", "run_id"})
"""Metadata that rows hold in columns of their own."""


class Namespace(NamedTuple):
    """One namespace of one thread: the root graph's, or a subgraph's."""

    thread_id: str
    ns: str

    @classmethod
    def of(cls, config: RunnableConfig) -> Self:
        """The place that a config names.

        Raises:
            ThreadIdRequiredError: If it names no thread.
            TypeError: If the namespace or the checkpoint that it names is no text.
        """
        configurable = config.get("configurable", {})
        thread_id = thread_named(configurable.get("thread_id"))
        ns, id = configurable.get("checkpoint_ns") or "", configurable.get("checkpoint_id") or ""
        if not (isinstance(ns, str) and isinstance(id, str)):
            name, given = ("checkpoint_id", id) if isinstance(ns, str) else ("checkpoint_ns", ns)
            raise TypeError(f"{name} in a config is text, not {given!r}.")
        return cls(thread_id, ns)

    def config(self, checkpoint_id: str) -> RunnableConfig:
        """The config that names a checkpoint here."""
        return {"configurable": {"thread_id": self.thread_id, "checkpoint_ns": self.ns, "checkpoint_id": checkpoint_id}}

    def named(self, what: str) -> str:
        """What to call a part of this place in an error."""
        inside = f" in {self.ns!r}" if self.ns else ""
        return f"{what} of thread {self.thread_id!r}{inside}"


def checkpoint_id_of(config: RunnableConfig) -> str | None:
    """The checkpoint that a config names. An empty id names none, as LangGraph takes it."""
    return get_checkpoint_id(config) or None


class Saved(NamedTuple):
    """A checkpoint in the form in which it is saved.

    Attributes:
        save: Its rows.
        outline: What the next save needs to know of it.
        versions: The values that are new, by channel.
    """

    save: Save
    outline: Outline
    versions: dict[str, Version]


class Found(NamedTuple):
    """A checkpoint that was read, in encoded form.

    Attributes:
        place: Where it is.
        parent_id: The checkpoint that it follows on.
        run_id: The run that saved it.
        header: Its header.
        metadata: Its metadata, not sealed.
        versions: The values of its channels.
        writes: Its pending writes, sealed.
    """

    place: Namespace
    parent_id: str | None
    run_id: str | None
    header: Header
    metadata: bytes
    versions: Mapping[str, Version]
    writes: Sequence[WriteRow]


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
        parent: Outline,
        bases: Mapping[str, Version],
    ) -> Saved:
        """The rows of a checkpoint, not sealed yet: its values only where they are not its parent's.

        Args:
            place: Where it goes.
            config: Of the run; its `checkpoint_id` is the parent.
            checkpoint: The checkpoint.
            metadata: Its metadata.
            new_versions: The channels that changed, with their versions.
            parent: What is to be known of the parent.
            bases: Values of the parent that the changed ones may be written as changes of.

        Raises:
            CheckpointerError: If a value cannot be saved; it names the channel.
        """
        id, name = checkpoint["id"], row_name()
        versions = checkpoint["channel_versions"]
        made: dict[str, Version] = {}
        rows = []
        spots = {}
        for channel, value in checkpoint["channel_values"].items():
            kept = parent.spots.get(channel)
            if kept and channel not in new_versions and parent.versions.get(channel) == versions.get(channel, ...):
                spots[channel] = kept
                continue
            base = bases.get(channel)
            parts = split(value, self.codec, place.named(f"channel {channel!r}"), base)
            made[channel], data = stored(name, parts, base)
            spots[channel] = spot = made[channel].spot
            rows.append(ValueRow(place.thread_id, place.ns, channel, spot.root, spot.row, data))
        unfinished, configurable = _is_unfinished(checkpoint["channel_values"]), config["configurable"]
        told = self._metadata(config, metadata)
        header = packed(checkpoint, spots, unfinished=unfinished)
        kept_metadata = self.codec.encode(told, place.named(f"the metadata of checkpoint {id!r}"))
        row = CheckpointRow(
            place.thread_id,
            place.ns,
            id,
            checkpoint_id_of(config),
            str(told.get("source") or ""),
            step if isinstance(step := told.get("step"), int) and abs(step) < NO_STEP else None,
            str(told["run_id"]) if told.get("run_id") else None,
            header,
            kept_metadata,
            name,
            self.labels(told),
        )
        left = bool(configurable.get(INPUT_LEFT))
        status: Status | None = None if place.ns else _status(unfinished=unfinished or left)
        fenced, leans, lease = not place.ns and _is_fenced(configurable), parent.name or None, configurable.get(LEASE)
        save = Save(row, rows, status=status, now=_now(), leans=leans, told=id, fenced=fenced, lease=lease)
        return Saved(save, Outline(id, name, spots, dict(versions), header, kept_metadata), made)

    def writes(
        self,
        place: Namespace,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
        lease: str | None = None,
    ) -> Save:
        """The rows of what a task wrote, not sealed yet.

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
            rows.append(WriteRow(place.thread_id, place.ns, checkpoint_id, task_id, idx, channel, task_path, data))
        channels = {channel for channel, _ in writes}
        status: Status | None = None
        if INPUT in channels:
            status = "unfinished"
        elif not place.ns:
            status = "waiting" if INTERRUPT in channels else "failed" if ERROR in channels else None
        return Save(writes=rows, status=status, now=_now(), told=f"{checkpoint_id}+", lease=lease if rows else None)

    def twin(self, row: CheckpointRow, id: str, told: Mapping[str, Any]) -> CheckpointRow:
        """A checkpoint once more, made now, of the same values; not sealed yet.

        Args:
            row: The checkpoint.
            id: The id of the new one.
            told: The metadata of the new one.
        """
        header = self.header(row)
        where = Namespace(row.thread_id, row.ns).named(f"the metadata of checkpoint {id!r}")
        return replace(
            row,
            id=id,
            run_id=str(told["run_id"]) if told.get("run_id") else None,
            header=packed({**header.checkpoint, "ts": _now()}, header.spots, unfinished=header.unfinished),
            metadata=self.codec.encode(dict(told), where),
            name=row_name(),
            labels=self.labels(told),
        )

    def header(self, row: CheckpointRow) -> Header:
        """A checkpoint's header."""
        place = Namespace(row.thread_id, row.ns)
        data = self.envelope.open(row.header, header_place(row))
        return Header.unpacked(data, row.id, row.name, place.named(f"checkpoint {row.id!r}"))

    def status(self, header: Header, writes: Iterable[WriteRow]) -> Status:
        """How a thread stands whose newest checkpoint this is."""
        channels = {write.channel for write in writes}
        if INTERRUPT in channels or ERROR in channels:
            return "waiting" if INTERRUPT in channels else "failed"
        return _status(unfinished=header.unfinished)

    def metadata(self, row: CheckpointRow) -> CheckpointMetadata:
        """A checkpoint's metadata."""
        return self._told(self.opened_metadata(row), Namespace(row.thread_id, row.ns), row.id)

    def opened_metadata(self, row: CheckpointRow) -> bytes:
        """The bytes of a checkpoint's metadata."""
        return self.envelope.open(row.metadata, Place.metadata(row.thread_id, row.ns, row.id))

    def info(self, row: CheckpointRow) -> CheckpointInfo:
        """What a listing says of a checkpoint."""
        header = self.header(row)
        created, metadata = header.checkpoint["ts"], self.metadata(row)
        return CheckpointInfo(row.thread_id, row.ns, row.id, row.parent_id, created, metadata, tuple(header.spots))

    def chain(self, rows: Iterable[ValueRow], channel: str, root: str) -> Chain:
        """The opened rows of one chain."""
        chain = Chain()
        for row in rows:
            if row.channel == channel and row.root == root:
                data = self.opened(row)
                try:
                    chain.add(row.version, data)
                except ValueError as error:
                    raise CheckpointCorruptionError(str(_place(row)), f"it cannot be read: {error}") from error
        return chain

    def version(
        self, chain: Chain, place: Namespace, channel: str, spot: Spot, known: Mapping[str, Version] | None = None
    ) -> Version:
        """One value of a channel, from the rows of its chain."""
        return chained(chain, spot, place.named(f"channel {channel!r}"), known)

    def bundle(self, rows: Sequence[ValueRow]) -> ValueRow:
        """One row that holds what some changes of one chain do, oldest first."""
        row = replace(rows[0], version=BUNDLE_MARK + row_name())
        data = bundled({row.version: self.opened(row) for row in rows})
        return replace(row, data=self.envelope.seal(data, _place(row)))

    def opened(self, row: ValueRow) -> bytes:
        """The bytes of a value row."""
        return self.envelope.open(row.data, _place(row))

    def value(self, place: Namespace, channel: str, parts: Parts) -> Any:
        """A channel's value, made anew."""
        return join(parts, self.codec, place.named(f"channel {channel!r}"))

    def write(self, row: WriteRow) -> PendingWrite:
        """One pending write as LangGraph has it."""
        data = self.envelope.open(row.data, write_place(row))
        where = Namespace(row.thread_id, row.ns).named(f"a write to channel {row.channel!r}")
        return row.task_id, row.channel, self.codec.decode(data, where)

    def checkpoint_tuple(self, found: Found) -> CheckpointTuple:
        """The whole checkpoint as LangGraph has it; nothing of it is shared with another one."""
        place, parent_id, _, header, metadata, versions, writes = found
        values = {channel: self.value(place, channel, versions[channel].parts) for channel in header.spots}
        id = header.checkpoint["id"]
        return CheckpointTuple(
            place.config(id),
            header.with_values(values),
            self._told(metadata, place, id),
            None if parent_id is None else place.config(parent_id),
            [self.write(write) for write in writes],
        )

    def sealed(self, saves: Sequence[Save]) -> list[Save]:
        """The rows of saves in their envelopes, as they go to the store.

        Raises:
            CheckpointerError: If one of them is too large.
        """
        sealed = iter(self.envelope.seal_all([piece for save in saves for piece in _pieces(save)]))
        return [_with(save, sealed) for save in saves]

    def seal(self, saves: Sequence[Save]) -> None:
        """Put the rows of saves into their envelopes where they are: of many rows no second one is made.

        Raises:
            CheckpointerError: If one of them is too large; then none was.
        """
        sealed = iter(self.envelope.seal_all([piece for save in saves for piece in _pieces(save)]))
        for save in saves:
            if (row := save.checkpoint) is not None:
                row.header, row.metadata = next(sealed), next(sealed)
            for value in save.values:
                value.data = next(sealed)
            for write in save.writes:
                write.data = next(sealed)

    def unsealed(self, save: Save) -> Save:
        """The rows of a save as they were before they went into their envelopes."""
        return _with(save, iter([self.envelope.open(data, place) for data, place in _pieces(save)]))

    def moved(self, save: Save, thread_id: str) -> Save:
        """The same rows in another thread: opened where they were, sealed where they go."""
        there = self.unsealed(save)
        if there.checkpoint is not None:
            there.checkpoint = replace(there.checkpoint, thread_id=thread_id)
        there.values = [replace(row, thread_id=thread_id) for row in there.values]
        there.writes = [replace(row, thread_id=thread_id) for row in there.writes]
        return self.sealed([there])[0]

    def without_parent(self, row: CheckpointRow) -> CheckpointRow:
        """The same checkpoint as a first one."""
        header, first = self.envelope.open(row.header, header_place(row)), replace(row, parent_id=None)
        return replace(first, header=self.envelope.seal(header, header_place(first)))

    def allowing(self, names: Collection[tuple[str, ...]]) -> Rows:
        """The same rows, which may also hold these types, named as LangGraph names them."""
        return replace(self, codec=Codec(self.codec.allowed.adding_names(names)))

    def searched(self, key: str, value: Any) -> tuple[bytes, ...]:
        """The labels under which a metadata value may be found."""
        return self.envelope.labels_for_search(key, value)

    def labels(self, metadata: Mapping[str, Any]) -> tuple[bytes, ...]:
        """The labels of a checkpoint with this metadata, one for each further scalar."""
        return tuple(
            self.envelope.label(key, value)
            for key, value in metadata.items()
            if key not in _COLUMNS and (value is None or isinstance(value, str | int | float | bool))
        )

    def _told(self, metadata: bytes, place: Namespace, id: str) -> CheckpointMetadata:
        where = place.named(f"the metadata of checkpoint {id!r}")
        return cast(CheckpointMetadata, self.codec.decode(metadata, where))

    def _metadata(self, config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
        """What a checkpoint's metadata holds: LangGraph's own, the run's, and of `configurable` what is declared.

        LangChain copies the scalars of `configurable` into the run's metadata, keys and tokens among them.
        """
        configurable = config.get("configurable", {})
        kept: dict[str, Any] = dict(metadata)
        told = config.get("metadata") or {}
        for key in told:  # a chain of mappings, which is slow to give values that mostly are not wanted
            if key not in kept and key not in configurable and not key.startswith(("__", "langgraph_")):
                kept[key] = told[key]
        for key in self.metadata_keys & configurable.keys():
            kept.setdefault(key, configurable[key])
        if given := configurable.get(INPUT_ID):
            kept[OF_INPUT] = given
        return kept


def _is_fenced(configurable: Mapping[str, Any]) -> bool:
    """Whether what saves must be alone: it goes on from the newest checkpoint, or is a run that began without any."""
    began = configurable.get(FENCE, HEAD if RUNTIME in configurable else FORK)
    return bool(began == HEAD)


def _status(*, unfinished: bool) -> Status:
    return "unfinished" if unfinished else "done"


def _is_unfinished(values: Mapping[str, Any]) -> bool:
    """What a checkpoint's channels say: LangGraph keeps a value in those that trigger what is next."""
    # Of the input only whether it is there: it may be of any type, also of one that has no truth.
    return (
        START in values or len(values.get(TASKS, ())) > 0 or any(channel.startswith("branch:to:") for channel in values)
    )


def header_place(row: CheckpointRow) -> Place:
    """Where a checkpoint's header lies, with all that its row says in clear."""
    return Place.header(row.thread_id, row.ns, row.id, row.parent_id, row.source, row.step, row.run_id, row.name)


def write_place(row: WriteRow) -> Place:
    """Where a pending write lies, with all that its row says in clear."""
    return Place.write(row.thread_id, row.ns, row.checkpoint_id, row.channel, row.task_id, row.idx, row.task_path)


def _pieces(save: Save) -> Iterator[tuple[bytes, Place]]:
    """What of a save goes into envelopes, and where each belongs."""
    if (row := save.checkpoint) is not None:
        yield row.header, header_place(row)
        yield row.metadata, Place.metadata(row.thread_id, row.ns, row.id)
    for value in save.values:
        yield value.data, _place(value)
    for write in save.writes:
        yield write.data, write_place(write)


def _with(save: Save, pieces: Iterator[bytes]) -> Save:
    """A save with other bytes, in the order of `_pieces`."""
    row = save.checkpoint
    return Save(
        None if row is None else replace(row, header=next(pieces), metadata=next(pieces)),
        [replace(value, data=next(pieces)) for value in save.values],
        [replace(write, data=next(pieces)) for write in save.writes],
        save.status,
        save.now,
        save.leans,
        save.told,
        save.fenced,
        save.lease,
        save.turn,
    )


def _place(row: ValueRow) -> Place:
    return Place.value(row.thread_id, row.ns, row.channel, row.version)


def _now() -> str:
    return datetime.now(UTC).isoformat()
