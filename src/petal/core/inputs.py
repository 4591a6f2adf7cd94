"""The input of a run whose first checkpoint may come late: kept before the run begins, found again after a crash."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base.id import uuid6

from petal.checkpoints.leases import Lease
from petal.checkpoints.notes import INPUT, Note, anotes, aput_note
from petal.checkpoints.saver import PetalSaver


async def keep_input(saver: BaseCheckpointSaver[Any], lease: Lease, config: RunnableConfig, input: Any) -> None:
    """Keep a run's input until the run has ended; it is on disk when this returns.

    It hangs on a checkpoint that will never be, which is older than all that the run will save. LangGraph's own savers
    could not forget it, so there it is not kept.
    """
    if not isinstance(saver, PetalSaver):
        return
    lease.input_id = str(uuid6())
    place = {**config["configurable"], "checkpoint_ns": "", "checkpoint_id": lease.input_id}
    value = {"run": lease.run_id, "input": input}
    await aput_note(saver, {"configurable": place}, INPUT, value, "input")


async def left_input(saver: BaseCheckpointSaver[Any], lease: Lease) -> tuple[Any] | None:
    """The input of a run that died before it had saved anything, for the run that has the thread now.

    It stays kept until that one has ended. Where a run had saved a checkpoint, that is gone on with instead; new input
    takes its place.
    """
    if not isinstance(saver, PetalSaver):
        return None
    for note in await anotes(saver, lease.thread_id, INPUT):
        if await _is_over(saver, note):
            saver.leases.forget_input(lease.thread_id, note.checkpoint_id)
        else:
            lease.input_id = note.checkpoint_id
            return (note.value["input"],)
    return None


async def left_input_id(saver: BaseCheckpointSaver[Any], thread_id: str) -> str | None:
    """Where the input lies that `left_input` would find on a thread. Nothing is changed."""
    if isinstance(saver, PetalSaver):
        for note in await anotes(saver, thread_id, INPUT):
            if not await _is_over(saver, note):
                return note.checkpoint_id
    return None


async def _is_over(saver: PetalSaver, note: Note) -> bool:
    """Whether the run of an input has saved a checkpoint, or new input came after it."""
    thread: RunnableConfig = {"configurable": {"thread_id": note.thread_id, "checkpoint_ns": ""}}
    for told in {"run_id": note.value["run"]}, {"source": "input"}:
        async for kept in saver.alist(thread, filter=told, limit=1):
            if "run_id" in told or kept.checkpoint["id"] > note.checkpoint_id:
                return True
    return False
