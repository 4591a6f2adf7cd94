"""What a conversation must be like for a model to take it: each tool call has one result, directly behind it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call

Key = tuple[int, str]
"""A call: the place of its message in the conversation, and its id. Some models use an id again in a later turn."""

_IDS = uuid.UUID("8a4c7b0e-3f0d-5c8e-9b53-6d1f2a7c4e90")
"""Results that stand in have ids of this namespace, so that two steps that find the same call agree on them."""


@dataclass(frozen=True, slots=True)
class DanglingCall:
    """A tool call without a result.

    Attributes:
        place: Where its message stands in the conversation.
        call: Its id, the tool's name and the arguments; of a call that could not be read, none.
        is_readable: Whether its arguments could be read; else it can only be answered, not run.
    """

    place: int
    call: ToolCall
    is_readable: bool = True

    @property
    def key(self) -> Key:
        """Tells it from all other calls of the conversation."""
        return self.place, self.call["id"] or ""

    def result(self, text: str, *, failed: bool = True) -> ToolMessage:
        """A result that stands in for the one that never came."""
        status = "error" if failed else "success"
        return ToolMessage(text, tool_call_id=self.call["id"], name=self.call["name"] or None, status=status)

    def interrupted(self) -> ToolMessage:
        """The result that says that there is none."""
        if not self.is_readable:
            return self.result(f"The call of {self.call['name']!r} was not run: its arguments cannot be read as JSON.")
        return self.result(
            f"The call of {self.call['name']!r} was interrupted and never gave a result. It may have been carried out "
            "in part or in full."
        )


def healthy(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The conversation in a form that every provider takes.

    A tool call without a result gets one, a `ToolMessage` of status `"error"` that says so. Results go directly behind
    their call. Those of no call, and second ones, are left out. A healthy conversation comes back as it is, and
    messages that stay are the same objects, with the same ids.

    In a LangGraph node, kept in the state too:

    ```python
    update = {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), *petal.healthy(state["messages"])]}
    ```
    """
    return mended(messages, {})


def dangling(messages: Sequence[BaseMessage]) -> list[DanglingCall]:
    """The tool calls that have no result, in their order."""
    if is_healthy(messages):
        return []
    found = _results(messages)
    return [
        DanglingCall(place, call, is_readable)
        for place, message in enumerate(messages)
        if isinstance(message, AIMessage)
        for call, is_readable in _calls(_legible(message, place))
        if (place, call["id"]) not in found
    ]


def is_healthy(messages: Sequence[BaseMessage]) -> bool:
    """Whether every provider takes the conversation as it is.

    Each turn asks this of the whole conversation, so it looks at types, which `isinstance` of pydantic's classes does
    not do as fast.
    """
    waiting: set[str | None] = set()
    for message in messages:
        match message.type:
            case "tool":
                if message.tool_call_id not in waiting:  # type: ignore[attr-defined]
                    return False
                waiting.remove(message.tool_call_id)  # type: ignore[attr-defined]
            case _ if waiting:
                return False
            case "ai" | "AIMessageChunk":
                asking: AIMessage = message  # type: ignore[assignment]
                if asking.tool_calls or asking.invalid_tool_calls or not isinstance(asking.content, str):
                    if _legible(asking, 0) is not asking:
                        return False
                    waiting = {call["id"] for call in (*asking.tool_calls, *asking.invalid_tool_calls)}
    return not waiting


def mended(messages: Sequence[BaseMessage], results: Mapping[Key, ToolMessage]) -> list[BaseMessage]:
    """As `healthy`, with these results for dangling calls; one that has none here was interrupted."""
    if is_healthy(messages):
        return list(messages)
    found = _results(messages)
    whole: list[BaseMessage] = []
    for place, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            continue
        if not isinstance(message, AIMessage):
            whole.append(message)
            continue
        legible = _legible(message, place)
        whole.append(legible)
        whole += _behind(messages, place, _calls(legible), found, results)
    return whole


def first_change(before: Sequence[BaseMessage], after: Sequence[BaseMessage]) -> int | None:
    """The first place where two conversations are not made of the same messages; None if there is none."""
    for place, (old, new) in enumerate(zip(before, after, strict=False)):
        if old is not new:
            return place
    return None if len(before) == len(after) else min(len(before), len(after))


def _behind(
    messages: Sequence[BaseMessage],
    place: int,
    calls: Sequence[tuple[ToolCall, bool]],
    found: Mapping[Key, list[ToolMessage]],
    results: Mapping[Key, ToolMessage],
) -> list[ToolMessage]:
    """The results of a message's calls: in the order in which they stand there if that will do, else in the calls'."""
    by_id = {call["id"]: DanglingCall(place, call, is_readable) for call, is_readable in calls}
    end = place + 1
    while end < len(messages) and isinstance(messages[end], ToolMessage):
        end += 1
    standing = [message for message in messages[place + 1 : end] if isinstance(message, ToolMessage)]
    best = {id: _best(found[one.key]) for id, one in by_id.items() if one.key in found}
    if len(standing) == len(by_id) and all(message is best.get(message.tool_call_id) for message in standing):
        return standing
    return [
        best.get(id) or _identified(results.get(one.key) or one.interrupted(), messages, one)
        for id, one in by_id.items()
    ]


def _results(messages: Sequence[BaseMessage]) -> dict[Key, list[ToolMessage]]:
    """The results of each call: those behind it that no later call of the same id has taken."""
    latest: dict[str | None, int] = {}
    found: dict[Key, list[ToolMessage]] = {}
    for place, message in enumerate(messages):
        if isinstance(message, AIMessage):
            latest |= {call["id"]: place for call, _ in _calls(_legible(message, place))}
        elif isinstance(message, ToolMessage) and message.tool_call_id in latest:
            found.setdefault((latest[message.tool_call_id], message.tool_call_id), []).append(message)
    return found


def _best(results: Sequence[ToolMessage]) -> ToolMessage:
    """The first that is no error: one that stood in gives way to the real one, should it come late."""
    return next((result for result in results if result.status == "success"), results[0])


def _identified(result: ToolMessage, messages: Sequence[BaseMessage], call: DanglingCall) -> ToolMessage:
    if result.id is not None:
        return result
    named = f"{messages[call.place].id or call.place}/{call.call['id']}"
    return result.model_copy(update={"id": str(uuid.uuid5(_IDS, named))})


def _calls(message: AIMessage) -> list[tuple[ToolCall, bool]]:
    """A message's calls, and whether each can be read."""
    unread = [tool_call(name=call["name"] or "unknown", args={}, id=call["id"]) for call in message.invalid_tool_calls]
    return [*((call, True) for call in message.tool_calls), *((call, False) for call in unread)]


def _legible(message: AIMessage, place: int) -> AIMessage:
    """The message with all its calls where every provider's class looks for them, and an id for each.

    Anthropic's content blocks hold calls too. What its own servers run (`server_tool_use`) is no call of ours.
    """
    calls = (*message.tool_calls, *message.invalid_tool_calls)
    ids = {call["id"] for call in calls}
    blocks = [] if isinstance(message.content, str) else message.content
    hidden = [
        block
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "tool_use" and block.get("id") and block["id"] not in ids
    ]
    if not hidden and all(ids):
        return message
    read, unread = list(message.tool_calls), list(message.invalid_tool_calls)
    for block in hidden:
        name, args, id = block.get("name") or "unknown", block.get("input"), block["id"]
        if isinstance(args, dict):
            read.append(tool_call(name=name, args=args, id=id))
        else:
            unread.append(invalid_tool_call(name=name, args=block.get("partial_json") or args, id=id))
    return message.model_copy(
        update={
            "tool_calls": _with_ids(read, f"call_{message.id or place}"),
            "invalid_tool_calls": _with_ids(unread, f"unread_{message.id or place}"),
        }
    )


def _with_ids(calls: Sequence[Any], prefix: str) -> list[Any]:
    return [call if call["id"] else {**call, "id": f"{prefix}_{number}"} for number, call in enumerate(calls)]
