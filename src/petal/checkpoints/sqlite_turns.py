"""Which run has which thread of an SQLite database, and whether what a run saves is in turn."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from sqlite3 import Connection, Cursor

from petal.checkpoints import sqlite_sql as sql
from petal.checkpoints.fence import require_next
from petal.checkpoints.records import Claim, LeaseRow, Reader, Release, Save, StaleSave, Turn

FORGOTTEN = 3600.0
"""Seconds after which a process that is no longer heard of is not even remembered."""


def leases(connection: Connection, thread_id: str) -> list[LeaseRow]:
    """Who has a thread, then who waits for it, in the order in which they get it."""
    found = connection.execute(sql.LEASES, (time.time(), thread_id))
    return [
        LeaseRow(thread_id, owner, process, run_id, bool(urgent), bool(holds), wish, bool(is_alive))
        for owner, process, run_id, urgent, holds, wish, is_alive in found
    ]


def wishes(connection: Connection, process: str) -> list[LeaseRow]:
    """Of the claims of a process those of which something is asked."""
    found = connection.execute(sql.WISHES, (process,))
    return [
        LeaseRow(thread_id, owner, process, run_id, bool(urgent), bool(holds), wish)
        for thread_id, owner, run_id, urgent, holds, wish in found
    ]


def take(cursor: Cursor, turn: Turn) -> None:
    """Change who has which thread."""
    match turn:
        case Claim():
            columns = {
                "thread": turn.thread_id,
                "owner": turn.owner,
                "process": turn.process,
                "run": turn.run_id,
                "urgent": turn.is_urgent,
            }
            cursor.execute(sql.CLAIM, columns)
        case Release():
            cursor.execute(sql.RELEASE, (turn.thread_id, turn.owner))
            if turn.input_id:
                place = turn.thread_id, "", turn.input_id
                (size,) = cursor.execute(sql.SIZE_OF_WRITES, place).fetchone()
                cursor.execute(sql.SHRINK, (int(size), turn.thread_id))
                cursor.execute(sql.DELETE_WRITES, place)
        case _:
            now = time.time()
            cursor.execute(sql.BEAT, (turn.process, now + turn.seconds))
            cursor.execute(sql.BURY, (now - FORGOTTEN,))


def in_turn(cursor: Cursor, saves: Sequence[Save]) -> bool:
    """Whether all checkpoints that must follow on the newest one do; who has which thread is changed on the way.

    Raises:
        StaleSave: If a run has lost its lease.
    """
    places = {(row.thread_id, row.ns): None for save in saves if save.fenced and (row := save.checkpoint) is not None}
    heads: dict[tuple[str, str], str | None] = {}
    for part in sql.portions(sql.HEADS, 2, [part for place in places for part in place]):
        for thread_id, ns, head in cursor.execute(*part):
            heads[thread_id, ns] = head
    _require_held(cursor, {(_thread_of(save), save.lease): None for save in saves if save.lease is not None})
    released = set[str]()
    for save in saves:
        if save.turn is not None:
            take(cursor, save.turn)
            if isinstance(save.turn, Release):
                released.add(save.turn.owner)
        if save.lease in released:
            raise StaleSave(lost=True)
        row = save.checkpoint
        if row is not None and (place := (row.thread_id, row.ns)) in heads:
            head = heads[place]
            if row.id == head or (save.fenced and head not in (None, row.parent_id)):
                return False
            heads[place] = max(row.id, head or "")
    return True


def require(cursor: Cursor, reader: Reader, save: Save) -> None:
    """As `in_turn`, of one save, of which rows may be there already.

    Raises:
        StaleSave: If its run has lost its lease, or another one saved first.
    """
    if save.lease is not None:
        _require_held(cursor, [(_thread_of(save), save.lease)])
    require_next(reader, save)


def _require_held(cursor: Cursor, claims: Iterable[tuple[str, str | None]]) -> None:
    wanted = [part for claim in claims for part in claim]
    held = sum(cursor.execute(*part).fetchone()[0] for part in sql.portions(sql.HELD, 2, wanted))
    if 2 * held != len(wanted):
        raise StaleSave(lost=True)


def _thread_of(save: Save) -> str:
    """The thread of a save that has rows."""
    return save.checkpoint.thread_id if save.checkpoint is not None else save.writes[0].thread_id
