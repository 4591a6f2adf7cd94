"""Ids that are greater than those before them, though the clock that made those was ahead of this one."""

from __future__ import annotations

import time

from langgraph.checkpoint.base import id as ids

from petal.checkpoints.threads import ticks

BELIEVED = 24 * 60 * 60 * 10_000_000
"""Units of 100 ns: a day. An id that is further ahead is not followed: a clock was quite wrong, or it tells no time."""

_UNIX_EPOCH = 0x01B21DD213814000
"""1970 in the units of the ids."""


def follow(checkpoint_id: str) -> None:
    """See that whatever is saved next in this process is newer than a checkpoint.

    LangGraph begins ids with the time and takes the greatest for the newest. Within a process they only grow, whatever
    its clock does: a checkpoint of another machine, or of this one before its clock was set back, counts as its own.
    """
    made = ticks(checkpoint_id)
    if made is None or not 0 < made - (time.time_ns() // 100 + _UNIX_EPOCH) < BELIEVED:
        return
    if made > (ids._last_v6_timestamp or 0):  # type: ignore[redundant-expr]
        ids._last_v6_timestamp = made  # type: ignore[assignment]
