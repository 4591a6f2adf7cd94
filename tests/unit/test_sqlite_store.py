"""The SQLite store beside what all stores promise: its file, its format, its locks, and what its errors say."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint

from petal.checkpoints import SqliteSaver, sqlite_sql
from petal.checkpoints.journal import Journal
from petal.checkpoints.records import CheckpointQuery, CheckpointRow, Save, ValueRow, WriteRow
from petal.checkpoints.sqlite import SqliteStore, holds_langgraphs_tables
from petal.checkpoints.threads import ThreadInfo, ThreadQuery, made_at
from petal.core.config.checkpointer import SqliteOptions
from petal.errors import CheckpointCorruptionError, CheckpointerError, CheckpointerUnavailableError

WHERE = "sqlite:///rows.db"

Open = Callable[..., SqliteStore]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.db"


@pytest.fixture
def opened(file: Path) -> Iterator[Open]:
    """Opens stores on the file, and closes them at the end."""
    stores = []

    def open(read_only: bool = False, **options: Any) -> SqliteStore:
        store = SqliteStore(SqliteOptions(db_file=str(file), **options), WHERE, read_only=read_only)
        stores.append(store)
        store.open()
        return store

    yield open
    for store in stores:
        store.close()


def save(id: str, data: bytes = b"", thread_id: str = "t") -> Save:
    checkpoint = CheckpointRow(thread_id, "", id, None, "loop", 0, None, b"head", b"meta", labels=(b"label...",))
    value = ValueRow(thread_id, "", "messages", id, id, data)
    return Save(checkpoint, [value], [WriteRow(thread_id, "", id, "task", 0, "messages", "", b"write")], "done")


def ids(store: SqliteStore) -> list[str]:
    return [row.id for row in store.read(lambda reader: reader.checkpoints(CheckpointQuery(limit=10_000)))]


def asked(file: Path, statement: str) -> Any:
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement).fetchone()[0]


def made(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def failure(store: SqliteStore, saves: list[Save]) -> Exception | None:
    with pytest.raises(sqlite3.Error) as caught:
        store.commit(saves)
    return store.translated(caught.value)


def test_a_new_file_is_made_to_last(opened: Open, file: Path) -> None:
    opened()
    assert asked(file, "PRAGMA journal_mode") == "wal"
    assert asked(file, "PRAGMA auto_vacuum") == 2
    assert asked(file, "PRAGMA page_size") == 4096
    assert asked(file, "SELECT value FROM petal_meta WHERE key = 'format'") == 1


def test_every_key_begins_with_its_thread(opened: Open, file: Path) -> None:
    """So that nothing crosses threads; and only tables of Petal's own name are made."""
    opened()
    with closing(sqlite3.connect(file)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        assert all(name.startswith("petal_") for name in tables)
        for table in set(tables) - {"petal_meta", "petal_processes"}:
            columns = connection.execute(f"SELECT name FROM pragma_table_info('{table}') WHERE pk = 1").fetchall()
            assert columns == [("thread_id",)]


def test_a_group_is_one_transaction_with_full_sync(opened: Open) -> None:
    """However many saves it holds: one commit, so one fsync, and few statements, of many rows each."""
    store = opened()
    connection = store._writer
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    statements: list[str] = []
    connection.set_trace_callback(lambda statement: statements.append(" ".join(statement.split()[:3])))
    store.commit([save(str(number)) for number in range(10)])
    connection.set_trace_callback(None)
    assert statements[0] == "BEGIN IMMEDIATE"
    assert statements[-1] == "COMMIT"
    counted = {kind: statements.count(kind) for kind in sorted(set(statements[1:-1]))}
    assert counted == {
        "INSERT INTO petal_checkpoints": 2,  # of 8 rows and of 2
        "INSERT INTO petal_labels": 2,
        "INSERT INTO petal_threads": 1,
        "INSERT INTO petal_values": 2,
        "INSERT INTO petal_writes": 2,
    }
    again = Save(writes=[replace(write, data=b"again", idx=-1) for write in save("1").writes for _ in range(2)])
    statements.clear()
    connection.set_trace_callback(lambda statement: statements.append(statement.split()[0]))
    store.commit([save("1"), again])
    connection.set_trace_callback(None)
    assert [word for word in statements if word in ("BEGIN", "ROLLBACK", "COMMIT")] == [
        "BEGIN", "ROLLBACK", "BEGIN", "COMMIT",
    ]  # fmt: skip
    with store.reader() as reader:
        assert next(write.data for write in reader.writes("t", "", ["1"])) == b"again"


def test_sync_can_be_left_to_the_system(opened: Open) -> None:
    """Still by a write-ahead log, in which a commit is whole or not there."""
    connection = opened(synchronous="normal")._writer
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_a_killed_process_loses_no_commit(file: Path, opened: Open, synchronous: str) -> None:
    """What it acknowledged is there, also what the system had not yet written to the disk."""
    program = """
import itertools, sys
from petal.checkpoints.records import CheckpointRow, Save
from petal.checkpoints.sqlite import SqliteStore
from petal.core.config.checkpointer import SqliteOptions
store = SqliteStore(SqliteOptions(db_file=sys.argv[1], synchronous=sys.argv[2]), "")
store.open()
for number in itertools.count():
    store.commit([Save(CheckpointRow("t", "", f"{number:06}", None, "loop", 0, None, bytes(9000), b""))])
    print(f"{number:06}", flush=True)
"""
    command = [sys.executable, "-c", program, str(file), synchronous]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline() for _ in range(40)]
        child.kill()
        acknowledged += child.stdout
    found = ids(opened(synchronous=synchronous))
    assert found == [f"{number:06}" for number in range(len(found))][::-1]
    assert len(found) - len(acknowledged) in (0, 1)
    assert asked(file, "PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (CheckpointQuery(thread_id="t", ns="", id=None), "sqlite_autoindex_petal_checkpoints_1"),
        (CheckpointQuery(thread_id="t", ns="", before="5"), "sqlite_autoindex_petal_checkpoints_1"),
        (CheckpointQuery(), "petal_checkpoints_newest"),
        (CheckpointQuery(after=("5", "t", "")), "petal_checkpoints_newest"),
        (CheckpointQuery(labels=((b"label...",),)), "petal_labels_newest"),
        (CheckpointQuery(labels=((b"label...", b"other..."),)), "petal_labels_newest"),
        (CheckpointQuery(labels=((b"label...",), (b"a", b"b")), before="5"), "petal_labels_newest"),
        (CheckpointQuery(labels=((b"a", b"b", b"c"), (b"d", b"e", b"f"))), "petal_labels_newest"),
        (CheckpointQuery(labels=((b"a", b"b"),), after=("5", "t", "")), "petal_labels_newest"),
        (CheckpointQuery("t", "", labels=((b"a", b"b"),)), "sqlite_autoindex_petal_checkpoints_1"),
        (ThreadQuery(), "petal_threads_updated"),
        (ThreadQuery(before=ThreadInfo("t", 1, None, "5")), "petal_threads_updated"),
        (ThreadQuery(status="done"), "petal_threads_status"),
        (ThreadQuery(status="done", before=ThreadInfo("t", 1, None, "5")), "petal_threads_status"),
    ],
)
def test_a_page_is_read_from_an_index_in_its_order(
    opened: Open, file: Path, ask: CheckpointQuery | ThreadQuery, index: str
) -> None:
    """Nothing is sorted: a page costs what it shows, however much there is."""
    store = opened()
    statements: list[str] = []
    with store.reader() as reader:
        connection = reader._connection  # type: ignore[attr-defined]
        connection.set_trace_callback(statements.append)
        if isinstance(ask, CheckpointQuery):
            reader.checkpoints(ask)
        else:
            reader.threads(ask)
        connection.set_trace_callback(None)
        plan = " / ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[-1]}"))
    assert index in plan
    assert "TEMP B-TREE" not in plan


def test_files_are_shared(opened: Open) -> None:
    """What one saves, the others see; counts stay right, whoever saves."""
    first, second = opened(), opened()
    first.commit([save("1")])
    second.commit([save("2"), save("1")])
    assert ids(first) == ids(second) == ["2", "1"]
    (entry,) = first.read(lambda reader: reader.threads(ThreadQuery()))
    assert entry.checkpoints == 2


def test_a_relative_name_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a step, or a tool, takes the process to; there may even be another file of that name."""

    def named(thread_id: str) -> SqliteStore:
        store = SqliteStore(SqliteOptions(db_file="rows.db"), WHERE)
        store.open()
        store.commit([save("1", thread_id=thread_id)])
        return store

    monkeypatch.chdir(tmp_path)
    here = named("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert here.read(lambda reader: [info.thread_id for info in reader.threads(ThreadQuery())]) == ["here"]
    there = named("there")
    assert here.glance(("here", "")) is not None
    for store in here, there:
        store.close()


@pytest.mark.parametrize("becomes_of_it", ["removed", "replaced", "moved"])
def test_nothing_is_saved_into_a_file_that_is_no_longer_there(opened: Open, file: Path, becomes_of_it: str) -> None:
    """It would be acknowledged, and gone with the process."""
    store = opened()
    store.commit([save("1")])
    aside = file.replace(file.with_name("aside.db"))
    if becomes_of_it == "removed":
        aside.unlink()
    elif becomes_of_it == "replaced":
        file.write_bytes(b"")
    for act in (lambda: store.commit([save("2")])), lambda: store.transaction().__enter__().delete_thread("t"):
        with pytest.raises(CheckpointerUnavailableError) as caught:
            act()
        assert str(caught.value) == (
            f"{WHERE}: the file was removed, moved or replaced while it was open. "
            "Put it back, or restart what has it open"
        )
    if becomes_of_it == "moved":
        aside.replace(file)
        store.commit([save("2")])
        assert ids(store) == ["2", "1"]


def test_it_stays_with_its_file_when_a_link_leads_elsewhere(tmp_path: Path) -> None:
    """As in a deployment, which gives the folder `current` to another release."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    current = tmp_path / "current"
    current.symlink_to("old")
    store = SqliteStore(SqliteOptions(db_file=str(current / "runs.db")), WHERE)
    store.open()
    store.commit([save("1")])
    current.unlink()
    current.symlink_to("new")
    store.commit([save("2")])
    assert ids(store) == ["2", "1"]
    store.close()
    assert [found.name for found in tmp_path.rglob("*.db")] == ["runs.db"]


def test_other_tables_in_the_file_stay_as_they_are(opened: Open, file: Path) -> None:
    made(file, "CREATE TABLE checkpoints (thread_id TEXT)", "INSERT INTO checkpoints VALUES ('theirs')")
    store = opened()
    store.commit([save("1")])
    with store.transaction() as rows:
        rows.delete_thread("t")
    assert asked(file, "SELECT thread_id FROM checkpoints") == "theirs"


def test_a_file_of_langgraphs_is_recognised(opened: Open, file: Path) -> None:
    """By its tables, as long as ours are not there too; nothing is made and nothing is raised."""
    assert not holds_langgraphs_tables(":memory:")
    assert not holds_langgraphs_tables(str(file))
    assert not file.exists()
    made(file, "CREATE TABLE checkpoints (thread_id TEXT)")
    assert not holds_langgraphs_tables(str(file))
    made(file, "CREATE TABLE writes (thread_id TEXT)")
    assert holds_langgraphs_tables(str(file))
    opened()
    assert not holds_langgraphs_tables(str(file))
    other = file.with_name("other.db")
    other.write_bytes(b"no database at all " * 100)
    assert not holds_langgraphs_tables(str(other))


def test_space_of_deleted_threads_is_given_back(opened: Open, file: Path) -> None:
    store = opened()
    store.commit([save("1", b"x", "kept")])
    for number in range(40):
        store.commit([save(str(number), bytes(100_000))])
    asked(file, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert file.stat().st_size > 4_000_000
    with store.transaction() as rows:
        rows.delete_thread("t")
    assert file.stat().st_size < 200_000
    assert ids(store) == ["1"]


def test_a_file_that_cannot_give_space_back_uses_it_again(opened: Open, file: Path) -> None:
    made(file, "CREATE TABLE theirs (x)")
    store = opened()
    store.commit([save("1", bytes(1_000_000))])
    asked(file, "PRAGMA wal_checkpoint(TRUNCATE)")
    size = file.stat().st_size
    with store.transaction() as rows:
        rows.delete_thread("t")
    store.commit([save("2", bytes(900_000))])
    asked(file, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert file.stat().st_size == size


def test_a_deletion_is_done_even_if_its_space_cannot_be_given_back(opened: Open) -> None:
    """Another process begins to write right after it."""
    store, other = opened(busy_timeout=0.1), opened()
    store.commit([save("1", bytes(100_000))])
    begin, done = threading.Event(), threading.Event()

    def write() -> None:
        with other.transaction() as rows:
            begin.set()
            assert done.wait(30)
            rows.save(save("2", thread_id="other"))

    thread = threading.Thread(target=write)

    def started(statement: str) -> None:
        if statement == "PRAGMA freelist_count" and not begin.is_set():
            thread.start()
            assert begin.wait(30)

    assert store._writer is not None
    store._writer.set_trace_callback(started)
    with store.transaction() as rows:
        rows.delete_thread("t")
    done.set()
    thread.join()
    assert ids(store) == ["2"]


def test_who_finds_another_writing_waits(opened: Open) -> None:
    """And is told whom it waited for if that takes too long."""
    store, hasty = opened(), opened(busy_timeout=0.1)
    with store.transaction() as rows:
        rows.save(save("1"))
        error = failure(hasty, [save("2")])
    assert isinstance(error, CheckpointerUnavailableError)
    assert str(error) == f"{WHERE}: database is locked. Another process is writing; end it, or raise busy_timeout"
    hasty.commit([save("3")])
    assert ids(store) == ["3", "1"]


def test_a_connection_that_cannot_wait_tries_again(opened: Open, file: Path) -> None:
    """SQLite does not wait for others when a file goes over to WAL."""
    made(file, "CREATE TABLE theirs (x)")
    blocking = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: blocking.execute("COMMIT"))
    timer.start()
    store = opened()
    timer.join()
    blocking.close()
    store.commit([save("1")])
    assert asked(file, "PRAGMA journal_mode") == "wal"


def test_more_readers_than_connections_wait_for_one(opened: Open) -> None:
    store = opened(busy_timeout=0.1)
    readers = [store.reader() for _ in range(store.readers)]
    for reader in readers:
        reader.__enter__()
    with pytest.raises(CheckpointerUnavailableError) as caught, store.reader():
        pass
    assert str(caught.value) == (
        f"{WHERE}: all 4 reading connections have been in use for 0.1 s. End a read before the next begins"
    )
    store.close()  # those in use are closed when they come back
    for reader in readers:
        reader.__exit__(None, None, None)
    with pytest.raises(CheckpointerUnavailableError, match="is closed"), store.reader():
        pass


def test_inspection_changes_nothing(opened: Open, file: Path) -> None:
    opened().commit([save("1")])
    store = opened(read_only=True)
    assert ids(store) == ["1"]
    error = failure(store, [save("2")])
    assert isinstance(error, CheckpointerUnavailableError)
    assert error.problem == "attempt to write a readonly database"


def test_inspection_makes_no_file(opened: Open, file: Path) -> None:
    with pytest.raises(CheckpointerUnavailableError) as caught:
        opened(read_only=True)
    assert str(caught.value) == f"{WHERE}: there is no such file. Name one that exists"
    assert list(file.parent.iterdir()) == []


def test_inspection_makes_no_tables(opened: Open, file: Path) -> None:
    made(file, "CREATE TABLE theirs (x)")
    with pytest.raises(CheckpointerError) as caught:
        opened(read_only=True)
    assert str(caught.value) == (
        f"{WHERE} has no tables of this version of Petal: nothing was kept in it yet, or by an older one. "
        "A run makes them."
    )


def test_a_newer_format_is_refused(opened: Open, file: Path) -> None:
    opened().close()
    made(file, "UPDATE petal_meta SET value = 7")
    with pytest.raises(CheckpointerError) as caught:
        opened()
    assert str(caught.value) == (
        f"{WHERE} was written by a newer Petal: it has format 7, and this one knows formats up to 1. "
        "Upgrade petal, or name another file."
    )


def test_an_older_format_is_upgraded_whole(opened: Open, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that breaks off leaves the format that was there, and the next start goes on from it."""
    opened().commit([save("1")])
    step = ("ALTER TABLE petal_threads ADD COLUMN colour TEXT", "UPDATE petal_threads SET colour = 'red'")
    monkeypatch.setattr(sqlite_sql, "MIGRATIONS", (*sqlite_sql.MIGRATIONS, step, ("broken",)))
    with pytest.raises(CheckpointerError, match="syntax error"):
        opened()
    assert asked(file, "SELECT value FROM petal_meta") == 1
    monkeypatch.setattr(sqlite_sql, "MIGRATIONS", sqlite_sql.MIGRATIONS[:-1])
    store = opened()
    assert asked(file, "SELECT value FROM petal_meta") == 2
    assert asked(file, "SELECT colour FROM petal_threads") == "red"
    assert ids(store) == ["1"]


def test_what_is_no_database_is_said_to_be_none(opened: Open, file: Path) -> None:
    file.write_bytes(b"no database at all " * 100)
    with pytest.raises(CheckpointCorruptionError, match="file is not a database"):
        opened()
    assert file.read_bytes().startswith(b"no database")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    store = SqliteStore(SqliteOptions(db_file=str(tmp_path / "taken" / "rows.db")), WHERE)
    with pytest.raises(CheckpointerUnavailableError, match="folder can be made"):
        store.open()
    store.close()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    store = SqliteStore(SqliteOptions(db_file=str(tmp_path)), WHERE)
    with pytest.raises(CheckpointerUnavailableError, match="unable to open database file") as caught:
        store.open()
    assert caught.value.hint == "It is a folder; name a file in it"
    looked = SqliteStore(SqliteOptions(db_file=str(tmp_path)), WHERE, read_only=True)
    with pytest.raises(CheckpointerUnavailableError) as caught:
        looked.open()
    assert str(caught.value) == f"{WHERE}: there is no file of that name. It is a folder; name a file in it"


def test_where_nothing_can_be_made_a_file_is_not_looked_at(opened: Open, file: Path) -> None:
    """SQLite needs a file beside one with a write-ahead log also to read it, which the error says."""
    opened().close()
    # What the system administrator cannot make either.
    file.with_name(f"{file.name}-shm").symlink_to("nowhere/shm")
    with pytest.raises(CheckpointerUnavailableError, match="unable to open database file") as caught:
        opened(read_only=True)
    assert "copy it, and the -wal file if there is one" in caught.value.hint
    with pytest.raises(CheckpointerUnavailableError, match="unable to open database file") as caught:
        opened()
    assert caught.value.hint == "Check that its folder exists and may be written to, or name another file"


def test_a_full_disk_loses_nothing_that_was_saved(opened: Open, file: Path) -> None:
    store = opened()
    journal = Journal(store)
    journal.submit(save("1")).result()
    assert store._writer is not None
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    future = journal.submit(save("2", bytes(100_000)))
    with pytest.raises(CheckpointerUnavailableError) as caught:
        future.result()
    assert str(caught.value) == (
        f"{WHERE}: database or disk is full. Free some space and go on; what was saved before is safe"
    )
    assert ids(store) == ["1"]
    assert asked(file, "PRAGMA integrity_check") == "ok"
    store._writer.execute("PRAGMA max_page_count = 1000000")
    journal.submit(save("2", bytes(100_000))).result()
    assert ids(store) == ["2", "1"]
    journal.close()


def test_a_save_of_the_wrong_types_fails_alone(opened: Open) -> None:
    """SQLite itself checks what a column takes."""
    store = opened()
    wrong = save("2")
    wrong.values[0] = ValueRow("t", "", "messages", "2", "2", "no bytes")  # type: ignore[arg-type]
    error = failure(store, [save("1"), wrong])
    assert isinstance(error, CheckpointerError)
    assert str(error) == f"{WHERE}: cannot store TEXT value in BLOB column petal_values.data."
    assert ids(store) == []


async def test_half_a_character_in_an_id_is_told(file: Path) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "half \ud83d", "checkpoint_ns": ""}}
    with SqliteSaver(file) as saver:
        with pytest.raises(CheckpointerError, match="is no text that can be kept"):
            saver.delete_thread("half \ud83d")
        with pytest.raises(CheckpointerError, match="is no text that can be kept"):
            await saver.aget_tuple(config)
        with pytest.raises(CheckpointerError, match="is no text that can be kept"):
            await saver.aput(config, empty_checkpoint(), {"source": "loop"}, {})


def test_an_error_of_no_database_is_left_alone(opened: Open) -> None:
    assert opened().translated(OSError("elsewhere")) is None


def test_a_lost_entry_of_the_index_is_made_anew(opened: Open, file: Path) -> None:
    store = opened()
    first, last = "1f0e6a00-0000-6000-8000-000000000000", "1f0e6b00-0000-6000-8000-000000000000"
    store.commit([save(first), save(last)])
    made(file, "DELETE FROM petal_threads")
    with store.transaction() as rows:
        rows.recount("t")
    (entry,) = store.read(lambda reader: reader.threads(ThreadQuery()))
    assert entry == ThreadInfo("t", 2, made_at(last), last, None, 2 * len(b"head" + b"meta" + b"write"), made_at(first))


def test_a_store_may_be_opened_again(opened: Open) -> None:
    store = opened()
    store.commit([save("1")])
    store.close()
    store.open()
    assert ids(store) == ["1"]


def test_nothing_is_left_beside_a_file_that_was_closed(opened: Open, file: Path) -> None:
    store = opened()
    store.commit([save("1")])
    assert ids(store) == ["1"]
    store.close()
    assert [path.name for path in file.parent.iterdir()] == ["rows.db"]
