"""The floor: a saver that keeps the Python objects it is given, so that a run costs what LangGraph itself costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)

Place = tuple[str, str]
"""Thread and namespace."""


class ReferenceSaver(BaseCheckpointSaver[int]):
    """Keeps references: nothing is encoded, copied or written, and all is gone with the process."""

    def __init__(self) -> None:
        super().__init__()
        self._checkpoints: dict[Place, dict[str, tuple[Checkpoint, CheckpointMetadata, str | None]]] = defaultdict(dict)
        self._writes: dict[tuple[Place, str], dict[tuple[str, int], tuple[str, str, Any]]] = defaultdict(dict)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        place = _place(config)
        kept = self._checkpoints.get(place)
        if not kept:
            return None
        id = get_checkpoint_id(config) or next(reversed(kept))
        return self._tuple(place, id) if id in kept else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        if config is None:
            raise ValueError("the floor lists one thread at a time; name it in the config")
        place = _place(config)
        one, first = get_checkpoint_id(config), get_checkpoint_id(before) if before else None
        left = limit
        for id in sorted(self._checkpoints.get(place, ()), reverse=True):
            if left == 0:
                return
            metadata: dict[str, Any] = {**self._checkpoints[place][id][1]}
            if (first is not None and id >= first) or (one is not None and id != one):
                continue
            if any(metadata.get(key) != value for key, value in (filter or {}).items()):
                continue
            left = None if left is None else left - 1
            yield self._tuple(place, id)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        place = _place(config)
        self._checkpoints[place][checkpoint["id"]] = checkpoint, metadata, get_checkpoint_id(config)
        return _config(place, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        kept = self._writes[_place(config), config["configurable"]["checkpoint_id"]]
        for position, (channel, value) in enumerate(writes):
            key = task_id, WRITES_IDX_MAP.get(channel, position)
            if key[1] < 0 or key not in kept:
                kept[key] = task_id, channel, value

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for found in self.list(config, filter=filter, before=before, limit=limit):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.put_writes(config, writes, task_id, task_path)

    def _tuple(self, place: Place, id: str) -> CheckpointTuple:
        checkpoint, metadata, parent = self._checkpoints[place][id]
        return CheckpointTuple(
            _config(place, id),
            checkpoint,
            metadata,
            None if parent is None else _config(place, parent),
            list(self._writes.get((place, id), {}).values()),
        )


def _place(config: RunnableConfig) -> Place:
    return str(config["configurable"]["thread_id"]), config["configurable"].get("checkpoint_ns", "")


def _config(place: Place, id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": place[0], "checkpoint_ns": place[1], "checkpoint_id": id}}
