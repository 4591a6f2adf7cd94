"""Runs that died: which threads they left incomplete, and how these are taken up again, so often and no more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import anyio
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from petal.checkpoints.leniency import lenient
from petal.checkpoints.notes import RECOVERY, Note, anotes, aput_note
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.threads import OF_INPUT
from petal.core.config.checkpointer import redacted
from petal.core.continuity import heads, next_steps
from petal.core.inputs import left_input_id
from petal.core.questions import Answer, failures, open_questions
from petal.core.shapes import agent_of
from petal.core.turns import is_running
from petal.errors import CheckpointConflictError, CheckpointCorruptionError, CheckpointerUnavailableError, words_of

if TYPE_CHECKING:
    from petal.core.agent import Agent

ATTEMPTS = 3
"""How often a run is taken up again, unless said."""
KILLED = "its process ended while it ran"

_PAGE = 500


@dataclass(frozen=True, slots=True)
class IncompleteRun:
    """A thread whose run died.

    Attributes:
        thread_id: The thread.
        status: `"interrupted"`: it was cut off; `"failed"`: a step raised; `"dead"`: it was taken up again as often as
            allowed, and died each time.
        since: When its newest checkpoint was made, in UTC; None if there is none, or it cannot be read.
        attempts: How often it was taken up again since its input, or since it last was whole; what was stopped does not
            count.
        error: What it died of last; None where its process ended without a word.
        head: Its newest checkpoint; "" if it has none.
        input_id: Where its input lies, if it died before its first checkpoint; None else.
    """

    thread_id: str
    status: Literal["interrupted", "failed", "dead"]
    since: datetime | None
    attempts: int
    error: str | None
    head: str
    input_id: str | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of one attempt to go on with a thread.

    Attributes:
        thread_id: The thread.
        outcome: `"done"`; `"waiting"`: it asked something; `"failed"`: it died again; `"dead"`: it did so for the last
            time, or had before; `"held"`: another run has it, here or elsewhere; `"whole"`: another one finished it.
        attempts: How often it was taken up again, this time included.
        error: What it died of.
    """

    thread_id: str
    outcome: Literal["done", "waiting", "failed", "dead", "held", "whole"]
    attempts: int = 0
    error: str | None = None


class PassedOver(Exception):
    """A thread that has no run to be taken up, or not any more.

    Args:
        run: The run, if it is dead; None if there is none.
    """

    def __init__(self, run: IncompleteRun | None) -> None:
        super().__init__(run)
        self.run = run


@dataclass(frozen=True, slots=True)
class Attempt(Answer):
    """The input that takes up a run that died, and is counted.

    Attributes:
        limit: At most so many attempts.
        again: Whether a dead one is to begin counting anew.
        keys: Those of the notes of attempts that were begun.
    """

    limit: int = ATTEMPTS
    again: bool = False
    keys: list[str] = field(default_factory=list)

    async def begin(self, saver: BaseCheckpointSaver[Any], config: RunnableConfig) -> None:
        """Note the attempt, once the run has the thread; it is durable when this returns, so a kill counts too.

        Raises:
            PassedOver: If there is nothing to take up, or it was often enough.
        """
        thread_id = str(config["configurable"]["thread_id"])
        run = await _read(saver, thread_id)
        if run is None or (run.status == "dead" and not self.again):
            raise PassedOver(run)
        place: RunnableConfig = {
            "configurable": {**config["configurable"], "checkpoint_ns": "", "checkpoint_id": run.head}
        }
        of = {} if run.input_id is None else {"input": run.input_id}
        if not self.again and run.attempts >= self.limit:
            # More were allowed before than are now.
            await _note(saver, place, {"act": "limit", "of": self.limit, **of})
            raise PassedOver(await _read(saver, thread_id))
        if self.again:
            await _note(saver, place, {"act": "again", **of})
        self.keys.append(await _note(saver, place, {"act": "attempt", "of": self.limit, **of}))


async def incomplete(agent: Agent, thread_id: str | None = None) -> AsyncIterator[IncompleteRun]:
    """The threads of an agent whose run died and that no run has now.

    Args:
        agent: The agent. Of a database that several share, those count that it wrote, and those that do not say.
        thread_id: Only this thread, whichever agent wrote it.
    """
    saver = agent.checkpointer
    assert saver is not None, "an agent without one has no threads"
    async for id in _candidates(saver, thread_id):
        try:
            kept = await _head(saver, id)
        except CheckpointCorruptionError as error:
            yield IncompleteRun(id, "failed", None, 0, _said(error), "")
            continue
        if thread_id is None and kept is not None and agent_of(kept) not in (None, agent.name):
            continue
        run = await standing(saver, id, kept)
        if run is not None and not await is_running(saver, id):
            yield run


async def recovered(
    agent: Agent, attempts: int = ATTEMPTS, thread_id: str | None = None, *, again: bool = False
) -> AsyncGenerator[Recovery, None]:
    """Take up each run that died until it is whole, or has been so often; tells of each attempt.

    Threads that had the fewest attempts come first, of these the oldest: so one that kills its process does not keep
    others back.

    Args:
        agent: The agent.
        attempts: How often each is taken up at most.
        thread_id: Only this thread.
        again: Also those that were given up.
    """
    if attempts < 1:
        raise ValueError(f"A run is taken up at least once, not {attempts} times.")
    await agent.aopen()
    saver = agent.checkpointer
    assert saver is not None, "an agent without one has no threads"
    runs = sorted([run async for run in incomplete(agent, thread_id)], key=_first_to_be_helped)
    for run in runs:
        if run.status == "dead" and not again:
            yield Recovery(run.thread_id, "dead", run.attempts, run.error)
    queue = deque((run.thread_id, again) for run in runs if again or run.status != "dead")
    before: dict[str, int] = {}
    while queue:
        id, anew = queue.popleft()
        told = await _taken_up(agent, id, Attempt(limit=attempts, again=anew))
        yield told
        if told.outcome == "failed" and told.attempts > before.get(id, 0):
            before[id] = told.attempts
            queue.append((id, False))
        elif told.outcome == "done" and await left_input_id(saver, id) is not None:
            before[id] = 0
            queue.append((id, False))


async def standing(
    saver: BaseCheckpointSaver[Any], thread_id: str, kept: CheckpointTuple | None
) -> IncompleteRun | None:
    """How the run stands that a thread had last; None if it is done, or waits for an answer.

    Args:
        saver: Keeps the thread.
        thread_id: The thread.
        kept: Its newest checkpoint.
    """
    input_id, errors = None, list[str]()
    if kept is None or not _goes_on(kept):
        if (input_id := await left_input_id(saver, thread_id)) is None:
            return None
    elif await open_questions(_looking(saver), thread_id):
        return None
    else:
        errors = [_said(error) for error in failures(kept)]
    status: Literal["interrupted", "failed", "dead"] = "failed" if errors else "interrupted"
    attempts, limit, error = _counted(await _notes_of_run(saver, thread_id, kept, input_id))
    if limit is not None and attempts >= limit:
        status = "dead"
        error = error or KILLED
    error = error or (errors[-1] if errors else None)
    if kept is None:
        return IncompleteRun(thread_id, status, None, attempts, error, "", input_id)
    since, head = datetime.fromisoformat(kept.checkpoint["ts"]), str(kept.config["configurable"]["checkpoint_id"])
    return IncompleteRun(thread_id, status, since, attempts, error, head, input_id)


def _goes_on(kept: CheckpointTuple) -> bool:
    return "__start__" in kept.checkpoint["channel_values"] or any(True for _ in next_steps(kept))


def _first_to_be_helped(run: IncompleteRun) -> tuple[int, float]:
    return run.attempts, 0.0 if run.since is None else run.since.timestamp()


async def _taken_up(agent: Agent, thread_id: str, attempt: Attempt) -> Recovery:
    saver = agent.checkpointer
    assert saver is not None, "an agent without one has no threads"
    try:
        await agent.ainvoke(attempt, thread_id=thread_id, on_conflict="reject")
    except PassedOver as passed:
        if passed.run is None:
            return Recovery(thread_id, "whole")
        return Recovery(thread_id, "dead", passed.run.attempts, passed.run.error)
    except CheckpointConflictError:
        return Recovery(thread_id, "held")
    except CheckpointerUnavailableError:
        raise
    except Exception as error:
        return await _failed(saver, thread_id, attempt, _said(error))
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await _end(saver, await _head(saver, thread_id), attempt, {"act": "stopped"})
        raise
    kept = await _head(saver, thread_id)
    assert kept is not None, "it was just run"
    attempts, _, _ = _counted(await _notes_of_run(saver, thread_id, kept))
    await _note(saver, kept.config, {"act": "whole"})
    asks = bool(await agent.thread(thread_id).ainterrupts())
    return Recovery(thread_id, "waiting" if asks else "done", attempts)


async def _failed(saver: BaseCheckpointSaver[Any], thread_id: str, attempt: Attempt, error: str) -> Recovery:
    try:
        kept = await _head(saver, thread_id)
    except CheckpointCorruptionError:
        return Recovery(thread_id, "failed", 0, error)
    if kept is None:
        return Recovery(thread_id, "failed", 0, error)
    attempts, limit, _ = _counted(await _notes_of_run(saver, thread_id, kept))
    await _end(saver, kept, attempt, {"act": "failed", "error": error})
    is_dead = limit is not None and attempts >= limit
    return Recovery(thread_id, "dead" if is_dead else "failed", attempts, error)


async def _candidates(saver: BaseCheckpointSaver[Any], thread_id: str | None) -> AsyncIterator[str]:
    if thread_id is not None:
        yield thread_id
        return
    if not isinstance(saver, PetalSaver):
        async for id, _ in heads(saver):
            yield id
        return
    for status in ("unfinished", "failed"):
        before = None
        while page := await saver.athreads(_PAGE, before, status=status):
            for info in page:
                yield info.thread_id
            before = page[-1]


_DIGITS = 6


async def _note(saver: BaseCheckpointSaver[Any], place: RunnableConfig, value: dict[str, Any]) -> str:
    """Keep a note behind all others of the thread; its key."""
    known = await anotes(saver, str(place["configurable"]["thread_id"]), RECOVERY)
    number = 1 + max((int(note.key[:_DIGITS]) for note in known), default=0)
    key = f"{number:0{_DIGITS}d}"
    await aput_note(saver, place, RECOVERY, value, key)
    return key


async def _end(
    saver: BaseCheckpointSaver[Any], kept: CheckpointTuple | None, attempt: Attempt, value: dict[str, Any]
) -> None:
    """Keep a note of how an attempt ended, directly behind it: the next one may have begun elsewhere."""
    if kept is not None and attempt.keys:
        await aput_note(saver, kept.config, RECOVERY, value, f"{attempt.keys[-1]}.end")


async def _notes_of_run(
    saver: BaseCheckpointSaver[Any], thread_id: str, kept: CheckpointTuple | None, input_id: str | None = None
) -> list[Note]:
    """What was noted since the input of a run, or since it last asked something, in order.

    Args:
        saver: Keeps the thread.
        thread_id: The thread.
        kept: The newest checkpoint of the run, or the one before it.
        input_id: The input, if the run has saved no checkpoint yet.
    """
    notes = await anotes(saver, thread_id, RECOVERY, ns="")
    if input_id is not None:
        return [note for note in notes if note.value.get("input") == input_id]
    # Attempts at a run that had saved nothing yet are noted on what was there before it.
    wanted = {str(note.value.get("input", note.checkpoint_id)) for note in notes}
    passed = set[str]()
    at = kept
    while at is not None and wanted - passed:
        if at is not kept and any(channel == "__interrupt__" for _, channel, _ in at.pending_writes or ()):
            break
        metadata: Mapping[str, Any] = at.metadata or {}
        passed |= {str(at.config["configurable"]["checkpoint_id"]), str(metadata.get(OF_INPUT))}
        if at.parent_config is None or metadata.get("source") == "input":
            break
        at = await _looking(saver).aget_tuple(at.parent_config)
    found = [note for note in notes if note.value.get("input", note.checkpoint_id) in passed]
    return sorted(found, key=lambda note: note.key)


def _counted(notes: Sequence[Note]) -> tuple[int, int | None, str | None]:
    """How many attempts were made, how many were allowed at the last one, and what it died of."""
    attempts, limit, error = 0, None, None
    for note in notes:
        match note.value["act"]:
            case "attempt":
                attempts, limit, error = attempts + 1, note.value["of"], None
            case "stopped":
                attempts -= 1
            case "failed":
                error = note.value["error"]
            case "limit":
                limit = note.value["of"]
            case _:
                attempts, limit, error = 0, None, None
    return attempts, limit, error


async def _read(saver: BaseCheckpointSaver[Any], thread_id: str) -> IncompleteRun | None:
    return await standing(saver, thread_id, await _head(saver, thread_id))


async def _head(saver: BaseCheckpointSaver[Any], thread_id: str) -> CheckpointTuple | None:
    return await _looking(saver).aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})


def _looking(saver: BaseCheckpointSaver[Any]) -> BaseCheckpointSaver[Any]:
    """The saver, to which a value of a type that is gone is no obstacle."""
    return lenient(saver) if isinstance(saver, PetalSaver) else saver


def _said(error: Any) -> str:
    """An error in one line without passwords."""
    text = f"{type(error).__name__}: {words_of(error)}" if isinstance(error, BaseException) else str(error)
    return redacted(" ".join(text.split()))
