"""One run a thread: who has it, who waits for it, and how a run that died lets go of it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Self

from langchain_core.runnables import RunnableConfig

from petal.checkpoints.engine import Engine
from petal.checkpoints.memory import MemoryStore
from petal.checkpoints.records import Beat, Claim, LeaseRow, Release, Save, StaleSave, Transaction, WriteRow
from petal.core import forks
from petal.core.config.checkpointer import OnConflict
from petal.errors import CheckpointConflictError, PetalError, ThreadBusyError

BELIEVED = 6.0
"""Seconds after which a process that was not heard of has lost the threads that its runs had."""
PULSE = 1.5
"""Seconds between two signs of life."""
LISTENING = 0.25
"""Seconds between two looks at what others ask of the runs here."""
FIRST_LOOK, LAST_LOOK = 0.005, 0.25
"""Seconds between two looks at whose turn it is: the first ones, and those after long. A run of this process that ends
wakes those that wait here at once."""

LEASE = "__petal_lease"
"""In `configurable`: the claim of the run, which must have the thread whenever it saves."""
STOP, ROLL_BACK = "stop", "roll back"

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Lease:
    """A run's right to one thread.

    Attributes:
        thread_id: The thread.
        owner: Names the claim; a save that carries it is refused once the claim is gone.
        run_id: The run.
        is_urgent: Whether it goes before those that only wait.
        wish: What a later run asks of this one: to stop, or to stop and be removed; "" for nothing.
        replaced: The claims of runs that stopped for this one and are to be removed, in the order in which they had the
            thread.
        found: The writes that the run found on checkpoints of other runs, by their namespaces and ids, until they are
            kept for a rollback; None then.
        input_id: Where the run's input is kept until its end, if it is.
        leaves_input: Whether it stays kept then: it was left by a run that died, and nothing that this one saved tells
            of it yet.
    """

    thread_id: str
    owner: str
    run_id: str
    is_urgent: bool = False
    wish: str = ""
    replaced: list[LeaseRow] = field(default_factory=list)
    found: dict[tuple[str, str], list[WriteRow] | None] = field(default_factory=dict)
    input_id: str = ""
    leaves_input: bool = False
    _heard: Callable[[], object] | None = None

    def on_wish(self, heard: Callable[[], object]) -> None:
        """Have it called when a later run asks for something, at once if one has already. Any thread may call it."""
        self._heard = heard
        if self.wish:
            heard()

    def hear(self, wish: str) -> None:
        """Take note of what is asked."""
        if not self.wish:
            self.wish = wish
            if self._heard is not None:
                self._heard()


class Leases:
    """The runs of this process among all that use a database.

    A claim is a row: the first one of a thread has it, those behind it wait in the order of arrival. It lives as long
    as its process gives signs of life, which it does for all of its claims at once; that one of this machine has ended
    is seen without waiting for its silence. Whoever waits behind the claim of a dead process deletes it. Whatever the
    dead one still sends to be saved is refused, since its claim is gone.

    Args:
        engine: The database.
        closes: Whether it is closed with this.
    """

    def __init__(self, engine: Engine, *, closes: bool = False) -> None:
        self._engine = engine
        self._closes = closes
        self._closed = threading.Event()
        self._begin()

    def _begin(self) -> None:
        """Know of no run yet."""
        self._lock = threading.Lock()
        self._mine: dict[str, Lease] = {}
        self._waiting: dict[str, list[Callable[[], object]]] = {}
        self._beaten = -BELIEVED
        self._unreleased: list[Release] = []
        self._heart: threading.Thread | None = None

    @cached_property
    def _process(self) -> str:
        """This process. It is named when it first has to do with a thread: what was built may fork before it is used.

        Asked for first while the lock is held, so that it has one name.
        """
        forks.tell(self)
        return f"{uuid.uuid4().hex} {_home()} {os.getpid()}"

    def forked(self) -> None:
        """Be another process, which is not dead when the one that it forked from is."""
        self._begin()
        self.__dict__.pop("_process", None)

    @classmethod
    def in_memory(cls) -> Self:
        """Of the runs of this process alone."""
        return cls(Engine(MemoryStore(), list), closes=True)

    @asynccontextmanager
    async def held(self, thread_id: str, run_id: str, on_conflict: OnConflict, patience: float) -> AsyncIterator[Lease]:
        """Has a thread to itself while the block runs.

        Args:
            thread_id: The thread.
            run_id: Names the run in the metadata of its checkpoints.
            on_conflict: What to do while another run has the thread.
            patience: Seconds to wait for it at most.

        Raises:
            ThreadBusyError: If another run has it still, or with `"reject"`: at all.
        """
        wish = {"interrupt": STOP, "rollback": ROLL_BACK}.get(on_conflict, "")
        lease = Lease(thread_id, uuid.uuid4().hex, run_id, is_urgent=bool(wish))
        try:
            await self._claim(lease)
            await self._turn(lease, wish, 0.0 if on_conflict == "reject" else patience)
            yield lease
        finally:
            self._release(lease)

    def of(self, config: RunnableConfig) -> Lease | None:
        """The lease of the run that a config is of, if it is one of this process."""
        return self._mine.get(config["configurable"].get(LEASE, ""))

    def has_saved(self, owner: str) -> None:
        """Take note that a checkpoint is on disk which a run saved, if it is one of this process."""
        if (lease := self._mine.get(owner)) is not None:
            lease.leaves_input = False

    def forget_input(self, thread_id: str, input_id: str) -> None:
        """Delete what was kept of a run's input, soon."""
        self._let_go(Release(thread_id, "", input_id))

    async def is_held(self, thread_id: str) -> bool:
        """Whether a run has the thread whose process is alive."""
        rows = await self._engine.aread(lambda reader: reader.leases(thread_id))
        with self._lock:
            ended = {row.owner for row in rows if row.process == self._process} - self._mine.keys()  # just now
        return any(row.holds and row.owner not in ended and not _is_dead(row) for row in rows)

    def close(self) -> None:
        """Give no more signs of life."""
        self._closed.set()
        if self._heart is not None and self._heart is not threading.current_thread():
            self._heart.join()
        if self._closes:
            self._engine.close()

    async def _claim(self, lease: Lease) -> None:
        with self._lock:
            self._mine[lease.owner] = lease
            process = self._process
            silent = time.monotonic() - self._beaten > PULSE
        if silent:
            beaten = time.monotonic()
            await self._engine.asave(Save(turn=Beat(process, BELIEVED)))
            self._beaten = beaten
        self._keep_alive()
        claim = Claim(lease.thread_id, lease.owner, process, lease.run_id, lease.is_urgent)
        await self._engine.asave(Save(turn=claim))

    async def _turn(self, lease: Lease, wish: str, patience: float) -> None:
        """Wait until the thread is the lease's."""
        begun, pause = time.monotonic(), FIRST_LOOK
        woken = asyncio.Event()
        wake = partial(_wake, asyncio.get_running_loop(), woken)
        asked = set[str]()
        with self._lock:
            self._waiting.setdefault(lease.thread_id, []).append(wake)
        try:
            while True:
                woken.clear()
                rows = await self._engine.aread(lambda reader: reader.leases(lease.thread_id))
                mine = next((row for row in rows if row.owner == lease.owner), None)
                if mine is None:  # this process was taken for dead while it waited
                    await self._claim(lease)
                    continue
                if mine.holds:
                    return
                ahead = rows[0]
                if wish and ahead.holds and ahead.owner not in asked:
                    asked.add(ahead.owner)
                    await self._ask(ahead, wish)
                    if wish == ROLL_BACK:
                        lease.replaced.append(ahead)
                if ahead is mine or _is_dead(ahead):
                    await self._change(partial(_pass_on, mine=mine))
                    continue
                waited = time.monotonic() - begun
                if waited >= patience:
                    raise ThreadBusyError(lease.thread_id, patience)
                try:
                    await asyncio.wait_for(woken.wait(), min(pause, patience - waited))
                except TimeoutError:
                    pause = min(pause * 1.5, LAST_LOOK)
        finally:
            with self._lock:
                waiting = self._waiting[lease.thread_id]
                waiting.remove(wake)
                if not waiting:
                    del self._waiting[lease.thread_id]

    async def _ask(self, other: LeaseRow, wish: str) -> None:
        await self._change(lambda change: change.ask(other, wish))
        self._tell(other.owner, wish)

    async def _change(self, work: Callable[[Transaction], object]) -> None:
        await self._engine.later(partial(self._engine.change, work))

    def _release(self, lease: Lease) -> None:
        with self._lock:
            self._mine.pop(lease.owner, None)
        self._let_go(Release(lease.thread_id, lease.owner, "" if lease.leaves_input else lease.input_id))

    def _let_go(self, release: Release) -> None:
        def done(error: BaseException | None) -> None:
            with self._lock:
                if error is not None:
                    self._unreleased.append(release)  # this process lives, so nobody else would
                waiting = list(self._waiting.get(release.thread_id, ()))
            for wake in waiting:
                wake()

        self._engine.post(Save(turn=release), done)

    def _tell(self, owner: str, wish: str) -> None:
        with self._lock:
            lease = self._mine.get(owner)
        if lease is not None:
            lease.hear(wish)

    def _keep_alive(self) -> None:
        with self._lock:
            if self._heart is None or not self._heart.is_alive():
                # It holds no reference to this while it sleeps, so that what is forgotten can go.
                target = partial(_beat, weakref.ref(self), self._closed)
                self._heart = threading.Thread(target=target, name="petal-heart", daemon=True)
                self._heart.start()

    def _beat_once(self) -> bool:
        """Gives a sign of life when it is time, and hears what is asked; false when there is no need any more."""
        with self._lock:
            if not self._mine and not self._unreleased:
                self._heart = None
                return False
            again, self._unreleased = self._unreleased, []
        for release in again:
            self._let_go(release)
        try:
            if time.monotonic() - self._beaten >= PULSE:
                self._engine.save(Save(turn=Beat(self._process, BELIEVED)))
                self._beaten = time.monotonic()
            for asked in self._engine.read(lambda reader: reader.wishes(self._process)):
                self._tell(asked.owner, asked.wish)
        except PetalError as error:
            # The next one may come through. If none does, the threads go to others, and saves from here are refused.
            _log.warning("No sign of life could be given: %s", error)
        return True


def _beat(of: weakref.ref[Leases], closed: threading.Event) -> None:
    while not closed.wait(LISTENING):
        leases = of()
        if leases is None or not leases._beat_once():
            return
        del leases


class Conflicts:
    """Tells a run of another one that came between, if a save in the block finds one."""

    __slots__ = ("_thread_id",)

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, cls: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, StaleSave):
            raise CheckpointConflictError(self._thread_id, lost=error.lost) from None


@cache
def _home() -> str:
    """Where a process id means the same: this machine since it started, or this container on it."""
    try:
        # Containers on one machine have the same boot id, and each its own processes.
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}".replace(" ", "")
    except OSError:
        return socket.gethostname().replace(" ", "")


def _is_dead(lease: LeaseRow) -> bool:
    """Whether the process of a claim was not heard of for too long, or is one of this machine that has ended."""
    if not lease.is_alive:
        return True
    _, home, pid = lease.process.split(" ")
    if home != _home():
        return False
    try:
        os.kill(int(pid), 0)  # which only asks whether it is there
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is somebody else's
    return False


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(woken.set)


def _pass_on(change: Transaction, mine: LeaseRow) -> None:
    """Delete the claims of the dead, and give the thread to this one if it is its turn."""
    living = []
    for row in change.leases(mine.thread_id):
        if row.owner == mine.owner or not _is_dead(row):
            living.append(row)
        else:
            change.revoke(row)
    if living and living[0].owner == mine.owner:
        change.grant(mine)
