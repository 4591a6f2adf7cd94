"""Opening, closing, sharing and surviving: what happens around the calls."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from psycopg import sql

from petal.checkpoints import open_checkpointer
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.langgraph.savers import MemorySaver, PostgresSaver, SqliteSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerUnavailableError
from petal.testing.postgres import PostgresServer

CLOSED = "the checkpointer is closed"


def on(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def save(saver: LangGraphSaver, thread_id: str) -> None:
    saver.put(on(thread_id), empty_checkpoint(), {"step": 1}, {})


def python(program: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Runs a program of its own, with warnings shown."""
    command = [sys.executable, "-W", "always", "-c", textwrap.dedent(program), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def told(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a program printed, once it ended well; it is killed if it does not end at all."""
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, err
    return out, err


def url(storage: CheckpointerConfig) -> str:
    config = storage.config or {}
    return str(config["connection_string"] if storage.type == "postgres" else f"sqlite:///{config['db_file']}")


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    """No file, no folder, no connection, and so nothing to warn about."""
    saver = open_checkpointer(f"sqlite:///{tmp_path}/new/folder/petal.db", engine="langgraph")
    elsewhere = open_checkpointer("postgresql://nobody:secret@127.0.0.1:1/nothing", engine="langgraph")
    del elsewhere
    assert not (tmp_path / "new").exists()
    with saver:
        save(saver, "t")
        assert (tmp_path / "new" / "folder" / "petal.db").is_file()


async def test_use_after_close_is_a_typed_error(storage: CheckpointerConfig) -> None:
    """Closing twice is fine, in both faces; any use after it says that it is closed."""
    saver = open_checkpointer(storage)
    save(saver, "t")
    await saver.aclose()
    saver.close()
    for use in (lambda: saver.get_tuple(on("t")), lambda: list(saver.list(None)), lambda: saver.copy_thread("t", "u")):
        with pytest.raises(CheckpointerUnavailableError, match=CLOSED):
            use()
    with pytest.raises(CheckpointerUnavailableError, match=CLOSED) as caught:
        await saver.aget_tuple(on("t"))
    assert caught.value.where == saver.where
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    async with open_checkpointer(storage) as other:
        assert await other.athreads() is not None
    with pytest.raises(CheckpointerUnavailableError, match=CLOSED):
        await other.athreads()


async def test_closing_waits_for_what_was_begun(durable_storage: CheckpointerConfig) -> None:
    """Saves that were asked for are saved, however many are in the queue."""
    saver = open_checkpointer(durable_storage)
    saves = [asyncio.ensure_future(saver.aput(on(f"t{n}"), empty_checkpoint(), {}, {})) for n in range(20)]
    await asyncio.sleep(0)
    await saver.aclose()
    await asyncio.gather(*saves)
    with open_checkpointer(durable_storage) as again:
        assert len(again.threads()) == 20


def test_a_close_during_use_breaks_nothing(durable_storage: CheckpointerConfig) -> None:
    """Sync callers on other threads either finish or are told that it is closed."""
    saver = open_checkpointer(durable_storage)
    save(saver, "t0")
    begun = threading.Barrier(5)

    def busy(number: int) -> int:
        begun.wait()
        for turn in range(10_000):
            try:
                save(saver, f"{number}/{turn}")
            except CheckpointerUnavailableError as error:
                assert CLOSED in str(error)  # noqa: PT017  how far it gets is not known
                return turn
        raise AssertionError("it was never closed")

    with ThreadPoolExecutor(4) as pool:
        counts = pool.map(busy, range(4))
        begun.wait()
        saver.close()
        saved = sum(counts)
    with open_checkpointer(durable_storage) as again:
        assert len(again.threads(100_000)) == saved + 1


def test_a_forgotten_saver_warns_and_is_closed(durable_storage: CheckpointerConfig) -> None:
    """Collected without having been closed, it says so once and closes its connections, clones included."""
    saver = open_checkpointer(durable_storage)
    save(saver, "t")
    clone = saver.with_allowlist([("a", "b")])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del saver
        gc.collect()
        del clone
        gc.collect()
    assert [(each.category, str(each.message)) for each in caught] == [
        (ResourceWarning, f"unclosed checkpointer {durable_storage.where}; use it in a with block or call close()")
    ]


def test_a_forgotten_memory_saver_is_silent() -> None:
    """It has nothing to close."""
    saver = MemorySaver()
    save(saver, "t")
    del saver
    gc.collect()


FORGETFUL = """
    import asyncio, sys
    from langgraph.checkpoint.base import empty_checkpoint
    from petal.checkpoints import open_checkpointer
    saver = open_checkpointer(sys.argv[1], engine="langgraph")
    asyncio.run(saver.aput({"configurable": {"thread_id": "t"}}, empty_checkpoint(), {}, {}))
    saver.put({"configurable": {"thread_id": "u"}}, empty_checkpoint(), {}, {})
    print("saved")
"""


def test_a_program_that_forgets_to_close_ends(durable_storage: CheckpointerConfig) -> None:
    """It ends by itself, nothing is lost, and the only complaint is the warning."""
    with python(FORGETFUL, url(durable_storage)) as process:
        out, err = told(process)
    assert out == "saved\n"
    assert err.count("Warning") == err.count("ResourceWarning: unclosed checkpointer") == 1
    assert "Traceback" not in err
    with open_checkpointer(durable_storage) as saver:
        assert len(saver.threads()) == 2


WRITER = """
    import sys
    from langgraph.checkpoint.base import empty_checkpoint
    from petal.checkpoints import open_checkpointer
    sys.stdin.readline()
    with open_checkpointer(sys.argv[1], engine="langgraph") as saver:
        for n in range(int(sys.argv[3])):
            saver.put({"configurable": {"thread_id": f"{sys.argv[2]}/{n}"}}, empty_checkpoint(), {}, {})
"""


@pytest.mark.parametrize(("processes", "saves"), [(2, 25), (4, 1)])
def test_processes_share_a_storage(durable_storage: CheckpointerConfig, processes: int, saves: int) -> None:
    """Processes that open a new storage at the same moment, and write at the same time, all succeed."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(python(WRITER, url(durable_storage), str(n), str(saves), stdin=subprocess.PIPE))
            for n in range(processes)
        ]
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [told(process) for process in started] == [("", "")] * processes
    with open_checkpointer(durable_storage) as saver:
        assert len(saver.threads(1000)) == processes * saves


def test_eight_savers_start_at_once(durable_storage: CheckpointerConfig) -> None:
    """Separate savers in one process, all at their first use of a new storage."""
    begun = threading.Barrier(8)

    def start(number: int) -> None:
        with open_checkpointer(durable_storage) as saver:
            begun.wait()
            save(saver, f"t{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))
    with open_checkpointer(durable_storage) as saver:
        assert len(saver.threads()) == 8


def test_a_memory_file_is_each_savers_own() -> None:
    """`:memory:` works, and two of them are two storages."""
    with SqliteSaver(":memory:") as one, open_checkpointer("sqlite://", engine="langgraph") as other:
        save(one, "t")
        assert [info.thread_id for info in one.threads()] == ["t"]
        assert other.threads() == []


def test_a_path_is_a_file(tmp_path: Path) -> None:
    """`SqliteSaver` takes paths and text alike."""
    with SqliteSaver(tmp_path / "a.db", busy_timeout=1) as saver:
        save(saver, "t")
    with SqliteSaver(str(tmp_path / "a.db")) as saver:
        assert len(saver.threads()) == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_restart_is_survived(postgres: PostgresServer, postgres_url: str, mode: Any) -> None:
    """Between two operations, each kind of them, with several dead connections in the pool."""
    async with PostgresSaver(postgres_url, min_size=4) as saver:
        await asyncio.gather(*(saver.aput(on(f"t{n}"), empty_checkpoint(), {}, {}) for n in range(8)))
        for use in (
            lambda: saver.aget_tuple(on("t0")),
            lambda: saver.aput(on("t8"), empty_checkpoint(), {}, {}),
            lambda: saver.acopy_thread("t0", "copy"),
            lambda: saver.aprune(["t0"]),
            lambda: saver.athreads(),
        ):
            postgres.restart(mode)
            await use()
        assert len(saver.threads()) == 10


def test_a_server_that_stays_down_is_named(postgres: PostgresServer, postgres_url: str) -> None:
    """The error has the cause, and when the server is back the same saver goes on."""
    with PostgresSaver(postgres_url, connect_timeout=2) as saver:
        save(saver, "t")
        postgres.stop("fast")
        with pytest.raises(CheckpointerUnavailableError, match="Connection refused"):
            saver.get_tuple(on("t"))
        postgres.start()
        assert saver.get_tuple(on("t")) is not None


def test_operations_use_the_pool_side_by_side(postgres_url: str) -> None:
    """While one connection is stuck behind another program's lock, the others serve; then it goes on too."""
    with PostgresSaver(postgres_url, max_size=3) as saver, psycopg.connect(postgres_url) as other:
        save(saver, "t")
        save(saver, "free")
        other.execute("SELECT * FROM checkpoints WHERE thread_id = 't' FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(saver.delete_thread, "t")
            assert saver.get_tuple(on("free")) is not None
            assert not stuck.done()
            other.commit()
            stuck.result(timeout=60)
        assert [info.thread_id for info in saver.threads()] == ["free"]


def test_a_used_up_pool_says_so(postgres_url: str) -> None:
    """When every connection is busy for longer than the timeout, the error says what to raise."""
    with PostgresSaver(postgres_url, max_size=1, connect_timeout=2) as saver, psycopg.connect(postgres_url) as other:
        save(saver, "t")
        other.execute("SELECT * FROM checkpoints WHERE thread_id = 't' FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(saver.delete_thread, "t")
            _until_waiting(postgres_url)
            with pytest.raises(CheckpointerUnavailableError, match="raise max_size"):
                saver.get_tuple(on("t"))
            other.commit()
            stuck.result(timeout=60)


def test_a_change_that_met_another_is_done_again(postgres_url: str) -> None:
    """A prune whose rows another program changed meanwhile is undone by the server, and repeated."""
    with PostgresSaver(postgres_url) as saver, psycopg.connect(postgres_url) as other:
        first = saver.put(on("t"), empty_checkpoint(), {}, {})
        saver.put(first, empty_checkpoint(), {}, {})
        other.execute("UPDATE checkpoints SET metadata = '{\"step\": 9}' WHERE thread_id = 't'")
        with ThreadPoolExecutor(1) as pool:
            pruned = pool.submit(saver.prune, ["t"])
            _until_waiting(postgres_url)
            other.commit()
            pruned.result(timeout=60)
        (left,) = saver.list(on("t"))
        assert left.metadata == {"step": 9}


def test_a_schema_keeps_storages_apart(postgres_url: str) -> None:
    """Each schema is made and holds tables of its own, also one whose name must be quoted."""
    schemas = (None, "tenant_a", "Tenant_B")
    for schema in schemas:
        with PostgresSaver(postgres_url, schema=schema) as saver:
            save(saver, f"of {schema}")
    for schema in schemas:
        with PostgresSaver(postgres_url, schema=schema) as saver:
            assert [info.thread_id for info in saver.threads()] == [f"of {schema}"]
            saver.copy_thread(f"of {schema}", "copy")
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'checkpoints' ORDER BY 1")
        assert [name for (name,) in found] == ["Tenant_B", "public", "tenant_a"]


def test_a_role_that_may_not_make_tables_can_use_them(postgres_url: str) -> None:
    """Where the tables are there, opening asks for no more rights than reading and writing do."""
    with PostgresSaver(postgres_url) as saver:
        save(saver, "t")
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        role = sql.Identifier(f"guest_{owner.info.dbname}")
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        owner.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        owner.execute(sql.SQL("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {}").format(role))
        try:
            guest = postgres_url.replace("postgres@", f"{role.as_string()[1:-1]}@")
            with PostgresSaver(guest) as saver:
                assert len(saver.threads()) == 1
                with pytest.raises(CheckpointerUnavailableError, match="grant the rights to this user"):
                    saver.delete_thread("t")
        finally:
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def _until_waiting(postgres_url: str) -> None:
    """Returns once some connection waits for a lock."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        while not connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            pass
