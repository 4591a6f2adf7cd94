"""A process for the tests: kills a run at each of its points in turn, goes on with it, and says what was broken.

python fault_points.py DATABASE_URL FOLDER DURABILITY FIRST EVERY

A point is a turn of the event loop, a transaction about to be written or just written, or a place before or after an
act on the world. Children are forked from a process that has no threads yet, so a point costs no start of Python.
Where the URL is `sqlite`, each point has a database of its own in the folder, else a thread of its own.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import operator
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.types import interrupt

import petal
from petal.checkpoints.notes import EFFECT
from petal.checkpoints.saver import PetalSaver
from petal.core.agent import Agent
from petal.core.effects.records import DONE, effects
from petal.core.factory import AgentFactory
from petal.core.thread import Thread
from petal.errors import NothingToResumeError, UnknownThreadError

ORDER = ["plan", "left", "right", "ask"]
EFFECTS = {"reserve": "plan", "notify": "plan", "send": "left", "charge": "ask", "ship": "ask"}


class Work(TypedDict, total=False):
    given: Annotated[list[str], operator.add]
    log: Annotated[list[str], operator.add]


class Faults:
    """Counts the points that are passed, and kills the process at one of them.

    Args:
        at: The number of the point; 0 for none.
    """

    def __init__(self, at: int) -> None:
        self._at = at
        self._numbers = itertools.count(1)

    def point(self) -> None:
        """One point is passed."""
        if next(self._numbers) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_loops(self) -> None:
        """Each turn of an event loop is a point."""
        run = asyncio.Handle._run

        def counted(handle: asyncio.Handle) -> None:
            self.point()
            run(handle)

        asyncio.Handle._run = counted  # type: ignore[method-assign]

    def watch_commits(self, saver: PetalSaver) -> None:
        """Each transaction is a point before it, and one after it."""
        commit = saver._engine.store.commit

        def counted(saves: Sequence[Any]) -> None:
            self.point()
            commit(saves)
            self.point()

        saver._engine.store.commit = counted  # type: ignore[method-assign]


class Diary:
    """Lines that outlive the process which writes them."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self._path, self._faults = path, faults

    def write(self, line: str) -> None:
        self._faults.point()
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{line}\n".encode())
        os.close(file)
        self._faults.point()

    def act(self, name: str) -> str:
        """An act on the world that tells under which key it is done."""
        self.write(f"did {name} {petal.idempotency_key()}")
        return name

    @property
    def lines(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []


def built(url: str, diary: Diary) -> Agent:
    """plan, then left and right at once, then ask, which asks."""

    def recorded(name: str) -> None:
        petal.step(name, diary.act, name)
        diary.write(f"past {name}")

    def plan(state: Work) -> Work:
        diary.write("began plan")
        recorded("reserve")
        recorded("notify")
        return {"log": ["plan"]}

    def left(state: Work) -> Work:
        diary.write("began left")
        recorded("send")
        return {"log": ["left"]}

    async def right(state: Work) -> Work:
        diary.write("began right")
        await asyncio.sleep(0)
        return {"log": ["right"]}

    def ask(state: Work) -> Work:
        diary.write("began ask")
        recorded("charge")
        answer = interrupt("Go on?")
        recorded("ship")
        return {"log": [f"ask: {answer}"]}

    return (
        AgentFactory(Work)
        .add(plan)
        .with_condition(lambda state: ["left", "right"], {"left": "left", "right": "right"})
        .add(left)
        .with_next("ask")
        .add(right)
        .add(ask)
        .with_checkpointer(url)
        .build()
    )


def saver_of(agent: Agent) -> PetalSaver:
    assert isinstance(agent.checkpointer, PetalSaver)
    return agent.checkpointer


def run(url: str, thread_id: str, durability: Any, path: Path, faults: Faults) -> None:
    """The run that is killed."""
    diary = Diary(path, faults)
    with built(url, diary) as agent:
        faults.watch_commits(saver_of(agent))
        thread = agent.thread(thread_id)
        thread.invoke({"given": ["in"]}, durability=durability)
        diary.write("asked")
        thread.resume("yes", durability=durability)
        diary.write("answered")


def go_on(url: str, thread_id: str, durability: Any, path: Path) -> None:
    """Another process goes on to the end, and writes down what it finds that must not be."""
    diary = Diary(path, Faults(0))
    before = diary.lines
    with built(url, diary) as agent:
        saver, thread = saver_of(agent), agent.thread(thread_id)
        kept, recorded = found(saver, thread)
        wrong = unkept(before, kept, recorded, durability)
        ended = finished(thread, durability, before)
        if ended is not None:
            wrong.append(ended)
        after = diary.lines[len(before) :]
        wrong += [f"{step} was finished and ran again" for step in kept if f"began {step}" in after]
        wrong += [f"{name} was done and was done again" for name in recorded if any(f"did {name} " in x for x in after)]
        wrong += keys(diary.lines, durability)
        values = thread.state().values
        if values != {"given": ["in"], "log": ["plan", "left", "right", "ask: yes"]} or thread.state().next:
            wrong.append(f"the end is {values}, next {thread.state().next}")
        wrong += [f"damage: {one}" for one in saver.verify(thread_id)]
        if [info.status for info in saver.threads(search=thread_id) if info.thread_id == thread_id] != ["done"]:
            wrong.append(f"the thread is listed as {saver.threads(search=thread_id)}")
    if wrong:
        diary.write(f"WRONG {json.dumps({'wrong': wrong, 'kept': sorted(kept), 'recorded': sorted(recorded)})}")


def found(saver: PetalSaver, thread: Thread) -> tuple[set[str], set[str]]:
    """The steps whose results are on disk, and the acts that are on record."""
    head = saver.get_tuple(thread.config())
    said: list[str] = []
    if head is not None:
        said += head.checkpoint["channel_values"].get("log", [])
        said += [word for _, channel, words in head.pending_writes or () if channel == "log" for word in words]
    acts = effects(saver.notes(thread.thread_id, EFFECT))
    return {word.partition(":")[0] for word in said}, {one.identity.name for one in acts if one.status == DONE}


def unkept(before: list[str], kept: set[str], recorded: set[str], durability: str) -> list[str]:
    """What was promised to be on disk, and is not."""
    wrong = []
    if durability == "sync":
        began = {step for step in ORDER if f"began {step}" in before}
        needed = {"left": ["plan"], "right": ["plan"], "ask": ["plan", "left", "right"]}
        wrong += [
            f"{step} began before {earlier} was on disk"
            for step in began
            for earlier in needed.get(step, ())
            if earlier not in kept
        ]
    if durability != "exit":
        wrong += [f"{name} is not on record" for name in EFFECTS if f"past {name}" in before and name not in recorded]
    if "asked" in before and {"plan", "left", "right"} - kept:
        wrong.append("what led to the question is not on disk")
    if "answered" in before and "ask" not in kept:
        wrong.append("the end is not on disk")
    return wrong


def finished(thread: Thread, durability: Any, before: list[str]) -> str | None:
    """Goes on to the end as a user would; tells if the input was gone."""
    gone = None
    if not thread.interrupts():
        try:
            thread.resume(durability=durability)
        except UnknownThreadError:
            if any(line.startswith("began") for line in before):
                gone = "the input was gone although a step had begun"
            thread.invoke({"given": ["in"]}, durability=durability)
        except NothingToResumeError:
            pass  # it came to its end
    if thread.interrupts():
        thread.resume("yes", durability=durability)
    return gone


def keys(lines: list[str], durability: str) -> list[str]:
    """Acts that were done under several keys, or never."""
    done: dict[str, set[str]] = {name: set() for name in EFFECTS}
    for line in lines:
        if line.startswith("did "):
            done[line.split(" ")[1]].add(line.split(" ")[2])
    wanted = {name: len(found) == 1 or (durability == "exit" and bool(found)) for name, found in done.items()}
    return [f"{name} was done under the keys {done[name]}" for name, right in wanted.items() if not right]


def forked(act: Callable[[], None]) -> int:
    """The exit status of a child that does this."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass(frozen=True)
class Point:
    """One kill.

    Attributes:
        at: Its number.
        url: The database.
        path: The diary of the run.
        durability: Of the run.
    """

    at: int
    url: str
    path: Path
    durability: str

    @property
    def thread_id(self) -> str:
        return f"{self.durability} {self.at}."

    def die(self) -> None:
        """Run, and be killed."""
        faults = Faults(self.at)
        faults.watch_loops()
        run(self.url, self.thread_id, self.durability, self.path, faults)

    def go_on(self) -> None:
        """Go on with what was killed."""
        go_on(self.url, self.thread_id, self.durability, self.path)


def warm_up(folder: str) -> None:
    """Imports what a run needs, once for all children; no thread is left of it."""
    path = Path(folder) / f"warm-{os.getpid()}"
    run(f"sqlite:///{path}.db", "warm", "sync", path, Faults(0))
    go_on(f"sqlite:///{path}.db", "warm", "sync", path)
    assert path.read_text().splitlines()[-1] == "answered"
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


def killed(points: Iterator[Point]) -> Iterator[Point]:
    """Those at which a run was killed: all before the first that its end came before."""
    for point in points:
        status = forked(point.die)
        if status == 0:
            break
        if status == -signal.SIGKILL:
            yield point
        else:
            print(f"point {point.at}: the run ended with {status}", flush=True)


def go_on_with(points: Iterable[Point]) -> None:
    """What another process does, one after the other."""
    for point in points:
        try:
            point.go_on()
        except Exception:
            point.path.open("a").write(f"WRONG {traceback.format_exc()}\n")


def main(url: str, folder: str, durability: str, first: str, every: str) -> None:
    warm_up(folder)
    paths = ((at, Path(folder) / f"{durability}-{at}") for at in itertools.count(int(first), int(every)))
    places = ((at, f"sqlite:///{path}.db" if url == "sqlite" else url, path) for at, path in paths)
    points = list(killed(Point(*place, durability) for place in places))
    status = forked(lambda: go_on_with(points))
    print(f"{len(points)} points, and the next process ended with {status}")
    for point in points:
        lines = point.path.read_text().splitlines() if point.path.exists() else []
        if any(line.startswith("WRONG") for line in lines):
            print("\n  ".join([f"point {point.at}:", *lines]))


if __name__ == "__main__":
    main(*sys.argv[1:])
