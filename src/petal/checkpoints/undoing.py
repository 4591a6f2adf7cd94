"""What a run finds where it goes on from another's checkpoint: kept with the first that it writes, for a rollback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langgraph.checkpoint.base.id import uuid6

from petal.checkpoints.leases import Lease
from petal.checkpoints.lineage import delete_for_runs, labelled, time_of
from petal.checkpoints.notes import BEFORE, BRANCH, INPUT, RECOVERY, key_of, task_of
from petal.checkpoints.records import CheckpointRow, LeaseRow, Save, Transaction, WriteRow
from petal.checkpoints.rewinding import before_run
from petal.checkpoints.rows import Found, Namespace, Rows


def found_by(lease: Lease | None, found: Found) -> None:
    """Have a run remember the writes on a checkpoint of another run that it loads."""
    if lease is not None and found.run_id != lease.run_id:
        lease.found.setdefault((found.place.ns, found.header.checkpoint["id"]), list(found.writes))


def with_note(save: Save, lease: Lease | None, rows: Rows, place: Namespace, checkpoint_id: str) -> Save:
    """A run's writes to a checkpoint, with a note of those that it found there, until that is kept."""
    found = None if lease is None else lease.found.get((place.ns, checkpoint_id))
    if lease is not None and found is not None:
        # Writes are kept as they were first, but for LangGraph's special ones, which may be replaced.
        told = [(row.task_id, row.idx, row.channel, row.task_path, row.data if row.idx < 0 else None) for row in found]
        note = rows.writes(place, checkpoint_id, [(BEFORE, told)], task_of(lease.owner), "")
        save.writes = [*save.writes, *note.writes]
    return save


def is_noted(lease: Lease | None, place: Namespace, checkpoint_id: str) -> None:
    """Take note that what a run found on a checkpoint is on disk."""
    if lease is not None and (place.ns, checkpoint_id) in lease.found:
        lease.found[place.ns, checkpoint_id] = None


def roll_back(change: Transaction, rows: Rows, thread_id: str, runs: Sequence[LeaseRow]) -> None:
    """Remove what runs of a thread saved: their checkpoints, what they wrote to those of others, and their inputs.

    Args:
        change: What it is all done in.
        rows: Opens what the store gives.
        thread_id: The thread.
        runs: The claims of the runs, in the order in which they had the thread.

    Raises:
        CheckpointerError: If a delta channel of a checkpoint that stays is rebuilt from one of theirs.
    """
    delete_for_runs(change, rows, [id for run in runs for id in (run.run_id, before_run(run.run_id))])
    for given in change.notes(thread_id, INPUT):
        if rows.write(given)[2]["run"] in [run.run_id for run in runs]:
            change.delete_checkpoints(thread_id, given.ns, [given.checkpoint_id])
    noted = change.notes(thread_id, BEFORE)
    for run in reversed(runs):
        for note in noted:
            row = change.checkpoint(thread_id, note.ns, note.checkpoint_id)
            if key_of(note.task_id) == run.owner and row is not None:
                _restore(change, rows, row, rows.write(note)[2])
    change.recount(thread_id)


def _restore(change: Transaction, rows: Rows, row: CheckpointRow, told: Sequence[Sequence[Any]]) -> None:
    """Bring the writes on a checkpoint back to those that were there; names of branches and attempts stay."""
    here = {(write.task_id, write.idx): write for write in change.writes(row.thread_id, row.ns, [row.id])}
    stood = {key: write for key, write in here.items() if write.channel in (BRANCH, RECOVERY)}
    for task_id, idx, channel, path, data in told:
        if data is None:
            stood[task_id, idx] = here[task_id, idx]
        else:
            stood[task_id, idx] = WriteRow(row.thread_id, row.ns, row.id, task_id, idx, channel, path, data)
    header, head = rows.header(row), change.checkpoint(row.thread_id, "", None)
    save = Save(labelled(row, change), writes=list(stood.values()), now=time_of(header), told=str(uuid6()))
    if head is not None and (row.ns, row.id) == ("", head.id):
        save = replace(save, status=rows.status(header, save.writes))
    change.delete_checkpoints(row.thread_id, row.ns, [row.id])
    change.save(save)
