"""Any order of runs, answers, faults, forks, rewinds, edits, prunes and crashes leaves what a model says."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from langgraph.types import interrupt

from petal.checkpoints import open_checkpointer
from petal.checkpoints.saver import PetalSaver
from petal.core.agent import Agent
from petal.core.factory import AgentFactory
from petal.core.thread import Thread
from petal.errors import (
    CheckpointerError,
    CheckpointNotFoundError,
    InterruptIdRequiredError,
    NothingToResumeError,
    PendingInterruptError,
    UnknownInterruptError,
    UnknownThreadError,
)

STEPS = ["note", "ask", "end"]
ENTRY, IDLE = "__start__", ""
NAMES = st.sampled_from(["a", "b", "c"])
FAULTS = st.none() | st.tuples(st.sampled_from(STEPS), st.sampled_from(["failure", "crash"]))
WORDS = st.sampled_from(["tea", "cake", "tea?", "cake?"])
ANSWERS = st.sampled_from(["yes", "no", "", None, False, 0])


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class FailureError(Exception):
    """A step fails on purpose."""


class CrashError(Exception):
    """From here on nothing is saved, as if the process had been killed."""


@dataclass(frozen=True)
class Position:
    """What a checkpoint says.

    Attributes:
        log: The log.
        next: The step that is next; "" if none is.
        given: The input that came in here and is not in the log yet.
    """

    log: tuple[str, ...] = ()
    next: str = IDLE
    given: str = ""

    @property
    def told(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """As a snapshot tells it."""
        return self.log, (self.next,) if self.next else ()


@dataclass(frozen=True)
class Kept:
    """A checkpoint, and what hangs on it.

    Attributes:
        at: What it says.
        pending: "asked" if its step's question is open, "failed" if its step failed, else "".
        answer: The answer that a failed step got; a tuple of one, or none.
        inputs: Where the inputs came in that led here: the ids of the checkpoints before them; "" for none.
    """

    at: Position
    pending: str = ""
    answer: tuple[Any, ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def bare(self) -> Kept:
        """Without what hangs on it."""
        return Kept(self.at, inputs=self.inputs)

    @property
    def status(self) -> str:
        """What the index of threads says of it."""
        standing = {"asked": "waiting", "failed": "failed", "": "unfinished"}
        return standing[self.pending] if self.at.next else "done"

    @property
    def asks(self) -> bool:
        """Whether its step asks something, which is what inputs with a question mark are for."""
        return self.at.next == "ask" and self.at.log[-1].endswith("?")


@dataclass
class Told:
    """What the model knows of a thread: its checkpoints in the order of their ids."""

    kept: dict[str, Kept] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)
    is_cut: bool = False

    @property
    def head_id(self) -> str:
        return list(self.kept)[-1]

    @property
    def head(self) -> Kept:
        return self.kept[self.head_id]

    def stand(self, head: Kept) -> None:
        """Change what hangs on the newest checkpoint."""
        self.kept[self.head_id] = head


Fault = tuple[str, str] | None


def walk(start: Kept, fault: Fault, answer: tuple[Any, ...]) -> tuple[list[Kept], Kept, str]:
    """What a run does that goes on from a checkpoint.

    Returns:
        The checkpoints that it makes, what hangs on the last one (or on the first, if it makes none), and how it ends:
        "done", "asked", "failure" or "crash".
    """
    made: list[Kept] = []
    at = start
    while at.at.next:
        log, step = at.at.log, at.at.next
        given = answer or at.answer
        if at.asks and not given:
            return made, replace(at, pending="asked"), "asked"
        if fault == (step, "crash"):
            return made, at, "crash"
        if fault == (step, "failure"):
            return made, replace(at, pending="failed", answer=given if at.asks else ()), "failure"
        answer = () if step == "ask" else answer
        match step:
            case "__start__":
                reached = Position((*log, at.at.given), "note")
            case "note":
                reached = Position((*log, f"noted {log[-1]}"), "ask")
            case "ask":
                said = f"answered {given[0]!r}" if log[-1].endswith("?") else "unasked"
                reached = Position((*log, said), "end")
            case _:
                reached = Position((*log, "ended"))
        at = Kept(reached, inputs=at.inputs)
        made.append(at)
    return made, at, "done"


class Machine(RuleBasedStateMachine):
    """Acts on threads of one agent, and what must come of each."""

    url: str

    @cached_property
    def options(self) -> dict[str, Any]:
        """Of the saver, so that nobody else sees what is kept."""
        return {}

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.fault: Fault = None
        self.dead = False
        self.told: dict[str, Told] = {}
        self.saver = self.opened()
        self.agent = self.built()

    def teardown(self) -> None:
        self.agent.close()
        assert self.saver.verify() == []
        self.saver.close()
        self.folder.cleanup()

    def opened(self) -> PetalSaver:
        saver = open_checkpointer(self.url.format(folder=self.folder.name), **self.options)
        assert isinstance(saver, PetalSaver)
        commit = saver._engine.store.commit

        def commit_unless_dead(saves: Sequence[Any]) -> None:
            # A release of the thread is let through: that the killed are noticed is tested with processes.
            if self.dead and any(save.checkpoint is not None or save.writes for save in saves):
                raise CrashError
            commit(saves)

        saver._engine.store.commit = commit_unless_dead  # type: ignore[method-assign]
        return saver

    def built(self) -> Agent:
        def note(state: Log) -> Log:
            self.reach("note")
            return {"log": [f"noted {state['log'][-1]}"]}

        def ask(state: Log) -> Log:
            said = f"answered {interrupt('Really?')!r}" if state["log"][-1].endswith("?") else "unasked"
            self.reach("ask")
            return {"log": [said]}

        def end(state: Log) -> Log:
            self.reach("end")
            return {"log": ["ended"]}

        return AgentFactory(Log).add(note).add(ask).add(end).with_checkpointer(self.saver).build()

    def reach(self, step: str) -> None:
        if self.fault == (step, "failure"):
            raise FailureError
        if self.fault == (step, "crash"):
            self.dead = True
            raise CrashError

    def runs(
        self,
        name: str,
        start: Kept,
        fault: Fault,
        act: Callable[[Thread], Any],
        *,
        came: Sequence[Kept] = (),
        answer: tuple[Any, ...] = (),
    ) -> None:
        """An act that runs the agent from where the model says, and ends as it says.

        Args:
            name: The thread.
            start: What the run begins with.
            fault: What goes wrong.
            act: The act.
            came: The checkpoints that are made before the run.
            answer: The answer that is given.
        """
        made, last, ending = walk(start, fault, answer)
        self.fault = fault
        thread = self.agent.thread(name)
        match ending:
            case "crash":
                with pytest.raises(CrashError):
                    act(thread)
                self.reopen()
            case "failure":
                with pytest.raises(FailureError):
                    act(thread)
            case "asked":
                assert [question.value for question in act(thread)["__interrupt__"]] == ["Really?"]
            case _:
                assert tuple(act(thread)["log"]) == last.at.log
        self.fault = None
        self.see(name, [*came, *made])
        if came or made or ending != "crash":
            self.told[name].stand(last)

    def see(self, name: str, new: Sequence[Kept]) -> None:
        """Reads a thread's checkpoints: those known are as they were, and new are these, in their order."""
        told = self.told.setdefault(name, Told())
        found = self.read(name)
        unknown = [id for id in found if id not in told.kept]
        assert list(found) == [*told.kept, *unknown]
        told.kept |= dict(zip(unknown, new, strict=True))
        assert list(found.values()) == [kept.at.told for kept in told.kept.values()]

    def read(self, name: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """What a thread's history says, by id, oldest first."""
        read = {}
        for snapshot in reversed(self.agent.thread(name).history()):
            read[id_of(snapshot.config)] = (tuple(snapshot.values.get("log", ())), snapshot.next)
            if snapshot.parent_config is not None and name in self.told:
                self.told[name].followed.add(id_of(snapshot.parent_config))
        assert list(read) == sorted(read)
        return read

    @initialize(word=WORDS, fault=FAULTS)
    def begin(self, word: str, fault: Fault) -> None:
        """So that not every act is refused."""
        self.say("a", word, fault, abandon=False)

    @rule(name=NAMES, word=WORDS, fault=FAULTS, abandon=st.booleans())
    def say(self, name: str, word: str, fault: Fault, abandon: bool) -> None:
        """New input is taken, unless a question is open and it is not to be given up."""
        head = self.told[name].head if name in self.told else Kept(Position())
        given, policy = {"log": [word]}, "abandon" if abandon else "error"
        if head.pending == "asked" and not abandon:
            with pytest.raises(PendingInterruptError):
                self.agent.thread(name).invoke(given)
        else:
            before = self.told[name].head_id if name in self.told else ""
            start = Kept(Position(head.at.log, ENTRY, word), inputs=(*head.inputs, before))
            self.runs(name, start, fault, lambda thread: thread.invoke(given, on_pending=policy), came=[start])

    @rule(name=NAMES, value=ANSWERS, by_id=st.booleans(), fault=FAULTS)
    def answer(self, name: str, value: Any, by_id: bool, fault: Fault) -> None:
        """An answer goes to the open question; where none is open it is refused."""
        thread = self.agent.thread(name)
        if name not in self.told:
            with pytest.raises(UnknownThreadError):
                thread.resume(value)
        elif self.told[name].head.pending != "asked":
            with pytest.raises(NothingToResumeError):
                thread.resume(value)
        else:
            id = thread.interrupts()[0].id if by_id else None
            start = replace(self.told[name].head, pending="")
            self.runs(name, start, fault, lambda thread: thread.resume(value, id), answer=(value,))

    @rule(name=NAMES)
    def answer_wrongly(self, name: str) -> None:
        """An answer to a question that the thread never asked is refused."""
        with pytest.raises(UnknownInterruptError if name in self.told else UnknownThreadError):
            self.agent.thread(name).resume("yes", "0" * 32)

    @rule(name=NAMES, fault=FAULTS)
    def go_on(self, name: str, fault: Fault) -> None:
        """An unfinished run goes on, unless there is none, or a question is to be answered first."""
        refused: type[Exception] | None = None
        if name not in self.told:
            refused = UnknownThreadError
        elif self.told[name].head.pending == "asked":
            refused = InterruptIdRequiredError
        elif not self.told[name].head.at.next:
            refused = NothingToResumeError
        if refused is not None:
            with pytest.raises(refused):
                self.agent.thread(name).resume()
        else:
            self.runs(name, self.told[name].head, fault, lambda thread: thread.resume())

    @rule(name=NAMES, number=st.integers(0, 99), to=NAMES)
    def fork(self, name: str, number: int, to: str) -> None:
        """A new thread begins where this one was; what hangs on a checkpoint comes along if nothing followed it."""
        thread = self.agent.thread(name)
        if name not in self.told:
            with pytest.raises(CheckpointNotFoundError):
                thread.fork(to=to)
            return
        told = self.told[name]
        id = list(told.kept)[number % len(told.kept)]
        if to in self.told:
            with pytest.raises(CheckpointerError):
                thread.fork(id, to)
            return
        thread.fork(id, to)
        kept = told.kept[id]
        if id in told.followed:
            kept = kept.bare
        found = self.read(to)
        assert found == {known: told.kept[known].at.told for known in found}
        self.told[to] = Told(
            {known: told.kept[known] for known in found} | {id: kept}, told.followed - {id}, told.is_cut
        )
        assert list(found)[-1] == id

    @rule(name=NAMES, to=NAMES)
    def copy(self, name: str, to: str) -> None:
        """A copy has all that its source has, and goes its own way."""
        if name not in self.told or to in self.told:
            with pytest.raises(CheckpointerError):
                self.agent.thread(name).copy(to)
        else:
            self.agent.thread(name).copy(to)
            self.told[to] = Told(dict(self.told[name].kept), set(self.told[name].followed), self.told[name].is_cut)
            self.see(to, [])

    @rule(name=NAMES, number=st.integers(0, 99))
    def rewind(self, name: str, number: int) -> None:
        """An earlier state is the latest one again, and what came after is still told of."""
        thread = self.agent.thread(name)
        if name not in self.told:
            with pytest.raises(CheckpointNotFoundError):
                thread.rewind()
            return
        target = list(self.told[name].kept)[number % len(self.told[name].kept)]
        thread.rewind(to=target)
        self.see(name, [self.told[name].kept[target].bare])

    @rule(name=NAMES, turns=st.integers(1, 4))
    def rewind_turns(self, name: str, turns: int) -> None:
        """The state from before the last inputs is the latest one again."""
        told = self.told.get(name, Told())
        if told.is_cut:
            return
        inputs = told.head.inputs if told.kept else ()
        target = inputs[-turns] if turns <= len(inputs) else ""
        if target:
            self.agent.thread(name).rewind(turns)
            self.see(name, [told.kept[target].bare])
        else:
            with pytest.raises(CheckpointNotFoundError):
                self.agent.thread(name).rewind(turns)

    @rule(name=NAMES, number=st.integers(0, 99), word=WORDS, fault=FAULTS)
    def say_earlier(self, name: str, number: int, word: str, fault: Fault) -> None:
        """Input at a checkpoint begins a branch there, also while a question is open."""
        if name in self.told:
            kept = self.told[name].kept
            id = list(kept)[number % len(kept)]
            start = Kept(Position(kept[id].at.log, ENTRY, word), inputs=(*kept[id].inputs, id))
            self.runs(name, start, fault, lambda thread: thread.invoke({"log": [word]}, checkpoint_id=id), came=[start])

    @rule(name=NAMES, as_node=st.sampled_from(STEPS))
    def update(self, name: str, as_node: str) -> None:
        """An edit stands for a step: what is next comes after that one, and what was pending is given up."""
        if name in self.told and (head := self.told[name].head).at.next != ENTRY:
            self.agent.thread(name).update({"log": ["edit"]}, as_node=as_node)
            following = {"note": "ask", "ask": "end", "end": IDLE}[as_node]
            self.see(name, [Kept(Position((*head.at.log, "edit"), following), inputs=head.inputs)])

    @rule(name=NAMES, keep_last=st.none() | st.integers(1, 9))
    def prune(self, name: str, keep_last: int | None) -> None:
        """The past goes, and the thread goes on as before."""
        if keep_last is None:
            self.agent.thread(name).prune()
        else:
            self.agent.thread(name).prune(keep_last=keep_last)
        if name in self.told:
            told = self.told[name]
            found = self.read(name)
            assert list(told.kept)[-(keep_last or 1) :] == list(found)[-(keep_last or 1) :]
            told.is_cut = told.is_cut or len(found) < len(told.kept)
            told.kept = {id: kept for id, kept in told.kept.items() if id in found}
            self.see(name, [])

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """Nothing is left."""
        self.agent.thread(name).delete()
        self.told.pop(name, None)

    @rule()
    def reopen(self) -> None:
        """Another process takes over."""
        self.agent.close()
        if not self.url.startswith("memory"):
            self.saver.close()
            self.saver = self.opened()
        self.agent = self.built()
        self.dead = False

    @invariant()
    def threads_are_listed_as_they_stand(self) -> None:
        listed = {info.thread_id: (info.status, info.checkpoints) for info in self.saver.threads()}
        assert listed == {name: (told.head.status, len(told.kept)) for name, told in self.told.items()}

    @invariant()
    def open_questions_are_open(self) -> None:
        for name, told in self.told.items():
            asked = [question.value for question in self.agent.thread(name).interrupts()]
            assert asked == (["Really?"] if told.head.pending == "asked" else [])


def id_of(config: Any) -> str:
    return str(config["configurable"]["checkpoint_id"])


class OnSqlite(Machine):
    url = "sqlite:///{folder}/machine.db"


class InMemory(Machine):
    url = "memory://"


class OnPostgres(Machine):
    schemas = count()

    @cached_property
    def options(self) -> dict[str, Any]:
        return {"schema": f"machine_{next(self.schemas)}"}


@pytest.fixture
def on_postgres(postgres_url: str) -> None:
    OnPostgres.url = postgres_url


BRIEF = settings(max_examples=25, stateful_step_count=20, suppress_health_check=list(HealthCheck))
TestOnSqlite = OnSqlite.TestCase
TestOnSqlite.settings = BRIEF
TestInMemory = InMemory.TestCase
TestInMemory.settings = BRIEF
TestOnPostgres = pytest.mark.usefixtures("on_postgres")(OnPostgres.TestCase)
TestOnPostgres.settings = settings(BRIEF, max_examples=8)
