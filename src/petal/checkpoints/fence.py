"""Whether a fenced save follows on the newest checkpoint, for the stores that look row by row."""

from __future__ import annotations

from petal.checkpoints.records import Reader, Save, StaleSave


def require_next(reader: Reader, save: Save) -> None:
    """See that a checkpoint is in turn. One that is there already was, when it was written.

    Raises:
        StaleSave: If another run saved one first.
    """
    row = save.checkpoint
    if row is None or not save.fenced:
        return
    head = reader.checkpoint(row.thread_id, row.ns, None)
    if head is None or head.id == row.parent_id:
        return
    if reader.checkpoint(row.thread_id, row.ns, row.id) is not None:
        return
    if row.parent_id is None or reader.checkpoint(row.thread_id, row.ns, row.parent_id) is not None:
        raise StaleSave
