"""What every store does with rows: keep them, find them, change them all or none, and count them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petal.checkpoints.memory import MemoryStore
from petal.checkpoints.postgres import PostgresStore
from petal.checkpoints.records import (
    CheckpointQuery,
    CheckpointRow,
    OrphanedSave,
    Reader,
    Save,
    Status,
    Store,
    Transaction,
    ValueRow,
    WriteRow,
)
from petal.checkpoints.sqlite import SqliteStore
from petal.checkpoints.threads import ThreadInfo, ThreadQuery
from petal.core.config.checkpointer import PostgresOptions, SqliteOptions
from petal.errors import CheckpointerUnavailableError

Make = Callable[[pytest.FixtureRequest], Store]

CONCURRENT: dict[str, Make] = {
    "sqlite": lambda test: SqliteStore(
        SqliteOptions(db_file=str(test.getfixturevalue("tmp_path") / "deep" / "er ?#%.db")), "sqlite:///rows.db"
    ),
    "postgres": lambda test: PostgresStore(
        PostgresOptions(connection_string=test.getfixturevalue("postgres_url")), "postgresql://rows"
    ),
}
"""Stores whose readers and writers do not wait for each other."""
STORES: dict[str, Make] = {
    "memory": lambda test: MemoryStore(),
    "sqlite-memory": lambda test: SqliteStore(SqliteOptions(db_file=":memory:"), "sqlite:///:memory:"),
    **CONCURRENT,
}

START = datetime(2026, 1, 1, tzinfo=UTC)
RED, BLUE = b"red.....", b"blue...."


def _opened(makes: dict[str, Make], request: pytest.FixtureRequest) -> Iterator[Store]:
    store = makes[request.param](request)
    store.open()
    yield store
    store.close()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Every store in turn, empty."""
    yield from _opened(STORES, request)


@pytest.fixture(params=CONCURRENT)
def concurrent_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Every store in turn whose readers hold up no writer, empty."""
    yield from _opened(CONCURRENT, request)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def checkpoint(id: str, thread_id: str = "t", ns: str = "", **columns: Any) -> CheckpointRow:
    known: dict[str, Any] = {
        "parent_id": None, "source": "loop", "step": 1, "run_id": None,
        "header": b"head", "metadata": b"meta", "name": "n",
    }  # fmt: skip
    return CheckpointRow(thread_id, ns, id, **{**known, **columns})


def value(version: str, root: str | None = None, data: bytes = b"value", channel: str = "messages") -> ValueRow:
    return ValueRow("t", "", channel, root or version, version, data)


def write(idx: int, data: bytes = b"write", task_id: str = "task", task_path: str = "", id: str = "1") -> WriteRow:
    return WriteRow("t", "", id, task_id, idx, "messages", task_path, data)


def saved(store: Store, *rows: CheckpointRow, status: Status | None = None, second: int = 0) -> None:
    for row in rows:
        store.commit([Save(row, status=status, now=at(second).isoformat())])


def ids(store: Store, **query: Any) -> list[str]:
    return [row.id for row in store.read(lambda reader: reader.checkpoints(CheckpointQuery(**query)))]


def info(store: Store, thread_id: str = "t") -> ThreadInfo:
    found: list[ThreadInfo] = store.read(lambda reader: reader.threads(ThreadQuery(search=thread_id)))
    assert [entry.thread_id for entry in found] == [thread_id]
    return found[0]


def names(store: Store, **query: Any) -> list[str]:
    return [entry.thread_id for entry in store.read(lambda reader: reader.threads(ThreadQuery(**query)))]


def test_heads_are_the_newest_of_each_place_with_their_writes(store: Store) -> None:
    saved(
        store, checkpoint("1"), checkpoint("3"), checkpoint("2"), checkpoint("1", ns="inner"), checkpoint("9", "other")
    )
    writes = [write(0, b"c", "b", "~1", "3"), write(1, b"b", "a", "~1", "3"), write(0, b"a", "a", "~1", "3")]
    store.commit([Save(writes=[*writes, write(0, b"of another")])])
    places = [("t", ""), ("t", "inner"), ("t", "none"), ("nobody", "")]
    with store.transaction() as change:
        in_change = change.heads(places)
    for heads in (in_change, store.heads(places), store.read(lambda reader: reader.heads(places))):
        assert {place: row.id for place, (row, _) in heads.items()} == {("t", ""): "3", ("t", "inner"): "1"}
        assert replace(heads["t", ""][0], labels=()) == checkpoint("3")
        assert heads["t", ""][1] == writes[::-1]
        assert heads["t", "inner"][1] == []


def test_rows_come_back_as_they_went_in(store: Store) -> None:
    """Every column of every kind of row is kept, empty and absent ones too."""
    row = checkpoint("1", ns="sub|a:1", parent_id="0", run_id="run", labels=(RED,), header=b"\0\xff", metadata=b"")
    bare = checkpoint("2", source="", step=None)
    values = [value("1", data=b""), value("2", "1", b"\0delta")]
    writes = [write(0, b"\xff\0"), write(-1, b"")]
    store.commit([Save(row, now=at(0).isoformat()), Save(bare, values, writes, now=at(0).isoformat())])
    with store.reader() as reader:
        found = reader.checkpoint("t", "sub|a:1", "1")
        assert found is not None
        assert replace(found, labels=row.labels) == row
        assert reader.checkpoint("t", "", None) == bare
        assert sorted(reader.chains("t", "", [("messages", "1")]), key=lambda row: row.version) == values
        assert reader.writes("t", "", ["1"]) == [writes[1], writes[0]]
    with store.transaction() as transaction:
        assert transaction.labels("t", "sub|a:1", "1") == (RED,)
        assert transaction.labels("t", "", "2") == ()
        assert transaction.labels("t", "", "unknown") == ()


def test_what_is_unknown_is_empty(store: Store) -> None:
    saved(store, checkpoint("1"))
    for thread_id, ns in ("t", "other"), ("other", ""):
        with store.transaction() as rows:
            assert rows.checkpoint(thread_id, ns, None) is None
            assert rows.checkpoint(thread_id, ns, "1") is None
            assert rows.checkpoints(CheckpointQuery(thread_id=thread_id, ns=ns)) == []
            assert rows.chains(thread_id, ns, [("messages", "1")]) == []
            assert rows.chains(thread_id, ns, []) == []
            assert rows.values(thread_id, ns, [("messages", "1")]) == []
            assert rows.writes(thread_id, ns, ["1"]) == rows.writes(thread_id, ns, []) == []
            assert rows.all_values(thread_id, ns) == []
    with store.transaction() as rows:
        assert rows.namespaces("other") == []
        assert rows.threads_of_runs(["run"]) == rows.threads_of_runs([]) == []
        rows.delete_thread("other")
        rows.delete_checkpoints("other", "", ["1"])
        rows.delete_checkpoints("t", "", [])
        rows.delete_values("other", "", [("messages", "1")])
        rows.recount("other")
    assert names(store) == ["t"]


def test_a_group_without_saves_changes_nothing(store: Store) -> None:
    store.commit([])
    store.commit([Save()])
    assert names(store) == []


def test_the_newest_of_a_namespace_is_its_head(store: Store) -> None:
    saved(store, checkpoint("2"), checkpoint("3", ns="sub"), checkpoint("10"))
    with store.reader() as reader:
        heads = [reader.checkpoint("t", ns, None) for ns in ("", "sub")]
    assert [head and head.id for head in heads] == ["2", "3"]
    assert info(store).checkpoint_id == "2"


def test_text_is_ordered_as_python_orders_it(store: Store) -> None:
    """By code point, whatever the language of the database: upper case, umlauts and emoji included."""
    texts = ["B", "a", "Ä", "z", "-", "😀", "é", "_"]
    saved(store, *(checkpoint(id) for id in texts))
    assert ids(store, thread_id="t", ns="") == sorted(texts, reverse=True)


def test_checkpoints_are_found_by_each_column(store: Store) -> None:
    saved(
        store,
        checkpoint("1", source="input", step=-1, run_id="r1", labels=(RED,)),
        checkpoint("2", source="loop", step=0, run_id="r1", labels=(RED, BLUE)),
        checkpoint("3", ns="sub", source="loop", step=0, run_id="r2", labels=(BLUE,)),
        checkpoint("4", "u", source="fork", step=1, labels=(RED, BLUE)),
    )
    assert ids(store) == ["4", "3", "2", "1"]
    assert ids(store, thread_id="t") == ["3", "2", "1"]
    assert ids(store, thread_id="t", ns="") == ["2", "1"]
    assert ids(store, ns="") == ["4", "2", "1"]
    assert ids(store, id="3") == ["3"]
    assert ids(store, thread_id="t", ns="", id="3") == []
    assert ids(store, before="3") == ["2", "1"]
    assert ids(store, thread_id="t", before="3") == ["2", "1"]
    assert ids(store, source="loop") == ["3", "2"]
    assert ids(store, step=-1) == ["1"]
    assert ids(store, step=0) == ["3", "2"]
    assert ids(store, run_id="r1", source="loop") == ["2"]
    assert ids(store, labels=((RED,),)) == ["4", "2", "1"]
    assert ids(store, labels=((RED,),), before="4") == ["2", "1"]
    assert ids(store, labels=((RED,), (BLUE,))) == ["4", "2"]
    assert ids(store, thread_id="t", labels=((RED,), (BLUE,))) == ["2"]
    assert ids(store, labels=((b"none....",),)) == []
    assert ids(store, labels=((RED, BLUE),)) == ["4", "3", "2", "1"]
    assert ids(store, labels=((BLUE, RED),), before="4", limit=2) == ["3", "2"]
    assert ids(store, labels=((BLUE, b"none...."),)) == ["4", "3", "2"]
    assert ids(store, labels=((BLUE, b"none...."), (b"other...", RED, b"none...."))) == ["4", "2"]
    assert ids(store, labels=((RED, BLUE), (BLUE,)), source="loop") == ["3", "2"]
    assert ids(store, thread_id="t", labels=((b"none....", BLUE), (RED, BLUE))) == ["3", "2"]
    assert ids(store, labels=((RED,), ())) == ids(store, thread_id="t", labels=((),)) == []
    assert ids(store, limit=2) == ["4", "3"]
    assert ids(store, thread_id="t'; DROP TABLE petal_threads; --") == []


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"thread_id": "t"},
        {"ns": "sub"},
        {"labels": ((RED,),)},
        {"labels": ((RED, BLUE),)},
        {"thread_id": "t", "ns": ""},
    ],
)
def test_pages_hold_each_checkpoint_once(store: Store, query: dict[str, Any]) -> None:
    """One id may stand in several threads and namespaces."""
    rows = [
        checkpoint(id, thread_id, ns, labels=(RED,)) for id in "123" for thread_id in ("t", "u") for ns in ("", "sub")
    ]
    saved(store, *rows)
    wanted = CheckpointQuery(**query, limit=2)
    found: list[tuple[str, str, str]] = []
    for _ in range(len(rows)):
        with store.reader() as reader:
            page = reader.checkpoints(replace(wanted, after=found[-1] if found else None))
        found += [(row.id, row.thread_id, row.ns) for row in page]
    fitting = [
        row for row in rows
        if wanted.thread_id in (None, row.thread_id) and wanted.ns in (None, row.ns)
    ]  # fmt: skip
    assert found == sorted(((row.id, row.thread_id, row.ns) for row in fitting), reverse=True)


def test_a_chain_is_the_whole_and_its_changes(store: Store) -> None:
    """Of one channel and one root, and no other."""
    rows = [value("1"), value("2", "1"), value("3"), value("4", "3"), value("2", "1", channel="other")]
    store.commit([Save(values=rows)])

    def versions(*chains: tuple[str, str]) -> list[str]:
        return sorted(row.version for row in store.read(lambda reader: reader.chains("t", "", chains)))

    assert versions(("messages", "1")) == ["1", "2"]
    assert versions(("messages", "1"), ("messages", "3")) == ["1", "2", "3", "4"]
    assert versions(("messages", "2")) == []
    assert versions(("other", "1")) == ["2"]


def test_value_rows_are_found_by_name(store: Store) -> None:
    rows = [value("1"), value("2", "1"), value("2", "0", channel="other")]
    store.commit([Save(values=rows)])
    asked = [("messages", "2"), ("messages", "1"), ("other", "2"), ("other", "1"), ("messages", "9")]
    with store.reader() as reader:
        assert sorted(reader.values("t", "", asked), key=_place) == sorted(rows, key=_place)
        assert reader.values("t", "", []) == []
        assert reader.values("t", "sub", asked) == reader.values("u", "", asked) == []


def test_a_save_that_leans_needs_its_parent(store: Store) -> None:
    """All of its group is refused with it; a parent in the same group is enough."""
    child = Save(checkpoint("2", parent_id="1"), [value("2", "1")], leans="n")
    with pytest.raises(OrphanedSave):
        store.commit([Save(checkpoint("9")), child])
    assert names(store) == []
    with pytest.raises(OrphanedSave), store.transaction() as rows:
        rows.save(child)
    store.commit([Save(checkpoint("1"), [value("1")]), child])
    store.commit([child])
    with store.transaction() as rows:
        rows.delete_checkpoints("t", "", ["1"])
    with pytest.raises(OrphanedSave):
        store.commit([Save(checkpoint("3", parent_id="1"), leans="n")])
    store.commit([Save(checkpoint("3", parent_id="1"))])
    store.commit([Save(checkpoint("4", parent_id="2"), leans="n")])
    store.commit([Save(checkpoint("2", name="saved again"))])
    child = Save(checkpoint("5", parent_id="2"), leans="n")
    with pytest.raises(OrphanedSave):
        store.commit([child])
    with pytest.raises(OrphanedSave), store.transaction() as rows:
        rows.save(child)
    store.commit([Save(checkpoint("5", parent_id="2"), leans="saved again")])


def test_a_status_is_that_of_the_newest_word(store: Store) -> None:
    """LangGraph may save what a task wrote before the checkpoint that the task began from."""

    def status() -> str | None:
        [thread] = store.read(lambda reader: reader.threads(ThreadQuery()))
        return thread.status

    store.commit([Save(checkpoint("1"), status="unfinished", told="1")])
    store.commit([Save(writes=[write(0, id="2")], status="failed", told="2+")])
    store.commit([Save(checkpoint("2"), status="unfinished", told="2")])
    assert status() == "failed"
    store.commit([
        Save(checkpoint("3"), status="done", told="3"),
        Save(writes=[write(0, id="2", task_id="other")], status="waiting", told="2+"),
        Save(writes=[write(1, id="3")], told="3+"),
    ])  # fmt: skip
    assert status() == "done"
    with store.transaction() as rows:
        rows.delete_thread("t")
        rows.save(Save(checkpoint("1"), status="waiting"))
    assert status() == "waiting"
    with store.transaction() as rows:
        rows.delete_checkpoints("t", "", ["1"])
        rows.recount("t")
        rows.save(Save(checkpoint("1"), status="failed"))
    assert status() == "failed"


def test_deleted_values_are_no_longer_counted(store: Store) -> None:
    """Without reading all of the thread."""
    store.commit([Save(checkpoint("1"), [value("1"), value("2", "1", data=b"x" * 100)])])
    (before,) = store.read(lambda reader: reader.threads(ThreadQuery()))
    with store.transaction() as rows:
        rows.delete_values("t", "", [("messages", "2"), ("messages", "unknown")])
    (after,) = store.read(lambda reader: reader.threads(ThreadQuery()))
    assert after == replace(before, size=before.size - 100)
    with store.transaction() as rows:
        rows.recount("t")
    assert store.read(lambda reader: reader.threads(ThreadQuery())) == [after]
    with store.transaction() as rows:
        rows.delete_values("nobody", "", [("messages", "2")])


def test_writes_come_in_the_order_of_their_tasks(store: Store) -> None:
    rows = [
        write(1, task_path="a"), write(0, task_path="a"), write(-3, task_path="a"),
        write(0, task_id="A", task_path="b"), write(0, task_id="zz"), write(0, id="0"),
    ]  # fmt: skip
    store.commit([Save(writes=rows)])
    found = store.read(lambda reader: reader.writes("t", "", ["1", "0", "1"]))
    assert found == sorted(rows, key=lambda row: (row.checkpoint_id, row.task_path, row.task_id, row.idx))


def test_a_checkpoint_that_is_there_is_replaced(store: Store) -> None:
    saved(store, checkpoint("1", labels=(RED,), header=b"long header"))
    saved(store, checkpoint("1", labels=(BLUE,), header=b"new", step=7))
    with store.transaction() as rows:
        found = rows.checkpoint("t", "", "1")
        assert found is not None
        assert (found.header, found.step, rows.labels("t", "", "1")) == (b"new", 7, (BLUE,))
    assert ids(store, labels=((RED,),)) == []
    assert (info(store).checkpoints, info(store).size) == (1, len(b"new" + b"meta"))


def test_a_value_that_is_there_is_replaced(store: Store) -> None:
    """Also by a whole where there was a change, which then has left its chain."""
    store.commit([Save(values=[value("1"), value("2", "1", b"delta")])])
    store.commit([Save(values=[value("2", data=b"the whole")])])
    with store.transaction() as rows:
        assert rows.chains("t", "", [("messages", "1")]) == [value("1")]
        assert rows.chains("t", "", [("messages", "2")]) == [value("2", data=b"the whole")]
        assert len(rows.all_values("t", "")) == 2
    assert info(store).size == len(b"value" + b"the whole")


def test_the_first_of_an_ordinary_write_stays_and_the_last_of_a_special_one(store: Store) -> None:
    """As LangGraph's own savers have it."""
    store.commit([Save(writes=[write(0, b"first"), write(-1, b"first")])])
    store.commit([Save(writes=[write(0, b"second"), write(-1, b"2nd")])])
    found = store.read(lambda reader: reader.writes("t", "", ["1"]))
    assert [row.data for row in found] == [b"2nd", b"first"]
    assert info(store).size == len(b"2nd" + b"first")


def test_one_group_may_hold_a_row_twice(store: Store) -> None:
    """What counts is what would if they were saved one after the other."""
    store.commit(
        [
            Save(checkpoint("1", header=b"1"), [value("1", data=b"1")], [write(0, b"1"), write(-1, b"1")]),
            Save(checkpoint("1", header=b"22"), [value("1", data=b"22")], [write(0, b"22"), write(-1, b"22")]),
        ]
    )
    with store.reader() as reader:
        found = reader.checkpoint("t", "", "1")
        assert found is not None
        assert found.header == b"22"
        assert [row.data for row in reader.chains("t", "", [("messages", "1")])] == [b"22"]
        assert [row.data for row in reader.writes("t", "", ["1"])] == [b"22", b"1"]
    assert (info(store).checkpoints, info(store).size) == (1, len(b"22" + b"meta" + b"22" + b"22" + b"1"))


def test_a_group_is_written_whole_or_not_at_all(store: Store) -> None:
    """The second save of the group has no time that could be read."""
    with pytest.raises(ValueError, match="isoformat"):
        store.commit([Save(checkpoint("1"), [value("1")], [write(0)]), Save(checkpoint("2"), now="yesterday")])
    with store.transaction() as rows:
        assert not [*rows.checkpoints(CheckpointQuery()), *rows.all_values("t", ""), *rows.writes("t", "", ["1"])]
    assert names(store) == []


def test_a_transaction_that_fails_leaves_all_as_it_was(store: Store) -> None:
    everything = Save(checkpoint("1", labels=(RED,)), [value("1"), value("2", "1")], [write(0), write(-1)], "done")
    store.commit([everything])
    before = _dump(store)

    def change_everything() -> None:
        with store.transaction() as rows:
            rows.save(Save(checkpoint("1", header=b"other"), [value("2")], [write(-1, b"other")], "failed"))
            rows.save(Save(checkpoint("9", "new", "sub")))
            rows.delete_values("t", "", [("messages", "1"), ("messages", "unknown")])
            rows.delete_checkpoints("t", "", ["1", "unknown"])
            rows.recount("t")
            rows.delete_thread("t")
            rows.delete_thread("new")
            assert rows.checkpoints(CheckpointQuery()) == []
            raise LookupError("changed my mind")

    with pytest.raises(LookupError, match="changed my mind"):
        change_everything()
    assert _dump(store) == before


def test_a_transaction_sees_its_own_changes(store: Store) -> None:
    with store.transaction() as rows:
        rows.save(Save(checkpoint("1", run_id="r"), [value("1")]))
        rows.save(Save(checkpoint("2", ns="sub", run_id="r")))
        assert rows.namespaces("t") == ["", "sub"]
        assert rows.all_values("t", "") == [value("1")]
        assert rows.all_values("t", "sub") == []
        assert rows.threads_of_runs(["r", "s", "r"]) == [("t", "", "1"), ("t", "sub", "2")]
    assert ids(store) == ["2", "1"]


def test_the_index_follows_the_saves(store: Store) -> None:
    store.commit([Save(checkpoint("1"), [value("1")], status="unfinished", now=at(1).isoformat())])
    store.commit([Save(writes=[write(0)], now=at(2).isoformat())])
    store.commit([Save(checkpoint("2", ns="sub"), status="waiting", now=at(3).isoformat())])
    size = len(b"head" + b"meta") * 2 + len(b"value" + b"write")
    assert info(store) == ThreadInfo("t", 2, at(3), "1", "waiting", size, at(1))
    assert info(store).updated == at(3)


def test_a_late_save_does_not_turn_the_clock_back(store: Store) -> None:
    saved(store, checkpoint("2"), second=5)
    saved(store, checkpoint("1"), second=3)
    assert (info(store).updated, info(store).checkpoint_id) == (at(5), "2")


def test_a_save_that_names_no_time_is_of_now(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    store.commit([Save(checkpoint("1"))])
    entry = info(store)
    assert entry.created == entry.updated
    assert entry.created is not None
    assert before < entry.created < datetime.now(UTC) + timedelta(seconds=1)


def test_threads_are_listed_by_their_last_change(store: Store) -> None:
    for second, thread_id in enumerate(["a", "b", "B", "100%", "a_b"]):
        saved(store, checkpoint("1", thread_id), second=second // 2, status="done" if second % 2 else "waiting")
    assert names(store) == ["a_b", "B", "100%", "b", "a"]
    assert names(store, search="b") == ["a_b", "b"]
    assert names(store, search="%") == ["100%"]
    assert names(store, search="_") == ["a_b"]
    assert names(store, search="'") == []
    assert names(store, status="done") == ["100%", "b"]
    assert names(store, status="done", search="b") == ["b"]
    assert names(store, thread_id="b") == ["b"]
    assert names(store, thread_id="b", status="waiting") == []
    assert names(store, limit=2) == ["a_b", "B"]
    saved(store, checkpoint("2", "a"), second=9)
    assert names(store, limit=1) == ["a"]


def test_pages_hold_each_thread_once(store: Store) -> None:
    """Also where several changed at the same time."""
    for number in range(7):
        saved(store, checkpoint("1", f"t{number}"), second=number // 3)
    found: list[ThreadInfo] = []
    for _ in range(4):
        with store.reader() as reader:
            found += reader.threads(ThreadQuery(limit=2, before=found[-1] if found else None))
    assert [entry.thread_id for entry in found] == ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]


def test_a_deleted_thread_is_gone(store: Store) -> None:
    store.commit([Save(checkpoint("1", labels=(RED,)), [value("1")], [write(0)])])
    saved(store, checkpoint("1", "u", labels=(RED,)))
    with store.transaction() as rows:
        rows.delete_thread("t")
    with store.transaction() as rows:
        assert [row.thread_id for row in rows.checkpoints(CheckpointQuery(labels=((RED,),)))] == ["u"]
        assert not [*rows.all_values("t", ""), *rows.writes("t", "", ["1"]), *rows.labels("t", "", "1")]
    assert names(store) == ["u"]


def test_deleting_checkpoints_takes_their_writes_and_labels(store: Store) -> None:
    """Not their values, which other checkpoints may need."""
    store.commit([Save(checkpoint(id, labels=(RED,)), [value(id)], [write(0, id=id)], "done") for id in "123"])
    with store.transaction() as rows:
        rows.delete_checkpoints("t", "", ["3", "1"])
        rows.delete_values("t", "", [("messages", "1"), ("other", "2")])
        rows.recount("t")
    with store.transaction() as rows:
        assert [row.id for row in rows.checkpoints(CheckpointQuery(labels=((RED,),)))] == ["2"]
        assert [row.checkpoint_id for row in rows.writes("t", "", ["1", "2", "3"])] == ["2"]
        assert rows.labels("t", "", "1") == ()
        assert sorted(row.version for row in rows.all_values("t", "")) == ["2", "3"]
    entry = info(store)
    assert (entry.checkpoints, entry.checkpoint_id, entry.status) == (1, "2", "done")
    assert entry.size == len(b"head" + b"meta" + b"value" * 2 + b"write")


def test_a_thread_whose_checkpoints_are_gone_leaves_the_index(store: Store) -> None:
    saved(store, checkpoint("1"))
    with store.transaction() as rows:
        rows.delete_checkpoints("t", "", ["1"])
        rows.recount("t")
    assert names(store) == []


def test_a_recount_keeps_what_the_rows_do_not_tell(store: Store) -> None:
    saved(store, checkpoint("1"), status="waiting", second=1)
    saved(store, checkpoint("2", ns="sub"), second=2)
    before = info(store)
    with store.transaction() as rows:
        rows.recount("t")
    assert info(store) == before
    assert info(store).created == at(1)


def test_a_reader_sees_one_moment(concurrent_store: Store) -> None:
    """And who saves meanwhile does not wait for it."""
    saved(concurrent_store, checkpoint("1"))
    with concurrent_store.reader() as reader:
        assert [row.id for row in reader.checkpoints(CheckpointQuery())] == ["1"]
        saved(concurrent_store, checkpoint("2"))
        with concurrent_store.transaction() as rows:
            rows.delete_checkpoints("t", "", ["1"])
        assert [row.id for row in reader.checkpoints(CheckpointQuery())] == ["1"]
        assert ids(concurrent_store) == ["2"]
    assert ids(concurrent_store) == ["2"]


def test_nobody_waits_for_an_open_transaction_to_read(concurrent_store: Store) -> None:
    with concurrent_store.transaction() as rows:
        rows.save(Save(checkpoint("1")))
        assert ids(concurrent_store) == []
    assert ids(concurrent_store) == ["1"]


def test_threads_read_while_one_writes(store: Store) -> None:
    """Every read sees whole groups: as many values as checkpoints."""
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set() or not reads:
            with store.reader() as reader:
                checkpoints = reader.checkpoints(CheckpointQuery(thread_id="t", ns="", limit=1000))
                assert len(reader.chains("t", "", [("messages", "0")])) == len(checkpoints)
            reads += 1
        return reads

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(6)]
        try:
            for number in range(0, 60, 3):
                group = [Save(checkpoint(f"{at:03}"), [value(str(at), "0")]) for at in range(number, number + 3)]
                store.commit(group)
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    assert info(store).checkpoints == 60


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    acts: list[Callable[[], object]] = [
        lambda: store.commit([Save(checkpoint("1"))]),
        lambda: store.read(lambda reader: reader.threads(ThreadQuery())),
    ]
    for act in acts:
        with pytest.raises(Exception, match="closed") as caught:
            act()
        error = caught.value
        typed = error if isinstance(error, CheckpointerUnavailableError) else store.translated(error)
        assert isinstance(typed, CheckpointerUnavailableError)
        assert typed.problem == "the checkpointer is closed"


# Any sequence of changes leaves the same rows in every store as in the one of dicts.

Change = Callable[[Transaction], None]

_threads = st.sampled_from(["t", "T-2"])
_namespaces = st.sampled_from(["", "sub|1"])
_ids = st.sampled_from(["0", "1", "10", "2", "a", "A"])
_data = st.binary(max_size=20)


@st.composite
def _saves(draw: st.DrawFn) -> Save:
    thread_id, ns = draw(_threads), draw(_namespaces)
    rows = st.builds(
        CheckpointRow, st.just(thread_id), st.just(ns), _ids, st.none() | _ids, st.sampled_from(["input", "loop"]),
        st.none() | st.integers(-1, 3), st.none() | st.sampled_from(["r1", "r2"]), _data, _data,
        st.sampled_from(["n", "m"]), st.lists(st.sampled_from([RED, BLUE]), unique=True).map(tuple),
    )  # fmt: skip
    values = st.builds(ValueRow, st.just(thread_id), st.just(ns), st.sampled_from(["x", "y"]), _ids, _ids, _data)
    writes = st.builds(
        WriteRow, st.just(thread_id), st.just(ns), _ids, st.sampled_from(["a", "b"]), st.integers(-2, 2),
        st.sampled_from(["x", "y"]), st.sampled_from(["", "p"]), _data,
    )  # fmt: skip
    return Save(
        draw(st.none() | rows),
        draw(st.lists(values, max_size=3)),
        draw(st.lists(writes, max_size=3)),
        draw(st.sampled_from([None, "done", "waiting"])),
        at(draw(st.integers(0, 3))).isoformat(),
        told=draw(st.sampled_from(["", "1", "2+"])),
    )


def _deletion(thread_id: str, ns: str, ids: list[str], versions: list[tuple[str, str]]) -> Change:
    def change(rows: Transaction) -> None:
        rows.delete_checkpoints(thread_id, ns, ids)
        rows.delete_values(thread_id, ns, versions)
        rows.recount(thread_id)

    return change


_changes: st.SearchStrategy[Change] = st.one_of(
    _saves().map(lambda save: lambda rows: rows.save(save)),
    _threads.map(lambda thread_id: lambda rows: rows.delete_thread(thread_id)),
    _threads.map(lambda thread_id: lambda rows: rows.recount(thread_id)),
    st.builds(
        _deletion, _threads, _namespaces, st.lists(_ids, max_size=4),
        st.lists(st.tuples(st.sampled_from(["x", "y"]), _ids), max_size=4),
    ),
)  # fmt: skip
_steps = st.one_of(
    st.lists(_saves(), min_size=1, max_size=4),
    st.tuples(st.lists(_changes, min_size=1, max_size=4), st.booleans()),
)


class _ChangedMind(Exception):
    pass


def _done(store: Store, step: list[Save] | tuple[list[Change], bool]) -> None:
    if isinstance(step, list):
        store.commit(step)
        return
    changes, fails = step
    try:
        with store.transaction() as rows:
            for change in changes:
                change(rows)
            if fails:
                raise _ChangedMind
    except _ChangedMind:
        pass


def _dump(store: Store) -> list[Any]:
    """All that a store can be asked for, in an order of its own where none is promised."""
    some_ids = ["0", "1", "10", "2", "a", "A"]
    queries = [
        CheckpointQuery(), CheckpointQuery(thread_id="t"), CheckpointQuery(thread_id="t", ns="", before="a"),
        CheckpointQuery(labels=((RED,),)), CheckpointQuery(thread_id="t", labels=((RED,), (BLUE,))),
        CheckpointQuery(step=1),
        CheckpointQuery(labels=((RED, BLUE),), limit=3), CheckpointQuery(labels=((BLUE, RED), (RED, b"other..."))),
        CheckpointQuery(run_id="r1", source="loop"), CheckpointQuery(after=("1", "t", ""), limit=3),
        CheckpointQuery(thread_id="T-2", after=("1", "T-2", "sub|1"), limit=2), CheckpointQuery(ns="sub|1", id="10"),
    ]  # fmt: skip
    with store.transaction() as rows:
        listed = rows.threads(ThreadQuery())
        dump: list[Any] = [listed, rows.threads(ThreadQuery(status="done")), rows.threads(ThreadQuery(search="-"))]
        dump += [rows.threads(ThreadQuery(before=info)) for info in listed]
        dump += [[replace(row, labels=()) for row in rows.checkpoints(query)] for query in queries]
        dump.append(rows.threads_of_runs(["r1", "r2"]))
        for thread_id in ("t", "T-2", "new"):
            dump += [rows.namespaces(thread_id), rows.strays(thread_id)]
            for ns in ("", "sub|1"):
                dump += [_head(rows, thread_id, ns), rows.writes(thread_id, ns, some_ids)]
                dump.append(sorted(rows.all_values(thread_id, ns), key=_place))
                names_of = [(channel, id) for channel in ("x", "y") for id in some_ids]
                dump.append(sorted(rows.values(thread_id, ns, names_of), key=_place))
                dump += [rows.labels(thread_id, ns, id) for id in some_ids]
                dump += [
                    sorted(rows.chains(thread_id, ns, [(channel, root) for channel in ("x", "y")]), key=_place)
                    for root in some_ids
                ]
    return dump


def _head(rows: Reader, thread_id: str, ns: str) -> CheckpointRow | None:
    found = rows.checkpoint(thread_id, ns, None)
    return found and replace(found, labels=())


def _place(row: ValueRow) -> tuple[str, str]:
    return row.channel, row.version


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(_steps, max_size=8))
def test_any_changes_leave_the_same_rows_in_every_store(
    store: Store, steps: list[list[Save] | tuple[list[Change], bool]]
) -> None:
    model = MemoryStore()
    model.open()
    with store.transaction() as rows:
        rows.delete_thread("t")
        rows.delete_thread("T-2")
    for step in steps:
        _done(store, step)
        _done(model, step)
        assert _dump(store) == _dump(model)
