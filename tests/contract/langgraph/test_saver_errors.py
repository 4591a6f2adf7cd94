"""Everything that can be wrong with a database is a typed error that says so, without a password."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from psycopg import sql

from petal.checkpoints import open_checkpointer
from petal.checkpoints.langgraph import postgres as dialect
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.langgraph.savers import PostgresSaver, SqliteSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import (
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerError,
    CheckpointerUnavailableError,
)
from petal.testing.postgres import PostgresServer


def on(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def save(saver: LangGraphSaver, thread_id: str = "t", value: Any = None) -> RunnableConfig:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"n": [value]}
    checkpoint["channel_versions"] = {"n": "1"}
    return saver.put(on(thread_id), checkpoint, {"step": 1}, {"n": "1"})


def raised(kind: type[CheckpointerError], use: Callable[[], Any], *secrets: str) -> str:
    """The message of the error that `use` raises, which has a cause, can be pickled, and holds no secret."""
    with pytest.raises(kind) as caught:
        use()
    error = caught.value
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
    seen = f"{error} {error!r} {copy!r} {pickle.dumps(error)!r} {error.__cause__} {error.__cause__!r}"
    assert not [secret for secret in secrets if secret in seen]
    assert error.__cause__ is not None
    return str(error)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """It is left as it is."""
    file = tmp_path / "notes.txt"
    file.write_text("Dear diary, " * 100)
    with SqliteSaver(file) as saver:
        message = raised(CheckpointCorruptionError, lambda: saver.get_tuple(on("t")))
    assert message.startswith(f"sqlite:///{file} is damaged: file is not a database. Nothing was changed;")
    assert file.read_text() == "Dear diary, " * 100


def test_a_damaged_database(tmp_path: Path) -> None:
    """A file that lost its end is told from a good one, and not taken for an empty one."""
    file = tmp_path / "petal.db"
    with SqliteSaver(file) as saver:
        for number in range(50):
            save(saver, f"t{number}", "x" * 2000)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    with SqliteSaver(file) as saver:
        assert "malformed" in raised(CheckpointCorruptionError, lambda: list(saver.list(None)))


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    """The error names it and says what to check."""
    with SqliteSaver(tmp_path) as saver:
        message = raised(CheckpointerUnavailableError, lambda: save(saver))
    hint = "Check that its folder exists and may be written to, or name another file"
    assert message == f"sqlite:///{tmp_path}: unable to open database file. {hint}"


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    """A folder that cannot be made is told by its name, and so is a name that is too long."""
    (tmp_path / "file").write_text("")
    with SqliteSaver(tmp_path / "file" / "petal.db") as saver:
        assert f"File exists: {tmp_path / 'file'}" in raised(CheckpointerUnavailableError, lambda: save(saver))
    with SqliteSaver(tmp_path / ("x" * 300) / "petal.db") as saver:
        assert "File name too long" in raised(CheckpointerUnavailableError, lambda: save(saver))
    with SqliteSaver(tmp_path / ("x" * 300)) as saver:
        assert "unable to open database file" in raised(CheckpointerUnavailableError, lambda: save(saver))


STEPS = """
    import os, resource, sys
    from langgraph.checkpoint.base import empty_checkpoint
    from petal.checkpoints.langgraph.savers import SqliteSaver
    from petal.errors import CheckpointerError

    def save(saver, thread):
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"n": ["x" * 50_000]}
        saver.put({"configurable": {"thread_id": thread}}, checkpoint, {}, {})

    file, user, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    saver = SqliteSaver(file)
    if limit:
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if user and os.geteuid() == 0:
        os.setgroups([])
        os.setuid(user)
    saved = 0
    with saver:
        try:
            for saved in range(200):
                save(saver, f"t{saved}")
        except CheckpointerError as error:
            print(type(error).__name__, error, sep=": ")
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                save(saver, "after")
                print(saved + 1 == len(saver.threads(1000)))
"""


def stepped(file: Path, *, user: int = 0, limit: int = 0) -> list[str]:
    """What a process printed that saved to the file, as another user or with a limit on the size of files."""
    command = [sys.executable, "-c", textwrap.dedent(STEPS), str(file), str(user), str(limit)]
    # Another user cannot write down which lines it ran, so that is not asked of it.
    env = {name: value for name, value in os.environ.items() if not (user and name.startswith("COVERAGE_"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_full_disk(tmp_path: Path) -> None:
    """What was saved stays, the error says what to do, and once there is space the same saver goes on."""
    message, whole = stepped(tmp_path / "petal.db", limit=1_000_000)
    assert message.startswith(f"CheckpointerUnavailableError: sqlite:///{tmp_path}/petal.db: d")
    assert "space" in message
    assert whole == "True"


NOBODY = 65534


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder that every user can reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def test_a_file_that_may_not_be_written(public: Path) -> None:
    """A user without the right to write is told which file it is."""
    file = public / "petal.db"
    with SqliteSaver(file) as saver:
        save(saver)
    file.chmod(0o444)
    public.chmod(0o555)
    (message,) = stepped(file, user=NOBODY)
    assert message.startswith(f"CheckpointerUnavailableError: sqlite:///{file}: attempt to write a readonly database. ")
    public.chmod(0o755)
    with SqliteSaver(file) as saver:
        assert len(saver.threads()) == 1


def test_a_folder_that_may_not_be_written(public: Path) -> None:
    """Neither a new file nor a new folder can be made there, and the errors say so."""
    public.chmod(0o555)
    (message,) = stepped(public / "petal.db", user=NOBODY)
    assert "unable to open database file. Check that its folder" in message
    (message,) = stepped(public / "new" / "petal.db", user=NOBODY)
    assert f"Permission denied: {public / 'new'}. Check that its folder" in message
    public.chmod(0o755)


def test_a_database_that_another_process_writes(tmp_path: Path) -> None:
    """Waiting ends after the busy timeout, at the first use and later; then the same saver goes on."""
    file = tmp_path / "petal.db"
    other = sqlite3.connect(file, isolation_level=None)
    try:
        with SqliteSaver(file, busy_timeout=0.05) as saver:
            other.execute("BEGIN EXCLUSIVE")
            assert "database is locked. Another process" in raised(CheckpointerUnavailableError, lambda: save(saver))
            other.execute("COMMIT")
            save(saver)
            other.execute("BEGIN IMMEDIATE")
            for use in (lambda: save(saver, "u"), lambda: saver.copy_thread("t", "u"), lambda: saver.prune(["t"])):
                assert "raise busy_timeout" in raised(CheckpointerUnavailableError, use)
            other.execute("COMMIT")
            saver.copy_thread("t", "v")
            assert {info.thread_id for info in saver.threads()} == {"t", "v"}
        with SqliteSaver(file) as patient, ThreadPoolExecutor(1) as pool:
            other.execute("BEGIN EXCLUSIVE")
            saved = pool.submit(save, patient, "w")
            wait([saved], timeout=0.2)
            other.execute("COMMIT")
            saved.result(timeout=60)
    finally:
        other.close()


def test_a_table_that_is_not_langgraphs(tmp_path: Path) -> None:
    """A database with other tables of the same name gives SQLite's own words."""
    file = tmp_path / "petal.db"
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE checkpoints (a)")
    other.close()
    with SqliteSaver(file) as saver:
        assert "no such column" in raised(CheckpointerError, lambda: saver.get_tuple(on("t")))


def test_a_damaged_value_names_its_checkpoint(durable_storage: CheckpointerConfig) -> None:
    """Reading it raises, and the thread's other state stays readable."""
    with open_checkpointer(durable_storage) as saver:
        good, bad = save(saver, "good"), save(saver, "bad")
        if durable_storage.type == "sqlite":
            other = sqlite3.connect((durable_storage.config or {})["db_file"], isolation_level=None)
            other.execute("UPDATE checkpoints SET checkpoint = x'c1' WHERE thread_id = 'bad'")
            other.close()
        else:
            with psycopg.connect((durable_storage.config or {})["connection_string"]) as connection:
                connection.execute("UPDATE checkpoint_blobs SET blob = '\\xc1' WHERE thread_id = 'bad'")
        id = bad["configurable"]["checkpoint_id"]
        place = f"checkpoint '{id}' of thread 'bad' in {saver.where}"
        assert raised(CheckpointCorruptionError, lambda: saver.get_tuple(bad)).startswith(f"{place} is damaged: ")
        assert "thread 'bad'" in raised(CheckpointCorruptionError, lambda: list(saver.list(on("bad"))))
        assert saver.where in raised(CheckpointCorruptionError, lambda: list(saver.list(None)))
        assert saver.get_tuple(good) is not None


@pytest.mark.parametrize("metadata", ["x'7b'", "x'ff'"])
def test_damaged_metadata(tmp_path: Path, metadata: str) -> None:
    """Metadata that is no JSON, or no text, is damage too, for reading and for looking through."""
    with SqliteSaver(tmp_path / "petal.db") as saver:
        save(saver)
        other = sqlite3.connect(tmp_path / "petal.db", isolation_level=None)
        other.execute(f"UPDATE checkpoints SET metadata = {metadata}")
        other.close()
        assert "metadata cannot be read" in raised(CheckpointCorruptionError, lambda: saver.get_tuple(on("t")))
        assert "malformed JSON" in raised(CheckpointCorruptionError, lambda: saver.copy_thread("t", "u"))


SECRET = "correct horse@battery:staple/%"


def test_an_unreachable_server() -> None:
    """It is told at the first use, with the cause."""
    with PostgresSaver("postgresql://me:hunter2@127.0.0.1:1/db") as saver:
        message = raised(CheckpointerUnavailableError, lambda: saver.get_tuple(on("t")), "hunter2")
    assert message.startswith("postgresql://me:***@127.0.0.1:1/db: connection failed")
    assert "Connection refused" in message
    assert message.endswith("Check host and port and that the server runs, then go on; what was saved before is safe")


def test_a_wrong_password(postgres: PostgresServer, postgres_url: str) -> None:
    """The right one works; the wrong one is told from it, and shown nowhere."""
    with PostgresSaver(postgres.with_password(postgres_url)) as saver:
        save(saver)
    with PostgresSaver(postgres.with_password(postgres_url, SECRET)) as saver:
        message = raised(CheckpointerUnavailableError, lambda: save(saver), SECRET, "staple", "horse")
        assert SECRET not in repr(saver) + saver.where
    assert "password authentication failed" in message
    assert message.endswith("Check the user and the password in the connection string")


def test_a_database_or_a_user_that_does_not_exist(postgres_url: str) -> None:
    """Each says which of the two it is."""
    with PostgresSaver(postgres_url + "_not") as saver:
        message = raised(CheckpointerUnavailableError, lambda: save(saver))
    assert message.endswith("does not exist. Create the database, or name another one in the connection string")
    with PostgresSaver(postgres_url.replace("postgres@", "stranger@")) as saver:
        message = raised(CheckpointerUnavailableError, lambda: save(saver))
    assert message.endswith("Check the user and the password in the connection string")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("postgresql://me:hunter2@host/db?color=red", 'invalid URI query parameter: "color"'),
        ("host=here passwort=hunter2", 'invalid connection option "passwort"'),
        ("postgresql//me:hunter2@host", "cannot be read; write"),
        ("postgresql://me:hunter2%zz@host/db", "cannot be read; write"),
        ("postgresql://me:hunter2@[host/db", "cannot be read; write"),
        ("host=" + "x" * 100_000 + " password hunter2", "cannot be read; write"),
    ],
)
def test_a_connection_string_that_cannot_be_read(text: str, problem: str) -> None:
    """It is refused at once, and its password is not repeated."""
    with pytest.raises(CheckpointerConfigurationError) as caught:
        PostgresSaver(text)
    assert problem in str(caught.value)
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__}"


def test_a_read_only_server(postgres_url: str) -> None:
    """What is there can be read; saving, and making the tables, say that it is read-only."""
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        name = sql.Identifier(owner.info.dbname)
        owner.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        with PostgresSaver(postgres_url) as saver:
            assert "read-only transaction" in raised(CheckpointerUnavailableError, lambda: saver.get_tuple(on("t")))
        owner.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
        with PostgresSaver(postgres_url) as saver:
            save(saver)
        owner.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    with PostgresSaver(postgres_url) as saver:
        assert saver.get_tuple(on("t")) is not None
        message = raised(CheckpointerUnavailableError, lambda: save(saver))
        assert message.endswith("Connect to a server or a database that may be written to")


def test_a_server_without_a_free_connection(postgres_url: str) -> None:
    """The error says which limits there are."""
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        role = sql.Identifier(f"crowd_{owner.info.dbname}")
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT 0").format(role))
        try:
            with PostgresSaver(postgres_url.replace("postgres@", f"{role.as_string()[1:-1]}@")) as saver:
                message = raised(CheckpointerUnavailableError, lambda: save(saver))
        finally:
            owner.execute(sql.SQL("DROP ROLE {}").format(role))
    assert message.endswith("Close other connections, lower max_size, or raise the server's max_connections")


def test_tables_dropped_while_in_use(postgres_url: str) -> None:
    """The error names the table that is gone."""
    with PostgresSaver(postgres_url) as saver, psycopg.connect(postgres_url, autocommit=True) as owner:
        save(saver)
        owner.execute("DROP TABLE checkpoint_writes")
        message = raised(CheckpointerUnavailableError, lambda: saver.get_tuple(on("t")))
    assert 'relation "checkpoint_writes" does not exist' in message
    assert message.endswith("open the checkpointer anew")


def test_text_that_postgres_cannot_hold(postgres_url: str) -> None:
    """A NUL character is refused, not dropped, and the saver goes on."""
    with PostgresSaver(postgres_url) as saver:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"n": "a\0b"}
        checkpoint["channel_versions"] = {"n": "1"}
        use = lambda: saver.put(on("t"), checkpoint, {}, {"n": "1"})  # noqa: E731
        assert "Unicode" in raised(CheckpointerError, use)
        assert saver.get_tuple(on("t")) is None
        save(saver)


def test_a_process_that_never_ends_making_the_tables(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is waited for, and then named; once it is gone the same saver opens."""
    monkeypatch.setattr(dialect, "SETUP_PATIENCE", 0.1)
    with PostgresSaver(postgres_url) as saver:
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute("SELECT pg_advisory_lock(%s)", (dialect.SETUP_LOCK,))
            message = raised(CheckpointerUnavailableError, lambda: save(saver))
            assert "another process has been making the tables for 0 s" in message
        save(saver)


def test_a_schema_that_may_not_be_made(postgres_url: str) -> None:
    """A connection that fails after it was made is closed, and the error says which right is missing."""
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        role = sql.Identifier(f"guest_{owner.info.dbname}")
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        try:
            guest = postgres_url.replace("postgres@", f"{role.as_string()[1:-1]}@")
            with PostgresSaver(guest, schema="tenant") as saver:
                message = raised(CheckpointerUnavailableError, lambda: save(saver))
        finally:
            owner.execute(sql.SQL("DROP ROLE {}").format(role))
    assert message.endswith("Let the database's owner make the tables once, or grant the rights to this user")
