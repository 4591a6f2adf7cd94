"""A chat model that answers from a script, for tests of agents."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, InstanceOf, PrivateAttr

from petal.core.models.streaming import ToolBindingModel, chunks, forced_tools, result, usage

Reply: TypeAlias = AIMessage | str | Exception
"""An answer, or an error to raise in its place."""
ReplyFunction: TypeAlias = Callable[[list[BaseMessage]], Reply]
"""Makes an answer from the messages of the request."""


class ScriptEndedError(AssertionError):
    """A scripted model was asked more often than its script has answers."""

    def __init__(self, replies: int) -> None:
        super().__init__(replies)
        self.replies = replies

    def __str__(self) -> str:
        return (
            f"The script has {self.replies} replies, and the model was asked once more; "
            "add a reply, or look at .requests for what was asked."
        )


class ScriptedChatModel(ToolBindingModel):
    """Answers each request with the next reply of a script.

    ```python
    model = ScriptedChatModel(
        replies=[
            AIMessage("", tool_calls=[{"name": "add", "args": {"a": 2, "b": 3}, "id": "1"}]),
            lambda messages: f"The sum is {messages[-1].text}.",
            TimeoutError("the provider sleeps"),
        ]
    )
    ```

    It streams word by word, and tool calls in pieces. It can be asked from many threads at once; each request
    gets a reply of its own.

    Raises:
        ScriptEndedError: If it is asked again after its last reply.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    # InstanceOf, since pydantic would try to make a message of everything else.
    replies: Sequence[InstanceOf[AIMessage] | str | InstanceOf[Exception] | ReplyFunction] = Field(default_factory=list)
    """Answers in the order of the requests: a message, its text, a function of the request's messages that returns
    either, or an exception to raise."""
    latency: float = Field(default=0.0, ge=0)
    """Seconds that each request takes; asynchronous ones leave the event loop free meanwhile."""

    _requests: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _tools: list[list[str]] = PrivateAttr(default_factory=list)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def requests(self) -> list[list[BaseMessage]]:
        """The messages of each request so far, as they were when it was made."""
        with self._lock:
            return list(self._requests)

    @property
    def tools(self) -> list[list[str]]:
        """The names of the tools that were bound in each request so far."""
        with self._lock:
            return list(self._tools)

    @property
    def _llm_type(self) -> str:
        return "petal-scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self._next(messages, **kwargs)
        time.sleep(self.latency)
        return result(_answer(reply, messages))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self._next(messages, **kwargs)
        await asyncio.sleep(self.latency)
        return result(_answer(reply, messages))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._next(messages, **kwargs)
        time.sleep(self.latency)
        yield from chunks(_answer(reply, messages))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply = self._next(messages, **kwargs)
        await asyncio.sleep(self.latency)
        for chunk in chunks(_answer(reply, messages)):
            yield chunk

    def _next(
        self, messages: list[BaseMessage], *, tools: Any = None, tool_choice: Any = None, **_: Any
    ) -> Reply | ReplyFunction:
        """Record a request and take its reply; whoever comes first gets the first."""
        bound = tools or []
        forced_tools(bound, tool_choice)  # a choice that cannot be made is an error here as with a provider
        with self._lock:
            place = len(self._requests)
            # Copies, since messages are mutable and a graph goes on working with them.
            self._requests.append([message.model_copy(deep=True) for message in messages])
            self._tools.append([tool["function"]["name"] for tool in bound])
        if place >= len(self.replies):
            raise ScriptEndedError(len(self.replies))
        return self.replies[place]


def _answer(reply: Reply | ReplyFunction, messages: list[BaseMessage]) -> AIMessage:
    if callable(reply):
        reply = reply(messages)
    if isinstance(reply, Exception):
        raise reply
    message = AIMessage(reply) if isinstance(reply, str) else reply
    update: dict[str, Any] = {}
    if message.usage_metadata is None:
        update["usage_metadata"] = usage(messages, message)
    if not message.response_metadata:
        update["response_metadata"] = {
            "model_name": "scripted",
            "finish_reason": "tool_calls" if message.tool_calls else "stop",
        }
    # A copy, since LangChain gives the message an id, and the script may be used again.
    return message.model_copy(update=update)
