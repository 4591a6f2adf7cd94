"""What every store does with turns: claims in order, saves that need one, checkpoints that follow the newest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from petal.checkpoints import open_checkpointer
from petal.checkpoints.notes import INPUT
from petal.checkpoints.records import Beat, CheckpointRow, Claim, LeaseRow, Release, Save, StaleSave, Store, WriteRow
from petal.checkpoints.threads import ThreadQuery
from petal.core.config.checkpointer import CheckpointerConfig


@pytest.fixture
def store(storage: CheckpointerConfig) -> Iterator[Store]:
    """Every store in turn, open and empty."""
    with open_checkpointer(storage) as saver:
        assert saver.threads() == []
        yield saver._engine.store


def checkpoint(id: str, parent_id: str | None = None, thread_id: str = "t", name: str = "n") -> CheckpointRow:
    return CheckpointRow(thread_id, "", id, parent_id, "loop", 1, None, b"head", b"meta", name)


def write(id: str = "1") -> WriteRow:
    return WriteRow("t", "", id, "task", 0, "messages", "", b"write")


def claim(owner: str, thread_id: str = "t", process: str = "p", *, urgent: bool = False) -> Save:
    return Save(turn=Claim(thread_id, owner, process, f"run of {owner}", urgent))


def release(owner: str, thread_id: str = "t") -> Save:
    return Save(turn=Release(thread_id, owner))


def alive(process: str = "p", seconds: float = 60) -> Save:
    return Save(turn=Beat(process, seconds))


def owners(store: Store, thread_id: str = "t") -> list[tuple[str, bool]]:
    leases: list[LeaseRow] = store.read(lambda reader: reader.leases(thread_id))
    return [(lease.owner, lease.holds) for lease in leases]


def ids(store: Store, thread_id: str = "t") -> str | None:
    head = store.read(lambda reader: reader.checkpoint(thread_id, "", None))
    return None if head is None else str(head.id)


def test_claims_wait_in_the_order_of_arrival_the_urgent_first(store: Store) -> None:
    store.commit([alive(), claim("a"), claim("b"), claim("other", "u")])
    store.commit([claim("c", urgent=True)])
    assert owners(store) == [("a", True), ("c", False), ("b", False)]
    assert owners(store, "u") == [("other", True)]
    assert owners(store, "unknown") == []
    store.commit([release("a"), release("unknown"), release("x", "unknown")])
    assert owners(store) == [("c", False), ("b", False)]  # nobody takes what was not given
    with store.transaction() as rows:
        [first, second] = rows.leases("t")
        rows.grant(first)
        rows.ask(first, "stop")
        rows.revoke(second)
        rows.revoke(second)
        rows.ask(second, "stop")
    assert store.read(lambda reader: reader.leases("t")) == [
        LeaseRow("t", "c", "p", "run of c", is_urgent=True, holds=True, wish="stop")
    ]
    assert [lease.owner for lease in store.read(lambda reader: reader.wishes("p"))] == ["c"]
    assert store.read(lambda reader: reader.wishes("q")) == []
    store.commit([release("c"), claim("d")])
    assert owners(store) == [("d", True)]


def test_turns_alone_make_no_thread(store: Store) -> None:
    store.commit([alive(), claim("a"), Save(checkpoint("1", thread_id="u"))])
    assert ids(store) is None
    assert ids(store, "u") == "1"


def test_a_process_lives_as_long_as_it_is_believed(storage: CheckpointerConfig, store: Store) -> None:
    if storage.type == "memory":
        store.commit([claim("a"), alive(seconds=-1)])
        assert [lease.is_alive for lease in store.read(lambda reader: reader.leases("t"))] == [True]  # it is this one
        return
    store.commit([alive("dead", -1), alive("alive"), alive("long dead", -4000)])
    store.commit([claim("a", process="dead"), claim("b", process="alive"), claim("c", process="unheard of")])
    leases: list[LeaseRow] = store.read(lambda reader: reader.leases("t"))
    assert [(lease.owner, lease.is_alive) for lease in leases] == [("a", False), ("b", True), ("c", False)]
    store.commit([alive("dead")])
    assert _processes(storage) == ["alive", "dead"]
    [first, *_] = store.read(lambda reader: reader.leases("t"))
    assert first.is_alive


def _processes(storage: CheckpointerConfig) -> list[str]:
    assert storage.config is not None
    query = "SELECT process FROM petal_processes ORDER BY process"
    if storage.type == "sqlite":
        connection = sqlite3.connect(storage.config["db_file"])
        found = connection.execute(query).fetchall()
        connection.close()
    else:
        with psycopg.connect(storage.config["connection_string"]) as opened:
            found = opened.execute(query).fetchall()
    return [process for (process,) in found]


def test_a_save_needs_the_lease_of_its_run(store: Store) -> None:
    store.commit([alive(), claim("a"), claim("waits")])
    store.commit([Save(checkpoint("1"), lease="a"), Save(writes=[write()], lease="a")])
    for owner in "waits", "unknown":
        for save in Save(checkpoint("2"), lease=owner), Save(writes=[write("2")], lease=owner):
            with pytest.raises(StaleSave) as stale:
                store.commit([Save(checkpoint("9")), save])
            assert stale.value.lost
            with pytest.raises(StaleSave), store.transaction() as rows:
                rows.save(save)
    assert ids(store) == "1"
    with pytest.raises(StaleSave):
        store.commit([release("a"), Save(checkpoint("2"), lease="a")])
    assert owners(store)[0] == ("a", True)  # all of the group was undone
    store.commit([Save(checkpoint("2"), lease="a"), release("a")])
    assert ids(store) == "2"
    with store.transaction() as rows:
        rows.save(claim("b"))
        rows.save(Save())
    assert owners(store) == [("waits", False), ("b", False)]


def test_a_fenced_checkpoint_must_follow_the_newest(store: Store) -> None:
    store.commit([Save(checkpoint("1"), fenced=True), Save(checkpoint("2", "1"), fenced=True)])
    for stale in checkpoint("3", "1"), checkpoint("3"), checkpoint("0", "1"):
        with pytest.raises(StaleSave) as refused:
            store.commit([Save(stale, fenced=True)])
        assert not refused.value.lost
        with pytest.raises(StaleSave), store.transaction() as rows:
            rows.save(Save(stale, fenced=True))
    with pytest.raises(StaleSave):
        store.commit([Save(checkpoint("3", "2"), fenced=True), Save(checkpoint("4", "2"), fenced=True)])
    assert ids(store) == "2"
    store.commit([Save(checkpoint("3", "1"))])  # a fork need not
    store.commit([Save(checkpoint("4", "3"), fenced=True), Save(checkpoint("1", thread_id="u"), fenced=True)])
    assert ids(store) == "4"
    group = [checkpoint("5", "4"), checkpoint("6", "5"), checkpoint("7", "5")]
    with pytest.raises(StaleSave):
        store.commit([Save(row, fenced=True) for row in group])
    # Where what it follows on was deleted there is nobody to be behind of.
    store.commit([Save(checkpoint("5", "unknown"), fenced=True)])
    with store.transaction() as rows:
        rows.save(Save(checkpoint("6", "gone"), fenced=True))
    store.commit([Save(checkpoint("8", "7", "v"), fenced=True)])
    with store.transaction() as rows:
        rows.save(Save(checkpoint("8", "7", "w"), fenced=True))


def test_a_save_that_is_made_again_is_in_turn(store: Store) -> None:
    group = [Save(checkpoint("1"), fenced=True), Save(checkpoint("2", "1"), fenced=True)]
    store.commit(group)
    store.commit(group[:1])
    store.commit(group[1:])
    with store.transaction() as rows:
        rows.save(group[1])
    assert ids(store) == "2"


def test_a_release_takes_the_input_along(store: Store) -> None:
    store.commit([alive(), claim("a"), Save(checkpoint("1"), now="2026-01-01T00:00:00+00:00")])
    before = store.read(lambda reader: reader.threads(ThreadQuery()))
    kept = replace(write("input"), channel=INPUT)
    store.commit([Save(writes=[kept, write("1")], now="2026-01-01T00:00:00+00:00")])
    assert [row.data for row in store.read(lambda reader: reader.notes("t", INPUT))] == [b"write"]
    store.commit([Save(turn=Release("t", "a", "input")), Save(turn=Release("t", "", "input"))])
    assert store.read(lambda reader: reader.notes("t", INPUT)) == []
    [after] = store.read(lambda reader: reader.threads(ThreadQuery()))
    assert after.size - before[0].size == len(b"write")
    store.commit([Save(turn=Release("unknown", "a", "input"))])
