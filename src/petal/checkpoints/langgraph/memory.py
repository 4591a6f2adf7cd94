"""The dialect of LangGraph's in-memory saver: its dicts, behind a lock."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from petal.checkpoints.langgraph.dialect import Key, Noted, Outlined, Pending, Row, Written
from petal.checkpoints.threads import ThreadInfo, made_at
from petal.errors import CheckpointerError


class MemoryDialect:
    """State in this process."""

    where = "memory://"
    in_memory = True
    workers = 1
    is_open = False

    def __init__(self, serde: SerializerProtocol | None) -> None:
        self._lock = RLock()
        self._serde = serde
        self._saver = InMemorySaver(serde=serde)

    def open(self) -> None:
        """There is nothing to connect to."""

    def close(self) -> None:
        """What was kept is gone."""
        with self._lock:
            self._saver = InMemorySaver(serde=self._serde)

    @contextmanager
    def saver(self, serde: SerializerProtocol) -> Iterator[InMemorySaver]:
        with self._lock:
            saver = copy.copy(self._saver)  # the same dicts
            saver.serde = serde
            yield saver

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        # Every change checks first and then only moves values about, so there is nothing to roll back.
        with self._lock:
            yield MemoryTransaction(self._saver)

    def heads(self, limit: int, before: ThreadInfo | None) -> list[ThreadInfo]:
        with self._lock:
            found = []
            for thread_id, namespaces in self._saver.storage.items():
                ids = [id for saved in namespaces.values() for id in saved]
                if ids:  # reading an unknown thread leaves an empty one
                    head = max(namespaces.get("") or ids)
                    found.append(ThreadInfo(thread_id, len(ids), made_at(head), head))
        found.sort(key=_age, reverse=True)
        return [info for info in found if before is None or _age(info) < _age(before)][:limit]

    def rows(self, thread_id: str) -> list[Row]:
        with self._lock:
            return MemoryTransaction(self._saver).rows(thread_id)

    def outlined(self, thread_id: str) -> list[Outlined]:
        with self._lock:
            return [
                Outlined(ns, id, parent, self._saver.serde.loads_typed(metadata))
                for ns, saved in self._saver.storage.get(thread_id, {}).items()
                for id, (_, metadata, parent) in saved.items()
            ]

    def noted(self, thread_id: str, channel: str) -> list[Noted]:
        with self._lock:
            return [
                Noted(ns, checkpoint_id, task_id, value)
                for (thread, ns, checkpoint_id), writes in self._saver.writes.items()
                if thread == thread_id
                for task_id, name, value, _ in writes.values()
                if name == channel
            ]

    def written(self, thread_id: str) -> list[Written]:
        with self._lock:
            return [
                Written(ns, checkpoint_id, task_id, idx, len(value[1]))
                for (thread, ns, checkpoint_id), writes in self._saver.writes.items()
                if thread == thread_id
                for (task_id, idx), (_, _, value, _) in writes.items()
            ]

    def pending(self, thread_id: str, ns: str, checkpoint_id: str) -> list[Pending]:
        with self._lock:
            return [
                Pending(task_id, idx, channel, task_path, value)
                for (_, idx), (task_id, channel, value, task_path) in self._saver.writes.get(
                    (thread_id, ns, checkpoint_id), {}
                ).items()
            ]

    def translated(self, error: Exception) -> CheckpointerError | None:
        return None

    def recovered(self, error: Exception, *, repeatable: bool) -> bool:
        return False


class MemoryTransaction:
    """Changes of the dicts; the caller holds the lock."""

    def __init__(self, saver: InMemorySaver) -> None:
        self._saver = saver

    def rows(self, thread_id: str) -> list[Row]:
        rows = []
        for ns, saved in self._saver.storage.get(thread_id, {}).items():
            for id, (_, metadata_bytes, parent) in saved.items():
                metadata: dict[str, Any] = self._saver.serde.loads_typed(metadata_bytes)
                root = metadata.get("parents", {}).get("")
                delta = "counters_since_delta_snapshot" in metadata
                rows.append(Row(ns, id, parent, root, metadata.get("run_id"), delta))
        return rows

    def occupied(self, thread_id: str) -> bool:
        return bool(self.rows(thread_id)) or any(key[0] == thread_id for key in self._saver.writes)

    def copy(self, source: str, target: str) -> None:
        checkpoints = [row.key for row in self.rows(source)]
        writes = [(ns, id) for thread_id, ns, id in self._saver.writes if thread_id == source]
        self.graft(source, target, checkpoints, writes)

    def graft(self, source: str, target: str, checkpoints: Sequence[Key], writes: Sequence[Key]) -> None:
        storage, pending, blobs = self._saver.storage, self._saver.writes, self._saver.blobs
        for ns, id in checkpoints:
            storage[target][ns][id] = storage[source][ns][id]
        for ns, id in writes:
            if (source, ns, id) in pending:
                pending[target, ns, id] = dict(pending[source, ns, id])
        for ns, channel, version in self._used(target):
            if (value := blobs.get((source, ns, channel, version))) is not None:
                blobs[target, ns, channel, version] = value

    def delete(self, thread_id: str, checkpoints: Sequence[Key], orphans: Sequence[Key]) -> None:
        before = self._used(thread_id)
        namespaces = self._saver.storage[thread_id]
        for ns, id in checkpoints:
            del namespaces[ns][id]
            self._saver.writes.pop((thread_id, ns, id), None)
        for ns, id in orphans:
            checkpoint, metadata, _ = namespaces[ns][id]
            namespaces[ns][id] = checkpoint, metadata, None
        for ns, channel, version in before - self._used(thread_id):
            self._saver.blobs.pop((thread_id, ns, channel, version), None)

    def clear(self, thread_ids: Sequence[str]) -> None:
        for thread_id in thread_ids:
            self._saver.delete_thread(thread_id)

    def threads_of(self, run_ids: Sequence[str]) -> list[str]:
        return [id for id in self._saver.storage if any(row.run_id in run_ids for row in self.rows(id))]

    def _used(self, thread_id: str) -> set[tuple[str, str, Any]]:
        """(namespace, channel, version) of every value that a checkpoint of the thread uses."""
        return {
            (ns, channel, version)
            for ns, saved in self._saver.storage[thread_id].items()
            for checkpoint, _, _ in saved.values()
            for channel, version in self._saver.serde.loads_typed(checkpoint)["channel_versions"].items()
        }


def _age(info: ThreadInfo) -> tuple[str, str]:
    return info.checkpoint_id, info.thread_id
