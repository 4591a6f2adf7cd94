"""The record of tool calls: what was asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, ToolMessage


@dataclass(frozen=True, slots=True)
class ToolCallRecord:
    """One call of a tool.

    Attributes:
        id: The call's id, as the model gave it.
        name: The tool.
        arguments: What it was called with.
        status: `"done"`, `"failed"`, or `"open"` while nothing has answered the call.
        result: What it answered, or the error's text; None while it is open.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    status: Literal["done", "failed", "open"]
    result: str | None = None


def recorded_calls(values: Any) -> list[ToolCallRecord]:
    """The tool calls in a state's `messages`, in their order."""
    messages = values.get("messages", []) if isinstance(values, Mapping) else getattr(values, "messages", [])
    answers = {message.tool_call_id: message for message in messages if isinstance(message, ToolMessage)}
    return [
        _record(call, answers.get(call["id"] or ""))
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]


def _record(call: Any, answer: ToolMessage | None) -> ToolCallRecord:
    if answer is None:
        return ToolCallRecord(call["id"], call["name"], call["args"], "open")
    return ToolCallRecord(
        call["id"], call["name"], call["args"], "failed" if answer.status == "error" else "done", answer.text
    )
