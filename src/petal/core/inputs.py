"""The input of a run whose first checkpoint may come late: kept before the run begins, found again after a crash."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base.id import uuid6

from petal.checkpoints.leases import Lease
from petal.checkpoints.notes import INPUT, INPUT_ID, INPUT_LEFT, Note, anotes, aput_note
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.threads import CheckpointInfo

_PAGE = 50


async def keep_input(
    saver: BaseCheckpointSaver[Any], lease: Lease, config: RunnableConfig, input: Any
) -> RunnableConfig:
    """Keep a run's input until the run has ended; it is on disk when this returns.

    It hangs on a checkpoint that will never be, which is older than all that the run will save. LangGraph's own savers
    could not forget it, so there it is not kept.

    Returns:
        The config for the run, all of whose checkpoints then say which input they come of.
    """
    if not isinstance(saver, PetalSaver):
        return config
    id = str(uuid6())
    place = {**config["configurable"], "checkpoint_ns": "", "checkpoint_id": id}
    await aput_note(saver, {"configurable": place}, INPUT, {"run": lease.run_id, "input": input}, "input")
    return _of_input(lease, config, id)


async def left_input(
    saver: BaseCheckpointSaver[Any], lease: Lease, config: RunnableConfig
) -> tuple[Any, RunnableConfig] | None:
    """The first input whose run died before it had saved anything, for the run that has the thread now.

    It stays kept until that run has ended, and longer if it ends before it has saved anything either. Where the run
    that it was for had saved a checkpoint, that is gone on with instead; and input that came later and of which there
    is a checkpoint has taken its place.

    Returns:
        The input, and the config for the run that takes it up; None if there is none.
    """
    if not isinstance(saver, PetalSaver):
        return None
    over, left = await _kept(saver, lease.thread_id)
    for note in over:
        saver.leases.forget_input(lease.thread_id, note.checkpoint_id)
    if not left:
        return None
    lease.leaves_input = True
    return left[0].value["input"], _minding(_of_input(lease, config, left[0].checkpoint_id), left[1:])


async def left_input_id(saver: BaseCheckpointSaver[Any], thread_id: str) -> str | None:
    """Where the input lies that `left_input` would find on a thread. Nothing is changed."""
    if not isinstance(saver, PetalSaver):
        return None
    _, left = await _kept(saver, thread_id)
    return left[0].checkpoint_id if left else None


async def minding_left(saver: BaseCheckpointSaver[Any], config: RunnableConfig) -> RunnableConfig:
    """The config for a run that takes no input: while one is left, its thread is unfinished whatever it saves."""
    if not isinstance(saver, PetalSaver):
        return config
    _, left = await _kept(saver, str(config["configurable"]["thread_id"]))
    return _minding(config, left)


async def _kept(saver: PetalSaver, thread_id: str) -> tuple[list[Note], list[Note]]:
    """The inputs that are kept of a thread, in the order in which they came: those that are over, and those left."""
    kept = await anotes(saver, thread_id, INPUT)
    if not kept:
        return [], []
    taken = await _last_taken(saver, thread_id, kept[0].checkpoint_id)
    over = [note for note in kept if note.checkpoint_id <= taken]
    return over, kept[len(over) :]


async def _last_taken(saver: PetalSaver, thread_id: str, since: str) -> str:
    """The last of the inputs, from `since` on, that the thread has a checkpoint of; "" for none."""
    taken = ""
    page: list[CheckpointInfo] = []
    while True:
        page = await saver.acheckpoints(thread_id, _PAGE, page[-1] if page else None)
        for info in page:
            if info.checkpoint_id < since:
                return taken
            taken = max(taken, info.input_id or "")
        if len(page) < _PAGE:
            return taken


def _of_input(lease: Lease, config: RunnableConfig, id: str) -> RunnableConfig:
    lease.input_id = id
    return {**config, "configurable": {**config["configurable"], INPUT_ID: id}}


def _minding(config: RunnableConfig, left: list[Note]) -> RunnableConfig:
    return {**config, "configurable": {**config["configurable"], INPUT_LEFT: bool(left)}}
