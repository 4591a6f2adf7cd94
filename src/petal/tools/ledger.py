"""The record of tool calls: what was asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Command


@dataclass(frozen=True, slots=True)
class ToolCallRecord:
    """One call of a tool, or one `petal.step`.

    What only a recorded call tells is None for calls that only the conversation shows: those from before Petal
    recorded them, and those that never began.

    Attributes:
        id: The call's id, as the model gave it; None for a `petal.step`.
        name: The tool or the step.
        arguments: What it was called with; of a `petal.step`, as plain data by the names of its parameters.
        status: `"done"`; `"failed"`; `"unknown"`: it began and never ended; `"open"`: nothing has answered the call, or
            it waits for an answer itself.
        result: What a step returned, or a tool's text, also the text of a tool's error; None until it is done.
        error: Why it failed; None unless it did.
        kind: `"tool"` or `"step"`.
        started: When its last attempt began, in UTC.
        duration: Seconds that its last attempt took.
        attempt: How often it was begun, from 1.
        checkpoint_id: The checkpoint from which it ran.
        idempotency_key: The key that it had in every attempt.
        replayed: Whether a dry run took its result from the record of an earlier one.
    """

    id: str | None
    name: str
    arguments: Mapping[str, Any]
    status: Literal["done", "failed", "unknown", "open"]
    result: Any = None
    error: str | None = None
    kind: Literal["tool", "step"] = "tool"
    started: datetime | None = None
    duration: float | None = None
    attempt: int | None = None
    checkpoint_id: str | None = None
    idempotency_key: str | None = None
    replayed: bool = False


def recorded_calls(values: Any, recorded: Sequence[ToolCallRecord] = ()) -> list[ToolCallRecord]:
    """The tool calls in a state's `messages`, and what is recorded of them and of others.

    Args:
        values: The state.
        recorded: Of tools and steps, in the order in which they began.

    Returns:
        Calls of which only the conversation tells, as far as they were answered; all that is recorded, in its order,
        but calls of the conversation in the order there; calls that nothing has answered.
    """
    said = _said(values)
    records = [_seen(record) for record in recorded]
    places = _matched(said, records)
    slots = sorted(places.values())
    for slot, record in zip(slots, [records[places[number]] for number in sorted(places)], strict=True):
        records[slot] = record
    rest = [record for number, record in enumerate(said) if number not in places]
    answered = [record for record in rest if record.status != "open"]
    return [*answered, *records, *(record for record in rest if record.status == "open")]


def message_of(result: Any, id: str | None) -> ToolMessage | None:
    """The message in a tool's result that answers the call of this id."""
    update = result.update if isinstance(result, Command) else result
    within = update.get("messages", []) if isinstance(update, dict) else update
    for one in within if isinstance(within, list) else [within]:
        if isinstance(one, Command):
            one = message_of(one, id)
        if isinstance(one, ToolMessage) and one.tool_call_id == id:
            return one
    return None


def _said(values: Any) -> list[ToolCallRecord]:
    messages = values.get("messages", []) if isinstance(values, Mapping) else getattr(values, "messages", [])
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    return [
        _answered(ToolCallRecord(call["id"], call["name"], call["args"], "open"), answers.get(call["id"] or ""))
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]


def _matched(said: Sequence[ToolCallRecord], records: Sequence[ToolCallRecord]) -> dict[int, int]:
    """For calls of the conversation the record of each, from the newest back: ids may come again."""
    waiting: dict[tuple[str | None, str], list[int]] = {}
    for place, record in enumerate(records):
        if record.kind == "tool":
            waiting.setdefault((record.id, record.name), []).append(place)
    found = {}
    for number in reversed(range(len(said))):
        if places := waiting.get((said[number].id, said[number].name)):
            found[number] = places.pop()
    return found


def _seen(record: ToolCallRecord) -> ToolCallRecord:
    """A record with what a tool returned made text."""
    if record.kind == "step" or record.status != "done":
        return record
    return _answered(record, message_of(record.result, record.id))


def _answered(record: ToolCallRecord, answer: ToolMessage | None) -> ToolCallRecord:
    if answer is None:
        return record if record.status == "open" else replace(record, result=None)
    if answer.status == "error":
        return replace(record, status="failed", result=answer.text, error=answer.text)
    return replace(record, status="done", result=answer.text)
