"""One run a thread: an agent's runs take turns, whichever process they are in."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, finalize

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from petal.checkpoints.leases import LEASE, ROLL_BACK, Lease, Leases
from petal.checkpoints.notes import INPUT_ID, INPUT_LEFT
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import OnConflict
from petal.errors import CheckpointerError, RunStoppedError, ThreadBusyError

_elsewhere: WeakKeyDictionary[BaseCheckpointSaver[Any], Leases] = WeakKeyDictionary()
"""Of savers whose tables have no room for leases: their runs take turns within this process only."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A run that has its thread.

    Attributes:
        config: The run's config, by which its saves are known.
        control: Stops it between two steps.
        lease: Its right to the thread.
    """

    config: RunnableConfig
    control: RunControl
    lease: Lease


@asynccontextmanager
async def turn(
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    on_conflict: OnConflict,
    patience: float,
    control: RunControl | None = None,
) -> AsyncIterator[Turn]:
    """Has a thread to itself while the block runs.

    Args:
        saver: Keeps the thread.
        config: Of the run; it names the thread.
        on_conflict: What to do while another run has the thread.
        patience: Seconds to wait for it at most.
        control: The caller's own control of the run.

    Raises:
        ThreadBusyError: If another run has the thread for longer, or with `"reject"`: at all.
        RunStoppedError: If a later run asked this one to stop, and it did.
        CheckpointerError: If runs of this saver cannot be rolled back.
        ValueError: If `on_conflict` is unknown.
    """
    if on_conflict not in ("wait", "reject", "interrupt", "rollback"):
        raise ValueError(f"on_conflict is 'wait', 'reject', 'interrupt' or 'rollback', not {on_conflict!r}.")
    if on_conflict == "rollback" and not isinstance(saver, PetalSaver):
        raise CheckpointerError(
            f"{type(saver).__name__} cannot remove what a run saved, so on_conflict='rollback' needs one of Petal's "
            "own savers; use on_conflict='interrupt'."
        )
    thread_id = str(config["configurable"]["thread_id"])
    _refuse_own(thread_id)
    run_id = str((config.get("metadata") or {}).get("run_id") or uuid.uuid4())
    control = control or RunControl()
    async with _leases(saver).held(thread_id, run_id, on_conflict, patience) as lease:
        if lease.replaced:
            assert isinstance(saver, PetalSaver), "no other one rolls back"
            await saver.aroll_back(thread_id, lease.replaced)
        lease.on_wish(partial(control.request_drain, "a later run takes over"))
        try:
            yield Turn(_of_run(config, lease.owner, run_id), control, lease)
        except GraphDrained:
            if not lease.wish:
                raise
            raise RunStoppedError(thread_id, rolled_back=lease.wish == ROLL_BACK) from None


async def is_running(saver: BaseCheckpointSaver[Any], thread_id: str) -> bool:
    """Whether a run has the thread now, in a process that gives signs of life."""
    return await _leases(saver).is_held(thread_id)


def _of_run(config: RunnableConfig, owner: str, run_id: str) -> RunnableConfig:
    return {
        **config,
        "configurable": {**config["configurable"], LEASE: owner, INPUT_ID: "", INPUT_LEFT: False},
        "metadata": {**(config.get("metadata") or {}), "run_id": run_id},
    }


def _refuse_own(thread_id: str) -> None:
    around: Mapping[str, Any] = (var_child_runnable_config.get() or {}).get("configurable", {})
    if LEASE in around and str(around.get("thread_id")) == thread_id:
        raise ThreadBusyError(thread_id, own=True)


def _leases(saver: BaseCheckpointSaver[Any]) -> Leases:
    if isinstance(saver, PetalSaver):
        return saver.leases
    if (leases := _elsewhere.get(saver)) is None:
        leases = _elsewhere[saver] = Leases.in_memory()
        finalize(saver, leases.close)
    return leases
