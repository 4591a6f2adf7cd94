"""What goes over the wire to PostgreSQL: how often, in which state, and what if it is cut or the process killed."""

from __future__ import annotations

import queue
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from nursery import Nursery, Process
from postgres_rows import SIZE, opened, save

from petal.checkpoints.postgres import PostgresStore
from petal.checkpoints.records import CheckpointQuery, Reader, Save
from petal.checkpoints.threads import ThreadQuery
from petal.errors import CheckpointerUnavailableError

THREE_SAVES = Path(__file__).with_name("three_saves.py")
CLEAR = "?sslmode=disable&gssencmode=disable"
"""So that what is sent can be read here."""

Message = tuple[bytes, bytes]
"""A message's type and its body."""


class CutError(Exception):
    """The wire is to be cut before a message passes."""


class Wire:
    """A wire to a server that reads along, and can be cut at a message.

    Attributes:
        asked: The messages of clients, without what begins and ends a connection.
    """

    def __init__(self, url: str) -> None:
        self.asked: list[Message] = []
        self.at_question: Callable[[Message], None] = lambda message: None
        self.at_answer: Callable[[Message], None] = lambda message: None
        self._server = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = self._server._replace(netloc=f"postgres@127.0.0.1:{port}").geturl() + CLEAR
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def round_trips(self) -> int:
        """How often a client waited for the server."""
        return sum(kind in (b"S", b"Q") for kind, _ in self.asked)

    @property
    def statements(self) -> list[str]:
        """What the server was told to do."""
        return [
            body.split(b"\0")[1 if kind == b"P" else 0].decode() for kind, body in self.asked if kind in (b"P", b"Q")
        ]

    @property
    def prepared(self) -> list[bytes]:
        """The names of prepared statements."""
        return [name for kind, body in self.asked if kind == b"P" and (name := body.split(b"\0")[0])]

    def forget(self) -> None:
        """Counts from here."""
        self.asked.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            self._connected(client)

    def _connected(self, client: socket.socket) -> None:
        server = socket.create_connection((self._server.hostname, self._server.port))
        prompt(client, server)
        for pump in (self._questions, self._answers):
            self._threads.append(threading.Thread(target=self._pumped, args=(pump, client, server), daemon=True))
            self._threads[-1].start()

    def _pumped(self, pump: Callable[..., None], client: socket.socket, server: socket.socket) -> None:
        try:
            pump(client, server)
        except (CutError, OSError):
            pass
        finally:
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _questions(self, client: socket.socket, server: socket.socket) -> None:
        server.sendall(startup(client))
        while (message := received(client))[0] != b"X":
            if message[0] in b"PQESB":
                self.at_question(message)
                self.asked.append(message)
            server.sendall(packed(message))

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            message = received(server)
            self.at_answer(message)
            client.sendall(packed(message))


class PooledWire:
    """Lets clients share a few connections, each for one transaction at a time, as pgbouncer's transaction mode."""

    def __init__(self, url: str, connections: int) -> None:
        self.transactions = 0
        self.swaps = 0
        parts = urlsplit(url)
        self._servers = [self._begun(parts) for _ in range(connections)]
        self._free: queue.Queue[socket.socket] = queue.Queue()
        for server in self._servers:
            self._free.put(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = parts._replace(netloc=f"postgres@127.0.0.1:{self._listener.getsockname()[1]}").geturl() + CLEAR
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def states(self, query: str) -> list[list[list[str]]]:
        """What each connection to the server answers: the state that its clients left in it."""
        return [self._rows(server, query) for server in self._servers]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        for server in self._servers:
            server.close()

    def _begun(self, parts: Any) -> socket.socket:
        server = socket.create_connection((parts.hostname, parts.port))
        prompt(server)
        settings = f"user\0postgres\0database\0{parts.path[1:]}\0client_encoding\0UTF8\0\0".encode()
        server.sendall(struct.pack("!II", 8 + len(settings), 196608) + settings)
        self._greeting = []
        while (message := received(server))[0] != b"Z":
            self._greeting.append(message)
        self._greeting.append(message)
        return server

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._served, args=(client,), daemon=True))
            self._threads[-1].start()

    def _served(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            prompt(client)
            startup(client)
            client.sendall(b"".join(map(packed, self._greeting)))
            server: socket.socket | None = None
            last = None
            while (message := received(client))[0] != b"X":
                if server is None:
                    if message[0] == b"H":
                        continue
                    server = self._free.get(timeout=30)
                    self.transactions += 1
                    self.swaps += last not in (None, server)
                server.sendall(packed(message))
                while message[0] in b"SQ":
                    answer = received(server)
                    client.sendall(packed(answer))
                    if answer[0] == b"Z":
                        if answer[1] == b"I":
                            last = server
                            self._free.put(server)
                            server = None
                        break

    def _rows(self, server: socket.socket, query: str) -> list[list[str]]:
        server.sendall(packed((b"Q", query.encode() + b"\0")))
        rows = []
        while (message := received(server))[0] != b"Z":
            assert message[0] != b"E", message[1]
            if message[0] == b"D":
                rows.append(values(message[1]))
        return rows


def prompt(*ends: socket.socket) -> None:
    """Sends each message at once, though it is small."""
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def startup(client: socket.socket) -> bytes:
    size = exactly(client, 4)
    return size + exactly(client, struct.unpack("!I", size)[0] - 4)


def received(source: socket.socket) -> Message:
    kind = exactly(source, 1)
    return kind, exactly(source, struct.unpack("!I", exactly(source, 4))[0] - 4)


def packed(message: Message) -> bytes:
    return message[0] + struct.pack("!I", len(message[1]) + 4) + message[1]


def exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (part := source.recv(size - len(data))):
            raise ConnectionResetError("the other end is closed")
        data += part
    return data


def values(row: bytes) -> list[str]:
    (count,), at, found = struct.unpack_from("!H", row), 2, []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", row, at)
        found.append(row[at + 4 : at + 4 + size].decode())
        at += 4 + max(size, 0)
    return found


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    wire = Wire(postgres_url)
    yield wire
    wire.close()


def tally(store: PostgresStore) -> dict[str, tuple[int, int, int, int | None]]:
    """For each thread: the checkpoints, values and writes that are there, and the bytes that the index tells."""

    def ask(reader: Reader) -> dict[str, tuple[int, int, int, int | None]]:
        found = {}
        for info in reader.threads(ThreadQuery(limit=1000)):
            rows = reader.checkpoints(CheckpointQuery(thread_id=info.thread_id, limit=1000))
            assert len(rows) == info.checkpoints
            chains = reader.chains(info.thread_id, "", [("messages", row.id) for row in rows])
            writes = reader.writes(info.thread_id, "", [row.id for row in rows])
            found[info.thread_id] = (len(rows), len(chains), len(writes), info.size)
        return found

    return store.read(ask)


def all_of(count: int) -> tuple[int, int, int, int]:
    return count, count, count, count * SIZE


def test_a_group_of_saves_is_one_round_trip(wire: Wire) -> None:
    """However many saves, and whatever rows they have."""
    with opened(wire.url) as store:
        store.commit([save("0")])  # while the pool connects
        for number, size in enumerate((1, 10, 100)):
            wire.forget()
            store.commit([save(f"{number}/{at}", f"t{at}") for at in range(size)])
            assert wire.round_trips == 1
            assert len(wire.statements) == 3
        wire.forget()
        store.commit([])
        assert wire.asked == []


def test_a_read_sends_its_begin_along(wire: Wire) -> None:
    """One question is two round trips, the second of which ends the transaction; a transaction costs no more."""
    with opened(wire.url) as store:
        store.commit([save("1")])
        wire.forget()
        store.read(lambda reader: reader.checkpoint("t", "", None))
        assert wire.round_trips == 2
        wire.forget()
        store.read(lambda reader: (reader.checkpoint("t", "", None), reader.chains("t", "", [("messages", "1")])))
        assert wire.round_trips == 3
        wire.forget()
        with store.transaction() as rows:
            rows.save(save("2"))
            rows.save(Save())
        assert wire.round_trips == 3


def test_opening_current_tables_changes_nothing(wire: Wire) -> None:
    """No lock is taken, no table is made, no row written."""
    with opened(wire.url):
        assert any("CREATE TABLE" in statement for statement in wire.statements)
    wire.forget()
    with opened(wire.url):
        assert {statement.split()[0] for statement in wire.statements} == {"SELECT"}
        assert not any("lock" in statement for statement in wire.statements)


def give_up(store: PostgresStore, thread_id: str) -> None:
    with store.transaction() as rows:
        rows.save(save("4", thread_id))
        raise ZeroDivisionError


def use_all(store: PostgresStore, thread_id: str) -> None:
    """Everything that a store can do."""
    store.commit([save("1", thread_id)])
    store.commit([save("1", thread_id), save("2", thread_id), save("1", f"{thread_id}/copy")])
    with store.transaction() as rows:
        rows.save(save("3", thread_id))
        assert rows.namespaces(thread_id) == [""]
        assert len(rows.all_values(thread_id, "")) == 3
        assert rows.labels(thread_id, "", "1") == (b"label...",)
        assert (thread_id, "", "2") in rows.threads_of_runs([thread_id])
        rows.delete_checkpoints(thread_id, "", ["1"])
        rows.delete_values(thread_id, "", [("messages", "1")])
        rows.recount(thread_id)
        rows.delete_thread(f"{thread_id}/copy")
    with pytest.raises(ZeroDivisionError):
        give_up(store, thread_id)
    with store.reader() as reader:
        found = reader.checkpoints(CheckpointQuery(thread_id=thread_id, labels=((b"label...",),)))
        assert [row.id for row in found] == ["3", "2"]
        assert [row.checkpoint_id for row in reader.writes(thread_id, "", ["2"])] == ["2"]
    assert tally(store)[thread_id] == all_of(2)


def test_nothing_is_left_in_a_session(postgres_url: str) -> None:
    """Clients that are given another connection for every transaction do not notice, nor does the connection."""
    wire = PooledWire(postgres_url, 3)
    with opened(wire.url) as first, opened(wire.url) as second, ThreadPoolExecutor(6) as pool:
        uses = [pool.submit(use_all, (first, second)[number % 2], f"t{number}") for number in range(16)]
        for use in uses:
            use.result()
        assert set(tally(second).values()) == {all_of(2)}
    assert wire.transactions > 50
    assert wire.swaps > 10
    for query in (
        "SELECT name FROM pg_prepared_statements",
        "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%'",
        "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "SELECT name FROM pg_cursors WHERE name <> ''",
    ):
        assert wire.states(query) == [[], [], []]
    wire.close()


def test_no_statement_is_prepared_by_name(wire: Wire) -> None:
    """Not even one that is said a hundred times."""
    with opened(wire.url) as store:
        for number in range(100):
            store.commit([save(str(number))])
            store.read(lambda reader: reader.checkpoint("t", "", None))
        use_all(store, "all")
        assert len(wire.statements) > 400
        assert wire.prepared == []
        assert not any(statement.lstrip().startswith(("SET", "PREPARE", "LISTEN")) for statement in wire.statements)


def cut_once(kind: bytes, part: bytes) -> Callable[[Message], None]:
    """Cuts the wire before the first message of a kind that holds something."""
    uncut = [True]

    def look(message: Message) -> None:
        if uncut and message[0] == kind and part in message[1]:
            uncut.clear()
            raise CutError

    look.uncut = uncut  # type: ignore[attr-defined]
    return look


@pytest.mark.parametrize(
    ("side", "kind", "part"),
    [
        ("question", b"P", b"BEGIN"),
        ("question", b"P", b"petal_save"),
        ("question", b"P", b"COMMIT"),
        ("question", b"S", b""),
        ("answer", b"C", b"BEGIN"),
        ("answer", b"C", b"SELECT"),
        ("answer", b"C", b"COMMIT"),
        ("answer", b"Z", b""),
    ],
)
def test_a_save_whose_connection_is_cut_is_made_once(wire: Wire, side: str, kind: bytes, part: bytes) -> None:
    """Wherever it is cut, before COMMIT arrives or before its answer does, the caller notices nothing."""
    with opened(wire.url) as store:
        store.commit([save("1")])
        cut = cut_once(kind, part)
        setattr(wire, f"at_{side}", cut)
        store.commit([save("2"), save("1", "u")])
        assert not cut.uncut  # type: ignore[attr-defined]
        assert tally(store) == {"t": all_of(2), "u": all_of(1)}


@pytest.mark.parametrize(("cuts", "saved"), [(3, True), (4, False)])
def test_a_wire_that_breaks_every_time_is_given_up(wire: Wire, cuts: int, saved: bool) -> None:
    """After the fourth try; then the error says that the database cannot be reached, and nothing is half done."""
    left = [None] * cuts

    def look(message: Message) -> None:
        if left and message[0] == b"P" and b"COMMIT" in message[1]:
            left.pop()
            raise CutError

    with opened(wire.url) as store:
        store.commit([save("1")])
        wire.at_question = look
        if saved:
            store.commit([save("2")])
        else:
            with pytest.raises(psycopg.OperationalError) as caught:
                store.commit([save("2")])
            assert isinstance(store.translated(caught.value), CheckpointerUnavailableError)
        assert not left
        assert tally(store) == {"t": all_of(1 + saved)}


class Lives:
    """Processes, one after another, that open a store and save, and may be killed while they do.

    Args:
        nursery: Starts them.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._living: queue.Queue[Process] = queue.Queue()

    def life(self, url: str) -> int:
        """Lets one live; 0 if it did all its work, else minus the signal it died of."""
        with self._nursery.start([str(THREE_SAVES), url]) as process:
            self._living.put(process)
            if (code := process.wait()) == 0:
                self._living.get()
        return code

    def kill(self) -> None:
        """Kills the one that lives."""
        self._living.get(timeout=30).kill()


@pytest.fixture
def lives(unmeasured: None, nursery: Nursery) -> Lives:
    return Lives(nursery)


def killed_at(lives: Lives, number: int) -> Callable[[Message], None]:
    """Kills the child just before its statement of that number is carried out."""
    seen = [0]

    def look(message: Message) -> None:
        if message[0] in b"EQ":
            seen[0] += 1
            if seen[0] == number + 1:
                lives.kill()
                raise CutError

    return look


def test_a_process_may_be_killed_at_any_statement(postgres_url: str, lives: Lives) -> None:
    """While it makes the tables or saves; the next one finishes that, and of a group of saves there is nothing."""
    wire = Wire(postgres_url)
    executed: list[str] = []
    wire.at_question = lambda message: executed.append("x") if message[0] in b"EQ" else None
    assert lives.life(wire.url) == 0
    whole, schema = wire.statements, described(postgres_url)
    total = len(executed)
    assert whole[-3:][0].startswith("BEGIN")
    assert total > 20
    reset(postgres_url)
    for number in range(total):
        wire.at_question = killed_at(lives, number)
        assert lives.life(wire.url) == -signal.SIGKILL
        wire.at_question = lambda message: None
        with opened(postgres_url) as store:
            assert tally(store) == {}, number
            store.commit([save("0")])
            assert tally(store) == {"t": all_of(1)}
        assert described(postgres_url) == schema
        reset(postgres_url)
    wire.close()


def test_a_process_may_be_killed_before_it_hears_that_it_has_saved(postgres_url: str, lives: Lives) -> None:
    """Then all of it is there."""
    wire = Wire(postgres_url)

    def look(message: Message) -> None:
        if message[0] == b"C" and b"SELECT" in message[1] and "petal_save" in "".join(wire.statements):
            wire.at_answer = last

    def last(message: Message) -> None:
        if message[0] == b"C" and b"COMMIT" in message[1]:
            lives.kill()
            raise CutError

    wire.at_answer = look
    assert lives.life(wire.url) == -signal.SIGKILL
    with opened(postgres_url) as store:
        assert tally(store) == {"t": all_of(3)}
        store.commit([save("3"), save("4")])
        assert tally(store) == {"t": all_of(4)}
    wire.close()


def described(url: str) -> list[Any]:
    """All tables, columns, indexes and functions."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """
            SELECT 'column', table_name || '.' || column_name, data_type FROM information_schema.columns
            WHERE table_schema = 'public'
            UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT 'function', proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT 'format', key, value FROM petal_meta
            ORDER BY 1, 2, 3
            """
        ).fetchall()


def reset(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
