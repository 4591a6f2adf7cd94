"""How the threads of a database stand, in the words of the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer

from petal.cli.shortening import PAGE, all_threads

if TYPE_CHECKING:
    from petal.checkpoints import ThreadInfo

STATUSES = ("running", "interrupted", "failed", "dead", "waiting", "done")
_INDEX = {"interrupted": "unfinished", "failed": "failed", "waiting": "waiting", "done": "done"}
"""What the index of threads calls them; a run that goes on and one that was given up are `unfinished` or `failed`."""


def wanted(status: str | None) -> str | None:
    """The status that an option names; `unfinished` is another word for `interrupted`."""
    status = "interrupted" if status == "unfinished" else status
    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"{status!r} is none of {', '.join(STATUSES)}.", param_hint="--status")
    return status


def threads_with_status(saver: Any, status: str | None, limit: int) -> list[tuple[ThreadInfo, str]]:
    """Threads and how each stands, the latest used first.

    Args:
        saver: The saver.
        status: Only those that stand so.
        limit: At most so many.
    """
    found = ((info, status_of(saver, info)) for info in _listed(saver, status))
    return list(islice(((info, stands) for info, stands in found if status in (None, stands)), limit))


def status_of(saver: Any, info: ThreadInfo) -> str:
    """How a thread stands.

    LangGraph's tables keep no status, so there the newest checkpoint is read; so it is where a run may go on.
    """
    if info.status in ("done", "waiting"):
        return info.status
    return stands_now(saver, info.thread_id)


def stands_now(saver: Any, thread_id: str) -> str:
    """How a thread stands, as its newest checkpoint and the runs of this moment tell."""
    return asyncio.run(_looked_at(saver, thread_id))


def _listed(saver: Any, status: str | None) -> Iterator[ThreadInfo]:
    from petal.checkpoints import PetalSaver

    if status is None or not isinstance(saver, PetalSaver):
        yield from all_threads(saver)
        return
    for name in [_INDEX[status]] if status in _INDEX else ["unfinished", "failed"]:
        before = None
        while page := saver.threads(PAGE, before, status=name):
            yield from page
            before = page[-1]


async def _looked_at(saver: Any, thread_id: str) -> str:
    from petal.core.questions import open_questions
    from petal.core.recovery import standing
    from petal.core.turns import is_running

    if await is_running(saver, thread_id):
        return "running"
    kept = await saver.aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
    if (run := await standing(saver, thread_id, kept)) is not None:
        return run.status
    return "waiting" if await open_questions(saver, thread_id) else "done"
