"""The task of a graph in which code runs: where its effects are recorded, and how far it has come."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import interrupt

from petal.checkpoints.notes import EFFECT, Note, anotes_at, aput_note, notes_at, put_note
from petal.checkpoints.rows import Namespace
from petal.checkpoints.saver import PetalSaver
from petal.core.effects.records import Effect, Identity, Kind, digest, effects
from petal.core.versions import VersionedSaver

REPLAY, DRY = "__petal_replay", "dry"
"""In `configurable`: how a run comes by its effects; dry is from the record alone."""

_PAUSE = 0.001
"""Seconds between two looks at a checkpoint that is being saved."""


@dataclass(slots=True)
class Running:
    """An effect that is under way.

    Attributes:
        task_id: The task that it belongs to; None outside of graphs.
        key: Its idempotency key.
        identity: Which one it is; None outside of graphs.
        around: The one within which it runs.
        asked: How many questions it came by so far.
        is_given_up: Whether nobody waits for it any more, so that what it does within is not wanted either.
    """

    task_id: str | None
    key: str
    identity: Identity | None = None
    around: Running | None = None
    asked: int = 0
    is_given_up: bool = False


running: ContextVar[Running | None] = ContextVar("petal_effect", default=None)
"""The innermost effect that the caller is in."""


@dataclass(slots=True)
class Book:
    """What one execution of a task knows of its effects.

    Attributes:
        effects: Those that its checkpoint told of when they were first asked for, by identity; None before that.
        is_kept: Whether that checkpoint is on disk, so that effects can be recorded on it.
        settled: What was decided of effects before they run.
        counts: How often each name was called.
        under_way: For each tool call of an event loop, whether it has ended.
        is_given_up: Whether nobody waits for the execution any more, though a thread of it may go on.
    """

    effects: dict[Identity, Effect] | None = None
    is_kept: bool = False
    settled: dict[Identity, Any] = field(default_factory=dict)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    under_way: list[asyncio.Event] = field(default_factory=list)
    is_given_up: bool = False


class Questions:
    """Stands for LangGraph's count of the questions of one execution of a task, and tells the effects they are of.

    It lives as long as the execution, so it also holds the book.

    Args:
        counter: LangGraph's.
        task_id: The task.
    """

    def __init__(self, counter: Any, task_id: str) -> None:
        self.counter, self.task_id = counter, task_id
        self.book = Book()

    def __call__(self) -> int:
        here = running.get()
        while here is not None:
            here.asked += here.task_id == self.task_id
            here = here.around
        return int(self.counter())

    @property
    def asked(self) -> int:
        """How many there were."""
        count = self.counter._counter
        return 0 if count is None else int(repr(count.__self__).removeprefix("count(").removesuffix(")"))


_installing = threading.Lock()


class Task:
    """The task in which the caller runs.

    Args:
        config: The config that LangGraph gave the task.
    """

    def __init__(self, config: RunnableConfig) -> None:
        told: Mapping[str, Any] = config["configurable"]
        self.id = str(told["__pregel_task_id"])
        self._scratchpad = told["__pregel_scratchpad"]
        self._call = told.get("__pregel_call")
        saver = told.get("__pregel_checkpointer")
        saver = saver.inner if isinstance(saver, VersionedSaver) else saver
        self.saver: BaseCheckpointSaver[Any] | None = saver if isinstance(saver, BaseCheckpointSaver) else None
        self.is_dry = told.get(REPLAY) == DRY
        self.thread_id = str(told.get("thread_id", ""))
        around: Mapping[str, str] = told.get("checkpoint_map") or {}
        own = str(told.get("checkpoint_ns", ""))
        above = own.rpartition("|")[0]
        self.checkpoint_id = around.get(above, "")
        # A task that another one calls stands below it there, but both run from one checkpoint of one graph.
        self.ns = min((ns for ns, id in around.items() if id == self.checkpoint_id), key=len, default=above)
        self.root = around.get("", self.checkpoint_id)
        self.node = "|".join(part.partition(":")[0] for part in own.split("|"))
        self.place = str((config.get("metadata") or {}).get("langgraph_path", ""))
        kept = {key: value for key, value in told.items() if key.startswith("__petal")}
        self.config: RunnableConfig = {
            "configurable": {
                **kept,
                "thread_id": self.thread_id,
                "checkpoint_ns": self.ns,
                "checkpoint_id": self.checkpoint_id,
            }
        }

    @classmethod
    def current(cls) -> Task | None:
        """The task of the caller; None outside of a graph's nodes."""
        config = var_child_runnable_config.get()
        if not config or "__pregel_scratchpad" not in config.get("configurable", {}):
            return None
        return cls(config)

    @property
    def book(self) -> Book:
        """What this execution of the task knows."""
        return self._questions.book

    @property
    def _questions(self) -> Questions:
        with _installing:
            counter = self._scratchpad.interrupt_counter
            if not isinstance(counter, Questions):
                counter = Questions(counter, self.id)
                object.__setattr__(self._scratchpad, "interrupt_counter", counter)
            return counter

    def next_identity(self, kind: Kind, name: str, tool_call_id: str | None = None) -> Identity:
        """The identity of the next call of that name, in the effect that runs here if one does."""
        around = running.get()
        scope = around.identity.digest if around and around.identity and around.task_id == self.id else ""
        of = (scope, kind, name, tool_call_id or "")
        counts = self.book.counts
        counts[of] += 1
        return Identity(self.id, kind, name, "/".join(filter(None, (scope, tool_call_id, str(counts[of])))))

    def key_of(self, identity: Identity | None) -> str:
        """The idempotency key of an effect, or of the task itself."""
        told = None if identity is None else identity.digest
        return f"petal-{digest([self.thread_id, self.ns, self.id, told])}"

    def check_wanted(self) -> None:
        """See that somebody waits for what the caller does: threads go on when their step's time is over.

        Raises:
            CancelledError: If nobody does, as LangGraph raises it then.
        """
        here = running.get()
        given_up = self.book.is_given_up
        while here is not None:
            given_up = given_up or here.is_given_up
            here = here.around
        if given_up:
            raise asyncio.CancelledError

    def load(self) -> Book:
        """What is recorded of the task, read once an execution.

        Raises:
            RuntimeError: If the caller holds up the event loop that saves the checkpoint.
        """
        book = self.book
        if book.effects is None and self.saver is not None and self.checkpoint_id:
            while not self._is_settled():
                self._refuse_to_hold_up()
                time.sleep(_PAUSE)
            self._take_in(book, notes_at(self.saver, self.config, EFFECT))
        return book

    async def aload(self) -> Book:
        """As `load`."""
        book = self.book
        if book.effects is None and self.saver is not None and self.checkpoint_id:
            while not self._is_settled():  # noqa: ASYNC110 - what is waited for may be of another loop or of none
                await asyncio.sleep(_PAUSE)
            self._take_in(book, await anotes_at(self.saver, self.config, EFFECT))
        return book

    def put(self, value: Mapping[str, Any], key: str) -> None:
        """Record something; it is durable when this returns."""
        assert self.saver is not None, "only a book that is kept is written to"
        put_note(self.saver, self.config, EFFECT, value, key)

    async def aput(self, value: Mapping[str, Any], key: str) -> None:
        """As `put`."""
        assert self.saver is not None, "only a book that is kept is written to"
        await aput_note(self.saver, self.config, EFFECT, value, key)

    def pass_questions(self, number: int) -> None:
        """Take the answers to so many questions that were asked in what is not run again, as far as there are some.

        LangGraph tells answers apart by their order alone.
        """
        for _ in range(number):
            if len(self._scratchpad.resume) > self._questions.asked or self._has_new_answer():
                interrupt(None)

    def _has_new_answer(self) -> bool:
        return self._scratchpad.get_null_resume(False) is not None

    def _is_settled(self) -> bool:
        """Whether the checkpoint is on disk, or will not be; raises what kept it from that.

        Under the durability "async" a step may begin before its checkpoint is saved, and one behind an input always.
        """
        saving = self._saving
        if saving is not None:
            if not saving.done():
                return False
            if not saving.cancelled() and (error := saving.exception()) is not None:
                raise error
        return not isinstance(self.saver, PetalSaver) or self.saver.unsettled.has(
            Namespace(self.thread_id, self.ns), self.checkpoint_id
        )

    @property
    def _saving(self) -> Any:
        """What LangGraph's loop saves its latest checkpoint in; None if it has saved none."""
        call = _without_limit(self._call)
        loop = getattr((getattr(call, "keywords", None) or {}).get("schedule_task"), "__self__", None)
        return getattr(loop, "_put_checkpoint_fut", None)

    def _refuse_to_hold_up(self) -> None:
        saving = self._saving
        if isinstance(saving, asyncio.Future) and saving.get_loop() is asyncio._get_running_loop():
            raise RuntimeError(
                "The checkpoint of this step is being saved in the event loop that petal.step(…) would hold up; use "
                "`await petal.astep(…)` in async nodes."
            )

    def _take_in(self, book: Book, found: list[Note] | None) -> None:
        if book.effects is None:
            book.is_kept = found is not None
            book.effects = {one.identity: one for one in effects(found or ()) if one.identity.task_id == self.id}


def _without_limit(call: Any) -> Any:
    """LangGraph's way to call a task, of a step with a time limit without the function that stands around it."""
    while inspect.isfunction(call):
        call = inspect.getclosurevars(call).nonlocals.get("call")
    return call
