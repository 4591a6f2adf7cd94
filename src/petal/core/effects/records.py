"""What is recorded of an effect: notes on the checkpoint from which its step runs, and what they say taken together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from petal.checkpoints.notes import Note
from petal.errors import words_of
from petal.tools.ledger import ToolCallRecord

Kind = Literal["step", "tool"]

START, DONE, FAILED, PAUSED, ORIGIN = "start", "done", "failed", "paused", "origin"
"""What a note says: an attempt began, gave a result, raised, stopped at a question; and where a thread was forked."""

_LONGEST = 2000
"""Characters of an error that are kept."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells an effect from others of its thread; the same each time its step runs from the same checkpoint.

    Attributes:
        task_id: LangGraph's id of the task, a hash of its checkpoint and its place in the graph.
        kind: Whether it is a `petal.step` or a call of a tool.
        name: The name of the step or the tool.
        call: Which call of that name in the task; of a tool, with the id of its call.
    """

    task_id: str
    kind: Kind
    name: str
    call: str

    @property
    def digest(self) -> str:
        """A short text for it."""
        return digest([self.task_id, self.kind, self.name, self.call])

    def note_key(self, attempt: int, word: str) -> str:
        """The key of a note on it; in their order a start comes before its end, and attempts follow each other."""
        return f"{self.task_id}/{self.digest}/{attempt:06d}/{'0' if word == START else '1'}"


@dataclass(slots=True)
class Effect:
    """What is known of an effect from its newest attempt.

    Attributes:
        identity: Which one it is.
        thread_id: The thread.
        ns: The namespace of the graph whose step it is.
        checkpoint_id: The checkpoint from which the step ran.
        begun: What was noted when the attempt began.
        ended: What was noted when it ended; None if it never did.
    """

    identity: Identity
    thread_id: str
    ns: str
    checkpoint_id: str
    begun: Mapping[str, Any]
    ended: Mapping[str, Any] | None

    @property
    def status(self) -> Literal["done", "failed", "paused", "unknown"]:
        """How the attempt ended."""
        return "unknown" if self.ended is None else self.ended["word"]

    @property
    def origin(self) -> str:
        """Tells it from all others; what was answered from the record in a dry run has that of its source."""
        own = digest([self.thread_id, self.ns, self.checkpoint_id, self.identity.digest])
        return str(self.begun["replayed"] or own)

    @property
    def record(self) -> ToolCallRecord:
        """It as `Thread.tool_calls` lists it."""
        ended: Mapping[str, Any] = self.ended or {}
        error = ended.get("error")
        return ToolCallRecord(
            id=self.begun["tool_call_id"],
            name=self.identity.name,
            arguments=self.begun["arguments"],
            status="open" if self.status == "paused" else self.status,
            result=ended.get("result"),
            error=error,
            kind=self.identity.kind,
            started=datetime.fromisoformat(self.begun["time"]),
            duration=ended.get("seconds"),
            attempt=self.begun["attempt"],
            checkpoint_id=self.checkpoint_id,
            idempotency_key=self.begun["key"],
            replayed=self.begun["replayed"] is not None,
        )


def effects(notes: Iterable[Note]) -> list[Effect]:
    """The effects that notes tell of, in the order in which their newest attempts began.

    An attempt that was given up may give its result when the next one has begun. It ended then, unless the next one
    did too, or asks something.
    """
    found: dict[tuple[str, str, Identity], Effect] = {}
    done: dict[tuple[str, str, Identity], Effect] = {}
    for note in notes:
        said = note.value
        if said["word"] == ORIGIN:
            continue
        identity = Identity(*said["identity"])
        place = (note.ns, note.checkpoint_id, identity)
        if said["word"] == START:
            if place in found and found[place].status == DONE:
                done[place] = found[place]
            found[place] = Effect(identity, note.thread_id, note.ns, note.checkpoint_id, said, None)
        else:
            found[place].ended = said
    for place, ended in done.items():
        if found[place].status in ("failed", "unknown"):
            found[place] = ended
    return sorted(found.values(), key=lambda effect: effect.begun["time"])


def error_text(error: Exception) -> str:
    """What is kept of an error."""
    text = f"{type(error).__qualname__}: {words_of(error)}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def digest(value: Any) -> str:
    """A short text that is the same for the same plain data, in every process."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain(value: Any) -> Any:
    """An argument as plain data that is the same in every process.

    Models and dataclasses become dicts of their fields; of an object that says nothing of itself, only its type
    is left.
    """
    match value:
        case None | bool() | int() | str():
            return value if type(value) in (bool, int, str) or value is None else f"{type(value).__name__}: {value}"
        case float():
            return value if value == value and abs(value) != float("inf") else str(value)
        case bytes() | bytearray():
            return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:16]}"
        case BaseModel():
            return {name: plain(one) for name, one in value if one is not None}
        case Mapping():
            return {key if isinstance(key, str) else repr(plain(key)): plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case set() | frozenset():
            return sorted((plain(one) for one in value), key=lambda one: json.dumps(one, sort_keys=True))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    text = name if kind is value else str(value)
    return name if text == name or " at 0x" in text else f"{name}: {text}"
