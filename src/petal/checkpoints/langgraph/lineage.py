"""Which checkpoints belong together: copies, forks and prunes, decided once for every storage."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from petal.checkpoints.langgraph.dialect import Key, Row, Transaction
from petal.errors import CheckpointerError, CheckpointNotFoundError

Strategy = Literal["keep_latest", "delete"]


def copy_thread(change: Transaction, source: str, target: str) -> None:
    """Copies a thread with its whole past."""
    if not change.rows(source):
        raise CheckpointNotFoundError(source)
    _require_empty(change, target)
    change.copy(source, target)


def fork_thread(change: Transaction, source: str, checkpoint_id: str, target: str) -> None:
    """Copies a checkpoint of the root namespace with what led to it."""
    rows = change.rows(source)
    if not rows:
        raise CheckpointNotFoundError(source)
    if ("", checkpoint_id) not in {row.key for row in rows}:
        raise CheckpointNotFoundError(source, checkpoint_id)
    _require_empty(change, target)
    change.graft(source, target, *past_of(rows, checkpoint_id))


def prune(change: Transaction, thread_ids: Sequence[str], strategy: Strategy) -> None:
    """Deletes whole threads, or all but the newest state of each."""
    if strategy == "delete":
        change.clear(thread_ids)
        return
    threads = {id: change.rows(id) for id in thread_ids}
    _drop(change, {id: (rows, outdated(rows)) for id, rows in threads.items()})


def delete_for_runs(change: Transaction, run_ids: Sequence[str]) -> None:
    """Deletes what the runs saved, in whichever thread."""
    threads = {id: change.rows(id) for id in change.threads_of(run_ids)}
    _drop(change, {id: (rows, {row.key for row in rows if row.run_id in run_ids}) for id, rows in threads.items()})


def past_of(rows: Sequence[Row], checkpoint_id: str) -> tuple[list[Key], list[Key]]:
    """What a fork at a root checkpoint takes along.

    A subgraph's checkpoint goes with the root checkpoint that its call started from. Writes of the chosen
    checkpoint are what came after it; they come along only if nothing else came: then its open interrupts,
    and the subgraphs that wait in them, are open in the fork too. Else a subgraph that keeps a state of its own
    and was called there stands as that call began, since LangGraph gives it no input when it resumes.

    What was called at a checkpoint on the way after the way went on belongs to another line: its question was
    answered there later.

    Returns:
        The checkpoints, and those among them whose pending writes are copied.
    """
    known = {row.key: row for row in rows}
    path = _ancestry(known, ("", checkpoint_id))
    went_on = {before[1]: after[1] for after, before in pairwise(path)}
    last = not any(row.parent == checkpoint_id for row in rows if row.ns == "")
    begun = set(path) if last else set(path[1:])
    opened = set() if last else _as_calls_began(rows, checkpoint_id)
    kept = dict.fromkeys(path)
    for row in rows:
        if row.ns == "" or (row.root in went_on and row.id > went_on[row.root]):
            continue
        call = ("", row.root) if row.root is not None else None
        if row.key in opened or (call in begun if call in known else row.id <= checkpoint_id):
            kept.update(dict.fromkeys(_ancestry(known, row.key)))
    return list(kept), [key for key in kept if last or key not in (path[0], *opened)]


def _as_calls_began(rows: Sequence[Row], root: str) -> set[Key]:
    """The first checkpoint at a root checkpoint of each subgraph that keeps a state of its own."""
    called = [row for row in rows if row.root == root and row.ns and ":" not in row.ns]
    return {row.key for row in {row.ns: row for row in sorted(called, key=lambda row: row.id, reverse=True)}.values()}


def outdated(rows: Sequence[Row]) -> set[Key]:
    """All but the newest checkpoint of each namespace, and but what those need to be read.

    The namespace of one subgraph call goes with the root checkpoint that the call started from; one whose
    subgraph keeps its own state (no `:` in its name) stays.
    """
    known = {row.key for row in rows}
    heads = {row.ns: row for row in sorted(rows, key=lambda row: row.id)}
    roots = {key for ns in heads if ns == "" for key in _needed(heads[ns])}
    kept = set(roots)
    for ns, head in heads.items():
        call = ("", head.root)
        if ":" in ns and call in known and call not in roots:
            continue
        kept.update(_needed(head))
    return known - kept


def _needed(head: Row) -> list[Key]:
    return [head.key, (head.ns, head.parent)] if head.sends and head.parent else [head.key]


def _ancestry(known: dict[Key, Row], key: Key) -> list[Key]:
    """A checkpoint and its ancestors, newest first; a loop or a missing parent ends it."""
    path: dict[Key, None] = {}
    row = known.get(key)
    while row is not None and row.key not in path:
        path[row.key] = None
        row = known.get((row.ns, row.parent)) if row.parent else None
    return list(path)


def _drop(change: Transaction, threads: Mapping[str, tuple[Sequence[Row], Collection[Key]]]) -> None:
    """Deletes checkpoints of threads, given all rows of each: every thread is checked before one is changed."""
    orphans: dict[str, list[Key]] = {}
    for thread_id, (rows, doomed) in threads.items():
        orphans[thread_id] = [
            row.key for row in rows if row.key not in doomed and row.parent and (row.ns, row.parent) in doomed
        ]
        if orphans[thread_id] and any(row.delta for row in rows):
            raise CheckpointerError(
                f"Thread {thread_id!r} uses a DeltaChannel, whose value is rebuilt from older checkpoints, so those "
                "cannot be deleted alone; nothing was changed. Delete the whole thread, or keep it as it is."
            )
    for thread_id, (_, doomed) in threads.items():
        if doomed:
            change.delete(thread_id, list(doomed), orphans[thread_id])


def _require_empty(change: Transaction, target: str) -> None:
    if change.occupied(target):
        raise CheckpointerError(
            f"Thread {target!r} already has checkpoints; name a thread that does not exist, or delete it first."
        )
