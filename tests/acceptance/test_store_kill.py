"""Processes on one SQLite file: killed at every statement, writing all at once, starting all at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from petal.checkpoints.records import CheckpointQuery, CheckpointRow, Reader, Save
from petal.checkpoints.sqlite import SqliteStore
from petal.checkpoints.threads import ThreadQuery
from petal.core.config.checkpointer import SqliteOptions

pytestmark = pytest.mark.usefixtures("unmeasured")

ROWS = """
import os, signal, sys
from petal.checkpoints.journal import Journal
from petal.checkpoints.records import CheckpointRow, Save, ValueRow, WriteRow
from petal.checkpoints.sqlite import SqliteStore
from petal.core.config.checkpointer import SqliteOptions


def save(thread_id, id):
    return Save(
        CheckpointRow(thread_id, "", id, None, "loop", 0, "run", b"head of " + id.encode(), b"", labels=(b"label",)),
        [ValueRow(thread_id, "", "messages", id, id, os.urandom(3000)), ValueRow(thread_id, "", "x", id, id, b"x")],
        [WriteRow(thread_id, "", id, "task", idx, "messages", "", os.urandom(500)) for idx in range(2)],
        "done",
    )


def die_at(connection, number):
    # Dies as its so-manieth statement begins, like a process that is killed from outside.
    def count(statement):
        nonlocal number
        number -= 1
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    connection.set_trace_callback(count)


def die_at_each(work):
    # A fork for each statement: its file is <number>.db; the last one is not killed.
    number = status = 1
    while status:
        if not (child := os.fork()):
            try:
                work(SqliteStore(SqliteOptions(db_file=f"{sys.argv[1]}/{number}.db"), "sqlite:///rows.db"), number)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        print(number, "killed" if status else "ended", flush=True)
        number += 1


store = SqliteStore(SqliteOptions(db_file=sys.argv[1]), "sqlite:///rows.db")
"""

DIES_IN_A_GROUP = (
    ROWS
    + """
def work(store, number):
    store.open()
    store.commit([save("t", "1")])
    die_at(store._writer, number)
    store.commit([save("t", "2"), save("t", "1"), save("u", "3")])
    print(number, "acknowledged", flush=True)

die_at_each(work)
"""
)

DIES_IN_A_DELETION = (
    ROWS
    + """
def work(store, number):
    store.open()
    store.commit([save("t", str(number)) for number in range(30)] + [save("u", "kept")])
    die_at(store._writer, number)
    with store.transaction() as rows:
        rows.delete_thread("t")
    print(number, "acknowledged", flush=True)

die_at_each(work)
"""
)

DIES_IN_ITS_FIRST_START = (
    ROWS
    + """
import sqlite3
connect = sqlite3.connect

def work(store, number):
    def watched(*args, **kwargs):
        connection = connect(*args, **kwargs)
        die_at(connection, number)
        return connection

    sqlite3.connect = watched
    store.open()
    sqlite3.connect = connect
    store._writer.set_trace_callback(None)
    print(number, "acknowledged", flush=True)

die_at_each(work)
"""
)

SAVES_ON_AND_ON = (
    ROWS
    + """
store.open()
journal = Journal(store)
for number in range(100_000):
    journal.submit(save("t", f"{number:06}")).result()
    print(number, flush=True)
"""
)

WRITES_MANY = (
    ROWS
    + """
sys.stdin.readline()  # until all processes are there
store.open()
journal = Journal(store)
name = sys.argv[2]
for number in range(20):
    journal.submit(save("shared", f"{name}-{number}"))
    journal.submit(save(name, str(number)))
    if number % 5 == 0:
        journal.flush()
journal.change(lambda rows: rows.recount("shared")).result()
journal.close()
store.close()
"""
)


def started(script: str, file: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(file), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def deaths(script: str, folder: Path) -> Iterator[tuple[Path, bool]]:
    """The file of each fork of a script, and whether it was killed; only the last is not, and says that it is done."""
    process = started(script, folder)
    said, complaint = process.communicate(timeout=90)
    assert (process.returncode, complaint) == (0, "")
    *killed, acknowledged, ended = said.splitlines()
    last = len(killed) + 1
    assert killed == [f"{number} killed" for number in range(1, last)]
    assert (acknowledged, ended) == (f"{last} acknowledged", f"{last} ended")
    for number in range(1, last + 1):
        yield folder / f"{number}.db", number < last


def sound(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def opened(file: Path) -> SqliteStore:
    store = SqliteStore(SqliteOptions(db_file=str(file)), "sqlite:///rows.db")
    store.open()
    return store


def whole(reader: Reader) -> list[str]:
    """The ids of all checkpoints, each of which has all its rows, and is counted."""
    rows: list[CheckpointRow] = reader.checkpoints(CheckpointQuery(limit=100_000))
    for row in rows:
        assert row.header == b"head of " + row.id.encode()
        assert len(reader.chains(row.thread_id, "", [("messages", row.id), ("x", row.id)])) == 2
        assert len(reader.writes(row.thread_id, "", [row.id])) == 2
    found = reader.checkpoints(CheckpointQuery(labels=((b"label",),), limit=100_000))
    assert [row.id for row in found] == [row.id for row in rows]
    entries = reader.threads(ThreadQuery())
    assert {entry.thread_id: entry.checkpoints for entry in entries} == {
        row.thread_id: sum(other.thread_id == row.thread_id for other in rows) for row in rows
    }
    for entry in entries:
        headers = sum(len(row.header + row.metadata) for row in rows if row.thread_id == entry.thread_id)
        assert entry.size == headers + entry.checkpoints * (3000 + 1 + 2 * 500)
    return [row.id for row in rows]


def test_a_kill_at_any_statement_of_a_group_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    """Also the row that the group replaces is still there, as it was."""
    tried = 0
    for file, killed in deaths(DIES_IN_A_GROUP, tmp_path):
        store = opened(file)
        assert store.read(whole) == (["1"] if killed else ["3", "2", "1"])
        store.close()
        sound(file)
        tried += 1
    assert tried > 20  # as many statements as rows, at least


def test_a_kill_at_any_statement_of_a_deletion_leaves_the_thread_or_none_of_it(tmp_path: Path) -> None:
    """The deletion counts from its commit on; the space is given back after it."""
    seen = set()
    for file, killed in deaths(DIES_IN_A_DELETION, tmp_path):
        store = opened(file)
        found = store.read(whole)
        assert found in (["kept"], ["kept", *sorted(map(str, range(30)), reverse=True)])
        seen.add((len(found), killed))
        store.close()
        sound(file)
    assert seen == {(31, True), (1, True), (1, False)}


def test_a_kill_at_any_statement_of_the_first_start_is_made_good_by_the_next(tmp_path: Path) -> None:
    tried = 0
    for file, _ in deaths(DIES_IN_ITS_FIRST_START, tmp_path):
        store = opened(file)
        assert store.read(whole) == []
        row = CheckpointRow("t", "", "1", None, "loop", 0, None, b"header", b"meta")
        store.commit([Save(row)])
        assert store.read(lambda reader: reader.checkpoint("t", "", None)) == row
        store.close()
        sound(file)
        tried += 1
    assert tried > 10


@pytest.mark.parametrize("count", [1, 7, 40])
def test_a_kill_at_any_instant_keeps_what_was_acknowledged(tmp_path: Path, count: int) -> None:
    """The process is killed from outside, somewhere in the save after the one it reports."""
    file = tmp_path / "rows.db"
    process = started(SAVES_ON_AND_ON, file)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline() for _ in range(count)]
    process.kill()
    acknowledged += process.stdout.readlines()
    process.communicate(timeout=60)
    told = [f"{int(number):06}" for number in acknowledged if number.endswith("\n")]
    store = opened(file)
    found = sorted(store.read(whole))
    assert found[: len(told)] == told
    assert len(found) <= len(told) + 1
    store.close()
    sound(file)


def test_eight_processes_start_and_write_at_once(tmp_path: Path) -> None:
    """None is turned away, in the first start of the file neither, and nothing is lost or counted wrong."""
    file = tmp_path / "made" / "by all.db"
    processes = [started(WRITES_MANY, file, f"p{number}") for number in range(8)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    complaints = [process.communicate(timeout=90)[1] for process in processes]
    assert complaints == [""] * 8
    assert [process.returncode for process in processes] == [0] * 8
    store = opened(file)
    assert len(store.read(whole)) == 8 * 20 * 2
    store.close()
    sound(file)
