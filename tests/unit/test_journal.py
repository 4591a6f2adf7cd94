"""The journal: many saves in one transaction, in order, each with an answer of its own."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from petal.checkpoints.engine import Engine
from petal.checkpoints.journal import GROUP_BYTES, GROUP_SAVES, HANDOVER, HANDOVER_SAVES, Journal
from petal.checkpoints.memory import MemoryStore
from petal.checkpoints.records import CheckpointQuery, CheckpointRow, Reader, Save, Transaction, WriteRow
from petal.checkpoints.sqlite import SqliteStore
from petal.core.config.checkpointer import SqliteOptions
from petal.errors import CheckpointerError, CheckpointerUnavailableError, CheckpointNotFoundError

T = TypeVar("T")


class GatedStore:
    """A real store that notes its groups, and can be held up before it writes one."""

    where = "memory://"
    readers = 1
    is_immediate = False

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self._store = MemoryStore()

    def open(self) -> None:
        self._store.open()

    def close(self) -> None:
        self._store.close()

    def commit(self, saves: Sequence[Save]) -> None:
        self.groups.append([name(save) for save in saves])
        self.begun.set()
        assert self.go.wait(30)
        self._store.commit(saves)

    def transaction(self) -> AbstractContextManager[Transaction]:
        self.groups.append(["change"])
        return self._store.transaction()

    def reader(self) -> AbstractContextManager[Reader]:
        return self._store.reader()

    def read(self, ask: Callable[[Reader], T]) -> T:
        return self._store.read(ask)

    def translated(self, error: Exception) -> Exception | None:
        match error:
            case MemoryError():
                return CheckpointerUnavailableError(self.where, "full", "Free some space")
            case ValueError():
                return CheckpointerError(f"{self.where}: {error}")
            case _:
                return None

    @contextmanager
    def held(self, journal: Journal) -> Iterator[Future[None]]:
        """Within the block the journal's thread is busy with a first save."""
        self.go.clear()
        self.begun.clear()
        first = journal.submit(save("first"))
        assert self.begun.wait(30)
        try:
            yield first
        finally:
            self.go.set()


@pytest.fixture
def store() -> Iterator[GatedStore]:
    store = GatedStore()
    store.open()
    yield store
    store.close()


@pytest.fixture
def journal(store: GatedStore) -> Iterator[Journal]:
    journal = Journal(store)
    yield journal
    journal.close()


def save(id: str, data: bytes = b"", now: str = "") -> Save:
    return Save(CheckpointRow("t", "", id, None, "loop", 0, None, data, b""), now=now)


def broken(id: str) -> Save:
    return save(id, now="yesterday")


def written(id: str) -> Save:
    return Save(writes=[WriteRow("t", "", id, "task", 0, "x", "", b"")])


def name(save: Save) -> str:
    return f"writes of {save.writes[0].checkpoint_id}" if save.checkpoint is None else save.checkpoint.id


def saved(store: GatedStore | SqliteStore) -> set[str]:
    rows: list[CheckpointRow] = store.read(lambda reader: reader.checkpoints(CheckpointQuery(limit=10_000)))
    return {row.id for row in rows}


def test_a_save_is_kept_when_its_future_is_done(journal: Journal, store: GatedStore) -> None:
    assert not journal.is_used
    journal.submit(save("1")).result()
    assert saved(store) == {"1"}
    assert (journal.commits, journal.saves, journal.is_used) == (1, 1, True)


def test_what_is_queued_meanwhile_is_written_together(journal: Journal, store: GatedStore) -> None:
    with store.held(journal):
        futures = [journal.submit(save(str(number))) for number in range(20)]
    for future in futures:
        future.result()
    assert store.groups == [["first"], [str(number) for number in range(20)]]
    assert (journal.commits, journal.saves) == (2, 21)


def test_changes_keep_their_place_among_the_saves(journal: Journal, store: GatedStore) -> None:
    """A change sees what was submitted before it, and nothing of what came after."""
    with store.held(journal):
        journal.submit(save("1"))
        seen = journal.change(lambda rows: [row.id for row in rows.checkpoints(CheckpointQuery())])
        journal.submit(save("2"))
        journal.submit(save("3"))
    journal.flush()
    assert seen.result() == ["first", "1"]
    assert store.groups == [["first"], ["1"], ["change"], ["2", "3"]]
    assert journal.commits == 4


def test_a_long_queue_is_written_in_parts(journal: Journal, store: GatedStore) -> None:
    with store.held(journal):
        for number in range(GROUP_SAVES + 1):
            journal.submit(save(str(number)))
    journal.flush()
    assert [len(group) for group in store.groups] == [1, GROUP_SAVES, 1]


def test_large_saves_are_written_in_parts(journal: Journal, store: GatedStore) -> None:
    half = bytes(GROUP_BYTES // 2)
    with store.held(journal):
        for id in "abc":
            journal.submit(save(id, half))
    journal.flush()
    assert store.groups == [["first"], ["a", "b"], ["c"]]


def test_the_errors_of_a_store_that_explains_none_come_as_they_are() -> None:
    """A store of dicts has no errors of its own to translate."""
    memory = MemoryStore()
    memory.open()
    alone = Journal(memory)
    with pytest.raises(ValueError, match="yesterday"):
        alone.submit(broken("1")).result()
    alone.close()


def test_a_save_that_fails_fails_alone(journal: Journal, store: GatedStore) -> None:
    with store.held(journal):
        futures = [journal.submit(work) for work in (save("1"), broken("2"), save("3"))]
    futures[0].result()
    with pytest.raises(CheckpointerError, match="memory://: Invalid isoformat string: 'yesterday'"):
        futures[1].result()
    futures[2].result()
    assert saved(store) == {"first", "1", "3"}
    assert store.groups[1:] == [["1", "2", "3"], ["1"], ["2"], ["3"]]
    assert journal.saves == 3


def test_a_storage_that_fails_does_so_once_for_all(store: GatedStore) -> None:
    """It is not asked again for each; every waiter gets an error of its own with the cause."""

    class Full(GatedStore):
        def commit(self, saves: Sequence[Save]) -> None:
            super().commit(saves)
            if name(saves[0]) != "first":
                raise MemoryError

    full = Full()
    full.open()
    journal = Journal(full)
    with full.held(journal):
        futures = [journal.submit(save(id)) for id in "12"]
    errors = [future.exception() for future in futures]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, CheckpointerUnavailableError)
        assert isinstance(error.__cause__, MemoryError)
    assert full.groups == [["first"], ["1", "2"]]
    assert (journal.commits, journal.saves) == (1, 1)
    journal.close()


def test_a_change_that_fails_says_why(journal: Journal, store: GatedStore) -> None:
    """By its own error if that is one of Petal's or none of the storage's."""

    def missing(rows: Transaction) -> None:
        rows.save(save("lost"))
        raise CheckpointNotFoundError("t")

    def mistaken(rows: Transaction) -> None:
        raise ZeroDivisionError

    with pytest.raises(CheckpointNotFoundError):
        journal.change(missing).result()
    with pytest.raises(ZeroDivisionError):
        journal.change(mistaken).result()
    with pytest.raises(SystemExit):
        journal.change(lambda rows: sys.exit()).result()
    assert saved(store) == set()
    journal.submit(save("after")).result()


async def test_async_callers_are_answered_on_their_loop(journal: Journal, store: GatedStore) -> None:
    await journal.asubmit(save("1"))
    assert await journal.achange(lambda rows: rows.namespaces("t")) == [""]
    with pytest.raises(CheckpointerError, match="yesterday"):
        await journal.asubmit(broken("2"))
    with pytest.raises(ZeroDivisionError):
        await journal.achange(lambda rows: 1 // 0)
    assert saved(store) == {"1"}


async def test_a_loop_is_called_once_for_all_of_a_group(journal: Journal, store: GatedStore) -> None:
    loop, calls = asyncio.get_running_loop(), 0
    call_soon_threadsafe = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
        nonlocal calls
        calls += 1
        return call_soon_threadsafe(*args, **kwargs)

    loop.call_soon_threadsafe = counted  # type: ignore[assignment, method-assign]
    with store.held(journal):
        waiting = [asyncio.ensure_future(journal.asubmit(save(str(number)))) for number in range(50)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert journal.commits == 2
    assert calls == 1


async def test_a_loop_that_computes_lets_the_journal_go_on(
    journal: Journal, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for so many saves, and for those of threads that wait themselves not at all."""
    paused: list[float] = []
    monkeypatch.setattr("petal.checkpoints.journal.sleep", paused.append)
    await asyncio.gather(*(journal.asubmit(save(str(number))) for number in range(2 * HANDOVER_SAVES - 1)))
    assert paused == [HANDOVER]
    await journal.asubmit(save("one more"))
    assert paused == [HANDOVER] * 2
    for number in range(2 * HANDOVER_SAVES):
        journal.submit(save(f"sync{number}"))
    journal.flush()
    assert paused == [HANDOVER] * 2


def test_several_loops_and_threads_share_a_journal(journal: Journal, store: GatedStore) -> None:
    async def several(prefix: str) -> None:
        await asyncio.gather(*(journal.asubmit(save(f"{prefix}{number}")) for number in range(10)))

    threads = [threading.Thread(target=lambda prefix=prefix: asyncio.run(several(prefix))) for prefix in "abcd"]
    for thread in threads:
        thread.start()
    futures = [journal.submit(save(f"sync{number}")) for number in range(10)]
    for thread in threads:
        thread.join()
    for future in futures:
        future.result()
    assert len(saved(store)) == 50


async def test_a_cancelled_caller_loses_no_save(journal: Journal, store: GatedStore) -> None:
    with store.held(journal):
        cancelled = asyncio.ensure_future(journal.asubmit(save("1")))
        other = asyncio.ensure_future(journal.asubmit(save("2")))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    await other
    assert saved(store) == {"first", "1", "2"}


def test_a_future_cannot_be_cancelled(journal: Journal, store: GatedStore) -> None:
    with store.held(journal):
        future = journal.submit(save("1"))
        assert not future.cancel()
    future.result()
    assert saved(store) == {"first", "1"}


def test_a_loop_that_ended_does_not_stop_the_journal(journal: Journal, store: GatedStore) -> None:
    async def leave() -> None:
        waiting = asyncio.ensure_future(journal.asubmit(save("1")))
        await asyncio.sleep(0)
        waiting.cancel()

    with store.held(journal):
        asyncio.run(leave())
    journal.submit(save("2")).result()
    assert saved(store) == {"first", "1", "2"}


def test_a_sync_caller_waits_while_too_much_is_queued(store: GatedStore) -> None:
    """An async one holds its save until it is durable anyway, so it queues it at once."""
    journal = Journal(store, limit=100)
    admitted = threading.Event()
    with store.held(journal):
        journal.submit(save("1", bytes(60)))

        def more() -> None:
            journal.submit(save("2", bytes(60)))
            admitted.set()

        thread = threading.Thread(target=more)
        thread.start()
        assert not admitted.wait(0.2)
    assert admitted.wait(30)
    thread.join()
    journal.submit(save("3", bytes(1000))).result()  # larger than the limit, but alone
    journal.flush()
    assert saved(store) == {"first", "1", "2", "3"}
    journal.close()


def test_a_caller_that_waits_for_room_is_told_of_the_end(store: GatedStore) -> None:
    journal = Journal(store, limit=100)
    errors: list[BaseException] = []

    def more() -> None:
        try:
            journal.submit(save("2", bytes(100)))
        except CheckpointerUnavailableError as error:
            errors.append(error)

    with store.held(journal):
        journal.submit(save("1", bytes(100)))
        threads = [threading.Thread(target=more), threading.Thread(target=journal.close)]
        for thread in threads:
            thread.start()
        threads[0].join(30)
        assert [str(error) for error in errors] == [str(CheckpointerUnavailableError.closed("memory://"))]
    threads[1].join(30)
    assert saved(store) == {"first", "1"}


@pytest.mark.parametrize("behind", [save("2"), written("2")], ids=["a checkpoint", "writes"])
def test_writes_wait_for_what_comes_behind_them(store: GatedStore, behind: Save) -> None:
    """A minute here, which the test does not take."""
    journal = Journal(store, linger=60)
    futures = [journal.submit(written("1")), journal.submit(behind)]
    for future in futures:
        future.result(30)
    assert store.groups == [["writes of 1", name(behind)]]
    journal.close()


def test_an_input_waits_for_the_first_step(store: GatedStore) -> None:
    """Also with what START wrote in between, which alone would be waited for too."""
    journal = Journal(store, linger=60)
    ahead = save("1")
    ahead.is_ahead = True
    for future in [journal.submit(ahead), journal.submit(written("1")), journal.submit(save("2"))]:
        future.result(30)
    assert store.groups == [["1", "writes of 1", "2"]]
    journal.close()


def test_writes_wait_for_nothing_once_it_closes(store: GatedStore) -> None:
    journal = Journal(store, linger=60)
    future = journal.submit(written("1"))
    journal.close()
    future.result(30)
    assert store.groups == [["writes of 1"]]


def test_lone_writes_are_saved_too(journal: Journal, store: GatedStore) -> None:
    journal.submit(written("1")).result(30)
    assert store.groups == [["writes of 1"]]


def test_work_that_nobody_waits_for_never_blocks(store: GatedStore) -> None:
    journal = Journal(store, limit=100)
    with store.held(journal):
        journal.submit(save("1", bytes(100)))
        done = journal.begin(lambda rows: rows.delete_thread("t"))
    done.result(30)
    assert saved(store) == set()
    journal.close()
    with pytest.raises(CheckpointerUnavailableError):
        journal.begin(lambda rows: rows.delete_thread("t"))


async def test_closing_finishes_what_is_queued(journal: Journal, store: GatedStore) -> None:
    with store.held(journal):
        futures = [journal.submit(save(str(number))) for number in range(5)]
    journal.close()
    journal.close()
    assert all(future.done() for future in futures)
    assert len(saved(store)) == 6
    for act in journal.submit, journal.change:
        with pytest.raises(CheckpointerUnavailableError, match="the checkpointer is closed"):
            act(save("late"))  # type: ignore[arg-type]
    with pytest.raises(CheckpointerUnavailableError, match="the checkpointer is closed"):
        await journal.asubmit(save("late"))
    with pytest.raises(CheckpointerUnavailableError, match="the checkpointer is closed"):
        journal.flush()


def test_its_own_thread_may_close_it(journal: Journal) -> None:
    """The garbage collector runs on any thread."""
    journal.change(lambda rows: journal.close()).result(30)


class DroppingStore(MemoryStore):
    """One with a thread that writes, at whose commit somebody is collected, as by the garbage collector."""

    is_immediate = False

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.dropped: list[Any] = []
        self.groups: list[list[str]] = []

    def commit(self, saves: Sequence[Save]) -> None:
        self.begun.set()
        assert self.go.wait(30)
        self.dropped.clear()
        assert not self.closed.is_set()
        self.groups.append([name(save) for save in saves])
        super().commit(saves)

    def close(self) -> None:
        self.closed.set()
        super().close()


def test_an_engine_that_is_collected_amid_a_commit_ends_behind_what_is_queued() -> None:
    """It is the journal's thread on which the collector ran."""
    store = DroppingStore()
    engine = Engine(store, lambda saves: None)
    saves = [engine.begin_save(save("1"))]
    assert store.begun.wait(30)
    saves += [engine.journal.change(lambda rows: None), engine.begin_save(save("2"))]
    store.dropped.append(engine)
    del engine
    store.go.set()
    with pytest.warns(ResourceWarning, match="unclosed checkpointer"):
        assert store.closed.wait(30)
    for answer in saves:
        answer.result(30)
    assert store.groups == [["1"], ["2"]]


def test_what_failed_does_not_stay_in_memory(journal: Journal) -> None:
    """Neither the save nor its error, though they name each other."""

    class Remembered(bytes):
        pass

    def remembered() -> int:
        return sum(isinstance(item, Remembered) for item in gc.get_objects())

    error = journal.submit(save("1", Remembered(b"data"), now="yesterday")).exception()
    assert isinstance(error, CheckpointerError)
    del error
    deadline = time.monotonic() + 30  # the journal answers before it forgets
    while remembered() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert remembered() == 0


async def test_an_immediate_store_is_written_by_the_callers_thread(store: GatedStore) -> None:
    """Unless something is queued: then a save keeps its place behind that."""
    store.is_immediate = True
    journal = Journal(store)
    assert journal.submit(save("1")).done()
    assert journal.asubmit(save("2")).done()
    assert (journal.commits, journal.saves, journal.is_used) == (2, 2, True)
    with pytest.raises(CheckpointerError, match="yesterday"):
        journal.submit(broken("3")).result()
    begun, go = threading.Event(), threading.Event()

    def change(transaction: Transaction) -> bool:
        begun.set()
        return go.wait(30)

    changed = journal.change(change)
    assert begun.wait(30)
    behind = journal.asubmit(save("4"))
    assert not behind.done()
    go.set()
    await behind
    assert changed.result()
    assert [name for group in store.groups for name in group] == ["1", "2", "3", "change", "4"]
    journal.close()
    with pytest.raises(CheckpointerUnavailableError):
        journal.submit(save("5"))


FORGOTTEN = """
import sys
from petal.checkpoints.journal import Journal
from petal.checkpoints.records import CheckpointRow, Save
from petal.checkpoints.sqlite import SqliteStore
from petal.core.config.checkpointer import SqliteOptions

store = SqliteStore(SqliteOptions(db_file=sys.argv[1]), "sqlite:///rows.db")
store.open()
journal = Journal(store)
for number in range(200):
    journal.submit(Save(CheckpointRow("t", "", str(number), None, "loop", 0, None, b"", b"")))
"""


def test_a_forgotten_journal_ends_with_its_process_and_writes_what_is_queued(tmp_path: Path) -> None:
    file = str(tmp_path / "rows.db")
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORGOTTEN, file], check=True, timeout=60)
    store = SqliteStore(SqliteOptions(db_file=file), "sqlite:///rows.db", read_only=True)
    store.open()
    assert len(saved(store)) == 200
    store.close()


LATE = """
import atexit
from petal.checkpoints.journal import Journal
from petal.checkpoints.records import Save
from petal.checkpoints.sqlite import SqliteStore
from petal.core.config.checkpointer import SqliteOptions

def late():
    try:
        Journal(SqliteStore(SqliteOptions(db_file=":memory:"), "sqlite://")).submit(Save())
    except ConnectionError as error:
        print(error)

atexit.register(late)
"""


def test_a_save_after_the_end_of_the_program_is_refused(tmp_path: Path) -> None:
    """Python starts no thread any more then; the alternative would be to wait for ever."""
    done = subprocess.run([sys.executable, "-c", LATE], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == str(CheckpointerUnavailableError.closed("sqlite://"))
