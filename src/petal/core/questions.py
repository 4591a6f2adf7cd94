"""What a thread asks: which of its questions are open, and which input fits them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count
from typing import Any, Final, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.errors import is_invalid_resume
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Interrupt
from pydantic import ValidationError

from petal.checkpoints.leniency import lenient
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import redacted
from petal.errors import (
    CheckpointNotFoundError,
    ClosedInterruptError,
    InterruptIdRequiredError,
    InvalidAnswerError,
    NothingToResumeError,
    PendingInterruptError,
    UnknownInterruptError,
    UnknownThreadError,
)

OnPending = Literal["error", "abandon"]

LONGEST = 100
"""Characters of a prompt or an answer that an error repeats."""
SEARCHED = 1000
"""Checkpoints of a thread's past in which an unknown question is looked for."""

_CONTROL = ("__interrupt__", "__resume__", "__error__", "__error_source_node__")
_NO_TASK = "00000000-0000-0000-0000-000000000000"
"""LangGraph's task id of what is meant for all tasks."""
_STARTS = ("branch:to:", "join:")
_SENT = "__pregel_tasks"
_ID = re.compile(r"[0-9a-f]{32}")


class Missing(Enum):
    """Tells an answer that was not given from the answer None."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Answer:
    """The input that answers open questions, or without a value goes on with an unfinished run."""

    value: Any = MISSING
    interrupt_id: str | None = None
    answers: Mapping[str, Any] | None = None

    @property
    def is_none(self) -> bool:
        """Whether it answers nothing, and only goes on with a run."""
        return self.value is MISSING and self.answers is None

    def by_id(self, questions: Sequence[Interrupt]) -> dict[str, Any] | None:
        """The answers by question id, if it is said or clear which one is answered.

        A dict of nothing but ids is several answers, as it is for LangGraph.
        """
        if self.answers is not None:
            return dict(self.answers)
        if self.value is MISSING:
            return None
        if self.interrupt_id is not None:
            return {self.interrupt_id: self.value}
        if isinstance(self.value, dict) and self.value and all(_ID.fullmatch(str(key)) for key in self.value):
            return self.value
        return {questions[0].id: self.value} if len(questions) == 1 else None


async def admitted(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    input: Any,
    on_pending: OnPending,
) -> Any:
    """What the graph is to be given for an input, if its thread takes that one now.

    Raises:
        PendingInterruptError: If it is new input while a question is open, and `on_pending` is `"error"`.
        ResumeError: If it answers no open question; see `Thread.aresume`.
        ValueError: If `on_pending` is neither `"error"` nor `"abandon"`.
    """
    if on_pending not in ("error", "abandon"):
        raise ValueError(f"on_pending is 'error' or 'abandon', not {on_pending!r}.")
    thread_id: str = config["configurable"]["thread_id"]
    checkpoint_id: str | None = config["configurable"].get("checkpoint_id")
    match input:
        case Answer():
            answers = await _fitting(graph, saver, input, thread_id, checkpoint_id)
            return None if answers is None else Command(resume=answers)
        case Command() if input.resume is not None:
            return replace(input, resume=await _fitting(graph, saver, Answer(input.resume), thread_id, checkpoint_id))
        case None | Command():
            return input
        case _:
            # A run that names a checkpoint begins a branch there: what the head asks stays open.
            if on_pending == "error" and checkpoint_id is None:
                pending = await open_questions(saver, thread_id)
                if pending:
                    raise PendingInterruptError(thread_id, _listed(pending))
            return input


async def open_questions(
    saver: BaseCheckpointSaver[Any], thread_id: str, checkpoint_id: str | None = None
) -> list[Interrupt]:
    """The questions of a thread, or of one of its checkpoints, that wait for an answer.

    LangGraph counts one as open until its step has ended. Here it is closed once its answer is kept: the step goes on
    with that one, and a second answer would go to the step's next question.
    """
    kept = await saver.aget_tuple(_config(thread_id, "", checkpoint_id))
    return [] if kept is None else await _open(saver, kept)


async def has_failed(saver: PetalSaver, thread_id: str, checkpoint_id: str) -> bool:
    """Whether a step has raised at a checkpoint and no question is open there.

    What cannot be made of values is passed over.
    """
    saver = lenient(saver)
    kept = await saver.aget_tuple(_config(thread_id, "", checkpoint_id))
    return kept is not None and bool(failures(kept)) and not await _open(saver, kept)


def failures(kept: CheckpointTuple, questions: Sequence[Interrupt] = ()) -> list[Any]:
    """What tasks of a checkpoint's next superstep raised that have no result since.

    Args:
        kept: The checkpoint.
        questions: The open ones. A task that asks one of them has not failed: it refused an answer, and asks again.
    """
    asked = {question.id for question in questions}
    failed = [task for task in _tasks(kept) if not (task.finished or asked & {one.id for one in task.questions})]
    return [error for task in failed for error in task.errors]


@contextmanager
def refusals(input: Any) -> Iterator[None]:
    """Turns the refusal of an answer by its question into an InvalidAnswerError."""
    try:
        yield
    except ValidationError as error:
        if not (isinstance(input, Command) and isinstance(input.resume, dict) and is_invalid_resume(error)):
            raise
        answers = [_shortened(repr(value)) for value in input.resume.values()]
        problems = [mistake["msg"].removeprefix("Value error, ") for mistake in error.errors(include_url=False)]
        raise InvalidAnswerError(" or ".join(answers), "; ".join(problems)) from None


async def _fitting(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    saver: BaseCheckpointSaver[Any],
    answer: Answer,
    thread_id: str,
    checkpoint_id: str | None,
) -> dict[str, Any] | None:
    """The answers by question id; None if nothing is asked and there is a run to go on with."""
    config = _config(thread_id, "", checkpoint_id)
    kept = await saver.aget_tuple(config)
    if kept is None:
        if checkpoint_id is None:
            raise UnknownThreadError(thread_id)
        raise CheckpointNotFoundError(thread_id, checkpoint_id)
    questions = await _open(saver, kept)
    answers = answer.by_id(questions)
    for id in answers or ():
        if id not in [question.id for question in questions]:
            raise await _misdirected(saver, thread_id, id, questions)
    if answers:
        return answers
    if questions:
        raise InterruptIdRequiredError(thread_id, _listed(questions))
    # Not `next`, which leaves out the steps whose results are kept: the next checkpoint may still be missing.
    is_unfinished = bool((await graph.aget_state(config)).tasks)
    if is_unfinished and answers is None and answer.value is MISSING:
        return None
    raise NothingToResumeError(thread_id, is_unfinished)


async def _misdirected(
    saver: BaseCheckpointSaver[Any], thread_id: str, id: str, questions: Sequence[Interrupt]
) -> UnknownInterruptError:
    """What to say of an answer to a question that is not open."""
    was_asked = False
    async for kept in saver.alist({"configurable": {"thread_id": thread_id}}, limit=SEARCHED):
        for task in _tasks(kept):
            asked = id in [question.id for question in task.questions]
            if id in task.answered or (asked and task.finished):
                return ClosedInterruptError(thread_id, id, _listed(questions), answered=True)
            was_asked = was_asked or asked
    if was_asked:
        return ClosedInterruptError(thread_id, id, _listed(questions), answered=False)
    return UnknownInterruptError(thread_id, id, _listed(questions))


async def _open(saver: BaseCheckpointSaver[Any], kept: CheckpointTuple) -> list[Interrupt]:
    asked = [question for task in _tasks(kept) if not task.finished for question in task.questions]
    answered = await _answered(saver, kept) if asked else set()
    # A call within a step asks under its own name and under that of its step.
    return list({question.id: question for question in asked if question.id not in answered}.values())


async def _answered(saver: BaseCheckpointSaver[Any], kept: CheckpointTuple) -> set[str]:
    """The questions whose answers are kept, although the step has not ended: in it, or in the graphs within it."""
    ids = set[str]()
    for task in _tasks(kept):
        if task.finished or task.failed:
            ids |= task.answered
        if any(question.id not in task.own for question in task.questions):
            async for inner in _within(saver, kept, task):
                ids |= await _answered(saver, inner)
    return ids


async def _within(
    saver: BaseCheckpointSaver[Any], kept: CheckpointTuple, task: _Task
) -> AsyncIterator[CheckpointTuple]:
    """The checkpoints of the graphs that a task ran: the first under its own namespace, others with a number.

    Those of a graph that keeps a state of its own are under the names alone, with those of its other calls.
    """
    place = kept.config["configurable"]
    for space in task.namespaces:
        for number in count():
            namespace = f"{space}|{number}" if number else space
            found = False
            async for inner in saver.alist(_config(place["thread_id"], namespace)):
                found = True
                yield inner
            if not found:
                break
        async for inner in saver.alist(_config(place["thread_id"], _names(space)), limit=SEARCHED):
            if (inner.metadata.get("parents") or {}).get(place.get("checkpoint_ns", "")) == kept.checkpoint["id"]:
                yield inner


def _names(namespace: str) -> str:
    """A namespace without the ids of its tasks."""
    return "|".join(part.partition(":")[0] for part in namespace.split("|"))


@dataclass(frozen=True, slots=True)
class _Task:
    """What is kept of one task of a superstep."""

    namespaces: Sequence[str]
    """Those that it may have: a checkpoint keeps which tasks ran, but not of which of its next steps they are."""
    writes: Sequence[tuple[str, Any]]

    @property
    def questions(self) -> list[Interrupt]:
        """Those that it asked last, itself or in a graph within it."""
        return [asked for value in self._all("__interrupt__") for asked in _many(value)]

    @property
    def answered(self) -> set[str]:
        """The ids of its own questions that have an answer."""
        return self._ids(self._answers)

    @property
    def own(self) -> set[str]:
        """The ids of questions that are its own, not those of a graph within it."""
        return self._ids(self._answers + 1)

    @property
    def failed(self) -> bool:
        """Whether it failed, or its run was stopped."""
        return bool(self.errors)

    @property
    def errors(self) -> list[Any]:
        """What it raised."""
        return self._all("__error__")

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return any(channel not in _CONTROL for channel, _ in self.writes)

    @property
    def _answers(self) -> int:
        return sum(len(_many(value)) for value in self._all("__resume__"))

    def _ids(self, count: int) -> set[str]:
        """Those of its first questions: LangGraph makes them of the namespace and how many were answered before."""
        return {
            Interrupt.from_ns(None, f"{space}|{number}" if number else space).id
            for space in self.namespaces
            for number in range(count)
        }

    def _all(self, wanted: str) -> list[Any]:
        return [value for channel, value in self.writes if channel == wanted]


def _tasks(kept: CheckpointTuple) -> list[_Task]:
    """The tasks of a checkpoint's next superstep that have begun."""
    outer = kept.config["configurable"].get("checkpoint_ns", "")
    writes: dict[str, list[tuple[str, Any]]] = {}
    for task_id, channel, value in kept.pending_writes or ():
        if task_id != _NO_TASK:
            writes.setdefault(task_id, []).append((channel, value))
    steps = _next_steps(kept)
    return [
        _Task([f"{outer}|{step}:{id}" if outer else f"{step}:{id}" for step in steps], found)
        for id, found in writes.items()
    ]


def _next_steps(kept: CheckpointTuple) -> set[str]:
    """Names among which those of the next steps are."""
    started = [name for name in kept.checkpoint["channel_versions"] if name.startswith(_STARTS)]
    sent = kept.checkpoint["channel_values"].get(_SENT) or ()
    return {*(name.rpartition(":")[2] for name in started), *(task.node for task in sent)}


def _many(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _config(thread_id: str, namespace: str, checkpoint_id: str | None = None) -> RunnableConfig:
    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, **named}}


def _listed(questions: Sequence[Interrupt]) -> list[tuple[str, str]]:
    return [(question.id, _prompt(question.value)) for question in questions]


def _prompt(value: Any) -> str:
    """What is asked, in words where there are some, on one line and without a password."""
    if isinstance(value, Mapping) and isinstance(value.get("question"), str):
        value = value["question"]
    return _shortened(value if isinstance(value, str) else repr(value))


def _shortened(text: str) -> str:
    line = redacted(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
