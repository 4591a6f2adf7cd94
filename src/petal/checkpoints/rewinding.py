"""Rewinds: an earlier checkpoint is repeated as the newest one, with what its subgraphs had reached."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast, runtime_checkable

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointMetadata,
    copy_checkpoint,
    empty_checkpoint,
)
from langgraph.checkpoint.base.id import uuid6

from petal.checkpoints import clock
from petal.checkpoints.header import NO_PARENT
from petal.checkpoints.leases import LEASE
from petal.checkpoints.lineage import checkpoints_of, points_of
from petal.checkpoints.lines import aoutlines
from petal.checkpoints.notes import INPUT_LEFT
from petal.checkpoints.records import Save, Transaction
from petal.checkpoints.retention import Point, states_at
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.threads import TWIN_OF
from petal.errors import CheckpointNotFoundError


@runtime_checkable
class Rewinding(Protocol):
    """A saver that rewinds in one transaction."""

    async def arewind_thread(
        self, config: RunnableConfig, checkpoint_id: str, only: Collection[str] | None = None
    ) -> None:
        """Repeat a checkpoint as the newest one."""
        ...


@dataclass(frozen=True, slots=True)
class Twin:
    """A checkpoint that a rewind makes.

    Attributes:
        ns: Its namespace.
        source: The checkpoint that it repeats; None if there was none, so it is an empty one.
        id: Its own id.
        parents: Of the twins of graphs around it, by namespace.
    """

    ns: str
    source: str | None
    id: str
    parents: Mapping[str, str]

    def told(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Its metadata, given that of the checkpoint it repeats."""
        kept = {key: value for key, value in metadata.items() if key not in ("run_id", TWIN_OF)}
        if self.source is not None:
            kept[TWIN_OF] = self.source
        around = {ns: self.parents.get(ns, id) for ns, id in (kept.get("parents") or {}).items()}
        kept["parents"] = {**around, "": self.parents[""]} if self.ns else around
        return kept


def before_run(run_id: str) -> str:
    """The id under which is saved what a run repeats to begin there: LangGraph goes on with what has the run's own."""
    return f"{run_id}:before"


def twins(points: Sequence[Point], checkpoint_id: str, only: Collection[str] | None = None) -> list[Twin]:
    """What a rewind makes: of each subgraph that keeps a state of its own, then of the thread itself.

    LangGraph takes the newest checkpoint of such a subgraph wherever its thread stands, or the newest one before the
    checkpoint that a run names. So they are older than the thread's own twin, and newer than all that was there.

    Args:
        points: All checkpoints of the thread.
        checkpoint_id: The one to go back to.
        only: Namespaces of subgraphs: these alone, as far as they came at the checkpoint, and not those that stand
            there anyway.
    """
    reached = states_at(points, checkpoint_id, as_far=None if only is None else True)
    newest = {point.ns: point.id for point in sorted(points, key=lambda point: point.id)}
    clock.follow(max(newest.values()))
    kept = sorted(ns for ns in newest if ns and ":" not in ns)
    if only is not None:
        kept = [ns for ns in kept if ns in only and newest[ns] != reached.get(ns)]
    ids = {ns: str(uuid6()) for ns in kept}
    parents = {**ids, "": str(uuid6()) if only is None else checkpoint_id}
    made = [Twin(ns, reached.get(ns), id, parents) for ns, id in ids.items()]
    return made if only is not None else [*made, Twin("", checkpoint_id, parents[""], parents)]


def rewind_thread(
    change: Transaction,
    rows: Rows,
    config: RunnableConfig,
    checkpoint_id: str,
    only: Collection[str] | None = None,
) -> None:
    """Repeat a checkpoint as the newest one of its thread. No value is read or written.

    Args:
        change: What it is all done in.
        rows: Opens and makes rows.
        config: Names the thread, and the run that does it.
        checkpoint_id: The checkpoint, of the root namespace.
        only: Repeat only what the subgraphs of these namespaces had reached there; the thread stays where it is.

    Raises:
        CheckpointNotFoundError: If there is no such checkpoint.
    """
    thread_id = Namespace.of(config).thread_id
    found = {(row.ns, row.id): row for row in checkpoints_of(change, thread_id)}
    if ("", checkpoint_id) not in found:
        raise CheckpointNotFoundError(thread_id, checkpoint_id)
    for twin in twins(points_of(found, rows), checkpoint_id, only):
        if twin.source is None:
            place = Namespace(thread_id, twin.ns)
            made = rows.saved(place, _place(config, twin.ns), *_nothing(twin), {}, NO_PARENT, {})
            save = made.save
        else:
            row = found[twin.ns, twin.source]
            left = bool(config["configurable"].get(INPUT_LEFT))
            status = None if twin.ns else "unfinished" if left else rows.status(rows.header(row), ())
            told = {**twin.told(rows.metadata(row)), **_run_of(config)}
            save = Save(rows.twin(row, twin.id, told), status=status, now=_now(), told=twin.id)
        save.lease = config["configurable"].get(LEASE)
        change.save(rows.sealed([save])[0])


async def arewind(
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    checkpoint_id: str,
    only: Collection[str] | None = None,
) -> None:
    """Repeat a checkpoint as the newest one of its thread, with what its subgraphs had reached.

    Petal's savers do it in one transaction. Others save one checkpoint after another, the thread's own last: after a
    kill in between, rewind once more.

    Args:
        saver: The saver.
        config: Names the thread, and the run that does it.
        checkpoint_id: The checkpoint, of the root namespace.
        only: Repeat only what the subgraphs of these namespaces had reached there; the thread stays where it is.

    Raises:
        CheckpointNotFoundError: If there is no such checkpoint.
    """
    if isinstance(saver, Rewinding):
        await saver.arewind_thread(config, checkpoint_id, only)
        return
    thread_id = str(config["configurable"]["thread_id"])
    outlines = await aoutlines(saver, thread_id, ns=None)
    if not any(info.checkpoint_id == checkpoint_id and not info.ns for info in outlines):
        raise CheckpointNotFoundError(thread_id, checkpoint_id)
    points = [Point.of(info.ns, info.checkpoint_id, info.parent_id, info.metadata) for info in outlines]
    for twin in twins(points, checkpoint_id, only):
        if twin.source is None:
            await saver.aput(_place(config, twin.ns), *_nothing(twin), {})
            continue
        kept = await saver.aget_tuple(_place(config, twin.ns, twin.source))
        assert kept is not None, "it was just listed, and this run has the thread"
        parent = None if kept.parent_config is None else kept.parent_config["configurable"]["checkpoint_id"]
        again = {**copy_checkpoint(kept.checkpoint), "id": twin.id, "ts": _now()}
        told = cast(CheckpointMetadata, {**twin.told(kept.metadata), **_run_of(config)})
        await saver.aput(_place(config, twin.ns, parent), cast(Checkpoint, again), told, {})


def _place(config: RunnableConfig, ns: str, checkpoint_id: str | None = None) -> RunnableConfig:
    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    place = {"thread_id": str(config["configurable"]["thread_id"]), "checkpoint_ns": ns, **named}
    return {"configurable": place, "metadata": _run_of(config)}


def _nothing(twin: Twin) -> tuple[Checkpoint, CheckpointMetadata]:
    """What stands for a subgraph that had no state yet, with the step number that LangGraph begins after."""
    told = {"source": "fork", "step": -2, **twin.told({})}
    return cast(Checkpoint, {**empty_checkpoint(), "id": twin.id}), cast(CheckpointMetadata, told)


def _run_of(config: RunnableConfig) -> dict[str, Any]:
    run_id = (config.get("metadata") or {}).get("run_id")
    return {} if run_id is None else {"run_id": run_id}


def _now() -> str:
    return datetime.now(UTC).isoformat()
