"""How an effect comes about: told from the record, asked about, or run and recorded; once for sync and async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

from langgraph.errors import GraphBubbleUp
from langgraph.types import interrupt
from pydantic import BeforeValidator

from petal.checkpoints.codec import ValueNotSavableError
from petal.checkpoints.saver import PetalSaver
from petal.core.effects.dry import Records, aread_records, choose, read_records
from petal.core.effects.exactness import loss
from petal.core.effects.records import DONE, FAILED, PAUSED, START, Effect, Identity, digest, error_text
from petal.core.effects.task import Book, Running, Task, running
from petal.errors import EffectMismatchError, EffectNotRecordedError, EffectResultError, UnknownEffectError

OnUnknown = Literal["run", "ask", "fail"]
"""What becomes of an effect that began and never ended."""

_SHOWN = 200
"""Characters of arguments that an error repeats."""


@dataclass(frozen=True, slots=True)
class Request:
    """An effect that is wanted.

    Attributes:
        identity: Which one.
        arguments: Its arguments as plain data, by name.
        told: What of it must be the same each time its step runs.
        on_unknown: What to do if it began and never ended.
        tool_call_id: Of a tool the id of its call.
        given: Makes a result of what a human answered.
    """

    identity: Identity
    arguments: Mapping[str, Any]
    told: Any
    on_unknown: OnUnknown = "run"
    tool_call_id: str | None = None
    given: Callable[[Any], Any] = field(default=lambda answer: answer)

    @property
    def name(self) -> str:
        """The name of the step or the tool."""
        return self.identity.name

    @property
    def shown(self) -> str:
        """The arguments for an error's text."""
        return _cut(self.arguments)


class Load(NamedTuple):
    """Wants the task's book."""


class Look(NamedTuple):
    """Wants all records that a dry run may answer from."""


class Put(NamedTuple):
    """Wants something recorded."""

    value: Mapping[str, Any]
    key: str


class Call(NamedTuple):
    """Wants the effect to happen."""

    running: Running


Wish = Load | Look | Put | Call
Script = Generator[Wish, Any, Any]
"""Yields what it wants done, is sent what came of it, and returns the effect's result."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What is decided of an effect before it runs.

    Attributes:
        known: What is recorded of it.
        questions: How many questions were asked about it, with those asked before.
        answer: A human's answer, that gives its result; None to run it.
    """

    known: Effect | None
    questions: int
    answer: dict[str, Any] | None = None


def settled(task: Task, request: Request, book: Book) -> Settled:
    """What is decided of an effect; decided once an execution.

    Raises:
        EffectMismatchError: If it was recorded with other arguments.
        UnknownEffectError: If it began and never ended, and is to fail then.
        GraphInterrupt: If it began and never ended, and a human is to be asked.
    """
    if (decided := book.settled.get(request.identity)) is None:
        decided = book.settled[request.identity] = _settle(task, request, book)
    assert isinstance(decided, Settled)
    return decided


def _settle(task: Task, request: Request, book: Book) -> Settled:
    known = (book.effects or {}).get(request.identity)
    if known is None:
        return Settled(None, 0)
    if known.begun["told"] != digest(request.told):
        raise EffectMismatchError(request.name, _cut(known.begun["arguments"]), request.shown)
    if known.ended is not None and known.status == DONE:
        task.pass_questions(known.ended["questions"])
        return Settled(known, 0)
    questions = known.begun["questions"]
    task.pass_questions(questions)
    if known.status != "unknown" or request.on_unknown == "run" or task.is_dry:
        return Settled(known, questions)
    if request.on_unknown == "fail":
        raise UnknownEffectError(request.name, request.shown, known.begun["key"], known.begun["time"])
    schema: Any = Annotated[dict[str, Any], BeforeValidator(_read)]
    answer = interrupt(_question(request, known), response_schema=schema)
    return Settled(known, questions + 1, answer if "result" in answer else None)


def script(task: Task, request: Request) -> Script:
    """How one effect comes about.

    Raises:
        CancelledError: If it is wanted in a thread of a step that was given up, which may be under way anew by now.
    """
    task.check_wanted()
    book: Book = yield Load()
    if not book.is_kept:
        if task.is_dry:
            raise EffectNotRecordedError(request.name, request.shown, "this run keeps no record")
        return (yield Call(_running(task, request, task.key_of(request.identity))))
    before = settled(task, request, book)
    known = before.known
    if known is not None and known.ended is not None and known.status == DONE:
        return known.ended["result"]
    attempt = 1 if known is None else known.begun["attempt"] + 1
    key = task.key_of(request.identity) if known is None else known.begun["key"]
    source = None
    if task.is_dry:
        records: Records = yield Look()
        source = choose(task, request.identity, digest(request.told), records)
        if source is None or source.ended is None:
            raise EffectNotRecordedError(request.name, request.shown, _instead(known))
    began = time.monotonic()
    here = _running(task, request, key)
    yield Put(_start(task, request, before, attempt, key, source), request.identity.note_key(attempt, START))
    if source is not None and source.ended is not None:
        result = _adapted(source, request)
    elif before.answer is not None:
        result = request.given(before.answer["result"])
    else:
        try:
            result = yield Call(here)
        except GraphBubbleUp:
            yield _end(request, attempt, PAUSED, began)
            raise
        except Exception as error:
            yield _end(request, attempt, FAILED, began, error=error_text(error))
            raise
    try:
        if task.saver is not None and not isinstance(task.saver, PetalSaver) and (lost := loss(task.saver, result)):
            raise lost
        yield _end(request, attempt, DONE, began, result=result, questions=before.questions + here.asked)
    except ValueNotSavableError as error:
        raise EffectResultError(request.name, error.type_name, error.reason) from None
    return result


def run(task: Task, request: Request, call: Callable[[], Any]) -> Any:
    """The result of an effect.

    Args:
        task: The task that wants it.
        request: Which one.
        call: Makes it happen.
    """
    steps = script(task, request)
    try:
        wish = next(steps)
        while True:
            try:
                came: Any = None
                match wish:
                    case Load():
                        came = task.load()
                    case Look():
                        came = read_records(task)
                    case Put():
                        task.put(wish.value, wish.key)
                    case Call():
                        token = running.set(wish.running)
                        try:
                            came = call()
                        finally:
                            running.reset(token)
            except BaseException as error:
                wish = steps.throw(error)
            else:
                wish = steps.send(came)
    except StopIteration as end:
        return end.value


async def arun(task: Task, request: Request, call: Callable[[], Awaitable[Any]]) -> Any:
    """As `run`."""
    steps = script(task, request)
    try:
        wish = next(steps)
        while True:
            try:
                came: Any = None
                match wish:
                    case Load():
                        came = await task.aload()
                    case Look():
                        came = await aread_records(task)
                    case Put():
                        await task.aput(wish.value, wish.key)
                    case Call():
                        token = running.set(wish.running)
                        try:
                            came = await call()
                        except asyncio.CancelledError:
                            wish.running.is_given_up = True
                            raise
                        finally:
                            running.reset(token)
            except BaseException as error:
                wish = steps.throw(error)
            else:
                wish = steps.send(came)
    except StopIteration as end:
        return end.value


def _running(task: Task, request: Request, key: str) -> Running:
    return Running(task.id, key, request.identity, running.get())


def _start(
    task: Task, request: Request, before: Settled, attempt: int, key: str, source: Effect | None
) -> dict[str, Any]:
    one = request.identity
    return {
        "word": START,
        "identity": [one.task_id, one.kind, one.name, one.call],
        "arguments": dict(request.arguments),
        "told": digest(request.told),
        "tool_call_id": request.tool_call_id,
        "attempt": attempt,
        "time": datetime.now(UTC).isoformat(),
        "key": key,
        "questions": before.questions,
        "node": task.node,
        "place": task.place,
        "root": task.root,
        "replayed": None if source is None else source.origin,
    }


def _end(request: Request, attempt: int, word: str, began: float, **more: Any) -> Put:
    one = request.identity
    said = {
        "word": word,
        "identity": [one.task_id, one.kind, one.name, one.call],
        "seconds": time.monotonic() - began,
        **more,
    }
    return Put(said, one.note_key(attempt, word))


def _adapted(source: Effect, request: Request) -> Any:
    """A recorded result as that of another call, whose id a tool's message has to name."""
    assert source.ended is not None, "only a finished effect is a source"
    result = source.ended["result"]
    if request.tool_call_id is None or source.begun["tool_call_id"] == request.tool_call_id:
        return result
    return _renamed(result, source.begun["tool_call_id"], request.tool_call_id)


def _renamed(result: Any, old: str | None, new: str) -> Any:
    if isinstance(result, list):
        return [_renamed(one, old, new) for one in result]
    if getattr(result, "tool_call_id", None) == old:
        return result.model_copy(update={"tool_call_id": new})
    update = getattr(result, "update", None)
    if isinstance(update, dict) and "messages" in update:
        return type(result)(
            graph=result.graph,
            update={**update, "messages": _renamed(update["messages"], old, new)},
            resume=result.resume,
            goto=result.goto,
        )
    return result


def _question(request: Request, known: Effect) -> dict[str, Any]:
    return {
        "question": (
            f"{request.name!r} with {request.shown} began at {known.begun['time']} and never ended. Answer run to call "
            'it again, or {"result": …} if it happened.'
        ),
        "effect": request.name,
        "arguments": dict(request.arguments),
        "idempotency_key": known.begun["key"],
        "started": known.begun["time"],
        "attempt": known.begun["attempt"],
    }


def _read(answer: Any) -> dict[str, Any]:
    if isinstance(answer, str) and answer.strip().lower() == "run":
        return {"run": True}
    if isinstance(answer, dict) and (answer == {"run": True} or answer.keys() == {"result"}):
        return answer
    raise ValueError('answer run, or {"result": …}')


def _instead(known: Effect | None) -> str:
    match None if known is None else known.status:
        case "failed" if known and known.ended:
            return f"it failed ({known.ended['error']})"
        case "unknown":
            return "it began and never ended"
        case _:
            return "nothing like it is on record"


def _cut(arguments: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "no arguments"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
