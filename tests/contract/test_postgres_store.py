"""What PostgreSQL's store does beyond what every store does: connections, rights, schemas, locks, plans."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from petal.checkpoints import postgres_migrations
from petal.checkpoints.postgres import PostgresReader, PostgresStore
from petal.checkpoints.postgres_sql import key
from petal.checkpoints.records import CheckpointQuery, CheckpointRow, Reader, Save, ValueRow, WriteRow
from petal.checkpoints.threads import ThreadQuery
from petal.core.config.checkpointer import PostgresOptions
from petal.errors import (
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerError,
    CheckpointerUnavailableError,
)
from petal.testing.postgres import PostgresServer

NOW = "2026-01-01T00:00:00+00:00"
WHERE = "postgresql://test"


def made(url: str, read_only: bool = False, **options: Any) -> PostgresStore:
    return PostgresStore(PostgresOptions(connection_string=url, **options), WHERE, read_only=read_only)


@contextmanager
def opened(url: str, **options: Any) -> Iterator[PostgresStore]:
    store = made(url, **options)
    store.open()
    try:
        yield store
    finally:
        store.close()


def save(id: str, thread_id: str = "t", ns: str = "", **columns: Any) -> Save:
    known: dict[str, Any] = {"source": "loop", "step": 1, "run_id": None}
    row = CheckpointRow(thread_id, ns, id, None, header=b"header", metadata=b"metadata", **{**known, **columns})
    return Save(row, [ValueRow(thread_id, ns, "messages", id, id, b"value")], status="done", now=NOW)


def names(store: PostgresStore, **query: Any) -> list[str]:
    return [info.thread_id for info in store.read(lambda reader: reader.threads(ThreadQuery(**query)))]


def ids(store: PostgresStore, **query: Any) -> list[str]:
    return [row.id for row in store.read(lambda reader: reader.checkpoints(CheckpointQuery(**query)))]


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def failure(store: PostgresStore, act: Callable[[], Any]) -> CheckpointerError:
    """The typed error of an act that fails."""
    with pytest.raises((psycopg.Error, CheckpointerError, UnicodeEncodeError)) as caught:
        act()
    error = caught.value if isinstance(caught.value, CheckpointerError) else store.translated(caught.value)
    assert isinstance(error, CheckpointerError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return error


def told(error: CheckpointerError) -> tuple[str, str, str]:
    assert isinstance(error, CheckpointerUnavailableError)
    return error.where, error.problem, error.hint


def role(url: str, name: str) -> str:
    """The same database for a new role that has no rights of its own."""
    run(url, f"CREATE ROLE {name} LOGIN")
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def guest(postgres_url: str) -> Iterator[str]:
    yield role(postgres_url, "guest")
    run(postgres_url, "SET default_transaction_read_only = off", "DROP OWNED BY guest CASCADE", "DROP ROLE guest")


def test_a_wrong_password_is_told_at_once(postgres: PostgresServer, postgres_url: str) -> None:
    """By what the server says, and without the password, also in what caused it."""
    store = made(postgres.with_password(postgres_url, "s3cret/word"), connect_timeout=60)
    with pytest.raises(CheckpointerUnavailableError) as caught:
        store.open()
    assert 'password authentication failed for user "petal"' in caught.value.problem
    assert caught.value.hint == "Check the user and the password in the connection string"
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    store.close()


def test_what_refuses_the_connection_is_told(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    missing = parts._replace(path="/none").geturl()
    assert told(failure(made(missing), made(missing).open)) == (
        WHERE,
        f'connection failed: connection to server at "127.0.0.1", port {parts.port} failed: '
        'FATAL: database "none" does not exist',
        "Create the database, or name another one in the connection string",
    )
    nobody = parts._replace(netloc="postgres@127.0.0.1:1").geturl()
    assert str(failure(made(nobody), made(nobody).open)) == (
        f'{WHERE}: connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused. '
        "Check host and port and that the server runs, then go on; what was saved before is safe"
    )


def test_a_connection_string_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(CheckpointerConfigurationError, match="write postgresql://user:password") as caught:
        made("postgresql://user:s3cret%zz@host/db")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(
        CheckpointerConfigurationError, match=r"cannot be read \(invalid URI query parameter: \"colour\"\)"
    ):
        made("postgresql://host/db?colour=blue")


def test_one_connection_is_left_to_the_journal(postgres_url: str) -> None:
    assert made(postgres_url).readers == 9
    assert made(postgres_url, max_size=1).readers == 1


@pytest.mark.parametrize(
    "setting",
    ["DATABASE {} SET default_transaction_read_only = on", "ROLE guest SET default_transaction_read_only = on"],
)
def test_what_is_set_to_read_only_is_refused(postgres_url: str, guest: str, setting: str) -> None:
    """Before anything runs whose state could not be kept; or by the next save, if it is set while in use."""
    run(postgres_url, "GRANT CREATE, USAGE ON SCHEMA public TO guest")
    read_only = "Connect to a server or a database that may be written to"
    with opened(guest) as store:
        store.commit([save("1")])
        database = urlsplit(postgres_url).path[1:]
        run(postgres_url, f"ALTER {setting.format(database)}")
        run(postgres_url, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'guest'")
        error = failure(store, lambda: store.commit([save("2")]))
        assert isinstance(error, CheckpointerUnavailableError)
        assert error.problem.startswith("cannot execute INSERT in a read-only transaction")
        assert error.hint == read_only
        assert ids(store) == ["1"]
    again = made(guest)
    assert told(failure(again, again.open)) == (
        WHERE, "the server, the database or the user is set to read only", read_only,
    )  # fmt: skip


def test_a_role_that_may_only_read_can_inspect(postgres_url: str, guest: str) -> None:
    """Also where everything is set to read only, and while another process holds the lock to make tables."""
    with opened(postgres_url) as owner:
        owner.commit([save("1", labels=(b"label...",), run_id="run")])
    run(
        postgres_url,
        "GRANT USAGE ON SCHEMA public TO guest",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest",
        f"ALTER DATABASE {urlsplit(postgres_url).path[1:]} SET default_transaction_read_only = on",
    )
    with psycopg.connect(postgres_url) as busy:
        busy.execute("SELECT pg_advisory_lock(%s), pg_advisory_lock(%s)", (key("public", ""), key("public", "t")))
        with opened(guest, read_only=True) as store:
            assert ids(store) == ids(store, thread_id="t", labels=((b"label...",),)) == ["1"]
            assert names(store) == ["t"]
            with store.reader() as reader:
                assert [row.data for row in reader.chains("t", "", [("messages", "1")])] == [b"value"]


def test_inspection_changes_nothing(postgres_url: str) -> None:
    """Whatever the role may do."""
    with opened(postgres_url) as owner, opened(postgres_url, read_only=True) as store:
        owner.commit([save("1")])
        refusal = WHERE, "it was opened only to be looked at", "Open it without inspect to change it"
        assert told(failure(store, lambda: store.commit([save("2")]))) == refusal
        assert told(failure(store, lambda: store.transaction().__enter__())) == refusal
        assert ids(store) == ["1"]


def test_inspection_makes_and_upgrades_no_tables(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = made(postgres_url, read_only=True)
    missing = failure(stranger, stranger.open)
    assert type(missing) is CheckpointerError
    assert str(missing) == (
        f"{WHERE} has no tables of this version of Petal: nothing was kept in it yet, or by an older one. "
        "A run makes them."
    )
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    with opened(postgres_url):
        pass
    newer = (*postgres_migrations.MIGRATIONS, ("CREATE TABLE {s}.more (x int)",))
    monkeypatch.setattr(postgres_migrations, "MIGRATIONS", newer)
    assert str(failure(stranger, stranger.open)) == str(missing)
    run(postgres_url, "UPDATE petal_meta SET value = '99' WHERE key = 'format'")
    assert "was written by a newer Petal" in str(failure(stranger, stranger.open))


def test_current_tables_need_no_right_to_make_tables(postgres_url: str, guest: str) -> None:
    """Nor the lock under which they are made."""
    with psycopg.connect(postgres_url) as busy, opened(postgres_url) as owner:
        owner.commit([save("1")])
        run(
            postgres_url,
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "GRANT USAGE ON SCHEMA public TO guest",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest",
        )
        busy.execute("SELECT pg_advisory_xact_lock(%s)", (key("public", ""),))
        with opened(guest) as store:
            store.commit([save("1"), save("2")])
            with store.transaction() as rows:
                rows.delete_thread("other")
            assert ids(store) == ["2", "1"]


def test_missing_rights_are_told(postgres_url: str, guest: str) -> None:
    run(postgres_url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", "CREATE SCHEMA theirs")
    hint = "Let the database's owner make the tables once, or grant the rights to this user"
    for options in ({}, {"schema": "theirs"}, {"schema": "new"}):
        store = made(guest, **options)
        error = failure(store, store.open)
        assert isinstance(error, CheckpointerUnavailableError)
        assert error.problem.startswith("permission denied for ")
        assert error.hint == hint


def test_a_schema_that_is_there_may_be_used_without_the_right_to_make_one(postgres_url: str, guest: str) -> None:
    run(postgres_url, "CREATE SCHEMA tenant AUTHORIZATION guest")
    with opened(guest, schema="tenant") as store:
        store.commit([save("1")])
        assert ids(store) == ["1"]


def test_each_schema_is_a_world_of_its_own(postgres_url: str) -> None:
    """Whatever its name looks like; no lock is shared; without a name it is the first one of the search path."""
    with (
        opened(postgres_url) as default,
        opened(postgres_url, schema="public") as public,
        opened(postgres_url, schema="Tenant_B") as upper,
        opened(postgres_url, schema="tenant_b") as lower,
        opened(f"{postgres_url}?options={quote('-c search_path=Tenant_B,tenant_b')}") as path,
        opened(postgres_url, schema="select") as keyword,
    ):
        default.commit([save("1")])
        upper.commit([save("2")])
        path.commit([save("3")])
        with keyword.transaction() as rows:
            rows.save(save("4"))
            upper.commit([save("5")])  # the same thread id, which waits for nobody there
        assert [ids(store) for store in (default, public, upper, lower, path, keyword)] == [
            ["1"], ["1"], ["5", "2"], ["3"], ["3"], ["4"],
        ]  # fmt: skip


def test_no_schema_at_all_is_told(postgres_url: str) -> None:
    run(postgres_url, "DROP SCHEMA public")
    store = made(postgres_url)
    assert "name one with the option 'schema'" in str(failure(store, store.open))


@pytest.mark.parametrize(
    ("value", "type", "message"),
    [
        (
            "99",
            CheckpointerError,
            f"{WHERE} was written by a newer Petal: its tables have format 99, and this version knows formats up to 1. "
            "Upgrade petal to open it; nothing was changed.",
        ),
        ("new", CheckpointCorruptionError, f"{WHERE} is damaged: its table petal_meta names no format but 'new'. "),
        ("0", CheckpointCorruptionError, f"{WHERE} is damaged: its table petal_meta names no format but '0'. "),
    ],
)
def test_a_format_that_is_not_known_is_refused(
    postgres_url: str, value: str, type: type[CheckpointerError], message: str
) -> None:
    with opened(postgres_url) as store:
        store.commit([save("1")])
    run(postgres_url, f"UPDATE petal_meta SET value = '{value}'")
    store = made(postgres_url)
    with pytest.raises(type) as caught:
        store.open()
    assert str(caught.value).startswith(message)
    run(postgres_url, "UPDATE petal_meta SET value = '1'")
    with opened(postgres_url) as store:
        assert ids(store) == ["1"]


def test_an_older_format_is_brought_up_to_date(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step; one that fails leaves the steps before it, and what was saved."""
    with opened(postgres_url) as store:
        store.commit([save("1")])
    added = "ALTER TABLE {s}.petal_meta ADD COLUMN {c} int"
    migrations = (*postgres_migrations.MIGRATIONS, (added.replace("{c}", "second"),), ("SELECT 1/0", "SELECT 1"))
    monkeypatch.setattr(postgres_migrations, "MIGRATIONS", migrations)
    store = made(postgres_url)
    assert "division by zero" in str(failure(store, store.open))
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT value, second FROM petal_meta").fetchall() == [("2", None)]
    monkeypatch.setattr(postgres_migrations, "MIGRATIONS", (*migrations[:2], (added.replace("{c}", "third"),)))
    with opened(postgres_url) as store:
        assert ids(store) == ["1"]
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT value, second, third FROM petal_meta").fetchall() == [("3", None, None)]


def test_of_two_who_make_the_tables_the_second_finds_them_made(postgres_url: str) -> None:
    """Both saw that there are none before either had begun."""
    stores = [made(postgres_url), made(postgres_url)]
    with ThreadPoolExecutor(2) as pool:
        with psycopg.connect(postgres_url) as busy:
            busy.execute("SELECT pg_advisory_xact_lock(%s)", (key("public", ""),))
            openings = [pool.submit(store.open) for store in stores]
            waiting(postgres_url, 2)
        for opening in openings:
            opening.result()
    for number, store in enumerate(stores):
        store.commit([save(str(number))])
        store.close()


def test_waiting_for_who_makes_the_tables_has_an_end(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_migrations, "PATIENCE", "100ms")
    store = made(postgres_url)
    with psycopg.connect(postgres_url) as busy:
        busy.execute("SELECT pg_advisory_xact_lock(%s)", (key("public", ""),))
        assert "Another process has been making the tables for long" in str(failure(store, store.open))
    store.open()
    store.close()


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.commit([save("1", "a\0b")]),
        lambda store: store.commit([save("1", ns="a\0b")]),
        lambda store: store.read(lambda reader: reader.checkpoint("a\0b", "", None)),
        lambda store: store.read(lambda reader: reader.threads(ThreadQuery(search="\0"))),
    ],
)
def test_a_nul_in_an_id_is_told(postgres_url: str, act: Callable[[PostgresStore], Any]) -> None:
    with opened(postgres_url) as store:
        assert str(failure(store, lambda: act(store))) == (
            f"{WHERE}: PostgreSQL keeps no NUL character (\\0) in a thread id, a namespace or any other name; "
            "use another id."
        )
        store.commit([save("1")])
        assert names(store) == ["t"]


def test_half_a_character_in_an_id_is_told(postgres_url: str) -> None:
    with opened(postgres_url) as store:
        error = failure(store, lambda: store.commit([save("1", "a\ud800")]))
        assert str(error) == f"{WHERE}: 'a\\ud800' is no text that can be kept (surrogates not allowed)."


def test_ids_of_any_language_in_any_encoding(postgres_url: str) -> None:
    """A database that takes bytes for text keeps every id; one that cannot say it refuses it by name."""
    for encoding in ("SQL_ASCII", "LATIN1"):
        database = f"{urlsplit(postgres_url).path[1:]}_{encoding}".lower()
        run(postgres_url, f"CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        try:
            with opened(urlsplit(postgres_url)._replace(path=f"/{database}").geturl()) as store:
                store.commit([save("1", "Grüße")])
                assert names(store) == ["Grüße"]
                if encoding == "SQL_ASCII":
                    store.commit([save("1", "😀")])
                    assert names(store, search="😀") == ["😀"]
                else:
                    error = failure(store, lambda store=store: store.commit([save("1", "😀")]))  # type: ignore[misc]
                    assert 'has no equivalent in encoding "LATIN1"' in str(error)
        finally:
            run(postgres_url, f"DROP DATABASE {database} WITH (FORCE)")


def test_a_pool_that_is_used_up_says_so(postgres_url: str) -> None:
    with opened(postgres_url, max_size=1, connect_timeout=0.2) as store, store.reader() as reader:
        assert reader.checkpoints(CheckpointQuery()) == []
        error = failure(store, lambda: ids(store))
        assert isinstance(error, CheckpointerUnavailableError)
        assert error.hint == "All connections are in use; raise max_size, or use the checkpointer less at once"


def test_what_the_server_ends_for_its_time_is_told(postgres_url: str) -> None:
    """A role may have a limit for each statement; the connection and what was saved before are well."""
    with opened(f"{postgres_url}?options=-cstatement_timeout%3D50") as store, psycopg.connect(postgres_url) as busy:
        busy.execute("SELECT pg_advisory_xact_lock(%s)", (key("public", "t"),))
        error = failure(store, lambda: store.commit([save("1")]))
        assert isinstance(error, CheckpointerUnavailableError)
        assert error.hint == (
            "The server ends what takes longer than its statement_timeout; raise it for this user, or save less at once"
        )


def test_a_server_that_stays_away_is_told_by_its_cause(postgres: PostgresServer) -> None:
    """And is found again as soon as it is back."""
    with opened(postgres.create_database(), connect_timeout=1.2) as store:
        store.commit([save("1")])
        postgres.stop()
        for act in (lambda: ids(store), lambda: store.commit([save("2")]), lambda: enter(store), lambda: ids(store)):
            error = failure(store, act)
            assert isinstance(error, CheckpointerUnavailableError)
            assert "Connection refused" in error.problem
            assert error.hint.startswith("Check host and port and that the server runs")
        postgres.start()
        store.commit([save("3")])
        assert ids(store) == ["3", "1"]


def enter(store: PostgresStore) -> None:
    with store.transaction():
        pass


def test_tables_that_were_dropped_are_told(postgres_url: str) -> None:
    with opened(postgres_url) as store:
        run(postgres_url, "DROP TABLE petal_checkpoints")
        for act in (lambda: ids(store), lambda: store.commit([save("1")])):
            assert "open the checkpointer anew" in str(failure(store, act))
        assert names(store) == []


def test_other_errors_are_told_as_they_are(postgres_url: str) -> None:
    """One of the data's is no outage, so that the journal tries each save alone; one that is none of ours is left."""
    with opened(postgres_url) as store:
        store.commit([save("0")])
        error = failure(store, lambda: store.commit([save("1"), save("2", step=2**70)]))
        assert (type(error), str(error)) == (CheckpointerError, f"{WHERE}: bigint out of range.")
        assert ids(store) == ["0"]
        assert store.translated(ValueError("mine")) is None


def test_an_error_that_nobody_raised_is_not_called_a_success(postgres_url: str) -> None:
    """The server rolls such a transaction back, and says so only in passing."""

    def careless(store: PostgresStore) -> None:
        with store.transaction() as rows:
            rows.save(save("1"))
            with pytest.raises(psycopg.Error, match="out of range"):
                rows.save(save("2", step=2**70))

    with opened(postgres_url) as store:
        with pytest.raises(psycopg.InternalError, match="rolled back since a statement in it had failed"):
            careless(store)
        assert ids(store) == []
        store.commit([save("3")])
        assert ids(store) == ["3"]


def waiting(url: str, count: int = 1) -> None:
    """Returns once so many sessions wait for a lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
            if found == (count,):
                return


@pytest.mark.parametrize(
    "look",
    [
        lambda rows: rows.checkpoint("t", "", None),
        lambda rows: rows.writes("t", "", []),
        lambda rows: rows.chains("t", "", []),
        lambda rows: rows.namespaces("t"),
        lambda rows: rows.all_values("t", ""),
        lambda rows: rows.labels("t", "", "1"),
        lambda rows: rows.threads_of_runs(["run"]),
        lambda rows: rows.recount("t"),
    ],
)
def test_what_a_transaction_looked_at_stays_as_it_is(postgres_url: str, look: Callable[[Any], Any]) -> None:
    """A save of the same thread by another process waits; another thread's does not, nor does a reader."""
    with opened(postgres_url) as store, opened(postgres_url) as other, ThreadPoolExecutor(1) as pool:
        store.commit([save("1", run_id="run")])
        with store.transaction() as rows:
            look(rows)
            late = pool.submit(other.commit, [save("2")])
            waiting(postgres_url)
            other.commit([save("1", "u")])
            assert ids(other, thread_id="t") == ["1"]
            assert [row.id for row in rows.checkpoints(CheckpointQuery(thread_id="t"))] == ["1"]
            rows.delete_thread("t")
        late.result()
        assert ids(store, thread_id="t") == ["2"]


def test_a_new_thread_is_counted_right_by_two_who_begin_it(postgres_url: str) -> None:
    """There is no row yet that the second could wait for."""
    with opened(postgres_url) as store, opened(postgres_url) as other, ThreadPoolExecutor(1) as pool:
        with store.transaction() as rows:
            rows.save(save("1"))
            late = pool.submit(other.commit, [save("1"), save("2")])
            waiting(postgres_url)
        late.result()
        (info,) = store.read(lambda reader: reader.threads(ThreadQuery()))
        assert (info.checkpoints, info.size) == (2, 2 * len(b"headermetadatavalue"))


def test_a_save_that_the_server_undid_is_made_again(postgres_url: str) -> None:
    """Two wait for each other, and the server chooses the save to end it."""
    patient = f"{postgres_url}?options={quote('-c deadlock_timeout=1h')}"
    with opened(postgres_url) as store, opened(patient) as other, ThreadPoolExecutor(1) as pool:
        with other.transaction() as rows:
            rows.save(save("1", "b"))
            late = pool.submit(store.commit, [save("2", "a"), save("2", "b")])
            waiting(postgres_url)
            rows.save(save("1", "a"))
        late.result()
        assert sorted((row.thread_id, row.id) for row in store.read(lambda r: r.checkpoints(CheckpointQuery()))) == [
            ("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"),
        ]  # fmt: skip


def test_a_change_that_the_server_undid_is_told(postgres_url: str) -> None:
    patient = f"{postgres_url}?options={quote('-c deadlock_timeout=1h')}"
    with opened(patient) as store, opened(postgres_url) as other, ThreadPoolExecutor(1) as pool:

        def tangled() -> None:
            with other.transaction() as rows:
                rows.save(save("1", "b"))
                tangle.append(pool.submit(store.commit, [save("2", "a"), save("2", "b")]))
                waiting(postgres_url)
                rows.save(save("1", "a"))

        tangle: list[Future[None]] = []
        with pytest.raises(psycopg.errors.DeadlockDetected) as caught:
            tangled()
        tangle[0].result()
        assert str(other.translated(caught.value)) == (
            f"{WHERE}: deadlock detected. "
            "Two changes were in each other's way and the server undid this one; do it again"
        )
        assert ids(store) == ["2", "2"]


@pytest.mark.parametrize(("default", "used"), [("off", "on"), ("local", "local"), ("on", "on")])
def test_a_save_is_on_the_disk_even_where_the_default_would_not_wait(
    postgres_url: str, default: str, used: str
) -> None:
    """Only what does not wait for this server's own disk is overruled, and for Petal's transactions alone."""
    with opened(postgres_url) as store:
        store.commit([save("1")])
    database = urlsplit(postgres_url).path[1:]
    run(
        postgres_url,
        f"ALTER DATABASE {database} SET synchronous_commit = {default}",
        "CREATE TABLE seen (setting text)",
        """
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$
        """,
        # Deferred to COMMIT: by then the function that set it has returned.
        """
        CREATE CONSTRAINT TRIGGER look AFTER INSERT OR DELETE ON petal_checkpoints
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look()
        """,
    )
    with opened(postgres_url) as store:
        store.commit([save("2")])
        with store.transaction() as rows:
            rows.save(save("3"))
        with store.transaction() as rows:
            rows.delete_checkpoints("t", "", ["1"])
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT setting FROM seen").fetchall() == [(used,)] * 3


READS: dict[str, tuple[int, Callable[[Reader], Any]]] = {
    "head": (1, lambda reader: reader.checkpoint("t7", "", None)),
    "one": (1, lambda reader: reader.checkpoint("t7", "", "0003")),
    "chains": (11, lambda reader: reader.chains("t7", "", [("messages", "0000"), ("other", "0000")])),
    "writes": (2, lambda reader: reader.writes("t7", "", ["0003", "0004"])),
    "strays": (2, lambda reader: reader.strays("t7")),
    "page": (5, lambda reader: reader.checkpoints(CheckpointQuery(limit=5, after=("0005", "t7", "")))),
    "page of a thread": (
        3,
        lambda reader: reader.checkpoints(CheckpointQuery("t7", "", limit=3, after=("0005", "t7", ""))),
    ),
    "common label": (5, lambda reader: reader.checkpoints(CheckpointQuery(labels=((b"common..",),), limit=5))),
    "rare label": (1, lambda reader: reader.checkpoints(CheckpointQuery(labels=((b"rare....",),), limit=5))),
    "either label": (
        5,
        lambda reader: reader.checkpoints(CheckpointQuery(labels=((b"common..", b"often..."),), limit=5)),
    ),
    "one of two rare labels": (
        2,
        lambda reader: reader.checkpoints(CheckpointQuery(labels=((b"rare....", b"none....", b"seldom.."),), limit=5)),
    ),
    "either label in a thread": (
        5,
        lambda reader: reader.checkpoints(CheckpointQuery("t3", labels=((b"common..", b"often..."),), limit=5)),
    ),
    "label in a thread": (
        1,
        lambda reader: reader.checkpoints(CheckpointQuery("t3", labels=((b"common..",), (b"rare....",)), limit=5)),
    ),
    "run": (10, lambda reader: reader.checkpoints(CheckpointQuery(run_id="run7"))),
    "threads": (5, lambda reader: reader.threads(ThreadQuery(limit=5))),
    "waiting threads": (1, lambda reader: reader.threads(ThreadQuery(limit=5, status="waiting"))),
}


@pytest.fixture(scope="module")
def crowded(_own_postgres: PostgresServer) -> str:
    """A database of 400 threads with 10 checkpoints each, one of which has 500 values of its own, and stray writes."""
    url = _own_postgres.create_database()
    with opened(url) as store:
        for step in range(10):
            id = f"{step:04}"
            store.commit([thread_save(number, id) for number in range(400)])
        store.commit([Save(values=[ValueRow("t7", "", "messages", f"x{n}", f"x{n}", b"whole") for n in range(500)])])
        store.commit([Save(writes=[WriteRow("t7", "", "none", "task", n, "messages", "", b"write") for n in range(2)])])
    return url


def thread_save(number: int, id: str) -> Save:
    thread_id = f"t{number}"
    extra = {("t3", "0003"): b"rare....", ("t4", "0004"): b"seldom.."}.get((thread_id, id), b"often...")
    labels = b"common..", extra
    return Save(
        CheckpointRow(thread_id, "", id, None, "loop", int(id), f"run{number}", b"header", b"metadata", labels=labels),
        [ValueRow(thread_id, "", "messages", "0000", id, b"delta"), ValueRow(thread_id, "", "other", id, id, b"whole")],
        [WriteRow(thread_id, "", id, "task", 0, "messages", "", b"write")],
        "waiting" if number == 3 else "done",
        NOW,
    )


def fetched(url: str) -> tuple[int, int]:
    """Rows read so far one after the other, and by an index; sessions that ended are counted once they are gone."""
    with psycopg.connect(url, autocommit=True) as connection:
        others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        while connection.execute(others).fetchone():
            pass
        row = connection.execute(
            "SELECT sum(seq_tup_read)::int, sum(idx_tup_fetch)::int FROM pg_stat_user_tables"
        ).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("name", READS)
def test_a_read_touches_no_more_than_it_gives(crowded: str, name: str, analyzed: bool) -> None:
    """By an index, also before the server has looked at what is in the tables; a few rows more for each one given."""
    if analyzed:
        run(crowded, "ANALYZE")
    rows, ask = READS[name]
    touches_little(crowded, rows, ask)


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_thread_is_deleted_without_looking_at_others(crowded: str, analyzed: bool) -> None:
    with opened(crowded) as store:
        store.commit([thread_save(1000, f"{step:04}") for step in range(10)])
    if analyzed:
        run(crowded, "ANALYZE")
    before = fetched(crowded)
    with opened(crowded) as store, store.transaction() as rows:
        rows.recount("t1000")
        rows.delete_thread("t1000")
    after = fetched(crowded)
    assert after[0] - before[0] <= 2
    assert after[1] - before[1] <= 2 * (10 + 20 + 10 + 20 + 1)  # of each table, counted and deleted


def test_a_search_for_two_entries_begins_with_the_rare_one(crowded: str) -> None:
    """Once the server knows which one that is."""
    run(crowded, "ANALYZE")
    query = CheckpointQuery(labels=((b"common..", b"often..."), (b"none....", b"rare....")), limit=5)
    touches_little(crowded, 1, lambda reader: reader.checkpoints(query))


def touches_little(url: str, rows: int, ask: Callable[[Reader], Any]) -> None:
    with opened(url) as store:
        store.read(ask)
    before = fetched(url)
    with opened(url) as store:
        found = store.read(ask)
    after = fetched(url)
    assert (len(found) if isinstance(found, list) else 1) == rows
    assert after[0] - before[0] <= 2  # the table of the format
    assert after[1] - before[1] <= 4 * rows + 20


def test_saves_do_not_slow_down(crowded: str) -> None:
    """They read by indexes only, in tables that were empty when the plan was made too, and no row but their own."""
    with opened(crowded) as store:
        for number in range(20):
            store.commit([thread_save(number, "0010")])
    before = fetched(crowded)
    with opened(crowded) as store:
        for number in range(20, 40):
            store.commit([thread_save(number, "0010")])
    after = fetched(crowded)
    assert after[0] - before[0] <= 2
    assert after[1] - before[1] <= 20 * 3


def test_a_store_is_what_it_says(postgres_url: str) -> None:
    """`read` gives what the question gives, and a question that asks nothing costs nothing."""
    with opened(postgres_url) as store:
        assert store.read(lambda reader: isinstance(reader, PostgresReader))
        with pytest.raises(ZeroDivisionError):
            store.read(lambda reader: (reader.checkpoints(CheckpointQuery()), 1 / 0))
        assert ids(store) == []
