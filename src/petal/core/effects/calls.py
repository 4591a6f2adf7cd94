"""Tool calls as effects: each is recorded, and answered from the record when its step runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest

from petal.core.effects.recorder import OnUnknown, Request, arun, run, settled
from petal.core.effects.records import plain
from petal.core.effects.task import Book, Task


@dataclass(frozen=True, slots=True)
class RecordedCalls:
    """Wraps the tool calls of a step.

    Attributes:
        on_unknown: What becomes of a call that began and never ended.
    """

    on_unknown: OnUnknown = "run"

    def wrap(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Any]) -> Any:
        """A call's result, from the record or from its tool."""
        task = Task.current()
        if task is None:
            return execute(request)
        return run(task, self._request(task, request.tool_call), lambda: execute(request))

    async def awrap(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        """As `wrap`. One that fails or asks does so when those beside it have ended, or these were left unrecorded.

        On threads LangGraph waits for them itself.
        """
        task = Task.current()
        if task is None:
            return await execute(request)
        beside, ended = task.book.under_way, asyncio.Event()
        beside.append(ended)
        try:
            return await arun(task, self._request(task, request.tool_call), lambda: execute(request))
        except Exception:
            ended.set()
            await asyncio.sleep(0)  # those that were given out together all begin in one turn of the loop
            for other in beside:
                await other.wait()
            raise
        finally:
            ended.set()

    def prepare(self, calls: Sequence[ToolCall]) -> None:
        """Decide in the order of the calls what becomes of each, before they run at the same time.

        Questions are known by their order, which would be left to chance later.
        """
        if (task := Task.current()) is not None:
            self._settle(task, task.load(), calls)

    async def aprepare(self, calls: Sequence[ToolCall]) -> None:
        """As `prepare`."""
        if (task := Task.current()) is not None:
            self._settle(task, await task.aload(), calls)

    def _settle(self, task: Task, book: Book, calls: Sequence[ToolCall]) -> None:
        if not book.is_kept:
            return
        counted = book.counts.copy()
        for call in calls:
            settled(task, self._request(task, call), book)
        book.counts = counted

    def _request(self, task: Task, call: ToolCall) -> Request:
        identity = task.next_identity("tool", call["name"], call["id"])
        told = plain(call["args"])
        return Request(identity, told, told, self.on_unknown, call["id"], lambda answer: _message(call, answer))


def _message(call: ToolCall, answer: Any) -> Any:
    content = answer if isinstance(answer, str) else str(answer)
    return ToolMessage(content, name=call["name"], tool_call_id=call["id"] or "")
