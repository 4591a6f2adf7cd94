"""Real places and servers for the tests: each storage, a PostgreSQL, an OpenAI-protocol server; and no way out."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from llmock.chaos import ChaosSettings, StreamChaos
from llmock.journal import RequestRecord
from llmock.ratelimit import LimitSettings
from llmock.scenarios import Reply, ToolCall
from llmock.simulation import MockResponseSettings
from llmock.state import LLMockState
from llmock.testing import LLMockServer

from petal.checkpoints import open_checkpointer
from petal.core.config.checkpointer import CheckpointerConfig
from petal.testing.postgres import (
    PostgresMissingError,
    PostgresServer,
    create_database,
    drop_database,
    postgres_server,
)

NAMED_SERVER = "PETAL_TEST_POSTGRES"

# How long an example takes says nothing of the code on a machine that others use too.
settings.register_profile("petal", deadline=None)
settings.load_profile("petal")

# What a shell starts in the background may be told to ignore ctrl-c, and tells so all that it starts itself.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keeps the collector from looking at all modules and tests again and again: they stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def can_compile() -> bool:
    """Whether there is a C compiler and what Python's extensions are compiled with."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(compiler.split()[0]) is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.fixture(scope="session", autouse=True)
def no_way_out() -> Iterator[None]:
    """Fails a test that asks for the address of, or connects to, anything but this machine."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(method: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_unless_here(address[0])
            return method(self, address)

        return call

    def getaddrinfo_here(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_unless_here(host)
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(connect))
        patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
        patch.setattr(socket, "getaddrinfo", getaddrinfo_here)
        # A proxy that the machine names would be asked for 127.0.0.1 too.
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        yield


def _refuse_unless_here(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name == "localhost":
        return
    try:
        here = ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        here = False
    if not here:
        pytest.fail(f"A test tried to reach {name!r}; tests only reach servers on 127.0.0.1.")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the keys and the database of whoever runs the tests, and keeps tracing off."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL")) or name.startswith(("LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("PETAL_DB", raising=False)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts are not measured for coverage, which slows them down.

    For those that are many or killed, and run what is measured elsewhere; and for those that tell which modules they
    have imported, since measuring imports some too.
    """
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _own_postgres() -> Iterator[PostgresServer]:
    try:
        with postgres_server() as server:
            yield server
    except PostgresMissingError as error:
        hint = f"Tests that do not stop the server also take one that {NAMED_SERVER} names by its URL."
        raise pytest.fail.Exception(f"{error} {hint}", pytrace=False) from None


@pytest.fixture
def postgres(_own_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test may stop and restart; it runs again when the test has ended."""
    yield _own_postgres
    _own_postgres.start()


# What a test may have changed beside rows, and how these lie on disk.
_SHAPE = """
SELECT md5(string_agg((
    to_jsonb(c) - '{relfilenode,relpages,reltuples,relallvisible,relfrozenxid,relminmxid}'::text[]
)::text, '' ORDER BY oid)) FROM pg_class c WHERE oid >= 16384
UNION ALL SELECT concat_ws(' ', count(*), max(xmin::text::bigint)) FROM pg_attribute
UNION ALL SELECT concat_ws(' ', count(*), max(xmin::text::bigint)) FROM pg_constraint
UNION ALL SELECT concat_ws(' ', count(*), max(xmin::text::bigint)) FROM pg_namespace
UNION ALL SELECT concat_ws(' ', count(*), max(xmin::text::bigint)) FROM pg_proc
UNION ALL SELECT concat_ws(' ', count(*), max(xmin::text::bigint)) FROM pg_trigger
UNION ALL SELECT concat_ws(' ', datacl, datconnlimit, setrole, setconfig)
    FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid WHERE datname = current_database()
"""
_END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_TABLES = "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'r' AND oid >= 16384"


class UsedDatabase:
    """A database with Petal's tables that tests get one after the other, without rows: to make one takes longer than
    most of them. One in which more was changed than rows is given to no other.
    """

    def __init__(self) -> None:
        self._server_url = self._url = self._empty = ""
        self._shape: list[tuple[Any, ...]] = []

    def take(self, server_url: str) -> str:
        """The URL of it."""
        if not self._url:
            self._server_url, self._url = server_url, create_database(server_url)
            with open_checkpointer(self._url) as saver:
                saver.delete_thread("nobody's")
            with psycopg.connect(self._url, autocommit=True) as connection:
                self._shape = connection.execute(_SHAPE).fetchall()
                ((tables,),) = connection.execute(_TABLES).fetchall()
                ((format,),) = connection.execute("SELECT value FROM petal_meta").fetchall()
            self._empty = f"TRUNCATE {tables} RESTART IDENTITY; INSERT INTO petal_meta VALUES ('format', '{format}')"
        return self._url

    def give_back(self) -> None:
        """Ends what still uses it, and empties it."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_END_OTHERS)
            if is_as_it_was := connection.execute(_SHAPE).fetchall() == self._shape:
                connection.execute(self._empty)
        if not is_as_it_was:
            self.drop()

    def drop(self) -> None:
        """Removes it; another one is made when it is asked for."""
        url, self._url = self._url, ""
        if url:
            drop_database(self._server_url, url)


@pytest.fixture(scope="session")
def _used_database(request: pytest.FixtureRequest) -> Iterator[UsedDatabase]:
    if NAMED_SERVER not in os.environ:
        request.getfixturevalue("_own_postgres")  # which then outlives it
    database = UsedDatabase()
    yield database
    database.drop()


@pytest.fixture
def storage_url(request: pytest.FixtureRequest, _used_database: UsedDatabase) -> Iterator[str]:
    """A database with Petal's tables and without rows, on the server that `postgres_url` is on."""
    server_url, start = _server(request)
    yield _used_database.take(server_url)
    start()
    _used_database.give_back()


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh, empty database, on the server that PETAL_TEST_POSTGRES names or else on `postgres`."""
    server_url, start = _server(request)
    url = create_database(server_url)
    yield url
    start()
    drop_database(server_url, url)


def _server(request: pytest.FixtureRequest) -> tuple[str, Callable[[], None]]:
    """The URL of the server with the tests' databases, and how to start it again, if a test stopped it."""
    if named := os.environ.get(NAMED_SERVER):
        return named, lambda: None
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.url, postgres.start


def _storage(kind: str, request: pytest.FixtureRequest, database: str = "storage_url") -> CheckpointerConfig:
    match kind:
        case "memory":
            return CheckpointerConfig(type="memory")
        case "sqlite":
            folder: Path = request.getfixturevalue("tmp_path")
            return CheckpointerConfig(type="sqlite", config={"db_file": str(folder / "storage.db")})
        case "postgres":
            url: str = request.getfixturevalue(database)
            return CheckpointerConfig(type="postgres", config={"connection_string": url})
        case _:
            raise ValueError(kind)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> CheckpointerConfig:
    """Every storage in turn, each with a fresh place."""
    return _storage(request.param, request)


@pytest.fixture(params=["sqlite", "postgres"])
def durable_storage(request: pytest.FixtureRequest) -> CheckpointerConfig:
    """Every storage that outlives a process in turn, each with a fresh place."""
    return _storage(request.param, request)


@pytest.fixture(params=["sqlite", "postgres"])
def untouched_storage(request: pytest.FixtureRequest) -> CheckpointerConfig:
    """Every storage that outlives a process in turn, none with any tables."""
    return _storage(request.param, request, "postgres_url")


@pytest.fixture(params=["memory", "sqlite", "postgres", "langgraph"])
def saver(request: pytest.FixtureRequest) -> Iterator[BaseCheckpointSaver[Any]]:
    """Each of Petal's savers in turn, on a fresh place, and LangGraph's own; on SQLite only if a test asks for it."""
    match request.param:
        case "langgraph":
            yield InMemorySaver()
        case "langgraph-sqlite":
            folder: Path = request.getfixturevalue("tmp_path")
            with open_checkpointer(f"sqlite:///{folder}/langgraph.db", engine="langgraph") as opened:
                yield opened
        case kind:
            with open_checkpointer(_storage(kind, request)) as opened:
                yield opened


class StrictHistory:
    """Refuses a conversation that OpenAI refuses: a tool call without a result behind it, or a result without a call.

    Args:
        app: The server that gets every other request.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/chat/completions"):
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        if problem := history_problem(json.loads(body)["messages"]):
            error = {"message": problem, "type": "invalid_request_error", "param": "messages", "code": None}
            text = json.dumps({"error": error}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": text})
            return
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Any:
            return next(parts, None) or await receive()

        await self._app(scope, again, send)


def history_problem(messages: list[dict[str, Any]]) -> str | None:
    """What OpenAI has to say against a request's messages."""
    waiting: list[str] = []
    for message in [*messages, {"role": "end"}]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return (
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}"
            )
        waiting = [call["id"] for call in message.get("tool_calls") or ()]
        if not all(isinstance(id, str) for id in waiting):
            return "Invalid type for 'messages.tool_calls.id': expected a string, but got null instead."
    return None


@dataclass(frozen=True, slots=True)
class OpenAIServer:
    """A server on this machine that speaks OpenAI's protocol; `reply` and `call_tool` script its next answers."""

    server: LLMockServer

    @property
    def base_url(self) -> str:
        """What `OPENAI_BASE_URL` and `base_url=` take, e.g. `http://127.0.0.1:53412/v1`."""
        return self.server.base_url("openai")

    @property
    def state(self) -> LLMockState:
        """What it does and has seen: `.scenarios`, `.journal`, `.limiter`, `.stream_chaos`."""
        return self.server.state

    @property
    def requests(self) -> list[RequestRecord]:
        """Each request of this test, in the order of arrival."""
        return self.state.journal.records(wait=2.0)

    def reply(self, *texts: str) -> None:
        """Answers the next requests with these texts, one each."""
        self.state.scenarios.add(*(Reply(text=text) for text in texts))

    def call_tool(self, name: str, **arguments: Any) -> None:
        """Answers the next request with one tool call."""
        self.state.scenarios.add(Reply(tool_calls=(ToolCall(name, arguments),)))

    def reset(self) -> None:
        """Forgets what was asked and scripted, and every changed setting."""
        state, app = self.state, self.server.app.state
        state.reset()
        state.limiter.configure(LimitSettings())
        state.chaos = app.chaos_settings = ChaosSettings()
        state.stream_chaos = StreamChaos()
        app.mock_response_settings = MockResponseSettings()


@pytest.fixture(scope="session")
def _openai_server() -> Iterator[OpenAIServer]:
    server = LLMockServer()
    server.app.add_middleware(StrictHistory)
    with server:
        yield OpenAIServer(server)


@pytest.fixture
def openai(
    _openai_server: OpenAIServer, plain_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenAIServer]:
    """An OpenAI-protocol server, to which the environment points OpenAI's clients."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-tests")
    monkeypatch.setenv("OPENAI_BASE_URL", _openai_server.base_url)
    _openai_server.reset()
    yield _openai_server
    _openai_server.reset()
