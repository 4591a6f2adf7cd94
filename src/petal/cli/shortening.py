"""Ids that may be shortened for as long as they are unique."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from petal.errors import BranchNotFoundError, CheckpointerError, CheckpointNotFoundError

if TYPE_CHECKING:
    from petal.checkpoints import PetalSaver, ThreadInfo
    from petal.checkpoints.records import CheckpointQuery, CheckpointRow, Reader

PAGE = 500
LISTED = 10
SHORTEST = 13
"""Characters of a checkpoint's id at least: those before differ only between hours."""


def whole_thread(saver: Any, given: str) -> str:
    """The id of the one thread that `given` is, or begins.

    Raises:
        CheckpointNotFoundError: If there is none.
        CheckpointerError: If there are several; it lists them.
    """
    if saver.get_tuple({"configurable": {"thread_id": given, "checkpoint_ns": ""}}) is not None:
        return given
    found = only((info.thread_id for info in all_threads(saver)), given, "threads")
    if found is None:
        raise CheckpointNotFoundError(given)
    return found


def whole_checkpoint(saver: Any, thread_id: str, given: str) -> str:
    """The id of the one checkpoint of a thread that `given` is, or is the name of, or begins.

    Raises:
        BranchNotFoundError: If there is none; it lists the names.
        CheckpointerError: If there are several; it lists them.
    """
    from petal.checkpoints.branches import anames
    from petal.checkpoints.lines import aoutlines

    place = {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": given}
    if given and saver.get_tuple({"configurable": place}) is not None:
        return given
    names = asyncio.run(anames(saver, thread_id))
    if given in names:
        return names[given].checkpoint_id
    every = asyncio.run(aoutlines(saver, thread_id))
    found = only((info.checkpoint_id for info in every), given, "checkpoints")
    if found is None:
        raise BranchNotFoundError(thread_id, given, tuple(names))
    return found


def all_threads(saver: Any, limit: int | None = None) -> Iterator[ThreadInfo]:
    """The threads of a database, the latest used first."""
    before = None
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        page = saver.threads(limit=size, before=before)
        yield from page
        if len(page) < size:
            return
        before = page[-1]
        limit = None if limit is None else limit - size


def thread_or_checkpoint(saver: PetalSaver, threads: Sequence[str] | None, given: str) -> str | None:
    """The id of the one thread, or checkpoint of some threads, that `given` is, or begins; None if there is none.

    Args:
        saver: The saver.
        threads: The threads whose checkpoints count; None for all.
        given: The id, or its beginning.

    Raises:
        CheckpointerError: If there are several; it lists them.
    """
    return only(_threads_and_checkpoints(saver, threads), given, "threads and checkpoints")


def _threads_and_checkpoints(saver: PetalSaver, threads: Sequence[str] | None) -> Iterator[str]:
    from petal.checkpoints.records import CheckpointQuery

    for info in all_threads(saver):
        yield info.thread_id
    for thread_id in [None] if threads is None else threads:
        query = CheckpointQuery(thread_id=thread_id, limit=PAGE)
        while page := saver.read_rows(partial(_page, query)):
            last = page[-1]
            query = replace(query, after=(last.id, last.thread_id, last.ns))
            yield from (row.id for row in page)


def _page(query: CheckpointQuery, reader: Reader) -> list[CheckpointRow]:
    return reader.checkpoints(query)


def only(ids: Iterable[str], given: str, what: str) -> str | None:
    """The id that `given` is, or that alone begins with it; None if there is none. Nothing begins no id.

    Raises:
        CheckpointerError: If several begin with it.
    """
    found: list[str] = []
    for id in ids:
        if id == given:
            return id
        if given and id.startswith(given) and id not in found:  # a fork has ids of its origin
            found.append(id)
    if len(found) > 1:
        more = f"\n  … and {len(found) - LISTED} more" if len(found) > LISTED else ""
        listed = "".join(f"\n  {id}" for id in found[:LISTED])
        raise CheckpointerError(f"{given!r} is the beginning of {len(found)} {what}; give more of it:{listed}{more}")
    return found[0] if found else None


def shortened(ids: list[str]) -> list[str]:
    """The ids, each cut to a length at which all of them still differ."""
    length = SHORTEST
    while len({id[:length] for id in ids}) < len(set(ids)):
        length += 1
    return [id[:length] for id in ids]
