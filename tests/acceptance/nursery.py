"""Processes that have imported what they need when they begin: forked from one that waits, in milliseconds.

Of the two seconds that the command takes, all but a tenth is importing LangGraph. A process of the nursery has its own
folder, environment, arguments and standard streams, runs the script or module as `__main__`, and ends as any
interpreter does, by a signal too. Only what it would do while it imports, it does not: what is about that, or about
variables that Python itself reads, takes a new interpreter.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Self

import petal

IMPORTED = (
    "anyio._backends._asyncio",
    "langchain.agents",
    "langchain_core.tracers.context",
    "langchain_core.tracers.run_collector",
    "langchain_core.tracers.stdout",
    "langgraph.graph",
)
"""What nearly all of them need beside Petal's own modules."""
_MOST = 64 * 1024
"""Bytes of a request: mostly the environment."""


class Process:
    """One of the nursery's processes, with what of `subprocess.Popen` the tests need.

    Args:
        told: A file descriptor that tells the process's id, and when it ends, how: 8 bytes each.
        stdin: Where to write what it reads; None if that is nothing.
        stdout: Where to read what it writes.
        stderr: Where to read its errors; None if they go to `stdout`.

    Attributes:
        pid: Its id.
        returncode: Its exit code once it was waited for, minus the signal if it died of one.
    """

    def __init__(
        self, told: int, stdin: TextIOWrapper | None, stdout: TextIOWrapper, stderr: TextIOWrapper | None
    ) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.returncode: int | None = None
        self._told = told
        self.pid = self._number()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        self.wait()

    def wait(self, timeout: float = 60) -> int:
        """Wait for its end, and tell its exit code.

        Raises:
            subprocess.TimeoutExpired: If it has not ended in so many seconds.
        """
        if self.returncode is None:
            if not self._has_told(timeout):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = os.waitstatus_to_exitcode(self._number())
            os.close(self._told)
        return self.returncode

    def kill(self) -> None:
        """End it with SIGKILL, if it has not ended."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended: then its id may be another's."""
        if self.returncode is None and not self._has_told(0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def communicate(self, text: str | bytes = "", timeout: float = 60) -> tuple[str, str]:
        """Let it read this, and give all that it wrote to stdout and stderr until its end.

        Raises:
            subprocess.TimeoutExpired: If it had not ended in so many seconds; then it was killed.
        """
        late = threading.Event()
        timer = threading.Timer(timeout, lambda: (late.set(), self.kill()))
        errors: list[str] = []
        others = [
            threading.Thread(target=lambda: errors.append("" if self.stderr is None else self.stderr.read())),
            threading.Thread(target=self._give, args=[text]),
        ]
        for thread in (timer, *others):
            thread.start()
        output = self.stdout.read()
        for thread in others:
            thread.join()
        self.wait()
        timer.cancel()
        self._close()
        if late.is_set():
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout, output)
        return output, errors[0]

    def _has_told(self, timeout: float) -> bool:
        return bool(select.select([self._told], [], [], timeout)[0])

    def _number(self) -> int:
        data = os.read(self._told, 8)
        assert len(data) == 8, "the nursery has ended"
        return int.from_bytes(data, "big")

    def _give(self, text: str | bytes) -> None:
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.flush()
                self.stdin.buffer.write(text.encode() if isinstance(text, str) else text)
                self.stdin.close()

    def _close(self) -> None:
        for stream in self.stdin, self.stdout, self.stderr:
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Nursery:
    """Starts processes: what is given is what stands behind the name of the interpreter in a command."""

    def __init__(self) -> None:
        mine, other = socket.socketpair()
        with other:
            command = [sys.executable, __file__, str(other.fileno())]
            self._server = subprocess.Popen(command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)
        self._socket = mine

    def start(
        self,
        words: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        *,
        reads: bool = False,
        together: bool = False,
    ) -> Process:
        """Starts a process.

        Args:
            words: A script and its arguments, or `-m`, a module and its arguments.
            cwd: Its folder.
            env: Its environment.
            reads: Whether it reads from its `stdin`; else there is nobody.
            together: Whether its errors go to its `stdout`.
        """
        request = {"words": list(words), "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
        told, tells = os.pipe()
        read, written = os.pipe() if reads else (os.open(os.devnull, os.O_RDONLY), None)
        output, prints = os.pipe()
        errors, warns = (None, prints) if together else os.pipe()
        theirs = [read, prints, warns, tells]
        data = json.dumps(request).encode()
        assert len(data) <= _MOST
        socket.send_fds(self._socket, [len(data).to_bytes(4, "big") + data], theirs)
        for one in set(theirs):
            os.close(one)
        return Process(
            told,
            None if written is None else os.fdopen(written, "w"),
            os.fdopen(output),
            None if errors is None else os.fdopen(errors),
        )

    def run(
        self,
        words: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        text: str | bytes = "",
    ) -> subprocess.CompletedProcess[str]:
        """What a process wrote until it ended, after it was given a text to read."""
        process = self.start(words, cwd, env, reads=bool(text))
        output, errors = process.communicate(text)
        return subprocess.CompletedProcess(list(words), process.wait(), output, errors)

    def close(self) -> None:
        """Let it end, and all that it started with it."""
        self._socket.close()
        self._server.wait(30)


def serve(control: socket.socket) -> None:
    """Forks for each request; returns in each process that was forked, when that has run, and at the end."""
    own = [module.name for module in pkgutil.walk_packages(petal.__path__, "petal.")]
    for name in [*IMPORTED, *own]:
        if not name.startswith("petal.testing") and not name.endswith("__main__"):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    woken, wakes = os.pipe()
    for end in woken, wakes:
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    told: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == woken:
                    os.read(woken, 4096)
                    _tell_of_ended(told)
                    continue
                size, fds, *_ = socket.recv_fds(control, 4, 4)
                if not size:
                    for child in told:
                        os.kill(child, signal.SIGKILL)
                    return
                request = json.loads(_exactly(control, int.from_bytes(size, "big")))
                child = os.fork()
                if child == 0:
                    break
                told[child] = fds[3]
                os.write(fds[3], child.to_bytes(8, "big"))
                for one in {*fds[:3]}:
                    os.close(one)
            else:
                continue
            break
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in (woken, wakes, *told.values()):
        os.close(one)
    control.close()
    _live(request, fds)


def _tell_of_ended(told: dict[int, int]) -> None:
    while told:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(told[child], status.to_bytes(8, "big"))
        os.close(told.pop(child))


def _exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += control.recv(size - len(data))
    return data


def _live(request: dict[str, Any], fds: Sequence[int]) -> None:
    """Be the process that was asked for."""
    for number, one in enumerate(fds[:3]):
        os.dup2(one, number)
    for one in {*fds}:
        os.close(one)
    sys.stdin = TextIOWrapper(os.fdopen(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout = TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = TextIOWrapper(
        os.fdopen(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    measuring = sys.modules["coverage"].Coverage.current() if "coverage" in sys.modules else None
    if measuring is not None and not any(name.startswith("COVERAGE_") for name in os.environ):
        measuring.stop()
    first, *words = request["words"]
    spec = None
    if first == "-m":
        spec = importlib.util.find_spec(f"{words.pop(0)}.__main__")
        assert spec is not None
        assert spec.origin is not None
        first, sys.path[0] = spec.origin, os.getcwd()
    else:
        sys.path[0] = str(Path(first).parent)
    sys.argv = [first, *words]
    main = types.ModuleType("__main__")
    main.__file__, main.__spec__ = first, spec
    main.__package__ = None if spec is None else spec.parent
    sys.modules["__main__"] = main
    exec(compile(Path(first).read_bytes(), first, "exec"), main.__dict__)


if __name__ == "__main__":
    _KEPT = sys.modules["__main__"]  # its names are used until the end
    serve(socket.socket(fileno=int(sys.argv[1])))
